//! What a drain does to connections that are no sessions.

use crate::support::{LOG_ALL, Peer, Program, REQUEST, Server, Session, TcpEnd, wait_until_closed};

const GET: &str = "GET /page HTTP/1.1\r\nHost: example.com\r\n\r\n";

/// What the log says where something was cut.
const CUT: &str = "the time to drain is over; what was left is cut";

/// A connection that has had an answer to a plain request, and stays open for the next one.
fn idle_connection(program: &Program, server: &Server) -> Peer {
    let mut client = program.connect();
    client.send(GET);
    let (mut behind, _) = server.accept_request();
    behind.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\npage");
    assert_eq!(client.receive_answer().1, "page");
    client
}

/// A closewatch, a client of it, and the server, which has the client's request and has not answered.
fn request_under_way(config: &str, request: &str) -> (Program, Peer, Peer) {
    let server = Server::start();
    let program = Program::before(&server, config);
    let mut client = program.connect();
    client.send(request);
    let (behind, _) = server.accept_request();
    (program, client, behind)
}

/// The server answers, and is not done with it.
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
fn upgrade_requests_on_open_connections_are_refused() {
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
fn whoever_had_connected_before_is_not_turned_away_by_a_reset() {
    let server = Server::start();
    let program = Program::before(&server, &format!("shutdown: {{timeout: 10m}}\n{LOG_ALL}"));
    let mut session = Session::open(&program, &server);
    // While it stands still the kernel queues them, and the signal behind them.
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
fn a_plain_answer_under_way_is_finished() {
    let (program, mut client, mut behind) = request_under_way("shutdown: {timeout: 10m}\n", GET);
    begin_answer(&mut behind, &mut client);
    program.drain();
    behind.send("7\r\n stream\r\n0\r\n\r\n");
    client.expect("7\r\n stream\r\n0\r\n\r\n");
    client.expect_fin();
    assert_eq!(program.ended().code, Some(0));
}

#[test]
fn a_plain_request_under_way_is_answered_and_its_connection_ended() {
    let (program, mut client, mut behind) = request_under_way("shutdown: {timeout: 10m}\n", GET);
    program.drain();
    behind.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage");
    let (head, body) = client.receive_answer();
    assert_eq!((head.value("connection"), body.as_str()), (Some("close"), "page"));
    client.expect_fin();
    assert_eq!(program.ended().code, Some(0));
}

#[test]
fn a_handshake_under_way_that_is_rejected_ends_the_connection() {
    let (program, mut client, mut behind) = request_under_way("shutdown: {timeout: 10m}\n", REQUEST);
    program.drain();
    behind.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
    let (head, body) = client.receive_answer();
    assert_eq!((head.value("connection"), body.as_str()), (Some("close"), "no"));
    client.expect_fin();
    assert_eq!(program.ended().code, Some(0));
}

#[test]
fn connections_without_anything_in_flight_hold_nothing_up() {
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
fn a_plain_answer_without_end_is_given_up_at_the_timeout() {
    let (program, mut client, mut behind) = request_under_way("shutdown: {timeout: 300ms}\n", GET);
    begin_answer(&mut behind, &mut client);
    program.signal("TERM");
    assert_eq!(client.receive_rest().0, b"");
    assert_eq!(program.ended().code, Some(0));
}

/// The client has an answer, the server the end of its connection, and the log what was cut.
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
fn requests_whose_server_has_not_answered_at_the_timeout_are_answered() {
    expect_cut(REQUEST);
    expect_cut(GET);
}

#[test]
fn an_upgrade_that_is_cut_is_answered_before_the_process_ends() {
    let (program, mut client, _behind) = request_under_way("shutdown: {timeout: 300ms}\n", REQUEST);
    program.signal("TERM");
    assert_eq!(client.receive_answer().0.first_line(), "HTTP/1.1 503 Service Unavailable");
    assert_eq!(program.ended().code, Some(0));
}

#[test]
fn a_drain_that_cuts_nothing_does_not_say_so() {
    let server = Server::start();
    let program = Program::before(&server, "shutdown: {timeout: 10m}\n");
    let mut session = Session::open(&program, &server);
    program.signal("TERM");
    session.proxy_closes(1001, "");
    let log = program.ended().log;
    assert!(log.iter().any(|line| line.contains("drained")) && !log.iter().any(|line| line.contains(CUT)), "{log:#?}");
}

#[test]
fn what_a_drain_cuts_is_told() {
    let server = Server::start();
    let program = Program::before(&server, "shutdown: {timeout: 300ms}\n");
    let _sessions = [Session::open(&program, &server), Session::open(&program, &server)];
    let _idle = idle_connection(&program, &server);
    program.signal("TERM");
    let log = program.ended().log;
    assert!(log.iter().any(|line| line.contains(CUT) && line.contains("requests=0 sessions=2")), "{log:#?}");
}
