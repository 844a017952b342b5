//! The closing handshake as seen from between the endpoints, and what is told of a session when it is over.

use super::{
    Endpoint, PerEndpoint,
    close_code::{CloseFrame, CloseStatus},
};

/// Who did something that ends sessions: an endpoint, or closewatch itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Party {
    /// The WebSocket client.
    Client,
    /// The service.
    Server,
    /// closewatch.
    Proxy,
}

impl Party {
    /// Every party.
    pub const ALL: [Self; 3] = [Self::Client, Self::Server, Self::Proxy];

    /// The label value: `client`, `server` or `proxy`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Proxy => "proxy",
        }
    }
}

impl From<Endpoint> for Party {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Client => Self::Client,
            Endpoint::Server => Self::Server,
        }
    }
}

/// What closewatch itself did to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// No byte passed for `timeouts.idle`.
    IdleTimeout,
    /// The session reached `timeouts.max_age`.
    MaxAge,
    /// A frame or message was larger than `limits` allow.
    Limit,
    /// closewatch is being drained.
    Drain,
    /// An operator asked for it (`POST /-/close`).
    Control,
    /// The client was told of the server's loss by a Close frame.
    ServerLoss,
    /// The server was told of the client's loss by a Close frame.
    ClientLoss,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 7] =
        [Self::IdleTimeout, Self::MaxAge, Self::Limit, Self::Drain, Self::Control, Self::ServerLoss, Self::ClientLoss];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IdleTimeout => "idle_timeout",
            Self::MaxAge => "max_age",
            Self::Limit => "limit",
            Self::Drain => "drain",
            Self::Control => "control",
            Self::ServerLoss => "server_loss",
            Self::ClientLoss => "client_loss",
        }
    }
}

/// Why a session was not clean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// FIN between two frames.
    Eof,
    /// FIN inside a frame.
    Truncated,
    /// RST, or a write that met one.
    Reset,
    /// The link is dead: keepalive unanswered, or data unacknowledged.
    Timeout,
    /// The kernel reported no route to the endpoint.
    Unreachable,
    /// A TLS alert or a bad record.
    Tls,
    /// A Close frame stayed unanswered past `timeouts.close`.
    NoCloseReply,
    /// closewatch acted, and an answer is missing.
    Proxy(Action),
}

impl Cause {
    /// The causes that an endpoint can have.
    pub const OF_ENDPOINTS: [Self; 7] =
        [Self::Eof, Self::Truncated, Self::Reset, Self::Timeout, Self::Unreachable, Self::Tls, Self::NoCloseReply];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Eof => "eof",
            Self::Truncated => "truncated",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::NoCloseReply => "no_close_reply",
            Self::Proxy(action) => action.as_str(),
        }
    }
}

/// What an endpoint's own close event reports by RFC 6455, 7.1.5 and 7.1.6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The status of the Close frame that was delivered to the endpoint, else [`CloseStatus::Abnormal`].
    pub status: CloseStatus,
    /// That frame's reason, empty where there is none.
    pub reason: String,
    /// It was delivered a Close frame and has sent one.
    pub clean: bool,
}

/// How and why a session ended: one for each session, when both legs are over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The status of what came first: a Close frame, or the end of a leg.
    pub status: CloseStatus,
    /// The reason in that Close frame, empty where there is none. No UTF-8 is shown with replacement characters.
    pub reason: String,
    /// Whose Close frame came first; of a 1006 whose leg ended first.
    pub initiator: Party,
    /// Both endpoints' Close frames were delivered (those that answer closewatch's: received).
    pub clean: bool,
    /// Who is at fault, and how: `None` exactly where the session is clean.
    pub cause: Option<(Party, Cause)>,
    /// What closewatch did to the session first, if anything.
    pub action: Option<Action>,
    /// What each endpoint's close event reports.
    pub seen: PerEndpoint<Seen>,
    /// The status of the first Close frame received from each endpoint.
    pub received: PerEndpoint<Option<CloseStatus>>,
}

/// The closing handshake of one session (RFC 6455, 7.1), told as events in the order in which closewatch met them.
///
/// What comes first, a Close frame or the end of a leg, settles the code and the initiator. Who is at fault is settled
/// by the first event after which the session can no longer end cleanly, and nothing that follows changes it. The
/// design left out was to keep the list of events and judge it at the end: the same rules, but each would have had to
/// search for "what was first" again, and the list would have had to be bounded.
#[derive(Debug, Default)]
pub struct ClosingHandshake {
    first: Option<First>,
    fault: Option<(Party, Cause)>,
    action: Option<Action>,
    /// Sized for the common case: a session that is not closing owns no frame.
    frames: Option<Box<Frames>>,
    delivered: PerEndpoint<Option<Author>>,
}

/// What settled the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// A Close frame of an endpoint.
    Close(Endpoint),
    /// A Close frame that closewatch put in.
    PutIn,
    /// The end of an endpoint's leg.
    Loss(Endpoint),
    /// closewatch cut the session.
    Cut,
}

/// Whose Close frame was delivered to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Author {
    Peer,
    Proxy,
}

#[derive(Debug, Default)]
struct Frames {
    received: PerEndpoint<Option<CloseFrame>>,
    put_in: Option<CloseFrame>,
}

impl ClosingHandshake {
    /// An endpoint's Close frame was read. Only its first one counts.
    pub fn close_received(&mut self, from: Endpoint, frame: CloseFrame) {
        let received = &mut self.frames.get_or_insert_default().received[from];
        if received.is_none() {
            *received = Some(frame);
            self.first.get_or_insert(First::Close(from));
        }
    }

    /// closewatch began to write a Close frame of its own, on whichever leg could take it first.
    pub fn close_put_in(&mut self, action: Action, frame: CloseFrame) {
        self.first.get_or_insert(First::PutIn);
        self.action.get_or_insert(action);
        self.frames.get_or_insert_default().put_in.get_or_insert(frame);
    }

    /// The kernel of `to`'s leg took the last byte of the other endpoint's Close frame.
    pub fn close_delivered(&mut self, to: Endpoint) {
        self.delivered[to].get_or_insert(Author::Peer);
    }

    /// The kernel of `to`'s leg took the last byte of closewatch's own Close frame.
    pub fn put_in_delivered(&mut self, to: Endpoint) {
        self.delivered[to].get_or_insert(Author::Proxy);
    }

    /// An endpoint's leg ended. It may be told twice of one leg: a FIN, then a write that met its RST.
    ///
    /// `cause` is one of [`Cause::OF_ENDPOINTS`] but [`Cause::NoCloseReply`].
    pub fn leg_ended(&mut self, endpoint: Endpoint, cause: Cause) {
        match self.first {
            None => {
                self.first = Some(First::Loss(endpoint));
                self.blame(endpoint.into(), cause);
            }
            Some(First::Close(_)) if !self.is_complete() => {
                let half_open = matches!(cause, Cause::Eof | Cause::Truncated);
                // Who has sent its Close frame owes nothing more than to take the other's, for which a FIN leaves it
                // open. Who took it, too, may go: the other's can still be delivered.
                let owes = !self.has_sent_close(endpoint) || (!half_open && self.delivered[endpoint].is_none());
                if owes {
                    self.blame(endpoint.into(), cause);
                }
            }
            Some(_) => {}
        }
    }

    /// `timeouts.close` has passed since the first Close frame.
    pub fn close_timed_out(&mut self) {
        if let Some(First::Close(sender)) = self.first
            && !self.is_complete()
        {
            let peer = sender.other();
            let answered = self.has_sent_close(peer) && self.delivered[peer].is_some();
            // Whoever has answered and was answered is owed nothing more: then it is the sender that does not read.
            let silent = if answered { sender } else { peer };
            self.blame(silent.into(), Cause::NoCloseReply);
        }
    }

    /// closewatch ends both legs, whatever their state.
    ///
    /// Where an answer to an endpoint's Close frame is missing, that is told as the cause, whatever else would fit. A
    /// session that began with the end of a leg owes no answer: it stays with that leg.
    pub fn cut(&mut self, action: Action) {
        if self.is_complete() {
            return;
        }
        self.first.get_or_insert(First::Cut);
        self.action.get_or_insert(action);
        if matches!(self.first, Some(First::Close(_))) {
            self.fault = None;
        }
        self.blame(Party::Proxy, Cause::Proxy(action));
    }

    /// Whether a Close frame, of whomever, or the end of a leg has been seen: the session is on its way out.
    pub fn has_begun(&self) -> bool {
        self.first.is_some()
    }

    /// Whether the first Close frame was an endpoint's or closewatch's, rather than a leg's end.
    pub fn began_with_close(&self) -> bool {
        matches!(self.first, Some(First::Close(_) | First::PutIn))
    }

    /// Whether an endpoint has sent its Close frame.
    pub fn has_sent_close(&self, endpoint: Endpoint) -> bool {
        self.frames.as_ref().is_some_and(|frames| frames.received[endpoint].is_some())
    }

    /// Whether a Close frame, of the other endpoint or of closewatch, was delivered to an endpoint.
    pub fn was_delivered_close(&self, endpoint: Endpoint) -> bool {
        self.delivered[endpoint].is_some()
    }

    /// Whether the closing handshake is complete: nothing that follows can make the session unclean.
    pub fn is_complete(&self) -> bool {
        let both_sent = Endpoint::BOTH.into_iter().all(|endpoint| self.has_sent_close(endpoint));
        let both_delivered = Endpoint::BOTH.into_iter().all(|endpoint| self.delivered[endpoint].is_some());
        self.fault.is_none()
            && both_sent
            && match self.first {
                Some(First::Close(_)) => both_delivered,
                Some(First::PutIn) => true,
                Some(First::Loss(_) | First::Cut) | None => false,
            }
    }

    /// What is told of the session, now that it is over.
    pub fn into_ending(mut self) -> Ending {
        if self.fault.is_none() && !self.is_complete() {
            // Nobody failed, and an answer is missing: closewatch let go of the session.
            self.cut(Action::Drain);
        }
        let (status, reason, initiator) = self.first_event();
        Ending {
            status,
            reason,
            initiator,
            clean: self.fault.is_none(),
            cause: self.fault,
            action: self.action,
            seen: PerEndpoint::from_fn(|endpoint| self.seen_by(endpoint)),
            received: PerEndpoint::from_fn(|endpoint| self.received_from(endpoint).map(|frame| frame.status)),
        }
    }

    fn blame(&mut self, party: Party, cause: Cause) {
        // Whatever else goes wrong after closewatch's own Close frame, the session is told as its doing.
        let fault = match (self.first, self.action) {
            (Some(First::PutIn), Some(action)) => (Party::Proxy, Cause::Proxy(action)),
            _ => (party, cause),
        };
        self.fault.get_or_insert(fault);
    }

    fn first_event(&self) -> (CloseStatus, String, Party) {
        let (frame, party) = match self.first {
            Some(First::Close(endpoint)) => (self.received_from(endpoint), endpoint.into()),
            Some(First::PutIn) => (self.put_in(), Party::Proxy),
            Some(First::Loss(endpoint)) => (None, endpoint.into()),
            Some(First::Cut) | None => (None, Party::Proxy),
        };
        let (status, reason) = status_and_reason(frame);
        (status, reason, party)
    }

    fn seen_by(&self, endpoint: Endpoint) -> Seen {
        let frame = self.delivered[endpoint].and_then(|author| match author {
            Author::Peer => self.received_from(endpoint.other()),
            Author::Proxy => self.put_in(),
        });
        let (status, reason) = status_and_reason(frame);
        Seen { status, reason, clean: frame.is_some() && self.has_sent_close(endpoint) }
    }

    fn received_from(&self, endpoint: Endpoint) -> Option<&CloseFrame> {
        self.frames.as_ref()?.received[endpoint].as_ref()
    }

    fn put_in(&self) -> Option<&CloseFrame> {
        self.frames.as_ref()?.put_in.as_ref()
    }
}

fn status_and_reason(frame: Option<&CloseFrame>) -> (CloseStatus, String) {
    frame.map_or((CloseStatus::Abnormal, String::new()), |frame| (frame.status, frame.reason.clone()))
}

#[cfg(test)]
mod tests;
