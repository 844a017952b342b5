//! Upper bounds of the buckets of each histogram.

use crate::config;

/// From a frame or two to a working day. Load balancers and tokens end sessions at ages in between.
const SESSION_DURATION: [f64; 15] =
    [0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0, 43200.0, 86400.0];

/// Common idle timeouts (30, 60, 100, 120, 240, 300, 350, 600, 3600 s), each between a bound 1.5 s below and a bound 1.5 s
/// above: all sessions that one of them ended are in one bucket of three seconds.
const IDLE_BEFORE_CLOSE: [f64; 23] = [
    0.1, 1.0, 5.0, 10.0, 20.0, 28.5, 31.5, 58.5, 61.5, 98.5, 101.5, 118.5, 121.5, 238.5, 241.5, 298.5, 301.5, 348.5,
    351.5, 598.5, 601.5, 3598.5, 3601.5,
];

/// Up to the 60 s that Chromium waits for an answer.
const CLOSE_HANDSHAKE_DURATION: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];

/// Up to the default of `timeouts.handshake`.
const HANDSHAKE_DURATION: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// From the loopback interface to the default of `connect_timeout`.
const UPSTREAM_CONNECT_DURATION: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Powers of four: 16 B to 16 MiB.
const MESSAGE_SIZE: [f64; 11] =
    [16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// From the loopback interface to a phone that wakes up.
const PING_RTT: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The bounds in use: ascending and finite. Values above the last one are in the bucket `+Inf`.
#[derive(Debug)]
pub(super) struct BucketBounds {
    pub(super) session_duration: Vec<f64>,
    pub(super) idle_before_close: Vec<f64>,
    pub(super) close_handshake_duration: Vec<f64>,
    pub(super) handshake_duration: Vec<f64>,
    pub(super) upstream_connect_duration: Vec<f64>,
    pub(super) message_size: Vec<f64>,
    pub(super) ping_rtt: Vec<f64>,
}

impl From<&config::Buckets> for BucketBounds {
    fn from(chosen: &config::Buckets) -> Self {
        Self {
            session_duration: bounds(chosen.session_duration.list(), &SESSION_DURATION),
            idle_before_close: bounds(chosen.idle_before_close.list(), &IDLE_BEFORE_CLOSE),
            close_handshake_duration: bounds(chosen.close_handshake_duration.list(), &CLOSE_HANDSHAKE_DURATION),
            handshake_duration: bounds(chosen.handshake_duration.list(), &HANDSHAKE_DURATION),
            upstream_connect_duration: bounds(chosen.upstream_connect_duration.list(), &UPSTREAM_CONNECT_DURATION),
            message_size: bounds(chosen.message_size.list(), &MESSAGE_SIZE),
            ping_rtt: bounds(chosen.ping_rtt.list(), &PING_RTT),
        }
    }
}

fn bounds(chosen: Option<Vec<f64>>, default: &[f64]) -> Vec<f64> {
    let bounds = chosen.unwrap_or_else(|| default.to_vec());
    assert!(!bounds.is_empty(), "a histogram has at least one bucket");
    let finite = bounds.iter().all(|bound| bound.is_finite() && *bound >= 0.0);
    assert!(
        finite && bounds.is_sorted_by(|lower, upper| lower < upper),
        "bucket bounds must ascend from 0: {bounds:?}"
    );
    bounds
}

#[cfg(test)]
mod tests {
    use std::panic;

    use super::*;

    #[test]
    fn common_idle_timeouts_lie_between_two_bounds() {
        for timeout in [30.0, 60.0, 100.0, 120.0, 240.0, 300.0, 350.0, 600.0, 3600.0] {
            let above = IDLE_BEFORE_CLOSE.iter().position(|bound| *bound > timeout).unwrap();
            assert_eq!(IDLE_BEFORE_CLOSE[above - 1..=above], [timeout - 1.5, timeout + 1.5]);
        }
    }

    #[test]
    fn default_bounds_are_accepted() {
        let buckets = BucketBounds::from(&config::Buckets::default());
        assert_eq!(buckets.message_size.len(), MESSAGE_SIZE.len());
    }

    #[test]
    fn impossible_bounds_are_refused() {
        for refused in [vec![], vec![2.0, 1.0], vec![1.0, 1.0], vec![-1.0, 1.0], vec![f64::NAN], vec![f64::INFINITY]] {
            assert!(panic::catch_unwind(|| bounds(Some(refused.clone()), &[])).is_err(), "{refused:?}");
        }
    }
}
