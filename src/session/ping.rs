//! Round trips of Pings, measured passively.

use std::{
    hash::{DefaultHasher, Hasher},
    time::{Duration, Instant},
};

/// The Pings of one direction. Only the last Ping is remembered, so a flood of Pings costs nothing; sessions without a
/// Ping own no memory for it.
#[derive(Debug, Default)]
pub(super) struct PingWatch(Option<Box<Pings>>);

#[derive(Debug, Default)]
struct Pings {
    outstanding: Option<Outstanding>,
    last_round_trip: Option<Duration>,
}

/// A Ping that no Pong has answered yet.
#[derive(Debug)]
struct Outstanding {
    payload_hash: u64,
    at: Instant,
}

impl PingWatch {
    /// A Ping passed.
    pub(super) fn ping(&mut self, payload: &[u8], now: Instant) {
        let outstanding = Outstanding { payload_hash: hash(payload), at: now };
        self.0.get_or_insert_default().outstanding = Some(outstanding);
    }

    /// A Pong came back: the round trip, if it answers the outstanding Ping (RFC 6455, 5.5.3: the same payload).
    pub(super) fn pong(&mut self, payload: &[u8], now: Instant) -> Option<Duration> {
        let pings = self.0.as_mut()?;
        let ping = pings.outstanding.take_if(|ping| ping.payload_hash == hash(payload))?;
        let round_trip = now.saturating_duration_since(ping.at);
        pings.last_round_trip = Some(round_trip);
        Some(round_trip)
    }

    pub(super) fn last_round_trip(&self) -> Option<Duration> {
        self.0.as_ref()?.last_round_trip
    }
}

fn hash(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(payload);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pong_answers_the_last_ping_only() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut watch = PingWatch::default();
        assert_eq!(watch.pong(b"", after(0)), None, "no Ping");
        watch.ping(b"1", after(1));
        watch.ping(b"2", after(3));
        assert_eq!(watch.pong(b"1", after(4)), None, "not the last one");
        assert_eq!(watch.pong(b"2", after(5)), Some(Duration::from_secs(2)));
        assert_eq!(watch.pong(b"2", after(6)), None, "answered already");
        assert_eq!(watch.last_round_trip(), Some(Duration::from_secs(2)));
    }
}
