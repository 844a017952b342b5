//! Sessions that closewatch closes itself, by a Close frame on both legs between two frames.

use serde_json::json;

use closewatch::websocket::Endpoint;

use crate::support::{
    Peer, Program, REQUEST, SWITCHING, Server, Session, assert_record, close_from_client, close_from_server,
    from_client, from_server,
};

#[test]
fn idle_session_gets_1001_on_both_legs() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {idle: 200ms}\n");
    let mut session = Session::open(&program, &server);
    session.exchange();
    session.proxy_closes(1001, "");
    drop(session);
    let saw = json!({"code": 1001, "reason": "", "clean": true});
    assert_record(
        &program.record(),
        &json!({"code": 1001, "initiator": "proxy", "clean": true, "cause": null, "action": "idle_timeout",
            "client_saw": saw, "server_saw": saw}),
    );
    program.wait_for("websocket_proxy_actions_total", &[("action", "idle_timeout")], 1.0);
    program.wait_for("websocket_closes_total", &[("code", "1001"), ("initiator", "proxy"), ("clean", "true")], 1.0);
    program.wait_for("websocket_close_frames_total", &[("from", "client"), ("code", "1001")], 1.0);
}

#[test]
fn idle_session_without_an_answer_is_cut() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {idle: 100ms, close: 100ms}\n");
    let mut session = Session::open(&program, &server);
    assert_eq!(session.client.receive_close(false).0, 1001);
    assert_eq!(session.server.receive_close(true).0, 1001);
    session.client.send(close_from_client(1001, ""));
    session.client.expect_fin();
    session.server.expect_fin();
    assert_record(
        &program.record(),
        &json!({"code": 1001, "clean": false, "cause": "idle_timeout", "cause_endpoint": "proxy", "action": "idle_timeout"}),
    );
    program.wait_for("websocket_abnormal_closes_total", &[("endpoint", "proxy"), ("cause", "idle_timeout")], 1.0);
}

#[test]
fn old_session_gets_1001() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {max_age: 200ms}\n");
    Session::open(&program, &server).proxy_closes(1001, "");
    assert_record(&program.record(), &json!({"code": 1001, "initiator": "proxy", "clean": true, "action": "max_age"}));
}

/// A Close frame inside another frame would be a part of its payload.
#[test]
fn close_frame_is_injected_between_two_frames() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {idle: 200ms, close: 10s}\n");
    let Session { mut client, mut server } = Session::open(&program, &server);
    let frame = from_client(0x82, &[1; 1000]);
    client.send(&frame[..500]);
    server.expect(&frame[..500]);
    // The client's leg is between two frames, the server's leg is not.
    assert_eq!(client.receive_close(false).0, 1001);
    assert!(server.nothing_readable());
    client.send([&frame[500..], &from_client(0x81, b"dropped"), &close_from_client(1001, "")].concat());
    server.expect(&frame[500..]);
    assert_eq!(server.receive_close(true).0, 1001);
    server.send([from_server(0x81, b"dropped too"), close_from_server(1001, "")].concat());
    client.expect_fin();
    server.expect_fin();
    drop((client, server));
    let record = program.record();
    assert_record(&record, &json!({"clean": true, "action": "idle_timeout"}));
    // Dropped frames are counted, too.
    assert_eq!(record["from_client"]["messages"], 2);
    assert_eq!(record["from_server"]["messages"], 1);
}

#[test]
fn frame_above_the_limit_is_replaced_by_1009_on_both_legs() {
    let server = Server::start();
    let program = Program::before(&server, "limits: {frame_bytes: 1000}\n");
    let allowed = from_client(0x82, &[1; 1000]);
    let too_large = from_client(0x82, &[2; 1001]);
    for first_piece in [1, 3, too_large.len()] {
        let mut session = Session::open(&program, &server);
        session.pass(Endpoint::Client, &allowed);
        session.client.send(&too_large[..first_piece]);
        if first_piece < too_large.len() {
            // Half a header is not above the limit.
            session.exchange_from_server();
            session.client.send(&too_large[first_piece..]);
        }
        session.proxy_closes(1009, "");
    }
    for record in program.records(3) {
        assert_record(&record, &json!({"code": 1009, "initiator": "proxy", "clean": true, "action": "limit"}));
        assert_eq!(record["from_client"]["bytes"], 1008 + 1009 + 8, "all of it was read: {record:#}");
    }
}

/// The largest length of a frame (RFC 6455, section 5.2), alone and behind another frame.
#[test]
fn largest_length_of_a_frame_is_compared_with_the_limits() {
    let huge = |first: u8| [&[first, 0xff, 0x7f][..], &[0xff; 7], &[1, 2, 3, 4]].concat();
    let server = Server::start();
    for limits in ["frame_bytes: 1000", "message_bytes: 1000", "frame_bytes: 1000, message_bytes: 1000"] {
        let program = Program::before(&server, &format!("timeouts: {{hang_up: 100ms}}\nlimits: {{{limits}}}\n"));
        let mut session = Session::open(&program, &server);
        let beginning = from_client(0x02, b"begins");
        session.client.send([&beginning[..], &huge(0x80)].concat());
        session.server.expect(&beginning);
        assert_eq!(session.client.receive_close(false).0, 1009);
        assert_eq!(session.server.receive_close(true).0, 1009);
        session.server.send(close_from_server(1009, ""));
        session.client.reset();
        assert_record(&program.record(), &json!({"code": 1009, "initiator": "proxy", "action": "limit"}));
    }
    let program = Program::before(&server, "");
    let mut session = Session::open(&program, &server);
    let bytes = [huge(0x82), vec![7; 100_000]].concat();
    session.pass(Endpoint::Client, &bytes);
    session.client.finish();
    drop(session);
    assert_record(&program.record(), &json!({"code": 1006, "cause": "truncated", "cause_endpoint": "client"}));
}

#[test]
fn header_passes_when_it_is_whole_if_a_limit_is_set() {
    let server = Server::start();
    let program = Program::before(&server, "limits: {frame_bytes: 1000}\n");
    let Session { mut client, mut server } = Session::open(&program, &server);
    for byte in from_client(0x82, &[1; 200]) {
        client.send([byte]);
    }
    server.expect(from_client(0x82, &[1; 200]));
    // The beginning of a header passes with the FIN of its sender.
    client.send([0x82]);
    client.finish();
    assert_eq!(server.receive_rest().0, [0x82]);
    drop((client, server));
    assert_record(&program.record(), &json!({"code": 1006, "cause": "truncated", "cause_endpoint": "client"}));
}

#[test]
fn message_above_the_limit_gets_1009_at_the_exceeding_frame() {
    let server = Server::start();
    let program = Program::before(&server, "limits: {message_bytes: 1000}\n");
    let Session { mut client, mut server } = Session::open(&program, &server);
    let (begin, go_on) = (from_server(0x02, &[1; 600]), from_server(0x00, &[2; 400]));
    server.send([&begin[..], &from_server(0x89, b"ping"), &go_on, &from_server(0x80, &[3; 1])].concat());
    client.expect([&begin[..], &from_server(0x89, b"ping"), &go_on].concat());
    Session { client, server }.proxy_closes(1009, "");
    assert_record(&program.record(), &json!({"code": 1009, "initiator": "proxy", "clean": true, "action": "limit"}));
    program.wait_for("websocket_proxy_actions_total", &[("action", "limit")], 1.0);
}

#[test]
fn on_server_loss_sends_the_client_a_close_frame() {
    let server = Server::start();
    let program = Program::before(&server, "on_server_loss: {code: 1014, reason: the server is gone}\n");
    let mut count = 0;
    for how in ["eof", "reset"] {
        let mut session = Session::open(&program, &server);
        session.exchange();
        if how == "reset" {
            session.server.reset();
        } else {
            drop(session.server);
        }
        assert_eq!(session.client.receive_close(false), (1014, "the server is gone".to_owned()));
        session.client.send(close_from_client(1014, ""));
        session.client.expect_fin();
        drop(session.client);
        count += 1;
        assert_record(
            &program.records(count).pop().unwrap(),
            &json!({
                "code": 1006, "initiator": "server", "clean": false, "cause": how, "cause_endpoint": "server",
                "action": "server_loss",
                "client_saw": {"code": 1014, "reason": "the server is gone", "clean": true},
            }),
        );
    }
    program.wait_for("websocket_proxy_actions_total", &[("action", "server_loss")], 2.0);
    program.wait_for(
        "websocket_close_events_total",
        &[("endpoint", "client"), ("code", "1014"), ("clean", "true")],
        2.0,
    );
}

#[test]
fn loss_inside_a_frame_is_passed_on() {
    let server = Server::start();
    let program = Program::before(&server, "on_server_loss: {code: 1014}\n");
    let mut session = Session::open(&program, &server);
    session.pass(Endpoint::Server, &from_server(0x81, b"half")[..4]);
    drop(session.server);
    session.client.expect_fin();
    drop(session.client);
    assert_record(&program.record(), &json!({"code": 1006, "cause": "truncated", "action": null}));
}

#[test]
fn on_client_loss_sends_the_server_a_close_frame() {
    let server = Server::start();
    let program = Program::before(&server, "on_client_loss: {code: 1001}\n");
    let mut session = Session::open(&program, &server);
    session.client.reset();
    assert_eq!(session.server.receive_close(true), (1001, String::new()));
    session.server.send(close_from_server(1001, ""));
    session.server.expect_fin();
    drop(session.server);
    assert_record(
        &program.record(),
        &json!({"code": 1006, "initiator": "client", "cause": "reset", "cause_endpoint": "client", "action": "client_loss"}),
    );
}

#[test]
fn connections_above_the_limit_are_closed_at_once() {
    let server = Server::start();
    let program = Program::before(&server, "limits: {connections: 2}\n");
    let first = Session::open(&program, &server);
    let second = Session::open(&program, &server);
    let mut third = program.connect();
    third.receive_rest();
    program.wait_for("closewatch_connections_rejected_total", &[("reason", "limit")], 1.0);
    program.wait_for("closewatch_connections_accepted_total", &[], 3.0);
    program.wait_for("closewatch_connections_active", &[], 2.0);
    drop(second);
    program.wait_for("closewatch_connections_active", &[], 1.0);
    Session::open(&program, &server).exchange();
    drop(first);
}

#[test]
fn connections_above_the_address_limit_are_closed_at_once() {
    let server = Server::start();
    let program = Program::before(&server, "limits: {connections_per_ip: 1}\n");
    let mut first = Session::open(&program, &server);
    program.connect().receive_rest();
    program.wait_for("closewatch_connections_rejected_total", &[("reason", "limit")], 1.0);
    let other = Peer::connect_from([127, 0, 0, 2].into(), program.address());
    Session::open_with(other, &server, REQUEST).exchange();
    first.exchange();
    drop(first);
    program.wait_for("closewatch_connections_active", &[], 0.0);
    Session::open(&program, &server).exchange();
}

#[test]
fn endless_request_head_is_cut() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {request_head: 200ms}\n");
    for head in [&REQUEST[..20], ""] {
        let mut client = program.connect();
        client.send(head);
        client.receive_rest();
    }
    program.wait_for("closewatch_connections_rejected_total", &[("reason", "timeout")], 2.0);
    assert_eq!(program.scrape().sum("websocket_handshakes_total", &[]), 0.0);
    // The timeout applies to the head only: a slow response and a silent session go on.
    let mut client = program.connect();
    client.send(REQUEST);
    let (mut connection, _) = server.accept_request();
    program.connect().receive_rest();
    connection.send(SWITCHING);
    client.receive_head();
    program.connect().receive_rest();
    Session { client, server: connection }.exchange();
}

/// `timeouts.request_head` starts at the first byte of a later request.
#[test]
fn kept_connection_may_rest_longer_than_a_head_may_take() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {request_head: 200ms}\n");
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = program.connect();
    client.send(request);
    let (mut connection, _) = server.accept_request();
    for _ in 0..2 {
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.receive_answer().1, "ok");
        // A connection that came later is given up meanwhile.
        let mut silent = program.connect();
        silent.receive_rest();
        client.send(request);
        connection.receive_head();
    }
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.receive_answer().1, "ok");
    client.send(&request[..9]);
    client.expect_fin();
    connection.expect_fin();
    program.wait_for("closewatch_connections_rejected_total", &[("reason", "timeout")], 2.0);
}

#[test]
fn port_probe_counts_as_an_accepted_connection_only() {
    let server = Server::start();
    let program = Program::before(&server, "");
    drop(program.connect());
    program.connect().reset();
    program.wait_for("closewatch_connections_accepted_total", &[], 2.0);
    program.wait_for("closewatch_connections_active", &[], 0.0);
    let scrape = program.scrape();
    assert!(scrape.nonzero("closewatch_connections_rejected_total").is_empty());
    assert!(scrape.nonzero("websocket_handshake_failures_total").is_empty());
}
