//! What the admin's control endpoints reach: the phase of the process's life, and requests to it.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use crate::{
    admin::{CloseRequest, Control, Phase},
    relay::{CloseSome, Relay},
    websocket::close_code::{CloseCode, CloseText},
};

/// What the admin asks of the service.
pub(super) enum Request {
    Drain,
    Reload(oneshot::Sender<Result<(), String>>),
}

/// Shared by the service and its admin.
pub(super) struct State {
    /// A place in [`Phase::ALL`].
    phase: AtomicU8,
    relay: Arc<Relay>,
    requests: mpsc::UnboundedSender<Request>,
}

impl State {
    pub(super) fn new(relay: Arc<Relay>, requests: mpsc::UnboundedSender<Request>) -> Self {
        Self { phase: AtomicU8::new(Phase::Starting as u8), relay, requests }
    }

    pub(super) fn enter(&self, phase: Phase) {
        // A phase is never left for an earlier one.
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }
}

impl Control for State {
    fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Acquire))]
    }

    fn drain(&self) {
        self.enter(Phase::Draining);
        // Where nobody listens any more, the process is ending already.
        let _ = self.requests.send(Request::Drain);
    }

    fn reload(&self) -> BoxFuture<'_, Result<(), String>> {
        let (sender, answer) = oneshot::channel();
        let _ = self.requests.send(Request::Reload(sender));
        Box::pin(async { answer.await.unwrap_or_else(|_| Err("closewatch is ending".to_owned())) })
    }

    fn close(&self, request: CloseRequest) -> BoxFuture<'_, usize> {
        Box::pin(async move {
            let wanted = request.count.unwrap_or(usize::MAX);
            let mut closed = 0;
            for worker in 0..self.relay.workers() {
                if closed == wanted {
                    break;
                }
                let (sender, answer) = oneshot::channel();
                let order = CloseSome {
                    text: CloseText { code: CloseCode(request.code), reason: request.reason.clone() },
                    route: request.route.clone(),
                    count: wanted - closed,
                };
                self.relay.close_some(worker, order, move |count| {
                    let _ = sender.send(count);
                });
                closed += answer.await.unwrap_or(0);
            }
            closed
        })
    }
}
