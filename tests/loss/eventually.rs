//! Waiting for what happens in its own time.

use std::{
    thread,
    time::{Duration, Instant},
};

/// For what has to happen soon, but has no time of its own.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Asks until there is an answer.
pub(crate) fn eventually<T>(within: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
