//! The ends of sessions: the record, the metrics and both endpoints agree.

use closewatch::websocket::Endpoint;
use serde_json::{Value, json};

use crate::support::{
    Program, REQUEST, Server, Session, assert_record, close, close_from_client, close_from_server, from, from_client,
    from_server,
};

fn saw(code: Option<u16>, reason: &str, clean: bool) -> Value {
    json!({"code": code, "reason": reason, "clean": clean})
}

#[test]
fn clean_close_by_the_client_is_reported_everywhere() {
    let server = Server::start();
    let program = Program::before(&server, "log: {sessions: all}\n");
    let mut session = Session::open(&program, &server);
    let client = session.client.address();
    session.exchange();
    session.client_closes(1000, "done");
    session.server_closes(1000, "fine");
    session.server.finish();
    session.client.expect_fin();
    session.server.expect_fin();
    let record = program.record();
    assert_record(
        &record,
        &json!({
            "event": "session_closed", "route": "default", "path": "/chat", "subprotocol": null, "extensions": null,
            "trace_id": null, "client": client.to_string(), "server": server.address().to_string(),
            "code": 1000, "name": "Normal Closure", "reason": "done", "initiator": "client", "clean": true,
            "cause": null, "cause_endpoint": null, "action": null,
            "client_saw": saw(Some(1000), "fine", true), "server_saw": saw(Some(1000), "done", true),
            "from_client": {"frames": 2, "messages": 1, "bytes": 14 + 12, "pings": 0, "violations": []},
            "from_server": {"frames": 2, "messages": 1, "bytes": 8 + 8, "pings": 0, "violations": []},
            "close_notify": {"client": null, "server": null}, "ping_rtt_seconds": {"client": null, "server": null},
        }),
    );
    let duration = record["duration_seconds"].as_f64().unwrap();
    assert!(duration > 0.0 && duration >= record["idle_seconds"].as_f64().unwrap());
    let scrape = program.scrape();
    let once =
        |metric: &str, labels: &[(&str, &str)]| assert_eq!(scrape.sum(metric, labels), 1.0, "{metric}{labels:?}");
    once("websocket_closes_total", &[("code", "1000"), ("initiator", "client"), ("clean", "true")]);
    once("websocket_close_events_total", &[("endpoint", "client"), ("code", "1000"), ("clean", "true")]);
    once("websocket_close_events_total", &[("endpoint", "server"), ("code", "1000"), ("clean", "true")]);
    once("websocket_close_views_total", &[("client", "1000"), ("server", "1000")]);
    once("websocket_close_frames_total", &[("from", "client"), ("code", "1000")]);
    once("websocket_close_frames_total", &[("from", "server"), ("code", "1000")]);
    once("websocket_session_duration_seconds_count", &[("code", "1000")]);
    once("websocket_idle_before_close_seconds_count", &[("code", "1000")]);
    once("websocket_close_handshake_duration_seconds_count", &[("initiator", "client")]);
    assert!(scrape.nonzero("websocket_abnormal_closes_total").is_empty());
    assert!(scrape.nonzero("websocket_proxy_actions_total").is_empty());
    let log = program.terminated().log;
    let sentence = log.iter().find(|line| line.contains("session ")).unwrap();
    assert!(sentence.contains("client sent 1000 (Normal Closure) \"done\""), "{sentence}");
    assert!(sentence.contains("server answered with 1000"), "{sentence}");
}

/// The payload of the first Close frame, and the one of the answer. The code in the record, the label and the name. The
/// code of the answer.
type Codes<'a> = (&'a [u8], &'a [u8], Option<u16>, &'a str, &'a str, Option<u16>);

#[test]
fn records_have_the_codes_of_the_wire() {
    let server = Server::start();
    let program = Program::before(&server, "metrics: {codes: [4002]}\nlog: {sessions: off}\n");
    let cases: [Codes<'_>; 14] = [
        (b"", b"", Some(1005), "1005", "No Status Rcvd", Some(1005)),
        (&close(1001, "away"), &close(1001, ""), Some(1001), "1001", "Going Away", Some(1001)),
        (&close(1012, ""), &close(1012, ""), Some(1012), "1012", "Service Restart", Some(1012)),
        (&close(4002, ""), &close(1000, ""), Some(4002), "4002", "Private", Some(1000)),
        (&close(4999, ""), &close(1000, ""), Some(4999), "4999", "Private", Some(1000)),
        (&close(3000, ""), &close(3000, ""), Some(3000), "3000", "Unauthorized", Some(3000)),
        (&close(3999, ""), &close(3999, ""), Some(3999), "3999", "Registered", Some(3999)),
        (&close(2999, ""), b"", Some(2999), "reserved", "Reserved", Some(1005)),
        (&close(999, ""), &close(1002, ""), Some(999), "invalid", "Invalid", Some(1002)),
        (&close(0, ""), &close(1002, ""), Some(0), "invalid", "Invalid", Some(1002)),
        (&close(1006, "fake"), &close(1002, ""), Some(1006), "invalid", "Invalid", Some(1002)),
        (&close(1005, ""), &close(1002, ""), Some(1005), "invalid", "Invalid", Some(1002)),
        (&close(65535, ""), &close(1002, ""), Some(65535), "invalid", "Invalid", Some(1002)),
        (&[3], &close(1002, ""), None, "invalid", "Invalid", Some(1002)),
    ];
    let mut seen = 0;
    for (first, answer, code, label, name, answered) in &cases {
        for initiator in Endpoint::BOTH {
            let mut session = Session::open(&program, &server);
            session.pass(initiator, from(initiator, 0x88, first));
            session.pass(initiator.other(), from(initiator.other(), 0x88, answer));
            drop(session);
            let initiator = initiator.as_str();
            seen += 1;
            let record = program.records(seen).pop().unwrap();
            assert_record(&record, &json!({"code": code, "name": name, "initiator": initiator, "clean": true}));
            let (of_initiator, of_other) = match initiator {
                "client" => (&record["client_saw"]["code"], &record["server_saw"]["code"]),
                _ => (&record["server_saw"]["code"], &record["client_saw"]["code"]),
            };
            assert_eq!((of_initiator, of_other), (&json!(answered), &json!(code)), "{record:#}");
            let labels = [("code", *label), ("initiator", initiator), ("clean", "true")];
            assert!(program.scrape().sum("websocket_closes_total", &labels) >= 1.0, "{labels:?}");
        }
    }
    let scrape = program.scrape();
    assert_eq!(scrape.sum("websocket_closes_total", &[("code", "1006")]), 0.0, "no invented 1006");
    assert_eq!(scrape.sum("websocket_closes_total", &[("code", "invalid")]), 12.0);
    for from in ["client", "server"] {
        let violations = [("from", from), ("kind", "close_code")];
        assert_eq!(scrape.sum("websocket_protocol_violations_total", &violations), 7.0);
    }
}

#[test]
fn session_without_close_frame_is_a_1006_of_the_first_to_end() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let half = &from_client(0x81, b"half a frame")[..9];
    let mut count = 0;
    for (endpoint, how) in
        Endpoint::BOTH.into_iter().flat_map(|endpoint| ["eof", "truncated", "reset"].map(|how| (endpoint, how)))
    {
        let (mut first, mut second) = Session::open(&program, &server).split(endpoint);
        let endpoint = endpoint.as_str();
        if how == "truncated" {
            first.send(half);
            second.expect(half);
        }
        if how == "reset" {
            first.reset();
            second.expect_rst();
        } else {
            first.finish();
            second.expect_fin();
            second.finish();
            first.expect_fin();
        }
        count += 1;
        let record = program.records(count).pop().unwrap();
        assert_record(
            &record,
            &json!({
                "code": 1006, "name": "Abnormal Closure", "reason": "", "initiator": endpoint, "clean": false,
                "cause": how, "cause_endpoint": endpoint, "action": null,
                "client_saw": saw(Some(1006), "", false), "server_saw": saw(Some(1006), "", false),
            }),
        );
        program.wait_for("websocket_abnormal_closes_total", &[("endpoint", endpoint), ("cause", how)], 1.0);
    }
    program.wait_for("websocket_close_views_total", &[("client", "1006"), ("server", "1006")], 6.0);
    program.wait_for("websocket_closes_total", &[("code", "1006"), ("initiator", "client")], 3.0);
}

#[test]
fn endpoint_that_ends_without_an_answer_is_at_fault() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {close: 20s}\n");
    let mut count = 0;
    for how in ["eof", "truncated", "reset"] {
        let mut session = Session::open(&program, &server);
        session.client_closes(1000, "bye");
        if how == "truncated" {
            session.pass(Endpoint::Server, &from_server(0x81, b"half")[..4]);
        }
        if how == "reset" {
            session.server.reset();
            session.client.expect_rst();
            drop(session.client);
        } else {
            session.server.finish();
            session.client.expect_fin();
            session.client.finish();
            session.server.expect_fin();
        }
        count += 1;
        assert_record(
            &program.records(count).pop().unwrap(),
            &json!({
                "code": 1000, "reason": "bye", "initiator": "client", "clean": false,
                "cause": how, "cause_endpoint": "server",
                "client_saw": saw(Some(1006), "", false), "server_saw": saw(Some(1000), "bye", false),
            }),
        );
    }
}

#[test]
fn silent_endpoint_is_recorded_as_no_close_reply() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {close: 200ms}\n");
    let mut session = Session::open(&program, &server);
    session.client_closes(1000, "");
    // Neither endpoint gets RST: the server got a Close frame, and the client's peer is not lost.
    session.server.expect_fin();
    session.client.expect_fin();
    assert_record(
        &program.record(),
        &json!({
            "code": 1000, "initiator": "client", "clean": false, "cause": "no_close_reply", "cause_endpoint": "server",
            "client_saw": saw(Some(1006), "", false), "server_saw": saw(Some(1000), "", false),
        }),
    );
    program.wait_for("websocket_close_handshake_duration_seconds_count", &[], 0.0);
}

#[test]
fn session_ends_after_hang_up_timeout() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {hang_up: 100ms}\n");
    let mut session = Session::open(&program, &server);
    session.server_closes(1012, "restart");
    session.client_closes(1012, "");
    session.server.expect_fin();
    session.client.expect_fin();
    assert_record(&program.record(), &json!({"code": 1012, "initiator": "server", "clean": true, "reason": "restart"}));
}

#[test]
fn close_frame_in_single_bytes_is_recognised() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let Session { mut client, mut server } = Session::open(&program, &server);
    for byte in close_from_client(4003, "piece by piece") {
        client.send([byte]);
        server.expect([byte]);
    }
    for byte in close_from_server(4003, "") {
        server.send([byte]);
        client.expect([byte]);
    }
    drop((client, server));
    assert_record(&program.record(), &json!({"code": 4003, "reason": "piece by piece", "clean": true}));
}

#[test]
fn crossing_close_frames_are_clean() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let Session { mut client, mut server } = Session::open(&program, &server);
    let (of_client, of_server) = (close_from_client(1000, ""), close_from_server(1001, ""));
    client.send(&of_client);
    server.send(&of_server);
    server.expect(&of_client);
    client.expect(&of_server);
    drop((client, server));
    let record = program.record();
    assert_record(&record, &json!({"clean": true, "client_saw": saw(Some(1001), "", true)}));
    assert_eq!(record["server_saw"], saw(Some(1000), "", true));
}

#[test]
fn record_has_the_trace_id_of_the_request() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let traceparent = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = REQUEST.replace("\r\n\r\n", &format!("\r\n{traceparent}\r\n\r\n"));
    drop(Session::open_with(program.connect(), &server, &request));
    assert_record(&program.record(), &json!({"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}));
}

#[test]
fn custom_codes_get_a_bounded_number_of_series() {
    let server = Server::start();
    let program = Program::before(&server, "metrics: {max_custom_codes: 2}\nlog: {sessions: off}\n");
    for code in 4100..4106 {
        let mut session = Session::open(&program, &server);
        session.client_closes(code, "");
        session.server_closes(code, "");
    }
    program.records(6);
    let scrape = program.scrape();
    assert_eq!(scrape.sum("websocket_closes_total", &[("code", "4100")]), 1.0);
    assert_eq!(scrape.sum("websocket_closes_total", &[("code", "4101")]), 1.0);
    assert_eq!(scrape.sum("websocket_closes_total", &[("code", "4xxx")]), 4.0);
    assert_eq!(scrape.sum("websocket_close_views_total", &[("client", "4xxx"), ("server", "4xxx")]), 6.0);
    assert_eq!(scrape.sum("websocket_session_duration_seconds_count", &[("code", "4xxx")]), 6.0);
}
