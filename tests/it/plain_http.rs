//! Plain HTTP on the WebSocket port passes, streamed both ways. Request smuggling does not.

use std::thread;

use crate::support::{Peer, Program, REQUEST, SWITCHING, Server, Session, TcpEnd, eventually};

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Sends a plain request, which opens a connection to the server.
fn ask(client: &mut Peer, server: &Server) -> Peer {
    client.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n");
    let (mut connection, _) = server.accept_request();
    connection.send(ok("first"));
    assert_eq!(client.receive_answer().1, "first");
    connection
}

#[test]
fn requests_and_responses_pass_with_headers_and_bodies() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    client.send(
        "POST /send?q=1 HTTP/1.1\r\nhost: example.com\r\nContent-length: 5\r\nX-ODD-case: 1\r\nConnection: keep-alive, X-Mine\r\n\
         X-Mine: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip, trailers\r\n\r\nhello",
    );
    let (mut connection, request) = server.accept_request();
    assert_eq!(request.first_line(), "POST /send?q=1 HTTP/1.1");
    assert_eq!(request.values("X-ODD-case"), ["1"]);
    assert_eq!(request.values("Content-length"), ["5"]);
    assert_eq!(request.values("host"), ["example.com"]);
    assert_eq!(request.values("TE"), ["trailers"]);
    for name in ["Connection", "X-Mine", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade"] {
        assert_eq!(request.value(name), None, "{}", request.text);
    }
    connection.expect("hello");
    connection.send(
        "HTTP/1.1 207 Many Things\r\nContent-LENGTH: 4\r\nx-odd-Case: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
         Connection: X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=9\r\n\r\nbody",
    );
    let answer = client.receive_head();
    assert_eq!(answer.first_line(), "HTTP/1.1 207 Many Things");
    assert_eq!(answer.values("x-odd-Case"), ["2"]);
    assert_eq!(answer.values("Set-Cookie"), ["a", "b"]);
    assert_eq!(answer.values("Content-LENGTH"), ["4"]);
    for name in ["Connection", "X-Private", "Keep-Alive", "Transfer-Encoding", "Date"] {
        assert_eq!(answer.value(name), None, "{}", answer.text);
    }
    client.expect("body");
    program.wait_for("closewatch_http_requests_total", &[("status", "207"), ("route", "default")], 1.0);
    assert_eq!(program.scrape().sum("websocket_handshakes_total", &[]), 0.0);
}

#[test]
fn bodies_are_streamed_both_ways() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    let (mut connection, request) = server.accept_request();
    assert_eq!(request.values("Transfer-Encoding"), ["chunked"]);
    connection.expect("3\r\none\r\n");
    client.send("3\r\ntwo\r\n");
    connection.expect("3\r\ntwo\r\n");
    // The response begins before the request ends.
    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nthree\r\n");
    assert_eq!(client.receive_head().values("Transfer-Encoding"), ["chunked"]);
    client.expect("5\r\nthree\r\n");
    client.send("4\r\nfour\r\n");
    connection.expect("4\r\nfour\r\n");
    connection.send("4\r\nfive\r\n");
    client.expect("4\r\nfive\r\n");
    client.send("0\r\n\r\n");
    connection.expect("0\r\n\r\n");
    connection.send("0\r\n\r\n");
    client.expect("0\r\n\r\n");
}

#[test]
fn trailers_pass_both_ways() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    let body = "4\r\nbody\r\n0\r\nX-Checksum: 1\r\n\r\n";
    let headers = "Transfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n";
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: trailers\r\n{headers}\r\n{body}"));
    let (mut connection, request) = server.accept_request();
    assert_eq!(request.values("Trailer"), ["X-Checksum"]);
    assert_eq!(connection.receive(body.len()).to_ascii_lowercase(), body.to_ascii_lowercase().as_bytes());
    connection.send(format!("HTTP/1.1 200 OK\r\n{headers}\r\n{body}"));
    assert_eq!(client.receive_head().values("Trailer"), ["X-Checksum"]);
    assert_eq!(client.receive(body.len()).to_ascii_lowercase(), body.to_ascii_lowercase().as_bytes());
}

/// The server must not use a coding that was not requested. But the client can read the body, if it knows the coding.
#[test]
fn response_keeps_its_transfer_codings() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    for (codings, told) in [
        ("Transfer-Encoding: gzip, chunked\r\n", "gzip, chunked"),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: Chunked\r\n", "gzip, Chunked"),
    ] {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let (mut connection, _) = server.accept_request();
        connection.send(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{codings}\r\n4\r\ncode\r\n0\r\n\r\n"));
        assert_eq!(client.receive_head().values("Transfer-Encoding"), [told]);
        client.expect("4\r\ncode\r\n0\r\n\r\n");
    }
}

#[test]
fn connections_are_kept_on_both_sides() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    let mut connection = ask(&mut client, &server);
    for path in ["/1", "/2", "/3"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(connection.receive_head().first_line(), format!("GET {path} HTTP/1.1"));
        connection.send(ok(path));
        assert_eq!(client.receive_answer().1, path);
    }
    // An upgrade has a connection of its own, and with it the client sends no more requests.
    Session::open_with(client, &server, REQUEST).exchange();
    connection.expect_fin();
    program.wait_for("closewatch_http_requests_total", &[("status", "200")], 4.0);
}

/// NTLM and Negotiate authenticate a connection, not a request.
#[test]
fn server_connection_belongs_to_one_client() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut clients = [program.connect(), program.connect()];
    let mut connections = [ask(&mut clients[0], &server), ask(&mut clients[1], &server)];
    for turn in [1, 0, 0, 1] {
        clients[turn].send("GET /again HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(connections[turn].receive_head().first_line(), "GET /again HTTP/1.1");
        connections[turn].send(ok("again"));
        assert_eq!(clients[turn].receive_answer().1, "again");
    }
    let [first, second] = clients;
    drop(first);
    connections[0].expect_fin();
    assert!(connections[1].nothing_readable());
    drop(second);
    connections[1].expect_fin();
}

#[test]
fn connection_that_the_server_closed_is_not_reused() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    for _ in 0..5 {
        let mut connection = ask(&mut client, &server);
        connection.finish();
        connection.expect_fin();
    }
    program.wait_for("closewatch_http_requests_total", &[("status", "200")], 5.0);
    program.wait_for("closewatch_http_requests_total", &[("status", "502")], 0.0);
}

/// The server may hang up while the request is on its way.
#[test]
fn request_on_a_closed_kept_connection_is_retried_once() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    for resets in [false, true] {
        let mut kept = ask(&mut client, &server);
        let request = "GET /again?q=1 HTTP/1.1\r\nhost: a\r\nX-Once: 1\r\n\r\n";
        client.send(request);
        let first = kept.receive_head().text;
        if resets {
            kept.reset();
        } else {
            drop(kept);
        }
        let mut kept = server.accept();
        assert_eq!(kept.receive_head().text, first);
        kept.send(ok("second"));
        assert_eq!(client.receive_answer().1, "second");

        client.send(request);
        kept.receive_head();
        drop(kept);
        let (fresh, _) = server.accept_request();
        drop(fresh);
        assert_eq!(client.receive_answer().0.first_line(), "HTTP/1.1 502 Bad Gateway");
    }
    program.wait_for("closewatch_http_requests_total", &[("status", "200")], 4.0);
    program.wait_for("closewatch_http_requests_total", &[("status", "502")], 2.0);
}

#[test]
fn request_that_may_have_had_effects_is_not_retried() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    for (what, request, answer) in [
        ("a method that is not idempotent", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", ""),
        ("a body that is gone", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1", ""),
        ("an answer that has begun", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nX-Half"),
    ] {
        println!("{what}");
        let mut kept = ask(&mut client, &server);
        client.send(request);
        kept.receive_head();
        kept.send(answer);
        kept.finish();
        assert_eq!(client.receive_answer().0.first_line(), "HTTP/1.1 502 Bad Gateway");
    }
    // The same holds on a new connection, on which the server has not answered yet.
    let program = Program::before(&server, "");
    let mut client = program.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let (fresh, _) = server.accept_request();
    drop(fresh);
    assert_eq!(client.receive_answer().0.first_line(), "HTTP/1.1 502 Bad Gateway");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send([request("/1"), request("/2"), request("/3")].concat());
    let mut connection = server.accept();
    for path in ["/1", "/2", "/3"] {
        assert_eq!(connection.receive_head().first_line(), format!("GET {path} HTTP/1.1"));
        connection.send(ok(path));
        assert_eq!(client.receive_answer().1, path);
    }
}

#[test]
fn responses_without_a_body_stay_without() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    let mut connection = ask(&mut client, &server);
    for (method, answer, length) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", Some("1234")),
        ("GET", "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n", None),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", None),
        ("HEAD", "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Some("0")),
    ] {
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        connection.receive_head();
        connection.send(answer);
        let head = client.receive_head();
        assert_eq!(head.first_line(), answer.lines().next().unwrap());
        assert_eq!(head.value("content-length"), length, "{}", head.text);
    }
    // A body of the last response would come before this.
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    connection.receive_head();
    connection.send(ok("last"));
    assert_eq!(client.receive_answer().1, "last");
}

#[test]
fn client_gets_the_100_continue_it_expects() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    let (mut connection, _) = server.accept_request();
    connection.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.receive_head().first_line(), "HTTP/1.1 100 Continue");
    client.send("data");
    connection.expect("data");
    connection.send(ok("thanks"));
    assert_eq!(client.receive_answer().1, "thanks");
}

#[test]
fn other_upgrades_pass_as_plain_requests() {
    let server = Server::start();
    let program = Program::before(&server, "");
    for (method, version, headers) in [
        ("GET", "1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
        ("POST", "1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n"),
        ("GET", "1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        ("GET", "1.1", "Upgrade: websocket\r\n"),
        ("GET", "1.1", "Connection: Upgrade\r\n"),
    ] {
        let mut client = program.connect();
        client.send(format!("{method} / HTTP/{version}\r\nHost: a\r\n{headers}\r\n"));
        let (mut connection, request) = server.accept_request();
        for name in ["Upgrade", "Connection", "HTTP2-Settings"] {
            assert_eq!(request.value(name), None, "{headers}: {}", request.text);
        }
        connection.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.receive_answer().1, "ok");
    }
    assert_eq!(program.scrape().sum("websocket_handshakes_total", &[]), 0.0);
}

#[test]
fn unsolicited_101_gives_502() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
    let (mut connection, _) = server.accept_request();
    connection.send(SWITCHING.replace("websocket", "h2c"));
    let (head, _) = client.receive_answer();
    assert_eq!(head.first_line(), "HTTP/1.1 502 Bad Gateway");
    connection.receive_rest();
    program.wait_for("closewatch_http_requests_total", &[("status", "502")], 1.0);
    // The client's connection is still HTTP, and the server's is not used again.
    ask(&mut client, &server);
}

#[test]
fn connect_method_is_refused() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    client.send("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n");
    let (head, body) = client.receive_answer();
    assert_eq!(head.first_line(), "HTTP/1.1 400 Bad Request", "{body}");
    client.expect_fin();
}

/// The server sees only the end of its connection.
#[test]
fn broken_body_gets_400() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n";
    let with_length = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\none";
    for (count, (request, rest)) in
        [(chunked, "xyz\r\n"), (chunked, "3\r\ntwo!!"), (chunked, ""), (with_length, "")].into_iter().enumerate()
    {
        println!("{rest:?} behind {request:?}");
        let mut client = program.connect();
        client.send(request);
        let (mut connection, _) = server.accept_request();
        client.send(rest);
        client.finish();
        let (head, body) = client.receive_answer();
        assert_eq!(head.first_line(), "HTTP/1.1 400 Bad Request");
        assert_eq!(body, "the request's body is malformed, or ended before its end\n");
        client.expect_fin();
        connection.receive_rest();
        program.wait_for("closewatch_http_requests_total", &[("status", "400")], (count + 1) as f64);
    }
    // If the client is gone, the server is not at fault, either.
    let mut client = program.connect();
    client.send(with_length);
    let (mut connection, _) = server.accept_request();
    client.reset();
    connection.receive_rest();
    program.wait_for("closewatch_connections_active", &[], 0.0);
    program.wait_for("closewatch_http_requests_total", &[("status", "502")], 0.0);
}

/// One recipient reads a body, another one reads the next request.
#[test]
fn ambiguous_length_gets_400_and_ends_the_connection() {
    let both = "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n";
    let post = |target: &str, headers: &str| format!("POST {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n0\r\n\r\n");
    // A body like the head of the request behind it, without the length.
    let decoy = "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let with_decoy = format!("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{decoy}", decoy.len());
    for (what, request, answered_before) in [
        ("both", post("/", both), false),
        ("both, the other way round", post("/", "transfer-encoding: chunked\r\ncontent-LENGTH: 4\r\n"), false),
        ("a target in absolute form", post("http://example.com", both), false),
        ("another absolute form", post("HTTP://Example.com/", both), false),
        ("a target with a fragment", post("/a#b", both), false),
        ("behind another request", format!("{}{}", post("/a", "Content-Length: 5\r\n"), post("/a", both)), true),
        ("behind a body like its head", format!("{with_decoy}{}", post("/b", both)), true),
        ("two lengths that differ", post("/", "Content-Length: 5\r\nContent-Length: 6\r\n"), false),
        ("a list of lengths", post("/", "Content-Length: 5, 5\r\n"), false),
        ("a signed length", post("/", "Content-Length: +5\r\n"), false),
        ("chunked not last", post("/", "Transfer-Encoding: chunked, identity\r\n"), false),
        ("chunked twice", post("/", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), false),
        ("a coding that the server would not be told of", post("/", "Transfer-Encoding: gzip, chunked\r\n"), false),
        ("no coding that is known", post("/", "Transfer-Encoding: xchunked\r\n"), false),
        ("a blank in the name", post("/", "Transfer-Encoding : chunked\r\n"), false),
        ("in HTTP/1.0", post("/", "Transfer-Encoding: chunked\r\n").replace("HTTP/1.1", "HTTP/1.0"), false),
    ] {
        println!("{what}");
        let server = Server::start();
        let program = Program::before(&server, "");
        let mut client = program.connect();
        client.send(request);
        if answered_before {
            let (mut connection, _) = server.accept_request();
            connection.send(ok("first"));
            assert_eq!(client.receive_answer().1, "first");
        }
        let (head, _) = client.receive_answer();
        assert_eq!(head.first_line(), "HTTP/1.1 400 Bad Request");
        client.expect_fin();
    }
}

#[test]
fn body_that_looks_like_a_head_passes() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    let body = "--x\r\nContent-Length: 4\r\n\r\nabcd\r\n--x--\r\n";
    for _ in 0..3 {
        client.send(format!("POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        let (mut connection, _) = server.accept_request();
        connection.expect(body);
        connection.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.receive_answer().1, "ok");
        let size = body.len();
        client.send(format!(
            "POST /form HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n"
        ));
        let (mut connection, _) = server.accept_request();
        connection.expect(format!("{size:X}\r\n{body}\r\n0\r\n\r\n"));
        connection.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.receive_answer().1, "ok");
    }
}

#[test]
fn target_in_absolute_form_overrides_the_host_header() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    client.send("GET http://example.org:81/path?q HTTP/1.1\r\nHost: example.com\r\n\r\n");
    let (mut connection, request) = server.accept_request();
    assert_eq!(request.first_line(), "GET /path?q HTTP/1.1");
    assert_eq!(request.values("Host"), ["example.org:81"]);
    connection.send(ok(""));
    client.receive_answer();
    client.send("OPTIONS * HTTP/1.1\r\nHost: example.com\r\n\r\n");
    assert_eq!(connection.receive_head().first_line(), "OPTIONS * HTTP/1.1");
}

#[test]
fn http_1_0_client_gets_a_response_without_chunks() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    client.send("GET /old HTTP/1.0\r\n\r\n");
    let mut connection = server.accept();
    assert_eq!(connection.receive_head().first_line(), "GET /old HTTP/1.1");
    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n");
    let (answer, _) = client.receive_rest();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("transfer-encoding"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nbody"), "{answer}");
}

#[test]
fn truncated_response_does_not_look_complete() {
    let server = Server::start();
    let program = Program::before(&server, "");
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let mut client = program.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let (mut connection, _) = server.accept_request();
        connection.send(answer);
        drop(connection);
        let (received, _) = client.receive_rest();
        let received = String::from_utf8(received).unwrap();
        assert!(!received.ends_with("0\r\n\r\n"), "{received}");
    }
}

#[test]
fn failed_plain_request_gets_one_line() {
    let program = Program::start(&Server::start().upstream());
    let mut client = program.connect();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let (head, body) = client.receive_answer();
        assert_eq!(head.first_line(), "HTTP/1.1 502 Bad Gateway");
        assert!(body.ends_with('\n') && body.lines().count() == 1, "{body:?}");
    }
    program.wait_for("closewatch_http_requests_total", &[("status", "502")], 2.0);
    for head in ["GET / HTTP/1.1", "GET / HTTP/1.1\r\nHost: a, b", "GET http://user@a/ HTTP/1.1\r\nHost: a"] {
        let mut client = program.connect();
        client.send(format!("{head}\r\n\r\n"));
        assert_eq!(client.receive_answer().0.first_line(), "HTTP/1.1 400 Bad Request", "{head}");
        client.expect_fin();
    }
}

/// The chunks, the digits and the line breaks of a body may read like a request head.
#[test]
fn chunked_body_that_reads_like_a_head_passes() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let head = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = program.connect();
    let mut connection = ask(&mut client, &server);
    // Neither the first body nor the second ends with a line break.
    client.send("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na=b");
    connection.receive_head();
    connection.expect("a=b");
    connection.send(ok("1"));
    assert_eq!(client.receive_answer().1, "1");
    let body = format!("{:X}\r\n{head}\r\n0\r\n\r\n", head.len());
    let request = format!("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    client.send([&request, "GET /3 HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    assert_eq!(connection.receive_head().first_line(), "POST /a HTTP/1.1");
    connection.expect(&body);
    connection.send(ok("2"));
    assert_eq!(client.receive_answer().1, "2");
    assert_eq!(connection.receive_head().first_line(), "GET /3 HTTP/1.1");
    connection.send(ok("3"));
    assert_eq!(client.receive_answer().1, "3");
}

/// The default check of HAProxy.
#[test]
fn http_1_0_request_without_host_gets_the_upstreams() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    client.send("OPTIONS / HTTP/1.0\r\n\r\n");
    let (_connection, request) = server.accept_request();
    assert_eq!(request.first_line(), "OPTIONS / HTTP/1.1");
    assert_eq!(request.values("Host"), [server.address().to_string()]);
}

#[test]
fn response_head_with_many_lines_or_spaces_passes() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let lines = (0..1000).map(|line| format!("X-Line-{line}: value\r\n")).collect::<Vec<_>>().concat();
    for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", REQUEST] {
        let mut client = program.connect();
        client.send(request);
        let (mut connection, _) = server.accept_request();
        connection.send(format!("HTTP/1.1 403 Forbidden\r\nX-Space : 1\r\n{lines}Content-Length: 2\r\n\r\nno"));
        let (head, body) = client.receive_answer();
        assert_eq!((head.first_line(), body.as_str()), ("HTTP/1.1 403 Forbidden", "no"));
        assert_eq!((head.values("X-Space"), head.values("X-Line-999")), (vec!["1"], vec!["value"]));
    }
}

/// A hop in front removed the headers that make a request an upgrade, or speaks HTTP/1.0.
#[test]
fn upgrade_without_its_headers_is_counted_as_headers_lost() {
    let server = Server::start();
    let program = Program::before(&server, "");
    for (count, request) in [
        REQUEST.replace("Upgrade: websocket\r\n", ""),
        REQUEST.replace("Connection: Upgrade", "Connection: keep-alive"),
        REQUEST.replace("HTTP/1.1", "HTTP/1.0"),
    ]
    .iter()
    .enumerate()
    {
        let mut client = program.connect();
        client.send(request);
        let (mut connection, _) = server.accept_request();
        connection.send("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n");
        assert!(client.receive_head().first_line().ends_with(" 426 Upgrade Required"));
        let cause = [("cause", "headers_lost"), ("route", "default")];
        program.wait_for("websocket_handshake_failures_total", &cause, (count + 1) as f64);
    }
    program.wait_for("closewatch_http_requests_total", &[("status", "426")], 3.0);
    assert_eq!(program.scrape().sum("websocket_handshakes_total", &[]), 0.0);
}

#[test]
fn flood_of_1xx_responses_is_502() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let flood = "HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000);
    for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", REQUEST] {
        let mut client = program.connect();
        client.send(request);
        let (mut connection, _) = server.accept_request();
        // closewatch hangs up before it has read all of it.
        let _ = connection.try_send(&flood);
        assert_eq!(client.receive_answer().0.first_line(), "HTTP/1.1 502 Bad Gateway");
    }
    program.wait_for("websocket_handshake_failures_total", &[("cause", "upstream_invalid")], 1.0);
}

const BLOCKED_EXCHANGES: usize = 50;

/// Sends until nobody takes anything any more.
fn send_until_blocked(senders: &mut [Peer]) {
    let piece = vec![b'x'; 1 << 20];
    let mut silent_rounds = 0;
    eventually("all are blocked", || {
        let sent: usize = senders.iter_mut().map(|sender| sender.send_some(&piece)).sum();
        silent_rounds = if sent == 0 { silent_rounds + 1 } else { 0 };
        (silent_rounds == 30).then_some(())
    });
}

/// Runs `block`, which blocks many exchanges, and asserts that each of them holds little memory. The bound is 64 KiB in a
/// direction; the other direction and the connection itself have some, too.
fn assert_little_memory_is_held<T>(program: &Program, block: impl FnOnce() -> T) {
    let resident = || program.scrape().sum("process_resident_memory_bytes", &[]);
    let before = resident();
    let _blocked = block();
    let each = (resident() - before) / BLOCKED_EXCHANGES as f64;
    assert!(each < f64::from(128 << 10), "{each} bytes for each exchange");
}

#[test]
fn request_bodies_that_no_server_reads_hold_little_memory() {
    let server = Server::with_small_window();
    let program = Program::before(&server, "");
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n";
    assert_little_memory_is_held(&program, || {
        let mut clients = Vec::new();
        let mut connections = Vec::new();
        for _ in 0..BLOCKED_EXCHANGES {
            let mut client = program.connect();
            client.send(request);
            connections.push(server.accept_request());
            clients.push(client);
        }
        send_until_blocked(&mut clients);
        (clients, connections)
    });
}

#[test]
fn responses_that_no_client_reads_hold_little_memory() {
    let server = Server::start();
    let program = Program::before(&server, "");
    assert_little_memory_is_held(&program, || {
        let mut clients = Vec::new();
        let mut connections = Vec::new();
        for _ in 0..BLOCKED_EXCHANGES {
            let mut client = Peer::connect_with_small_window(program.address());
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let (mut connection, _) = server.accept_request();
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
            clients.push(client);
            connections.push(connection);
        }
        send_until_blocked(&mut connections);
        (clients, connections)
    });
}

#[test]
fn connection_without_another_request_is_closed_after_keep_alive() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {keep_alive: 100ms}\n");
    let mut client = program.connect();
    ask(&mut client, &server);
    client.expect_fin();
}

#[test]
fn body_that_stands_still_is_408_after_the_body_timeout() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {body: 100ms}\n");
    let mut client = program.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel");
    let (_connection, _) = server.accept_request();
    assert_eq!(client.receive_head().first_line(), "HTTP/1.1 408 Request Timeout");
}

/// The server accepts nothing of the body, and keeps the connection open.
#[test]
fn request_body_that_the_server_does_not_read_is_504() {
    let server = Server::with_small_window();
    let program = Program::before(&server, "timeouts: {body: 200ms}\n");
    let mut client = program.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    let _connection = server.accept_request();
    let mut writer = client.again();
    thread::scope(|scope| {
        // closewatch hangs up before it has read all of it.
        scope.spawn(move || while writer.try_send(vec![b'x'; 1 << 20]).is_ok() {});
        assert_eq!(client.receive_answer().0.first_line(), "HTTP/1.1 504 Gateway Timeout");
        client.receive_rest();
    });
}

#[test]
fn client_that_does_not_read_its_response_is_reset() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {body: 200ms}\n");
    let mut client = Peer::connect_with_small_window(program.address());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let (mut connection, _) = server.accept_request();
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    while connection.try_send(vec![b'x'; 1 << 20]).is_ok() {}
    program.wait_for("closewatch_connections_active", &[], 0.0);
    assert_eq!(client.receive_rest().1, TcpEnd::Rst);
}

#[test]
fn silent_response_outlives_the_body_timeout() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {body: 100ms}\n");
    let mut waiting = program.connect();
    waiting.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    let (mut events, _) = server.accept_request();
    events.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    waiting.receive_head();
    // Another exchange, which began later, is given up meanwhile.
    let mut stalled = program.connect();
    stalled.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    let _connection = server.accept_request();
    assert_eq!(stalled.receive_head().first_line(), "HTTP/1.1 408 Request Timeout");
    events.send("5\r\nevent\r\n");
    waiting.expect("5\r\nevent\r\n");
}
