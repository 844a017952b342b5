//! The families of what the data plane counts: each scrape sums the workers' cells.

use std::iter;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::Routes;
use super::buckets::Buckets;
use super::exposition;
use super::route::RouteMetrics;
use super::traffic::{Cell, EndpointTraffic, HistogramCells, NANOSECONDS_PER_SECOND};
use crate::websocket::Endpoint;
use crate::websocket::conformance::Violation;
use crate::websocket::frame::{MessageType, Opcode};

/// A family: how it is told, and how the series of one route and endpoint are read from the cells.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    /// Besides `route`: the endpoint's, and at most one more.
    labels: &'static [&'static str],
    read: fn(&Source<'_>) -> Vec<Metric>,
}

static FAMILIES: [Family; 8] = [
    Family {
        name: "websocket_frames_total",
        help: "Frames, counted when their header is complete.",
        kind: MetricType::COUNTER,
        labels: &["from", "opcode"],
        read: |source| {
            Opcode::ALL.map(|opcode| source.total(Some(opcode.as_str()), |cells| &cells.frames[opcode as usize])).into()
        },
    },
    Family {
        name: "websocket_messages_total",
        help: "Messages, counted when their last frame's header is complete.",
        kind: MetricType::COUNTER,
        labels: &["from", "type"],
        read: |source| {
            MessageType::ALL
                .map(|kind| source.total(Some(kind.as_str()), |cells| &cells.messages[kind as usize]))
                .into()
        },
    },
    Family {
        name: "websocket_message_size_bytes",
        help: "Payload bytes of a message on the wire, compressed where the endpoints compress.",
        kind: MetricType::HISTOGRAM,
        labels: &["from"],
        read: |source| vec![source.histogram(&source.buckets.message_size, 1.0, |cells| &cells.message_size)],
    },
    Family {
        name: "websocket_bytes_total",
        help: "Bytes after the opening handshake, frame headers included.",
        kind: MetricType::COUNTER,
        labels: &["from"],
        read: |source| vec![source.total(None, |cells| &cells.bytes)],
    },
    Family {
        name: "websocket_buffered_bytes",
        help: "Bytes from an endpoint that are held for a slow reader now.",
        kind: MetricType::GAUGE,
        labels: &["from"],
        read: |source| vec![source.level(|cells| &cells.buffered)],
    },
    Family {
        name: "websocket_write_blocked_seconds_total",
        help: "Time in which an endpoint's bytes waited for a slow reader.",
        kind: MetricType::COUNTER,
        labels: &["from"],
        read: |source| vec![source.seconds(|cells| &cells.write_blocked)],
    },
    Family {
        name: "websocket_ping_rtt_seconds",
        help: "Time from a Ping relayed to an endpoint to its matching Pong.",
        kind: MetricType::HISTOGRAM,
        labels: &["endpoint"],
        read: |source| {
            vec![source.histogram(&source.buckets.ping_rtt, NANOSECONDS_PER_SECOND, |cells| &cells.ping_rtt)]
        },
    },
    Family {
        name: "websocket_protocol_violations_total",
        help: "Sessions in which a breach of RFC 6455 was seen from an endpoint, and passed on.",
        kind: MetricType::COUNTER,
        labels: &["from", "kind"],
        read: |source| {
            Violation::ALL
                .map(|kind| source.total(Some(kind.as_str()), |cells| &cells.violations[kind as usize]))
                .into()
        },
    },
];

/// Collects the families above over all routes.
pub(super) struct TrafficCollector {
    routes: Arc<Routes>,
    buckets: Arc<Buckets>,
    /// Of [`FAMILIES`], in their order.
    descriptions: Vec<Desc>,
}

impl TrafficCollector {
    pub(super) fn new(routes: Arc<Routes>, buckets: Arc<Buckets>) -> Self {
        let describe = |family: &Family| {
            let labels: Vec<_> = family.labels.iter().chain(&["route"]).copied().collect();
            exposition::describe(family.name, family.help, &labels)
        };
        Self { routes, buckets, descriptions: FAMILIES.iter().map(describe).collect() }
    }

    fn series(&self, family: &'static Family, route: &RouteMetrics) -> Vec<Metric> {
        let of_endpoint = |endpoint| (family.read)(&Source { family, route, endpoint, buckets: &self.buckets });
        Endpoint::BOTH.into_iter().flat_map(of_endpoint).collect()
    }
}

impl Collector for TrafficCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let routes = self.routes.all();
        let families = FAMILIES.iter().zip(&self.descriptions);
        families
            .map(|(family, description)| {
                let series = routes.iter().flat_map(|route| self.series(family, route)).collect();
                exposition::family(description, family.kind, series)
            })
            .collect()
    }
}

/// Where a family's series of one route and endpoint are read.
struct Source<'a> {
    family: &'static Family,
    route: &'a RouteMetrics,
    endpoint: Endpoint,
    buckets: &'a Buckets,
}

impl Source<'_> {
    /// The series of a counter, with the value of the family's second label where it has one.
    fn total(&self, second: Option<&str>, cell: impl Fn(&EndpointTraffic) -> &Cell) -> Metric {
        self.sample(second, self.sum(cell) as f64)
    }

    /// The series of a counter of seconds.
    fn seconds(&self, nanoseconds: impl Fn(&EndpointTraffic) -> &Cell) -> Metric {
        self.sample(None, self.sum(nanoseconds) as f64 / NANOSECONDS_PER_SECOND)
    }

    /// The series of a gauge, whose cells are signed.
    fn level(&self, cell: impl Fn(&EndpointTraffic) -> &Cell) -> Metric {
        self.sample(None, self.sum(cell).cast_signed() as f64)
    }

    /// The series of a histogram, which counts `units` to one of the unit that is exposed.
    fn histogram(&self, bounds: &[f64], units: f64, cells: impl Fn(&EndpointTraffic) -> &HistogramCells) -> Metric {
        let counts = (0..=bounds.len()).map(|index| self.sum(|endpoint| cells(endpoint).bucket(index)));
        let sum = self.sum(|endpoint| cells(endpoint).sum()) as f64 / units;
        exposition::histogram(&self.labels(None), bounds, counts, sum)
    }

    fn sample(&self, second: Option<&str>, value: f64) -> Metric {
        exposition::sample(self.family.kind, &self.labels(second), value)
    }

    fn labels<'b>(&'b self, second: Option<&'b str>) -> Vec<(&'static str, &'b str)> {
        let values = iter::once(self.endpoint.as_str()).chain(second);
        let own = self.family.labels.iter().copied().zip(values);
        own.chain([("route", self.route.name())]).collect()
    }

    fn sum(&self, cell: impl Fn(&EndpointTraffic) -> &Cell) -> u64 {
        let values = self.route.workers().iter().map(|traffic| cell(&traffic[self.endpoint]).value());
        values.fold(0, u64::wrapping_add)
    }
}
