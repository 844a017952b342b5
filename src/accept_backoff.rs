//! The pause after an accept that failed, mostly because no file descriptor is left.

use std::{
    fmt, io,
    time::{Duration, Instant},
};

/// Long enough not to spin, short enough to recover soon.
const PAUSE: Duration = Duration::from_millis(100);

/// Failures that are at most this far apart are logged once.
const SAME_SHORTAGE: Duration = Duration::from_mins(1);

/// The backoff of one listener.
#[derive(Debug, Default)]
pub(crate) struct AcceptBackoff {
    last_failure: Option<Instant>,
}

impl AcceptBackoff {
    /// Reports the failure, and pauses.
    ///
    /// An error of the accepted connection itself needs no pause: the next accept may succeed.
    pub(crate) async fn pause(&mut self, error: &io::Error, listener: impl fmt::Display) {
        if is_connection_error(error) {
            return;
        }
        self.report(error, listener);
        tokio::time::sleep(PAUSE).await;
    }

    /// Logs the first failure of a shortage. A line for each try would fill the log.
    pub(crate) fn report(&mut self, error: &io::Error, listener: impl fmt::Display) {
        if self.is_first(Instant::now()) {
            tracing::warn!(%listener, "accept failed: {}; retrying", description(error));
        }
    }

    fn is_first(&mut self, now: Instant) -> bool {
        let before = self.last_failure.replace(now);
        before.is_none_or(|last| now.duration_since(last) > SAME_SHORTAGE)
    }
}

/// Whether the process or the machine has no file descriptor left.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

fn is_connection_error(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// The error in the words that operators search for.
fn description(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EMFILE) => "too many open files".to_owned(),
        Some(libc::ENFILE) => "too many open files in system".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_within_a_minute_are_logged_once() {
        let (mut backoff, start) = (AcceptBackoff::default(), Instant::now());
        let mut is_first = |seconds| backoff.is_first(start + Duration::from_secs(seconds));
        assert_eq!([0, 1, 60, 120].map(&mut is_first), [true, false, false, false]);
        assert_eq!([181, 182].map(&mut is_first), [true, false]);
    }

    #[test]
    fn missing_descriptors_have_known_words() {
        let described = |code| description(&io::Error::from_raw_os_error(code));
        assert_eq!(described(libc::EMFILE), "too many open files");
        assert_eq!(described(libc::ENFILE), "too many open files in system");
        assert_eq!(described(libc::ENOMEM), "Cannot allocate memory (os error 12)");
    }
}
