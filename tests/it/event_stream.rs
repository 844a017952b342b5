//! `GET /api/v1/closes/stream`, and slow readers.

use serde_json::json;

use crate::support::{CloseStream, Peer, Program, Server, Session};

fn reader(program: &Program) -> CloseStream {
    CloseStream::open(program.admin()).unwrap()
}

fn close_one(program: &Program, server: &Server, code: u16) {
    let mut session = Session::open(program, server);
    session.client_closes(code, "");
    session.server_closes(code, "");
    session.client.finish();
    session.server.expect_fin();
}

#[test]
fn stream_sends_records_to_all_readers() {
    let server = Server::start();
    let program = Program::before(&server, "");
    close_one(&program, &server, 1000);
    program.records(1);
    let mut readers = [reader(&program), reader(&program)];
    for code in [4001, 4002] {
        close_one(&program, &server, code);
        let [first, second] = readers.each_mut().map(CloseStream::next_record);
        assert_eq!(first["code"], json!(code));
        assert_eq!(first, second);
    }
    assert_eq!(program.records(3)[2]["code"], json!(4002));
}

#[test]
fn stream_sends_the_records_of_a_drain_before_its_end() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut reader = reader(&program);
    let mut sessions: Vec<_> = (0..50).map(|_| Session::open(&program, &server)).collect();
    program.signal("TERM");
    for session in &mut sessions {
        session.proxy_closes(1001, "");
    }
    for _ in 0..50 {
        assert_eq!(reader.next_record()["action"], json!("drain"));
    }
    reader.connection.expect_fin();
    assert_eq!(program.ended().code, Some(0));
}

#[test]
fn slow_scrapers_and_readers_delay_no_session() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let scrapers: Vec<Peer> = (0..50)
        .map(|_| {
            let mut scraper = Peer::connect_with_small_window(program.admin());
            scraper.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
            scraper
        })
        .collect();
    let readers: Vec<CloseStream> = (0..50).map(|_| reader(&program)).collect();
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
fn vanished_readers_make_room_for_others() {
    let program = Program::before(&Server::start(), "");
    for _ in 0..2 {
        let mut readers = Vec::new();
        while readers.len() < 64 {
            readers.extend(CloseStream::open(program.admin()));
        }
        assert!(CloseStream::open(program.admin()).is_none(), "the number of readers is limited");
    }
}
