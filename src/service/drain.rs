//! A drain: sessions are closed in good order before the process goes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::{
    config::Shutdown,
    relay::{CloseText, Drain},
};

/// How often it is looked whether the last session has ended.
const POLL: Duration = Duration::from_millis(10);

/// Beyond the timeout, for cut sessions to be told and plain requests to be given up.
const GRACE: Duration = Duration::from_secs(1);

/// How a drain goes about its pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// With delay, spread and linger as configured.
    Configured,
    /// Without: somebody at a terminal waits.
    Immediate,
}

impl Pace {
    pub(super) fn linger(self, shutdown: &Shutdown) -> Duration {
        self.pause(shutdown.linger)
    }

    fn pause(self, configured: Duration) -> Duration {
        match self {
            Self::Configured => configured,
            Self::Immediate => Duration::ZERO,
        }
    }
}

/// Drains: readiness has been taken back already. Ends when no session and no request is left, or the time is up.
pub(super) async fn drain(parts: Arc<Parts>, stop_listening: CancellationToken, pace: Pace, shutdown: Shutdown) {
    tracing::info!(sessions = parts.relay.sessions(), "draining");
    tokio::time::sleep(pace.pause(shutdown.delay)).await;
    stop_listening.cancel();
    parts.proxy.refuse_sessions();
    let start = Instant::now();
    parts.relay.drain(&Drain {
        text: CloseText { code: shutdown.code, reason: shutdown.reason },
        start,
        spread: pace.pause(shutdown.spread),
        cut_at: start + shutdown.timeout,
    });
    let left = tokio::time::timeout(shutdown.timeout + GRACE, all_ended(&parts)).await;
    if left.is_err() {
        tracing::warn!(sessions = parts.relay.sessions(), "the time to drain is over; what is left is cut");
    }
    tracing::info!("drained");
}

async fn all_ended(parts: &Parts) {
    // Connections first: one of them may still become a session, which then drains like the others.
    parts.proxy.connections_ended().await;
    while parts.relay.sessions() > 0 {
        tokio::time::sleep(POLL).await;
    }
}
