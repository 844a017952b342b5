//! Upgrades that do not become sessions. Each cause has its status, one line with the reason, and its count.

use crate::support::{Peer, Program, REQUEST, SWITCHING, Server, Session, eventually, from_client};

/// Asserts that closewatch itself responds with a status and one line, and returns the line.
fn expect_refusal(client: &mut Peer, status: &str) -> String {
    let (head, body) = client.receive_answer();
    assert_eq!(head.first_line(), format!("HTTP/1.1 {status}"), "{body}");
    assert_eq!(head.value("content-type"), Some("text/plain; charset=utf-8"));
    let line = body.strip_suffix('\n').unwrap();
    assert!(line.len() > 10 && !line.contains(['\n', '\r']), "{body:?}");
    line.to_owned()
}

/// Asserts the counts of the program's only handshake.
fn expect_counted(program: &Program, route: &str, cause: &str, status: Option<&str>) {
    program.wait_for("websocket_handshake_failures_total", &[("cause", cause), ("route", route)], 1.0);
    let scrape = program.scrape();
    assert_eq!(scrape.sum("websocket_handshake_failures_total", &[]), 1.0);
    assert_eq!(scrape.sum("websocket_handshakes_total", &[]), f64::from(u8::from(status.is_some())));
    if let Some(status) = status {
        assert_eq!(scrape.sum("websocket_handshakes_total", &[("status", status), ("route", route)]), 1.0);
        let outcome = [("outcome", "failed"), ("route", route)];
        assert_eq!(scrape.sum("websocket_handshake_duration_seconds_count", &outcome), 1.0);
    }
    assert_eq!(scrape.sum("websocket_handshakes_in_progress", &[]), 0.0);
    assert_eq!(scrape.sum("websocket_sessions_active", &[]), 0.0);
    scrape.assert_sums();
}

#[test]
fn invalid_upgrade_gets_400_and_ends_the_connection() {
    let with = |headers: &str| REQUEST.replace("\r\n\r\n", &format!("\r\n{headers}\r\n\r\n"));
    for (what, request, route) in [
        ("no Host", REQUEST.replace("Host: example.com\r\n", ""), ""),
        ("two Hosts", with("Host: example.org"), ""),
        ("an invalid Host", REQUEST.replace("Host: example.com", "Host: example com"), ""),
        ("a body", with("Content-Length: 5") + "hello", "default"),
        ("a body in chunks", with("Transfer-Encoding: chunked") + "5\r\nhello\r\n0\r\n\r\n", "default"),
        ("two lengths", with("Transfer-Encoding: chunked\r\nContent-Length: 5"), ""),
    ] {
        let server = Server::start();
        let program = Program::before(&server, "");
        let mut client = program.connect();
        client.send(request);
        let line = expect_refusal(&mut client, "400 Bad Request");
        assert!(line.contains("Host") || line.contains("body") || line.contains("Length"), "{what}: {line}");
        client.expect_fin();
        expect_counted(&program, route, "bad_request", Some("400"));
    }
}

#[test]
fn unreadable_head_counts_as_bad_request() {
    for (request, status) in [
        (REQUEST.replace("Host:", "Ho st:"), "400"),
        (REQUEST.replace("\r\n\r\n", &format!("\r\nX-Long: {}\r\n\r\n", "x".repeat(70_000))), "431"),
    ] {
        let server = Server::start();
        let program = Program::before(&server, "");
        let mut client = program.connect();
        client.send(request);
        let (head, _) = client.receive_answer();
        assert!(head.first_line().starts_with(&format!("HTTP/1.1 {status} ")), "{}", head.text);
        client.expect_fin();
        expect_counted(&program, "", "bad_request", Some(status));
    }
}

/// The frames of a client that did not wait for the response follow a refused upgrade. They are not a second request.
#[test]
fn refusal_before_early_frames_counts_once() {
    let server = Server::start();
    let address = server.address();
    let program = Program::start(&format!(
        "routes:\n- {{name: chat, match: {{host: chat.example.com}}, upstream: 'ws://{address}'}}\n"
    ));
    let mut client = program.connect();
    client.send([REQUEST.as_bytes(), &from_client(0x82, b"early")].concat());
    let (head, _) = client.receive_answer();
    assert_eq!(head.first_line(), "HTTP/1.1 404 Not Found");
    client.receive_rest();
    expect_counted(&program, "", "no_route", Some("404"));
}

#[test]
fn upgrade_with_two_lengths_is_refused() {
    for lengths in ["Content-Length: 0\r\nContent-Length: 0", "Content-Length: 0\r\nContent-Length: 00"] {
        let server = Server::start();
        let program = Program::before(&server, "");
        let mut client = program.connect();
        client.send(REQUEST.replace("\r\n\r\n", &format!("\r\n{lengths}\r\n\r\n")));
        assert!(expect_refusal(&mut client, "400 Bad Request").contains("Content-Length"), "{lengths}");
        client.expect_fin();
        expect_counted(&program, "", "bad_request", Some("400"));
    }
}

#[test]
fn upgrade_without_route_gets_404() {
    let server = Server::start();
    let address = server.address();
    let program = Program::start(&format!(
        "routes:\n- {{name: chat, match: {{host: chat.example.com, path_prefix: /chat}}, upstream: 'ws://{address}'}}\n"
    ));
    for host in ["example.com", "chat.example.com"] {
        let mut client = program.connect();
        client.send(REQUEST.replace("/chat", "/chatter").replace("example.com", host));
        expect_refusal(&mut client, "404 Not Found");
        // The connection stays open for more requests.
        client.send(REQUEST.replace("example.com", "Chat.Example.COM:8080"));
        let (mut server, _) = server.accept_request();
        server.send(SWITCHING);
        client.receive_head();
        Session { client, server }.exchange();
    }
    program.wait_for("websocket_handshakes_total", &[("status", "404"), ("route", "")], 2.0);
    program.wait_for("websocket_handshake_failures_total", &[("cause", "no_route"), ("route", "")], 2.0);
    program.wait_for("websocket_handshakes_total", &[("status", "101"), ("route", "chat")], 2.0);
}

#[test]
fn absent_upstream_gives_502() {
    // A port that has just become free.
    let refused = Server::start().upstream();
    let directory = tempfile::tempdir().unwrap();
    let stale = directory.path().join("stale.sock");
    drop(Server::on_unix(&stale));
    let stale = format!("upstream: unix:{}\n", stale.display());
    for (upstream, cause) in [
        (refused.as_str(), "upstream_refused"),
        (&stale, "upstream_refused"),
        ("upstream: unix:/nonexistent/server.sock\n", "upstream_unreachable"),
        ("upstream: ws://no-such-name.invalid:9000\n", "upstream_unreachable"),
    ] {
        let program = Program::start(upstream);
        let mut client = program.connect();
        client.send(REQUEST);
        expect_refusal(&mut client, "502 Bad Gateway");
        expect_counted(&program, "default", cause, Some("502"));
        client.send(REQUEST);
        expect_refusal(&mut client, "502 Bad Gateway");
    }
}

/// Connecting to a Unix socket has no handshake to wait for. The kernel refuses if the queue is full.
#[test]
fn full_unix_socket_gives_502() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("full.sock");
    let _full = Server::full_on_unix(&path);
    let program = Program::start(&format!("upstream: unix:{}\n", path.display()));
    let mut client = program.connect();
    client.send(REQUEST);
    expect_refusal(&mut client, "502 Bad Gateway");
    expect_counted(&program, "default", "upstream_refused", Some("502"));
}

#[test]
fn slow_upstream_gives_504() {
    let (full, _first) = Server::full();
    let config = format!("upstream: {{url: 'ws://{}', connect_timeout: 300ms}}\n", full.address());
    let program = Program::start(&config);
    let mut client = program.connect();
    client.send(REQUEST);
    assert!(expect_refusal(&mut client, "504 Gateway Timeout").contains("300ms"));
    expect_counted(&program, "default", "upstream_timeout", Some("504"));

    let silent = Server::start();
    let program = Program::before(&silent, "timeouts: {handshake: 300ms}\n");
    let mut client = program.connect();
    client.send(REQUEST);
    let (mut connection, _) = silent.accept_request();
    connection.send("HTTP/1.1 101 Switching Protocols\r\n");
    assert!(expect_refusal(&mut client, "504 Gateway Timeout").contains("300ms"));
    expect_counted(&program, "default", "upstream_timeout", Some("504"));
    connection.receive_rest();
    Session::open_with(client, &silent, REQUEST).exchange();
}

#[test]
fn upstream_that_ends_before_its_response_gives_502() {
    for (sent, resets) in [("", false), ("", true), ("HTTP/1.1 101 Switching Protocols\r\nConnec", false)] {
        let server = Server::start();
        let program = Program::before(&server, "");
        let mut client = program.connect();
        client.send(REQUEST);
        let (mut connection, _) = server.accept_request();
        connection.send(sent);
        if resets {
            connection.reset();
        } else {
            drop(connection);
        }
        expect_refusal(&mut client, "502 Bad Gateway");
        expect_counted(&program, "default", "upstream_reset", Some("502"));
        Session::open_with(client, &server, REQUEST).exchange();
    }
}

#[test]
fn invalid_response_of_the_upstream_gives_502() {
    for (what, answer) in [
        ("no HTTP", "220 mail.example.com ESMTP\r\n\r\n".to_owned()),
        ("bytes", "\0\u{1}\u{2}\u{3}\r\n\r\n".to_owned()),
        ("no Upgrade", SWITCHING.replace("Upgrade: websocket\r\n", "")),
        ("no Connection", SWITCHING.replace("Connection: Upgrade\r\n", "")),
        ("another protocol", SWITCHING.replace("websocket", "h2c")),
        ("another key's Accept", SWITCHING.replace("s3pP", "S3pP")),
        ("no Accept", SWITCHING.replace("Sec-WebSocket-Accept", "X-Accept")),
        ("a subprotocol", SWITCHING.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n")),
        ("an extension", SWITCHING.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")),
        ("headers without end", format!("HTTP/1.1 101 Switching Protocols\r\n{}\r\n", "X-Many: 1\r\n".repeat(10_000))),
    ] {
        let server = Server::start();
        let program = Program::before(&server, "");
        let mut client = program.connect();
        client.send(REQUEST);
        let (mut connection, _) = server.accept_request();
        // closewatch may hang up before it has read the whole response.
        let _ = connection.try_send(answer);
        expect_refusal(&mut client, "502 Bad Gateway");
        expect_counted(&program, "default", "upstream_invalid", Some("502"));
        connection.receive_rest();
        println!("{what} is refused");
        Session::open_with(client, &server, REQUEST).exchange();
    }
}

#[test]
fn client_gone_before_the_response_has_no_status() {
    for resets in [false, true] {
        let server = Server::start();
        let program = Program::before(&server, "");
        let mut client = program.connect();
        client.send(REQUEST);
        let (mut connection, _) = server.accept_request();
        program.wait_for("websocket_handshakes_in_progress", &[("route", "default")], 1.0);
        if resets {
            client.reset();
        } else {
            drop(client);
        }
        // The server's connection ends, too, before it has answered.
        connection.receive_rest();
        expect_counted(&program, "default", "client_gone", None);
    }
}

#[test]
fn client_gone_with_early_frames_is_counted_once() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {handshake: 10s}\n");
    let mut client = program.connect();
    client.send([REQUEST.as_bytes(), &from_client(0x81, b"early")].concat());
    let (mut connection, _) = server.accept_request();
    client.reset();
    connection.send(SWITCHING);
    connection.receive_rest();
    // A failed handshake, or a session that ends at once if closewatch wrote the 101 before it saw the reset.
    eventually("one count", || {
        let scrape = program.scrape();
        let failed = scrape.sum("websocket_handshake_failures_total", &[("cause", "client_gone")]);
        let closed = scrape.sum("websocket_abnormal_closes_total", &[("endpoint", "client"), ("cause", "reset")]);
        (failed + closed == 1.0).then_some(())
    });
    program.scrape().assert_sums();
}
