//! Counts an opening handshake once, however it ends.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{Response, StatusCode};

use crate::{
    metrics::{HandshakeFailure, HandshakeInProgress, HandshakeOutcome, RouteMetrics},
    proxy::http::response::{Body, draining, refusal},
};

/// An opening handshake in progress. If it is dropped before it is counted, its client has gone.
pub(crate) struct HandshakeGuard {
    metrics: Arc<RouteMetrics>,
    started: Instant,
    is_counted: bool,
    _in_progress: HandshakeInProgress,
}

impl HandshakeGuard {
    pub(crate) fn start(metrics: Arc<RouteMetrics>) -> Self {
        let in_progress = metrics.handshake_started();
        Self { metrics, started: Instant::now(), is_counted: false, _in_progress: in_progress }
    }

    /// Reports a connection to the server, made in so much time.
    pub(crate) fn connected(&self, duration: Duration) {
        self.metrics.upstream_connected(duration);
    }

    /// Counts a failure, and returns closewatch's own response.
    pub(crate) fn fail(self, failure: &Failure) -> Response<Body> {
        let status = failure.status();
        self.count(failure.cause, status, HandshakeOutcome::Failed);
        if failure.cause == HandshakeFailure::Draining { draining() } else { refusal(status, &failure.message) }
    }

    /// Counts a response of the server that is no 101.
    pub(crate) fn reject(self, status: StatusCode) {
        self.count(HandshakeFailure::Rejected, status, HandshakeOutcome::Rejected);
    }

    /// Counts a 101, and returns the metrics of the session. A worker counts the session itself when it takes it over.
    pub(crate) fn upgraded(mut self) -> Arc<RouteMetrics> {
        self.is_counted = true;
        let status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
        self.metrics.handshake_answered(status, HandshakeOutcome::Upgraded, self.started.elapsed());
        Arc::clone(&self.metrics)
    }

    pub(crate) fn count(mut self, cause: HandshakeFailure, status: StatusCode, outcome: HandshakeOutcome) {
        self.is_counted = true;
        self.metrics.handshake_failed(cause);
        self.metrics.handshake_answered(status.as_u16(), outcome, self.started.elapsed());
    }
}

impl Drop for HandshakeGuard {
    fn drop(&mut self) {
        if !self.is_counted {
            self.metrics.handshake_failed(HandshakeFailure::ClientGone);
        }
    }
}

/// Why a handshake did not become a session.
#[derive(Debug)]
pub(crate) struct Failure {
    cause: HandshakeFailure,
    message: String,
}

impl Failure {
    pub(crate) fn new(cause: HandshakeFailure, message: impl Into<String>) -> Self {
        Self { cause, message: message.into() }
    }

    pub(crate) fn draining() -> Self {
        Self::new(HandshakeFailure::Draining, "")
    }

    fn status(&self) -> StatusCode {
        status_of(self.cause)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.status().as_u16(), self.cause.as_str())
    }
}

/// The status of closewatch's own response to a failure.
pub(crate) fn status_of(cause: HandshakeFailure) -> StatusCode {
    match cause {
        HandshakeFailure::BadRequest => StatusCode::BAD_REQUEST,
        HandshakeFailure::NoRoute => StatusCode::NOT_FOUND,
        HandshakeFailure::Draining | HandshakeFailure::OutOfResources => StatusCode::SERVICE_UNAVAILABLE,
        HandshakeFailure::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    }
}
