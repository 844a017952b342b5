//! The families that count sessions, requests and connections. Frames are counted in `traffic`.

use prometheus::core::Collector;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Registry};

use super::buckets::BucketBounds;

/// Makes a struct with a field for each family, and a constructor that registers them all. The doc comment of a field is
/// the HELP text of its family.
macro_rules! families {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ident = $name:literal [$($label:ident),*] $(in $buckets:ident)?;)+) => {
        #[derive(Debug)]
        pub(super) struct Families {
            $($(#[doc = $help])+ pub(super) $field: $kind,)+
        }

        impl Families {
            pub(super) fn register(registry: &Registry, buckets: &BucketBounds) -> Self {
                Self {
                    $($field: {
                        let options = HistogramOpts::new($name, concat!($($help),+).trim());
                        $(let options = options.buckets(buckets.$buckets.clone());)?
                        register::<$kind>(registry, options, &[$(stringify!($label)),*])
                    },)+
                }
            }

            /// The labels of each family, for the proof that no two series are confused.
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
    /// Time from the head of an upgrade request received to the head of its response sent.
    handshake_duration: HistogramVec = "websocket_handshake_duration_seconds" [route, outcome] in handshake_duration;
    /// Upgrade requests without an answer yet.
    handshakes_in_progress: IntGaugeVec = "websocket_handshakes_in_progress" [route];
    /// Time to connect to the server for an upgrade, including TLS if TLS is used.
    upstream_connect_duration: HistogramVec =
        "websocket_upstream_connect_duration_seconds" [route] in upstream_connect_duration;
    /// Open sessions.
    sessions_active: IntGaugeVec = "websocket_sessions_active" [route];
    /// Sessions that ended, by their code and initiator; code 1015 counts TLS handshakes that failed.
    closes: IntCounterVec = "websocket_closes_total" [route, code, initiator, clean];
    /// Close events as the endpoints saw them; two for each session.
    close_events: IntCounterVec = "websocket_close_events_total" [route, endpoint, code, clean];
    /// Sessions that ended, by the two codes that their endpoints saw.
    close_views: IntCounterVec = "websocket_close_views_total" [route, client, server];
    /// First Close frames of an endpoint in a session.
    close_frames: IntCounterVec = "websocket_close_frames_total" [route, from, code];
    /// Sessions that were not clean, by the endpoint at fault and the cause.
    abnormal_closes: IntCounterVec = "websocket_abnormal_closes_total" [route, endpoint, cause];
    /// Sessions on which closewatch itself acted, counted at their end.
    proxy_actions: IntCounterVec = "websocket_proxy_actions_total" [route, action];
    /// Time from a session's 101 to its end.
    session_duration: HistogramVec = "websocket_session_duration_seconds" [route, code] in session_duration;
    /// Time from the last relayed byte, Close frames excluded, to the first Close frame or the end of a leg.
    idle_before_close: HistogramVec = "websocket_idle_before_close_seconds" [route, code] in idle_before_close;
    /// Time from the first Close frame of a session to the Close frame that answers it.
    close_handshake_duration: HistogramVec =
        "websocket_close_handshake_duration_seconds" [route, initiator] in close_handshake_duration;
    /// The name of each registered Close code, for joins.
    close_code_info: IntGaugeVec = "websocket_close_code_info" [code, name];
    /// Plain HTTP requests that passed through, by the status sent to the client.
    http_requests: IntCounterVec = "closewatch_http_requests_total" [route, status];
    /// Accepted client connections that are open now.
    connections_active: IntGaugeVec = "closewatch_connections_active" [];
    /// Client connections accepted.
    connections_accepted: IntCounterVec = "closewatch_connections_accepted_total" [];
    /// Client connections that a limit closed, or that ended without a request.
    connections_rejected: IntCounterVec = "closewatch_connections_rejected_total" [reason];
    /// Log lines that were dropped because the log could not take them.
    log_records_dropped: IntCounterVec = "closewatch_log_records_dropped_total" [];
    /// Version, revision and compiler of this build.
    build_info: IntGaugeVec = "closewatch_build_info" [version, revision, rustc];
    /// 1 if the last attempt to load the configuration succeeded, else 0.
    config_last_reload_successful: IntGaugeVec = "closewatch_config_last_reload_successful" [];
    /// Time of the last successful load of the configuration, since the Unix epoch.
    config_last_reload_success_timestamp: GaugeVec = "closewatch_config_last_reload_success_timestamp_seconds" [];
}

/// A type of family. The options of a histogram contain those of the other types.
trait FamilyKind: Collector + Clone + Sized + 'static {
    fn new(options: HistogramOpts, labels: &[&str]) -> prometheus::Result<Self>;
}

impl FamilyKind for IntCounterVec {
    fn new(options: HistogramOpts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(options.common_opts, labels)
    }
}

impl FamilyKind for IntGaugeVec {
    fn new(options: HistogramOpts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(options.common_opts, labels)
    }
}

impl FamilyKind for GaugeVec {
    fn new(options: HistogramOpts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(options.common_opts, labels)
    }
}

impl FamilyKind for HistogramVec {
    fn new(options: HistogramOpts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(options, labels)
    }
}

fn register<F: FamilyKind>(registry: &Registry, options: HistogramOpts, labels: &[&str]) -> F {
    let family = F::new(options, labels).expect("names, labels and HELP texts are the constants above");
    registry.register(Box::new(family.clone())).expect("no name is used twice above");
    family
}
