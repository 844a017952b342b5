//! The closing handshake as seen from between the endpoints, and what is told of a session when it is over.

use super::{PerEndpoint, close::CloseStatus};

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

impl From<super::Endpoint> for Party {
    fn from(endpoint: super::Endpoint) -> Self {
        match endpoint {
            super::Endpoint::Client => Self::Client,
            super::Endpoint::Server => Self::Server,
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
