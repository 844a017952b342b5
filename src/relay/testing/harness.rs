//! A driver, its two simulated connections, and the time.

use std::{
    cell::RefMut,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    super::{
        backlog::Budget,
        driver::{Driver, ScheduledDrain, ThreadState},
        transport::{ReadBuffer, Ready, Transport},
    },
    sim_transport::{Fate, Sim, SimTransport},
};
use crate::{
    metrics::Traffic,
    session::{LegEnd, Policy, Session, Summary},
    websocket::{Endpoint, PerEndpoint, close_code::CloseText, closing_handshake::Action, conformance::Extensions},
};

/// [`Session::new`] takes the masking key from it. Its fifth byte, 0, leaves `max_age` as it is.
const RANDOM: u64 = 0x0403_0201;

/// More calls than any one event leads to.
const MOST_POLLS: usize = 10_000;

/// What the connections are like.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Like a socket: accepted bytes have left the process, and the end comes after the last bytes.
    #[default]
    Plain,
    /// Like TLS: accepted bytes leave the process when the socket is writable, the end of our stream needs two attempts,
    /// and the end of the endpoint's stream comes with the last bytes.
    Buffered,
}

/// How a leg ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LegOutcome {
    /// closewatch sent FIN.
    Finished,
    /// closewatch sent RST.
    Reset,
    /// The endpoint, or the network, ended it.
    Lost,
    /// closewatch released it at the end of the session, without a FIN before.
    Cut,
}

pub(crate) struct Harness {
    driver: Driver<SimTransport>,
    legs: PerEndpoint<SimTransport>,
    traffic: Arc<Traffic>,
    thread: ThreadState,
    buffer: ReadBuffer,
    kind: Kind,
}

impl Harness {
    /// A session that was opened just now, and whose endpoints take everything.
    pub(crate) fn new(policy: Policy, kind: Kind) -> Self {
        let now = Instant::now();
        let legs = PerEndpoint::from_fn(|_| SimTransport::new());
        for endpoint in Endpoint::BOTH {
            let mut sim = legs[endpoint].sim();
            let is_buffered = kind == Kind::Buffered;
            (sim.holds, sim.joins_end, sim.blocks_finish) = (is_buffered, is_buffered, is_buffered);
        }
        let traffic = Arc::new(Traffic::alone());
        let session = Session::new(Arc::new(policy), Extensions::None, now, RANDOM);
        let budget = Arc::new(Budget::new(u64::MAX));
        Self {
            driver: Driver::new(legs.clone(), session, Arc::clone(&traffic)),
            legs,
            traffic,
            thread: ThreadState { now, budget, backlogs: Arc::default(), dead_link_timeout: None },
            buffer: ReadBuffer::new(),
            kind,
        }
    }

    /// The connection of an endpoint.
    pub(crate) fn leg(&self, endpoint: Endpoint) -> RefMut<'_, Sim> {
        self.legs[endpoint].sim()
    }

    /// The bytes that were written to an endpoint, whether they have left the process or not.
    pub(crate) fn written(&self, to: Endpoint) -> Vec<u8> {
        let backlog = self.driver.leg(to).backlog.as_ref().map_or(&[][..], |backlog| backlog.as_slice());
        let sim = self.leg(to);
        [&sim.sent[..], &sim.held, backlog].concat()
    }

    /// Whether bytes that are written to an endpoint still get there.
    pub(crate) fn takes(&self, to: Endpoint) -> bool {
        let sim = self.leg(to);
        sim.fate == Fate::Open && !sim.is_lost && !self.driver.leg(to).is_lost
    }

    pub(crate) fn is_over(&self) -> bool {
        self.driver.is_over()
    }

    /// Whether an endpoint's bytes are dropped, because its Close frame goes to nobody.
    pub(crate) fn drops(&self, from: Endpoint) -> bool {
        self.driver.drops(from)
    }

    /// Whether an endpoint can still send, and end its leg by FIN.
    pub(crate) fn reads(&self, from: Endpoint) -> bool {
        self.driver.reads(from) && self.leg(from).incoming_end.is_none()
    }

    /// Bytes come from an endpoint.
    pub(crate) fn receive(&mut self, from: Endpoint, bytes: &[u8]) {
        assert!(self.reads(from), "the stream of {from:?} has ended");
        self.deliver(from, bytes);
    }

    /// Bytes come from an endpoint, perhaps with the end behind them.
    pub(crate) fn deliver(&mut self, from: Endpoint, bytes: &[u8]) {
        self.leg(from).incoming.extend_from_slice(bytes);
        self.event(from, Ready { readable: true, ..Ready::default() });
    }

    /// The bytes that left the process, and what closewatch made of the connection.
    #[cfg(test)]
    pub(crate) fn got(&self, endpoint: Endpoint) -> (Vec<u8>, Fate) {
        let sim = self.leg(endpoint);
        (sim.sent.clone(), sim.fate)
    }

    /// A connection takes bytes again.
    #[cfg(test)]
    pub(crate) fn writable(&mut self, to: Endpoint) {
        self.event(to, Ready { writable: true, ..Ready::default() });
    }

    /// An endpoint's leg ends.
    pub(crate) fn end(&mut self, endpoint: Endpoint, end: LegEnd) {
        let mut sim = self.leg(endpoint);
        sim.is_lost |= end != LegEnd::Fin;
        let follows_fin = sim.incoming_end == Some(LegEnd::Fin);
        drop(sim);
        if follows_fin || !self.driver.reads(endpoint) {
            // Nothing is read any more, so only an event reports it.
            return self.lose(endpoint, end);
        }
        self.leg(endpoint).incoming_end = Some(end);
        self.event(endpoint, Ready { readable: true, hung_up: true, ..Ready::default() });
    }

    /// The connection takes `room` bytes more, and then none.
    pub(crate) fn set_room(&mut self, to: Endpoint, room: usize) {
        self.leg(to).room = room;
        self.event(to, Ready { writable: room > 0, ..Ready::default() });
        self.await_reset();
    }

    /// An endpoint acknowledges the bytes that it got, or does not.
    pub(crate) fn acknowledge(&mut self, to: Endpoint, acknowledges: bool) {
        self.leg(to).is_silent = !acknowledges;
        self.await_reset();
    }

    /// The next byte to an endpoint meets an RST.
    pub(crate) fn kill(&mut self, to: Endpoint) {
        let mut sim = self.leg(to);
        sim.is_dead |= !sim.is_lost;
    }

    pub(crate) fn close(&mut self, text: CloseText) {
        self.driver.close(Action::Control, text, &self.thread);
        self.settle();
    }

    pub(crate) fn drain(&mut self, text: CloseText, within: Duration) {
        let (at, cut_at) = (self.thread.now, self.thread.now + within);
        self.driver.schedule_drain(ScheduledDrain { at, text, cut_at });
        self.wait(Duration::ZERO);
    }

    pub(crate) fn cut(&mut self) {
        self.driver.cut(Action::Drain, &self.thread);
    }

    /// Time passes. The driver is called at each of its deadlines, and once too early.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.thread.now + time;
        for _ in 0..MOST_POLLS {
            let due = self.driver.deadline().filter(|deadline| *deadline <= end && !self.is_over());
            self.thread.now = due.map_or(end, |deadline| deadline.max(self.thread.now));
            self.driver.on_deadline(&self.thread);
            self.settle();
            if due.is_none() {
                return;
            }
        }
        panic!("a deadline comes due again and again");
    }

    /// The counters of each endpoint's traffic.
    pub(crate) fn counts(&self) -> PerEndpoint<Vec<u64>> {
        self.traffic.counts()
    }

    /// The session is over: its summary, and how each leg ended.
    pub(crate) fn finish(mut self) -> (Summary, PerEndpoint<LegOutcome>, PerEndpoint<SimTransport>) {
        let before = PerEndpoint::from_fn(|endpoint| self.leg(endpoint).fate);
        let finished = self.driver.finish(&mut self.buffer, &self.thread);
        let legs = PerEndpoint::from_fn(|endpoint| {
            let sim = self.legs[endpoint].sim();
            match (before[endpoint], sim.fate) {
                _ if sim.is_lost => LegOutcome::Lost,
                (Fate::Reset, _) | (_, Fate::Reset) => LegOutcome::Reset,
                (Fate::Finished, _) => LegOutcome::Finished,
                (Fate::Open, _) => LegOutcome::Cut,
            }
        });
        (finished.summary, legs, self.legs)
    }

    /// A pending reset asks now and then if its leg is settled: if it is, time passes until it asks.
    fn await_reset(&mut self) {
        let pending = self.driver.pending_reset().filter(|_| !self.is_over());
        if let Some((endpoint, ask_at)) = pending
            && self.legs[endpoint].is_settled()
        {
            self.wait(ask_at.saturating_duration_since(self.thread.now));
        }
    }

    /// An event of a connection that is not read any more reports its loss.
    fn lose(&mut self, endpoint: Endpoint, end: LegEnd) {
        self.leg(endpoint).loss_event = Some(end);
        self.event(endpoint, Ready { error: true, ..Ready::default() });
    }

    fn event(&mut self, endpoint: Endpoint, ready: Ready) {
        self.driver.on_event(endpoint, ready, &self.thread);
        self.settle();
    }

    /// Runs the driver until it has nothing more to do, as the relay thread does.
    fn settle(&mut self) {
        for _ in 0..MOST_POLLS {
            let has_flushed = self.flush_buffered();
            if !has_flushed && !self.driver.has_work(&self.thread) {
                return;
            }
            self.driver.poll_once(&mut self.buffer, &self.thread);
        }
        panic!("the driver never rests");
    }

    /// A buffered connection that takes bytes is writable at once. Returns whether that was of use.
    fn flush_buffered(&mut self) -> bool {
        let mut has_flushed = false;
        for endpoint in Endpoint::BOTH {
            let leg = self.driver.leg(endpoint);
            let waits = leg.is_finishing || (leg.waits_for_writable() && self.leg(endpoint).room > 0);
            if self.kind == Kind::Buffered && waits && !self.is_over() {
                self.driver.on_event(endpoint, Ready { writable: true, ..Ready::default() }, &self.thread);
                has_flushed = true;
            }
        }
        has_flushed
    }
}
