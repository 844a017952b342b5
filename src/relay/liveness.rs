//! Whether a link on which data waits is dead.

use std::time::{Duration, Instant};

use super::transport::TcpInfo;

/// Watches one connection while data waits to be acknowledged.
///
/// Data that the peer has room for must be acknowledged within `dead_after`. A peer whose window is closed may leave data
/// waiting forever, but answers the kernel's probes of the window; a `TCP_USER_TIMEOUT` would end both.
#[derive(Debug, Default)]
pub(super) struct Liveness(Option<Box<Stall>>);

/// The result of one look at a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkState {
    /// No data waits.
    Settled,
    /// Data waits: look again after [`look_interval`].
    Waiting,
    /// The link is dead.
    Dead,
}

/// Data that waits for the peer, and has made no progress since.
#[derive(Debug, Clone, Copy)]
struct Stall {
    since: Instant,
    /// The data is in flight, rather than held back by a closed window.
    in_flight: bool,
    /// The values at that time.
    acknowledged_bytes: u64,
    retransmits: u32,
}

impl Liveness {
    /// Judges the kernel's view of the connection. `None` means that it is not TCP.
    pub(super) fn judge(&mut self, info: Option<TcpInfo>, dead_after: Duration, now: Instant) -> LinkState {
        let Some(info) = info.filter(|info| !info.all_acknowledged()) else {
            self.0 = None;
            return LinkState::Settled;
        };
        let stall = Stall::at(self.0.as_deref().copied(), &info, now);
        if stall.is_final(&info, dead_after, now) {
            return LinkState::Dead;
        }
        self.0 = Some(Box::new(stall));
        LinkState::Waiting
    }
}

/// How often to look whether data gets through that must within `dead_after`.
pub(super) fn look_interval(dead_after: Duration) -> Duration {
    dead_after / 8
}

impl Stall {
    /// The stall of a link on which data waits: the previous one, or a new one if the link has moved since.
    fn at(before: Option<Self>, info: &TcpInfo, now: Instant) -> Self {
        before.filter(|stall| !stall.has_moved(info, now)).unwrap_or(Self {
            since: now,
            in_flight: info.awaits_acknowledgement(),
            acknowledged_bytes: info.acknowledged_bytes,
            retransmits: info.retransmits,
        })
    }

    /// Whether the peer has shown since that it is alive.
    fn has_moved(&self, info: &TcpInfo, now: Instant) -> bool {
        if self.in_flight != info.awaits_acknowledgement() {
            return true;
        }
        if self.in_flight {
            // An acknowledgement of nothing new is no progress: the data that we send gets lost.
            self.acknowledged_bytes != info.acknowledged_bytes
        } else {
            info.since_last_ack < now.saturating_duration_since(self.since)
        }
    }

    /// Whether the peer answered nothing that it could have answered for the whole of `dead_after`. A window that has been
    /// closed for long is probed seldom, and one probe can get lost.
    fn is_final(&self, info: &TcpInfo, dead_after: Duration, now: Instant) -> bool {
        // Data that was in flight when the window closed is retransmitted instead of a probe.
        let probes = info.retransmits.wrapping_sub(self.retransmits).max(info.unanswered_probes.into());
        now.saturating_duration_since(self.since) >= dead_after && (self.in_flight || probes > 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD_AFTER: Duration = Duration::from_secs(80);

    /// A connection on which everything was acknowledged just now.
    const SETTLED: TcpInfo = TcpInfo {
        rtt: Duration::from_millis(1),
        retransmits: 0,
        unacknowledged: 0,
        unsent_bytes: 0,
        acknowledged_bytes: 1000,
        window: 65_536,
        unanswered_probes: 0,
        since_last_ack: Duration::ZERO,
    };

    /// Data is in flight, and the last acknowledgement came `silence` seconds ago.
    fn in_flight(silence: u64) -> TcpInfo {
        TcpInfo { unacknowledged: 1, since_last_ack: Duration::from_secs(silence), ..SETTLED }
    }

    /// The window is closed, `probes` went unanswered, and the last acknowledgement came `silence` seconds ago.
    fn closed(probes: u8, silence: u64) -> TcpInfo {
        TcpInfo {
            unsent_bytes: 5000,
            window: 0,
            unanswered_probes: probes,
            since_last_ack: Duration::from_secs(silence),
            ..SETTLED
        }
    }

    /// Looks every 10 s for an hour. Returns after how many seconds the link is given up.
    fn given_up_after(info_after: impl Fn(u64) -> TcpInfo) -> Option<u64> {
        let start = Instant::now();
        let mut stall: Option<Stall> = None;
        (0..3600).step_by(10).find(|&seconds| {
            let (info, now) = (info_after(seconds), start + Duration::from_secs(seconds));
            let current = stall.insert(Stall::at(stall, &info, now));
            current.is_final(&info, DEAD_AFTER, now)
        })
    }

    #[test]
    fn unacknowledged_data_is_given_up() {
        assert_eq!(given_up_after(in_flight), Some(80));
        assert_eq!(given_up_after(|seconds| in_flight(seconds + 500)), Some(80));
    }

    /// The peer's own packets arrive and acknowledge old data: the data that we send gets lost.
    #[test]
    fn acknowledgement_of_nothing_new_is_no_progress() {
        assert_eq!(given_up_after(|_| in_flight(0)), Some(80));
    }

    /// Each message is acknowledged, but at each look the next one is in flight.
    #[test]
    fn link_with_progress_lives() {
        let progress = |seconds: u64| TcpInfo { acknowledged_bytes: seconds / 70, ..in_flight(seconds % 70) };
        assert_eq!(given_up_after(progress), None);
    }

    #[test]
    fn traffic_that_stops_is_given_up() {
        let until_300 =
            |seconds: u64| TcpInfo { acknowledged_bytes: seconds.min(300), ..in_flight(seconds.saturating_sub(300)) };
        assert_eq!(given_up_after(until_300), Some(380));
    }

    /// The kernel leaves at most two minutes between two probes.
    #[test]
    fn closed_window_with_answered_probes_lives() {
        assert_eq!(given_up_after(|seconds| closed(0, seconds % 120)), None);
    }

    #[test]
    fn one_lost_probe_of_a_closed_window_is_no_death() {
        let one_lost = |seconds: u64| closed(u8::from(seconds % 240 >= 120), seconds % 240);
        assert_eq!(given_up_after(one_lost), None);
    }

    #[test]
    fn closed_window_without_answers_is_given_up() {
        let seldom = |seconds: u64| closed(u8::try_from(seconds / 120).unwrap(), seconds);
        assert_eq!(given_up_after(seldom), Some(240));
        let often = |seconds: u64| closed(u8::try_from(seconds / 10).unwrap(), seconds);
        assert_eq!(given_up_after(often), Some(80));
    }

    /// Then the kernel retransmits that data, seldom, and each time the peer answers that its window is closed.
    #[test]
    fn window_closed_over_data_in_flight_lives_if_it_answers() {
        let shrunk = |seconds: u64, silence: u64| TcpInfo {
            unacknowledged: 3,
            retransmits: u32::try_from(seconds / 120).unwrap(),
            ..closed(0, silence)
        };
        assert_eq!(given_up_after(|seconds| shrunk(seconds, seconds % 120)), None);
        assert_eq!(given_up_after(|seconds| shrunk(seconds, seconds)), Some(240));
    }

    /// The data sent then is new, regardless of how long the window was closed and silent.
    #[test]
    fn opened_window_gives_data_the_whole_time() {
        let opens = |seconds: u64| if seconds < 110 { closed(0, seconds) } else { in_flight(seconds - 110) };
        assert_eq!(given_up_after(opens), Some(190));
    }
}
