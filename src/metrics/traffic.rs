//! Counts frames, messages and bytes, in cells that one worker writes and a scrape reads.
//!
//! Each worker has its own [`Traffic`] for each route, on cache lines of its own. A count is a load, an add and a store,
//! without a lock prefix, and no cache line travels between cores. A scrape sums the cells of all workers.

use std::array;
use std::ops::Index;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use strum::VariantArray;

use crate::session::FrameSink;
use crate::websocket::conformance::{Violation, WholeMessages};
use crate::websocket::frame::{MessageType, Opcode};
use crate::websocket::{Endpoint, PerEndpoint};

/// The counters of one worker and one route, by endpoint.
///
/// Only one thread at a time may write: two writers lose counts.
#[derive(Debug)]
#[repr(align(128))]
pub struct Traffic {
    by: PerEndpoint<EndpointTraffic>,
}

impl Traffic {
    pub(super) fn new(bounds: &TrafficBounds) -> Self {
        Self { by: PerEndpoint::from_fn(|_| EndpointTraffic::new(bounds)) }
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl Traffic {
    /// Counters without a registry.
    pub(crate) fn alone() -> Self {
        let sizes: Vec<f64> = (0..16).map(|power| f64::from(1 << power)).collect();
        Self::new(&TrafficBounds::new(&sizes, &[0.001, 1.0]))
    }

    /// All counts of each endpoint.
    pub(crate) fn counts(&self) -> PerEndpoint<Vec<u64>> {
        PerEndpoint::from_fn(|endpoint| {
            let of = &self[endpoint];
            let histograms = [&of.message_size, &of.ping_rtt].into_iter();
            let buckets =
                histograms.flat_map(|cells| cells.buckets.iter().flat_map(|line| &line.0).chain([&cells.sum]));
            let cells = of.frames.iter().chain(&of.messages).chain([&of.bytes]).chain(&of.violations).chain(buckets);
            cells.map(Cell::value).collect()
        })
    }
}

impl Index<Endpoint> for Traffic {
    type Output = EndpointTraffic;

    #[inline]
    fn index(&self, endpoint: Endpoint) -> &EndpointTraffic {
        &self.by[endpoint]
    }
}

/// The counters of one endpoint: its frames, and its answers to Pings. Arrays are indexed by the discriminants of their
/// enumerations, in the order of `ALL`.
#[derive(Debug)]
pub struct EndpointTraffic {
    pub(super) frames: [Cell; Opcode::VARIANTS.len()],
    pub(super) messages: [Cell; MessageType::VARIANTS.len()],
    pub(super) message_size: HistogramCells,
    pub(super) bytes: Cell,
    /// Signed, in two's complement.
    pub(super) buffered: Cell,
    /// Nanoseconds.
    pub(super) write_blocked: Cell,
    /// Nanoseconds.
    pub(super) ping_rtt: HistogramCells,
    pub(super) violations: [Cell; Violation::VARIANTS.len()],
}

impl FrameSink for EndpointTraffic {
    #[inline]
    fn bytes(&self, count: u64) {
        self.bytes.add(count);
    }

    #[inline]
    fn frame(&self, opcode: Opcode) {
        self.frames[opcode as usize].add(1);
    }

    #[inline]
    fn message(&self, kind: MessageType) {
        self.messages[kind as usize].add(1);
    }

    #[inline]
    fn message_size(&self, payload_len: u64) {
        self.message_size.observe(payload_len, 1);
    }

    #[inline]
    fn whole_messages(&self, messages: &WholeMessages) {
        let WholeMessages { kind, payload_len, count } = *messages;
        let opcode = match kind {
            MessageType::Text => Opcode::Text,
            MessageType::Binary => Opcode::Binary,
        };
        self.frames[opcode as usize].add(count);
        self.messages[kind as usize].add(count);
        self.message_size.observe(payload_len, count);
    }

    fn violation(&self, kind: Violation) {
        self.violations[kind as usize].add(1);
    }

    fn ping_rtt(&self, round_trip: Duration) {
        self.ping_rtt.observe(nanoseconds(round_trip), 1);
    }
}

impl EndpointTraffic {
    /// The backlog for a slow reader grew (positive) or shrank (negative).
    #[inline]
    pub fn buffered(&self, delta: i64) {
        self.buffered.add(delta.cast_unsigned());
    }

    /// Bytes waited for a slow reader.
    pub fn write_blocked(&self, duration: Duration) {
        self.write_blocked.add(nanoseconds(duration));
    }

    /// The bytes that wait for slow readers now.
    #[cfg(test)]
    pub(crate) fn bytes_buffered(&self) -> i64 {
        self.buffered.value().cast_signed()
    }

    fn new(bounds: &TrafficBounds) -> Self {
        Self {
            frames: Default::default(),
            messages: Default::default(),
            message_size: HistogramCells::new(Arc::clone(&bounds.message_size)),
            bytes: Cell::default(),
            buffered: Cell::default(),
            write_blocked: Cell::default(),
            ping_rtt: HistogramCells::new(Arc::clone(&bounds.ping_rtt)),
            violations: Default::default(),
        }
    }
}

/// The bounds of the two histograms that relay threads fill.
#[derive(Debug, Clone)]
pub(super) struct TrafficBounds {
    /// In bytes.
    message_size: Arc<Bounds>,
    /// In nanoseconds.
    ping_rtt: Arc<Bounds>,
}

impl TrafficBounds {
    /// Takes the exposed bounds, in bytes and in seconds.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounds are not negative, and no counted value exceeds u64"
    )]
    pub(super) fn new(message_size: &[f64], ping_rtt: &[f64]) -> Self {
        let bytes = message_size.iter().map(|bound| bound.floor() as u64);
        let nanoseconds = ping_rtt.iter().map(|bound| (bound * NANOSECONDS_PER_SECOND).round() as u64);
        Self { message_size: Arc::new(Bounds::new(bytes)), ping_rtt: Arc::new(Bounds::new(nanoseconds)) }
    }
}

/// Ascending upper bounds in whole units.
#[derive(Debug)]
struct Bounds {
    upper: Box<[u64]>,
    /// For each length in bits, the number of bounds below all numbers of that length: the search begins there. If the
    /// bounds are powers of two, it also ends there, or one further.
    first: [usize; 65],
}

impl Bounds {
    fn new(upper: impl Iterator<Item = u64>) -> Self {
        let upper: Box<[u64]> = upper.collect();
        let smallest = |bits: usize| if bits == 0 { 0 } else { 1 << (bits - 1) };
        let first = array::from_fn(|bits| upper.partition_point(|bound| *bound < smallest(bits)));
        Self { upper, first }
    }

    /// The index of the first bound that the value does not exceed, or the number of bounds.
    #[inline]
    fn bucket(&self, value: u64) -> usize {
        let bits = u64::BITS - value.leading_zeros();
        let mut bucket = self.first[bits as usize];
        while self.upper.get(bucket).is_some_and(|bound| *bound < value) {
            bucket += 1;
        }
        bucket
    }
}

/// The buckets and the sum of a histogram. Its count is the sum of the buckets, so both always agree.
#[derive(Debug)]
pub(super) struct HistogramCells {
    bounds: Arc<Bounds>,
    /// One bucket for each bound, one for larger values, and the unused rest of the last line.
    buckets: Box<[CacheLine]>,
    sum: Cell,
}

impl HistogramCells {
    fn new(bounds: Arc<Bounds>) -> Self {
        let lines = (bounds.upper.len() + 1).div_ceil(CELLS_PER_LINE);
        Self { bounds, buckets: (0..lines).map(|_| CacheLine::default()).collect(), sum: Cell::default() }
    }

    #[inline]
    fn observe(&self, value: u64, count: u64) {
        self.bucket(self.bounds.bucket(value)).add(count);
        self.sum.add(value.wrapping_mul(count));
    }

    /// The count of one bucket, not cumulative. The last one has the values above all bounds.
    #[inline]
    pub(super) fn bucket(&self, index: usize) -> &Cell {
        &self.buckets[index / CELLS_PER_LINE].0[index % CELLS_PER_LINE]
    }

    pub(super) fn sum(&self) -> &Cell {
        &self.sum
    }
}

const CELLS_PER_LINE: usize = 16;

/// Two cache lines of 64 bytes, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct CacheLine([Cell; CELLS_PER_LINE]);

/// A number that one thread increases and others read.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    /// The single writer needs no atomic read-modify-write. The sum wraps, because one frame header can claim 2^63 bytes.
    #[inline]
    fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) const NANOSECONDS_PER_SECOND: f64 = 1e9;

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(message_size: &[f64]) -> Traffic {
        Traffic::new(&TrafficBounds::new(message_size, &[0.001, 0.5]))
    }

    fn messages(count: u64, payload_len: u64) -> WholeMessages {
        WholeMessages { kind: MessageType::Text, payload_len, count }
    }

    fn buckets(histogram: &HistogramCells, count: usize) -> Vec<u64> {
        (0..count).map(|index| histogram.bucket(index).value()).collect()
    }

    #[test]
    fn discriminants_follow_order_of_all() {
        assert!(Opcode::VARIANTS.iter().enumerate().all(|(index, opcode)| *opcode as usize == index));
        assert!(MessageType::VARIANTS.iter().enumerate().all(|(index, kind)| *kind as usize == index));
        assert!(Violation::VARIANTS.iter().enumerate().all(|(index, kind)| *kind as usize == index));
    }

    #[test]
    fn message_size_falls_into_first_fitting_bucket() {
        let traffic = traffic(&[16.0, 64.5, 1000.0]);
        for (size, count) in [(0, 1), (16, 1), (17, 1), (64, 1), (65, 10), (1000, 10), (1001, 100), (u64::MAX, 100)] {
            traffic[Endpoint::Client].whole_messages(&messages(count, size));
        }
        assert_eq!(buckets(&traffic[Endpoint::Client].message_size, 4), [2, 2, 20, 200]);
        assert_eq!(buckets(&traffic[Endpoint::Server].message_size, 4), [0; 4]);
    }

    #[test]
    fn histogram_holds_100_bounds() {
        let bounds: Vec<_> = (1..=100).map(f64::from).collect();
        let traffic = traffic(&bounds);
        for size in 1..=101 {
            traffic[Endpoint::Server].whole_messages(&messages(size, size));
        }
        let expected: Vec<_> = (1..=101).collect();
        assert_eq!(buckets(&traffic[Endpoint::Server].message_size, 101), expected);
    }

    #[test]
    fn value_on_bound_falls_below_it() {
        let traffic = traffic(&[1.0]);
        for micros in [1000, 1001, 500_000, 500_001] {
            traffic[Endpoint::Client].ping_rtt(Duration::from_micros(micros));
        }
        assert_eq!(buckets(&traffic[Endpoint::Client].ping_rtt, 3), [1, 2, 1]);
        assert_eq!(traffic[Endpoint::Client].ping_rtt.sum().value(), 1_002_002_000);
    }

    #[test]
    fn buffered_bytes_can_fall() {
        let traffic = traffic(&[1.0]);
        traffic[Endpoint::Server].buffered(500);
        traffic[Endpoint::Server].buffered(-700);
        assert_eq!(traffic[Endpoint::Server].buffered.value().cast_signed(), -200);
    }

    #[test]
    fn workers_share_no_cache_line() {
        assert_eq!(align_of::<Traffic>() % 128, 0);
        assert_eq!(size_of::<Traffic>() % 128, 0);
        assert_eq!(size_of::<CacheLine>(), 128);
    }
}
