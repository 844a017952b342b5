//! What a drain does to each session: its Close frames, the answers to them, and the cut.

use serde_json::{Value, json};

use crate::{
    support::closewatch::{Closewatch, LOG_ALL},
    support::{Peer, REQUEST, SWITCHING, Server, Session, close, from_client, from_server, masked},
};

/// As long as nothing hangs, nobody waits for this.
const PATIENT: &str = "shutdown: {timeout: 10m}\n";

/// Whatever is left is cut soon.
const IMPATIENT: &str = "shutdown: {timeout: 300ms}\n";

/// The Close frame of a drain as a client gets it.
pub(crate) fn going_away() -> Vec<u8> {
    from_server(0x88, &close(1001, ""))
}

/// A closewatch that logs every ending, with a session through it.
fn open_session(config: &str) -> (Closewatch, Session) {
    let server = Server::start();
    let closewatch = Closewatch::before(&server, &format!("{config}{LOG_ALL}"));
    let session = closewatch.session(&server);
    (closewatch, session)
}

/// Reads a Close frame of closewatch's as a server gets it, masked, and returns its payload.
pub(crate) fn receive_masked_close(server: &mut Peer) -> Vec<u8> {
    let head = server.receive(6);
    assert_eq!((head[0], head[1] & 0x80), (0x88, 0x80), "{head:?}");
    let payload = server.receive(usize::from(head[1] & 0x7f));
    masked([head[2], head[3], head[4], head[5]], &payload)
}

/// Both ends get the drain's Close frame, answer it, and are hung up on.
pub(crate) fn close_both(session: &mut Session) {
    session.client.expect(going_away());
    assert_eq!(receive_masked_close(&mut session.server), close(1001, ""));
    answer_both(session);
}

/// Both ends answer, and hang up as soon as they are hung up on.
pub(crate) fn answer_both(session: &mut Session) {
    session.client.send(from_client(0x88, &close(1001, "")));
    session.server.send(from_server(0x88, &close(1001, "")));
    session.client.expect_fin();
    session.server.expect_fin();
    session.client.finish();
    session.server.finish();
}

/// What a record says of how a session ended.
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

/// The ending of the only session, which the log tells.
fn only_ending(closewatch: Closewatch) -> Value {
    let records = closewatch.drained();
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
fn both_ends_get_a_close_frame_and_their_answers_are_awaited() {
    let (closewatch, mut session) = open_session(PATIENT);
    session.exchange();
    closewatch.signal("TERM");
    close_both(&mut session);
    assert_eq!(only_ending(closewatch), answered());
}

#[test]
fn code_and_reason_are_as_configured() {
    let server = Server::start();
    let config = format!("shutdown: {{timeout: 10m, code: 1012, reason: \"new version\"}}\n{LOG_ALL}");
    let closewatch = Closewatch::before(&server, &config);
    let mut session = closewatch.session(&server);
    closewatch.signal("TERM");
    session.client.expect(from_server(0x88, &close(1012, "new version")));
    assert_eq!(receive_masked_close(&mut session.server), close(1012, "new version"));
    answer_both(&mut session);
    let records = closewatch.drained();
    assert_eq!((&records[0]["code"], &records[0]["reason"]), (&json!(1012), &json!("new version")));
    assert_eq!(records[0]["client_saw"], json!({"code": 1012, "reason": "new version", "clean": true}));
}

#[test]
fn the_close_frame_stands_between_the_fragments_of_a_message() {
    let (closewatch, mut session) = open_session(PATIENT);
    let (first, last) = (from_server(0x01, b"beginning"), from_server(0x80, b"end"));
    session.server.send(&first);
    session.client.expect(&first);
    closewatch.signal("TERM");
    session.client.expect(going_away());
    // What still comes is read and counted, but nothing follows a Close frame.
    assert_eq!(receive_masked_close(&mut session.server), close(1001, ""));
    session.server.send(&last);
    answer_both(&mut session);
    let records = closewatch.drained();
    assert_eq!(ending(&records[0]), answered());
    assert_eq!(records[0]["from_server"]["messages"], 1);
}

#[test]
fn a_frame_under_way_is_finished_before_the_close_frame() {
    let (closewatch, mut session) = open_session(PATIENT);
    let large = from_server(0x82, &vec![7; 300_000]);
    let (sent, rest) = large.split_at(100_000);
    session.server.send(sent);
    session.client.expect(sent);
    closewatch.signal("TERM");
    // The other direction stands between two frames.
    assert_eq!(receive_masked_close(&mut session.server), close(1001, ""));
    session.server.send([rest, &from_server(0x81, b"too late")].concat());
    session.client.expect(rest);
    session.client.expect(going_away());
    answer_both(&mut session);
    let records = closewatch.drained();
    assert_eq!(ending(&records[0]), answered());
    assert_eq!(records[0]["from_server"]["messages"], 2);
}

#[test]
fn a_masked_frame_under_way_is_finished_too() {
    let (closewatch, mut session) = open_session(PATIENT);
    let large = from_client(0x82, &vec![7; 70_000]);
    // Even in the middle of a header.
    let (sent, rest) = large.split_at(3);
    session.client.send(sent);
    session.server.expect(sent);
    closewatch.signal("TERM");
    session.client.expect(going_away());
    session.client.send(rest);
    session.server.expect(rest);
    assert_eq!(receive_masked_close(&mut session.server), close(1001, ""));
    answer_both(&mut session);
    assert_eq!(only_ending(closewatch), answered());
}

#[test]
fn who_does_not_answer_is_cut_at_the_timeout() {
    // The drain's own timeout counts, not that of other closing handshakes.
    let (closewatch, mut session) = open_session(&format!("{IMPATIENT}timeouts: {{close: 10m}}\n"));
    closewatch.signal("TERM");
    session.client.expect(going_away());
    receive_masked_close(&mut session.server);
    session.client.send(from_client(0x88, &close(1001, "")));
    // Who was delivered a Close frame gets a FIN, never an RST.
    session.client.expect_fin();
    session.server.expect_fin();
    let expected = json!({
        "code": 1001, "initiator": "proxy", "clean": false, "cause": "drain", "cause_endpoint": "proxy",
        "action": "drain", "client_saw": [1001, true], "server_saw": [1001, false],
    });
    assert_eq!(only_ending(closewatch), expected);
}

#[test]
fn timeouts_close_plays_no_part() {
    let (closewatch, mut session) = open_session(&format!("{IMPATIENT}timeouts: {{close: 1ms}}\n"));
    closewatch.signal("TERM");
    session.client.expect(going_away());
    receive_masked_close(&mut session.server);
    // With the timeout of other closing handshakes it would be gone by now, and the cause would tell.
    session.client.expect_fin();
    let ending = only_ending(closewatch);
    assert_eq!((&ending["cause"], &ending["code"]), (&json!("drain"), &json!(1001)));
}

#[test]
fn an_end_that_stands_inside_a_frame_gets_only_the_cut() {
    let (closewatch, mut session) = open_session(IMPATIENT);
    let half = &from_server(0x82, &[7; 100])[..50];
    session.server.send(half);
    session.client.expect(half);
    closewatch.signal("TERM");
    assert_eq!(receive_masked_close(&mut session.server), close(1001, ""));
    session.server.expect_fin();
    let (rest, _) = session.client.receive_rest();
    assert_eq!(rest, b"", "no Close frame inside of another frame");
    let expected = json!({
        "code": 1001, "initiator": "proxy", "clean": false, "cause": "drain", "cause_endpoint": "proxy",
        "action": "drain", "client_saw": [1006, false], "server_saw": [1001, false],
    });
    assert_eq!(only_ending(closewatch), expected);
}

#[test]
fn where_both_stand_inside_a_frame_it_is_a_1006_of_the_proxys() {
    let (closewatch, mut session) = open_session(IMPATIENT);
    let (half, other_half) = (&from_server(0x82, &[7; 100])[..50], &from_client(0x82, &[7; 100])[..50]);
    session.server.send(half);
    session.client.expect(half);
    session.client.send(other_half);
    session.server.expect(other_half);
    closewatch.signal("TERM");
    assert_eq!(session.client.receive_rest().0, b"");
    assert_eq!(session.server.receive_rest().0, b"");
    let expected = json!({
        "code": 1006, "initiator": "proxy", "clean": false, "cause": "drain", "cause_endpoint": "proxy",
        "action": "drain", "client_saw": [1006, false], "server_saw": [1006, false],
    });
    assert_eq!(only_ending(closewatch), expected);
}

#[test]
fn a_session_that_is_closing_gets_no_second_close_frame() {
    let (closewatch, mut session) = open_session(PATIENT);
    session.client_closes(1000, "done");
    closewatch.drain();
    session.server.send(from_server(0x88, &close(1000, "done")));
    session.client.expect(from_server(0x88, &close(1000, "done")));
    session.server.finish();
    session.client.expect_fin();
    session.server.expect_fin();
    let expected = json!({
        "code": 1000, "initiator": "client", "clean": true, "cause": null, "cause_endpoint": null, "action": null,
        "client_saw": [1000, true], "server_saw": [1000, true],
    });
    assert_eq!(only_ending(closewatch), expected);
}

#[test]
fn a_session_that_is_closing_gets_the_drains_deadline() {
    let (closewatch, mut session) = open_session(&format!("{IMPATIENT}timeouts: {{close: 10m}}\n"));
    session.client_closes(1000, "done");
    closewatch.signal("TERM");
    session.server.expect_fin();
    let (rest, _) = session.client.receive_rest();
    assert_eq!(rest, b"");
    let expected = json!({
        "code": 1000, "initiator": "client", "clean": false, "cause": "drain", "cause_endpoint": "proxy",
        "action": "drain", "client_saw": [1006, false], "server_saw": [1000, false],
    });
    assert_eq!(only_ending(closewatch), expected);
}

#[test]
fn a_handshake_under_way_becomes_a_session_that_is_closed() {
    let server = Server::start();
    let closewatch = Closewatch::before(&server, &format!("{PATIENT}{LOG_ALL}"));
    let mut client = closewatch.connect();
    client.send(REQUEST);
    let (mut behind, _) = server.accept_request();
    closewatch.drain();
    behind.send(SWITCHING);
    let head = client.receive_head();
    assert_eq!(head.first_line(), "HTTP/1.1 101 Switching Protocols");
    assert_eq!(head.value("connection"), Some("Upgrade"));
    close_both(&mut Session { client, server: behind });
    assert_eq!(only_ending(closewatch), answered());
}
