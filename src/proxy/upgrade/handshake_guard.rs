//! Counts an opening handshake once, however it ends, and records its failure.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{Response, StatusCode};

use crate::{
    journal::{HandshakeInfo, Journal},
    metrics::{HandshakeFailure, HandshakeInProgress, HandshakeOutcome, RouteMetrics},
    proxy::http::response::{Body, draining, refusal},
};

/// An opening handshake in progress. If it is dropped before it is counted, its client has gone.
pub(crate) struct HandshakeGuard {
    report: HandshakeReport,
    started: Instant,
    _in_progress: HandshakeInProgress,
}

/// A plain request that was an upgrade before a hop in front removed headers. It is counted when it is dropped.
pub(crate) struct LostUpgrade {
    report: HandshakeReport,
    /// The status that its client gets.
    status: Option<StatusCode>,
}

/// Reports at most one failure.
struct HandshakeReport {
    metrics: Arc<RouteMetrics>,
    journal: Arc<Journal>,
    /// `None` if the handshake has an outcome.
    handshake: Option<Box<HandshakeInfo>>,
}

impl HandshakeGuard {
    pub(crate) fn start(metrics: Arc<RouteMetrics>, journal: &Arc<Journal>, handshake: HandshakeInfo) -> Self {
        let in_progress = metrics.handshake_started();
        let started = handshake.started;
        Self { report: HandshakeReport::new(metrics, journal, handshake), started, _in_progress: in_progress }
    }

    /// Notes the server's address that is tried.
    pub(crate) fn tries(&mut self, server: Option<Arc<str>>) {
        if let Some(handshake) = &mut self.report.handshake {
            handshake.server = server;
        }
    }

    /// Reports a connection to the server, made in so much time.
    pub(crate) fn connected(&self, duration: Duration) {
        self.report.metrics.upstream_connected(duration);
    }

    /// Counts a failure, and returns closewatch's own response.
    pub(crate) fn fail(self, failure: &Failure) -> Response<Body> {
        let status = failure.status();
        self.count(failure.cause, status, HandshakeOutcome::Failed, Some(&failure.message));
        if failure.cause == HandshakeFailure::Draining { draining() } else { refusal(status, &failure.message) }
    }

    /// Counts a response of the server that is no 101.
    pub(crate) fn reject(self, status: StatusCode) {
        self.count(HandshakeFailure::Rejected, status, HandshakeOutcome::Rejected, None);
    }

    /// Counts a 101. Returns the metrics of the session, and the facts for the record of a client that leaves before it
    /// has the 101. A worker counts the session itself when it takes it over.
    pub(crate) fn upgraded(mut self) -> (Arc<RouteMetrics>, Box<HandshakeInfo>) {
        let metrics = Arc::clone(&self.report.metrics);
        let status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
        metrics.handshake_answered(status, HandshakeOutcome::Upgraded, self.started.elapsed());
        let handshake = self.report.handshake.take();
        (metrics, handshake.expect("each method that takes the handshake consumes the guard"))
    }

    /// Counts a failure that was answered with this status.
    pub(crate) fn count(
        mut self,
        cause: HandshakeFailure,
        status: StatusCode,
        outcome: HandshakeOutcome,
        error: Option<&str>,
    ) {
        self.report.fail(cause, Some(status), error);
        self.report.metrics.handshake_answered(status.as_u16(), outcome, self.started.elapsed());
    }
}

impl Drop for HandshakeGuard {
    fn drop(&mut self) {
        self.report.fail(HandshakeFailure::ClientGone, None, None);
    }
}

impl LostUpgrade {
    pub(crate) fn new(metrics: Arc<RouteMetrics>, journal: &Arc<Journal>, handshake: HandshakeInfo) -> Self {
        Self { report: HandshakeReport::new(metrics, journal, handshake), status: None }
    }

    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for LostUpgrade {
    fn drop(&mut self) {
        let error = "a hop in front removed Upgrade or Connection, or speaks HTTP/1.0";
        self.report.fail(HandshakeFailure::HeadersLost, self.status, Some(error));
    }
}

impl HandshakeReport {
    fn new(metrics: Arc<RouteMetrics>, journal: &Arc<Journal>, handshake: HandshakeInfo) -> Self {
        Self { metrics, journal: Arc::clone(journal), handshake: Some(Box::new(handshake)) }
    }

    /// Records and counts a failure, unless the handshake has an outcome.
    fn fail(&mut self, cause: HandshakeFailure, status: Option<StatusCode>, error: Option<&str>) {
        let Some(handshake) = self.handshake.take() else { return };
        let status = status.map(|status| status.as_u16());
        self.journal.record_handshake(handshake.fail(self.metrics.name(), cause.as_str(), status, error));
        self.metrics.handshake_failed(cause);
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
        Self::new(HandshakeFailure::Draining, "closewatch drains")
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
