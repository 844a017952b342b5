//! `GET /api/v1/closes/stream`, and readers who are slow.

use serde_json::{Value, json};

use crate::support::{Peer, Program, Server, Session};

/// A reader of the stream, greeted.
fn reader(program: &Program) -> Peer {
    try_reader(program).unwrap()
}

/// The same, if there is room for it.
fn try_reader(program: &Program) -> Option<Peer> {
    let mut reader = Peer::connect(program.admin());
    reader.send("GET /api/v1/closes/stream HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let head = reader.receive_head();
    if head.first_line() == "HTTP/1.0 503 Service Unavailable" {
        return None;
    }
    assert_eq!(head.value("content-type"), Some("text/event-stream"));
    reader.expect(": endings from now on\n\n");
    Some(reader)
}

/// The next event of a record.
fn next_record(reader: &mut Peer) -> Value {
    reader.expect("data: ");
    let mut line = Vec::new();
    while !line.ends_with(b"\n\n") {
        line.extend(reader.receive(1));
    }
    serde_json::from_slice(&line).unwrap()
}

fn close_one(program: &Program, server: &Server, code: u16) {
    let mut session = Session::open(program, server);
    session.client_closes(code, "");
    session.server_closes(code, "");
    session.client.finish();
    session.server.expect_fin();
}

#[test]
fn records_are_told_as_they_happen() {
    let server = Server::start();
    let program = Program::before(&server, "");
    close_one(&program, &server, 1000);
    program.records(1);
    let mut readers = [reader(&program), reader(&program)];
    for code in [4001, 4002] {
        close_one(&program, &server, code);
        let [first, second] = readers.each_mut().map(next_record);
        assert_eq!(first["code"], json!(code));
        assert_eq!(first, second);
    }
    assert_eq!(program.records(3)[2]["code"], json!(4002));
}

#[test]
fn the_endings_of_a_drain_are_told_before_the_stream_ends() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut reader = reader(&program);
    let mut sessions: Vec<_> = (0..50).map(|_| Session::open(&program, &server)).collect();
    program.signal("TERM");
    for session in &mut sessions {
        session.proxy_closes(1001, "");
    }
    for _ in 0..50 {
        assert_eq!(next_record(&mut reader)["action"], json!("drain"));
    }
    reader.expect_fin();
    assert_eq!(program.ended().code, Some(0));
}

#[test]
fn slow_scrapers_and_readers_hold_up_nobody() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let scrapers: Vec<Peer> = (0..50)
        .map(|_| {
            let mut scraper = Peer::connect_with_small_window(program.admin());
            scraper.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
            scraper
        })
        .collect();
    let readers: Vec<Peer> = (0..50).map(|_| reader(&program)).collect();
    let mut session = Session::open(&program, &server);
    for _ in 0..100 {
        session.exchange();
    }
    close_one(&program, &server, 1000);
    assert_eq!(program.records(1).len(), 1);
    program.wait_for("websocket_closes_total", &[("code", "1000")], 1.0);
    drop((scrapers, readers));
    session.exchange();
}

#[test]
fn readers_who_vanish_make_room_for_others() {
    let program = Program::before(&Server::start(), "");
    for _ in 0..2 {
        let mut readers = Vec::new();
        while readers.len() < 64 {
            readers.extend(try_reader(&program));
        }
        assert!(try_reader(&program).is_none(), "places are bounded");
    }
}
