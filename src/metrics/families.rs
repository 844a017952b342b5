//! The families that are counted per session, request or connection, not per frame.

use prometheus::core::Collector;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Registry};

use super::buckets::Buckets;

/// Makes a struct with a field for each family and a constructor that registers them all. A field's doc comment is the
/// family's HELP text, so that what is written here is what is exposed.
macro_rules! families {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ident = $name:literal [$($label:ident),*] $(in $buckets:ident)?;)+) => {
        #[derive(Debug)]
        pub(super) struct Families {
            $($(#[doc = $help])+ pub(super) $field: $kind,)+
        }

        impl Families {
            pub(super) fn register(registry: &Registry, buckets: &Buckets) -> Self {
                Self {
                    $($field: {
                        let options = HistogramOpts::new($name, concat!($($help),+).trim());
                        $(let options = options.buckets(buckets.$buckets.clone());)?
                        register::<$kind>(registry, options, &[$(stringify!($label)),*])
                    },)+
                }
            }

            /// The families' labels, for the proof that no two series can be taken for one.
            #[cfg(test)]
            pub(super) const LABELS: &[(&str, &[&str])] = &[$(($name, &[$(stringify!($label)),*])),+];
        }
    };
}

families! {
    /// Upgrade requests answered, by the status sent to the client.
    handshakes: IntCounterVec = "websocket_handshakes_total" [route, status];
    /// Upgrade requests that did not become a session.
    handshake_failures: IntCounterVec = "websocket_handshake_failures_total" [route, cause];
    /// Time from an upgrade request's head received to its response's head sent.
    handshake_duration: HistogramVec = "websocket_handshake_duration_seconds" [route, outcome] in handshake_duration;
    /// Upgrade requests that are not answered yet.
    handshakes_in_progress: IntGaugeVec = "websocket_handshakes_in_progress" [route];
    /// Time to connect to the server for an upgrade, with TLS where there is TLS.
    upstream_connect_duration: HistogramVec =
        "websocket_upstream_connect_duration_seconds" [route] in upstream_connect_duration;
    /// Open sessions.
    sessions_active: IntGaugeVec = "websocket_sessions_active" [route];
    /// Sessions ended, by the code that came first and who it came from; as code 1015, TLS handshakes that failed.
    closes: IntCounterVec = "websocket_closes_total" [route, code, initiator, clean];
    /// What each endpoint's own close event reports; two for each session.
    close_events: IntCounterVec = "websocket_close_events_total" [route, endpoint, code, clean];
    /// Sessions ended, by the two codes that their endpoints saw.
    close_views: IntCounterVec = "websocket_close_views_total" [route, client, server];
    /// The first Close frame of an endpoint in a session.
    close_frames: IntCounterVec = "websocket_close_frames_total" [route, from, code];
    /// Sessions that were not clean, by who is at fault and how.
    abnormal_closes: IntCounterVec = "websocket_abnormal_closes_total" [route, endpoint, cause];
    /// Sessions that closewatch itself acted on, counted at their end.
    proxy_actions: IntCounterVec = "websocket_proxy_actions_total" [route, action];
    /// Time from a session's 101 to its end.
    session_duration: HistogramVec = "websocket_session_duration_seconds" [route, code] in session_duration;
    /// Time from the last byte relayed, Close frames aside, to the first Close frame or the death of a leg.
    idle_before_close: HistogramVec = "websocket_idle_before_close_seconds" [route, code] in idle_before_close;
    /// Time from a session's first Close frame to the answering one.
    close_handshake_duration: HistogramVec =
        "websocket_close_handshake_duration_seconds" [route, initiator] in close_handshake_duration;
    /// The name of each registered Close code, for joins.
    close_code_info: IntGaugeVec = "websocket_close_code_info" [code, name];
    /// Plain HTTP requests passed through, by the status sent to the client.
    http_requests: IntCounterVec = "closewatch_http_requests_total" [route, status];
    /// Accepted client connections that are open.
    connections_active: IntGaugeVec = "closewatch_connections_active" [];
    /// Client connections accepted.
    connections_accepted: IntCounterVec = "closewatch_connections_accepted_total" [];
    /// Client connections that were closed by a limit or failed before a request.
    connections_rejected: IntCounterVec = "closewatch_connections_rejected_total" [reason];
    /// Log lines that could not be written.
    log_records_dropped: IntCounterVec = "closewatch_log_records_dropped_total" [];
    /// What this program was built from.
    build_info: IntGaugeVec = "closewatch_build_info" [version, revision, rustc];
    /// Whether the last attempt to load the configuration succeeded.
    config_last_reload_successful: IntGaugeVec = "closewatch_config_last_reload_successful" [];
    /// When the configuration was last loaded successfully.
    config_last_reload_success_timestamp: GaugeVec = "closewatch_config_last_reload_success_timestamp_seconds" [];
}

/// A kind of family. Options for a histogram serve the others too: theirs are a part of them.
trait Family: Collector + Clone + Sized + 'static {
    fn new(options: HistogramOpts, labels: &[&str]) -> prometheus::Result<Self>;
}

impl Family for IntCounterVec {
    fn new(options: HistogramOpts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(options.common_opts, labels)
    }
}

impl Family for IntGaugeVec {
    fn new(options: HistogramOpts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(options.common_opts, labels)
    }
}

impl Family for GaugeVec {
    fn new(options: HistogramOpts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(options.common_opts, labels)
    }
}

impl Family for HistogramVec {
    fn new(options: HistogramOpts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(options, labels)
    }
}

fn register<F: Family>(registry: &Registry, options: HistogramOpts, labels: &[&str]) -> F {
    let family = F::new(options, labels).expect("names, labels and HELP texts are the constants above");
    registry.register(Box::new(family.clone())).expect("each name stands above once");
    family
}
