//! A running closewatch, and peers on both sides of it that speak TCP byte for byte.

pub(crate) mod closewatch;
mod frames;
mod peer;
mod program;
mod scrape;
mod session;

use std::{
    fmt::Debug,
    thread,
    time::{Duration, Instant},
};

pub(crate) use frames::{close, from_client, from_server, masked};
pub(crate) use peer::{Peer, Server, TcpEnd};
pub(crate) use program::{Ended, Program};
pub(crate) use scrape::Scrape;
pub(crate) use session::{REQUEST, SWITCHING, Session};

/// After this long without what a test waits for, the test has failed. Nothing waits this long where all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again until there is an answer.
pub(crate) fn eventually<T>(what: impl Debug, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "this never came: {what:?}");
        thread::sleep(Duration::from_millis(2));
    }
}
