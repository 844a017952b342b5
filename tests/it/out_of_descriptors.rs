//! No file descriptor is left: those who have a connection notice nothing, those who come wait, and it passes.

use std::{thread, time::Duration};

use crate::support::{Peer, Program, REQUEST, SWITCHING, Server, Session, eventually};

const OPEN_FILES: usize = 64;

/// How long it is left without descriptors. An accept that is tried again and again takes a core for all of that time.
const WITHOUT: Duration = Duration::from_secs(1);
const LITTLE_OF_A_CORE: Duration = Duration::from_millis(250);

/// A program that may have so few open files, whatever the number of connections is that it is told.
fn start(server: &Server) -> Program {
    let config = "limits: {connections: 1000}\nlog: {format: json}\n";
    Program::start_after(&format!("ulimit -n {OPEN_FILES}"), &format!("{}{config}", server.upstream()))
}

/// Connections that say nothing, one for each descriptor that is left.
fn take_all_descriptors(program: &Program) -> Vec<Peer> {
    let silent = (0..program.free_descriptors(OPEN_FILES)).map(|_| program.connect()).collect();
    eventually("all descriptors are taken", || (program.free_descriptors(OPEN_FILES) == 0).then_some(()));
    silent
}

fn times_told(program: &Program) -> usize {
    program.log().iter().filter(|line| line.contains("connections cannot be accepted")).count()
}

#[test]
fn accept_pauses_and_sessions_go_on() {
    let server = Server::start();
    let program = start(&server);
    let mut session = Session::open(&program, &server);
    let silent = take_all_descriptors(&program);
    let mut waiting = program.connect();
    waiting.send(REQUEST);
    eventually("it is told", || (times_told(&program) > 0).then_some(()));

    let cpu_time = program.cpu_time();
    session.exchange();
    thread::sleep(WITHOUT);
    session.exchange();
    let cpu_time = program.cpu_time().saturating_sub(cpu_time);
    assert!(cpu_time < LITTLE_OF_A_CORE, "{cpu_time:?} of {WITHOUT:?}");
    assert!(waiting.nothing_readable());

    drop(silent);
    let mut late = server.accept();
    late.receive_head();
    late.send(SWITCHING);
    waiting.receive_head();
    Session { client: waiting, server: late }.exchange();
    Session::open(&program, &server).exchange();
    session.exchange();
    assert_eq!(times_told(&program), 1, "{:#?}", program.log());
}

/// The one descriptor that was left is the client's.
#[test]
fn where_none_is_left_for_the_server_the_answer_is_502() {
    let server = Server::start();
    let program = start(&server);
    let mut silent = take_all_descriptors(&program);
    for _ in 0..3 {
        silent.pop();
        let mut client = program.connect();
        client.send(REQUEST);
        let (head, body) = client.receive_answer();
        assert_eq!(head.first_line(), "HTTP/1.1 502 Bad Gateway");
        assert_eq!(body, "no connection to the upstream: Too many open files (os error 24)\n");
        silent.push(client);
    }
    drop(silent);
    Session::open(&program, &server).exchange();
    program.wait_for("websocket_handshake_failures_total", &[("cause", "upstream_unreachable")], 3.0);
    program.wait_for("websocket_handshake_failures_total", &[], 3.0);
    program.wait_for("websocket_handshakes_total", &[("status", "502")], 3.0);
    program.wait_for("closewatch_connections_active", &[], 0.0);
    program.record();
}

/// The usual soft limit is meant for programs that use select(2), which closewatch does not.
#[test]
fn the_soft_limit_is_raised_whatever_the_number_of_connections() {
    let server = Server::start();
    let config = format!("{}limits: {{connections: 100}}\n", server.upstream());
    let program = Program::start_after(&format!("ulimit -Sn {OPEN_FILES}"), &config);
    let mut sessions: Vec<Session> = (0..100).map(|_| Session::open(&program, &server)).collect();
    sessions.iter_mut().for_each(Session::exchange);
    program.wait_for("closewatch_connections_active", &[], 100.0);
}

#[test]
fn no_more_connections_are_taken_than_there_are_descriptors_for() {
    let server = Server::start();
    // A quarter is put aside for what is no connection, and a session needs two.
    let program = Program::start_after("ulimit -n 256", &server.upstream());
    let mut sessions: Vec<Session> = (0..96).map(|_| Session::open(&program, &server)).collect();
    program.connect().receive_rest();
    program.wait_for("closewatch_connections_rejected_total", &[("reason", "limit")], 1.0);
    sessions.iter_mut().for_each(Session::exchange);
}
