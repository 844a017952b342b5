//! The effect of a drain on each session: Close frames, the answers to them, and the cut.

use serde_json::{Value, json};

use closewatch::websocket::Endpoint;

use crate::support::{
    LOG_ALL, Program, REQUEST, SWITCHING, Server, Session, close_from_client, close_from_server, from_client,
    from_server,
};

/// A timeout that no passing test reaches.
const PATIENT: &str = "shutdown: {timeout: 10m}\n";

/// A timeout that cuts the rest soon.
const IMPATIENT: &str = "shutdown: {timeout: 300ms}\n";

/// The Close frame of a drain, for a client.
fn going_away() -> Vec<u8> {
    close_from_server(1001, "")
}

/// A closewatch that logs every record, and a session through it.
fn open_session(config: &str) -> (Program, Session) {
    let server = Server::start();
    let program = Program::before(&server, &format!("{config}{LOG_ALL}"));
    let session = Session::open(&program, &server);
    (program, session)
}

/// The keys of a record that describe the end of a session.
fn ending(record: &Value) -> Value {
    let saw = |endpoint: &str| {
        let saw = &record[endpoint];
        json!([saw["code"], saw["clean"]])
    };
    json!({
        "code": record["code"], "initiator": record["initiator"], "clean": record["clean"],
        "cause": record["cause"], "cause_endpoint": record["cause_endpoint"], "action": record["action"],
        "client_saw": saw("client_saw"), "server_saw": saw("server_saw"),
    })
}

/// The ending in the log. There is only one.
fn only_ending(program: Program) -> Value {
    let records = program.drained();
    let [record] = &records[..] else { panic!("{records:#?}") };
    ending(record)
}

fn answered() -> Value {
    json!({
        "code": 1001, "initiator": "proxy", "clean": true, "cause": null, "cause_endpoint": null, "action": "drain",
        "client_saw": [1001, true], "server_saw": [1001, true],
    })
}

#[test]
fn drain_closes_both_ends_and_awaits_their_answers() {
    let (program, mut session) = open_session(PATIENT);
    session.exchange();
    program.signal("TERM");
    session.proxy_closes(1001, "");
    assert_eq!(only_ending(program), answered());
}

#[test]
fn drain_sends_the_configured_code_and_reason() {
    let server = Server::start();
    let config = format!("shutdown: {{timeout: 10m, code: 1012, reason: \"new version\"}}\n{LOG_ALL}");
    let program = Program::before(&server, &config);
    let mut session = Session::open(&program, &server);
    program.signal("TERM");
    session.client.expect(close_from_server(1012, "new version"));
    assert_eq!(session.server.receive_close(true), (1012, "new version".to_owned()));
    session.answer_close(1001);
    let records = program.drained();
    assert_eq!((&records[0]["code"], &records[0]["reason"]), (&json!(1012), &json!("new version")));
    assert_eq!(records[0]["client_saw"], json!({"code": 1012, "reason": "new version", "clean": true}));
}

#[test]
fn close_frame_stands_between_fragments_of_a_message() {
    let (program, mut session) = open_session(PATIENT);
    let (first, last) = (from_server(0x01, b"beginning"), from_server(0x80, b"end"));
    session.pass(Endpoint::Server, &first);
    program.signal("TERM");
    session.client.expect(going_away());
    // The last fragment is read and counted, but not sent after a Close frame.
    assert_eq!(session.server.receive_close(true), (1001, String::new()));
    session.server.send(&last);
    session.answer_close(1001);
    let records = program.drained();
    assert_eq!(ending(&records[0]), answered());
    assert_eq!(records[0]["from_server"]["messages"], 1);
}

#[test]
fn unfinished_frame_ends_before_the_close_frame() {
    let (program, mut session) = open_session(PATIENT);
    let large = from_server(0x82, &vec![7; 300_000]);
    let (sent, rest) = large.split_at(100_000);
    session.pass(Endpoint::Server, sent);
    program.signal("TERM");
    // The other direction is between two frames.
    assert_eq!(session.server.receive_close(true), (1001, String::new()));
    session.server.send([rest, &from_server(0x81, b"too late")].concat());
    session.client.expect(rest);
    session.client.expect(going_away());
    session.answer_close(1001);
    let records = program.drained();
    assert_eq!(ending(&records[0]), answered());
    assert_eq!(records[0]["from_server"]["messages"], 2);
}

#[test]
fn unfinished_masked_frame_ends_before_the_close_frame() {
    let (program, mut session) = open_session(PATIENT);
    let large = from_client(0x82, &vec![7; 70_000]);
    // The cut is in the middle of a header.
    let (sent, rest) = large.split_at(3);
    session.pass(Endpoint::Client, sent);
    program.signal("TERM");
    session.client.expect(going_away());
    session.pass(Endpoint::Client, rest);
    assert_eq!(session.server.receive_close(true), (1001, String::new()));
    session.answer_close(1001);
    assert_eq!(only_ending(program), answered());
}

#[test]
fn drain_cuts_an_end_without_an_answer_at_the_timeout() {
    // The timeout of the drain applies, not the one of other closing handshakes.
    let (program, mut session) = open_session(&format!("{IMPATIENT}timeouts: {{close: 10m}}\n"));
    program.signal("TERM");
    session.client.expect(going_away());
    session.server.receive_close(true);
    session.client.send(close_from_client(1001, ""));
    // An endpoint that got a Close frame gets FIN, never RST.
    session.client.expect_fin();
    session.server.expect_fin();
    let expected = json!({
        "code": 1001, "initiator": "proxy", "clean": false, "cause": "drain", "cause_endpoint": "proxy",
        "action": "drain", "client_saw": [1001, true], "server_saw": [1001, false],
    });
    assert_eq!(only_ending(program), expected);
}

#[test]
fn drain_ignores_timeouts_close() {
    let (program, mut session) = open_session(&format!("{IMPATIENT}timeouts: {{close: 1ms}}\n"));
    program.signal("TERM");
    session.client.expect(going_away());
    session.server.receive_close(true);
    // With `timeouts.close`, the session would be over by now, with another cause.
    session.client.expect_fin();
    let ending = only_ending(program);
    assert_eq!((&ending["cause"], &ending["code"]), (&json!("drain"), &json!(1001)));
}

#[test]
fn drain_sends_no_close_frame_inside_a_frame() {
    let (program, mut session) = open_session(IMPATIENT);
    let half = &from_server(0x82, &[7; 100])[..50];
    session.pass(Endpoint::Server, half);
    program.signal("TERM");
    assert_eq!(session.server.receive_close(true), (1001, String::new()));
    session.server.expect_fin();
    let (rest, _) = session.client.receive_rest();
    assert_eq!(rest, b"", "no Close frame inside another frame");
    let expected = json!({
        "code": 1001, "initiator": "proxy", "clean": false, "cause": "drain", "cause_endpoint": "proxy",
        "action": "drain", "client_saw": [1006, false], "server_saw": [1001, false],
    });
    assert_eq!(only_ending(program), expected);
}

#[test]
fn drain_cut_inside_both_frames_is_a_1006_of_the_proxy() {
    let (program, mut session) = open_session(IMPATIENT);
    let (half, other_half) = (&from_server(0x82, &[7; 100])[..50], &from_client(0x82, &[7; 100])[..50]);
    session.pass(Endpoint::Server, half);
    session.pass(Endpoint::Client, other_half);
    program.signal("TERM");
    assert_eq!(session.client.receive_rest().0, b"");
    assert_eq!(session.server.receive_rest().0, b"");
    let expected = json!({
        "code": 1006, "initiator": "proxy", "clean": false, "cause": "drain", "cause_endpoint": "proxy",
        "action": "drain", "client_saw": [1006, false], "server_saw": [1006, false],
    });
    assert_eq!(only_ending(program), expected);
}

#[test]
fn closing_session_gets_no_second_close_frame() {
    let (program, mut session) = open_session(PATIENT);
    session.client_closes(1000, "done");
    program.drain();
    session.pass(Endpoint::Server, close_from_server(1000, "done"));
    session.server.finish();
    session.client.expect_fin();
    session.server.expect_fin();
    let expected = json!({
        "code": 1000, "initiator": "client", "clean": true, "cause": null, "cause_endpoint": null, "action": null,
        "client_saw": [1000, true], "server_saw": [1000, true],
    });
    assert_eq!(only_ending(program), expected);
}

#[test]
fn closing_session_gets_the_deadline_of_the_drain() {
    let (program, mut session) = open_session(&format!("{IMPATIENT}timeouts: {{close: 10m}}\n"));
    session.client_closes(1000, "done");
    program.signal("TERM");
    session.server.expect_fin();
    let (rest, _) = session.client.receive_rest();
    assert_eq!(rest, b"");
    let expected = json!({
        "code": 1000, "initiator": "client", "clean": false, "cause": "drain", "cause_endpoint": "proxy",
        "action": "drain", "client_saw": [1006, false], "server_saw": [1000, false],
    });
    assert_eq!(only_ending(program), expected);
}

#[test]
fn pending_handshake_becomes_a_session_that_drain_closes() {
    let server = Server::start();
    let program = Program::before(&server, &format!("{PATIENT}{LOG_ALL}"));
    let mut client = program.connect();
    client.send(REQUEST);
    let (mut server_end, _) = server.accept_request();
    program.drain();
    server_end.send(SWITCHING);
    let head = client.receive_head();
    assert_eq!(head.first_line(), "HTTP/1.1 101 Switching Protocols");
    assert_eq!(head.value("connection"), Some("Upgrade"));
    Session { client, server: server_end }.proxy_closes(1001, "");
    assert_eq!(only_ending(program), answered());
}
