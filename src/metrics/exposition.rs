//! Builds the `prometheus` crate's exposition types for the two collectors that closewatch implements itself.

use std::collections::HashMap;

use prometheus::core::Desc;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// The description of a family, for the registry.
pub(super) fn describe(name: &str, help: &str, labels: &[&str]) -> Desc {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())
        .expect("names, labels and help are constants that the exposition test renders")
}

/// A family with its series.
pub(super) fn family(desc: &Desc, kind: MetricType, series: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(series);
    family
}

/// A series of a counter or a gauge.
pub(super) fn sample(kind: MetricType, labels: &[(&str, &str)], value: f64) -> Metric {
    let mut metric = labelled(labels);
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

/// A series of a histogram. `counts` has one item for each bound and one for larger values; they are not cumulative.
pub(super) fn histogram(
    labels: &[(&str, &str)],
    bounds: &[f64],
    counts: impl Iterator<Item = u64>,
    sum: f64,
) -> Metric {
    let mut cumulative = counts.scan(0, |total: &mut u64, count| {
        *total += count;
        Some(*total)
    });
    let buckets = bounds.iter().zip(cumulative.by_ref()).map(|(bound, count)| bucket(*bound, count)).collect();
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(cumulative.next().expect("the last count is that of larger values"));
    histogram.set_sample_sum(sum);
    let mut metric = labelled(labels);
    metric.set_histogram(histogram);
    metric
}

fn bucket(bound: f64, cumulative_count: u64) -> Bucket {
    let mut bucket = Bucket::default();
    bucket.set_upper_bound(bound);
    bucket.set_cumulative_count(cumulative_count);
    bucket
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let mut metric = Metric::default();
    let mut pairs: Vec<_> = labels.iter().map(|(name, value)| label(name, value)).collect();
    // The crate sorts the labels of its own families, too.
    pairs.sort_by(|one, other| one.name().cmp(other.name()));
    metric.set_label(pairs);
    metric
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}
