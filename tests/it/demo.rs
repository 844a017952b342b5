//! The demo's server and clients over real sockets, with raw bytes and with tokio-tungstenite.

use std::{io::ErrorKind, net::SocketAddr};

use closewatch::demo::{DemoServer, clients};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest, protocol::frame::coding::CloseCode},
};

const UPGRADE: &str = "Host: demo\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

struct Demo {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

async fn start() -> Demo {
    let server = DemoServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = server.local_addr();
    let (stop, stopped) = oneshot::channel();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));
    Demo { address, stop, running }
}

/// Sends a request's head and reads the head of the answer, byte by byte, so that the bytes behind it stay unread.
async fn request(address: SocketAddr, head: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8(answer).unwrap())
}

async fn upgrade(address: SocketAddr) -> TcpStream {
    let (stream, answer) = request(address, &format!("GET / HTTP/1.1\r\n{UPGRADE}")).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.to_lowercase().contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{answer}");
    stream
}

/// A client's frame of less than 126 bytes, masked with the key 0.
fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    [&[first_byte, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

async fn expect_bytes(stream: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes, expected);
}

async fn expect_end(stream: &mut TcpStream) {
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
}

#[tokio::test]
async fn close_sends_any_code() {
    let demo = start().await;
    for code in [0_u16, 999, 1000, 1001, 1004, 1005, 1006, 1012, 1014, 1015, 1016, 2999, 3000, 4999, 5000, 65535] {
        let mut stream = upgrade(demo.address).await;
        stream.write_all(&text(&format!("close {code} as you wish"))).await.unwrap();
        let payload = [&code.to_be_bytes()[..], b"as you wish"].concat();
        expect_bytes(&mut stream, &[&[0x88, 13], &payload[..]].concat()).await;
        stream.write_all(&frame(0x88, &payload)).await.unwrap();
        expect_end(&mut stream).await;
    }
}

#[tokio::test]
async fn close_alone_sends_an_empty_close_frame() {
    let demo = start().await;
    let mut stream = upgrade(demo.address).await;
    stream.write_all(&text("close")).await.unwrap();
    expect_bytes(&mut stream, &[0x88, 0]).await;
}

#[tokio::test]
async fn long_reason_is_cut_between_characters() {
    let demo = start().await;
    let address = demo.address;
    let (mut socket, _) = client_async(format!("ws://{address}"), connect(address).await).await.unwrap();
    socket.send(format!("close 4000 {}\u{20ac}uro", "x".repeat(121)).into()).await.unwrap();
    let Message::Close(Some(close)) = socket.next().await.unwrap().unwrap() else { panic!("no Close frame") };
    assert_eq!(close.reason.as_str(), "x".repeat(121));
}

#[tokio::test]
async fn close_frame_is_answered_with_the_same_content() {
    let demo = start().await;
    for payload in [&b""[..], b"\x03\xe8", b"\x03\xf6gateway", b"\x0f\xa1bye"] {
        let mut stream = upgrade(demo.address).await;
        stream.write_all(&frame(0x88, payload)).await.unwrap();
        let length = u8::try_from(payload.len()).unwrap();
        expect_bytes(&mut stream, &[&[0x88, length], payload].concat()).await;
        expect_end(&mut stream).await;
    }
}

#[tokio::test]
async fn abort_sends_rst() {
    let demo = start().await;
    let mut stream = upgrade(demo.address).await;
    stream.write_all(&text("abort")).await.unwrap();
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn vanish_sends_fin_without_a_close_frame() {
    let demo = start().await;
    let mut stream = upgrade(demo.address).await;
    stream.write_all(&text("vanish")).await.unwrap();
    expect_end(&mut stream).await;
    // The other direction is still open: bytes sent now meet no reset.
    stream.write_all(&text("too late")).await.unwrap();
    stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn silent_server_answers_no_close_frame() {
    let demo = start().await;
    let mut stream = upgrade(demo.address).await;
    let frames = [text("silent"), text("still here"), frame(0x88, b"\x03\xe8"), text("after"), frame(0x89, b"p")];
    stream.write_all(&frames.concat()).await.unwrap();
    expect_bytes(&mut stream, b"\x81\x0astill here").await;
    // The server sends nothing more, and hangs up only after the client.
    assert_eq!(stream.try_read(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
    stream.shutdown().await.unwrap();
    expect_end(&mut stream).await;
}

#[tokio::test]
async fn frames_in_the_packet_of_the_request_are_read() {
    let demo = start().await;
    let mut stream = connect(demo.address).await;
    let head = format!("GET /any/path HTTP/1.1\r\n{UPGRADE}\r\n");
    stream.write_all(&[head.as_bytes(), &text("early")].concat()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n\x81\x05early") {
        answer.push(stream.read_u8().await.unwrap());
    }
}

#[tokio::test]
async fn violation_fails_the_connection_with_1002() {
    let demo = start().await;
    let mut stream = upgrade(demo.address).await;
    stream.write_all(b"\x81\x02hi").await.unwrap();
    expect_bytes(&mut stream, b"\x88\x20\x03\xeaa frame with the wrong masking").await;
    expect_end(&mut stream).await;
}

#[tokio::test]
async fn tungstenite_gets_echoes_pings_and_floods() {
    let demo = start().await;
    let mut request = format!("ws://{}/chat", demo.address).into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", "graphql-ws, chat".parse().unwrap());
    let (mut socket, response) = client_async(request, connect(demo.address).await).await.unwrap();
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "graphql-ws");

    let big = Message::Binary(vec![7; 200_000].into());
    for message in [Message::Text("hello".into()), Message::Text("close to nothing".into()), big] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.send(Message::Ping("are you there".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("are you there".into()));
    socket.send("ping".into()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Ping("closewatch demo".into()));
    socket.send("flood 3 70000".into()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(socket.next().await.unwrap().unwrap().len(), 70_000);
    }
    socket.send("close 1013 try again later".into()).await.unwrap();
    let Message::Close(Some(close)) = socket.next().await.unwrap().unwrap() else { panic!("no Close frame") };
    assert_eq!((close.code, close.reason.as_str()), (CloseCode::Again, "try again later"));
}

#[tokio::test]
async fn status_path_refuses_the_upgrade() {
    let demo = start().await;
    for (path, status) in [
        ("/status/401", "HTTP/1.1 401 Unauthorized"),
        ("/status/426", "HTTP/1.1 426 Upgrade Required"),
        ("/status/503", "HTTP/1.1 503 Service Unavailable"),
        ("/status/200", "HTTP/1.1 200 OK"),
        ("/status/204", "HTTP/1.1 204 No Content"),
        ("/status/304", "HTTP/1.1 304 Not Modified"),
        ("/status/101", "HTTP/1.1 404 Not Found"),
        ("/status/teapot", "HTTP/1.1 404 Not Found"),
    ] {
        let (_stream, answer) = request(demo.address, &format!("GET {path} HTTP/1.1\r\n{UPGRADE}")).await;
        assert_eq!(answer.lines().next(), Some(status), "{path}");
    }
}

#[tokio::test]
async fn plain_requests_and_bad_upgrades_get_plain_answers() {
    let demo = start().await;
    for (head, status) in [
        ("GET /page HTTP/1.1\r\nHost: demo\r\n".to_owned(), "HTTP/1.1 200 OK"),
        ("HEAD / HTTP/1.1\r\nHost: demo\r\n".to_owned(), "HTTP/1.1 200 OK"),
        ("POST / HTTP/1.1\r\nHost: demo\r\nContent-Length: 0\r\n".to_owned(), "HTTP/1.1 405 Method Not Allowed"),
        (format!("GET / HTTP/1.1\r\n{}", UPGRADE.replace("13", "8")), "HTTP/1.1 400 Bad Request"),
    ] {
        let (_stream, answer) = request(demo.address, &head).await;
        assert_eq!(answer.lines().next(), Some(status), "{head}");
    }
}

#[tokio::test]
async fn stop_closes_sessions_with_1001_and_frees_the_port() {
    let demo = start().await;
    let mut stream = upgrade(demo.address).await;
    let (mut idle, _) = request(demo.address, "GET / HTTP/1.1\r\nHost: demo\r\n").await;
    demo.stop.send(()).unwrap();
    expect_bytes(&mut stream, b"\x88\x19\x03\xe9the demo's server stops").await;
    stream.write_all(&frame(0x88, b"\x03\xe9")).await.unwrap();
    expect_end(&mut stream).await;
    idle.read_to_end(&mut Vec::new()).await.unwrap();
    drop(stream);
    demo.running.await.unwrap();
    TcpListener::bind(demo.address).await.unwrap();
}

#[tokio::test]
async fn clients_return_after_the_server_was_away() {
    let demo = start().await;
    let address = demo.address;
    let (stop, stopped) = oneshot::channel();
    let playing = tokio::spawn(clients::run(address, async { drop(stopped.await) }));
    drop(demo.stop);
    demo.running.await.unwrap();

    let listener = TcpListener::bind(address).await.unwrap();
    let (mut client, _) = listener.accept().await.unwrap();
    let mut start_line = [0; 5];
    client.read_exact(&mut start_line).await.unwrap();
    assert_eq!(&start_line, b"GET /");
    stop.send(()).unwrap();
    playing.await.unwrap();
}

#[tokio::test]
async fn first_client_closes_cleanly_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let playing = tokio::spawn(clients::run(listener.local_addr().unwrap(), std::future::pending()));
    let (stream, _) = listener.accept().await.unwrap();
    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Close(Some(close)) => break assert_eq!(close.code, CloseCode::Normal),
            message => socket.send(message).await.unwrap(),
        }
    }
    playing.abort();
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}
