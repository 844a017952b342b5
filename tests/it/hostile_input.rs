//! No input from the network ends closewatch, blocks other sessions, grows its memory, or forges lines of its log.

use std::thread;

use serde_json::Value;

use closewatch::websocket::Endpoint;

use crate::support::{
    Peer, Program, REQUEST, SWITCHING, Server, Session, close_from_server, eventually, from_client, from_server,
};

/// Sends bytes that may be refused before they are all sent, and reads the response.
fn answer_to(program: &Program, bytes: &[u8]) -> String {
    let mut client = program.connect();
    let mut writer = client.again();
    thread::scope(|scope| {
        scope.spawn(move || {
            let _ = writer.try_send(bytes);
        });
        String::from_utf8_lossy(&client.receive_rest().0).into_owned()
    })
}

#[test]
fn large_heads_are_refused() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let start = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n";
    for (what, head) in [
        ("10,000 headers", format!("{start}{}\r\n", "X-Many: 1\r\n".repeat(10_000))),
        ("a header beyond 64 KiB", format!("{start}X-Long: {}\r\n\r\n", "x".repeat(65 << 10))),
        ("a head that never ends", format!("{start}X-Long: {}", "x".repeat(200 << 10))),
        ("a target beyond 64 KiB", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70 << 10))),
    ] {
        let answer = answer_to(&program, head.as_bytes());
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["400", "414", "431"].contains(&status), "{what}: {answer}");
    }
    Session::open(&program, &server).exchange();
}

#[test]
fn bytes_other_than_http_get_400_or_nothing() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {request_head: 500ms}\n");
    let client_hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3].repeat(40);
    let nothing_but_zeros = [0; 10_000];
    for bytes in [
        &client_hello[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0",
        &nothing_but_zeros,
        b"\r\n\r\n\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nBroken header\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET  /two  blanks HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\0c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded: header\r\n\r\n",
        b"G\x1b[2JET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let answer = answer_to(&program, bytes);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{bytes:?}: {answer}");
    }
    Session::open(&program, &server).exchange();
    program.wait_for("websocket_handshake_failures_total", &[], 0.0);
}

#[test]
fn connections_without_a_readable_request_are_counted_by_reason() {
    let server = Server::start();
    let program = Program::before(&server, "log: {level: debug}\n");
    let long = "x".repeat(70 << 10);
    for (reason, bytes) in [
        ("tls_on_plain", &b"\x16\x03\x01\x02\x00\x01\x00"[..]),
        ("http2_on_plain", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("malformed", b"\0\0\0\0"),
        ("malformed", b"GET / HTT"),
        ("head_too_large", format!("GET /{long} HTTP/1.1\r\n").as_bytes()),
        ("head_too_large", format!("GET / HTTP/1.1\r\nX: {long}\r\n").as_bytes()),
    ] {
        let rejected = || program.scrape().sum("closewatch_connections_rejected_total", &[("reason", reason)]);
        let before = rejected();
        let mut client = program.connect();
        let _ = client.try_send(bytes);
        client.finish();
        client.receive_rest();
        eventually(reason, || (rejected() == before + 1.0).then_some(()));
        program.wait_for_log(&format!("connection rejected client=\"{}\"", client.address()), 1);
    }
    // A later request is no reason to reject its connection.
    let mut client = program.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let (mut connection, _) = server.accept_request();
    connection.send("HTTP/1.1 204 No Content\r\n\r\n");
    client.receive_head();
    client.send(b"\0\0");
    assert!(client.receive_head().first_line().starts_with("HTTP/1.1 400 "));
    assert_eq!(program.scrape().sum("closewatch_connections_rejected_total", &[]), 6.0);
}

/// Line breaks, escape sequences that move the cursor of a terminal, and characters that change the writing direction.
const ESCAPES: &str =
    "\u{1b}[2J\u{1b}]0;owned\u{7}\r\n{\"event\":\"session_closed\",\"fake\":true}\r\n\u{85}\u{2028}\u{202e}";

#[test]
fn hostile_record_is_one_line_and_one_object() {
    for format in ["json", "text"] {
        let server = Server::start();
        let program = Program::before(&server, &format!("log: {{format: {format}, sessions: all, level: trace}}\n"));
        let mut client = program.connect();
        // HTTP allows bytes beyond ASCII in the path and in headers.
        client.send(
            REQUEST
                .replace("/chat", "/caf\u{e9}\u{9b}31m\u{202e}\"\\path")
                .replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: a\\\"\u{5c}n\r\nUser-Agent: \u{9b}31m\u{202e}\r\ntraceparent: 00-\u{9b}-x-01\r\n\r\n"),
        );
        let (mut connection, _) = server.accept_request();
        connection.send(SWITCHING.replace(
            "\r\n\r\n",
            "\r\nSec-WebSocket-Protocol: a\\\"\u{5c}n\r\nSec-WebSocket-Extensions: \u{9b}x\r\n\r\n",
        ));
        client.receive_head();
        let mut session = Session { client, server: connection };
        let reason = &ESCAPES[..ESCAPES.floor_char_boundary(123)];
        session.client_closes(4001, reason);
        session.server.send(from_server(0x88, &[&[0x0f, 0xa1][..], b"\xff\xfe\n\x1b[0m\0"].concat()));
        session.client.receive(2 + 10);
        drop(session);
        let record = program.record();
        assert_eq!(record["reason"], reason);
        assert_eq!(record["client_saw"]["reason"], "\u{fffd}\u{fffd}\n\u{1b}[0m\0");
        let log = program.terminated().log;
        let endings: Vec<&String> = log.iter().filter(|line| line.contains("4001")).collect();
        assert_eq!(endings.len(), 1, "{log:#?}");
        for line in &log {
            assert!(!line.contains(['\u{1b}', '\r', '\u{7}', '\u{85}', '\u{9b}', '\u{2028}', '\u{202e}']), "{line:?}");
            if format == "json" {
                assert!(serde_json::from_str::<Value>(line).unwrap().is_object(), "{line:?}");
            }
        }
    }
}

#[test]
fn refusal_escapes_the_status_line_of_the_server() {
    let server = Server::start();
    let program = Program::before(&server, "log: {format: json, level: trace}\n");
    let mut client = program.connect();
    client.send(REQUEST);
    let (mut connection, _) = server.accept_request();
    connection.send(format!("HTTP/1.1 101 {ESCAPES}\r\n\r\n"));
    let (_, body) = client.receive_answer();
    assert!(!body.contains('\u{1b}') && body.lines().count() == 1, "{body:?}");
    for line in program.terminated().log {
        assert!(serde_json::from_str::<Value>(&line).unwrap().is_object(), "{line:?}");
    }
}

#[test]
fn random_bytes_after_the_101_harm_no_other_session() {
    let server = Server::start();
    let program = Program::before(&server, "log: {sessions: off}\ntimeouts: {close: 1s, hang_up: 100ms}\n");
    let bystander = &mut Session::open(&program, &server);
    let mut random = fastrand::Rng::with_seed(2);
    for count in 1..=60 {
        let Session { mut client, server: mut server_end } = Session::open(&program, &server);
        for _ in 0..10 {
            let mut bytes = vec![0; random.usize(1..400)];
            random.fill(&mut bytes);
            // Often the first byte of a frame, so that the decoder reads more than one byte.
            bytes[0] = [0x81, 0x88, 0x89, 0x02, 0x00, 0xf8, bytes[0]][random.usize(..7)];
            client.send(&bytes);
            server_end.expect(&bytes);
            server_end.send(&bytes);
            client.expect(&bytes);
        }
        client.finish();
        server_end.finish();
        client.expect_fin();
        server_end.expect_fin();
        program.records(count);
    }
    bystander.exchange();
}

/// The payload of a Close frame has at most 125 bytes. A longer one is a violation, and no Close frame.
#[test]
fn violation_passes_and_counts_once_per_session() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut session = Session::open(&program, &server);
    let breaches: [(&str, Vec<u8>); 9] = [
        ("unmasked", from_server(0x81, b"no mask")),
        ("reserved_opcode", from_client(0x83, b"?")),
        ("reserved_bits", from_client(0xb1, b"?")),
        ("unexpected_continuation", from_client(0x80, b"?")),
        ("control_fragmented", from_client(0x09, b"?")),
        ("control_too_long", from_client(0x89, &[0; 126])),
        ("length_encoding", [&[0x82, 0xfe, 0, 1, 1, 2, 3, 4][..], b"x"].concat()),
        ("expected_continuation", [from_client(0x01, b"a"), from_client(0x81, b"b"), from_client(0x80, b"c")].concat()),
        ("close_reason_utf8", from_client(0x88, b"\x03\xe8\xff\xff")),
    ];
    for (kind, bytes) in breaches.iter().chain(&breaches) {
        session.pass(Endpoint::Client, bytes);
        program.wait_for("websocket_protocol_violations_total", &[("from", "client"), ("kind", kind)], 1.0);
    }
    session.pass(Endpoint::Server, close_from_server(1002, "no"));
    drop(session);
    let record = program.record();
    let kinds = record["from_client"]["violations"].as_array().unwrap();
    assert_eq!(kinds.len(), breaches.len() + 1, "and data_after_close: {kinds:?}");
    // The client's Close frame comes after its violations. The 1002 means that the server has stopped reading there.
    assert_eq!((&record["code"], &record["initiator"]), (&1002.into(), &"server".into()));
    assert_eq!(record["server_saw"]["code"], 1006);
}

#[test]
fn half_open_handshakes_delay_no_session() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let half_open: Vec<Peer> = (0..200)
        .map(|_| {
            let mut client = program.connect();
            client.send(&REQUEST[..40]);
            client
        })
        .collect();
    Session::open(&program, &server).exchange();
    program.wait_for_at_least("closewatch_connections_active", &[], 200.0);
    drop(half_open);
    program.wait_for("closewatch_connections_active", &[], 0.0);
    assert_eq!(program.scrape().sum("websocket_handshake_failures_total", &[]), 0.0);
}
