//! A peer for tokio-tungstenite, with the line protocol of README.md. It has no permessage-deflate.

use std::io::{BufRead, Write};

use data_encoding::BASE64;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderMap;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

type Socket = WebSocketStream<TcpStream>;
type Commands = mpsc::UnboundedReceiver<Value>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let commands = read_commands();
    match std::env::args().nth(1).as_deref() {
        Some("client") => be_client(commands).await,
        Some("server") => be_server(commands).await,
        role => panic!("the role must be `client` or `server`, not {role:?}"),
    }
}

/// The commands from standard input. The channel closes at the end of the input.
fn read_commands() -> Commands {
    let (sender, commands) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let command = serde_json::from_str(&line).expect("the orchestrator writes JSON");
            if sender.send(command).is_err() {
                break;
            }
        }
    });
    commands
}

async fn be_client(mut commands: Commands) {
    emit(&json!({"event": "ready"}));
    while let Some(command) = commands.recv().await {
        let url = command["url"].as_str().expect("nothing but `connect` comes between two connections");
        match connect(url).await {
            Ok(socket) => converse(socket, &mut commands).await,
            Err(error) => emit(&json!({"event": "refused", "error": error.to_string()})),
        }
    }
}

async fn connect(url: &str) -> Result<Socket, tungstenite::Error> {
    let authority = url.trim_start_matches("ws://").trim_end_matches('/');
    let (socket, response) = client_async(url, TcpStream::connect(authority).await?).await?;
    emit(&json!({"event": "open", "extensions": extensions(response.headers())}));
    Ok(socket)
}

async fn be_server(mut commands: Commands) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
    let address = listener.local_addr().expect("a bound listener has an address");
    emit(&json!({"event": "ready", "port": address.port()}));
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.expect("loopback accepts");
                match accept(stream).await {
                    Ok(socket) => converse(socket, &mut commands).await,
                    Err(error) => emit(&json!({"event": "refused", "error": error.to_string()})),
                }
            }
            None = commands.recv() => return,
        }
    }
}

async fn accept(stream: TcpStream) -> Result<Socket, tungstenite::Error> {
    let mut offer = Value::Null;
    // tungstenite defines the error type.
    #[allow(clippy::result_large_err)]
    let note_offer = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        offer = extensions(request.headers());
        Ok(response)
    };
    let socket = accept_hdr_async(stream, note_offer).await?;
    emit(&json!({"event": "open", "offer": offer, "extensions": null}));
    Ok(socket)
}

/// Runs commands and reports events until the connection or the commands end.
async fn converse(mut socket: Socket, commands: &mut Commands) {
    let mut close = None;
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(command) => obey(&mut socket, &command).await,
                None => return,
            },
            message = socket.next() => match message {
                Some(Ok(Message::Close(frame))) => close = Some(frame),
                Some(Ok(message)) => emit_message(&message),
                Some(Err(error)) => return emit_close(close.as_ref(), Some(&error)),
                None => return emit_close(close.as_ref(), None),
            }
        }
    }
}

async fn obey(socket: &mut Socket, command: &Value) {
    let done = match command["do"].as_str() {
        Some("send") => send(socket, command).await,
        Some("close") => socket.send(Message::Close(close_frame(command))).await,
        other => panic!("`{other:?}` is no command of an open connection"),
    };
    if let Err(error) = done {
        emit(&json!({"event": "refused", "error": error.to_string()}));
    }
}

async fn send(socket: &mut Socket, command: &Value) -> Result<(), tungstenite::Error> {
    let (data, opcode) = match (command["text"].as_str(), command["binary"].as_str()) {
        (Some(text), _) => (text.as_bytes().to_vec(), Data::Text),
        (_, Some(binary)) => (BASE64.decode(binary.as_bytes()).expect("the orchestrator writes base64"), Data::Binary),
        _ => panic!("a message is text or binary"),
    };
    let fragments = command["fragments"].as_u64().map_or(1, |count| usize::try_from(count).expect("a small number"));
    let size = data.len().div_ceil(fragments).max(1);
    for piece in 0..fragments {
        let part = data[data.len().min(piece * size)..data.len().min((piece + 1) * size)].to_vec();
        let opcode = if piece == 0 { opcode } else { Data::Continue };
        let frame = Frame::message(part, OpCode::Data(opcode), piece == fragments - 1);
        socket.feed(Message::Frame(frame)).await?;
    }
    socket.flush().await
}

fn close_frame(command: &Value) -> Option<CloseFrame> {
    let code = u16::try_from(command["code"].as_u64()?).expect("a close code has 16 bits");
    let reason = command["reason"].as_str().expect("a code comes with a reason").to_owned();
    Some(CloseFrame { code: code.into(), reason: reason.into() })
}

fn emit(event: &Value) {
    writeln!(std::io::stdout().lock(), "{event}").expect("the orchestrator reads until this peer ends");
}

fn emit_message(message: &Message) {
    match message {
        Message::Text(text) => emit(&json!({"event": "message", "text": text.as_str()})),
        Message::Binary(data) => emit(&json!({"event": "message", "binary": BASE64.encode(data)})),
        // Pings, pongs, and raw frames, which tungstenite never returns.
        _ => {}
    }
}

/// tungstenite has no close event. It returns the Close frame as a message, then ends the stream. Without a Close frame
/// the stream ends with an error, which is the 1006 of RFC 6455, section 7.1.5.
fn emit_close(close: Option<&Option<CloseFrame>>, error: Option<&tungstenite::Error>) {
    let (code, reason) = match close {
        Some(Some(frame)) => (u16::from(frame.code), frame.reason.as_str()),
        Some(None) => (1005, ""),
        None => (1006, ""),
    };
    let message = error.map(ToString::to_string);
    emit(&json!({"event": "close", "code": code, "reason": reason, "clean": null, "message": message}));
}

fn extensions(headers: &HeaderMap) -> Value {
    headers
        .get("sec-websocket-extensions")
        .map_or(Value::Null, |value| String::from_utf8_lossy(value.as_bytes()).into())
}
