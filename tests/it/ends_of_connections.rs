//! A leg ends like the other one: FIN for FIN, RST for RST, after all bytes that were sent before.

use closewatch::websocket::Endpoint;

use crate::support::{
    Peer, Program, REQUEST, Server, Session, TcpEnd, close_from_client, close_from_server, eventually, from_client,
    from_server,
};

#[test]
fn client_fin_leaves_the_other_direction_open() {
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
fn server_fin_leaves_the_other_direction_open() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let bulk = from_client(0x82, &vec![1; 500_000]);
    let Session { mut client, mut server } = Session::open(&program, &server);
    server.finish();
    client.expect_fin();
    client.send(&bulk);
    // A JDK client answers a bare FIN with a Close frame. It passes and is counted, but the ending stays the same.
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
fn timeouts_close_ends_the_direction_that_is_still_open() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {close: 200ms}\n");
    let Session { mut client, mut server } = Session::open(&program, &server);
    client.finish();
    server.expect_fin();
    client.expect_fin();
    assert_eq!(program.record()["cause_endpoint"], "client");
}

#[test]
fn rst_passes_both_ways() {
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
fn rst_follows_all_bytes_sent_before() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let client = Peer::connect_with_small_window(program.address());
    let Session { mut client, mut server } = Session::open_with(client, &server, REQUEST);
    let bytes = from_server(0x82, &vec![3; 2_000_000]);
    let sent = server.send_some(&bytes);
    let read = || program.scrape().sum("websocket_bytes_total", &[("from", "server")]);
    // Bytes that closewatch has not read before the RST are lost with the server's send buffer.
    eventually("much read for a client that reads nothing", || (read() > 200_000.0).then_some(()));
    let read_before = read();
    server.reset();
    let (received, end) = client.receive_rest();
    assert!(received.len() as f64 >= read_before, "{} of {read_before} bytes arrived", received.len());
    assert!(received[..] == bytes[..received.len().min(sent)]);
    assert_eq!(end, TcpEnd::Rst);
    assert_eq!(program.record()["cause"], "reset");
}

/// The kernel reports the client's RST once. Here a write finds it, while bytes of the client wait for a server that
/// does not read.
#[test]
fn rst_found_by_a_write_follows_all_bytes_sent_before() {
    let server = Server::with_small_window();
    let program = Program::before(&server, "limits: {buffer_bytes: 4KiB}\n");
    let Session { mut client, mut server } = Session::open(&program, &server);
    let bytes = from_client(0x82, &vec![4; 20_000_000]);
    let sent = client.send_some(&bytes);
    program.wait_for_at_least("websocket_buffered_bytes", &[("from", "client")], 1.0);
    let read_before = program.scrape().sum("websocket_bytes_total", &[("from", "client")]);
    client.reset();
    // One of these writes finds the RST.
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
fn both_ends_see_fin_after_a_closing_handshake() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {hang_up: 10s}\n");
    let mut count = 0;
    // Bytes behind a Close frame are passed on or dropped, never answered with RST.
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
fn endpoint_with_a_close_frame_gets_no_rst() {
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

/// The kernel sends RST if a socket is closed while it has unread data. A client that still sends while closewatch ends
/// the session must see the Close frame and FIN.
#[test]
fn endpoint_that_still_sends_gets_no_rst() {
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

/// More bytes wait than closewatch reads at the end. They cause an RST, which must follow the FIN.
#[test]
fn fin_precedes_the_rst_for_unread_bytes() {
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
fn gone_client_ends_the_session_of_a_sending_server() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let Session { client, mut server } = Session::open(&program, &server);
    // The kernel answers the server's bytes with RST, because the client is gone. A server that only writes must get an
    // RST, as it would without closewatch, before `timeouts.close` has passed.
    drop(client);
    server.expect_fin();
    let sending = || server.try_send(from_server(0x82, &vec![0; 10_000])).is_err().then_some(());
    eventually("RST, since the client is gone", sending);
    let record = program.record();
    assert_eq!(record["code"], 1006);
    assert_eq!((&record["cause_endpoint"], &record["cause"]), (&"client".into(), &"eof".into()));
}
