//! The demo's server and clients over real sockets, with raw bytes and with tokio-tungstenite.

use std::net::SocketAddr;

use closewatch::demo::clients;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest, protocol::frame::coding::CloseCode},
};

use crate::support::{
    Demo, Head, Peer, REQUEST, Server, TcpEnd, close, close_from_client, close_from_server, from_client, from_server,
};

/// Sends a request, and reads the head of the response.
fn request(demo: &Demo, request: &str) -> (Peer, Head) {
    let mut client = Peer::connect(demo.address);
    client.send(request);
    let head = client.receive_head();
    (client, head)
}

fn upgrade(demo: &Demo) -> Peer {
    let (client, head) = request(demo, REQUEST);
    assert_eq!(head.first_line(), "HTTP/1.1 101 Switching Protocols");
    assert_eq!(head.value("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client
}

fn text(payload: &str) -> Vec<u8> {
    from_client(0x81, payload.as_bytes())
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

#[test]
fn close_sends_any_code() {
    let demo = Demo::start();
    for code in [0_u16, 999, 1000, 1001, 1004, 1005, 1006, 1012, 1014, 1015, 1016, 2999, 3000, 4999, 5000, 65535] {
        let mut client = upgrade(&demo);
        client.send(text(&format!("close {code} as you wish")));
        let payload = close(code, "as you wish");
        client.expect([&[0x88, 13], &payload[..]].concat());
        client.send(from_client(0x88, &payload));
        client.expect_fin();
    }
}

#[test]
fn close_alone_sends_an_empty_close_frame() {
    let demo = Demo::start();
    let mut client = upgrade(&demo);
    client.send(text("close"));
    client.expect([0x88, 0]);
}

#[tokio::test]
async fn long_reason_is_cut_between_characters() {
    let demo = Demo::start();
    let address = demo.address;
    let (mut socket, _) = client_async(format!("ws://{address}"), connect(address).await).await.unwrap();
    socket.send(format!("close 4000 {}\u{20ac}uro", "x".repeat(121)).into()).await.unwrap();
    let Message::Close(Some(close)) = socket.next().await.unwrap().unwrap() else { panic!("no Close frame") };
    assert_eq!(close.reason.as_str(), "x".repeat(121));
}

#[test]
fn close_frame_is_answered_with_the_same_content() {
    let demo = Demo::start();
    for payload in [&b""[..], b"\x03\xe8", b"\x03\xf6gateway", b"\x0f\xa1bye"] {
        let mut client = upgrade(&demo);
        client.send(from_client(0x88, payload));
        client.expect(from_server(0x88, payload));
        client.expect_fin();
    }
}

#[test]
fn abort_sends_rst() {
    let demo = Demo::start();
    let mut client = upgrade(&demo);
    client.send(text("abort"));
    client.expect_rst();
}

#[test]
fn vanish_sends_fin_without_a_close_frame() {
    let demo = Demo::start();
    let mut client = upgrade(&demo);
    client.send(text("vanish"));
    client.expect_fin();
    // The other direction is still open: data that is sent now is not reset.
    client.send(text("too late"));
    client.finish();
}

#[test]
fn silent_server_answers_no_close_frame() {
    let demo = Demo::start();
    let mut client = upgrade(&demo);
    let frames =
        [text("silent"), text("still here"), close_from_client(1000, ""), text("after"), from_client(0x89, b"p")];
    client.send(frames.concat());
    client.expect(b"\x81\x0astill here");
    // The server sends nothing more, and hangs up only after the client.
    assert!(client.nothing_readable());
    client.finish();
    client.expect_fin();
}

#[test]
fn frames_in_the_packet_of_the_request_are_read() {
    let demo = Demo::start();
    let mut client = Peer::connect(demo.address);
    client.send([REQUEST.replace("/chat", "/any/path").as_bytes(), &text("early")].concat());
    client.receive_head();
    client.expect(from_server(0x81, b"early"));
}

#[test]
fn violation_fails_the_connection_with_1002() {
    let demo = Demo::start();
    let mut client = upgrade(&demo);
    client.send(b"\x81\x02hi");
    client.expect(b"\x88\x20\x03\xeaa frame with the wrong masking");
    client.expect_fin();
}

#[tokio::test]
async fn tungstenite_gets_echoes_pings_and_floods() {
    let demo = Demo::start();
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

#[test]
fn status_path_refuses_the_upgrade() {
    let demo = Demo::start();
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
        let (_client, head) = request(&demo, &REQUEST.replace("/chat", path));
        assert_eq!(head.first_line(), status, "{path}");
    }
}

#[test]
fn plain_requests_and_bad_upgrades_get_plain_answers() {
    let demo = Demo::start();
    for (text, status) in [
        ("GET /page HTTP/1.1\r\nHost: demo\r\n\r\n".to_owned(), "HTTP/1.1 200 OK"),
        ("HEAD / HTTP/1.1\r\nHost: demo\r\n\r\n".to_owned(), "HTTP/1.1 200 OK"),
        ("POST / HTTP/1.1\r\nHost: demo\r\nContent-Length: 0\r\n\r\n".to_owned(), "HTTP/1.1 405 Method Not Allowed"),
        (REQUEST.replace("Version: 13", "Version: 8"), "HTTP/1.1 400 Bad Request"),
    ] {
        let (_client, head) = request(&demo, &text);
        assert_eq!(head.first_line(), status, "{text}");
    }
}

#[test]
fn stop_closes_sessions_with_1001_and_frees_the_port() {
    let demo = Demo::start();
    let mut client = upgrade(&demo);
    let (mut idle, _) = request(&demo, "GET / HTTP/1.1\r\nHost: demo\r\n\r\n");
    let address = demo.address;
    let thread = demo.stop();
    client.expect(close_from_server(1001, "the demo's server stops"));
    client.send(close_from_client(1001, ""));
    client.expect_fin();
    assert_eq!(idle.receive_rest().1, TcpEnd::Fin);
    drop(client);
    thread.join().unwrap();
    std::net::TcpListener::bind(address).unwrap();
}

#[tokio::test]
async fn clients_return_after_the_server_was_away() {
    let demo = Demo::start();
    let address = demo.address;
    let (stop, stopped) = oneshot::channel();
    let playing = tokio::spawn(clients::run(address, async { drop(stopped.await) }));
    let listener = tokio::task::spawn_blocking(move || {
        demo.stop().join().unwrap();
        let server = Server::on_tcp(address, 128).unwrap();
        assert!(server.accept_request().1.first_line().starts_with("GET /"));
    });
    listener.await.unwrap();
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
