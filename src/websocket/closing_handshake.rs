//! The closing handshake as seen from between the endpoints, and the ending that it leads to.

use super::{
    Endpoint, PerEndpoint,
    close_code::{CloseCode, CloseFrame, CloseStatus},
};

/// A party that can end a session: an endpoint, or closewatch itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Party {
    /// The WebSocket client.
    Client,
    /// The WebSocket server.
    Server,
    /// closewatch.
    Proxy,
}

impl Party {
    /// The label value: `client`, `server` or `proxy`.
    pub fn as_str(self) -> &'static str {
        self.into()
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

/// Something that closewatch itself did to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Action {
    /// No byte passed for `timeouts.idle`.
    IdleTimeout,
    /// The session reached `timeouts.max_age`.
    MaxAge,
    /// A frame or message was larger than `limits` allow.
    Limit,
    /// closewatch drains.
    Drain,
    /// An operator asked for it (`POST /-/close`).
    Control,
    /// A Close frame reported the loss of the server to the client.
    ServerLoss,
    /// A Close frame reported the loss of the client to the server.
    ClientLoss,
}

impl Action {
    /// The label value.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How an endpoint's leg failed a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum LegFault {
    /// FIN between two frames.
    Eof,
    /// FIN inside a frame.
    Truncated,
    /// RST, or a write that encountered an RST.
    Reset,
    /// The link is dead: keepalive is unanswered, or data is unacknowledged.
    Timeout,
    /// The kernel reported that it has no route to the endpoint.
    Unreachable,
    /// A TLS alert or a bad record.
    Tls,
    /// The endpoint did not answer a Close frame within `timeouts.close`, or did not take it.
    NoCloseReply,
}

impl LegFault {
    /// The label value.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Why a session is not clean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// An endpoint's leg failed.
    Endpoint(Endpoint, LegFault),
    /// closewatch acted, and an answer is missing.
    Proxy(Action),
}

impl Fault {
    /// The label value `endpoint`: the party at fault.
    pub fn party(self) -> Party {
        match self {
            Self::Endpoint(endpoint, _) => endpoint.into(),
            Self::Proxy(_) => Party::Proxy,
        }
    }

    /// The label value `cause`.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Endpoint(_, fault) => fault.as_str(),
            Self::Proxy(action) => action.as_str(),
        }
    }
}

/// The close event that an endpoint's own API reports (RFC 6455, 7.1.5 and 7.1.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseEvent {
    /// The status of the Close frame that was delivered to the endpoint, else [`CloseStatus::Abnormal`].
    pub status: CloseStatus,
    /// The reason in that frame, empty if there is none.
    pub reason: String,
    /// A Close frame was delivered to the endpoint, and the endpoint sent one.
    pub clean: bool,
}

impl CloseEvent {
    /// 1006: no Close frame was delivered, or the endpoint failed the connection.
    const ABNORMAL: Self = Self { status: CloseStatus::Abnormal, reason: String::new(), clean: false };
}

/// How and why a session ended: one for each session, when both legs are over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The status of the first event: a Close frame, or the end of a leg.
    pub status: CloseStatus,
    /// The reason in that Close frame, empty if there is none. Invalid UTF-8 is shown with replacement characters.
    pub reason: String,
    /// The sender of the first Close frame; for a 1006, the endpoint whose leg ended first.
    pub initiator: Party,
    /// `None` if and only if the session is clean: the Close frames of both endpoints were delivered (or received, if
    /// they answer a Close frame from closewatch).
    pub fault: Option<Fault>,
    /// The first thing that closewatch did to the session.
    pub action: Option<Action>,
    /// The close event of each endpoint.
    pub seen: PerEndpoint<CloseEvent>,
    /// The status of the first Close frame received from each endpoint.
    pub received: PerEndpoint<Option<CloseStatus>>,
}

impl Ending {
    /// Whether the closing handshake was complete.
    pub const fn is_clean(&self) -> bool {
        self.fault.is_none()
    }
}

/// The first Close frame of an endpoint, and its standing in that endpoint's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedClose {
    /// The frame.
    pub frame: CloseFrame,
    /// It comes after a violation at which its receiver must fail the connection: a real endpoint stops reading there.
    pub is_provisional: bool,
    /// Its sender failed the connection: it carries 1002 or 1007 after a violation by the other endpoint.
    pub fails_connection: bool,
}

/// The closing handshake of one session (RFC 6455, 7.1). It takes events in the order in which closewatch encountered
/// them.
///
/// The first event, a Close frame or the end of a leg, decides the code and the initiator. The first event after which
/// the session can no longer end cleanly decides the fault, and no later event changes it.
#[derive(Debug, Default)]
pub struct ClosingHandshake {
    first: Option<First>,
    fault: Option<Fault>,
    action: Option<Action>,
    /// Boxed, because most of a session's life has no Close frame.
    frames: Option<Box<Frames>>,
    delivered: PerEndpoint<Option<Author>>,
}

/// The event that decides the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// A Close frame of an endpoint.
    Close(Endpoint),
    /// A Close frame of an endpoint behind its own violation. The other endpoint's reaction decides if it counts.
    Provisional(Endpoint),
    /// A Close frame of closewatch.
    Injected,
    /// The end of an endpoint's leg.
    Loss(Endpoint),
    /// closewatch terminated the session.
    Cut,
}

/// The author of the Close frame that was delivered to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Author {
    Peer,
    Proxy,
}

#[derive(Debug, Default)]
struct Frames {
    received: PerEndpoint<Option<ReceivedClose>>,
    injected: Option<CloseFrame>,
}

impl ClosingHandshake {
    /// A Close frame was read from an endpoint. Only its first one counts.
    pub fn close_received(&mut self, from: Endpoint, close: ReceivedClose) {
        if self.has_sent_close(from) {
            return;
        }
        match self.first {
            None if close.is_provisional => self.first = Some(First::Provisional(from)),
            None => self.first = Some(First::Close(from)),
            Some(First::Provisional(sender)) if sender != from => {
                let is_answer = self.answers_provisional(sender, &close);
                self.first = Some(First::Close(if is_answer { sender } else { from }));
            }
            Some(_) => {}
        }
        self.frames.get_or_insert_default().received[from] = Some(close);
    }

    /// closewatch began to write a Close frame of its own to at least one leg.
    pub fn close_injected(&mut self, action: Action, frame: CloseFrame) {
        self.first.get_or_insert(First::Injected);
        self.action.get_or_insert(action);
        self.frames.get_or_insert_default().injected.get_or_insert(frame);
    }

    /// The last byte of the other endpoint's Close frame was delivered to `to`.
    pub fn close_delivered(&mut self, to: Endpoint) {
        self.delivered[to].get_or_insert(Author::Peer);
    }

    /// The last byte of closewatch's own Close frame was delivered to `to`.
    pub fn injected_delivered(&mut self, to: Endpoint) {
        self.delivered[to].get_or_insert(Author::Proxy);
    }

    /// An endpoint's leg ended. One leg can end twice: a FIN, then a write that encounters its RST.
    ///
    /// `fault` is any but [`LegFault::NoCloseReply`].
    pub fn leg_ended(&mut self, endpoint: Endpoint, fault: LegFault) {
        match self.first {
            None | Some(First::Provisional(_)) => {
                self.first = Some(First::Loss(endpoint));
                self.blame(Fault::Endpoint(endpoint, fault));
            }
            Some(First::Close(_)) if !self.is_complete() => {
                let half_open = matches!(fault, LegFault::Eof | LegFault::Truncated);
                // An endpoint that has sent its Close frame only owes to take the other's, which a FIN still allows.
                // If it has taken that too, it may go: the other's can still be delivered.
                let owes = !self.has_sent_close(endpoint) || (!half_open && self.delivered[endpoint].is_none());
                if owes {
                    self.blame(Fault::Endpoint(endpoint, fault));
                }
            }
            Some(_) => {}
        }
    }

    /// `timeouts.close` has passed since the first Close frame. `held_back` says for each endpoint whether its bytes wait
    /// unread, because the other endpoint does not read and the buffer toward it is full.
    pub fn close_timed_out(&mut self, held_back: PerEndpoint<bool>) {
        match self.first {
            Some(First::Close(sender)) if !self.is_complete() => {
                let silent = self.silent_endpoint(sender, held_back);
                self.blame(Fault::Endpoint(silent, LegFault::NoCloseReply));
            }
            Some(First::Provisional(sender)) => {
                self.first = Some(First::Cut);
                let silent = self.silent_endpoint(sender, held_back);
                self.blame(Fault::Endpoint(silent, LegFault::NoCloseReply));
            }
            _ => {}
        }
    }

    /// closewatch terminates both legs, in any state.
    ///
    /// If an answer to an endpoint's Close frame is missing, the action is the cause, regardless of any other cause that
    /// would fit. A session that began with the end of a leg owes no answer: its cause stays with that leg.
    pub fn cut(&mut self, action: Action) {
        if self.is_complete() {
            return;
        }
        self.action.get_or_insert(action);
        match self.first {
            None | Some(First::Provisional(_)) => self.first = Some(First::Cut),
            Some(First::Close(_)) => self.fault = None,
            Some(First::Injected | First::Loss(_) | First::Cut) => {}
        }
        self.blame(Fault::Proxy(action));
    }

    /// Whether a Close frame or the end of a leg was seen: the session is on its way out.
    pub fn has_begun(&self) -> bool {
        self.first.is_some()
    }

    /// Whether the first event was a Close frame, of an endpoint or of closewatch, rather than the end of a leg.
    pub fn began_with_close(&self) -> bool {
        matches!(self.first, Some(First::Close(_) | First::Injected))
    }

    /// Whether an endpoint has sent its Close frame.
    pub fn has_sent_close(&self, endpoint: Endpoint) -> bool {
        self.received_from(endpoint).is_some()
    }

    /// Whether a Close frame, of the other endpoint or of closewatch, was delivered to an endpoint.
    pub fn was_delivered_close(&self, endpoint: Endpoint) -> bool {
        self.delivered[endpoint].is_some()
    }

    /// Whether the closing handshake is complete: no later event can make the session unclean.
    pub fn is_complete(&self) -> bool {
        let both_sent = Endpoint::BOTH.into_iter().all(|endpoint| self.has_sent_close(endpoint));
        let both_delivered = Endpoint::BOTH.into_iter().all(|endpoint| self.delivered[endpoint].is_some());
        self.fault.is_none()
            && both_sent
            && match self.first {
                Some(First::Close(_)) => both_delivered,
                Some(First::Injected) => true,
                Some(First::Provisional(_) | First::Loss(_) | First::Cut) | None => false,
            }
    }

    /// The ending of the session, which is over.
    pub fn into_ending(mut self) -> Ending {
        if self.fault.is_none() && !self.is_complete() {
            // No endpoint failed and an answer is missing: closewatch released the session.
            self.cut(Action::Drain);
        }
        let (status, reason, initiator) = self.first_event();
        Ending {
            status,
            reason,
            initiator,
            fault: self.fault,
            action: self.action,
            seen: PerEndpoint::from_fn(|endpoint| self.seen_by(endpoint)),
            received: PerEndpoint::from_fn(|endpoint| self.received_from(endpoint).map(|close| close.frame.status)),
        }
    }

    /// Whether this Close frame shows that its sender read the provisional one: it carries the same status, which is not
    /// one of those that say that the connection failed.
    fn answers_provisional(&self, sender: Endpoint, close: &ReceivedClose) -> bool {
        let provisional = self.received_from(sender).map(|provisional| provisional.frame.status);
        provisional == Some(close.frame.status) && !says_failure(close.frame.status)
    }

    /// The endpoint that keeps the closing handshake of `sender` from its end.
    fn silent_endpoint(&self, sender: Endpoint, held_back: PerEndpoint<bool>) -> Endpoint {
        let peer = sender.other();
        let has_taken = self.delivered[peer].is_some();
        // If the peer has taken the Close frame, the answer is either sent, or unread because the sender does not read.
        if has_taken && (self.has_sent_close(peer) || held_back[peer]) { sender } else { peer }
    }

    fn blame(&mut self, fault: Fault) {
        // After a Close frame from closewatch, every failure is reported as its action.
        let fault = match (self.first, self.action) {
            (Some(First::Injected), Some(action)) => Fault::Proxy(action),
            _ => fault,
        };
        self.fault.get_or_insert(fault);
    }

    fn first_event(&self) -> (CloseStatus, String, Party) {
        let (frame, party) = match self.first {
            Some(First::Close(sender) | First::Provisional(sender)) => {
                (self.received_from(sender).map(|close| &close.frame), sender.into())
            }
            Some(First::Injected) => (self.injected(), Party::Proxy),
            Some(First::Loss(endpoint)) => (None, endpoint.into()),
            Some(First::Cut) | None => (None, Party::Proxy),
        };
        let (status, reason) = status_and_reason(frame);
        (status, reason, party)
    }

    fn seen_by(&self, endpoint: Endpoint) -> CloseEvent {
        let own = self.received_from(endpoint);
        if own.is_some_and(|close| close.fails_connection) {
            return CloseEvent::ABNORMAL;
        }
        let frame = self.delivered[endpoint].and_then(|author| match author {
            Author::Peer => self.read_by(endpoint),
            Author::Proxy => self.injected(),
        });
        let (status, reason) = status_and_reason(frame);
        CloseEvent { status, reason, clean: frame.is_some() && own.is_some() }
    }

    /// The other endpoint's Close frame, if this endpoint reads it: it stops before a provisional one, unless its own
    /// Close frame shows that it went on.
    fn read_by(&self, endpoint: Endpoint) -> Option<&CloseFrame> {
        let close = self.received_from(endpoint.other())?;
        let is_read = !close.is_provisional || self.has_sent_close(endpoint);
        is_read.then_some(&close.frame)
    }

    fn received_from(&self, endpoint: Endpoint) -> Option<&ReceivedClose> {
        self.frames.as_ref()?.received[endpoint].as_ref()
    }

    fn injected(&self) -> Option<&CloseFrame> {
        self.frames.as_ref()?.injected.as_ref()
    }
}

/// Whether a status says that its sender failed the connection (RFC 6455, 7.1.7 with 7.4.1).
pub fn says_failure(status: CloseStatus) -> bool {
    matches!(status, CloseStatus::Sent(CloseCode::PROTOCOL_ERROR | CloseCode::INVALID_PAYLOAD))
}

fn status_and_reason(frame: Option<&CloseFrame>) -> (CloseStatus, String) {
    frame.map_or((CloseStatus::Abnormal, String::new()), |frame| (frame.status, frame.reason.clone()))
}

#[cfg(test)]
mod tests;
