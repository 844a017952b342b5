//! Accepts that fail because the process, or the machine, has run out of something: file descriptors above all.

use std::{
    fmt, io,
    time::{Duration, Instant},
};

/// After an accept that failed: long enough not to spin, short enough to recover.
const PAUSE: Duration = Duration::from_millis(100);

/// Failures that are no further apart belong to one backoff.
const SAME: Duration = Duration::from_mins(1);

/// What a listener knows of its failing accepts.
#[derive(Debug, Default)]
pub(crate) struct AcceptBackoff {
    last_failure: Option<Instant>,
}

impl AcceptBackoff {
    /// Waits until it is worth while to try again. A backoff is told once, and not at each try: the log would have
    /// nothing else in it.
    pub(crate) async fn pause(&mut self, error: &io::Error, listener: impl fmt::Display) {
        if self.is_new(Instant::now()) {
            tracing::warn!(%error, %listener, "connections cannot be accepted; those who come wait until they can");
        }
        tokio::time::sleep(PAUSE).await;
    }

    fn is_new(&mut self, now: Instant) -> bool {
        let before = self.last_failure.replace(now);
        before.is_none_or(|last| now.duration_since(last) > SAME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_close_together_are_one_shortage() {
        let (mut backoff, start) = (AcceptBackoff::default(), Instant::now());
        let mut is_new = |seconds| backoff.is_new(start + Duration::from_secs(seconds));
        assert_eq!([0, 1, 60, 120].map(&mut is_new), [true, false, false, false]);
        assert_eq!([181, 182].map(&mut is_new), [true, false]);
    }
}
