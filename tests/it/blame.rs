//! Which endpoint is reported, if a violation hides a Close frame, if an endpoint does not read, and if closewatch itself
//! closes.

use std::thread;

use closewatch::websocket::Endpoint;
use serde_json::{Value, json};

use crate::support::{Peer, Program, REQUEST, Server, Session, close_from, from, from_client, from_server};

/// Far more than the buffers of both kernels and of closewatch take.
const FLOOD: usize = 8 << 20;

/// A frame with a reserved opcode, and Close 1000, in one segment.
fn violation_and_close(sender: Endpoint) -> Vec<u8> {
    [from(sender, 0x83, b""), close_from(sender, 1000, "")].concat()
}

/// Code, initiator, cause with its endpoint, and what each endpoint saw.
fn verdict(record: &Value) -> Value {
    json!([
        record["code"],
        record["initiator"],
        record["cause"],
        record["cause_endpoint"],
        record["client_saw"]["code"],
        record["server_saw"]["code"],
    ])
}

#[test]
fn receiver_that_fails_the_connection_is_first() {
    for sender in Endpoint::BOTH {
        let server = Server::start();
        let program = Program::before(&server, "");
        let mut session = Session::open(&program, &server);
        session.pass(sender, violation_and_close(sender));
        // As Node ws and Python websockets do: 1002 at the violation, and nothing behind it is read.
        session.pass(sender.other(), close_from(sender.other(), 1002, ""));
        drop(session);
        let record = program.record();
        let saw = |endpoint: Endpoint| if endpoint == sender { 1002 } else { 1006 };
        assert_eq!(
            verdict(&record),
            json!([1002, sender.other().as_str(), null, null, saw(Endpoint::Client), saw(Endpoint::Server)])
        );
        assert_eq!(record["clean"], true, "both Close frames were delivered");
        let failed = if sender == Endpoint::Client { &record["server_saw"] } else { &record["client_saw"] };
        assert_eq!(failed["clean"], false);
    }
}

#[test]
fn receiver_that_only_hangs_up_is_a_1006() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut session = Session::open(&program, &server);
    session.pass(Endpoint::Client, violation_and_close(Endpoint::Client));
    session.server.finish();
    session.client.expect_fin();
    session.client.finish();
    assert_eq!(verdict(&program.record()), json!([1006, "server", "eof", "server", 1006, 1006]));
}

#[test]
fn receiver_that_answers_the_same_code_has_read_it() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut session = Session::open(&program, &server);
    session.pass(Endpoint::Client, violation_and_close(Endpoint::Client));
    session.server_closes(1000, "");
    drop(session);
    assert_eq!(verdict(&program.record()), json!([1000, "client", null, null, 1000, 1000]));
}

/// The answer is in closewatch's socket, behind a message that the sender of the first Close frame does not read.
#[test]
fn sender_that_does_not_read_the_answer_is_at_fault() {
    for sender in Endpoint::BOTH {
        let server = Server::with_small_window();
        let program = Program::before(&server, "limits: {buffer_bytes: 64KiB}\ntimeouts: {close: 2s}\n");
        let session = Session::open_with(Peer::connect_with_small_window(program.address()), &server, REQUEST);
        let (mut closes, mut answers) = session.split(sender);
        let message = match sender {
            Endpoint::Client => from_server(0x82, &vec![0; FLOOD]),
            Endpoint::Server => from_client(0x82, &vec![0; FLOOD]),
        };
        closes.send(close_from(sender, 1000, ""));
        answers.expect(close_from(sender, 1000, ""));
        let answer = close_from(sender.other(), 1000, "");
        let record = thread::scope(|scope| {
            // It blocks until closewatch terminates the session.
            scope.spawn(move || drop(answers.try_send([message, answer].concat())));
            program.record()
        });
        drop(closes);
        assert_eq!(record["cause"], "no_close_reply", "{sender:?}");
        assert_eq!(record["cause_endpoint"], sender.as_str());
        assert_eq!((&record["code"], &record["initiator"]), (&1000.into(), &sender.as_str().into()));
    }
}

#[test]
fn answer_to_a_reported_loss_goes_to_nobody() {
    let server = Server::start();
    let program = Program::before(&server, "on_server_loss: {code: 1014}\n");
    let mut session = Session::open(&program, &server);
    session.server.finish();
    assert_eq!(session.client.receive_close(false), (1014, String::new()));
    session.server.expect_fin();
    session.client.send(close_from(Endpoint::Client, 1014, ""));
    session.client.expect_fin();
    session.client.finish();
    let record = program.record();
    assert_eq!(verdict(&record), json!([1006, "server", "eof", "server", 1014, 1006]));
    assert_eq!(record["action"], "server_loss");
}
