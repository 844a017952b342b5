//! Every family of `/metrics`, in three kinds:
//!
//! - [`Traffic`] counts frames, in cells of one worker thread each. A scrape sums them.
//! - [`RouteMetrics`] counts sessions and requests of one route, and looks series up by their labels.
//! - [`Metrics`] counts everything without a route.
//!
//! # No two series are confused
//!
//! The `prometheus` crate finds a series by a hash of its label values, written one behind the other without a separator:
//! `("ab", "c")` and `("a", "bc")` are the same series. An endpoint cannot use this to hide a series or to add series
//! without bound, because:
//!
//! - `route` is the only label with free values. It comes first, and its values come from the configuration.
//! - All other values come from closed sets. In no family, one sequence of values behind `route` is the end of another
//!   sequence, so the joined text determines every value. A test tries all pairs.
//! - Endpoints choose only codes and HTTP statuses, which `close_code_label` and `labels` reduce to bounded sets.
//!
//! Two texts may still have the same 64-bit hash by chance. Endpoints choose among a few thousand texts, and cannot shape
//! them.

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
use strum::VariantArray;

pub use self::labels::{HandshakeFailure, HandshakeOutcome, RejectReason};
pub use self::route::{HandshakeInProgress, RouteMetrics};
pub use self::traffic::{EndpointTraffic, Traffic};

use self::buckets::BucketBounds;
use self::close_code_label::CloseCodeLabels;
use self::families::Families;
use self::process::ProcessCollector;
use self::traffic::TrafficBounds;
use self::traffic_collector::TrafficCollector;
use crate::config;
use crate::websocket::closing_handshake::Party;

/// Settings that do not change during the life of the process.
#[derive(Debug, Clone, Default)]
pub struct MetricsOptions {
    /// Private codes (3000 to 4999) that always have series of their own (`metrics.codes`).
    pub codes: Vec<u16>,
    /// The number of other codes from 3000 on that get series of their own (`metrics.max_custom_codes`).
    pub max_custom_codes: usize,
    /// Bounds of the histograms (`metrics.buckets`).
    pub buckets: config::Buckets,
    /// The number of relay threads. Each has its own cells.
    pub workers: usize,
    /// All registered codes with their names, for `websocket_close_code_info`.
    pub registered_codes: Vec<(u16, &'static str)>,
}

/// All metrics of the process. It is passed in, and is never a static.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Arc<Families>,
    codes: Arc<CloseCodeLabels>,
    routes: Arc<Routes>,
    unrouted: Arc<RouteMetrics>,
    connections_active: IntGauge,
    bounds: TrafficBounds,
    workers: usize,
}

impl Metrics {
    /// The Content-Type of [`Self::render`]. Prometheus 3 refuses a scrape without it.
    pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// Makes all families, and records a successful load of the configuration.
    ///
    /// # Panics
    ///
    /// Panics if the bounds of a histogram are empty, do not ascend from 0, or are not finite.
    pub fn new(options: MetricsOptions) -> Self {
        let registry = Registry::new();
        let buckets = Arc::new(BucketBounds::from(&options.buckets));
        let families = Arc::new(Families::register(&registry, &buckets));
        let codes = Arc::new(CloseCodeLabels::new(options.codes, options.max_custom_codes));
        let routes = Arc::new(Routes::default());
        let traffic = TrafficCollector::new(Arc::clone(&routes), Arc::clone(&buckets));
        registry.register(Box::new(traffic)).expect("no other collector has these families");
        registry.register(Box::new(ProcessCollector::new())).expect("no other collector has these families");
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

    /// The series of a route; a new route gets its known series at 0. `""` is for requests without a route. Names come from
    /// the configuration, never from a request.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        if name.is_empty() {
            return Arc::clone(&self.unrouted);
        }
        self.routes.find_or_insert(name, || {
            let (families, codes) = (Arc::clone(&self.families), Arc::clone(&self.codes));
            RouteMetrics::new(name, families, codes, self.workers, &self.bounds)
        })
    }

    /// All families in the Prometheus text format 0.0.4.
    #[expect(clippy::missing_panics_doc, reason = "every family has a name and at least one series")]
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("the registry omits families without series");
        text
    }

    /// A client connection was accepted. It is active until the returned value is dropped.
    pub fn connection_accepted(&self) -> ActiveConnection {
        self.families.connections_accepted.with_label_values(NO_LABELS).inc();
        self.connections_active.inc();
        ActiveConnection(self.connections_active.clone())
    }

    /// An accepted connection ended without a request.
    pub fn connection_rejected(&self, reason: RejectReason) {
        self.families.connections_rejected.with_label_values(&[reason.as_str()]).inc();
    }

    /// The TLS handshake of a client failed. This is a close with code 1015, before the route is known.
    pub fn tls_handshake_failed_client(&self) {
        self.unrouted.tls_handshake_failed(Party::Client);
    }

    /// The counter of dropped log lines, for the log.
    pub fn log_drops(&self) -> LogDrops {
        LogDrops(self.families.log_records_dropped.with_label_values(NO_LABELS))
    }

    /// The configuration was loaded at this time.
    pub fn reload_succeeded(&self, at: SystemTime) {
        let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = &self.families.config_last_reload_success_timestamp;
        timestamp.with_label_values(NO_LABELS).set(since_epoch.as_secs_f64());
        self.families.config_last_reload_successful.with_label_values(NO_LABELS).set(1);
    }

    /// A reload failed; the previous configuration stays.
    pub fn reload_failed(&self) {
        self.families.config_last_reload_successful.with_label_values(NO_LABELS).set(0);
    }

    /// Makes the known series of families without a route.
    fn make_series(&self, registered_codes: &[(u16, &str)]) {
        self.families.connections_accepted.with_label_values(NO_LABELS);
        self.families.log_records_dropped.with_label_values(NO_LABELS);
        for reason in RejectReason::VARIANTS {
            self.families.connections_rejected.with_label_values(&[reason.as_str()]);
        }
        for (code, name) in registered_codes {
            self.families.close_code_info.with_label_values(&[code.to_string().as_str(), name]).set(1);
        }
        let build = [env!("CARGO_PKG_VERSION"), env!("CLOSEWATCH_REVISION"), env!("CLOSEWATCH_RUSTC")];
        self.families.build_info.with_label_values(&build).set(1);
    }
}

/// The label values of a family without labels.
const NO_LABELS: &[&str] = &[];

/// An accepted client connection, counted in `closewatch_connections_active` until it is dropped.
#[must_use = "the connection is over when this is dropped"]
#[derive(Debug)]
pub struct ActiveConnection(IntGauge);

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts dropped log lines, from any thread.
#[derive(Debug, Clone)]
pub struct LogDrops(IntCounter);

impl LogDrops {
    /// A log line was dropped.
    pub fn record_dropped(&self) {
        self.0.inc();
    }
}

/// The configured routes by name. A reload that removes a route keeps its series, because counters must not vanish.
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
    use crate::websocket::closing_handshake::{Action, LegFault};

    /// All values of a label, except of `route`.
    fn values(family: &str, label: &str) -> Vec<String> {
        let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        let words = ["invalid", "reserved", "3xxx", "4xxx"].map(str::to_owned);
        match label {
            "status" => (100..=599).map(|status: u16| status.to_string()).chain(["other".to_owned()]).collect(),
            "code" => (1000..=4999).map(|code: u16| code.to_string()).chain(words).collect(),
            "client" | "server" => (1000..=1015).map(|code: u16| code.to_string()).chain(words).collect(),
            "clean" => owned(&["true", "false"]),
            "initiator" | "endpoint" => Party::VARIANTS.iter().map(|party| party.as_str().to_owned()).collect(),
            "from" => owned(&Endpoint::BOTH.map(Endpoint::as_str)),
            "outcome" => HandshakeOutcome::VARIANTS.iter().map(|outcome| outcome.as_str().to_owned()).collect(),
            "action" => Action::VARIANTS.iter().map(|action| action.as_str().to_owned()).collect(),
            "cause" if family.contains("handshake") => {
                HandshakeFailure::VARIANTS.iter().map(|cause| cause.as_str().to_owned()).collect()
            }
            "cause" => {
                let of_endpoints = LegFault::VARIANTS.iter().map(|fault| fault.as_str());
                let of_proxy = Action::VARIANTS.iter().map(|action| action.as_str());
                of_endpoints.chain(of_proxy).map(str::to_owned).collect()
            }
            _ => panic!("{family} has an unknown label {label}"),
        }
    }

    fn joined_values(family: &str, labels: &[&str]) -> Vec<String> {
        labels.iter().fold(vec![String::new()], |texts, label| {
            let values = values(family, label);
            texts.iter().flat_map(|text| values.iter().map(move |value| format!("{text}{value}"))).collect()
        })
    }

    #[test]
    fn joined_label_values_determine_the_route() {
        let mut families = 0;
        for (family, labels) in Families::LABELS {
            let Some(("route", labels)) = labels.split_first().map(|(first, rest)| (*first, rest)) else { continue };
            families += 1;
            let texts = joined_values(family, labels);
            let distinct: HashSet<_> = texts.iter().map(String::as_str).collect();
            assert_eq!(distinct.len(), texts.len(), "{family}");
            for text in &texts {
                let end = (1..text.len()).map(|at| &text[at..]).find(|end| distinct.contains(end));
                assert_eq!(end, None, "{family}: the end of {text}");
            }
        }
        assert_eq!(families, 16);
    }

    /// `rate()` sees the first increase only if the series exists before.
    #[test]
    fn every_family_has_series_at_start() {
        let metrics = Metrics::new(MetricsOptions { workers: 1, ..MetricsOptions::default() });
        metrics.route("default");
        let text = String::from_utf8(metrics.render()).unwrap();
        for (family, _) in Families::LABELS.iter().filter(|(family, _)| *family != "websocket_close_code_info") {
            assert!(text.contains(&format!("# TYPE {family} ")), "{family}");
        }
    }

    #[test]
    fn build_info_names_compiler_and_revision() {
        assert!(env!("CLOSEWATCH_RUSTC").starts_with("rustc "), "{}", env!("CLOSEWATCH_RUSTC"));
        assert!(!env!("CLOSEWATCH_REVISION").is_empty());
    }
}
