//! A leg ends as the other one did: FIN for FIN, RST for RST, once everything sent before has arrived.

use closewatch::websocket::Endpoint;

use crate::support::{
    Peer, Program, REQUEST, Server, Session, TcpEnd, close_from_client, close_from_server, eventually, from_client,
    from_server,
};

#[test]
fn a_fin_passes_and_the_other_direction_stays_open() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let bulk = from_server(0x82, &vec![1; 500_000]);
    let Session { mut client, mut server } = Session::open(&program, &server);
    client.finish();
    server.expect_fin();
    server.send(&bulk);
    client.expect(&bulk);
    program.wait_for("websocket_sessions_active", &[], 1.0);
    server.finish();
    client.expect_fin();
    let record = program.record();
    assert_eq!(record["code"], 1006);
    assert_eq!(record["initiator"], "client");
    assert_eq!((&record["cause_endpoint"], &record["cause"]), (&"client".into(), &"eof".into()));
}

#[test]
fn a_fin_of_the_server_passes_and_the_client_may_still_send() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let bulk = from_client(0x82, &vec![1; 500_000]);
    let Session { mut client, mut server } = Session::open(&program, &server);
    server.finish();
    client.expect_fin();
    client.send(&bulk);
    // A JDK client answers a bare FIN so: it changes nothing of the ending, but is passed on and counted.
    let answer = close_from_client(1000, "");
    client.send(&answer);
    server.expect([bulk, answer].concat());
    client.finish();
    server.expect_fin();
    let record = program.record();
    assert_eq!(record["code"], 1006);
    assert_eq!((&record["cause_endpoint"], &record["cause"]), (&"server".into(), &"eof".into()));
    assert_eq!(record["initiator"], "server");
    assert_eq!(record["server_saw"]["code"], 1000);
    assert_eq!(record["client_saw"]["code"], 1006);
    program.wait_for("websocket_close_frames_total", &[("from", "client"), ("code", "1000")], 1.0);
}

#[test]
fn the_other_direction_stays_open_no_longer_than_timeouts_close() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {close: 200ms}\n");
    let Session { mut client, mut server } = Session::open(&program, &server);
    client.finish();
    server.expect_fin();
    client.expect_fin();
    assert_eq!(program.record()["cause_endpoint"], "client");
}

#[test]
fn an_rst_passes_both_ways() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut session = Session::open(&program, &server);
    session.exchange();
    session.client.reset();
    session.server.expect_rst();
    assert_eq!(program.record()["cause_endpoint"], "client");

    let mut session = Session::open(&program, &server);
    session.exchange();
    session.server.reset();
    session.client.expect_rst();
    let record = program.records(2).pop().unwrap();
    assert_eq!(record["code"], 1006);
    assert_eq!((&record["cause_endpoint"], &record["cause"]), (&"server".into(), &"reset".into()));
}

#[test]
fn an_rst_comes_after_everything_that_was_sent_before() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let client = Peer::connect_with_small_window(program.address());
    let Session { mut client, mut server } = Session::open_with(client, &server, REQUEST);
    let bytes = from_server(0x82, &vec![3; 2_000_000]);
    let sent = server.send_some(&bytes);
    let read = || program.scrape().sum("websocket_bytes_total", &[("from", "server")]);
    // What closewatch has not read when the RST comes is lost with the server's own buffer.
    eventually("much read for a client that reads nothing", || (read() > 200_000.0).then_some(()));
    let read_before = read();
    server.reset();
    let (received, end) = client.receive_rest();
    assert!(received.len() as f64 >= read_before, "{} of {read_before} bytes arrived", received.len());
    assert!(received[..] == bytes[..received.len().min(sent)]);
    assert_eq!(end, TcpEnd::Rst);
    assert_eq!(program.record()["cause"], "reset");
}

/// The client's RST is told to the first who asks. Here that is a write, while what the client sent before still waits
/// for a server that does not read.
#[test]
fn an_rst_that_a_write_finds_loses_nothing_that_was_sent_before() {
    let server = Server::with_small_window();
    let program = Program::before(&server, "limits: {buffer_bytes: 4KiB}\n");
    let Session { mut client, mut server } = Session::open(&program, &server);
    let bytes = from_client(0x82, &vec![4; 20_000_000]);
    let sent = client.send_some(&bytes);
    program.wait_for_at_least("websocket_buffered_bytes", &[("from", "client")], 1.0);
    let read_before = program.scrape().sum("websocket_bytes_total", &[("from", "client")]);
    client.reset();
    // Enough that one of these writes meets the RST.
    for _ in 0..3 {
        server.send(from_server(0x81, b"hello?"));
    }
    let (received, end) = server.receive_rest();
    assert!(received.len() as f64 >= read_before, "{} of {read_before} bytes arrived", received.len());
    assert!(received[..] == bytes[..received.len().min(sent)]);
    assert_eq!(end, TcpEnd::Rst);
    let record = program.record();
    assert_eq!((&record["cause_endpoint"], &record["cause"]), (&"client".into(), &"reset".into()));
}

#[test]
fn after_a_complete_closing_handshake_both_ends_see_fin() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {hang_up: 10s}\n");
    let mut count = 0;
    // Who hangs up, and how. What still comes behind a Close frame is passed on or dropped, never answered by RST.
    for behind_close in [&[][..], b"and some more bytes"] {
        for first in Endpoint::BOTH {
            for resets in [true, false] {
                let Session { mut client, mut server } = Session::open(&program, &server);
                client.send([close_from_client(1000, ""), behind_close.to_vec()].concat());
                server.expect([close_from_client(1000, ""), behind_close.to_vec()].concat());
                server.send([close_from_server(1000, ""), behind_close.to_vec()].concat());
                client.expect([close_from_server(1000, ""), behind_close.to_vec()].concat());
                let (first, mut second) = Session { client, server }.split(first);
                if resets {
                    first.reset();
                } else {
                    drop(first);
                }
                second.expect_fin();
                count += 1;
                let record = program.records(count).pop().unwrap();
                assert_eq!(record["clean"], true, "{record}");
            }
        }
    }
}

#[test]
fn whoever_was_delivered_a_close_frame_is_never_reset() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {close: 10s, hang_up: 10s}\n");
    let mut session = Session::open(&program, &server);
    session.server_closes(1011, "broken");
    session.server.reset();
    session.client.expect_fin();
    drop(session.client);
    let record = program.record();
    assert_eq!(record["code"], 1011);
    assert_eq!((&record["cause_endpoint"], &record["cause"]), (&"server".into(), &"reset".into()));
    assert_eq!(record["client_saw"], serde_json::json!({"code": 1011, "reason": "broken", "clean": false}));

    let mut session = Session::open(&program, &server);
    session.client_closes(1000, "");
    session.client.reset();
    session.server.expect_fin();
    drop(session.server);
    let record = program.records(2).pop().unwrap();
    assert_eq!((&record["cause_endpoint"], &record["cause"]), (&"client".into(), &"reset".into()));
}

/// A socket that is closed while data waits in it sends RST. A client that floods on while closewatch ends the session
/// must still see the Close frame and FIN.
#[test]
fn no_rst_of_our_own_where_an_endpoint_still_sends() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {close: 1s, hang_up: 150ms}\n");
    for _ in 0..2 {
        let Session { mut client, mut server } = Session::open(&program, &server);
        server.send(close_from_server(1008, "enough"));
        client.send(from_client(0x82, &vec![5; 100_000]));
        client.expect(close_from_server(1008, "enough"));
        client.send(from_client(0x82, &vec![5; 100_000]));
        server.receive(200_000);
        client.expect_fin();
        server.receive_rest();
    }
    program.wait_for("websocket_abnormal_closes_total", &[("endpoint", "client"), ("cause", "no_close_reply")], 2.0);
}

/// More waits than is read at the end: the RST that it leads to must come behind the FIN, where it does no harm.
#[test]
fn a_fin_goes_before_what_nobody_will_read() {
    let server = Server::with_small_window();
    let program = Program::before(&server, "timeouts: {hang_up: 150ms}\n");
    let flood = from_client(0x82, &vec![5; 32 << 20]);
    let mut session = Session::open(&program, &server);
    session.server_closes(1000, "");
    session.client_closes(1000, "");
    session.client.send_some(&flood);
    session.client.expect_fin();
    assert_eq!(program.record()["clean"], true);
}

#[test]
fn a_client_that_is_gone_while_the_server_sends_on_ends_the_session_soon() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let Session { client, mut server } = Session::open(&program, &server);
    // The kernel answers what comes now by RST: nobody will ever read it. A server that only writes must learn it too,
    // as it would without closewatch, and not write on until `timeouts.close` has passed.
    drop(client);
    server.expect_fin();
    let sending = || server.try_send(from_server(0x82, &vec![0; 10_000])).is_err().then_some(());
    eventually("RST, since the client is gone", sending);
    let record = program.record();
    assert_eq!(record["code"], 1006);
    assert_eq!((&record["cause_endpoint"], &record["cause"]), (&"client".into(), &"eof".into()));
}
