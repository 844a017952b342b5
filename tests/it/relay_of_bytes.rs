//! Each end receives the bytes of the other one unchanged.

use std::thread;

use closewatch::websocket::Endpoint;

use crate::support::{Peer, Program, Server, Session, TcpEnd, close, eventually, from_client, from_server};

fn random_bytes(random: &mut fastrand::Rng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}

/// Writes in random pieces, from single bytes to large ones, and then FIN.
fn send_in_pieces(mut peer: Peer, bytes: &[u8], mut random: fastrand::Rng) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let largest = [1, 20, 3000, 300_000][random.usize(..4)];
        let (piece, behind) = rest.split_at(random.usize(1..=largest).min(rest.len()));
        peer.send(piece);
        rest = behind;
    }
    peer.finish();
}

/// Sends both ways at once, and asserts that each end gets the other's bytes.
fn assert_passes(session: Session, from_client: &[u8], from_server: &[u8], seed: u64) {
    let Session { mut client, mut server } = session;
    thread::scope(|scope| {
        let (writing_client, writing_server) = (client.again(), server.again());
        scope.spawn(move || send_in_pieces(writing_client, from_client, fastrand::Rng::with_seed(seed)));
        scope.spawn(move || send_in_pieces(writing_server, from_server, fastrand::Rng::with_seed(!seed)));
        let server = scope.spawn(move || server.receive_rest());
        assert!(client.receive_rest() == (from_server.to_vec(), TcpEnd::Fin), "the client got other bytes");
        assert!(server.join().unwrap() == (from_client.to_vec(), TcpEnd::Fin), "the server got other bytes");
    });
}

#[test]
fn bytes_other_than_websocket_pass() {
    let server = Server::start();
    let program = Program::before(&server, "log: {sessions: off}\n");
    for seed in 0..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let sizes = (random.usize(..3_000_000), random.usize(..3_000_000));
        let (from_client, from_server) = (random_bytes(&mut random, sizes.0), random_bytes(&mut random, sizes.1));
        assert_passes(Session::open(&program, &server), &from_client, &from_server, seed);
        let record = program.records(seed as usize + 1).pop().unwrap();
        assert_eq!(record["from_client"]["bytes"], from_client.len());
        assert_eq!(record["from_server"]["bytes"], from_server.len());
    }
}

/// Frames of every kind, with all three forms of the length, and the numbers of frames and messages.
fn conversation(random: &mut fastrand::Rng, write: fn(u8, &[u8]) -> Vec<u8>) -> (Vec<u8>, usize, usize) {
    let mut bytes = Vec::new();
    let (mut frames, mut messages) = (0, 0);
    for _ in 0..400 {
        let length = [0, 1, 125, 126, 1000, 65_535, 65_536, 70_000][random.usize(..8)] >> random.u8(..4);
        let payload = random_bytes(random, length);
        let pieces = random.usize(..3);
        if pieces == 0 {
            bytes.extend(write(0x82, &payload));
        } else {
            bytes.extend(write(0x02, &payload));
            for _ in 1..pieces {
                bytes.extend(write(0x00, &payload));
                bytes.extend(write(0x89, &payload[..length.min(125)]));
            }
            bytes.extend(write(0x80, &payload));
        }
        frames += [1, 2, 4][pieces];
        messages += 1;
    }
    bytes.extend(write(0x88, &close(1000, "")));
    (bytes, frames + 1, messages)
}

#[test]
fn frames_pass_and_are_counted_in_any_pieces() {
    let server = Server::start();
    let program = Program::before(&server, "log: {sessions: off}\n");
    for seed in 0..3 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (client_bytes, client_frames, client_messages) = conversation(&mut random, from_client);
        let (server_bytes, server_frames, server_messages) = conversation(&mut random, from_server);
        assert_passes(Session::open(&program, &server), &client_bytes, &server_bytes, seed);
        let record = program.records(seed as usize + 1).pop().unwrap();
        assert_eq!(record["from_client"]["frames"], client_frames, "{record}");
        assert_eq!(record["from_client"]["messages"], client_messages);
        assert_eq!(record["from_server"]["frames"], server_frames, "{record}");
        assert_eq!(record["from_server"]["messages"], server_messages);
        assert_eq!(record["code"], 1000);
        assert_eq!(record["clean"], true, "{record}");
        assert!(record["from_client"]["violations"].as_array().unwrap().is_empty(), "{record}");
    }
}

#[test]
fn bytes_behind_an_illegal_length_pass_and_are_counted() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut session = Session::open(&program, &server);
    let endless = [&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4][..], &vec![5; 10_000]].concat();
    session.pass(Endpoint::Client, &endless);
    // The other direction goes on.
    session.server_closes(1000, "");
    session.client_closes(1000, "");
    session.client.finish();
    session.server.expect_fin();
    session.server.finish();
    session.client.expect_fin();
    let record = program.record();
    assert_eq!(record["from_client"]["bytes"], endless.len() + 8);
    assert_eq!(record["from_client"]["violations"], serde_json::json!(["length_encoding"]));
    assert_eq!(record["code"], 1000);
    assert_eq!(record["initiator"], "server");
    // closewatch cannot read the answer, because it is inside a frame without end.
    assert_eq!(record["cause"], "truncated");
    assert_eq!(record["cause_endpoint"], "client");
    program.wait_for("websocket_protocol_violations_total", &[("from", "client"), ("kind", "length_encoding")], 1.0);
}

#[test]
fn hundred_thousand_writes_of_one_byte_pass() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let Session { mut client, mut server } = Session::open(&program, &server);
    let bytes: Vec<u8> = from_client(0x81, b"drip").into_iter().cycle().take(100_000).collect();
    thread::scope(|scope| {
        let mut writer = client.again();
        let bytes = &bytes;
        scope.spawn(move || bytes.iter().for_each(|byte| writer.send([*byte])));
        server.expect(bytes);
    });
    program.wait_for("websocket_bytes_total", &[("from", "client")], 100_000.0);
    program.wait_for("websocket_messages_total", &[("from", "client"), ("type", "text")], 10_000.0);
    client.finish();
    server.expect_fin();
}

/// If a limit is set, closewatch reads the frames one by one.
#[test]
fn hundred_thousand_tiny_frames_in_one_write_are_counted() {
    for config in ["", "limits: {frame_bytes: 125, message_bytes: 125}\n"] {
        let server = Server::start();
        let program = Program::before(&server, config);
        let bystander = &mut Session::open(&program, &server);
        let Session { mut client, server: mut server_end } = Session::open(&program, &server);
        let frames = [from_client(0x81, b""), from_client(0x89, b"p"), from_client(0x82, b"b")].concat();
        let bytes = &frames.repeat(33_334)[..];
        thread::scope(|scope| {
            let mut writer = client.again();
            scope.spawn(move || writer.send(bytes));
            bystander.exchange();
            server_end.expect(bytes);
        });
        client.finish();
        server_end.expect_fin();
        server_end.finish();
        client.expect_fin();
        let expected = serde_json::json!({
            "frames": 100_002, "messages": 66_668, "bytes": bytes.len(), "pings": 33_334, "violations": [],
        });
        assert_eq!(program.record()["from_client"], expected);
    }
}

#[test]
fn open_sessions_are_counted_while_they_are_open() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut session = Session::open(&program, &server);
    program.wait_for("websocket_sessions_active", &[("route", "default")], 1.0);
    program.wait_for("closewatch_connections_active", &[], 1.0);
    session.exchange();
    program.wait_for("websocket_frames_total", &[("from", "client"), ("opcode", "text")], 1.0);
    program.wait_for("websocket_frames_total", &[("from", "server"), ("opcode", "binary")], 1.0);
    program.wait_for("websocket_bytes_total", &[("from", "client")], 14.0);
    program.wait_for("websocket_bytes_total", &[("from", "server")], 8.0);
    program.wait_for("websocket_message_size_bytes_sum", &[("from", "client")], 8.0);
    program.wait_for("websocket_message_size_bytes_sum", &[("from", "server")], 6.0);
    drop(session);
    program.record();
    program.wait_for("websocket_sessions_active", &[("route", "default")], 0.0);
    // The number of connections falls soon after the record is written.
    eventually("no connection", || (program.scrape().sum("closewatch_connections_active", &[]) == 0.0).then_some(()));
}

#[test]
fn round_trips_of_pings_are_measured() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut session = Session::open(&program, &server);
    for (ping, pong) in [(b"one", b"one"), (b"two", b"no."), (b"six", b"six")] {
        session.pass(Endpoint::Client, from_client(0x89, ping));
        session.pass(Endpoint::Server, from_server(0x8a, pong));
    }
    program.wait_for("websocket_ping_rtt_seconds_count", &[("endpoint", "server")], 2.0);
    session.pass(Endpoint::Server, from_server(0x89, b""));
    session.pass(Endpoint::Client, from_client(0x8a, b""));
    program.wait_for("websocket_ping_rtt_seconds_count", &[("endpoint", "client")], 1.0);
    drop(session);
    let record = program.record();
    assert!(record["ping_rtt_seconds"]["server"].as_f64().unwrap() > 0.0, "{record}");
    assert!(record["ping_rtt_seconds"]["client"].as_f64().unwrap() > 0.0, "{record}");
    assert_eq!(record["from_client"]["pings"], 3);
    assert_eq!(record["from_server"]["pings"], 1);
}

/// A header can announce any size. The sum of sizes must not contain a message that never arrived.
#[test]
fn message_size_is_recorded_at_the_last_byte() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let from_client = [("from", "client")];
    let mut liar = Session::open(&program, &server);
    let header = [&[0x82, 0xff][..], &(u64::MAX >> 1).to_be_bytes(), &[0; 4], b"that was all"].concat();
    liar.pass(Endpoint::Client, &header);
    liar.client.reset();
    program.record();

    let mut session = Session::open(&program, &server);
    let message = self::from_client(0x82, &[7; 1000]);
    session.pass(Endpoint::Client, &message[..500]);
    program.wait_for("websocket_messages_total", &from_client, 2.0);
    assert_eq!(program.scrape().sum("websocket_message_size_bytes_count", &from_client), 0.0);
    // The size is recorded, even if bytes of the next message come with the end.
    let end = [&message[500..], &[0x82]].concat();
    session.pass(Endpoint::Client, &end);
    program.wait_for("websocket_message_size_bytes_count", &from_client, 1.0);
    assert_eq!(program.scrape().sum("websocket_message_size_bytes_sum", &from_client), 1000.0);
}
