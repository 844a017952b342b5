//! The deadlines of a session.

use std::time::{Duration, Instant};

use super::{Session, SessionPhase};
use crate::websocket::{
    Endpoint, PerEndpoint,
    close_code::{CloseCode, CloseText},
    closing_handshake::Action,
};

/// The deadlines of a session that closes.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// An awaited answer, or the end of the other leg, is given up.
    pub(super) close: Option<Instant>,
    /// A complete closing handshake is ended without the endpoints.
    pub(super) hang_up: Option<Instant>,
    /// A drain terminates the session.
    pub(super) cut: Option<Instant>,
}

impl Session {
    /// The time at which [`Session::handle_timeout`] is due, if no event comes before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            SessionPhase::Open => earliest([self.idle_deadline(), self.expires]),
            SessionPhase::Closing(closing) => {
                let Deadlines { close, hang_up, cut } = closing.deadlines;
                earliest([close, hang_up, cut])
            }
            SessionPhase::Over(..) => None,
        }
    }

    /// Time has passed: acts on the deadlines that are due. `held_back` says for each endpoint whether its bytes wait
    /// unread, because the other endpoint does not read and the buffer toward it is full.
    pub fn handle_timeout(&mut self, now: Instant, held_back: PerEndpoint<bool>) {
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        let going_away = || CloseText::code(CloseCode::GOING_AWAY);
        match &self.phase {
            SessionPhase::Open if is_due(self.idle_deadline()) => self.close(Action::IdleTimeout, going_away(), now),
            SessionPhase::Open if is_due(self.expires) => self.close(Action::MaxAge, going_away(), now),
            SessionPhase::Closing(closing) if is_due(closing.deadlines.hang_up) => self.end(now),
            SessionPhase::Closing(closing) if is_due(closing.deadlines.cut) => self.cut(Action::Drain, now),
            SessionPhase::Closing(closing) if is_due(closing.deadlines.close) => self.give_up(now, held_back),
            SessionPhase::Open | SessionPhase::Closing(_) | SessionPhase::Over(..) => {}
        }
    }

    /// Ends the session in its present state: `timeouts.close` has passed, and the awaited event did not come.
    pub fn give_up(&mut self, now: Instant, held_back: PerEndpoint<bool>) {
        let closing = self.phase.closing();
        if let Some(own) = &closing.own_close
            && !closing.handshake.has_begun()
        {
            // Both legs are inside a frame whose sender stopped: neither could get the Close frame.
            closing.handshake.cut(own.action);
            self.begin(now);
        }
        self.phase.closing().handshake.close_timed_out(held_back);
        self.end(now);
    }

    /// Sets, once, the time to give up an answer or the end of a leg. A drain has a deadline of its own.
    pub(super) fn await_end(&mut self, now: Instant) {
        let closing = self.phase.closing();
        let is_drain = closing.own_close.as_ref().is_some_and(|own| own.action == Action::Drain);
        if closing.deadlines.close.is_none() && closing.deadlines.hang_up.is_none() && !is_drain {
            closing.deadlines.close = after(now, self.policy.close);
        }
    }

    /// After a step of the closing handshake: records an answer, and lets the endpoints hang up if nothing is owed.
    pub(super) fn settle(&mut self, now: Instant) {
        let closing = self.phase.closing();
        let handshake = &closing.handshake;
        let is_answered = Endpoint::BOTH.into_iter().all(|endpoint| handshake.has_sent_close(endpoint));
        if let Some(begun) = closing.begun
            && is_answered
            && handshake.began_with_close()
        {
            closing.close_handshake.get_or_insert(now.saturating_duration_since(begun.at));
        }
        let owes_nothing =
            |endpoint: Endpoint| handshake.has_sent_close(endpoint) || self.directions[endpoint].read_side.has_ended();
        let nothing_owed =
            handshake.is_complete() || closing.own_close.is_some() && Endpoint::BOTH.into_iter().all(owes_nothing);
        if nothing_owed && closing.deadlines.hang_up.is_none() {
            closing.deadlines.close = None;
            closing.deadlines.hang_up = after(now, self.policy.hang_up);
        }
    }

    fn idle_deadline(&self) -> Option<Instant> {
        after(self.last_byte, self.policy.idle)
    }
}

/// `None` also if no clock reaches that time.
pub(super) fn after(start: Instant, wait: Option<Duration>) -> Option<Instant> {
    wait.and_then(|wait| start.checked_add(wait))
}

fn earliest<const N: usize>(deadlines: [Option<Instant>; N]) -> Option<Instant> {
    deadlines.into_iter().flatten().min()
}
