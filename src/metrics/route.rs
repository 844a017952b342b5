//! Counts the handshakes and sessions of one route.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use strum::VariantArray;

use super::close_code_label::CloseCodeLabels;
use super::families::Families;
use super::labels::{self, HandshakeFailure, HandshakeOutcome};
use super::traffic::{Traffic, TrafficBounds};
use crate::session::Summary;
use crate::websocket::Endpoint;
use crate::websocket::closing_handshake::{Action, Ending, Fault, LegFault, Party};

/// The series of one route. Series with known labels exist from the start, at 0.
#[derive(Debug)]
pub struct RouteMetrics {
    name: String,
    families: Arc<Families>,
    codes: Arc<CloseCodeLabels>,
    traffic: Box<[Arc<Traffic>]>,
}

impl RouteMetrics {
    /// A configured route, with cells for each of the `workers`.
    pub(super) fn new(
        name: &str,
        families: Arc<Families>,
        codes: Arc<CloseCodeLabels>,
        workers: usize,
        bounds: &TrafficBounds,
    ) -> Self {
        let traffic = (0..workers).map(|_| Arc::new(Traffic::new(bounds))).collect();
        let route = Self { name: name.to_owned(), families, codes, traffic };
        route.make_handshake_series();
        route.make_close_series();
        route.make_histogram_series();
        route
    }

    /// The route `""`, for requests without a route. It has no sessions.
    pub(super) fn unrouted(families: Arc<Families>, codes: Arc<CloseCodeLabels>) -> Self {
        let route = Self { name: String::new(), families, codes, traffic: Box::default() };
        route.families.handshakes_in_progress.with_label_values(&[""]);
        route.families.handshake_duration.with_label_values(&["", HandshakeOutcome::Failed.as_str()]);
        for cause in UNROUTED_FAILURES {
            route.families.handshake_failures.with_label_values(&["", cause.as_str()]);
        }
        for status in ["400", "404", "503"] {
            route.families.handshakes.with_label_values(&["", status]);
        }
        route.families.closes.with_label_values(&["", TLS_FAILED, Party::Client.as_str(), labels::clean(false)]);
        route
    }

    /// The value of the label `route`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// An upgrade request was received. It is in progress until the returned value is dropped.
    pub fn handshake_started(&self) -> HandshakeInProgress {
        let in_progress = self.families.handshakes_in_progress.with_label_values(&[self.name()]);
        in_progress.inc();
        HandshakeInProgress(in_progress)
    }

    /// An upgrade request was answered, `duration` after its head was received. [`Self::session_opened`] counts the 101, so
    /// that handshakes with status 101 and sessions always agree.
    pub fn handshake_answered(&self, status: u16, outcome: HandshakeOutcome, duration: Duration) {
        if outcome != HandshakeOutcome::Upgraded {
            self.families.handshakes.with_label_values(&[self.name(), &labels::status(status)]).inc();
        }
        let durations = &self.families.handshake_duration;
        durations.with_label_values(&[self.name(), outcome.as_str()]).observe(duration.as_secs_f64());
    }

    /// An upgrade request did not become a session. If the TLS handshake with the server failed, it is also a close with
    /// code 1015.
    pub fn handshake_failed(&self, cause: HandshakeFailure) {
        self.families.handshake_failures.with_label_values(&[self.name(), cause.as_str()]).inc();
        if cause == HandshakeFailure::UpstreamTls {
            self.tls_handshake_failed(Party::Server);
        }
    }

    /// The TLS handshake with an endpoint failed.
    pub(super) fn tls_handshake_failed(&self, endpoint: Party) {
        let closes = &self.families.closes;
        closes.with_label_values(&[self.name(), TLS_FAILED, endpoint.as_str(), labels::clean(false)]).inc();
    }

    /// A connection to the server was made for an upgrade.
    pub fn upstream_connected(&self, duration: Duration) {
        let durations = &self.families.upstream_connect_duration;
        durations.with_label_values(&[self.name()]).observe(duration.as_secs_f64());
    }

    /// A plain HTTP request was answered.
    pub fn http_request(&self, status: u16) {
        self.families.http_requests.with_label_values(&[self.name(), &labels::status(status)]).inc();
    }

    /// A session began: its 101 is sent. Exactly one [`Self::session_closed`] must follow.
    pub fn session_opened(&self) {
        self.families.handshakes.with_label_values(&[self.name(), "101"]).inc();
        self.families.sessions_active.with_label_values(&[self.name()]).inc();
    }

    /// A session ended.
    pub fn session_closed(&self, summary: &Summary) {
        self.count_close(&summary.ending);
        self.count_views(&summary.ending);
        self.count_fault(&summary.ending);
        self.observe_durations(summary);
        self.families.sessions_active.with_label_values(&[self.name()]).dec();
    }

    /// The cells of one worker, numbered from 0. Only this worker may write them.
    ///
    /// # Panics
    ///
    /// Panics if there is no such worker; always on the route `""`, which has no sessions.
    pub fn traffic(&self, worker: usize) -> &Arc<Traffic> {
        &self.traffic[worker]
    }

    /// The cells of every worker.
    pub(super) fn workers(&self) -> &[Arc<Traffic>] {
        &self.traffic
    }

    fn count_close(&self, ending: &Ending) {
        let code = self.codes.in_counters(ending.status);
        let values = [self.name(), &code, ending.initiator.as_str(), labels::clean(ending.is_clean())];
        self.families.closes.with_label_values(&values).inc();
        for endpoint in Endpoint::BOTH {
            if let Some(status) = ending.received[endpoint] {
                let code = self.codes.in_counters(status);
                self.families.close_frames.with_label_values(&[self.name(), endpoint.as_str(), &code]).inc();
            }
        }
    }

    fn count_views(&self, ending: &Ending) {
        for endpoint in Endpoint::BOTH {
            let seen = &ending.seen[endpoint];
            let code = self.codes.in_counters(seen.status);
            let values = [self.name(), endpoint.as_str(), &code, labels::clean(seen.clean)];
            self.families.close_events.with_label_values(&values).inc();
        }
        let client = CloseCodeLabels::in_views(ending.seen.client.status);
        let server = CloseCodeLabels::in_views(ending.seen.server.status);
        self.families.close_views.with_label_values(&[self.name(), &client, &server]).inc();
    }

    fn count_fault(&self, ending: &Ending) {
        if let Some(fault) = ending.fault {
            let values = [self.name(), fault.party().as_str(), fault.cause()];
            self.families.abnormal_closes.with_label_values(&values).inc();
        }
        if let Some(action) = ending.action {
            self.families.proxy_actions.with_label_values(&[self.name(), action.as_str()]).inc();
        }
    }

    fn observe_durations(&self, closed: &Summary) {
        let code = self.codes.in_histograms(closed.ending.status);
        let durations = &self.families.session_duration;
        durations.with_label_values(&[self.name(), &code]).observe(closed.duration.as_secs_f64());
        // If closewatch's own keepalive found the link dead, the wait is only that setting.
        if !matches!(closed.ending.fault, Some(Fault::Endpoint(_, LegFault::Timeout))) {
            let idle = &self.families.idle_before_close;
            idle.with_label_values(&[self.name(), &code]).observe(closed.idle.as_secs_f64());
        }
        if let Some(duration) = closed.close_handshake {
            let durations = &self.families.close_handshake_duration;
            let values = [self.name(), closed.ending.initiator.as_str()];
            durations.with_label_values(&values).observe(duration.as_secs_f64());
        }
    }

    fn make_handshake_series(&self) {
        let Families { handshakes, handshake_failures, handshakes_in_progress, .. } = &*self.families;
        handshakes.with_label_values(&[self.name(), "101"]);
        handshakes_in_progress.with_label_values(&[self.name()]);
        for cause in HandshakeFailure::VARIANTS {
            handshake_failures.with_label_values(&[self.name(), cause.as_str()]);
        }
        self.families.http_requests.with_label_values(&[self.name(), "200"]);
        self.families.sessions_active.with_label_values(&[self.name()]);
    }

    fn make_close_series(&self) {
        for code in COMMON_CODES {
            for clean in clean_values(code) {
                for initiator in Party::VARIANTS {
                    self.families.closes.with_label_values(&[self.name(), code, initiator.as_str(), clean]);
                }
                for endpoint in Endpoint::BOTH {
                    self.families.close_events.with_label_values(&[self.name(), endpoint.as_str(), code, clean]);
                }
            }
            for other in COMMON_CODES {
                self.families.close_views.with_label_values(&[self.name(), code, other]);
            }
        }
        let tls_failed = [self.name(), TLS_FAILED, Party::Server.as_str(), labels::clean(false)];
        self.families.closes.with_label_values(&tls_failed);
        for endpoint in Endpoint::BOTH {
            self.make_endpoint_series(endpoint);
        }
        for action in ACTIONS_AT_FAULT {
            let values = [self.name(), Party::Proxy.as_str(), action.as_str()];
            self.families.abnormal_closes.with_label_values(&values);
        }
        for action in Action::VARIANTS {
            self.families.proxy_actions.with_label_values(&[self.name(), action.as_str()]);
        }
    }

    fn make_endpoint_series(&self, endpoint: Endpoint) {
        for cause in LegFault::VARIANTS {
            self.families.abnormal_closes.with_label_values(&[self.name(), endpoint.as_str(), cause.as_str()]);
        }
        for code in ["1000", "1001"] {
            self.families.close_frames.with_label_values(&[self.name(), endpoint.as_str(), code]);
        }
    }

    fn make_histogram_series(&self) {
        for outcome in HandshakeOutcome::VARIANTS {
            self.families.handshake_duration.with_label_values(&[self.name(), outcome.as_str()]);
        }
        self.families.upstream_connect_duration.with_label_values(&[self.name()]);
        for initiator in Party::VARIANTS {
            self.families.close_handshake_duration.with_label_values(&[self.name(), initiator.as_str()]);
        }
        for code in COMMON_CODES {
            self.families.session_duration.with_label_values(&[self.name(), code]);
            self.families.idle_before_close.with_label_values(&[self.name(), code]);
        }
    }
}

/// An upgrade request without an answer, counted in `websocket_handshakes_in_progress` until it is dropped.
#[must_use = "the handshake is over when this is dropped"]
#[derive(Debug)]
pub struct HandshakeInProgress(IntGauge);

impl Drop for HandshakeInProgress {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The code of a failed TLS handshake.
const TLS_FAILED: &str = "1015";

/// The codes that every server sees. Their series exist from the start, so that `rate()` sees the first one.
const COMMON_CODES: [&str; 3] = ["1000", "1001", "1006"];

/// The values of `clean` that a code can have. A session without a Close frame is never clean.
fn clean_values(code: &str) -> &'static [&'static str] {
    if code == "1006" { &["false"] } else { &["false", "true"] }
}

/// The actions that are also causes. After the other two, the lost endpoint is at fault.
const ACTIONS_AT_FAULT: [Action; 5] =
    [Action::IdleTimeout, Action::MaxAge, Action::Limit, Action::Drain, Action::Control];

/// The failures that can occur before the route is known.
const UNROUTED_FAILURES: [HandshakeFailure; 4] =
    [HandshakeFailure::BadRequest, HandshakeFailure::NoRoute, HandshakeFailure::Draining, HandshakeFailure::ClientGone];
