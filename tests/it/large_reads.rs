//! Large reads pass through a pipe, without a second copy. Endpoints see no difference.

use std::{fs, thread, time::Instant};

use serde_json::json;

use crate::support::{
    PATIENCE, Peer, Program, Server, Session, close_from_client, close_from_server, from_client, from_server,
};

/// The number of the program's descriptors that are pipes.
fn pipes(program: &Program) -> usize {
    let entries = fs::read_dir(format!("/proc/{}/fd", program.process())).unwrap();
    // A descriptor may be closed meanwhile.
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("pipe:")).count()
}

/// Sends bytes, and waits until they have arrived.
fn pass(from: &mut Peer, to: &mut Peer, bytes: &[u8]) {
    thread::scope(|scope| {
        let mut sender = from.again();
        scope.spawn(move || sender.send(bytes));
        to.expect(bytes);
    });
}

#[test]
fn large_reads_pass_through_a_pipe_unchanged() {
    let server = Server::start();
    let program = Program::before(&server, "workers: 1\nlog: {sessions: off}\n");
    let Session { mut client, server: mut server_end } = Session::open(&program, &server);
    let without = pipes(&program);
    let mut random = fastrand::Rng::with_seed(1);
    let mut payload = vec![0; 140_000];
    random.fill(&mut payload);
    let (mut bytes, mut rounds) = ([0, 0], 0);
    let start = Instant::now();
    // How the kernel splits the bytes is not known. At some time two reads in a row are large enough.
    while rounds < 100 || pipes(&program) == without {
        assert!(start.elapsed() < PATIENCE, "no pipe is used");
        let mut size = || random.usize(60_000..payload.len());
        let (question, answer) = (from_client(0x82, &payload[..size()]), from_server(0x81, &payload[..size()]));
        pass(&mut client, &mut server_end, &question);
        pass(&mut server_end, &mut client, &answer);
        bytes = [bytes[0] + question.len(), bytes[1] + answer.len()];
        rounds += 1;
    }
    assert_eq!(pipes(&program), without + 2);
    client.finish();
    server_end.expect_fin();
    server_end.finish();
    client.expect_fin();
    let record = program.record();
    for (from, bytes) in [("from_client", bytes[0]), ("from_server", bytes[1])] {
        let expected = json!({"frames": rounds, "messages": rounds, "bytes": bytes, "pings": 0, "violations": []});
        assert_eq!(record[from], expected);
    }
}

/// Nearly every read ends inside a frame, so the Close frame follows that frame in the next read.
#[test]
fn close_frame_is_injected_between_large_frames() {
    const READING: usize = 100_000;
    let server = Server::start();
    let program = Program::before(&server, "workers: 1\ntimeouts: {max_age: 3s}\n");
    let Session { mut client, server: mut server_end } = Session::open(&program, &server);
    let without = pipes(&program);
    let frame = from_client(0x82, &vec![7; 20_000]);
    let stream = frame.repeat(READING / frame.len() + 2);
    let (mut sent, mut position, mut uses_pipe) = (0, 0, false);
    'open: loop {
        client.send(&stream[sent..sent + READING]);
        sent = (sent + READING) % frame.len();
        let mut rest = READING;
        while rest > 0 {
            if position == 0 && server_end.receive(1) != frame[..1] {
                break 'open;
            }
            let known = usize::from(position == 0);
            let count = rest.min(frame.len() - position);
            server_end.expect(&frame[position + known..position + count]);
            position = (position + count) % frame.len();
            rest -= count;
        }
        uses_pipe |= pipes(&program) > without;
    }
    assert!(uses_pipe);
    // The length, the mask and the code. The rest of the client's bytes is dropped.
    server_end.receive(1 + 4 + 2);
    server_end.send(close_from_server(1001, ""));
    server_end.expect_fin();
    assert_eq!(client.receive_close(false), (1001, String::new()));
    client.send(&stream[sent..frame.len()]);
    client.send(close_from_client(1001, ""));
    client.expect_fin();
    let record = program.record();
    assert_eq!((&record["code"], &record["clean"], &record["action"]), (&json!(1001), &json!(true), &json!("max_age")));
}
