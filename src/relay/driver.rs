//! The owner of one session's two connections. It reports what happens on them to the session core, and carries out what
//! the core asks for.
//!
//! Every way into the session core leads through [`Driver::event`], which carries out the core's commands afterwards. The
//! driver knows nothing of sockets but the [`Transport`] trait, so the tests and the fuzzer run the order of calls that
//! production runs.

use std::{
    mem,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use super::{
    backlog::{Accounts, Backlog, Budget},
    leg::{Leg, PendingEnd},
    liveness::{LinkState, look_interval},
    transport::{Data, Loss, Read, ReadBuffer, ReadEnd, Ready, TcpInfo, Transport},
};
use crate::{
    metrics::Traffic,
    session::{Forward, LegEnd, Release, Session, SessionCommand, Summary},
    websocket::{Endpoint, PerEndpoint, close_code::CloseText, closing_handshake::Action},
};

/// The size of reads once the process holds more than its budget: for a direction that was blocked, and for the others.
const SMALL_READ: usize = 4 * 1024;
const MODEST_READ: usize = 16 * 1024;

/// How often the kernel is asked, at first, whether a leg that is to be reset has acknowledged everything.
const ACKNOWLEDGED_POLL: Duration = Duration::from_millis(5);

/// The state that the sessions of one relay thread share.
#[derive(Debug)]
pub(super) struct ThreadState {
    /// When the last wait ended: one reading of the clock for all events that came together.
    pub(super) now: Instant,
    pub(super) budget: Arc<Budget>,
    /// How many backlogs the thread's sessions have.
    pub(super) backlogs: Arc<AtomicUsize>,
    /// How long data may stay unacknowledged. `None`: as long as the kernel tries.
    pub(super) dead_link_timeout: Option<Duration>,
}

/// One session and its connections. The fields that every message touches come first.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Driver<T> {
    legs: PerEndpoint<Leg<T>>,
    session: Session,
    /// The counters of the session's route that this thread alone writes.
    traffic: Arc<Traffic>,
    drain: Option<Box<ScheduledDrain>>,
    reset: Option<Box<PendingReset>>,
    /// A deadline was set that may come before the one that [`Driver::earlier_deadline`] returned last.
    has_new_deadline: bool,
}

/// When and how a drain closes a session.
#[derive(Debug, Clone)]
pub(super) struct ScheduledDrain {
    /// When the Close frames are written.
    pub(super) at: Instant,
    pub(super) text: CloseText,
    /// When the session is terminated.
    pub(super) cut_at: Instant,
}

/// A leg that is reset as soon as it has acknowledged everything.
#[derive(Debug, Clone, Copy)]
struct PendingReset {
    endpoint: Endpoint,
    since: Instant,
    ask_at: Instant,
}

/// The facts of a finished session.
#[derive(Debug)]
pub(super) struct FinishedSession {
    pub(super) summary: Summary,
    /// The kernel's view of each leg at the end.
    pub(super) tcp: PerEndpoint<Option<TcpInfo>>,
}

impl<T: Transport> Driver<T> {
    pub(super) fn new(transports: PerEndpoint<T>, session: Session, traffic: Arc<Traffic>) -> Self {
        let PerEndpoint { client, server } = transports;
        Self {
            legs: PerEndpoint { client: Leg::new(client), server: Leg::new(server) },
            session,
            traffic,
            drain: None,
            reset: None,
            has_new_deadline: true,
        }
    }

    /// Bytes that an endpoint sent directly after its part of the opening handshake.
    pub(super) fn on_early_data(&mut self, from: Endpoint, bytes: &[u8], thread: &ThreadState) {
        if !bytes.is_empty() {
            self.event(thread, |driver| driver.forward(from, bytes.into(), thread));
        }
    }

    /// The kernel reported an event of a leg.
    #[inline]
    pub(super) fn on_event(&mut self, endpoint: Endpoint, ready: Ready, thread: &ThreadState) {
        match self.legs[endpoint].transport.on_ready(ready) {
            Some(loss) => self.event(thread, |driver| driver.on_loss(endpoint, loss, thread)),
            None if ready.writable && self.legs[endpoint].waits_for_writable() => {
                self.event(thread, |driver| driver.on_writable(endpoint, thread));
            }
            None => {}
        }
    }

    /// A deadline of the session may have passed.
    pub(super) fn on_deadline(&mut self, thread: &ThreadState) {
        self.event(thread, |driver| driver.run_deadlines(thread));
    }

    /// Reads at most once from each leg.
    #[inline]
    pub(super) fn poll_once(&mut self, buffer: &mut ReadBuffer, thread: &ThreadState) {
        for from in Endpoint::BOTH {
            if let Some(limit) = self.may_read(from, thread) {
                self.event(thread, |driver| driver.read(from, limit, buffer, thread));
            }
        }
    }

    /// Whether [`Driver::poll_once`] would read something.
    #[inline]
    pub(super) fn has_work(&self, thread: &ThreadState) -> bool {
        Endpoint::BOTH.into_iter().any(|from| self.may_read(from, thread).is_some())
    }

    /// The next deadline, if it may come before the one returned last. The deadlines of an open session only ever move
    /// back.
    #[inline]
    pub(super) fn earlier_deadline(&mut self) -> Option<Instant> {
        let may_be_earlier = mem::take(&mut self.has_new_deadline) || self.session.is_closing();
        may_be_earlier.then(|| self.deadline()).flatten()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        [
            self.session.poll_timeout(),
            self.legs.client.deadline(),
            self.legs.server.deadline(),
            self.reset.as_ref().map(|reset| reset.ask_at),
            self.drain.as_ref().map(|drain| drain.at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Closes the session for a drain, when its time comes.
    pub(super) fn schedule_drain(&mut self, drain: ScheduledDrain) {
        self.drain = Some(Box::new(drain));
        self.has_new_deadline = true;
    }

    /// Closes the session with a Close frame.
    pub(super) fn close(&mut self, action: Action, text: CloseText, thread: &ThreadState) {
        self.event(thread, |driver| driver.session.close(action, text, thread.now));
    }

    /// Terminates the session.
    pub(super) fn cut(&mut self, action: Action, thread: &ThreadState) {
        self.event(thread, |driver| driver.session.cut(action, thread.now));
    }

    /// Whether [`Driver::close`] would do nothing, because the session closes already.
    pub(super) fn is_closing(&self) -> bool {
        self.session.is_closing()
    }

    /// Whether the session is over: [`Driver::finish`] is next.
    pub(super) fn is_over(&self) -> bool {
        self.session.is_over()
    }

    /// Counts the time for which bytes have waited for slow readers so far.
    pub(super) fn count_waits(&mut self, now: Instant) {
        for to in Endpoint::BOTH {
            if let Some(backlog) = &mut self.legs[to].backlog {
                backlog.count_wait(now);
            }
        }
    }

    /// Lets go of the connections.
    pub(super) fn finish(mut self, buffer: &mut ReadBuffer, thread: &ThreadState) -> FinishedSession {
        let tcp = PerEndpoint::from_fn(|endpoint| self.legs[endpoint].transport.tcp_info());
        for endpoint in Endpoint::BOTH {
            self.drop_backlog(endpoint, thread);
            let release = self.session.release(endpoint);
            let transport = &mut self.legs[endpoint].transport;
            match release {
                Release::Reset => transport.abort(),
                Release::Close => {}
                Release::Drain => transport.discard_input(buffer),
                Release::FinishAndDrain => {
                    // The endpoint may send faster than this reads: the FIN must come before the RST that answers later bytes.
                    let _ = transport.finish();
                    transport.discard_input(buffer);
                }
            }
        }
        FinishedSession { summary: self.session.into_summary(thread.now), tcp }
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn drops(&self, from: Endpoint) -> bool {
        !self.session.passes(from)
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn pending_reset(&self) -> Option<(Endpoint, Instant)> {
        self.reset.as_ref().map(|reset| (reset.endpoint, reset.ask_at))
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn leg(&self, endpoint: Endpoint) -> &Leg<T> {
        &self.legs[endpoint]
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn reads(&self, from: Endpoint) -> bool {
        !self.is_over() && self.session.reads(from)
    }

    /// The only way into the session core: an event, and then everything that the core asks for because of it.
    #[inline]
    fn event(&mut self, thread: &ThreadState, event: impl FnOnce(&mut Self)) {
        if !self.is_over() {
            event(self);
            // An open session asks for nothing.
            if self.session.is_closing() {
                self.run_commands(thread);
            }
        }
    }

    #[inline(never)]
    fn run_commands(&mut self, thread: &ThreadState) {
        while let Some(command) = self.session.poll_command(thread.now) {
            match command {
                SessionCommand::WriteClose(to, bytes) => self.write(to, bytes[..].into(), thread),
                SessionCommand::Finish(to) => self.finish_writing(to),
                SessionCommand::Reset(to) => self.reset(to, thread),
                SessionCommand::Over => return,
            }
        }
    }

    fn run_deadlines(&mut self, thread: &ThreadState) {
        let now = thread.now;
        if let Some(drain) = self.drain.take_if(|drain| drain.at <= now) {
            let ScheduledDrain { text, cut_at, .. } = *drain;
            self.session.drain(text, cut_at, now);
        }
        for endpoint in Endpoint::BOTH {
            self.run_leg_deadlines(endpoint, thread);
        }
        if let Some(reset) = self.reset.as_deref().copied()
            && reset.ask_at <= now
        {
            self.reset(reset.endpoint, thread);
        }
        self.session.handle_timeout(now, self.held_back(thread));
    }

    fn run_leg_deadlines(&mut self, endpoint: Endpoint, thread: &ThreadState) {
        let leg = &mut self.legs[endpoint];
        if let Some(backlog) = &mut leg.backlog {
            backlog.handle_timeout(thread.now);
        }
        if leg.check_at.is_some_and(|at| at <= thread.now) {
            self.check_liveness(endpoint, thread);
        }
        if let Some(PendingEnd { end, since, .. }) = self.legs[endpoint].given_up_end(thread.now) {
            self.leg_ended(endpoint, end, since, thread);
            self.session.give_up(thread.now, self.held_back(thread));
        }
    }

    /// For each endpoint, whether its bytes wait unread because the other endpoint does not read.
    fn held_back(&self, thread: &ThreadState) -> PerEndpoint<bool> {
        PerEndpoint::from_fn(|from| {
            self.legs[from].can_read() && self.session.reads(from) && self.read_limit(from, thread) == 0
        })
    }

    /// How much may be read from an endpoint, if it has something to read, and there is room for it.
    #[inline]
    fn may_read(&self, from: Endpoint, thread: &ThreadState) -> Option<usize> {
        if !self.legs[from].can_read() || !self.session.reads(from) || self.is_over() {
            return None;
        }
        let limit = self.read_limit(from, thread).min(ReadBuffer::SIZE);
        (limit > 0).then_some(limit)
    }

    /// How much may be read from an endpoint at once. If its reader stays slow, the sender is read on while the buffer has
    /// room, because its Close frame may come next; at once if the sender has hung up. Once the process holds more than its
    /// budget, a blocked direction is not read, one that was blocked is read in small pieces, and the others in pieces of
    /// which little can remain.
    fn read_limit(&self, from: Endpoint, thread: &ThreadState) -> usize {
        let to = &self.legs[from.other()];
        // Bytes that are dropped need no room behind the backlog.
        let backlog = to.backlog.as_ref().filter(|_| self.session.passes(from));
        let mut limit = self.session.policy().buffer_bytes;
        if let Some(backlog) = backlog {
            if backlog.read_on_at().is_some() && !self.legs[from].has_hung_up() {
                return 0;
            }
            limit = limit.saturating_sub(backlog.as_slice().len());
        }
        if !thread.budget.is_exceeded() {
            return limit;
        }
        match backlog {
            Some(_) => 0,
            None if to.was_blocked => limit.min(SMALL_READ),
            None => limit.min(MODEST_READ),
        }
    }

    #[inline]
    fn read(&mut self, from: Endpoint, limit: usize, buffer: &mut ReadBuffer, thread: &ThreadState) {
        let Read { data, end } = self.legs[from].transport.read(buffer, limit);
        let is_empty = data.bytes.is_empty();
        if !is_empty {
            self.forward(from, data, thread);
        }
        if buffer.empty_pipe() {
            self.legs[from].transport.pause_splice();
        }
        match end {
            Some(ReadEnd::Ended(end)) => self.on_read_end(from, end, thread),
            Some(ReadEnd::Lost(loss)) => self.on_loss(from, loss, thread),
            None if is_empty => self.on_read_nothing(from, thread),
            None => {}
        }
    }

    /// Everything that the endpoint sent was read. A leg that was found dead before ends as it was found.
    #[cold]
    fn on_read_end(&mut self, from: Endpoint, end: LegEnd, thread: &ThreadState) {
        let pending = self.legs[from].pending_end.take();
        if pending.as_ref().is_none_or(|pending| end == LegEnd::Fin && pending.behind_fin) {
            self.leg_ended(from, end, thread.now, thread);
        }
        if let Some(pending) = pending {
            // The FIN came first, and is passed on first.
            self.run_commands(thread);
            self.leg_ended(from, pending.end, pending.since, thread);
        }
    }

    /// Nothing is left to read. A leg that was found dead before ends now.
    #[cold]
    fn on_read_nothing(&mut self, from: Endpoint, thread: &ThreadState) {
        if let Some(pending) = self.legs[from].pending_end.take() {
            self.leg_ended(from, pending.end, pending.since, thread);
        }
    }

    /// Passes the bytes of a read on, as far as the session lets them pass.
    #[inline]
    fn forward(&mut self, from: Endpoint, data: Data<'_>, thread: &ThreadState) {
        let Data { bytes, pipe } = data;
        let Forward { withheld, keep } = self.session.handle_data(from, bytes, thread.now, &self.traffic[from]);
        if !withheld.as_slice().is_empty() {
            self.write(from.other(), withheld.as_slice().into(), thread);
        }
        self.write(from.other(), Data { bytes: &bytes[..keep], pipe }, thread);
    }

    #[cold]
    fn leg_ended(&mut self, endpoint: Endpoint, end: LegEnd, since: Instant, thread: &ThreadState) {
        self.legs[endpoint].pending_end = None;
        let Forward { withheld, .. } = self.session.handle_end(endpoint, end, since, thread.now);
        if end != LegEnd::Fin {
            self.legs[endpoint].is_lost = true;
            self.legs[endpoint].check_at = None;
            self.drop_backlog(endpoint, thread);
        }
        self.write(endpoint.other(), withheld.as_slice().into(), thread);
    }

    #[inline]
    fn write(&mut self, to: Endpoint, data: Data<'_>, thread: &ThreadState) {
        let bytes = data.bytes;
        let leg = &mut self.legs[to];
        if bytes.is_empty() || leg.is_lost {
            return;
        }
        if let Some(backlog) = &mut leg.backlog {
            backlog.push(bytes);
            return;
        }
        let written = leg.transport.write(data);
        leg.was_blocked = written.accepted < bytes.len();
        self.on_accepted(to, thread);
        if let Some(loss) = written.loss {
            self.on_loss(to, loss, thread);
        } else if written.accepted < bytes.len() {
            self.keep(to, &bytes[written.accepted..], thread);
        }
    }

    /// The transport accepted bytes: soon they must be acknowledged. Those that have left the process count as written.
    #[inline]
    fn on_accepted(&mut self, to: Endpoint, thread: &ThreadState) {
        let leg = &mut self.legs[to];
        self.session.handle_written(to, leg.transport.take_committed(), thread.now);
        if leg.check_at.is_none() {
            leg.check_at = thread.dead_link_timeout.map(|timeout| thread.now + look_interval(timeout));
            self.has_new_deadline = true;
        }
    }

    /// Keeps bytes that the transport did not accept.
    #[cold]
    fn keep(&mut self, to: Endpoint, bytes: &[u8], thread: &ThreadState) {
        let accounts = Accounts {
            budget: Arc::clone(&thread.budget),
            backlogs: Arc::clone(&thread.backlogs),
            traffic: Arc::clone(&self.traffic),
            sender: to.other(),
        };
        self.legs[to].backlog = Some(Box::new(Backlog::new(bytes, accounts, thread.now)));
        self.has_new_deadline = true;
    }

    /// The connection takes bytes again: first those that the transport has accepted, then the backlog, then the FIN.
    fn on_writable(&mut self, to: Endpoint, thread: &ThreadState) {
        let leg = &mut self.legs[to];
        if leg.transport.wants_write() {
            let loss = leg.transport.flush();
            self.on_accepted(to, thread);
            if let Some(loss) = loss {
                return self.on_loss(to, loss, thread);
            }
        }
        self.write_backlog(to, thread);
        if self.legs[to].is_finishing {
            self.finish_writing(to);
        }
    }

    /// Sends the end of our stream, or remembers to.
    fn finish_writing(&mut self, to: Endpoint) {
        let leg = &mut self.legs[to];
        leg.is_finishing = leg.transport.finish().is_pending();
        if !leg.is_finishing {
            self.session.handle_finished(to);
        }
    }

    fn write_backlog(&mut self, to: Endpoint, thread: &ThreadState) {
        let leg = &mut self.legs[to];
        let Some(backlog) = &mut leg.backlog else { return };
        let written = leg.transport.write(backlog.as_slice().into());
        backlog.advance(written.accepted);
        if backlog.as_slice().is_empty() {
            self.drop_backlog(to, thread);
        }
        self.on_accepted(to, thread);
        if let Some(loss) = written.loss {
            self.on_loss(to, loss, thread);
        }
    }

    fn drop_backlog(&mut self, to: Endpoint, thread: &ThreadState) {
        if let Some(mut backlog) = self.legs[to].backlog.take() {
            backlog.count_wait(thread.now);
        }
    }

    /// A leg was found dead other than by reading it. The kernel reports that only once, so the bytes that the endpoint sent
    /// before are read first, and then the end is reported as it was found here.
    #[cold]
    fn on_loss(&mut self, endpoint: Endpoint, loss: Loss, thread: &ThreadState) {
        self.session.handle_loss(endpoint);
        self.drop_backlog(endpoint, thread);
        if !self.session.reads(endpoint) {
            return self.leg_ended(endpoint, loss.end, thread.now, thread);
        }
        let give_up_at = self.session.policy().close.and_then(|wait| thread.now.checked_add(wait));
        let leg = &mut self.legs[endpoint];
        leg.is_lost = true;
        leg.pending_end.get_or_insert_with(|| Box::new(PendingEnd::new(loss, thread.now, give_up_at)));
        leg.check_at = None;
        self.has_new_deadline = true;
    }

    fn check_liveness(&mut self, endpoint: Endpoint, thread: &ThreadState) {
        let Some(timeout) = thread.dead_link_timeout else { return };
        let leg = &mut self.legs[endpoint];
        match leg.liveness.judge(leg.transport.tcp_info(), timeout, thread.now) {
            LinkState::Settled => leg.check_at = None,
            LinkState::Waiting => {
                // A link that comes back must be noticed before the time is up, and a dead peer with a closed window too.
                leg.transport.limit_backoff(look_interval(timeout));
                leg.check_at = Some(thread.now + look_interval(timeout));
            }
            LinkState::Dead => {
                // An error that a router reported proves nothing while the link lives; of a dead link, it says why.
                let loss = leg.transport.take_error().map_or(Loss::TIMEOUT, Loss::from);
                self.on_loss(endpoint, loss, thread);
            }
        }
    }

    /// Resets a leg, once that can lose none of the bytes written to it.
    fn reset(&mut self, to: Endpoint, thread: &ThreadState) {
        let transport = &mut self.legs[to].transport;
        if transport.is_settled() {
            transport.abort();
            self.session.handle_reset(to);
            self.reset = None;
        } else {
            let since = self.reset.as_ref().map_or(thread.now, |reset| reset.since);
            // A crash of the server leaves many of these at once, and a slow reader leaves one for long.
            let wait = ACKNOWLEDGED_POLL.max(thread.now.saturating_duration_since(since) / 8);
            self.reset = Some(Box::new(PendingReset { endpoint: to, since, ask_at: thread.now + wait }));
        }
    }
}
