//! The one place where a session's end is counted and recorded.

use std::{mem, sync::Arc, time::SystemTime};

use super::{driver::FinishedSession, transport::TcpInfo};
use crate::{
    journal::{HandshakeInfo, Journal, Record, SessionInfo, TcpSummary},
    metrics::{HandshakeFailure, RouteMetrics, Traffic},
    session::Summary,
    websocket::PerEndpoint,
};

/// Counts a session exactly once. A guard that is dropped before the session opened counts a failed handshake; one that is
/// dropped afterwards counts a session that closewatch terminated.
#[derive(Debug)]
pub struct SessionGuard {
    info: Box<SessionInfo>,
    route: Arc<RouteMetrics>,
    journal: Arc<Journal>,
    /// The facts for the record of a client that leaves before the session is open.
    handshake: Option<Box<HandshakeInfo>>,
    state: GuardState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GuardState {
    Handshake,
    Open,
    Reported,
}

impl SessionGuard {
    /// A guard for a session whose 101 is on its way to the client.
    pub fn new(
        info: SessionInfo,
        handshake: Box<HandshakeInfo>,
        route: Arc<RouteMetrics>,
        journal: Arc<Journal>,
    ) -> Self {
        Self { info: Box::new(info), route, journal, handshake: Some(handshake), state: GuardState::Handshake }
    }

    /// The session is open: counts its 101. From now on its end counts.
    ///
    /// The info is copied into this thread's part of the heap. Left where the handshake put it, it would pin the pages
    /// between the handshakes' large short-lived buffers: 3 KiB more for each idle session.
    pub(super) fn open(&mut self) {
        self.info = self.info.clone();
        self.handshake = None;
        self.route.session_opened();
        self.state = GuardState::Open;
    }

    /// The counters of the session's route that only this relay thread writes.
    pub(super) fn traffic(&self, worker: usize) -> Arc<Traffic> {
        Arc::clone(self.route.traffic(worker))
    }

    /// The name of the session's route.
    pub(super) fn route(&self) -> &str {
        self.route.name()
    }

    /// The session is over: counts and records it.
    pub(super) fn close(mut self, finished: FinishedSession) {
        self.state = GuardState::Reported;
        self.report(finished);
    }

    fn report(&mut self, FinishedSession { summary, tcp }: FinishedSession) {
        self.route.session_closed(&summary);
        self.journal.record(Record {
            time: SystemTime::now(),
            route: self.route.name().into(),
            info: mem::take(&mut *self.info),
            summary,
            tcp: PerEndpoint::from_fn(|endpoint| tcp[endpoint].as_ref().map(tcp_summary)),
            close_notify: PerEndpoint::default(),
        });
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        if let Some(handshake) = self.handshake.take() {
            let cause = HandshakeFailure::ClientGone.as_str();
            self.journal.record_handshake(handshake.fail(self.route.name(), cause, None, None));
        }
        match self.state {
            GuardState::Handshake => self.route.handshake_failed(HandshakeFailure::ClientGone),
            GuardState::Open => self.report(FinishedSession { summary: Summary::lost(), tcp: PerEndpoint::default() }),
            GuardState::Reported => {}
        }
    }
}

fn tcp_summary(info: &TcpInfo) -> TcpSummary {
    TcpSummary { rtt: info.rtt, retransmits: info.retransmits }
}
