//! Close frames of closewatch's own.

use std::time::Instant;

use super::{
    Session, SessionCommand,
    direction::{Injection, WriteSide},
};
use crate::websocket::{Endpoint, close_code::CloseText, closing_handshake::Action};

/// The Close frame that closewatch injects, and why.
#[derive(Debug)]
pub(super) struct OwnClose {
    pub(super) action: Action,
    pub(super) text: CloseText,
}

impl Session {
    /// Plans a Close frame for both legs. A leg that stands between two frames gets it at once.
    pub(super) fn inject(&mut self, action: Action, text: CloseText, now: Instant) {
        self.phase.closing().own_close = Some(OwnClose { action, text });
        let withholds = self.policy.limits_frames();
        for from in Endpoint::BOTH {
            let direction = &mut self.directions[from];
            if direction.passes() {
                let is_between_frames = direction.passed_whole_frames(withholds);
                direction.injection = if is_between_frames { Injection::Ready } else { Injection::Wanted };
            }
        }
        if Endpoint::BOTH.into_iter().any(|from| self.directions[from].injection == Injection::Ready) {
            self.begin_injection(now);
        }
    }

    /// Another event came first: a Close frame that waits for the end of a frame is not injected any more.
    pub(super) fn abandon_injection(&mut self) {
        let Some(closing) = self.phase.as_closing_mut() else { return };
        if closing.own_close.is_some() && !closing.handshake.has_begun() {
            closing.own_close = None;
            closing.deadlines.close = None;
            // Both directions were still waiting, or the closing handshake would have begun.
            for from in Endpoint::BOTH {
                self.directions[from].injection = Injection::None;
            }
        }
    }

    /// The planned Close frame can be written to at least one leg: it takes its place in the closing handshake.
    pub(super) fn begin_injection(&mut self, now: Instant) {
        let closing = self.phase.closing();
        if let Some(own) = &closing.own_close {
            closing.handshake.close_injected(own.action, own.text.frame());
            self.begin(now);
        }
    }

    /// Reports the loss of an endpoint to the other one with a Close frame, if the route says so. Returns whether it does.
    pub(super) fn report_loss(&mut self, lost: Endpoint, now: Instant) -> bool {
        let withholds = self.policy.limits_frames();
        let Some(text) = self.policy.on_loss[lost].clone() else { return false };
        let closing = self.phase.closing();
        if closing.own_close.is_some() || !self.directions[lost].passed_whole_frames(withholds) {
            return false;
        }
        self.directions[lost].injection = Injection::Ready;
        // The answer to closewatch's own Close frame goes to nobody.
        self.directions[lost.other()].injection = Injection::Dropping;
        let action = match lost {
            Endpoint::Client => Action::ClientLoss,
            Endpoint::Server => Action::ServerLoss,
        };
        closing.handshake.close_injected(action, text.frame());
        closing.own_close = Some(OwnClose { action, text });
        self.await_end(now);
        true
    }

    /// The Close frame for an endpoint, if its leg is ready to take one.
    pub(super) fn write_own_close(&mut self, to: Endpoint) -> Option<SessionCommand> {
        let from = to.other();
        let direction = &mut self.directions[from];
        if direction.injection != Injection::Ready || direction.write_side != WriteSide::Open {
            return None;
        }
        let closing = self.phase.as_closing_mut()?;
        let text = &closing.own_close.as_ref()?.text;
        let bytes = text.encode((to == Endpoint::Server).then_some(self.mask));
        direction.injection = Injection::Done;
        direction.queued += bytes.len() as u64;
        closing.close_end[from] = Some(direction.queued);
        Some(SessionCommand::WriteClose(to, bytes))
    }
}
