//! One session without its sockets. Its owner reports bytes, ends of legs and time; the session says which bytes pass,
//! how to end each leg, and when it wants to be called again. It does no I/O and asks for no clock.
//!
//! # Families of methods
//!
//! - `handle_*`: an event happened. [`Session::handle_data`], [`Session::handle_end`], [`Session::handle_written`],
//!   [`Session::handle_loss`], [`Session::handle_finished`], [`Session::handle_reset`], [`Session::handle_timeout`].
//! - [`Session::close`], [`Session::drain`], [`Session::cut`], [`Session::give_up`]: closewatch itself acts.
//! - `poll_*`: the session asks. [`Session::poll_command`], [`Session::poll_timeout`].
//! - [`Session::into_summary`]: the session is over.
//!
//! # Order of calls
//!
//! 1. Call one method of the first two families.
//! 2. If it returned a [`Forward`], write these bytes to the other leg, and report with [`Session::handle_written`] as
//!    soon as they have left the process.
//! 3. Call [`Session::poll_command`] and carry out each [`SessionCommand`], until it returns `None` or [`SessionCommand::Over`].
//!
//! The driver of the relay has one function for step 3, and no way around it.
//!
//! # Phases
//!
//! A session is *open* until the first Close frame, the first end of a leg, or the first action of closewatch; then it
//! is *closing*, until both legs are done or a deadline passes; then it is *over*. Nothing leads back. An open session
//! holds no state for its end.
//!
//! # Endings
//!
//! These are the first rows of the table of endings, as its test reads and runs them: events on the left; then code,
//! initiator and cause; the close event that each endpoint sees; and the bytes that each endpoint got, and how closewatch
//! ended its leg. The test explains the notation.
//!
//! ```text
//! events               | reported                | a saw      | b saw       | a got     | b got
//! a:1000 b:1000 a:fin  | 1000 a clean            | 1000 clean | 1000 clean  | 1000 fin  | 1000 fin
//! a:empty b:1000 b:fin | 1005 a clean            | 1000 clean | 1005 clean  | 1000 fin  | empty fin
//! a:1000 b:fin a:fin   | 1000 a b:eof            | 1006       | 1000        | fin       | 1000 fin
//! a:1000 +65s          | 1000 a b:no_close_reply | 1006       | 1000        | cut       | 1000 cut
//! a:1000 a:rst b:fin   | 1000 a a:reset          | 1006       | 1000        | lost      | 1000 fin
//! a:fin b:fin          | 1006 a a:eof            | 1006       | 1006        | fin       | fin
//! a:text[..8] a:fin b:fin | 1006 a a:truncated   | 1006       | 1006        | fin       | text[..8] fin
//! a:text a:rst         | 1006 a a:reset          | 1006       | 1006        | lost      | text rst
//! a:fin b:1000 b:fin   | 1006 a a:eof            | 1000       | 1006        | 1000 fin  | fin
//! control a:1012 b:1012 a:fin | 1012 proxy clean +control | 1012 clean | 1012 clean | <1012> fin | <1012> fin
//! ```

mod deadlines;
mod direction;
mod frame_sink;
mod inject;
mod ping;
mod policy;
mod scan;
mod summary;

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::{
    direction::LegEnd,
    frame_sink::FrameSink,
    policy::Policy,
    scan::{Forward, PartialHeader},
    summary::{Sent, Summary},
};

use self::{
    deadlines::{Deadlines, after},
    direction::{Direction, Injection, WriteSide},
    inject::OwnClose,
};
use crate::websocket::{
    Endpoint, PerEndpoint,
    close_code::CloseText,
    closing_handshake::{Action, ClosingHandshake, LegFault},
    conformance::Extensions,
};

/// What the owner of the connections is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionCommand {
    /// Write these bytes, closewatch's own Close frame, to this endpoint, behind everything that is queued for it.
    WriteClose(Endpoint, Vec<u8>),
    /// Shut down writing to this endpoint (FIN), then call [`Session::handle_finished`]. Everything queued for it has been
    /// written.
    Finish(Endpoint),
    /// Reset this endpoint's leg as soon as it has acknowledged the bytes written to it, then call
    /// [`Session::handle_reset`].
    Reset(Endpoint),
    /// The session is over: release both legs as [`Session::release`] says, and take the [`Summary`].
    Over,
}

/// How to let go of a leg when the session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Send RST.
    Reset,
    /// The leg has ended: close it.
    Close,
    /// Read and drop the rest, so that the kernel does not answer it with RST; then close.
    Drain,
    /// Send FIN first, then as [`Release::Drain`].
    FinishAndDrain,
}

/// A session between its 101 and the end of both legs.
///
/// The fields that every message touches come first, in one cache line; the fields of its direction follow.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Session {
    policy: Arc<Policy>,
    phase: SessionPhase,
    last_byte: Instant,
    /// By sender.
    directions: PerEndpoint<Direction>,
    /// The masking key of closewatch's own Close frame toward the server.
    mask: [u8; 4],
    opened: Instant,
    expires: Option<Instant>,
}

// A sidecar holds thousands of idle sessions.
const _: () = assert!(size_of::<Session>() <= 384);

/// How far the session is.
#[derive(Debug, Default)]
enum SessionPhase {
    /// Bytes pass.
    #[default]
    Open,
    /// A Close frame or the end of a leg was seen, or closewatch began to close the session.
    Closing(Box<Closing>),
    /// Both legs are done, since that time.
    Over(Box<Closing>, Instant),
}

/// The state of a session that closes.
#[derive(Debug, Default)]
struct Closing {
    handshake: ClosingHandshake,
    own_close: Option<OwnClose>,
    begun: Option<Begun>,
    /// From the first Close frame to its answer.
    close_handshake: Option<Duration>,
    deadlines: Deadlines,
    /// By sender: the position in [`Direction::queued`] at which the Close frame ends that the receiver is to get.
    close_end: PerEndpoint<Option<u64>>,
}

/// The first Close frame or the end of a leg.
#[derive(Debug, Clone, Copy)]
struct Begun {
    at: Instant,
    /// How long no byte had passed before.
    idle: Duration,
}

impl SessionPhase {
    /// The state of a session that closes from now on, or has begun to.
    fn closing(&mut self) -> &mut Closing {
        if matches!(self, Self::Open) {
            *self = Self::Closing(Box::default());
        }
        self.as_closing_mut().expect("the phase is not open any more")
    }

    fn as_closing(&self) -> Option<&Closing> {
        match self {
            Self::Open => None,
            Self::Closing(closing) | Self::Over(closing, _) => Some(closing),
        }
    }

    fn as_closing_mut(&mut self) -> Option<&mut Closing> {
        match self {
            Self::Open => None,
            Self::Closing(closing) | Self::Over(closing, _) => Some(closing),
        }
    }
}

impl Session {
    /// A session whose 101 has been sent. `random` masks a Close frame of closewatch's own toward the server, and
    /// shortens `max_age` by up to a tenth.
    pub fn new(policy: Arc<Policy>, extensions: Extensions, opened: Instant, random: u64) -> Self {
        let [a, b, c, d, spread, ..] = random.to_le_bytes();
        let expires = after(opened, policy.max_age.map(|age| age / 2560 * (2560 - u32::from(spread))));
        Self {
            policy,
            phase: SessionPhase::Open,
            last_byte: opened,
            directions: PerEndpoint::from_fn(|sender| Direction::new(sender, extensions)),
            mask: [a, b, c, d],
            opened,
            expires,
        }
    }

    /// An endpoint's leg ended: everything that it sent before has been handled. A lost leg takes no more bytes. A leg can
    /// end twice: a FIN, then a write that encounters its RST. Withheld bytes may pass now.
    ///
    /// `since` is when the leg was found dead, if that was before its last bytes were handled, else `now`.
    pub fn handle_end(&mut self, endpoint: Endpoint, end: LegEnd, since: Instant, now: Instant) -> Forward {
        self.abandon_injection();
        let direction = &mut self.directions[endpoint];
        let Some(read_side) = direction.read_side.after(end) else { return Forward::default() };
        let was_half_closed = mem::replace(&mut direction.read_side, read_side).has_ended();
        if direction.injection == Injection::Wanted {
            // Half a frame stays in the other leg: no Close frame can follow it.
            direction.injection = Injection::None;
        }
        let fault = leg_fault(end, direction.decoder.at_boundary());
        let is_first = self.phase.as_closing().is_none_or(|closing| !closing.handshake.has_begun());
        let closing = self.phase.closing();
        closing.handshake.leg_ended(endpoint, fault);
        if end != LegEnd::Fin {
            self.directions[endpoint.other()].write_side = WriteSide::Gone;
            self.await_end(now);
        }
        self.begin(since);
        let is_reported = is_first && self.report_loss(endpoint, now);
        self.settle(now);
        if is_reported || was_half_closed { Forward::default() } else { self.release_withheld(endpoint) }
    }

    /// `count` more bytes toward an endpoint have left the process.
    #[inline]
    pub fn handle_written(&mut self, to: Endpoint, count: usize, now: Instant) {
        self.directions[to.other()].written += count as u64;
        if self.is_closing() {
            self.record_delivery(to, now);
        }
    }

    /// An endpoint's leg was found dead other than by reading it: it takes no more bytes. The bytes that it sent before are
    /// still to be handled, and then its end.
    pub fn handle_loss(&mut self, endpoint: Endpoint) {
        self.directions[endpoint.other()].write_side = WriteSide::Gone;
    }

    /// The FIN of [`SessionCommand::Finish`] was sent.
    pub fn handle_finished(&mut self, endpoint: Endpoint) {
        let write_side = &mut self.directions[endpoint.other()].write_side;
        if *write_side == WriteSide::Finishing {
            *write_side = WriteSide::Finished;
        }
    }

    /// The leg of [`SessionCommand::Reset`] was reset.
    pub fn handle_reset(&mut self, endpoint: Endpoint) {
        self.directions[endpoint.other()].write_side = WriteSide::Gone;
    }

    /// Closes the session with a Close frame on both legs, each at the end of its current frame.
    ///
    /// A session that closes already gets none: its closing handshake has begun, or a leg has ended. The same holds if that
    /// happens first while both legs wait for the end of a frame. A leg that has passed half of an endpoint's Close frame
    /// gets the other half, and none of closewatch's.
    pub fn close(&mut self, action: Action, text: CloseText, now: Instant) {
        if !self.is_closing() {
            self.await_end(now);
            self.inject(action, text, now);
        }
    }

    /// Closes the session as [`Session::close`] does, for a drain that terminates it at `cut_at`.
    pub fn drain(&mut self, text: CloseText, cut_at: Instant, now: Instant) {
        if now >= cut_at {
            return self.cut(Action::Drain, now);
        }
        if !self.is_closing() {
            self.inject(Action::Drain, text, now);
        }
        self.phase.closing().deadlines.cut = Some(cut_at);
    }

    /// Ends the session at once, in any state.
    pub fn cut(&mut self, action: Action, now: Instant) {
        self.phase.closing().handshake.cut(action);
        self.begin(now);
        self.end(now);
    }

    /// The next thing to do. Ask after every event, until there is none. An open session asks for nothing.
    pub fn poll_command(&mut self, now: Instant) -> Option<SessionCommand> {
        match self.phase {
            SessionPhase::Open => None,
            SessionPhase::Over(..) => Some(SessionCommand::Over),
            SessionPhase::Closing(_) => self.next_command(now),
        }
    }

    /// Whether a Close frame or the end of a leg was seen, or closewatch has begun to close the session.
    #[inline]
    pub fn is_closing(&self) -> bool {
        !matches!(self.phase, SessionPhase::Open)
    }

    /// Whether both legs are done.
    #[inline]
    pub fn is_over(&self) -> bool {
        matches!(self.phase, SessionPhase::Over(..))
    }

    /// Whether an endpoint's bytes are still to be read.
    pub fn reads(&self, from: Endpoint) -> bool {
        !self.directions[from].read_side.has_ended()
    }

    /// Whether an endpoint's bytes still pass to the other. If not, they are counted and dropped.
    pub fn passes(&self, from: Endpoint) -> bool {
        self.directions[from].passes()
    }

    /// The policy of the session's route.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// How to let go of this endpoint's leg, now that the session is over.
    pub fn release(&self, endpoint: Endpoint) -> Release {
        let write_side = self.directions[endpoint.other()].write_side;
        let can_finish = matches!(write_side, WriteSide::Open | WriteSide::Finishing);
        match self.reads(endpoint) {
            _ if self.ends_by_reset(endpoint) => Release::Reset,
            false => Release::Close,
            true if can_finish => Release::FinishAndDrain,
            true => Release::Drain,
        }
    }

    /// The summary of the session. If it is not over, it is terminated.
    pub fn into_summary(mut self, now: Instant) -> Summary {
        if !matches!(self.phase, SessionPhase::Over(..)) {
            self.cut(Action::Drain, now);
        }
        let (closing, over) = match self.phase {
            SessionPhase::Over(closing, over) => (closing, over),
            SessionPhase::Open | SessionPhase::Closing(_) => (Box::default(), now),
        };
        Summary {
            duration: over.saturating_duration_since(self.opened),
            idle: closing.begun.map_or(Duration::ZERO, |begun| begun.idle),
            close_handshake: closing.close_handshake,
            sent: PerEndpoint::from_fn(|from| Sent {
                violations: self.directions[from].conformance.seen(),
                ..self.directions[from].sent
            }),
            ping_rtt: PerEndpoint::from_fn(|to| self.directions[to.other()].pings.last_round_trip()),
            ending: closing.handshake.into_ending(),
        }
    }

    /// Records that the Close frame for an endpoint was delivered, if the last written byte was its last.
    #[inline(never)]
    fn record_delivery(&mut self, to: Endpoint, now: Instant) {
        let direction = &self.directions[to.other()];
        let closing = self.phase.closing();
        if closing.close_end[to.other()].take_if(|end| *end <= direction.written).is_some() {
            match direction.injection {
                Injection::Done => closing.handshake.injected_delivered(to),
                Injection::None | Injection::Wanted | Injection::Ready | Injection::Dropping => {
                    closing.handshake.close_delivered(to);
                }
            }
            self.settle(now);
        }
    }

    /// Marks the first Close frame, or the first end of a leg.
    fn begin(&mut self, now: Instant) {
        let idle = now.saturating_duration_since(self.last_byte);
        self.phase.closing().begun.get_or_insert(Begun { at: now, idle });
    }

    fn end(&mut self, now: Instant) {
        self.phase = match mem::take(&mut self.phase) {
            SessionPhase::Open => SessionPhase::Over(Box::default(), now),
            SessionPhase::Closing(closing) => SessionPhase::Over(closing, now),
            over @ SessionPhase::Over(..) => over,
        };
    }

    fn next_command(&mut self, now: Instant) -> Option<SessionCommand> {
        let command =
            Endpoint::BOTH.into_iter().find_map(|to| self.write_own_close(to).or_else(|| self.end_writing(to, now)));
        if command.is_none() && self.is_done() {
            self.end(now);
            return Some(SessionCommand::Over);
        }
        command
    }

    fn end_writing(&mut self, to: Endpoint, now: Instant) -> Option<SessionCommand> {
        let from = to.other();
        let direction = &self.directions[from];
        let may_end = matches!(direction.write_side, WriteSide::Open | WriteSide::Finished);
        if !may_end || !direction.is_flushed() || !self.ends_writing(to) {
            return None;
        }
        // The FIN passes on first, even if an RST has followed it by now.
        let owes_fin = direction.read_side.had_fin() && direction.write_side == WriteSide::Open;
        if self.ends_by_reset(to) && !owes_fin {
            self.directions[from].write_side = WriteSide::Resetting;
            return Some(SessionCommand::Reset(to));
        }
        if direction.write_side == WriteSide::Finished {
            return None;
        }
        self.directions[from].write_side = WriteSide::Finishing;
        self.await_end(now);
        Some(SessionCommand::Finish(to))
    }

    /// Whether nothing more will be queued for an endpoint.
    fn ends_writing(&self, to: Endpoint) -> bool {
        let Some(Closing { handshake, .. }) = self.phase.as_closing() else { return false };
        let direction = &self.directions[to.other()];
        let has_ended = self.directions[to].read_side.has_ended();
        match direction.injection {
            // Like any endpoint that was answered, closewatch closes its side then.
            Injection::Done => handshake.has_sent_close(to) || has_ended,
            Injection::Wanted | Injection::Ready => false,
            Injection::Dropping => true,
            Injection::None => direction.read_side.has_ended() || (handshake.is_complete() && has_ended),
        }
    }

    /// Whether this endpoint's leg ends with RST if it ends now: the other endpoint was lost, and no Close frame was
    /// delivered to this one. After an RST, a browser would report 1006. A FIN before the loss changes nothing for the
    /// other endpoint, unless that one has ended too.
    fn ends_by_reset(&self, endpoint: Endpoint) -> bool {
        let direction = &self.directions[endpoint.other()];
        let can_be_reset = match direction.write_side {
            WriteSide::Open | WriteSide::Resetting => true,
            WriteSide::Finishing | WriteSide::Finished => self.reads(endpoint),
            WriteSide::Gone => false,
        };
        let was_delivered_close =
            self.phase.as_closing().is_some_and(|closing| closing.handshake.was_delivered_close(endpoint));
        can_be_reset
            && direction.read_side.resets_other()
            && direction.injection != Injection::Done
            && !was_delivered_close
    }

    /// Whether both legs are done.
    fn is_done(&self) -> bool {
        let Some(Closing { handshake, .. }) = self.phase.as_closing() else { return false };
        let [client, server] = Endpoint::BOTH.map(|endpoint| &self.directions[endpoint]);
        let is_silent = |direction: &Direction| matches!(direction.write_side, WriteSide::Finished | WriteSide::Gone);
        let has_ended = |direction: &Direction| direction.read_side.has_ended();
        // The other leg was reset because this one was lost.
        let is_reset = |lost: &Direction| lost.read_side.resets_other() && lost.write_side == WriteSide::Gone;
        let both_ended = has_ended(client) && has_ended(server);
        let one_hung_up = handshake.is_complete() && (has_ended(client) || has_ended(server));
        (is_silent(client) && is_silent(server) && (both_ended || one_hung_up)) || is_reset(client) || is_reset(server)
    }
}

/// The fault of a leg that ended: a FIN inside a frame is `truncated`.
fn leg_fault(end: LegEnd, at_boundary: bool) -> LegFault {
    match end {
        LegEnd::Fin if at_boundary => LegFault::Eof,
        LegEnd::Fin => LegFault::Truncated,
        LegEnd::Reset => LegFault::Reset,
        LegEnd::Timeout => LegFault::Timeout,
        LegEnd::Unreachable => LegFault::Unreachable,
        LegEnd::Tls => LegFault::Tls,
    }
}
