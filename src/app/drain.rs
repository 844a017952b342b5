//! A drain: sessions are closed in good order before the process goes.

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
    admin::Phase,
    config::Shutdown,
    relay,
    websocket::{
        close_code::CloseText,
        closing_handshake::{Action, Ending, Fault},
    },
};

/// How often it is looked whether the last session has ended.
const POLL: Duration = Duration::from_millis(10);

/// For the sessions that were cut to be told.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// A drain that has begun. Its clones are the same drain.
#[derive(Debug, Clone)]
pub(super) struct Drain {
    ended: watch::Receiver<Option<Instant>>,
    hurry: CancellationToken,
}

impl Drain {
    /// Begins a drain.
    pub(super) fn begin(parts: Arc<Parts>, shutdown: Shutdown) -> Self {
        parts.state.enter(Phase::Draining);
        let hurry = CancellationToken::new();
        let course = Course { parts, shutdown, hurry: hurry.clone() };
        let (sender, ended) = watch::channel(None);
        tokio::spawn(async move { sender.send(Some(course.run().await)) });
        Self { ended, hurry }
    }

    /// Lets it go on without the pauses that are configured: somebody at a terminal waits.
    pub(super) fn hurry(&self) {
        self.hurry.cancel();
    }

    /// Waits until no session is left, or the time is up, and for `linger` after that.
    pub(super) async fn ended(mut self, linger: Duration) {
        let ended = self.ended.wait_for(Option::is_some).await.ok().and_then(|ended| *ended);
        // A drain that panicked has said so; what is left is cut with the relay.
        sleep_until(ended.unwrap_or_else(Instant::now) + linger).await;
    }
}

/// The sessions that are cut because the time to drain is over.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    deadline: OnceLock<std::time::Instant>,
    count: AtomicUsize,
}

impl Cuts {
    /// Takes note of a session's end. Who hung up before the deadline instead of answering was not cut.
    pub(super) fn observe(&self, ending: &Ending) {
        let is_by_drain = ending.fault == Some(Fault::Proxy(Action::Drain));
        if is_by_drain && self.deadline.get().is_some_and(|deadline| *deadline <= std::time::Instant::now()) {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn begin_at(&self, deadline: std::time::Instant) {
        // There is only one drain.
        let _ = self.deadline.set(deadline);
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

struct Course {
    parts: Arc<Parts>,
    shutdown: Shutdown,
    hurry: CancellationToken,
}

impl Course {
    async fn run(self) -> Instant {
        tracing::info!(sessions = self.parts.relay.sessions(), "draining");
        self.hurry.run_until_cancelled(sleep(*self.shutdown.delay)).await;
        self.parts.listeners().close();
        self.parts.proxy.refuse_sessions();
        let deadline = Instant::now() + *self.shutdown.timeout;
        self.parts.cuts.begin_at(deadline.into_std());
        if timeout_at(deadline, self.close_all(deadline)).await.is_err() {
            // Who does not end now is told as the relay stops.
            let _ = timeout(CUT_GRACE, self.cut_ended()).await;
        }
        self.tell_cuts();
        self.parts.state.enter(Phase::Drained);
        tracing::info!("drained");
        Instant::now()
    }

    /// Closes all sessions and waits for their ends, and for the end of what else is in flight.
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
            () = self.hurry.cancelled() => {}
        }
        self.parts.relay.drain(&order(Duration::ZERO));
        self.all_ended().await;
    }

    async fn all_ended(&self) {
        // Until then clients on open connections are told to go elsewhere.
        self.sessions_ended().await;
        self.parts.proxy.finish().await;
        // Of the last handshakes.
        self.sessions_ended().await;
    }

    /// The relay cuts the sessions by itself, at the deadline.
    async fn cut_ended(&self) {
        tokio::join!(self.sessions_ended(), self.parts.proxy.cut());
    }

    fn tell_cuts(&self) {
        let sessions = self.parts.cuts.count() + self.parts.relay.sessions();
        let requests = self.parts.proxy.cut_requests();
        if sessions + requests > 0 {
            tracing::warn!(sessions, requests, "the time to drain is over; what was left is cut");
        }
    }

    async fn sessions_ended(&self) {
        while self.parts.relay.sessions() > 0 {
            sleep(POLL).await;
        }
    }
}
