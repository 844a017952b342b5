//! The text format of Prometheus.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape: the samples by their series, `name{label="value",...}`.
#[derive(Debug)]
pub(crate) struct Scrape {
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// Parses a scrape. Each series has one sample.
    pub(crate) fn new(text: &str) -> Self {
        let mut samples = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let earlier = samples.insert(series.to_owned(), value.parse().unwrap());
            assert!(earlier.is_none(), "{series} has two samples");
        }
        Self { samples }
    }

    /// The value of a series, if it exists. The series is written as in the text format.
    pub(crate) fn get(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// The value of a series that exists.
    pub(crate) fn value(&self, series: &str) -> f64 {
        self.get(series).unwrap_or_else(|| panic!("no {series}"))
    }

    /// The sum of the samples of a metric that have all these labels.
    pub(crate) fn sum(&self, metric: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(metric, labels).map(|(_, value)| value).sum()
    }

    /// The series of a metric whose value is not 0.
    pub(crate) fn nonzero(&self, metric: &str) -> Vec<&str> {
        self.matching(metric, &[]).filter(|(_, value)| *value != 0.0).map(|(series, _)| series).collect()
    }

    /// The distinct values of a label of a metric.
    pub(crate) fn values(&self, metric: &str, label: &str) -> BTreeSet<&str> {
        self.matching(metric, &[]).map(|(series, _)| label_value(series, label)).collect()
    }

    /// The bounds of a histogram and the cumulative counts, in rising order.
    pub(crate) fn buckets(&self, metric: &str, labels: &[(&str, &str)]) -> Vec<(&str, f64)> {
        let metric = format!("{metric}_bucket");
        let mut buckets: Vec<_> =
            self.matching(&metric, labels).map(|(series, count)| (label_value(series, "le"), count)).collect();
        let bound = |label: &str| label.parse::<f64>().unwrap();
        buckets.sort_by(|(one, _), (other, _)| bound(one).total_cmp(&bound(other)));
        buckets
    }

    /// Asserts the sums that hold at rest.
    pub(crate) fn assert_sums(&self) {
        let closes = self.sum("websocket_closes_total", &[]);
        let opened = self.sum("websocket_handshakes_total", &[("status", "101")]);
        let active = self.sum("websocket_sessions_active", &[]);
        let unclean = self.sum("websocket_closes_total", &[("clean", "false")]);
        let sums = [
            ("closes", closes, opened - active),
            ("close events", self.sum("websocket_close_events_total", &[]), 2.0 * closes),
            ("close views", self.sum("websocket_close_views_total", &[]), closes),
            ("abnormal closes", self.sum("websocket_abnormal_closes_total", &[]), unclean),
        ];
        for (name, found, expected) in sums {
            assert_eq!(found, expected, "{name}");
        }
    }

    fn matching(&self, metric: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = (&str, f64)> {
        let wanted: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();

        self.samples.iter().filter_map(move |(series, value)| {
            let labels = series.strip_prefix(metric)?;
            let is_metric = labels.is_empty() || labels.starts_with('{');
            (is_metric && wanted.iter().all(|label| has_label(labels, label))).then_some((series.as_str(), *value))
        })
    }
}

/// Whether `{label="value",...}` has this `label="value"`. No value of the tests that use this has a comma.
fn has_label(labels: &str, wanted: &str) -> bool {
    labels.trim_matches(['{', '}']).split(',').any(|label| label == wanted)
}

fn label_value<'a>(series: &'a str, label: &str) -> &'a str {
    let (_, behind) = series.split_once(&format!("{label}=\"")).unwrap();
    behind.split('"').next().unwrap()
}
