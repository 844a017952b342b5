//! Round-trip times in buckets less than 1 % wide.

use std::time::Duration;

/// Buckets between one power of two and the next.
const STEPS: u64 = 256;

/// The count of each round-trip time.
pub(crate) struct Latencies {
    buckets: Vec<u64>,
    count: u64,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; bucket(u64::MAX) + 1], count: 0 }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanoseconds)] += 1;
        self.count += 1;
    }

    /// The time in microseconds within which `share` of all round trips were; 0 without any.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut left = share * self.count as f64;
        let reached = self.buckets.iter().position(|&count| {
            left -= count as f64;
            left <= 0.0
        });
        reached.map_or(0.0, |index| lower_bound(index) as f64 / 1000.0)
    }
}

/// Below `STEPS` every value has its own bucket; above, the leading bits select it.
fn bucket(nanoseconds: u64) -> usize {
    let shift = (nanoseconds / STEPS).checked_ilog2().map_or(0, |doublings| doublings + 1);
    let index = u64::from(shift) * STEPS / 2 + (nanoseconds >> shift);
    usize::try_from(index).expect("there are a few thousand buckets")
}

fn lower_bound(index: usize) -> u64 {
    let half = STEPS / 2;
    let index = index as u64;
    let shift = (index / half).saturating_sub(1);
    (index - shift * half) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_begins_less_than_one_percent_below_what_fell_into_it() {
        for value in [0, 1, 255, 256, 257, 511, 512, 1000, 65_535, 1_234_567, u64::MAX / 2] {
            let found = lower_bound(bucket(value));
            assert!(found <= value && value - found <= value / 128, "{value} fell into the bucket of {found}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_times_recorded() {
        let mut latencies = Latencies::new();
        (1..=100).for_each(|nanoseconds| latencies.record(Duration::from_nanos(nanoseconds)));
        assert_eq!((latencies.quantile(0.5), latencies.quantile(0.99)), (0.050, 0.099));
    }
}
