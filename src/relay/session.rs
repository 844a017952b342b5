//! One session, without its sockets: told what was read, what was written and what time it is, it says what may pass,
//! what to write, how to end each leg, and when to be woken.
//!
//! # Design
//!
//! A session is two lanes, one for what each endpoint sends, and the one [`ClosingHandshake`] that both touch at
//! Close frames and ends only. Bytes are never copied here: [`Session::receive`] looks at them where the socket put
//! them and says how many of them pass. What is to be done besides (a Close frame put in, a FIN, an RST, the end) is
//! asked for with [`Session::poll`] after every event, so every race of bytes, FIN, RST, timers and drain is a sequence
//! of calls in a test. The design left out, a state machine that owns its buffers and hands out what to write, would
//! have cost a copy of every byte for the sake of the few sessions in which closewatch writes anything of its own.

mod put_in;
mod receiving;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod schedule;
#[cfg(any(test, feature = "fuzzing"))]
mod simulation;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    lane::{Lane, LegEnd, Outlet, Passage, Put},
    policy::Policy,
};
use crate::{
    journal::Sent,
    websocket::{
        Endpoint, PerEndpoint,
        close_code::{CloseCode, CloseText},
        closing_handshake::{Action, Cause, ClosingHandshake, Ending},
        conformance::Extensions,
    },
};

/// What the owner of the sockets is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Write these bytes, closewatch's own Close frame, to this endpoint, behind what is queued for it.
    PutClose(Endpoint, Vec<u8>),
    /// Shut down writing to this endpoint (FIN). Everything queued for it has been written.
    Finish(Endpoint),
    /// Reset this endpoint's leg as soon as it has acknowledged what was written; then say [`Session::reset_done`].
    Reset(Endpoint),
    /// Both legs are over: let go of the sockets and take the [`Summary`].
    Over,
}

/// What is told of a session when it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How and why.
    pub ending: Ending,
    /// From the 101 to the end of both legs.
    pub duration: Duration,
    /// From the last byte relayed, Close frames aside, to the first Close frame or the end of a leg.
    pub idle: Duration,
    /// From the first Close frame to the answering one.
    pub close_handshake: Option<Duration>,
    /// What each endpoint sent.
    pub sent: PerEndpoint<Sent>,
    /// The last round trip of a Ping to each endpoint.
    pub ping_rtt: PerEndpoint<Option<Duration>>,
}

/// A session between its 101 and the end of both legs.
///
/// What every message touches comes first, in one line of the processor's cache, and then what it touches of its lane.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Session {
    policy: Arc<Policy>,
    /// The Close frame that closewatch means to put into the legs, and why.
    put_in: Option<Box<(Action, CloseText)>>,
    last_byte: Instant,
    over: Option<Instant>,
    closing: ClosingHandshake,
    /// By sender.
    lanes: PerEndpoint<Lane>,
    /// The masking key of closewatch's own Close frame toward the server.
    mask: [u8; 4],
    opened: Instant,
    expires: Option<Instant>,
    /// When a leg was found dead of which the end is still to be told.
    found_dead: Option<Instant>,
    begun: Option<Begun>,
    close_handshake: Option<Duration>,
    /// When an awaited answer, or the end of the other leg, is given up.
    close_deadline: Option<Instant>,
    /// When a complete closing handshake is ended without the endpoints.
    hang_up_deadline: Option<Instant>,
    /// When a drain cuts the session.
    cut_deadline: Option<Instant>,
}

/// When the first Close frame or the end of a leg came, and for how long nothing had passed then.
#[derive(Debug, Clone, Copy)]
struct Begun {
    at: Instant,
    idle: Duration,
}

impl Summary {
    /// Of a session that was lost with the thread that carried it.
    pub(super) fn of_lost_session() -> Self {
        Self {
            ending: ClosingHandshake::default().into_ending(),
            duration: Duration::ZERO,
            idle: Duration::ZERO,
            close_handshake: None,
            sent: PerEndpoint::default(),
            ping_rtt: PerEndpoint::default(),
        }
    }
}

impl Session {
    /// A session whose 101 has been sent. `random` masks a Close frame of closewatch's own toward the server, and
    /// spreads `max_age`.
    pub fn new(policy: Arc<Policy>, extensions: Extensions, opened: Instant, random: u64) -> Self {
        let [a, b, c, d, spread, ..] = random.to_le_bytes();
        let expires = after(opened, policy.max_age.map(|age| age / 2560 * (2560 - u32::from(spread))));
        Self {
            policy,
            lanes: PerEndpoint::from_fn(|sender| Lane::new(sender, extensions)),
            closing: ClosingHandshake::default(),
            put_in: None,
            mask: [a, b, c, d],
            opened,
            expires,
            last_byte: opened,
            found_dead: None,
            begun: None,
            close_handshake: None,
            close_deadline: None,
            hang_up_deadline: None,
            cut_deadline: None,
            over: None,
        }
    }

    /// An endpoint's leg ended: everything that it sent before has been received. A lost leg takes no more bytes.
    /// It may be told twice of one leg: a FIN, then a write that met its RST. What was held back may pass now.
    pub fn ended(&mut self, endpoint: Endpoint, end: LegEnd, now: Instant) -> Passage {
        self.abandon_put_in();
        let lane = &mut self.lanes[endpoint];
        if lane.is_lost() || lane.ended == Some(end) {
            return Passage::default();
        }
        let half_closed = lane.ended.replace(end).is_some();
        lane.sent_fin |= end == LegEnd::Fin;
        if lane.put == Put::Wanted {
            // Half a frame stands in the other leg for good: no Close frame can follow it.
            lane.put = Put::No;
        }
        let whole_frames = lane.decoder.at_boundary();
        if end != LegEnd::Fin {
            self.lanes[endpoint.other()].outlet = Outlet::Gone;
            self.await_end(now);
        }
        let first = !self.closing.has_begun();
        self.closing.leg_ended(endpoint, cause(end, whole_frames));
        self.begin(self.found_dead.filter(|_| end != LegEnd::Fin).unwrap_or(now));
        let told = first && self.tell_loss(endpoint, now);
        self.settle(now);
        if told || half_closed { Passage::default() } else { self.release_held(endpoint) }
    }

    /// The kernel took `count` more bytes toward an endpoint.
    pub fn written(&mut self, to: Endpoint, count: usize, now: Instant) {
        let lane = &mut self.lanes[to.other()];
        lane.written += count as u64;
        if lane.close_end.take_if(|end| *end <= lane.written).is_some() {
            match lane.put {
                Put::Done => self.closing.put_in_delivered(to),
                Put::No | Put::Wanted | Put::Ready => self.closing.close_delivered(to),
            }
            self.settle(now);
        }
    }

    /// An endpoint's leg was found dead other than by reading it: nothing more can be delivered to it. What it sent
    /// before is still to be read, and then its end to be told, as of now.
    pub fn found_dead(&mut self, endpoint: Endpoint, now: Instant) {
        self.lanes[endpoint.other()].outlet = Outlet::Gone;
        self.found_dead.get_or_insert(now);
    }

    /// The leg of [`Command::Reset`] was reset.
    pub fn reset_done(&mut self, endpoint: Endpoint) {
        self.lanes[endpoint.other()].outlet = Outlet::Gone;
    }

    /// Closes the session by a Close frame on both legs, each at the end of the frame that it stands in. A session that
    /// is on its way out gets none: one whose closing handshake has begun, and one of which a leg has ended. So it is
    /// with what comes first while both legs wait for the end of a frame. A leg in which half of an endpoint's Close
    /// frame has passed gets the other half, and none of closewatch's behind it.
    pub fn close(&mut self, action: Action, text: CloseText, now: Instant) {
        if !self.is_closing() {
            self.await_end(now);
            self.put_in(action, text, now);
        }
    }

    /// Closes the session as [`Session::close`] does, for a drain: what is left of it at `cut_at` is cut.
    pub fn drain(&mut self, text: CloseText, cut_at: Instant, now: Instant) {
        self.cut_deadline = Some(cut_at);
        // One that comes when all is to be cut would be told to have got a Close frame that nobody has time to write.
        if !self.is_closing() && now < cut_at {
            self.put_in(Action::Drain, text, now);
        }
    }

    /// Ends the session at once, whatever its state.
    pub fn cut(&mut self, action: Action, now: Instant) {
        self.closing.cut(action);
        self.begin(now);
        self.over.get_or_insert(now);
    }

    /// When [`Session::wake`] is to be called, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let begun = self.begun.is_some() || self.put_in.is_some();
        let own = if begun {
            earliest(self.close_deadline, self.hang_up_deadline)
        } else {
            earliest(after(self.last_byte, self.policy.idle), self.expires)
        };
        earliest(own, self.cut_deadline)
    }

    /// Time has passed: acts on what is due.
    pub fn wake(&mut self, now: Instant) {
        let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if due(self.hang_up_deadline) {
            self.over.get_or_insert(now);
        } else if due(self.cut_deadline) {
            self.cut(Action::Drain, now);
        } else if self.begun.is_some() || self.put_in.is_some() {
            if due(self.close_deadline) {
                self.give_up(now);
            }
        } else if due(after(self.last_byte, self.policy.idle)) {
            self.close(Action::IdleTimeout, CloseText::code(CloseCode::GOING_AWAY), now);
        } else if due(self.expires) {
            self.close(Action::MaxAge, CloseText::code(CloseCode::GOING_AWAY), now);
        }
    }

    /// What is to be done next: to be asked after every event until there is nothing. Before a session is closing, that is
    /// nothing.
    pub fn poll(&mut self, now: Instant) -> Option<Command> {
        if self.over.is_some() {
            return Some(Command::Over);
        }
        if !self.is_closing() {
            return None;
        }
        let command =
            Endpoint::BOTH.into_iter().find_map(|to| self.put_close(to).or_else(|| self.end_writing(to, now)));
        if command.is_none() && self.is_over() {
            self.over = Some(now);
            return Some(Command::Over);
        }
        command
    }

    /// Whether a Close frame or the end of a leg was seen, or closewatch has begun to close the session.
    #[inline]
    pub fn is_closing(&self) -> bool {
        self.closing.has_begun() || self.put_in.is_some()
    }

    /// Whether an endpoint's leg still takes bytes, and closewatch has sent no FIN.
    pub fn writes(&self, to: Endpoint) -> bool {
        self.lanes[to.other()].outlet == Outlet::Open
    }

    /// Whether what an endpoint sends is still to be read.
    pub fn reads(&self, from: Endpoint) -> bool {
        self.lanes[from].ended.is_none()
    }

    /// Whether this endpoint's leg, where closewatch ends it now, is to be reset: the other endpoint was lost, and this
    /// one was delivered no Close frame, behind which a browser would take an RST for a 1006. That one has sent FIN
    /// before it was lost changes nothing for the other, unless that has ended too.
    pub fn ends_by_reset(&self, endpoint: Endpoint) -> bool {
        let lane = &self.lanes[endpoint.other()];
        let can_be_reset = match lane.outlet {
            Outlet::Open | Outlet::Resetting => true,
            Outlet::Finished => self.reads(endpoint),
            Outlet::Gone => false,
        };
        lane.is_lost() && can_be_reset && lane.put != Put::Done && !self.closing.was_delivered_close(endpoint)
    }

    /// What is told of the session, now that it is over. One that is not is cut.
    pub fn finish(mut self, now: Instant) -> Summary {
        if self.over.is_none() {
            self.cut(Action::Drain, now);
        }
        let over = self.over.unwrap_or(now);
        Summary {
            duration: over.saturating_duration_since(self.opened),
            idle: self.begun.map_or(Duration::ZERO, |begun| begun.idle),
            close_handshake: self.close_handshake,
            sent: PerEndpoint::from_fn(|from| Sent {
                violations: self.lanes[from].conformance.seen(),
                ..self.lanes[from].sent
            }),
            ping_rtt: PerEndpoint::from_fn(|to| self.lanes[to.other()].ping.last_round_trip),
            ending: self.closing.into_ending(),
        }
    }

    fn begin(&mut self, now: Instant) {
        self.begun.get_or_insert(Begun { at: now, idle: now.saturating_duration_since(self.last_byte) });
    }

    /// After a step of the closing handshake: is there an answer, is it complete?
    fn settle(&mut self, now: Instant) {
        let answered = Endpoint::BOTH.into_iter().all(|endpoint| self.closing.has_sent_close(endpoint));
        if let Some(begun) = self.begun
            && answered
            && self.closing.began_with_close()
        {
            self.close_handshake.get_or_insert(now.saturating_duration_since(begun.at));
        }
        let nothing_owed = self.closing.is_complete()
            || self.put_in.is_some()
                && Endpoint::BOTH
                    .into_iter()
                    .all(|endpoint| self.closing.has_sent_close(endpoint) || self.lanes[endpoint].ended.is_some());
        if nothing_owed && self.hang_up_deadline.is_none() {
            self.close_deadline = None;
            self.hang_up_deadline = after(now, self.policy.hang_up);
        }
    }

    /// Sets the time to give up an answer or the end of a leg, once. A drain has a deadline of its own.
    fn await_end(&mut self, now: Instant) {
        let drained = self.put_in.as_ref().is_some_and(|put_in| put_in.0 == Action::Drain);
        if self.close_deadline.is_none() && self.hang_up_deadline.is_none() && !drained {
            self.close_deadline = after(now, self.policy.close);
        }
    }

    /// Ends the session where it stands: `timeouts.close` has passed, and what is awaited did not come.
    pub(super) fn give_up(&mut self, now: Instant) {
        if let Some(put_in) = &self.put_in
            && !self.closing.has_begun()
        {
            // Both legs stand inside a frame whose sender stopped: neither could get the Close frame.
            self.closing.cut(put_in.0);
            self.begin(now);
        }
        self.closing.close_timed_out();
        self.over.get_or_insert(now);
    }

    fn end_writing(&mut self, to: Endpoint, now: Instant) -> Option<Command> {
        let from = to.other();
        let lane = &self.lanes[from];
        let may_end = matches!(lane.outlet, Outlet::Open | Outlet::Finished);
        if !may_end || !lane.is_flushed() || !self.ends_writing(to) {
            return None;
        }
        // What came first is passed on first: a FIN, though an RST has followed it meanwhile.
        let owes_fin = lane.sent_fin && lane.outlet == Outlet::Open;
        if self.ends_by_reset(to) && !owes_fin {
            self.lanes[from].outlet = Outlet::Resetting;
            return Some(Command::Reset(to));
        }
        if lane.outlet == Outlet::Finished {
            return None;
        }
        self.lanes[from].outlet = Outlet::Finished;
        self.await_end(now);
        Some(Command::Finish(to))
    }

    /// Whether there is nothing more to say to an endpoint, once what is queued for it is written.
    fn ends_writing(&self, to: Endpoint) -> bool {
        let lane = &self.lanes[to.other()];
        let ended = |endpoint: Endpoint| self.lanes[endpoint].ended.is_some();
        match lane.put {
            // Like any endpoint that was answered, closewatch closes its side then.
            Put::Done => self.closing.has_sent_close(to) || ended(to),
            Put::Wanted | Put::Ready => false,
            Put::No => ended(to.other()) || (self.closing.is_complete() && ended(to)),
        }
    }

    fn is_over(&self) -> bool {
        let silent = |to: Endpoint| matches!(self.lanes[to.other()].outlet, Outlet::Finished | Outlet::Gone);
        let ended = |endpoint: Endpoint| self.lanes[endpoint].ended.is_some();
        let both = |holds: &dyn Fn(Endpoint) -> bool| Endpoint::BOTH.into_iter().all(holds);
        let any = |holds: &dyn Fn(Endpoint) -> bool| Endpoint::BOTH.into_iter().any(holds);
        let reset_for_loss = |lost: Endpoint| self.lanes[lost].is_lost() && self.lanes[lost].outlet == Outlet::Gone;
        both(&silent) && (both(&ended) || (self.closing.is_complete() && any(&ended))) || any(&reset_for_loss)
    }
}

/// How a leg's end is told (interface: `truncated` is a FIN inside a frame).
fn cause(end: LegEnd, whole_frames: bool) -> Cause {
    match end {
        LegEnd::Fin if whole_frames => Cause::Eof,
        LegEnd::Fin => Cause::Truncated,
        LegEnd::Reset => Cause::Reset,
        LegEnd::Timeout => Cause::Timeout,
        LegEnd::Unreachable => Cause::Unreachable,
    }
}

fn after(start: Instant, wait: Option<Duration>) -> Option<Instant> {
    wait.and_then(|wait| start.checked_add(wait))
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    [a, b].into_iter().flatten().min()
}
