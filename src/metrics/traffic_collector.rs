//! The families of the relay threads' traffic. Each scrape sums the cells of all workers.

use std::iter;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Metric, MetricFamily, MetricType};
use strum::VariantArray;

use super::Routes;
use super::buckets::BucketBounds;
use super::exposition;
use super::route::RouteMetrics;
use super::traffic::{Cell, EndpointTraffic, HistogramCells, NANOSECONDS_PER_SECOND};
use crate::websocket::Endpoint;
use crate::websocket::conformance::Violation;
use crate::websocket::frame::{MessageType, Opcode};

struct TrafficFamily {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    /// The label of the endpoint and at most one more, besides `route`.
    labels: &'static [&'static str],
    /// Reads the series of one route and endpoint.
    read: fn(&Cells<'_>) -> Vec<Metric>,
}

static FAMILIES: [TrafficFamily; 8] = [
    TrafficFamily {
        name: "websocket_frames_total",
        help: "Frames, counted when their header is complete.",
        kind: MetricType::COUNTER,
        labels: &["from", "opcode"],
        read: |cells| {
            Opcode::VARIANTS
                .iter()
                .map(|opcode| cells.total(Some(opcode.as_str()), |traffic| &traffic.frames[*opcode as usize]))
                .collect()
        },
    },
    TrafficFamily {
        name: "websocket_messages_total",
        help: "Messages, counted when the header of their last frame is complete.",
        kind: MetricType::COUNTER,
        labels: &["from", "type"],
        read: |cells| {
            MessageType::VARIANTS
                .iter()
                .map(|kind| cells.total(Some(kind.as_str()), |traffic| &traffic.messages[*kind as usize]))
                .collect()
        },
    },
    TrafficFamily {
        name: "websocket_message_size_bytes",
        help: "Payload bytes of a message on the wire, compressed if the endpoints compress.",
        kind: MetricType::HISTOGRAM,
        labels: &["from"],
        read: |cells| vec![cells.histogram(&cells.buckets.message_size, 1.0, |traffic| &traffic.message_size)],
    },
    TrafficFamily {
        name: "websocket_bytes_total",
        help: "Bytes after the opening handshake, frame headers included.",
        kind: MetricType::COUNTER,
        labels: &["from"],
        read: |cells| vec![cells.total(None, |traffic| &traffic.bytes)],
    },
    TrafficFamily {
        name: "websocket_buffered_bytes",
        help: "Bytes from an endpoint that wait for a slow reader now.",
        kind: MetricType::GAUGE,
        labels: &["from"],
        read: |cells| vec![cells.level(|traffic| &traffic.buffered)],
    },
    TrafficFamily {
        name: "websocket_write_blocked_seconds_total",
        help: "Time for which bytes from an endpoint waited for a slow reader.",
        kind: MetricType::COUNTER,
        labels: &["from"],
        read: |cells| vec![cells.seconds(|traffic| &traffic.write_blocked)],
    },
    TrafficFamily {
        name: "websocket_ping_rtt_seconds",
        help: "Time from a Ping relayed to an endpoint to its matching Pong.",
        kind: MetricType::HISTOGRAM,
        labels: &["endpoint"],
        read: |cells| {
            vec![cells.histogram(&cells.buckets.ping_rtt, NANOSECONDS_PER_SECOND, |traffic| &traffic.ping_rtt)]
        },
    },
    TrafficFamily {
        name: "websocket_protocol_violations_total",
        help: "Sessions in which an endpoint violated RFC 6455; closewatch passed the violation on.",
        kind: MetricType::COUNTER,
        labels: &["from", "kind"],
        read: |cells| {
            Violation::VARIANTS
                .iter()
                .map(|kind| cells.total(Some(kind.as_str()), |traffic| &traffic.violations[*kind as usize]))
                .collect()
        },
    },
];

/// Collects the families above over all routes.
pub(super) struct TrafficCollector {
    routes: Arc<Routes>,
    buckets: Arc<BucketBounds>,
    /// One for each of [`FAMILIES`], in the same order.
    descriptions: Vec<Desc>,
}

impl TrafficCollector {
    pub(super) fn new(routes: Arc<Routes>, buckets: Arc<BucketBounds>) -> Self {
        let describe = |family: &TrafficFamily| {
            let labels: Vec<_> = family.labels.iter().chain(&["route"]).copied().collect();
            exposition::describe(family.name, family.help, &labels)
        };
        Self { routes, buckets, descriptions: FAMILIES.iter().map(describe).collect() }
    }

    fn series(&self, family: &'static TrafficFamily, route: &RouteMetrics) -> Vec<Metric> {
        let of_endpoint = |endpoint| (family.read)(&Cells { family, route, endpoint, buckets: &self.buckets });
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

/// The cells of one family, route and endpoint.
struct Cells<'a> {
    family: &'static TrafficFamily,
    route: &'a RouteMetrics,
    endpoint: Endpoint,
    buckets: &'a BucketBounds,
}

impl Cells<'_> {
    /// The series of a counter, with the value of the second label if the family has one.
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

    /// The series of a histogram. `units` cells make one of the exposed unit.
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
