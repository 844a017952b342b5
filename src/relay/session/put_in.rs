//! Close frames of closewatch's own.

use std::time::Instant;

use super::{
    super::lane::{Outlet, Put},
    Command, Session,
};
use crate::websocket::{Endpoint, close_code::CloseText, closing_handshake::Action};

impl Session {
    /// Means to put a Close frame into both legs; a leg that stands between two frames gets it at once.
    pub(super) fn put_in(&mut self, action: Action, text: CloseText, now: Instant) {
        self.put_in = Some(Box::new((action, text)));
        let withholds = self.policy.limits_frames();
        for from in Endpoint::BOTH {
            let lane = &mut self.lanes[from];
            if lane.passes() {
                lane.put = if lane.passed_whole_frames(withholds) { Put::Ready } else { Put::Wanted };
            }
        }
        if Endpoint::BOTH.into_iter().any(|from| self.lanes[from].put == Put::Ready) {
            self.begin_put_in(now);
        }
    }

    /// Something else has come first: a Close frame that waits for the end of a frame is not put in any more.
    pub(super) fn abandon_put_in(&mut self) {
        if self.put_in.is_some() && !self.closing.has_begun() {
            self.put_in = None;
            self.close_deadline = None;
            // All that had it were still waiting, or it would have begun.
            for from in Endpoint::BOTH {
                self.lanes[from].put = Put::No;
            }
        }
    }

    /// The Close frame that was wanted can be written to one leg at least: it has its place in the closing handshake.
    pub(super) fn begin_put_in(&mut self, now: Instant) {
        if let Some(put_in) = &self.put_in {
            self.closing.close_put_in(put_in.0, put_in.1.frame());
            self.begin(now);
        }
    }

    /// Where the route says so, tells the other endpoint of this one's loss by a Close frame. Says whether it does.
    pub(super) fn tell_loss(&mut self, lost: Endpoint, now: Instant) -> bool {
        let withholds = self.policy.limits_frames();
        let Some(text) = self.policy.on_loss[lost].clone() else { return false };
        let lane = &mut self.lanes[lost];
        if self.put_in.is_some() || !lane.passed_whole_frames(withholds) {
            return false;
        }
        lane.put = Put::Ready;
        let action = match lost {
            Endpoint::Client => Action::ClientLoss,
            Endpoint::Server => Action::ServerLoss,
        };
        self.closing.close_put_in(action, text.frame());
        self.put_in = Some(Box::new((action, text)));
        self.await_end(now);
        true
    }

    /// The Close frame for an endpoint, where its leg is ready to take one.
    pub(super) fn put_close(&mut self, to: Endpoint) -> Option<Command> {
        let lane = &mut self.lanes[to.other()];
        if lane.put != Put::Ready || lane.outlet != Outlet::Open {
            return None;
        }
        let (_, text) = self.put_in.as_deref()?;
        let bytes = text.encode((to == Endpoint::Server).then_some(self.mask));
        lane.put = Put::Done;
        lane.queued += bytes.len() as u64;
        lane.close_end = Some(lane.queued);
        Some(Command::PutClose(to, bytes))
    }
}
