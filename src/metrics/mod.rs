//! What Prometheus is told: every family of `/metrics`.
//!
//! Three kinds of counting meet here. What happens per frame goes to [`Traffic`], cells of one worker thread each that a
//! scrape sums. What happens per session or request goes to [`RouteMetrics`], which looks its series up by their labels.
//! The rest, which belongs to no route, is counted on [`Metrics`] itself.
//!
//! # No two series can be taken for one
//!
//! The `prometheus` crate finds a series by a hash of its label values written one behind the other, without a separator,
//! and compares nothing else: `("ab", "c")` and `("a", "bc")` are the same to it. That an endpoint cannot use this to hide
//! a series behind another, nor to add series without bound, rests on three facts:
//!
//! - `route` is the only label whose values are free, it stands first, and its values come from the configuration.
//! - All other values come from closed sets, and in no family is what may follow `route` the end of something else that
//!   may follow it. So from the written-together values the route, and with it all the rest, can be read back. A test
//!   here goes through every family's values and finds no such pair.
//! - Codes, the only values that endpoints choose, are reduced to a bounded set first (the module `codes`), and HTTP
//!   statuses to those of three digits.
//!
//! What remains is chance: that two different texts have the same 64-bit hash. Endpoints choose among a few thousand texts
//! at most, which they cannot shape.

mod buckets;
mod close_code_label;
mod exposition;
mod families;
mod labels;
mod process;
mod route;
mod traffic;
mod traffic_collector;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Encoder, IntCounter, IntGauge, Registry, TextEncoder};

pub use self::labels::{HandshakeFailure, HandshakeOutcome, RejectReason};
pub use self::route::{HandshakeInProgress, RouteMetrics, SessionClosed};
pub use self::traffic::{EndpointTraffic, Traffic};

use self::buckets::Buckets;
use self::close_code_label::CodeLabels;
use self::families::Families;
use self::process::ProcessCollector;
use self::traffic::TrafficBounds;
use self::traffic_collector::TrafficCollector;
use crate::config;
use crate::websocket::closing_handshake::Party;

/// What is fixed for the life of the process.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Private codes (3000 to 4999) that always have series of their own (`metrics.codes`).
    pub codes: Vec<u16>,
    /// How many other codes from 3000 on may get series of their own (`metrics.max_custom_codes`).
    pub max_custom_codes: usize,
    /// Bounds of the histograms (`metrics.buckets`).
    pub buckets: config::Buckets,
    /// Threads of the data plane: each has its own cells.
    pub workers: usize,
    /// Every registered code with its name, for `websocket_close_code_info`.
    pub registered_codes: Vec<(u16, &'static str)>,
}

/// All metrics of the process. Passed to who counts, never a static.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Arc<Families>,
    codes: Arc<CodeLabels>,
    routes: Arc<Routes>,
    unrouted: Arc<RouteMetrics>,
    connections_active: IntGauge,
    bounds: TrafficBounds,
    workers: usize,
}

impl Metrics {
    /// The Content-Type of [`Self::render`]; Prometheus 3 refuses a scrape without it.
    pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// Makes all families. The configuration that these options come from counts as loaded now.
    ///
    /// # Panics
    ///
    /// Where a histogram's bounds are none, do not rise from 0, or are not finite.
    pub fn new(options: Options) -> Self {
        let registry = Registry::new();
        let buckets = Arc::new(Buckets::from(options.buckets));
        let families = Arc::new(Families::register(&registry, &buckets));
        let codes = Arc::new(CodeLabels::new(options.codes, options.max_custom_codes));
        let routes = Arc::new(Routes::default());
        let traffic = TrafficCollector::new(Arc::clone(&routes), Arc::clone(&buckets));
        registry.register(Box::new(traffic)).expect("its families are not among the others");
        registry.register(Box::new(ProcessCollector::new())).expect("its families are not among the others");
        let metrics = Self {
            registry,
            unrouted: Arc::new(RouteMetrics::unrouted(Arc::clone(&families), Arc::clone(&codes))),
            connections_active: families.connections_active.with_label_values(NO_LABELS),
            bounds: TrafficBounds::new(&buckets.message_size, &buckets.ping_rtt),
            workers: options.workers,
            families,
            codes,
            routes,
        };
        metrics.make_series(&options.registered_codes);
        metrics.reload_succeeded(SystemTime::now());
        metrics
    }

    /// The series of a route, made at 0 where it is new; `""` is for requests that found no route. Names come from the
    /// configuration, never from a request.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        if name.is_empty() {
            return Arc::clone(&self.unrouted);
        }
        self.routes.find_or_insert(name, || {
            let (families, codes) = (Arc::clone(&self.families), Arc::clone(&self.codes));
            RouteMetrics::new(name, families, codes, self.workers, &self.bounds)
        })
    }

    /// Everything in Prometheus' text format 0.0.4.
    #[expect(clippy::missing_panics_doc, reason = "only a family without a name or without series cannot be encoded")]
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("the registry leaves out families without series");
        text
    }

    /// A client's connection was accepted; it is active while the answer lives.
    pub fn connection_accepted(&self) -> ActiveConnection {
        self.families.connections_accepted.with_label_values(NO_LABELS).inc();
        self.connections_active.inc();
        ActiveConnection(self.connections_active.clone())
    }

    /// An accepted connection came to no request.
    pub fn connection_rejected(&self, reason: RejectReason) {
        self.families.connections_rejected.with_label_values(&[reason.as_str()]).inc();
    }

    /// A client's TLS handshake failed: a close with code 1015, before any route is known.
    pub fn tls_handshake_failed_client(&self) {
        self.unrouted.tls_handshake_failed(Party::Client);
    }

    /// A counter of lost log lines, for the thread that writes them.
    pub fn log_drops(&self) -> LogDrops {
        LogDrops(self.families.log_records_dropped.with_label_values(NO_LABELS))
    }

    /// The configuration was reloaded at this time.
    pub fn reload_succeeded(&self, at: SystemTime) {
        let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = &self.families.config_last_reload_success_timestamp;
        timestamp.with_label_values(NO_LABELS).set(since_epoch.as_secs_f64());
        self.families.config_last_reload_successful.with_label_values(NO_LABELS).set(1);
    }

    /// A reload failed, and the configuration before it stays.
    pub fn reload_failed(&self) {
        self.families.config_last_reload_successful.with_label_values(NO_LABELS).set(0);
    }

    /// Makes the series that belong to no route.
    fn make_series(&self, registered_codes: &[(u16, &str)]) {
        self.families.connections_accepted.with_label_values(NO_LABELS);
        self.families.log_records_dropped.with_label_values(NO_LABELS);
        for reason in RejectReason::ALL {
            self.families.connections_rejected.with_label_values(&[reason.as_str()]);
        }
        for (code, name) in registered_codes {
            self.families.close_code_info.with_label_values(&[code.to_string().as_str(), name]).set(1);
        }
        let build = [env!("CARGO_PKG_VERSION"), env!("CLOSEWATCH_REVISION"), env!("CLOSEWATCH_RUSTC")];
        self.families.build_info.with_label_values(&build).set(1);
    }
}

/// The label values of a family that has no labels.
const NO_LABELS: &[&str] = &[];

/// An accepted client connection: counted in `closewatch_connections_active` until it is dropped.
#[must_use = "the connection is over when this is dropped"]
#[derive(Debug)]
pub struct ActiveConnection(IntGauge);

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts log lines that could not be written, from any thread.
#[derive(Debug, Clone)]
pub struct LogDrops(IntCounter);

impl LogDrops {
    /// A line was dropped.
    pub fn record_dropped(&self) {
        self.0.inc();
    }
}

/// The configured routes by name. They stay when a reload removes them: counters do not vanish.
#[derive(Debug, Default)]
struct Routes(Mutex<BTreeMap<String, Arc<RouteMetrics>>>);

impl Routes {
    fn find_or_insert(&self, name: &str, make: impl FnOnce() -> RouteMetrics) -> Arc<RouteMetrics> {
        let mut routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let route = routes.entry(name.to_owned()).or_insert_with(|| Arc::new(make()));
        Arc::clone(route)
    }

    fn all(&self) -> Vec<Arc<RouteMetrics>> {
        let routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        routes.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::websocket::Endpoint;
    use crate::websocket::closing_handshake::{Action, Cause};

    /// Every value that a label of a family can have, `route` aside.
    fn values(family: &str, label: &str) -> Vec<String> {
        let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        let words = ["invalid", "reserved", "3xxx", "4xxx"].map(str::to_owned);
        match label {
            "status" => (100..=599).map(|status: u16| status.to_string()).chain(["other".to_owned()]).collect(),
            "code" => (1000..=4999).map(|code: u16| code.to_string()).chain(words).collect(),
            "client" | "server" => (1000..=1015).map(|code: u16| code.to_string()).chain(words).collect(),
            "clean" => owned(&["true", "false"]),
            "initiator" | "endpoint" => owned(&Party::ALL.map(Party::as_str)),
            "from" => owned(&Endpoint::BOTH.map(Endpoint::as_str)),
            "outcome" => owned(&HandshakeOutcome::ALL.map(HandshakeOutcome::as_str)),
            "action" => owned(&Action::ALL.map(Action::as_str)),
            "cause" if family.contains("handshake") => owned(&HandshakeFailure::ALL.map(HandshakeFailure::as_str)),
            "cause" => {
                let of_proxy = Action::ALL.map(|action| Cause::Proxy(action).as_str());
                owned(&[&Cause::OF_ENDPOINTS.map(Cause::as_str)[..], &of_proxy].concat())
            }
            _ => panic!("{family} has a label {label} that nobody has proved harmless"),
        }
    }

    fn written_together(family: &str, labels: &[&str]) -> Vec<String> {
        labels.iter().fold(vec![String::new()], |texts, label| {
            let values = values(family, label);
            texts.iter().flat_map(|text| values.iter().map(move |value| format!("{text}{value}"))).collect()
        })
    }

    #[test]
    fn what_follows_the_route_is_never_the_end_of_something_else_that_may_follow_it() {
        let mut families = 0;
        for (family, labels) in Families::LABELS {
            let Some(("route", labels)) = labels.split_first().map(|(first, rest)| (*first, rest)) else { continue };
            families += 1;
            let texts = written_together(family, labels);
            let distinct: HashSet<_> = texts.iter().map(String::as_str).collect();
            assert_eq!(distinct.len(), texts.len(), "{family}");
            for text in &texts {
                let end = (1..text.len()).map(|at| &text[at..]).find(|end| distinct.contains(end));
                assert_eq!(end, None, "{family}: the end of {text}");
            }
        }
        assert_eq!(families, 16);
    }

    /// So that `rate()` sees the first increase.
    #[test]
    fn every_family_has_series_from_the_start() {
        let metrics = Metrics::new(Options { workers: 1, ..Options::default() });
        metrics.route("default");
        let text = String::from_utf8(metrics.render()).unwrap();
        for (family, _) in Families::LABELS.iter().filter(|(family, _)| *family != "websocket_close_code_info") {
            assert!(text.contains(&format!("# TYPE {family} ")), "{family}");
        }
    }

    #[test]
    fn what_was_built_is_told() {
        assert!(env!("CLOSEWATCH_RUSTC").starts_with("rustc "), "{}", env!("CLOSEWATCH_RUSTC"));
        assert!(!env!("CLOSEWATCH_REVISION").is_empty());
    }
}
