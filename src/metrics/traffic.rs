//! What the data plane counts per frame: cells that one worker thread writes and a scrape reads.
//!
//! Each worker has its own [`Traffic`] for each route, on cache lines of its own, so that counting is a load, an add and
//! a store: no lock prefix, no line that travels between cores. A scrape sums over the workers.

use std::array;
use std::ops::Index;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::websocket::conformance::{Violation, WholeMessages};
use crate::websocket::frame::{MessageType, Opcode};
use crate::websocket::{Endpoint, PerEndpoint};

/// The counters of one worker thread and one route, by the endpoint that they are about.
///
/// There must be a single writer at a time: two threads that write the same cells lose counts.
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
    /// Counters that no scrape reads.
    pub(crate) fn alone() -> Self {
        let sizes: Vec<f64> = (0..16).map(|power| f64::from(1 << power)).collect();
        Self::new(&TrafficBounds::new(&sizes, &[0.001, 1.0]))
    }

    /// All that was counted of each endpoint.
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

/// The counters about one endpoint: what it sends, and how it answers Pings. Arrays are indexed by the enumeration's own
/// numbers, in the order of `ALL`.
#[derive(Debug)]
pub struct EndpointTraffic {
    pub(super) frames: [Cell; Opcode::ALL.len()],
    pub(super) messages: [Cell; MessageType::ALL.len()],
    pub(super) message_size: HistogramCells,
    pub(super) bytes: Cell,
    /// A signed number in two's complement.
    pub(super) buffered: Cell,
    /// Nanoseconds.
    pub(super) write_blocked: Cell,
    /// Nanoseconds.
    pub(super) ping_rtt: HistogramCells,
    pub(super) violations: [Cell; Violation::ALL.len()],
}

impl EndpointTraffic {
    /// A frame came.
    #[inline]
    pub fn frame(&self, opcode: Opcode) {
        self.frames[opcode as usize].add(1);
    }

    /// The header of a message's last frame came.
    #[inline]
    pub fn message(&self, kind: MessageType) {
        self.messages[kind as usize].add(1);
    }

    /// A message came whole, with so many bytes of payload in all its frames.
    #[inline]
    pub fn message_size(&self, payload_len: u64) {
        self.message_size.observe(payload_len, 1);
    }

    /// Messages of one frame each came whole: each counts as a frame, as a message, and by its size.
    #[inline]
    pub fn whole_messages(&self, messages: &WholeMessages) {
        let WholeMessages { kind, payload_len, count } = *messages;
        let opcode = match kind {
            MessageType::Text => Opcode::Text,
            MessageType::Binary => Opcode::Binary,
        };
        self.frames[opcode as usize].add(count);
        self.messages[kind as usize].add(count);
        self.message_size.observe(payload_len, count);
    }

    /// So many bytes came, frame headers included.
    #[inline]
    pub fn bytes(&self, count: u64) {
        self.bytes.add(count);
    }

    /// Bytes were put aside for a slow reader (positive), or got away at last (negative).
    #[inline]
    pub fn buffered(&self, delta: i64) {
        self.buffered.add(delta.cast_unsigned());
    }

    /// Bytes waited so long for a slow reader.
    pub fn write_blocked(&self, duration: Duration) {
        self.write_blocked.add(nanoseconds(duration));
    }

    /// A Ping relayed to the endpoint was answered.
    pub fn ping_rtt(&self, rtt: Duration) {
        self.ping_rtt.observe(nanoseconds(rtt), 1);
    }

    /// A session has seen this breach for the first time.
    pub fn violation(&self, kind: Violation) {
        self.violations[kind as usize].add(1);
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

/// Bounds of the buckets that the data plane fills.
#[derive(Debug, Clone)]
pub(super) struct TrafficBounds {
    /// In bytes.
    message_size: Arc<Bounds>,
    /// In nanoseconds.
    ping_rtt: Arc<Bounds>,
}

impl TrafficBounds {
    /// From bounds as they are exposed: in bytes, and in seconds.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounds are not negative, and nothing counted is beyond u64"
    )]
    pub(super) fn new(message_size: &[f64], ping_rtt: &[f64]) -> Self {
        let bytes = message_size.iter().map(|bound| bound.floor() as u64);
        let nanoseconds = ping_rtt.iter().map(|bound| (bound * NANOSECONDS_PER_SECOND).round() as u64);
        Self { message_size: Arc::new(Bounds::new(bytes)), ping_rtt: Arc::new(Bounds::new(nanoseconds)) }
    }
}

/// Rising upper bounds in whole units.
#[derive(Debug)]
struct Bounds {
    upper: Box<[u64]>,
    /// For each length in bits, how many bounds all numbers of that length exceed: where the search begins. With bounds
    /// that are powers of two it also ends there, or one further.
    first: [usize; 65],
}

impl Bounds {
    fn new(upper: impl Iterator<Item = u64>) -> Self {
        let upper: Box<[u64]> = upper.collect();
        let smallest = |bits: usize| if bits == 0 { 0 } else { 1 << (bits - 1) };
        let first = array::from_fn(|bits| upper.partition_point(|bound| *bound < smallest(bits)));
        Self { upper, first }
    }

    /// The first bucket whose bound the value does not exceed; after the last bound, what exceeds them all.
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

/// A histogram's buckets and sum. Its count is the sum of the buckets, so that the two can never disagree.
#[derive(Debug)]
pub(super) struct HistogramCells {
    bounds: Arc<Bounds>,
    /// One bucket for each bound, one for what is beyond, and the rest of the last line.
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

    /// The bucket's own count (not cumulative); the last is what exceeds every bound.
    #[inline]
    pub(super) fn bucket(&self, index: usize) -> &Cell {
        &self.buckets[index / CELLS_PER_LINE].0[index % CELLS_PER_LINE]
    }

    pub(super) fn sum(&self) -> &Cell {
        &self.sum
    }
}

const CELLS_PER_LINE: usize = 16;

/// Two lines of 64 bytes: processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct CacheLine([Cell; CELLS_PER_LINE]);

/// A number that one thread adds to and others read.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    /// Not a read-modify-write: the single writer needs no lock prefix. Wraps, as counters may: a frame's header alone can
    /// claim 2^63 bytes.
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
    fn enumerations_number_their_values_in_the_order_they_are_listed() {
        assert!(Opcode::ALL.iter().enumerate().all(|(index, opcode)| *opcode as usize == index));
        assert!(MessageType::ALL.iter().enumerate().all(|(index, kind)| *kind as usize == index));
        assert!(Violation::ALL.iter().enumerate().all(|(index, kind)| *kind as usize == index));
    }

    #[test]
    fn a_message_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let traffic = traffic(&[16.0, 64.5, 1000.0]);
        for (size, count) in [(0, 1), (16, 1), (17, 1), (64, 1), (65, 10), (1000, 10), (1001, 100), (u64::MAX, 100)] {
            traffic[Endpoint::Client].whole_messages(&messages(count, size));
        }
        assert_eq!(buckets(&traffic[Endpoint::Client].message_size, 4), [2, 2, 20, 200]);
        assert_eq!(buckets(&traffic[Endpoint::Server].message_size, 4), [0; 4]);
    }

    #[test]
    fn any_number_of_bounds_has_room() {
        let bounds: Vec<_> = (1..=100).map(f64::from).collect();
        let traffic = traffic(&bounds);
        for size in 1..=101 {
            traffic[Endpoint::Server].whole_messages(&messages(size, size));
        }
        let expected: Vec<_> = (1..=101).collect();
        assert_eq!(buckets(&traffic[Endpoint::Server].message_size, 101), expected);
    }

    #[test]
    fn a_round_trip_on_the_bound_is_within_it() {
        let traffic = traffic(&[1.0]);
        for micros in [1000, 1001, 500_000, 500_001] {
            traffic[Endpoint::Client].ping_rtt(Duration::from_micros(micros));
        }
        assert_eq!(buckets(&traffic[Endpoint::Client].ping_rtt, 3), [1, 2, 1]);
        assert_eq!(traffic[Endpoint::Client].ping_rtt.sum().value(), 1_002_002_000);
    }

    #[test]
    fn what_is_buffered_can_fall_again() {
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
