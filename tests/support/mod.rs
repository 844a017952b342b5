//! The support of all tests in Rust: closewatch as a process, and raw peers on both sides of it.

mod demo;
mod frames;
mod http;
mod peer;
mod program;
mod scrape;
mod server;
mod session;

use std::{
    fmt::Debug,
    thread,
    time::{Duration, Instant},
};

use closewatch::websocket::{
    PerEndpoint,
    close_code::CloseStatus,
    closing_handshake::{CloseEvent, Ending, Party},
};
use serde_json::Value;

pub(crate) use demo::Demo;
pub(crate) use frames::{
    close, close_from, close_from_client, close_from_server, from, from_client, from_server, masked,
};
pub(crate) use http::{Answer, CloseStream, get, post, request};
pub(crate) use peer::{Head, Peer, TcpEnd};
pub(crate) use program::{LOG_ALL, Outcome, Program, command, run, shell, wait_until_closed};
pub(crate) use scrape::Scrape;
pub(crate) use server::Server;
pub(crate) use session::{REQUEST, SWITCHING, Session};

/// A test fails if it waits longer than this for anything. A passing test never waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again until there is an answer.
pub(crate) fn eventually<T>(what: impl Debug, ask: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, ask)
}

/// Asks again until there is an answer, at most for `limit`.
pub(crate) fn eventually_within<T>(limit: Duration, what: impl Debug, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what:?}");
        thread::sleep(pause);
        pause = (2 * pause).min(Duration::from_millis(20));
    }
}

/// The ending of a session whose Close frame was answered with the same status.
pub(crate) fn clean_close(status: CloseStatus, initiator: Party) -> Ending {
    let seen = CloseEvent { status, reason: String::new(), clean: true };
    Ending {
        status,
        reason: String::new(),
        initiator,
        fault: None,
        action: None,
        seen: PerEndpoint { client: seen.clone(), server: seen },
        received: PerEndpoint { client: Some(status), server: Some(status) },
    }
}

/// Asserts that a record has at least these keys with these values.
pub(crate) fn assert_record(record: &Value, expected: &Value) {
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&record[key], value, "{key} of {record:#}");
    }
}
