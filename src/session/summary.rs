//! The facts that remain of a session when it is over.

use std::time::Duration;

use crate::websocket::{
    PerEndpoint,
    closing_handshake::{ClosingHandshake, Ending},
    conformance::Violations,
};

/// One finished session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How and why it ended.
    pub ending: Ending,
    /// From the 101 to the end of both legs.
    pub duration: Duration,
    /// From the last byte relayed, Close frames excluded, to the first Close frame or the end of a leg.
    pub idle: Duration,
    /// From the first Close frame to the Close frame that answers it.
    pub close_handshake: Option<Duration>,
    /// By the sender.
    pub sent: PerEndpoint<Sent>,
    /// The last round trip of a Ping relayed to each endpoint.
    pub ping_rtt: PerEndpoint<Option<Duration>>,
}

/// The traffic that one endpoint sent in a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames, each counted when its header was complete.
    pub frames: u64,
    /// Messages, each counted when the header of its last frame was complete.
    pub messages: u64,
    /// Bytes after the handshake, headers included.
    pub bytes: u64,
    /// Ping frames.
    pub pings: u64,
    /// The violations of RFC 6455 that were seen.
    pub violations: Violations,
}

impl Summary {
    /// The summary of a session that was lost inside closewatch: nothing is known of it.
    pub fn lost() -> Self {
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
