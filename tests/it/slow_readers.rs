//! A slow reader slows its own sender only. No byte is lost, and few bytes are buffered.

use std::thread;

use crate::support::{Peer, Program, REQUEST, Server, Session, close, from_client, from_server};

/// Far more than the kernel buffers of both legs hold.
const FLOOD: usize = 24 << 20;

/// [`FLOOD`] bytes as one frame.
fn flood() -> Vec<u8> {
    let payload: Vec<u8> = (0..FLOOD).map(|index| (index % 251) as u8).collect();
    from_server(0x82, &payload)
}

/// Waits until closewatch buffers bytes from an endpoint and its write is blocked.
fn wait_until_blocked(program: &Program, from: &str) {
    program.wait_for_at_least("websocket_buffered_bytes", &[("from", from)], 1.0);
    // The time rises while the reader is still slow.
    program.wait_for_at_least("websocket_write_blocked_seconds_total", &[("from", from)], 0.001);
}

#[test]
fn slow_client_slows_its_server_only() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let bystander = &mut Session::open(&program, &server);
    let client = Peer::connect_with_small_window(program.address());
    let Session { mut client, server: mut sender } = Session::open_with(client, &server, REQUEST);
    let bytes = flood();
    let resident = program.scrape().sum("process_resident_memory_bytes", &[]);
    let sent = sender.send_some(&bytes);
    wait_until_blocked(&program, "server");

    let scrape = program.scrape();
    let of_server = |metric: &str| scrape.sum(metric, &[("from", "server")]);
    assert!(of_server("websocket_buffered_bytes") <= f64::from(256 << 10));
    assert!(of_server("websocket_bytes_total") < FLOOD as f64 / 2.0, "the server is read on");
    assert!(scrape.sum("process_resident_memory_bytes", &[]) - resident < f64::from(4 << 20));
    bystander.exchange();
    // The other direction of the session goes on, too.
    client.send(from_client(0x81, b"still here"));
    sender.expect(from_client(0x81, b"still here"));

    let bytes = &bytes;
    thread::scope(|scope| {
        scope.spawn(move || {
            sender.send(&bytes[sent..]);
            sender.finish();
        });
        client.widen_window();
        client.expect(bytes);
        client.expect_fin();
    });
    // The 8 bytes are the answer to the bystander.
    program.wait_for("websocket_bytes_total", &[("from", "server")], (bytes.len() + 8) as f64);
    program.wait_for("websocket_buffered_bytes", &[], 0.0);
}

#[test]
fn slow_server_slows_its_client_only() {
    let server = Server::with_small_window();
    let program = Program::before(&server, "limits: {buffer_bytes: 64KiB}\n");
    let bystander = &mut Session::open(&program, &server);
    let Session { mut client, server: mut reader } = Session::open(&program, &server);
    let bytes = flood();
    let sent = client.send_some(&bytes);
    wait_until_blocked(&program, "client");

    let scrape = program.scrape();
    assert!(scrape.sum("websocket_buffered_bytes", &[("from", "client")]) <= f64::from(64 << 10));
    assert!(scrape.sum("websocket_bytes_total", &[("from", "client")]) < FLOOD as f64 / 2.0);
    bystander.exchange();
    reader.send(from_server(0x81, b"still here"));
    client.expect(from_server(0x81, b"still here"));

    let bytes = &bytes;
    thread::scope(|scope| {
        scope.spawn(move || {
            client.send(&bytes[sent..]);
            client.finish();
        });
        reader.widen_window();
        reader.expect(bytes);
        reader.expect_fin();
    });
    program.wait_for("websocket_buffered_bytes", &[], 0.0);
}

#[test]
fn ended_session_releases_its_buffered_bytes() {
    let server = Server::start();
    let program = Program::before(&server, "limits: {buffer_total_bytes: 300KiB}\n");
    let bytes = flood();
    for count in 1..=3 {
        let client = Peer::connect_with_small_window(program.address());
        let Session { client, server: mut sender } = Session::open_with(client, &server, REQUEST);
        sender.send_some(&bytes);
        program.wait_for_at_least("websocket_buffered_bytes", &[], 1.0);
        client.reset();
        sender.receive_rest();
        assert_eq!(program.records(count).pop().unwrap()["cause_endpoint"], "client");
        program.wait_for("websocket_buffered_bytes", &[], 0.0);
    }
}

/// closewatch sees the Close frame behind bytes that the reader does not read: at once if its sender hangs up, and soon
/// if not.
#[test]
fn close_frame_behind_unread_bytes_ends_the_session_in_time() {
    let server = Server::with_small_window();
    let program = Program::before(&server, "timeouts: {close: 500ms}\n");
    let cases = [(true, true), (true, false), (false, true), (false, false)];
    for (count, (from_the_server, hangs_up)) in (1..).zip(cases) {
        let client = Peer::connect_with_small_window(program.address());
        let Session { mut client, server: mut server_end } = Session::open_with(client, &server, REQUEST);
        let (sender, frame, from, to): (_, fn(u8, &[u8]) -> _, _, _) = if from_the_server {
            (&mut server_end, from_server, "server", "client")
        } else {
            (&mut client, from_client, "client", "server")
        };
        let message = frame(0x82, &vec![7; 20_000]);
        while program.scrape().sum("websocket_buffered_bytes", &[("from", from)]) == 0.0 {
            sender.send(&message);
        }
        sender.send(frame(0x88, &close(4001, "")));
        if hangs_up {
            sender.finish();
        }
        let record = program.records(count).pop().unwrap();
        assert_eq!((&record["code"], &record["initiator"]), (&4001.into(), &from.into()), "{record}");
        let fault = (&record["cause_endpoint"], &record["cause"]);
        assert_eq!(fault, (&to.into(), &"no_close_reply".into()), "{record}");
    }
}

/// The idle time ends at the reset, not at the end of the wait for a slow reader.
#[test]
fn idle_time_excludes_the_wait_for_a_slow_reader() {
    let server = Server::start();
    let program = Program::before(&server, "timeouts: {close: 1500ms}\nlimits: {buffer_bytes: 64KiB}\n");
    let client = Peer::connect_with_small_window(program.address());
    let Session { client, server: mut sender } = Session::open_with(client, &server, REQUEST);
    sender.send_some(&flood());
    wait_until_blocked(&program, "server");
    sender.reset();
    let record = program.record();
    assert_eq!((&record["cause"], &record["cause_endpoint"]), (&"reset".into(), &"server".into()), "{record}");
    let (idle, duration) = (record["idle_seconds"].as_f64().unwrap(), record["duration_seconds"].as_f64().unwrap());
    assert!(duration >= 1.5, "{record}");
    assert!(idle < duration - 1.4, "{record}");
    drop(client);
}

#[test]
fn blocked_directions_are_read_in_small_pieces_above_the_total() {
    const READERS: usize = 24;
    const TOTAL: f64 = 65_536.0;
    // closewatch reads a large piece only below the total. Above it, each direction has one piece: 16 KiB at first, and
    // a small one after the reader was slow.
    const MOST: f64 = TOTAL + 65_536.0 + READERS as f64 * 16_384.0;
    let server = Server::start();
    let config = "workers: 1\nlimits: {buffer_bytes: 64KiB, buffer_total_bytes: 64KiB}\n";
    let program = Program::before(&server, config);
    let bytes = flood();
    let mut blocked: Vec<(Session, usize)> = (0..READERS)
        .map(|_| {
            let client = Peer::connect_with_small_window(program.address());
            let mut session = Session::open_with(client, &server, REQUEST);
            let sent = session.server.send_some(&bytes);
            (session, sent)
        })
        .collect();
    let held = || program.scrape().sum("websocket_buffered_bytes", &[]);
    program.wait_for_at_least("websocket_buffered_bytes", &[], TOTAL);
    // A session without a slow reader goes on.
    Session::open(&program, &server).exchange();

    // The readers read a little, and are slow again.
    let mut read = 0;
    let mut all_read_on = || {
        let piece = &bytes[read..][..128 << 10];
        for (session, _) in &mut blocked {
            session.client.expect(piece);
        }
        read += piece.len();
    };
    for _ in 0..10 {
        all_read_on();
        let held = held();
        assert!(held <= MOST, "{held} bytes are held");
    }
    for (session, sent) in &mut blocked {
        session.client.widen_window();
        session.client.expect(&bytes[read..*sent]);
    }
    program.wait_for("websocket_buffered_bytes", &[], 0.0);
}
