//! The timers and limits that a route sets for its sessions.

use std::time::Duration;

use crate::websocket::{PerEndpoint, close_code::CloseText};

/// Timers and limits of a session. `None` means that there is no such limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// No byte in either direction for this long: Close 1001 to both.
    pub idle: Option<Duration>,
    /// The greatest age of a session, minus up to a tenth at random: Close 1001 to both.
    pub max_age: Option<Duration>,
    /// How long closewatch waits for the answer to the first Close frame, or for the end of the other leg.
    pub close: Option<Duration>,
    /// How long both endpoints may take to hang up after a complete closing handshake.
    pub hang_up: Option<Duration>,
    /// The largest payload of a frame in bytes; above it both legs get Close 1009.
    pub frame_bytes: Option<u64>,
    /// The largest payload of a message in bytes, summed over its frames; above it both legs get Close 1009.
    pub message_bytes: Option<u64>,
    /// Bytes held for one direction if its reader is slow; then the sender is not read.
    pub buffer_bytes: usize,
    /// The Close frame that the other endpoint gets, instead of the bare loss, when this endpoint is lost.
    pub on_loss: PerEndpoint<Option<CloseText>>,
}

impl Policy {
    /// Whether a frame is larger than allowed, or its message up to and including it.
    pub fn is_exceeded(&self, frame_bytes: u64, message_bytes: u64) -> bool {
        let exceeds = |limit: Option<u64>, size: u64| limit.is_some_and(|limit| size > limit);
        exceeds(self.frame_bytes, frame_bytes) || exceeds(self.message_bytes, message_bytes)
    }

    /// The largest allowed message of one frame.
    #[inline]
    pub fn largest_frame(&self) -> u64 {
        self.frame_bytes.unwrap_or(u64::MAX).min(self.message_bytes.unwrap_or(u64::MAX))
    }

    /// Whether frames are held against a size, so that a header passes only when it is complete.
    pub fn limits_frames(&self) -> bool {
        self.frame_bytes.is_some() || self.message_bytes.is_some()
    }
}
