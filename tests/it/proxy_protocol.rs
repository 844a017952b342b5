//! The PROXY protocol, versions 1 and 2, from a load balancer and to the server.

use std::net::SocketAddr;

use crate::support::{Peer, Program, REQUEST, SWITCHING, Server, Session};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A version 2 header for TCP over IPv4: version and command, addresses and ports.
fn version_2(command: u8, source: [u8; 4], port: u16) -> Vec<u8> {
    let ports = [port.to_be_bytes(), 443_u16.to_be_bytes()].concat();
    [SIGNATURE, &[0x20 | command, 0x11, 0, 12], &source, &[10, 0, 0, 1], &ports].concat()
}

fn program(server: &Server, mode: &str, config: &str) -> Program {
    Program::before(server, &format!("listen: [{{address: '127.0.0.1:0', proxy_protocol: {mode}}}]\n{config}"))
}

#[test]
fn proxy_header_names_the_client() {
    let server = Server::start();
    let program = program(&server, "require", "");
    let mut count = 0;
    for (header, client) in [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n".to_vec(), Some("192.0.2.7:4711")),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n".to_vec(), Some("[2001:db8::7]:4711")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (version_2(1, [192, 0, 2, 9], 4712), Some("192.0.2.9:4712")),
        // A health check of the load balancer itself. The rest of its header is ignored.
        (version_2(0, [192, 0, 2, 9], 4712), None),
        ([SIGNATURE, &[0x20, 0, 0, 0]].concat(), None),
        // UDP over IPv4 and IPv6, an unspecified transport, and Unix sockets.
        ([SIGNATURE, &[0x21, 0x12, 0, 12], &[9; 12]].concat(), None),
        ([SIGNATURE, &[0x21, 0x22, 0, 36], &[9; 36]].concat(), None),
        ([SIGNATURE, &[0x21, 0x10, 0, 12], &[9; 12]].concat(), None),
        ([SIGNATURE, &[0x21, 0x31, 0, 216], &[9; 216]].concat(), None),
    ] {
        let mut client_end = program.connect();
        let own = client_end.address();
        // The header in two pieces. The second piece has the request, too.
        client_end.send(&header[..5]);
        client_end.send([&header[5..], REQUEST.as_bytes()].concat());
        let (mut server_end, request) = server.accept_request();
        let expected = client.map_or(own, |client| client.parse().unwrap());
        assert_eq!(request.values("X-Forwarded-For"), [expected.ip().to_string()]);
        server_end.send(SWITCHING);
        client_end.receive_head();
        Session { client: client_end, server: server_end }.exchange();
        count += 1;
        assert_eq!(program.records(count).pop().unwrap()["client"], expected.to_string());
    }
}

#[test]
fn accept_mode_allows_a_missing_header() {
    let server = Server::start();
    let program = program(&server, "accept", "");
    Session::open(&program, &server).exchange();
    let mut client = program.connect();
    client.send(version_2(1, [192, 0, 2, 9], 4712));
    Session::open_with(client, &server, REQUEST).exchange();
    let clients: Vec<String> =
        program.records(2).iter().map(|record| record["client"].as_str().unwrap().to_owned()).collect();
    assert!(clients[0].starts_with("127.0.0.1:") && clients[1] == "192.0.2.9:4712", "{clients:?}");
    // A request that begins like a header.
    let mut client = program.connect();
    client.send("PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(server.accept().receive_head().first_line(), "PROPFIND / HTTP/1.1");
}

#[test]
fn require_mode_refuses_a_missing_header() {
    let server = Server::start();
    let program = program(&server, "require", "timeouts: {request_head: 300ms}\n");
    for bytes in [
        REQUEST.as_bytes().to_vec(),
        b"PROXY TCP4 nonsense\r\n".to_vec(),
        format!("PROXY TCP4 {}\r\n", "1".repeat(200)).into_bytes(),
        [SIGNATURE, &[0x33, 0x11, 0, 12], &[0; 12]].concat(),
    ] {
        let mut client = program.connect();
        client.send(bytes);
        client.receive_rest();
    }
    program.wait_for("closewatch_connections_rejected_total", &[("reason", "proxy_protocol")], 4.0);
    let mut client = program.connect();
    client.send("PROXY TCP4 192.0.2.7");
    client.receive_rest();
    program.wait_for("closewatch_connections_rejected_total", &[("reason", "timeout")], 1.0);
    // A connection without a byte is a probe of the port.
    drop(program.connect());
    program.wait_for("closewatch_connections_accepted_total", &[], 6.0);
    program.wait_for("closewatch_connections_active", &[], 0.0);
    program.wait_for("closewatch_connections_rejected_total", &[], 5.0);
    assert_eq!(program.scrape().sum("websocket_handshakes_total", &[]), 0.0);
}

#[test]
fn address_limit_counts_the_client_of_the_proxy_header() {
    let server = Server::start();
    let program = program(&server, "require", "limits: {connections_per_ip: 1}\n");
    let connect = |source: [u8; 4]| {
        let mut client = program.connect();
        client.send(version_2(1, source, 1));
        client
    };
    let mut first = Session::open_with(connect([192, 0, 2, 1]), &server, REQUEST);
    let mut second = Session::open_with(connect([192, 0, 2, 2]), &server, REQUEST);
    connect([192, 0, 2, 1]).receive_rest();
    program.wait_for("closewatch_connections_rejected_total", &[("reason", "limit")], 1.0);
    first.exchange();
    second.exchange();
}

#[test]
fn server_gets_the_client_in_version_2() {
    let server = Server::start();
    let config = format!("upstream: {{url: 'ws://{}', proxy_protocol: v2}}\n", server.address());
    let program = Program::start(&config);
    let mut client = program.connect();
    client.send(REQUEST);
    let mut connection = server.accept();
    expect_header(&mut connection, client.address(), program.address().port());
    connection.receive_head();
    connection.send(SWITCHING);
    client.receive_head();
    Session { client, server: connection }.exchange();
    // A client's plain requests share one connection, and its header.
    let mut clients = [program.connect(), program.connect()];
    let mut connections = Vec::new();
    for turn in [0, 1, 0, 1] {
        let client = &mut clients[turn];
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        if connections.len() == turn {
            connections.push(server.accept());
            expect_header(&mut connections[turn], client.address(), program.address().port());
        }
        connections[turn].receive_head();
        connections[turn].send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.receive_answer().1, "ok");
    }
}

#[test]
fn bodies_are_streamed_behind_a_proxy_header() {
    let server = Server::start();
    let program = Program::start(&format!("upstream: {{url: 'ws://{}', proxy_protocol: v2}}\n", server.address()));
    let mut client = program.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    let mut connection = server.accept();
    expect_header(&mut connection, client.address(), program.address().port());
    connection.receive_head();
    connection.expect("3\r\none\r\n");
    // The response begins before the request ends.
    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n");
    client.receive_head();
    client.expect("3\r\ntwo\r\n");
    client.send("5\r\nthree\r\n0\r\n\r\n");
    connection.expect("5\r\nthree\r\n0\r\n\r\n");
    connection.send("4\r\nfour\r\n0\r\n\r\n");
    client.expect("4\r\nfour\r\n0\r\n\r\n");
    drop(client);
    connection.expect_fin();
}

/// Reads a header of version 2 for a client on this host, over IPv4.
fn expect_header(connection: &mut Peer, client: SocketAddr, local_port: u16) {
    let ports = [client.port().to_be_bytes(), local_port.to_be_bytes()].concat();
    let addresses = [127, 0, 0, 1, 127, 0, 0, 1];
    connection.expect([SIGNATURE, &[0x21, 0x11, 0, 12], &addresses, &ports].concat());
}

#[test]
fn dual_stack_listener_reports_ipv4_clients_as_ipv4() {
    let server = Server::start();
    let upstream = format!("upstream: {{url: 'ws://{}', proxy_protocol: v2}}\n", server.address());
    let program = Program::start(&format!("listen: '[::]:0'\n{upstream}"));
    let port = program.address().port();
    let mut client = Peer::connect(([127, 0, 0, 1], port).into());
    client.send(REQUEST);
    expect_header(&mut server.accept(), client.address(), port);
}

/// The client has connected to the load balancer, not to closewatch.
#[test]
fn proxy_header_of_a_load_balancer_is_passed_on() {
    let server = Server::start();
    let upstream = format!("upstream: {{url: 'ws://{}', proxy_protocol: v2}}\n", server.address());
    let program = Program::start(&format!("listen: [{{address: '127.0.0.1:0', proxy_protocol: require}}]\n{upstream}"));
    let version_1 = b"PROXY TCP4 192.0.2.9 10.0.0.1 4712 443\r\n".to_vec();
    for header in [version_1, version_2(1, [192, 0, 2, 9], 4712)] {
        for request in [REQUEST, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let mut client = program.connect();
            client.send([&header, request.as_bytes()].concat());
            server.accept().expect(version_2(1, [192, 0, 2, 9], 4712));
        }
    }
}
