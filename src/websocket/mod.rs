//! The WebSocket protocol (RFC 6455) as seen from between its two endpoints: frames, violations, Close codes, the closing
//! handshake. Values in, values out: nothing here reads, waits, logs or asks for the time.

pub mod close_code;
pub mod closing_handshake;
pub mod conformance;
pub mod decoder;
pub mod frame;
pub mod registry;

/// One of the two WebSocket endpoints of a session (RFC 6455, 1.5 and 4). The proxy is not an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// The endpoint that opened the connection.
    Client,
    /// The endpoint behind closewatch.
    Server,
}

impl Endpoint {
    /// Both endpoints, the client first.
    pub const BOTH: [Self; 2] = [Self::Client, Self::Server];

    /// The endpoint at the other end of the session.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// The label value: `client` or `server`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// One value for each endpoint, indexed by [`Endpoint`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerEndpoint<T> {
    /// The client's.
    pub client: T,
    /// The server's.
    pub server: T,
}

impl<T> PerEndpoint<T> {
    /// Makes both from one rule.
    pub fn from_fn(mut make: impl FnMut(Endpoint) -> T) -> Self {
        Self { client: make(Endpoint::Client), server: make(Endpoint::Server) }
    }
}

impl<T> std::ops::Index<Endpoint> for PerEndpoint<T> {
    type Output = T;

    fn index(&self, endpoint: Endpoint) -> &T {
        match endpoint {
            Endpoint::Client => &self.client,
            Endpoint::Server => &self.server,
        }
    }
}

impl<T> std::ops::IndexMut<Endpoint> for PerEndpoint<T> {
    fn index_mut(&mut self, endpoint: Endpoint) -> &mut T {
        match endpoint {
            Endpoint::Client => &mut self.client,
            Endpoint::Server => &mut self.server,
        }
    }
}
