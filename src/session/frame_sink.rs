//! The counters that a session feeds while it reads frames.

use std::time::Duration;

use crate::websocket::{
    conformance::{Violation, WholeMessages},
    frame::{MessageType, Opcode},
};

/// Counts the traffic of one endpoint. Calls are monomorphised: they happen once or more for every frame.
pub trait FrameSink {
    /// Bytes came, frame headers included.
    fn bytes(&self, count: u64);
    /// The header of a frame is complete.
    fn frame(&self, opcode: Opcode);
    /// The header of a message's last frame is complete.
    fn message(&self, kind: MessageType);
    /// The last byte of a message came; `payload_len` is the payload of all its frames.
    fn message_size(&self, payload_len: u64);
    /// Messages of one frame each came whole: each counts as a frame, as a message, and by its size.
    fn whole_messages(&self, messages: &WholeMessages);
    /// The first violation of this kind by this endpoint in this session.
    fn violation(&self, kind: Violation);
    /// This endpoint answered a Ping that was relayed to it.
    fn ping_rtt(&self, round_trip: Duration);
}
