//! What is counted of one route.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;

use super::close_code_label::CodeLabels;
use super::families::Families;
use super::labels::{self, HandshakeFailure, HandshakeOutcome};
use super::traffic::{Traffic, TrafficBounds};
use crate::websocket::Endpoint;
use crate::websocket::closing_handshake::{Action, Cause, Ending, Party};

/// A session that is over, as it is counted.
#[derive(Debug, Clone, Copy)]
pub struct SessionClosed<'a> {
    /// How and why it ended.
    pub ending: &'a Ending,
    /// From the 101 to the end.
    pub duration: Duration,
    /// From the last byte relayed in either direction, Close frames aside, or the 101, to the first Close frame or the
    /// death of a leg.
    pub idle: Duration,
    /// From the first Close frame to the answering one, where there were both.
    pub close_handshake: Option<Duration>,
}

/// The series of one route. Those whose labels are known exist from the start, at 0.
#[derive(Debug)]
pub struct RouteMetrics {
    name: String,
    families: Arc<Families>,
    codes: Arc<CodeLabels>,
    traffic: Box<[Traffic]>,
}

impl RouteMetrics {
    /// A configured route, whose sessions are served by so many worker threads.
    pub(super) fn new(
        name: &str,
        families: Arc<Families>,
        codes: Arc<CodeLabels>,
        workers: usize,
        bounds: &TrafficBounds,
    ) -> Self {
        let traffic = (0..workers).map(|_| Traffic::new(bounds)).collect();
        let route = Self { name: name.to_owned(), families, codes, traffic };
        route.make_handshake_series();
        route.make_close_series();
        route.make_histogram_series();
        route
    }

    /// The route `""`, of requests that found none: it has no sessions.
    pub(super) fn unrouted(families: Arc<Families>, codes: Arc<CodeLabels>) -> Self {
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

    /// The name that is the value of the label `route`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// An upgrade request was received; it is in progress while the answer lives.
    pub fn handshake_started(&self) -> HandshakeInProgress {
        let in_progress = self.families.handshakes_in_progress.with_label_values(&[self.name()]);
        in_progress.inc();
        HandshakeInProgress(in_progress)
    }

    /// An upgrade request was answered, so long after its head was received. The 101 of a session is not counted here but
    /// by [`Self::session_opened`], so that no 101 is counted whose session is not.
    pub fn handshake_answered(&self, status: u16, outcome: HandshakeOutcome, duration: Duration) {
        if outcome != HandshakeOutcome::Upgraded {
            self.families.handshakes.with_label_values(&[self.name(), &labels::status(status)]).inc();
        }
        let durations = &self.families.handshake_duration;
        durations.with_label_values(&[self.name(), outcome.as_str()]).observe(duration.as_secs_f64());
    }

    /// An upgrade request did not become a session. Where the TLS handshake with the server failed, that is a close too,
    /// with code 1015.
    pub fn handshake_failed(&self, cause: HandshakeFailure) {
        self.families.handshake_failures.with_label_values(&[self.name(), cause.as_str()]).inc();
        if cause == HandshakeFailure::UpstreamTls {
            self.tls_handshake_failed(Party::Server);
        }
    }

    /// A TLS handshake failed that an endpoint took part in.
    pub(super) fn tls_handshake_failed(&self, endpoint: Party) {
        let closes = &self.families.closes;
        closes.with_label_values(&[self.name(), TLS_FAILED, endpoint.as_str(), labels::clean(false)]).inc();
    }

    /// A connection to the server was made for an upgrade, in so much time.
    pub fn upstream_connected(&self, duration: Duration) {
        let durations = &self.families.upstream_connect_duration;
        durations.with_label_values(&[self.name()]).observe(duration.as_secs_f64());
    }

    /// A plain HTTP request was answered.
    pub fn http_request(&self, status: u16) {
        self.families.http_requests.with_label_values(&[self.name(), &labels::status(status)]).inc();
    }

    /// A session began: its 101 has been sent. Each is to be followed by one [`Self::session_closed`].
    pub fn session_opened(&self) {
        self.families.handshakes.with_label_values(&[self.name(), "101"]).inc();
        self.families.sessions_active.with_label_values(&[self.name()]).inc();
    }

    /// A session ended.
    pub fn session_closed(&self, closed: &SessionClosed<'_>) {
        self.count_close(closed.ending);
        self.count_views(closed.ending);
        self.count_fault(closed.ending);
        self.observe_durations(closed);
        self.families.sessions_active.with_label_values(&[self.name()]).dec();
    }

    /// The cells of one worker thread, counted from 0, which alone may write them.
    ///
    /// # Panics
    ///
    /// Where there are not so many workers; on the route `""`, which has no sessions, always.
    #[inline]
    pub fn traffic(&self, worker: usize) -> &Traffic {
        &self.traffic[worker]
    }

    /// The cells of every worker.
    pub(super) fn workers(&self) -> &[Traffic] {
        &self.traffic
    }

    fn count_close(&self, ending: &Ending) {
        let code = self.codes.in_counters(ending.status);
        let values = [self.name(), &code, ending.initiator.as_str(), labels::clean(ending.clean)];
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
        let client = CodeLabels::in_views(ending.seen.client.status);
        let server = CodeLabels::in_views(ending.seen.server.status);
        self.families.close_views.with_label_values(&[self.name(), &client, &server]).inc();
    }

    fn count_fault(&self, ending: &Ending) {
        debug_assert_eq!(ending.clean, ending.cause.is_none(), "a session has a cause exactly where it is not clean");
        if let Some((party, cause)) = ending.cause {
            self.families.abnormal_closes.with_label_values(&[self.name(), party.as_str(), cause.as_str()]).inc();
        }
        if let Some(action) = ending.action {
            self.families.proxy_actions.with_label_values(&[self.name(), action.as_str()]).inc();
        }
    }

    fn observe_durations(&self, closed: &SessionClosed<'_>) {
        let code = self.codes.in_histograms(closed.ending.status);
        let durations = &self.families.session_duration;
        durations.with_label_values(&[self.name(), &code]).observe(closed.duration.as_secs_f64());
        // Where our own keepalive found the link dead, the wait is its setting and tells nothing about the endpoints.
        if !matches!(closed.ending.cause, Some((_, Cause::Timeout))) {
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
        for cause in HandshakeFailure::ALL {
            handshake_failures.with_label_values(&[self.name(), cause.as_str()]);
        }
        self.families.http_requests.with_label_values(&[self.name(), "200"]);
        self.families.sessions_active.with_label_values(&[self.name()]);
    }

    fn make_close_series(&self) {
        for code in COMMON_CODES {
            for clean in ways_to_be_clean(code) {
                for initiator in Party::ALL {
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
            self.make_series_of_faults_and_frames(endpoint);
        }
        for action in ACTIONS_AT_FAULT {
            let values = [self.name(), Party::Proxy.as_str(), action.as_str()];
            self.families.abnormal_closes.with_label_values(&values);
        }
        for action in Action::ALL {
            self.families.proxy_actions.with_label_values(&[self.name(), action.as_str()]);
        }
    }

    fn make_series_of_faults_and_frames(&self, endpoint: Endpoint) {
        for cause in Cause::OF_ENDPOINTS {
            self.families.abnormal_closes.with_label_values(&[self.name(), endpoint.as_str(), cause.as_str()]);
        }
        for code in ["1000", "1001"] {
            self.families.close_frames.with_label_values(&[self.name(), endpoint.as_str(), code]);
        }
    }

    fn make_histogram_series(&self) {
        for outcome in HandshakeOutcome::ALL {
            self.families.handshake_duration.with_label_values(&[self.name(), outcome.as_str()]);
        }
        self.families.upstream_connect_duration.with_label_values(&[self.name()]);
        for initiator in Party::ALL {
            self.families.close_handshake_duration.with_label_values(&[self.name(), initiator.as_str()]);
        }
        for code in COMMON_CODES {
            self.families.session_duration.with_label_values(&[self.name(), code]);
            self.families.idle_before_close.with_label_values(&[self.name(), code]);
        }
    }
}

/// An upgrade request that is being answered: counted in `websocket_handshakes_in_progress` until it is dropped.
#[must_use = "the handshake is over when this is dropped"]
#[derive(Debug)]
pub struct HandshakeInProgress(IntGauge);

impl Drop for HandshakeInProgress {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The code of a TLS handshake that failed.
const TLS_FAILED: &str = "1015";

/// The codes that every service meets: their series exist from the start, so that the first is an increase.
const COMMON_CODES: [&str; 3] = ["1000", "1001", "1006"];

/// The values of `clean` that such a code can have: where no Close frame came, nothing was clean.
fn ways_to_be_clean(code: &str) -> &'static [&'static str] {
    if code == "1006" { &["false"] } else { &["false", "true"] }
}

/// The actions that a session can end of. The two that tell of a loss are not: the lost endpoint is at fault.
const ACTIONS_AT_FAULT: [Action; 5] =
    [Action::IdleTimeout, Action::MaxAge, Action::Limit, Action::Drain, Action::Control];

/// How an upgrade request can fail before its route is known.
const UNROUTED_FAILURES: [HandshakeFailure; 4] =
    [HandshakeFailure::BadRequest, HandshakeFailure::NoRoute, HandshakeFailure::Draining, HandshakeFailure::ClientGone];
