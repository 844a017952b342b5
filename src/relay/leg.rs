//! One leg of a session: its transport, the bytes that wait for it, and the checks that it is alive.

use std::time::Instant;

use super::{
    backlog::Backlog,
    liveness::Liveness,
    transport::{Loss, Transport},
};
use crate::session::LegEnd;

/// One connection of a session. A leg that no bytes wait for owns no buffer.
///
/// One cache line for a plain socket: with many sessions, fetching their state is most of what closewatch itself costs.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Leg<T> {
    pub(super) transport: T,
    /// Bytes that the transport has not accepted.
    pub(super) backlog: Option<Box<Backlog>>,
    /// When to look whether the bytes written are acknowledged.
    pub(super) check_at: Option<Instant>,
    pub(super) liveness: Liveness,
    /// The leg was found dead other than by reading it. Its end is reported when its last bytes are read.
    pub(super) pending_end: Option<Box<PendingEnd>>,
    /// It takes no more bytes: it was found dead, or has ended other than by FIN.
    pub(super) is_lost: bool,
    /// The last write was short: the reader is slow.
    pub(super) was_blocked: bool,
    /// The transport has not sent the end of our stream yet: try again when it is writable.
    pub(super) is_finishing: bool,
}

/// The end of a leg that was found dead while bytes of its endpoint are still to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct PendingEnd {
    pub(super) end: LegEnd,
    pub(super) behind_fin: bool,
    /// When the leg was found dead.
    pub(super) since: Instant,
    /// When the reading is given up, because the other endpoint does not take the bytes.
    pub(super) give_up_at: Option<Instant>,
}

impl PendingEnd {
    pub(super) fn new(Loss { end, behind_fin }: Loss, since: Instant, give_up_at: Option<Instant>) -> Self {
        Self { end, behind_fin, since, give_up_at }
    }
}

impl<T: Transport> Leg<T> {
    pub(super) fn new(transport: T) -> Self {
        Self {
            transport,
            backlog: None,
            check_at: None,
            liveness: Liveness::default(),
            pending_end: None,
            is_lost: false,
            was_blocked: false,
            is_finishing: false,
        }
    }

    /// Whether a read may find bytes, or the end.
    pub(super) fn can_read(&self) -> bool {
        self.transport.can_read() || self.pending_end.is_some()
    }

    /// Whether nothing comes behind the bytes that wait to be read.
    pub(super) fn has_hung_up(&self) -> bool {
        self.transport.has_hung_up() || self.pending_end.is_some()
    }

    /// Whether something waits until the connection takes bytes again.
    pub(super) fn waits_for_writable(&self) -> bool {
        self.backlog.is_some() || self.is_finishing || self.transport.wants_write()
    }

    /// The first of this leg's own deadlines.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let give_up_at = self.pending_end.as_ref().and_then(|pending| pending.give_up_at);
        let read_on_at = self.backlog.as_ref().and_then(|backlog| backlog.read_on_at());
        [self.check_at, give_up_at, read_on_at].into_iter().flatten().min()
    }

    /// The pending end, if its time to be given up has come.
    pub(super) fn given_up_end(&self, now: Instant) -> Option<PendingEnd> {
        self.pending_end.as_deref().copied().filter(|pending| pending.give_up_at.is_some_and(|at| at <= now))
    }
}
