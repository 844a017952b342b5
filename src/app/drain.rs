//! The drain: sessions are closed by closing handshakes before the process ends.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::{
    admin::ProcessPhase,
    config::Shutdown,
    relay,
    websocket::{
        close_code::CloseText,
        closing_handshake::{Action, Ending, Fault},
    },
};

/// The time between two checks for the end of the last session.
const POLL: Duration = Duration::from_millis(10);

/// How long the ends of the sessions that the deadline killed may take to be recorded.
const KILL_GRACE: Duration = Duration::from_secs(1);

/// A drain that has begun. Its clones are the same drain.
#[derive(Debug, Clone)]
pub(super) struct Drain {
    ended: watch::Receiver<Option<Instant>>,
    skip_delays: CancellationToken,
}

impl Drain {
    /// Begins a drain.
    pub(super) fn begin(parts: Arc<Parts>, shutdown: Shutdown) -> Self {
        parts.state.enter(ProcessPhase::Draining);
        let skip_delays = CancellationToken::new();
        let task = DrainTask { parts, shutdown, skip_delays: skip_delays.clone() };
        let (sender, ended) = watch::channel(None);
        tokio::spawn(async move { sender.send(Some(task.run().await)) });
        Self { ended, skip_delays }
    }

    /// Skips `shutdown.delay` and `shutdown.spread`, because somebody waits at a terminal.
    pub(super) fn skip_delays(&self) {
        self.skip_delays.cancel();
    }

    /// Waits until no session is left or the timeout has passed, and for `linger` after that.
    pub(super) async fn ended(mut self, linger: Duration) {
        let ended = self.ended.wait_for(Option::is_some).await.ok().and_then(|ended| *ended);
        // Without a value the task has panicked. The relay ends the sessions that are left when it stops.
        sleep_until(ended.unwrap_or_else(Instant::now) + linger).await;
    }
}

/// Counts the sessions that the drain's deadline kills.
#[derive(Debug, Default)]
pub(super) struct DeadlineKills {
    deadline: OnceLock<std::time::Instant>,
    count: AtomicUsize,
}

impl DeadlineKills {
    /// Looks at the end of a session. An endpoint that hung up before the deadline instead of answering was not killed.
    pub(super) fn observe(&self, ending: &Ending) {
        let is_by_drain = ending.fault == Some(Fault::Proxy(Action::Drain));
        if is_by_drain && self.deadline.get().is_some_and(|deadline| *deadline <= std::time::Instant::now()) {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn set_deadline(&self, deadline: std::time::Instant) {
        // There is only one drain in the life of a process.
        let _ = self.deadline.set(deadline);
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

struct DrainTask {
    parts: Arc<Parts>,
    shutdown: Shutdown,
    skip_delays: CancellationToken,
}

impl DrainTask {
    async fn run(self) -> Instant {
        tracing::info!(sessions = self.parts.relay.sessions(), "draining");
        self.skip_delays.run_until_cancelled(sleep(*self.shutdown.delay)).await;
        self.parts.listeners().close();
        self.parts.proxy.refuse_sessions();
        let deadline = Instant::now() + *self.shutdown.timeout;
        self.parts.kills.set_deadline(deadline.into_std());
        if timeout_at(deadline, self.close_all(deadline)).await.is_err() {
            // The relay ends the sessions that are left even then, when it stops.
            let _ = timeout(KILL_GRACE, self.all_killed()).await;
        }
        self.report_kills();
        self.parts.state.enter(ProcessPhase::Drained);
        tracing::info!("drained");
        Instant::now()
    }

    /// Closes all sessions, and waits for their ends and for those of all requests in flight.
    async fn close_all(&self, deadline: Instant) {
        let start = Instant::now();
        let order = |spread| relay::DrainPlan {
            text: CloseText { code: *self.shutdown.code, reason: self.shutdown.reason.0.clone() },
            start: start.into_std(),
            spread,
            cut_at: deadline.into_std(),
        };
        self.parts.relay.drain(&order(*self.shutdown.spread));
        tokio::select! {
            () = self.all_ended() => return,
            () = self.skip_delays.cancelled() => {}
        }
        self.parts.relay.drain(&order(Duration::ZERO));
        self.all_ended().await;
    }

    async fn all_ended(&self) {
        // Meanwhile requests on open connections get 503.
        self.sessions_ended().await;
        self.parts.proxy.finish().await;
        // The last handshakes may have become sessions.
        self.sessions_ended().await;
    }

    /// The relay kills the sessions by itself at the deadline.
    async fn all_killed(&self) {
        tokio::join!(self.sessions_ended(), self.parts.proxy.cut());
    }

    fn report_kills(&self) {
        let sessions = self.parts.kills.count() + self.parts.relay.sessions();
        let requests = self.parts.proxy.cut_requests();
        if sessions + requests > 0 {
            tracing::warn!(sessions, requests, "drain timeout exceeded: sessions and requests were terminated");
        }
    }

    async fn sessions_ended(&self) {
        while self.parts.relay.sessions() > 0 {
            sleep(POLL).await;
        }
    }
}
