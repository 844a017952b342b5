//! The phases of a drain: readiness, delay, spread, linger, and the effect of a second signal.

use serde_json::json;

use crate::support::{LOG_ALL, Outcome, Program, Server, Session, run, wait_until_closed};

#[test]
fn drain_delay_changes_readiness_only() {
    let server = Server::start();
    let program = Program::before(&server, &format!("shutdown: {{delay: 1h}}\n{LOG_ALL}"));
    program.wait_for_phase("ready");
    assert_eq!(program.get("/-/ready").status, 200);
    let mut before = Session::open(&program, &server);
    program.signal("TERM");
    program.wait_for_phase("draining");
    assert_eq!(program.get("/-/ready").status, 503);
    assert_eq!(program.get("/-/healthy").status, 200);

    let mut during = Session::open(&program, &server);
    before.exchange();
    during.exchange();
    assert_eq!(program.scrape().sum("websocket_sessions_active", &[]), 2.0);
    assert_eq!(program.post("/-/reload", "").status, 200);
    assert_eq!(program.post("/-/close", r#"{"code": 4000, "count": 0}"#).body, "{\"closed\":0}\n");

    // A second signal ends the process at once, with all records.
    program.signal("TERM");
    let ended = program.ended();
    assert_eq!(ended.code, Some(1));
    let records = ended.records();
    assert_eq!(records.len(), 2);
    for record in records {
        assert_eq!((&record["code"], &record["initiator"]), (&json!(1006), &json!("proxy")));
        assert_eq!((&record["cause"], &record["action"]), (&json!("drain"), &json!("drain")));
    }
    assert_eq!(before.client.receive_rest().0, b"");
}

#[test]
fn drain_spreads_close_frames() {
    let server = Server::start();
    let config = format!("workers: 2\nshutdown: {{spread: 1h, timeout: 2h}}\n{LOG_ALL}");
    let program = Program::before(&server, &config);
    let mut sessions = [(); 3].map(|()| Session::open(&program, &server));
    program.drain();
    sessions[0].proxy_closes(1001, "");
    // The others follow in half an hour and in an hour, on any thread.
    sessions[1].exchange();
    sessions[2].exchange();
    program.signal("INT");
    let ended = program.ended();
    assert_eq!(ended.code, Some(1));
    let codes: Vec<_> = ended.records().iter().map(|record| record["code"].clone()).collect();
    assert_eq!(codes, [json!(1001), json!(1006), json!(1006)]);
}

/// The closing session would have the first turn, and the open one the turn half an hour later.
#[test]
fn closing_session_takes_no_turn_of_the_spread() {
    let server = Server::start();
    let config = format!("workers: 1\nshutdown: {{spread: 1h, timeout: 2h}}\n{LOG_ALL}");
    let program = Program::before(&server, &config);
    let mut closing = Session::open(&program, &server);
    let mut open = Session::open(&program, &server);
    closing.client_closes(1000, "");
    program.drain();
    open.proxy_closes(1001, "");
    closing.server_closes(1000, "");
    assert!(program.drained().iter().all(|record| record["clean"] == true));
}

#[test]
fn sigint_skips_the_pauses_of_a_drain() {
    let server = Server::start();
    let config = format!("shutdown: {{delay: 1h, spread: 1h, timeout: 2h, linger: 1h}}\n{LOG_ALL}");
    let program = Program::before(&server, &config);
    let mut sessions = [(); 3].map(|()| Session::open(&program, &server));
    program.signal("INT");
    for session in &mut sessions {
        session.proxy_closes(1001, "");
    }
    assert_eq!(program.drained().len(), 3);
}

#[test]
fn sigint_skips_the_pauses_of_a_running_drain() {
    let server = Server::start();
    let config = format!("workers: 1\nshutdown: {{spread: 1h, timeout: 2h, linger: 1h}}\n{LOG_ALL}");
    let program = Program::before(&server, &config);
    let mut sessions = [(); 2].map(|()| Session::open(&program, &server));
    assert_eq!(program.post("/-/drain", "").status, 202);
    assert_eq!(sessions[0].client.receive_close(false).0, 1001);
    sessions[0].server.receive_close(true);
    sessions[1].exchange();
    program.signal("INT");
    sessions[1].proxy_closes(1001, "");
    // The first session gets no second Close frame.
    sessions[0].answer_close(1001);
    assert_eq!(program.drained().len(), 2);
}

#[test]
fn sigint_skips_the_delay_of_a_requested_drain() {
    let server = Server::start();
    let program = Program::before(&server, "shutdown: {delay: 1h}\n");
    assert_eq!(program.post("/-/drain", "").status, 202);
    Session::open(&program, &server).exchange();
    program.wait_for("websocket_sessions_active", &[], 0.0);
    program.signal("INT");
    assert_eq!(program.ended().code, Some(0));
}

#[test]
fn metrics_are_complete_during_the_linger() {
    let server = Server::start();
    let program = Program::before(&server, &format!("shutdown: {{linger: 1h}}\n{LOG_ALL}"));
    let mut session = Session::open(&program, &server);
    program.signal("TERM");
    session.proxy_closes(1001, "");
    program.wait_for_phase("drained");
    let scrape = program.scrape();
    let labels = [("code", "1001"), ("initiator", "proxy"), ("clean", "true")];
    assert_eq!(scrape.sum("websocket_closes_total", &labels), 1.0);
    assert_eq!(scrape.sum("websocket_proxy_actions_total", &[("action", "drain")]), 1.0);
    assert_eq!(scrape.sum("websocket_sessions_active", &[]), 0.0);
    scrape.assert_sums();
    assert_eq!(program.records(1).len(), 1);

    program.signal("TERM");
    let ended = program.ended();
    assert_eq!((ended.code, ended.records().len()), (Some(1), 1));
}

#[test]
fn process_exits_with_0_after_the_linger() {
    let program = Program::before(&Server::start(), "shutdown: {linger: 200ms}\n");
    program.signal("TERM");
    program.wait_for_phase("drained");
    assert_eq!(program.ended().code, Some(0));
}

#[test]
fn second_signal_reports_unfinished_closing_handshakes() {
    let server = Server::start();
    let program = Program::before(&server, LOG_ALL);
    let mut session = Session::open(&program, &server);
    program.signal("TERM");
    assert_eq!(session.client.receive_close(false).0, 1001);
    session.server.receive_close(true);
    program.signal("INT");
    let ended = program.ended();
    assert_eq!(ended.code, Some(1));
    let records = ended.records();
    assert_eq!(records.len(), 1);
    assert_eq!((&records[0]["code"], &records[0]["cause"]), (&json!(1001), &json!("drain")));
    session.client.expect_fin();
}

#[test]
fn requested_drain_leaves_the_process_running() {
    let server = Server::start();
    let program = Program::before(&server, &format!("shutdown: {{linger: 200ms}}\n{LOG_ALL}"));
    let mut session = Session::open(&program, &server);
    assert_eq!(program.post("/-/drain", "").body, "draining\n");
    session.proxy_closes(1001, "");
    program.wait_for_phase("drained");
    assert_eq!(program.post("/-/drain", "").status, 202);
    assert_eq!(program.get("/-/ready").body, "drained\n");
    // A reload does not open the listeners again.
    assert_eq!(program.post("/-/reload", "").status, 200);
    wait_until_closed(program.address());
    assert_eq!(program.scrape().sum("websocket_closes_total", &[("code", "1001")]), 1.0);
    program.signal("TERM");
    assert_eq!(program.drained().len(), 1);
}

#[test]
fn signal_waits_for_a_requested_drain() {
    let server = Server::start();
    let program = Program::before(&server, &format!("shutdown: {{timeout: 10m}}\n{LOG_ALL}"));
    let mut session = Session::open(&program, &server);
    assert_eq!(program.post("/-/drain", "").status, 202);
    assert_eq!(session.client.receive_close(false).0, 1001);
    program.signal("TERM");
    assert_eq!(program.post("/-/drain", "").status, 202);
    assert_eq!(session.server.receive_close(true), (1001, String::new()));
    session.answer_close(1001);
    assert_eq!(program.drained()[0]["clean"], true);
}

#[test]
fn drain_command_waits_for_the_end_of_the_drain() {
    let server = Server::start();
    let program = Program::before(&server, &format!("shutdown: {{delay: 300ms}}\n{LOG_ALL}"));
    let admin = program.admin().to_string();
    assert_eq!(run(&["health", "--admin", &admin]).code, Some(0));
    // No session is open, but clients can still connect during the delay.
    let waited = run(&["drain", "--wait", "--admin", &admin]);
    let stdout = format!("http://{admin} is drained: no session is left\n");
    assert_eq!(waited, Outcome { code: Some(0), stdout, stderr: String::new() });
    assert_eq!(program.get("/-/ready").body, "drained\n");
    wait_until_closed(program.address());
    assert_eq!(run(&["health", "--admin", &admin]).code, Some(1));
    // A second command returns at once.
    assert_eq!(run(&["drain", "--wait", "--admin", &admin]).code, Some(0));
    program.signal("TERM");
    assert_eq!(program.ended().code, Some(0));
    assert_eq!(run(&["drain", "--wait", "--admin", &admin]).code, Some(1));
}

#[test]
fn drain_reports_each_of_many_sessions_once() {
    const SESSIONS: usize = 2000;
    let server = Server::start();
    let program = Program::before(&server, &format!("shutdown: {{timeout: 10m, linger: 1h}}\n{LOG_ALL}"));
    let mut sessions: Vec<Session> = (0..SESSIONS).map(|_| Session::open(&program, &server)).collect();
    program.signal("TERM");
    for session in &mut sessions {
        session.proxy_closes(1001, "");
    }
    program.wait_for_phase("drained");
    let scrape = program.scrape();
    let labels = [("code", "1001"), ("initiator", "proxy"), ("clean", "true")];
    assert_eq!(scrape.sum("websocket_closes_total", &labels), SESSIONS as f64);
    assert_eq!(scrape.sum("closewatch_log_records_dropped_total", &[]), 0.0);
    scrape.assert_sums();
    program.signal("TERM");
    let records = program.ended().records();
    let mut ids: Vec<_> = records.iter().map(|record| record["session"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((records.len(), ids.len()), (SESSIONS, SESSIONS));
}
