//! The implementation of the admin's control endpoints: the phase of the process, and requests to [`App`](super::App).

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::reload::ReloadAnswer;
use crate::{
    admin::{CloseRequest, Control, ProcessPhase},
    relay::{CloseSome, Relay},
    websocket::close_code::{CloseCode, CloseText},
};

/// A request of the admin to the app.
pub(super) enum Request {
    Drain,
    Reload(ReloadAnswer),
}

/// The state that the app and its admin share.
pub(super) struct State {
    /// An index of [`ProcessPhase::ALL`].
    phase: AtomicU8,
    relay: Arc<Relay>,
    requests: mpsc::UnboundedSender<Request>,
}

impl State {
    pub(super) fn new(relay: Arc<Relay>, requests: mpsc::UnboundedSender<Request>) -> Self {
        Self { phase: AtomicU8::new(ProcessPhase::Starting as u8), relay, requests }
    }

    /// Enters a phase. The process never returns to an earlier one.
    pub(super) fn enter(&self, phase: ProcessPhase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }
}

impl Control for State {
    fn phase(&self) -> ProcessPhase {
        ProcessPhase::ALL[usize::from(self.phase.load(Ordering::Acquire))]
    }

    fn drain(&self) {
        self.enter(ProcessPhase::Draining);
        // Without a receiver the process ends already.
        let _ = self.requests.send(Request::Drain);
    }

    fn reload(&self) -> BoxFuture<'_, Result<(), String>> {
        let (sender, answer) = oneshot::channel();
        let _ = self.requests.send(Request::Reload(sender));
        Box::pin(async { answer.await.unwrap_or_else(|_| Err("closewatch is shutting down".to_owned())) })
    }

    fn close(&self, request: CloseRequest) -> BoxFuture<'_, usize> {
        Box::pin(async move {
            let wanted = request.count.unwrap_or(usize::MAX);
            let mut closed = 0;
            for worker in 0..self.relay.workers() {
                if closed == wanted {
                    break;
                }
                closed += self.close_on(worker, &request, wanted - closed).await;
            }
            closed
        })
    }
}

impl State {
    /// Closes at most `count` sessions of a worker, and returns their number.
    async fn close_on(&self, worker: usize, request: &CloseRequest, count: usize) -> usize {
        let (sender, answer) = oneshot::channel();
        let text = CloseText { code: CloseCode(request.code), reason: request.reason.clone() };
        let order = CloseSome { text, route: request.route.clone(), count };
        self.relay.close_some(worker, order, move |count| {
            let _ = sender.send(count);
        });
        answer.await.unwrap_or(0)
    }
}
