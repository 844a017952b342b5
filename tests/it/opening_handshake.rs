//! The opening handshake passes unchanged, both ways.

use crate::support::{
    Peer, Program, REQUEST, SWITCHING, Scrape, Server, Session, close_from_client, close_from_server, eventually,
    from_client, from_server,
};

#[test]
fn headers_pass_both_ways_in_their_own_case() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    client.send(
        "GET /chat/%7Eroom?token=a%20b&x= HTTP/1.1\r\nhost: example.com:81\r\nCONNECTION: keep-alive, Upgrade\r\n\
         upgrade: WebSocket\r\nSec-Websocket-version: 13\r\nSEC-WEBSOCKET-KEY: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: v2.chat, v1.chat\r\nsec-webSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
         Origin: https://example.com\r\nCookie: a=1; b=2\r\nX-Twice: one\r\nx-TWICE: two\r\nX-Empty:\r\n\
         X-Latin1: caf\u{e9}\r\nDNT: 1\r\n\r\n",
    );
    let (mut server, request) = server.accept_request();
    assert_eq!(request.first_line(), "GET /chat/%7Eroom?token=a%20b&x= HTTP/1.1");
    for (name, values) in [
        ("host", vec!["example.com:81"]),
        ("CONNECTION", vec!["Upgrade"]),
        ("upgrade", vec!["websocket"]),
        ("Sec-Websocket-version", vec!["13"]),
        ("SEC-WEBSOCKET-KEY", vec!["dGhlIHNhbXBsZSBub25jZQ=="]),
        ("Sec-WebSocket-Protocol", vec!["v2.chat, v1.chat"]),
        ("sec-webSocket-Extensions", vec!["permessage-deflate; client_max_window_bits"]),
        ("Origin", vec!["https://example.com"]),
        ("Cookie", vec!["a=1; b=2"]),
        ("X-Twice", vec!["one"]),
        ("x-TWICE", vec!["two"]),
        ("X-Empty", vec![""]),
        ("X-Latin1", vec!["caf\u{e9}"]),
        ("DNT", vec!["1"]),
        ("X-Forwarded-For", vec!["127.0.0.1"]),
        ("X-Forwarded-Proto", vec!["http"]),
        ("X-Forwarded-Host", vec!["example.com:81"]),
    ] {
        assert_eq!(request.values(name), values, "{name} in {}", request.text);
    }
    assert_eq!(request.text.lines().count(), 1 + 17 + 1, "no other header: {}", request.text);
    server.send(
        "HTTP/1.1 101 Web Socket Protocol Handshake\r\nupgrade: WebSocket\r\nConnection: upgrade\r\n\
         sec-websocket-ACCEPT: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: v1.chat\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\nCustom-Status: 2000\r\n\
         Set-Cookie: a=1\r\nset-cookie: b=2\r\nserver: TestServer\r\n\r\n",
    );
    let answer = client.receive_head();
    assert_eq!(answer.first_line(), "HTTP/1.1 101 Web Socket Protocol Handshake");
    for (name, values) in [
        ("upgrade", vec!["websocket"]),
        ("Connection", vec!["Upgrade"]),
        ("sec-websocket-ACCEPT", vec!["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]),
        ("Sec-WebSocket-Protocol", vec!["v1.chat"]),
        ("Sec-WebSocket-Extensions", vec!["permessage-deflate; server_no_context_takeover"]),
        ("Custom-Status", vec!["2000"]),
        ("Set-Cookie", vec!["a=1"]),
        ("set-cookie", vec!["b=2"]),
        ("server", vec!["TestServer"]),
    ] {
        assert_eq!(answer.values(name), values, "{name} in {}", answer.text);
    }
    assert_eq!(answer.text.lines().count(), 1 + 9 + 1, "no other header: {}", answer.text);
    drop((client, server));
    let record = program.record();
    assert_eq!(record["path"], "/chat/%7Eroom");
    assert_eq!(record["subprotocol"], "v1.chat");
    assert_eq!(record["extensions"], "permessage-deflate; server_no_context_takeover");
}

/// Load balancers send plain requests and upgrades on the same connections.
#[test]
fn upgrade_behind_plain_requests_passes_unchanged() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let upgrade = REQUEST.replace("\r\n\r\n", "\r\nx-ID: GET /chat HTTP/1.1\r\nX-Role: guest\r\n\r\n");
    let hello = from_client(0x81, b"hello");
    for (what, plain) in [
        ("without a body", "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("with one", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na=b"),
        (
            "with one like a head",
            "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 37\r\n\r\nGET /chat HTTP/1.1\r\nConnection: close",
        ),
    ] {
        for comes_at_once in [true, false] {
            let mut client = program.connect();
            let behind = [upgrade.as_bytes(), &hello].concat();
            client.send(if comes_at_once { [plain.as_bytes(), &behind].concat() } else { plain.into() });
            let (mut first, _) = server.accept_request();
            first.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            assert_eq!(client.receive_answer().1, "ok");
            if !comes_at_once {
                client.send(&behind);
            }
            let (mut second, request) = server.accept_request();
            assert_eq!(request.first_line(), "GET /chat HTTP/1.1", "{what}");
            assert_eq!(request.values("x-ID"), ["GET /chat HTTP/1.1"], "{what}");
            assert_eq!(request.values("X-Role"), ["guest"], "{what}");
            second.send(SWITCHING);
            assert_eq!(client.receive_head().first_line(), "HTTP/1.1 101 Switching Protocols");
            second.expect(&hello);
            Session { client, server: second }.exchange();
        }
    }
    program.wait_for("closewatch_http_requests_total", &[("status", "200")], 6.0);
    program.wait_for("websocket_handshakes_total", &[("status", "101")], 6.0);
}

/// Two recipients could disagree on the end of such a request.
#[test]
fn upgrade_behind_plain_requests_with_two_lengths_is_refused() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    let (mut first, _) = server.accept_request();
    first.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.receive_answer().1, "ok");
    client.send(REQUEST.replace("\r\n\r\n", "\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(client.receive_answer().0.first_line(), "HTTP/1.1 400 Bad Request");
    client.expect_fin();
    program.wait_for("websocket_handshake_failures_total", &[("cause", "bad_request"), ("route", "")], 1.0);
}

/// More bytes than the library reads at once wait, while the server has not answered an earlier upgrade.
#[test]
fn upgrade_after_a_refused_one_loses_no_byte() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let frames = from_client(0x82, &vec![7; 40_000]);
    let mut client = program.connect();
    client.send([REQUEST.as_bytes(), REQUEST.as_bytes(), &frames].concat());
    let (mut first, _) = server.accept_request();
    first.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
    assert_eq!(client.receive_answer().1, "no");
    let (mut second, _) = server.accept_request();
    second.send(SWITCHING);
    client.receive_head();
    second.expect(&frames);
    Session { client, server: second }.exchange();
}

/// RFC 9110, section 8.6.
#[test]
fn response_101_has_no_length() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    client.send(REQUEST);
    let (mut connection, _) = server.accept_request();
    connection.send(SWITCHING.replace("\r\n\r\n", "\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"));
    let answer = client.receive_head();
    assert_eq!((answer.value("content-length"), answer.value("transfer-encoding")), (None, None), "{}", answer.text);
    Session { client, server: connection }.exchange();
}

#[test]
fn interim_responses_are_skipped() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n";
    let mut client = program.connect();
    client.send(REQUEST);
    let (mut connection, _) = server.accept_request();
    connection.send([hints, "HTTP/1.1 100 Continue\r\n\r\n", SWITCHING].concat());
    let answer = client.receive_head();
    assert_eq!(answer.first_line(), "HTTP/1.1 101 Switching Protocols");
    assert_eq!(answer.value("link"), None);
    Session { client, server: connection }.exchange();

    let mut client = program.connect();
    client.send(REQUEST);
    let (mut connection, _) = server.accept_request();
    connection.send([hints, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"].concat());
    let (answer, body) = client.receive_answer();
    assert_eq!((answer.first_line(), body.as_str()), ("HTTP/1.1 401 Unauthorized", "no"));
}

/// `websockets` for Python and others do not encode them.
#[test]
fn target_with_characters_outside_uris_passes_as_it_came() {
    let server = Server::start();
    let program = Program::before(&server, "");
    for target in ["/ws?filter={\"room\":1}", "/<a>`|^\\\"{}?<b>`|^\\\"{}", "/caf\u{e9}?\u{e9}", "//a//b", "/a#b"] {
        let request = REQUEST.replace("/chat", target);
        Session::open_with(program.connect(), &server, &request).exchange();
        // Behind a plain request, too, and if the server refuses it.
        let mut client = program.connect();
        client.send("GET /plain HTTP/1.1\r\nHost: a\r\n\r\n");
        let (mut plain, _) = server.accept_request();
        plain.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.receive_answer().1, "ok");
        for _ in 0..2 {
            client.send(&request);
            let (mut connection, head) = server.accept_request();
            assert_eq!(head.first_line(), format!("GET {target} HTTP/1.1"));
            connection.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
            assert_eq!(client.receive_answer().1, "no");
        }
    }
    let paths: Vec<_> = program.records(5).iter().map(|record| record["path"].clone()).collect();
    assert_eq!(paths, ["/ws", "/<a>`|^\\\"{}", "/caf\u{e9}", "//a//b", "/a"]);
}

#[test]
fn heads_in_single_bytes_pass() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    for byte in format!("\r\n\r\n\n{REQUEST}").as_bytes() {
        client.send([*byte]);
    }
    let (mut connection, request) = server.accept_request();
    assert_eq!(request.first_line(), "GET /chat HTTP/1.1");
    for byte in SWITCHING.as_bytes() {
        connection.send([*byte]);
    }
    client.receive_head();
    Session { client, server: connection }.exchange();
}

const ORIGIN_UNKNOWN: &[&str] = &[];

/// The configuration, the client's headers, and the address, scheme and host that the server gets.
type Forwarding<'a> = (&'a str, &'a str, &'a [&'a str], &'a [&'a str], &'a [&'a str]);

#[test]
fn forwarding_headers_follow_the_configuration() {
    let given = "X-Forwarded-For: 1.2.3.4\r\nX-FORWARDED-FOR: 5.6.7.8\r\nX-Forwarded-Proto: https\r\n\
                X-Forwarded-Host: chat.example.org\r\nForwarded: for=1.2.3.4\r\n";
    let cases: [Forwarding<'_>; 7] = [
        ("{}", "", &["127.0.0.1"], &["http"], &["example.com"]),
        ("{}", given, &["1.2.3.4, 5.6.7.8, 127.0.0.1"], &["https"], &["chat.example.org"]),
        ("{mode: replace}", given, &["127.0.0.1"], &["http"], &["example.com"]),
        ("{mode: off}", "", ORIGIN_UNKNOWN, ORIGIN_UNKNOWN, ORIGIN_UNKNOWN),
        ("{mode: off}", given, &["1.2.3.4", "5.6.7.8"], &["https"], &["chat.example.org"]),
        ("{trusted: [10.0.0.0/8]}", given, &["127.0.0.1"], &["http"], &["example.com"]),
        ("{trusted: [127.0.0.0/8]}", given, &["1.2.3.4, 5.6.7.8, 127.0.0.1"], &["https"], &["chat.example.org"]),
    ];
    for (forwarded, given, address, scheme, host) in cases {
        let server = Server::start();
        let program = Program::before(&server, &format!("forwarded: {forwarded}\n"));
        let upgrade = REQUEST.replace("\r\n\r\n", &format!("\r\n{given}\r\n"));
        let plain = format!("GET / HTTP/1.1\r\nHost: example.com\r\n{given}\r\n");
        for request in [upgrade, plain] {
            let mut client = program.connect();
            client.send(&request);
            let text = server.accept().receive_head().text.to_ascii_lowercase();
            let values =
                |name: &str| -> Vec<&str> { text.lines().filter_map(|line| line.strip_prefix(name)).collect() };
            assert_eq!(values("x-forwarded-for: "), address, "{forwarded}: {text}");
            assert_eq!(values("x-forwarded-proto: "), scheme, "{forwarded}: {text}");
            assert_eq!(values("x-forwarded-host: "), host, "{forwarded}: {text}");
        }
    }
}

#[test]
fn host_header_is_of_the_client_or_of_the_upstream() {
    for (mode, expected) in [("preserve", "example.com".to_owned()), ("upstream", String::new())] {
        let server = Server::start();
        let expected = if expected.is_empty() { server.address().to_string() } else { expected };
        let program = Program::before(&server, &format!("host: {mode}\n"));
        for request in [REQUEST, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"] {
            let mut client = program.connect();
            client.send(request);
            let head = server.accept().receive_head();
            assert_eq!(head.values("Host"), [&expected], "{mode}: {}", head.text);
            assert_eq!(head.values("X-Forwarded-Host"), ["example.com"]);
        }
    }
}

#[test]
fn refusal_passes_whole_and_keeps_the_connection() {
    let large = "x".repeat(1_000_000);
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    for (status, headers, body) in [
        ("401 Who Are You", "WWW-Authenticate: Basic realm=\"chat\"\r\n", "a token is needed\n"),
        ("426 Upgrade Required", "Sec-WebSocket-Version: 13, 8\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", ""),
        ("503 Service Unavailable", "Retry-After: 7\r\nX-Reason: maintenance\r\n", "back soon"),
        ("302 Found", "Location: https://example.com/login\r\n", ""),
        ("200 OK", "Content-Type: text/html\r\n", large.as_str()),
    ] {
        client.send(REQUEST);
        let (mut server, _) = server.accept_request();
        server.send(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()));
        let (answer, received) = client.receive_answer();
        assert_eq!(answer.first_line(), format!("HTTP/1.1 {status}"));
        for header in headers.lines() {
            assert!(answer.text.contains(header), "{header} is missing in {}", answer.text);
        }
        assert!(received == body, "{} bytes of body", received.len());
        program.wait_for("websocket_handshakes_total", &[("status", &status[..3])], 1.0);
    }
    program.wait_for("websocket_handshake_failures_total", &[("cause", "rejected")], 5.0);
    program.wait_for("websocket_handshake_duration_seconds_count", &[("outcome", "rejected")], 5.0);
    let mut session = Session::open_with(client, &server, REQUEST);
    session.exchange();
    program.wait_for("websocket_handshake_duration_seconds_count", &[("outcome", "upgraded")], 1.0);
    program.wait_for("websocket_sessions_active", &[], 1.0);
}

#[test]
fn refusal_passes_its_body_in_every_framing() {
    let chunked = "Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n5\r\n body\r\n0\r\n\r\n";
    for (what, answer) in [
        ("chunked", format!("HTTP/1.1 403 Forbidden\r\n{chunked}")),
        ("chunked, with a length that is ignored", format!("HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n{chunked}")),
        ("to the end of the connection", "HTTP/1.1 403 Forbidden\r\n\r\nsome body".to_owned()),
        ("of an HTTP/1.0 server", "HTTP/1.0 403 Forbidden\r\n\r\nsome body".to_owned()),
    ] {
        let server = Server::start();
        let program = Program::before(&server, "");
        let mut client = program.connect();
        client.send(REQUEST);
        let (mut connection, _) = server.accept_request();
        connection.send(answer);
        drop(connection);
        let head = client.receive_head();
        assert_eq!(head.first_line(), "HTTP/1.1 403 Forbidden", "{what}");
        assert_eq!(head.value("transfer-encoding"), Some("chunked"), "{what}: {}", head.text);
        assert_eq!(head.value("content-length"), None, "{what}: {}", head.text);
        assert_eq!(client.receive_chunked(), "some body", "{what}");
        Session::open_with(client, &server, REQUEST).exchange();
    }
}

#[test]
fn request_with_an_empty_body_is_an_upgrade() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let request = REQUEST.replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n");
    Session::open_with(program.connect(), &server, &request).exchange();
}

#[test]
fn connection_close_does_not_prevent_an_upgrade() {
    let server = Server::start();
    let program = Program::before(&server, "");
    for connection in ["close, Upgrade", "Upgrade, close", "keep-alive\r\nConnection: UPGRADE", "upgrade, X-Gone"] {
        let mut client = program.connect();
        client.send(REQUEST.replace("Connection: Upgrade", &format!("X-Gone: 1\r\nConnection: {connection}")));
        let (mut server, request) = server.accept_request();
        assert_eq!(request.values("Connection"), ["Upgrade"], "{connection}: {}", request.text);
        assert_eq!(request.value("X-Gone").is_some(), !connection.contains("X-Gone"), "{connection}: {}", request.text);
        server.send(SWITCHING);
        let answer = client.receive_head();
        assert_eq!(answer.values("Connection"), ["Upgrade"], "{connection}: {}", answer.text);
        Session { client, server }.exchange();
    }
}

#[test]
fn upgrade_accepts_a_target_in_absolute_form() {
    let server = Server::start();
    let program = Program::before(&server, "");
    for (target, path) in
        [("http://example.org/a?b", "/a?b"), ("ws://example.org", "/"), ("http://example.org?q", "/?q")]
    {
        let mut client = program.connect();
        client.send(REQUEST.replace("/chat", target));
        let (mut server, request) = server.accept_request();
        assert_eq!(request.first_line(), format!("GET {path} HTTP/1.1"));
        assert_eq!(request.values("Host"), ["example.org"]);
        server.send(SWITCHING);
        client.receive_head();
        Session { client, server }.exchange();
    }
}

#[test]
fn connection_header_removes_no_header_of_the_handshake() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    client.send(
        REQUEST.replace("Connection: Upgrade", "Connection: Upgrade, Host, Sec-WebSocket-Key, sec-websocket-version"),
    );
    let request = server.accept().receive_head();
    assert_eq!(request.values("Sec-WebSocket-Key"), ["dGhlIHNhbXBsZSBub25jZQ=="]);
    assert_eq!(request.values("Sec-WebSocket-Version"), ["13"]);
    assert_eq!(request.values("Host"), ["example.com"]);
}

#[test]
fn bytes_behind_the_heads_pass_and_are_counted() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    let (hello, close_of_client) = (from_client(0x81, b"hello"), close_from_client(4001, "bye"));
    client.send([REQUEST.as_bytes(), &hello, &close_of_client].concat());
    let (mut server, _) = server.accept_request();
    let (greeting, close_of_server) = (from_server(0x82, &[7; 300]), close_from_server(4001, ""));
    server.send([SWITCHING.as_bytes(), &greeting, &close_of_server].concat());
    assert_eq!(client.receive_head().first_line(), "HTTP/1.1 101 Switching Protocols");
    client.expect([greeting, close_of_server].concat());
    server.expect([hello, close_of_client].concat());
    drop((client, server));
    let record = program.record();
    assert_eq!(record["code"], 4001);
    assert_eq!(record["reason"], "bye");
    assert_eq!(record["initiator"], "client");
    assert_eq!(record["clean"], true);
    assert_eq!(record["from_client"]["bytes"], 11 + 11);
    assert_eq!(record["from_client"]["frames"], 2);
    assert_eq!(record["from_server"]["bytes"], 304 + 4);
    assert_eq!(record["from_server"]["messages"], 1);
    let scrape = program.scrape();
    let sum = |metric: &str, from: &str| scrape.sum(metric, &[("from", from)]);
    assert_eq!([sum("websocket_bytes_total", "client"), sum("websocket_bytes_total", "server")], [22.0, 308.0]);
    assert_eq!([sum("websocket_messages_total", "client"), sum("websocket_messages_total", "server")], [1.0, 1.0]);
}

#[test]
fn bytes_before_the_101_are_kept_for_the_server() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    let impatient = from_client(0x82, &vec![9; 40_000]);
    client.send([REQUEST.as_bytes(), &impatient[..1]].concat());
    let (mut server, _) = server.accept_request();
    client.send(&impatient[1..]);
    server.send(SWITCHING);
    server.expect(&impatient);
    client.receive_head();
    Session { client, server }.exchange();
}

/// How much the kernel buffers for a client that reads nothing is not known. So a response before the 101 grows, until
/// only a part of the 101 finds room. Each step is shorter than the 101.
#[test]
fn client_that_never_reads_its_101_is_cut() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {handshake: 300ms}\n");
    let switching = SWITCHING.replace("\r\n\r\n", &format!("\r\nX-Long: {}\r\n\r\n", "x".repeat(100_000)));
    let failed = |scrape: &Scrape| scrape.sum("websocket_handshake_failures_total", &[]);
    let upgraded = |scrape: &Scrape| scrape.sum("websocket_handshakes_total", &[("status", "101")]);
    let mut waiting = Vec::new();
    for attempt in 1.. {
        let mut client = Peer::connect_with_small_window(program.address());
        client.send(format!("GET /large HTTP/1.1\r\nHost: example.com\r\n\r\n{REQUEST}"));
        let (mut plain, _) = server.accept_request();
        let body = vec![b'x'; attempt * 50_000];
        plain.send(format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len()));
        plain.send(body);
        let (mut connection, _) = server.accept_request();
        connection.send(&switching);
        let scrape = eventually("the end of the handshake", || {
            let scrape = program.scrape();
            (failed(&scrape) + upgraded(&scrape) >= attempt as f64).then_some(scrape)
        });
        if failed(&scrape) > 0.0 {
            connection.expect_fin();
            break;
        }
        waiting.push((client, plain, connection));
    }
    program.wait_for("websocket_handshake_failures_total", &[("cause", "client_gone")], 1.0);
    program.wait_for("websocket_sessions_active", &[], waiting.len() as f64);
    assert!(program.scrape().nonzero("websocket_closes_total").is_empty());
}

#[test]
fn server_on_a_unix_socket_is_reached() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.sock");
    let server = Server::on_unix(&path);
    let program = Program::start(&format!("upstream: unix:{}\n", path.display()));
    let mut session = Session::open(&program, &server);
    session.exchange();
    session.server_closes(1000, "");
    session.client_closes(1000, "");
    session.server.finish();
    session.client.expect_fin();
    session.server.expect_fin();
    let record = program.record();
    assert_eq!(record["server"], format!("unix:{}", path.display()));
    assert_eq!(record["clean"], true);
    assert!(record["tcp"]["server"].is_null(), "a Unix socket has no TCP_INFO: {record}");
    assert!(record["tcp"]["client"]["rtt_seconds"].as_f64().unwrap() > 0.0);
}
