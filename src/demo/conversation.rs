//! One session of the demo's server, from the 101 to its end.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::command::DemoCommand;
use crate::{
    peer::{Message, PeerConnection, PeerEvent, ReadError, close_frame},
    websocket::close_code::{CloseCode, CloseFrame},
};

/// How long the server waits for the answer to its Close frame: longer than any proxy in front would.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(2);
/// How long the server waits for the client's FIN after its own.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// Echoes messages and runs commands until the session ends. Closes with 1001 when the server stops.
pub(super) async fn hold(mut connection: PeerConnection<TcpStream>, stop: &CancellationToken) {
    let farewell = match converse(&mut connection, stop).await {
        Ok(farewell) => farewell,
        Err(error) => fail(error, &mut connection).await,
    };
    match farewell {
        Farewell::HangUp => connection.hang_up(HANG_UP_TIMEOUT).await,
        Farewell::Abort => connection.abort(),
        Farewell::Silence => connection.discard().await,
    }
}

/// How the server ends its side of the connection.
enum Farewell {
    /// With FIN.
    HangUp,
    /// With RST.
    Abort,
    /// It does nothing until the client hangs up.
    Silence,
}

async fn converse(connection: &mut PeerConnection<TcpStream>, stop: &CancellationToken) -> Result<Farewell, ReadError> {
    let mut answers_close = true;
    loop {
        let event = tokio::select! {
            event = connection.next_event() => event?,
            () = stop.cancelled() => {
                return close(connection, &close_frame(CloseCode::GOING_AWAY, "the demo's server stops")).await;
            }
        };
        match event {
            PeerEvent::Message(message) => match command_in(&message) {
                None => connection.send(message).await?,
                Some(DemoCommand::Close(frame)) => return close(connection, &frame).await,
                Some(DemoCommand::Abort) => return Ok(Farewell::Abort),
                Some(DemoCommand::Vanish) => return Ok(Farewell::HangUp),
                Some(DemoCommand::Silent) => answers_close = false,
                Some(DemoCommand::Ping) => connection.ping("closewatch demo").await?,
                Some(DemoCommand::Flood { messages, size }) => flood(connection, messages, size).await?,
            },
            PeerEvent::Ping(payload) => connection.pong(payload).await?,
            PeerEvent::Pong => {}
            PeerEvent::Close(_) if !answers_close => return Ok(Farewell::Silence),
            PeerEvent::Close(frame) => {
                connection.close(&frame).await?;
                return Ok(Farewell::HangUp);
            }
        }
    }
}

fn command_in(message: &Message) -> Option<DemoCommand> {
    match message {
        Message::Text(text) => DemoCommand::parse(text),
        Message::Binary(_) => None,
    }
}

/// Sends a Close frame and waits for the answer. Everything else that the client still sends is dropped.
async fn close(connection: &mut PeerConnection<TcpStream>, frame: &CloseFrame) -> Result<Farewell, ReadError> {
    connection.close(frame).await?;
    let answer = async { while !matches!(connection.next_event().await, Ok(PeerEvent::Close(_)) | Err(_)) {} };
    // The server hangs up with and without an answer.
    let _ = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
    Ok(Farewell::HangUp)
}

async fn flood(connection: &mut PeerConnection<TcpStream>, messages: usize, size: usize) -> Result<(), ReadError> {
    let message = Message::Text("x".repeat(size));
    for _ in 0..messages {
        connection.send(message.clone()).await?;
    }
    Ok(())
}

async fn fail(error: ReadError, connection: &mut PeerConnection<TcpStream>) -> Farewell {
    if let ReadError::Violation { code, message } = error {
        // The client may be gone already.
        let _ = connection.close(&close_frame(CloseCode(code), message)).await;
    }
    Farewell::HangUp
}
