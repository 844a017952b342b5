//! One session of the demo's server, from the 101 to its end.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::command::Command;
use crate::{
    peer::{CloseFrame, Connection, Event, Message, ReadError},
    websocket::close_code::CloseCode,
};

/// How long the client may take to answer a Close frame: longer than any proxy between would wait.
const ANSWER_PATIENCE: Duration = Duration::from_mins(2);
/// How long the client may take to hang up after the server did.
const HANG_UP_PATIENCE: Duration = Duration::from_secs(5);

/// Echoes messages and obeys commands until the session ends, or with 1001 when the server stops.
pub(super) async fn hold(mut connection: Connection<TcpStream>, stop: &CancellationToken) {
    let farewell = match converse(&mut connection, stop).await {
        Ok(farewell) => farewell,
        Err(error) => answer_to(error, &mut connection).await,
    };
    match farewell {
        Farewell::HangUp => connection.hang_up(HANG_UP_PATIENCE).await,
        Farewell::Abort => connection.abort(),
        Farewell::Silence => connection.discard().await,
    }
}

/// How the server lets go of the connection.
enum Farewell {
    /// FIN.
    HangUp,
    /// RST.
    Abort,
    /// Nothing at all, until the client hangs up.
    Silence,
}

async fn converse(connection: &mut Connection<TcpStream>, stop: &CancellationToken) -> Result<Farewell, ReadError> {
    let mut answers_close = true;
    loop {
        let event = tokio::select! {
            event = connection.next_event() => event?,
            () = stop.cancelled() => {
                return close(connection, &CloseFrame::new(CloseCode::GOING_AWAY.0, "the demo's server stops")).await;
            }
        };
        match event {
            Event::Message(message) => match command_in(&message) {
                None => connection.send(message).await?,
                Some(Command::Close(frame)) => return close(connection, &frame).await,
                Some(Command::Abort) => return Ok(Farewell::Abort),
                Some(Command::Vanish) => return Ok(Farewell::HangUp),
                Some(Command::Silent) => answers_close = false,
                Some(Command::Ping) => connection.ping("closewatch demo").await?,
                Some(Command::Flood { messages, size }) => flood(connection, messages, size).await?,
            },
            Event::Ping(payload) => connection.pong(payload).await?,
            Event::Pong => {}
            Event::Close(_) if !answers_close => return Ok(Farewell::Silence),
            Event::Close(frame) => {
                connection.close(&frame).await?;
                return Ok(Farewell::HangUp);
            }
        }
    }
}

fn command_in(message: &Message) -> Option<Command> {
    match message {
        Message::Text(text) => Command::parse(text),
        Message::Binary(_) => None,
    }
}

/// Sends a Close frame and waits for the answer; whatever else the client still sends is dropped.
async fn close(connection: &mut Connection<TcpStream>, frame: &CloseFrame) -> Result<Farewell, ReadError> {
    connection.close(frame).await?;
    let answer = async { while !matches!(connection.next_event().await, Ok(Event::Close(_)) | Err(_)) {} };
    // Without an answer in time the server hangs up all the same.
    let _ = tokio::time::timeout(ANSWER_PATIENCE, answer).await;
    Ok(Farewell::HangUp)
}

async fn flood(connection: &mut Connection<TcpStream>, messages: usize, size: usize) -> Result<(), ReadError> {
    let message = Message::Text("x".repeat(size));
    for _ in 0..messages {
        connection.send(message.clone()).await?;
    }
    Ok(())
}

async fn answer_to(error: ReadError, connection: &mut Connection<TcpStream>) -> Farewell {
    if let ReadError::Violation { code, what } = error {
        // Where the client is gone already there is nobody to tell.
        let _ = connection.close(&CloseFrame::new(code, what)).await;
    }
    Farewell::HangUp
}
