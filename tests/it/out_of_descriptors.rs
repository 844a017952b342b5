//! No file descriptor is left: open sessions go on, new clients wait, and closewatch recovers.

use std::{fs, time::Duration};

use crate::support::{Peer, Program, REQUEST, SWITCHING, Server, Session, eventually};

/// So few that all can be taken.
const FEW_FILES: usize = 64;
/// The connections that `limits.connections: auto` allows with 256 and 1024 files, two relay threads at most, one
/// listener and one admin.
const AUTO: [(usize, usize); 2] = [(256, 97), (1024, 457)];

/// How long no descriptor is left. An accept that is retried without a pause uses a CPU for all of this time.
const SHORTAGE: Duration = Duration::from_secs(1);
const CPU_TIME_IN_SHORTAGE: Duration = Duration::from_millis(250);

/// A program with few open files, and a limit of connections that ignores this.
fn start_with_few_files(server: &Server) -> Program {
    let config = "limits: {connections: 1000}\nlog: {format: json}\n";
    Program::start_after(&format!("ulimit -n {FEW_FILES};"), &format!("{}{config}", server.upstream()))
}

/// A program with a hard limit of open files, two relay threads, and limits that follow from this.
fn start_with_auto_limit(server: &Server, open_files: usize) -> Program {
    Program::start_after(&format!("ulimit -n {open_files};"), &format!("{}workers: 2\n", server.upstream()))
}

/// How many descriptors the program can still open. Inherited ones may lie beyond the limit.
fn free_descriptors(program: &Program, limit: usize) -> usize {
    let is_free = |number: &usize| fs::read_link(format!("/proc/{}/fd/{number}", program.process())).is_err();
    (0..limit).filter(is_free).count()
}

/// The CPU time that all threads of the program have used so far.
fn cpu_time(program: &Program) -> Duration {
    let status = fs::read_to_string(format!("/proc/{}/stat", program.process())).unwrap();
    // Behind the name, which may hold anything, the 12th field is the time in user mode, the 13th in the kernel (proc(5)).
    let fields = status.rsplit_once(") ").unwrap().1.split(' ');
    let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}

/// Silent connections, one for each descriptor that is left.
fn take_all_descriptors(program: &Program) -> Vec<Peer> {
    let silent = (0..free_descriptors(program, FEW_FILES)).map(|_| program.connect()).collect();
    eventually("all descriptors are taken", || (free_descriptors(program, FEW_FILES) == 0).then_some(()));
    silent
}

fn count_failed_accepts(program: &Program) -> usize {
    program.log().iter().filter(|line| line.contains("accept failed: too many open files; retrying")).count()
}

/// Client connections with one answered plain request each. The requests are open at the same time, so that each has a
/// server connection. The second list holds the server's ends.
fn open_plain(program: &Program, server: &Server, count: usize) -> (Vec<Peer>, Vec<Peer>) {
    let ask = |_| {
        let mut client = program.connect();
        client.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n");
        (client, server.accept_request().0)
    };
    let (mut clients, mut server_ends): (Vec<_>, Vec<_>) = (0..count).map(ask).unzip();
    for (client, server_end) in clients.iter_mut().zip(&mut server_ends) {
        server_end.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.receive_answer().1, "ok");
    }
    (clients, server_ends)
}

#[test]
fn accept_pauses_and_sessions_go_on() {
    let server = Server::start();
    let program = start_with_few_files(&server);
    let mut session = Session::open(&program, &server);
    let silent = take_all_descriptors(&program);
    let mut waiting = program.connect();
    waiting.send(REQUEST);
    eventually("a line in the log", || (count_failed_accepts(&program) > 0).then_some(()));

    let cpu_time = cpu_time(&program);
    session.exchange();
    waiting.expect_silence(SHORTAGE);
    session.exchange();
    let cpu_time = self::cpu_time(&program).saturating_sub(cpu_time);
    assert!(cpu_time < CPU_TIME_IN_SHORTAGE, "{cpu_time:?} in {SHORTAGE:?}");

    drop(silent);
    let mut late = server.accept();
    late.receive_head();
    late.send(SWITCHING);
    waiting.receive_head();
    Session { client: waiting, server: late }.exchange();
    Session::open(&program, &server).exchange();
    session.exchange();
    assert_eq!(count_failed_accepts(&program), 1, "{:#?}", program.log());
}

/// The client gets the only descriptor that is left.
#[test]
fn handshake_without_server_descriptor_gets_503() {
    let server = Server::start();
    let program = start_with_few_files(&server);
    let mut silent = take_all_descriptors(&program);
    for _ in 0..3 {
        silent.pop();
        let mut client = program.connect();
        client.send(REQUEST);
        let (head, body) = client.receive_answer();
        assert_eq!(head.first_line(), "HTTP/1.1 503 Service Unavailable");
        assert_eq!(body, "no connection to the upstream: Too many open files (os error 24)\n");
        silent.push(client);
    }
    drop(silent);
    Session::open(&program, &server).exchange();
    program.wait_for("websocket_handshake_failures_total", &[("cause", "out_of_resources")], 3.0);
    program.wait_for("websocket_handshake_failures_total", &[], 3.0);
    program.wait_for("websocket_handshakes_total", &[("status", "503")], 3.0);
    program.wait_for("closewatch_connections_active", &[], 0.0);
    program.record();
}

/// The usual soft limit is meant for programs that use select(2), which closewatch does not.
#[test]
fn soft_limit_is_raised_for_any_connection_limit() {
    let server = Server::start();
    let config = format!("{}limits: {{connections: 100}}\n", server.upstream());
    let program = Program::start_after(&format!("ulimit -Sn {FEW_FILES};"), &config);
    let mut sessions: Vec<Session> = (0..100).map(|_| Session::open(&program, &server)).collect();
    sessions.iter_mut().for_each(Session::exchange);
    program.wait_for("closewatch_connections_active", &[], 100.0);
}

#[test]
fn auto_limit_leaves_descriptors_for_every_session() {
    for (open_files, connections) in AUTO {
        let server = Server::start();
        let program = start_with_auto_limit(&server, open_files);
        let mut sessions: Vec<Session> = (0..connections).map(|_| Session::open(&program, &server)).collect();
        program.connect().receive_rest();
        program.wait_for("closewatch_connections_rejected_total", &[("reason", "limit")], 1.0);
        sessions.iter_mut().for_each(Session::exchange);
        assert!(free_descriptors(&program, open_files) > open_files / 16, "the admin has its share");
    }
}

/// A server connection that plain requests used must not outlive its client: sessions need the descriptor.
#[test]
fn burst_of_plain_requests_leaves_descriptors_for_sessions() {
    for (open_files, connections) in AUTO {
        let server = Server::start();
        let program = start_with_auto_limit(&server, open_files);
        let mut session = Session::open(&program, &server);
        let (clients, _server_ends) = open_plain(&program, &server, connections - 1);
        program.connect().receive_rest();
        assert_eq!(program.get("/-/healthy").body, "healthy\n");
        session.exchange();

        drop(clients);
        program.wait_for("closewatch_connections_active", &[], 1.0);
        let mut sessions: Vec<Session> = (1..connections).map(|_| Session::open(&program, &server)).collect();
        sessions.iter_mut().for_each(Session::exchange);
        session.exchange();
        assert_eq!(program.get("/-/healthy").body, "healthy\n");
        program.wait_for("websocket_handshake_failures_total", &[], 0.0);
    }
}

/// An upgrade behind a plain request needs a server connection of its own, besides the kept one.
#[test]
fn upgrades_behind_plain_requests_get_descriptors() {
    for (open_files, connections) in AUTO {
        let server = Server::start();
        let program = start_with_auto_limit(&server, open_files);
        let (clients, _server_ends) = open_plain(&program, &server, connections);
        let upgrade = |client| Session::open_with(client, &server, REQUEST);
        let mut sessions: Vec<Session> = clients.into_iter().map(upgrade).collect();
        sessions.iter_mut().for_each(Session::exchange);
        assert_eq!(program.get("/-/healthy").body, "healthy\n");
    }
}

#[test]
fn admin_connections_leave_descriptors_for_sessions() {
    let (open_files, connections) = AUTO[0];
    let server = Server::start();
    let program = start_with_auto_limit(&server, open_files);
    let idle: Vec<Peer> = (0..128).map(|_| Peer::connect(program.admin())).collect();
    let mut sessions: Vec<Session> = (0..connections).map(|_| Session::open(&program, &server)).collect();
    sessions.iter_mut().for_each(Session::exchange);
    assert_eq!(program.get("/-/healthy").body, "healthy\n");
    assert_eq!(count_failed_accepts(&program), 0, "{:#?}", program.log());
    drop(idle);
}
