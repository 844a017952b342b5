//! The one place where a session's end is told.

use std::{sync::Arc, time::SystemTime};

use super::{session::Summary, tcp::TcpInfo};
use crate::{
    journal::{Journal, Record, SessionInfo, TcpSummary},
    metrics::{EndpointTraffic, HandshakeFailure, RouteMetrics, SessionClosed},
    websocket::{Endpoint, PerEndpoint},
};

/// A session's place in the counts. Whatever becomes of it, it is counted once: a ticket that is dropped before the
/// session was opened is a failed handshake, one that is dropped after is a session that closewatch cut.
#[derive(Debug)]
pub struct SessionGuard {
    about: Box<SessionInfo>,
    route: Arc<RouteMetrics>,
    journal: Arc<Journal>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Handshake,
    Open,
    Told,
}

impl SessionGuard {
    /// A ticket for a session whose 101 is on its way to the client.
    pub fn new(about: SessionInfo, route: Arc<RouteMetrics>, journal: Arc<Journal>) -> Self {
        Self { about: Box::new(about), route, journal, state: State::Handshake }
    }

    /// The session is open: its 101 is counted, and from now on its end will be.
    ///
    /// What is known of it is copied into this thread's part of the heap. Left where the handshake put it, it would pin
    /// the pages between the handshakes' large short-lived buffers: 3 KiB more for each idle session.
    pub(super) fn open(&mut self) {
        self.about = self.about.clone();
        self.route.session_opened();
        self.state = State::Open;
    }

    /// The counters in which a worker counts what an endpoint of this session sends.
    #[inline]
    pub(super) fn traffic(&self, worker: usize, from: Endpoint) -> &EndpointTraffic {
        &self.route.traffic(worker)[from]
    }

    /// The name of the session's route.
    pub(super) fn route(&self) -> &str {
        self.route.name()
    }

    /// The session is over: counts it and records it.
    pub(super) fn close(mut self, summary: Summary, tcp: PerEndpoint<Option<TcpInfo>>) {
        self.state = State::Told;
        self.tell(summary, tcp);
    }

    fn tell(&mut self, summary: Summary, tcp: PerEndpoint<Option<TcpInfo>>) {
        self.route.session_closed(&SessionClosed {
            ending: &summary.ending,
            duration: summary.duration,
            idle: summary.idle,
            close_handshake: summary.close_handshake,
        });
        let record = self.record(summary, tcp);
        self.journal.record(record);
    }

    fn record(&mut self, summary: Summary, tcp: PerEndpoint<Option<TcpInfo>>) -> Record {
        Record {
            time: SystemTime::now(),
            route: self.route.name().into(),
            about: std::mem::take(&mut *self.about),
            ending: summary.ending,
            duration: summary.duration,
            idle: summary.idle,
            sent: summary.sent,
            ping_rtt: summary.ping_rtt,
            tcp: PerEndpoint::from_fn(|endpoint| {
                tcp[endpoint].map(|info| TcpSummary { rtt: info.rtt, retransmits: info.retransmits })
            }),
            close_notify: PerEndpoint::default(),
        }
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        match self.state {
            State::Handshake => self.route.handshake_failed(HandshakeFailure::ClientGone),
            State::Open => self.tell(Summary::of_lost_session(), PerEndpoint::default()),
            State::Told => {}
        }
    }
}
