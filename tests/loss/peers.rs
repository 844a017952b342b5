//! Programs at either end that die or are slow, on links without a fault.

use std::{collections::HashSet, os::fd::OwnedFd, process::Command};

use closewatch::websocket::Endpoint;
use libtest_mimic::Trial;

use crate::{
    case,
    lab::{IN_TIME, Lab, close, closed_by_client, lost, message},
    support::{Peer, Session, assert_record},
};

/// The number of sessions of a server that restarts.
const MANY: u32 = 500;

pub(crate) fn cases() -> Vec<Trial> {
    let mut cases = Vec::new();
    for endpoint in Endpoint::BOTH {
        let name = endpoint.as_str();
        cases.push(case(format!("{name}::killed_while_idle"), move || killed_while_idle(endpoint)));
        cases.push(case(format!("{name}::killed_with_unread_data"), move || killed_with_unread_data(endpoint)));
        cases.push(case(format!("{name}::killed_inside_a_frame"), move || killed_inside_a_frame(endpoint)));
    }
    cases.push(case("server::accept_queue_is_full".to_owned(), accept_queue_is_full));
    cases.push(case("server::restarts_under_500_sessions".to_owned(), restarts_under_500_sessions));
    cases
}

/// The kernel sends FIN for the program.
fn killed_while_idle(endpoint: Endpoint) {
    let lab = Lab::new();
    let mut other = kill(lab.open_and_idle(endpoint), endpoint);
    other.expect_fin();
    drop(other);
    lab.expect_record(&lost(endpoint, "eof"), IN_TIME);
}

/// The kernel sends RST for the program.
fn killed_with_unread_data(endpoint: Endpoint) {
    let lab = Lab::new();
    let mut session = lab.open_and_idle(endpoint);
    session.end(endpoint.other()).send(message(endpoint.other(), b"hello"));
    session.end(endpoint).wait_until_readable();
    let mut other = kill(session, endpoint);
    other.expect_rst();
    lab.expect_record(&lost(endpoint, "reset"), IN_TIME);
}

fn killed_inside_a_frame(endpoint: Endpoint) {
    let lab = Lab::new();
    let mut session = lab.open_and_idle(endpoint);
    let message = message(endpoint, b"a message that is never sent to its end");
    session.end(endpoint).send(&message[..20]);
    let mut other = kill(session, endpoint);
    other.expect(&message[..20]);
    other.expect_fin();
    drop(other);
    lab.expect_record(&lost(endpoint, "truncated"), IN_TIME);
}

/// The server's kernel does not answer, because the server accepts no connection.
fn accept_queue_is_full() {
    let lab = Lab::with_backlog(0);
    let _the_one_that_fits = lab.connect_to_server();
    let mut client = lab.request();
    let head = client.receive_head();
    assert!(head.first_line().starts_with("HTTP/1.1 504 "), "{}", head.text);
    assert_eq!(lab.sum("websocket_handshake_failures_total", &[("cause", "upstream_timeout")]), 1.0);
    lab.expect_closed(0);
}

/// Half of the server's connections have unread data and end by RST. The others end by FIN. Then all clients return.
fn restarts_under_500_sessions() {
    let mut lab = Lab::new();
    let mut sessions: Vec<Session> = (0..MANY).map(|_| lab.open()).collect();
    let (idle, busy) = sessions.split_at_mut(MANY as usize / 2);
    for session in busy.iter_mut() {
        session.client.send(message(Endpoint::Client, b"hello"));
        session.server.wait_until_readable();
    }
    assert_eq!(idle.len(), busy.len());
    let (clients, servers): (Vec<_>, Vec<_>) =
        sessions.into_iter().map(|session| (session.client, session.server)).unzip();
    drop(servers);
    lab.restart_server();
    for (place, mut client) in (0..MANY).zip(clients) {
        if place < MANY / 2 { client.expect_fin() } else { client.expect_rst() }
    }
    lab.expect_closed(MANY);
    let records = lab.records();
    let sessions: HashSet<&str> = records.iter().map(|record| record["session"].as_str().unwrap()).collect();
    assert_eq!(sessions.len(), MANY as usize);
    for cause in ["eof", "reset"] {
        let of_it: Vec<_> = records.iter().filter(|record| record["cause"] == cause).collect();
        assert_eq!(of_it.len(), MANY as usize / 2);
        for record in of_it {
            assert_record(record, &lost(Endpoint::Server, cause));
        }
    }

    let again: Vec<Session> = (0..MANY).map(|_| lab.open()).collect();
    again.into_iter().for_each(close);
    lab.expect_closed(2 * MANY);
    for record in &lab.records()[..MANY as usize] {
        assert_record(record, &closed_by_client());
    }
}

/// Gives one end to a program, kills it, and returns the other end.
fn kill(session: Session, endpoint: Endpoint) -> Peer {
    let (victim, left) = session.split(endpoint);
    let mut program = Command::new("sleep").arg("600").stdin(OwnedFd::from(victim)).spawn().unwrap();
    program.kill().unwrap();
    program.wait().unwrap();
    left
}
