//! The effect of a drain on connections without a session.

use crate::support::{LOG_ALL, Peer, Program, REQUEST, Server, Session, TcpEnd, wait_until_closed};

const GET: &str = "GET /page HTTP/1.1\r\nHost: example.com\r\n\r\n";

/// The line in the log if a drain cuts sessions or requests.
const CUT: &str = "drain timeout exceeded: sessions and requests were terminated";

/// A connection that stays open after the response to a plain request.
fn idle_connection(program: &Program, server: &Server) -> Peer {
    let mut client = program.connect();
    client.send(GET);
    let (mut behind, _) = server.accept_request();
    behind.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\npage");
    assert_eq!(client.receive_answer().1, "page");
    client
}

/// A closewatch, a client, and the server's end, which has the client's request and has not answered.
fn request_under_way(config: &str, request: &str) -> (Program, Peer, Peer) {
    let server = Server::start();
    let program = Program::before(&server, config);
    let mut client = program.connect();
    client.send(request);
    let (behind, _) = server.accept_request();
    (program, client, behind)
}

/// The server begins a response.
fn begin_answer(behind: &mut Peer, client: &mut Peer) {
    behind.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nslow\r\n");
    client.receive_head();
    client.expect("4\r\nslow\r\n");
}

fn expect_refusal(client: &mut Peer) {
    client.send(REQUEST);
    let (head, body) = client.receive_answer();
    assert_eq!(head.first_line(), "HTTP/1.1 503 Service Unavailable");
    assert_eq!((head.value("retry-after"), head.value("connection")), (Some("1"), Some("close")));
    assert_eq!(body, "closewatch is draining; try another instance\n");
    client.expect_fin();
}

#[test]
fn drain_refuses_upgrades_on_open_connections() {
    let server = Server::start();
    let program = Program::before(&server, &format!("shutdown: {{timeout: 10m}}\n{LOG_ALL}"));
    let mut session = Session::open(&program, &server);
    let mut idle = idle_connection(&program, &server);
    let mut fresh = program.connect();
    program.wait_for("closewatch_connections_active", &[], 3.0);
    program.drain();
    expect_refusal(&mut idle);
    expect_refusal(&mut fresh);
    let scrape = program.scrape();
    assert_eq!(scrape.sum("websocket_handshake_failures_total", &[("cause", "draining")]), 2.0);
    assert_eq!(scrape.sum("websocket_handshakes_total", &[("status", "503")]), 2.0);
    session.proxy_closes(1001, "");
    assert_eq!(program.drained().len(), 1);
}

#[test]
fn drain_resets_no_queued_connection() {
    let server = Server::start();
    let program = Program::before(&server, &format!("shutdown: {{timeout: 10m}}\n{LOG_ALL}"));
    let mut session = Session::open(&program, &server);
    // While the process is stopped, the kernel queues the connections and the signal.
    program.signal("STOP");
    let waiting: Vec<Peer> = (0..1000).map(|_| program.connect()).collect();
    program.signal("TERM");
    program.signal("CONT");
    wait_until_closed(program.address());
    for mut client in waiting {
        expect_refusal(&mut client);
    }
    session.proxy_closes(1001, "");
    assert_eq!(program.drained().len(), 1);
}

#[test]
fn drain_finishes_a_streamed_response() {
    let (program, mut client, mut behind) = request_under_way("shutdown: {timeout: 10m}\n", GET);
    begin_answer(&mut behind, &mut client);
    program.drain();
    behind.send("7\r\n stream\r\n0\r\n\r\n");
    client.expect("7\r\n stream\r\n0\r\n\r\n");
    client.expect_fin();
    assert_eq!(program.ended().code, Some(0));
}

#[test]
fn drain_ends_a_connection_after_its_response() {
    let (program, mut client, mut behind) = request_under_way("shutdown: {timeout: 10m}\n", GET);
    program.drain();
    behind.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage");
    let (head, body) = client.receive_answer();
    assert_eq!((head.value("connection"), body.as_str()), (Some("close"), "page"));
    client.expect_fin();
    assert_eq!(program.ended().code, Some(0));
}

#[test]
fn drain_ends_a_connection_after_a_rejected_handshake() {
    let (program, mut client, mut behind) = request_under_way("shutdown: {timeout: 10m}\n", REQUEST);
    program.drain();
    behind.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
    let (head, body) = client.receive_answer();
    assert_eq!((head.value("connection"), body.as_str()), (Some("close"), "no"));
    client.expect_fin();
    assert_eq!(program.ended().code, Some(0));
}

#[test]
fn drain_closes_idle_connections_at_once() {
    let server = Server::start();
    let program = Program::before(&server, "shutdown: {timeout: 10m}\ntimeouts: {request_head: off}\n");
    let mut idle = idle_connection(&program, &server);
    let mut fresh = program.connect();
    let mut half = program.connect();
    half.send("GET / HTT");
    program.wait_for("closewatch_connections_active", &[], 3.0);
    program.signal("TERM");
    idle.expect_fin();
    fresh.expect_fin();
    assert!(matches!(half.receive_rest(), (rest, TcpEnd::Fin | TcpEnd::Rst) if rest.is_empty()));
    assert_eq!(program.ended().code, Some(0));
}

#[test]
fn drain_cuts_an_endless_response_at_the_timeout() {
    let (program, mut client, mut behind) = request_under_way("shutdown: {timeout: 300ms}\n", GET);
    begin_answer(&mut behind, &mut client);
    program.signal("TERM");
    assert_eq!(client.receive_rest().0, b"");
    assert_eq!(program.ended().code, Some(0));
}

/// Asserts that the client gets a response, the server FIN, and the log a line about the cut.
fn expect_cut(request: &str) {
    let (program, mut client, mut behind) = request_under_way("shutdown: {timeout: 300ms, linger: 1h}\n", request);
    program.signal("TERM");
    let (head, body) = client.receive_answer();
    assert_eq!(head.first_line(), "HTTP/1.1 503 Service Unavailable");
    assert_eq!((head.value("retry-after"), head.value("connection")), (Some("1"), Some("close")));
    assert_eq!(body, "closewatch is draining; try another instance\n");
    client.expect_fin();
    behind.expect_fin();
    program.wait_for_phase("drained");
    program.wait_for_log(CUT, 1);
    let is_upgrade = f64::from(u8::from(request == REQUEST));
    let scrape = program.scrape();
    let failures = scrape.sum("websocket_handshake_failures_total", &[("cause", "draining"), ("route", "default")]);
    assert_eq!(failures, is_upgrade);
    let plain = scrape.sum("closewatch_http_requests_total", &[("status", "503"), ("route", "default")]);
    assert_eq!(plain, 1.0 - is_upgrade);
    program.signal("TERM");
    let log = program.ended().log;
    assert!(log.iter().any(|line| line.contains(CUT) && line.contains("requests=1 sessions=0")), "{log:#?}");
}

#[test]
fn drain_answers_pending_requests_at_the_timeout() {
    expect_cut(REQUEST);
    expect_cut(GET);
}

#[test]
fn drain_answers_a_cut_upgrade_before_the_process_ends() {
    let (program, mut client, _behind) = request_under_way("shutdown: {timeout: 300ms}\n", REQUEST);
    program.signal("TERM");
    assert_eq!(client.receive_answer().0.first_line(), "HTTP/1.1 503 Service Unavailable");
    assert_eq!(program.ended().code, Some(0));
}

#[test]
fn drain_without_a_cut_logs_none() {
    let server = Server::start();
    let program = Program::before(&server, "shutdown: {timeout: 10m}\n");
    let mut session = Session::open(&program, &server);
    program.signal("TERM");
    session.proxy_closes(1001, "");
    let log = program.ended().log;
    assert!(log.iter().any(|line| line.contains("drained")) && !log.iter().any(|line| line.contains(CUT)), "{log:#?}");
}

#[test]
fn drain_logs_the_number_of_cut_sessions() {
    let server = Server::start();
    let program = Program::before(&server, "shutdown: {timeout: 300ms}\n");
    let _sessions = [Session::open(&program, &server), Session::open(&program, &server)];
    let _idle = idle_connection(&program, &server);
    program.signal("TERM");
    let log = program.ended().log;
    assert!(log.iter().any(|line| line.contains(CUT) && line.contains("requests=0 sessions=2")), "{log:#?}");
}
