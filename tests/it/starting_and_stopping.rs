//! The process: failures at the start, and a stop that loses no session.

use std::{fs, net::TcpListener};

use crate::support::{Program, Server, Session, from_client, from_server, run};

/// Asserts that `closewatch run` with these arguments fails with this code and one line, and returns the line.
fn failure(arguments: &[&str], code: i32) -> String {
    let outcome = run(&[&["run"], arguments].concat());
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(code), ""), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    outcome.stderr
}

#[test]
fn used_port_prints_one_line_and_exits_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let upstream = ["--upstream", "ws://127.0.0.1:9"];
    for listens in [["--listen", &address, "--admin", "127.0.0.1:0"], ["--listen", "127.0.0.1:0", "--admin", &address]]
    {
        let line = failure(&[&upstream[..], &listens[..]].concat(), 1);
        assert!(line.contains(&address) && line.contains("in use"), "{line}");
    }
}

#[test]
fn unreadable_configuration_prints_one_line_and_exits_with_2() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.yaml").display().to_string();
    let broken = directory.path().join("broken.yaml").display().to_string();
    fs::write(&broken, "upstream: ws://127.0.0.1:9\nlisten: nowhere\n").unwrap();
    let folder = directory.path().display().to_string();
    for (file, part) in [(&missing, "No such file"), (&broken, "broken.yaml:2:9: listen"), (&folder, "directory")] {
        let line = failure(&["--config", file], 2);
        assert!(line.contains(part) && line.contains(file.as_str()), "{line}");
    }
}

#[test]
fn stop_closes_answering_sessions_cleanly() {
    let server = Server::start();
    let program =
        Program::before(&server, "log: {format: json, sessions: all}\nshutdown: {timeout: 10s, reason: restart}\n");
    let mut sessions: Vec<Session> = (0..20).map(|_| Session::open(&program, &server)).collect();
    program.signal("TERM");
    for session in &mut sessions {
        session.proxy_closes(1001, "restart");
    }
    drop(sessions);
    let ended = program.ended();
    assert_eq!(ended.code, Some(0));
    let records = ended.records();
    assert_eq!(records.len(), 20);
    let mut ids: Vec<&str> = records.iter().map(|record| record["session"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20, "each once");
    for record in &records {
        assert_eq!(
            (&record["code"], &record["clean"], &record["action"]),
            (&1001.into(), &true.into(), &"drain".into())
        );
        assert_eq!(record["initiator"], "proxy");
    }
}

#[test]
fn stop_cuts_and_reports_the_rest_at_the_deadline() {
    let server = Server::start();
    let program = Program::before(&server, "log: {format: json}\nshutdown: {timeout: 300ms}\n");
    let mut silent = Session::open(&program, &server);
    let mut halfway = Session::open(&program, &server);
    halfway.client.send(&from_client(0x81, b"half")[..8]);
    halfway.server.send(&from_server(0x81, b"half")[..4]);
    halfway.server.expect(&from_client(0x81, b"half")[..8]);
    halfway.client.expect(&from_server(0x81, b"half")[..4]);
    let mut closing = Session::open(&program, &server);
    closing.client_closes(1000, "first");
    program.signal("TERM");
    assert_eq!(silent.client.receive_close(false).0, 1001);
    // Neither leg of this session can get a Close frame.
    halfway.client.expect_fin();
    halfway.server.expect_fin();
    closing.server.expect_fin();
    let ended = program.ended();
    assert_eq!(ended.code, Some(0));
    let records = ended.records();
    let of_code = |code: u16| records.iter().find(|record| record["code"] == code).unwrap();
    assert_eq!(records.len(), 3, "{records:#?}");
    for (code, initiator) in [(1001, "proxy"), (1006, "proxy"), (1000, "client")] {
        let record = of_code(code);
        assert_eq!(record["initiator"], initiator, "{record:#}");
        assert_eq!((&record["cause"], &record["cause_endpoint"]), (&"drain".into(), &"proxy".into()), "{record:#}");
        assert_eq!(record["action"], "drain");
    }
}

#[test]
fn second_signal_ends_the_process_and_reports_every_session() {
    let server = Server::start();
    let program = Program::before(&server, "log: {format: json, max_per_second: 1000}\nshutdown: {timeout: 20s}\n");
    let mut sessions: Vec<Session> = (0..20).map(|_| Session::open(&program, &server)).collect();
    program.signal("TERM");
    for session in &mut sessions {
        session.client.receive_close(false);
    }
    program.signal("INT");
    let ended = program.ended();
    assert_eq!(ended.code, Some(1));
    let records = ended.records();
    assert_eq!(records.len(), 20);
    assert!(records.iter().all(|record| record["cause"] == "drain" && record["code"] == 1001), "{records:#?}");
}

#[test]
fn stop_without_sessions_exits_with_0() {
    let server = Server::start();
    for signal in ["TERM", "INT"] {
        let program = Program::before(&server, "");
        // A client without a request, and a client between two requests.
        let _silent = program.connect();
        let mut waiting = program.connect();
        waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let (mut connection, _) = server.accept_request();
        connection.send("HTTP/1.1 204 No Content\r\n\r\n");
        waiting.receive_head();
        program.signal(signal);
        assert_eq!(program.ended().code, Some(0));
    }
}
