//! The violations of RFC 6455 in an endpoint's frames: counted, never corrected.

mod fast_path;
mod violation;

pub use self::{
    fast_path::WholeMessages,
    violation::{Violation, Violations},
};

use super::{
    Endpoint,
    close_code::{CloseCode, CloseFrame, CloseStatus},
    frame::{FrameHeader, MessageType, Opcode},
};

/// The negotiated extensions, as far as they give the RSV bits a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extensions {
    /// No extension: no RSV bit may be set.
    None,
    /// permessage-deflate alone: RSV1 marks a compressed message, on its first frame (RFC 7692, 6).
    PermessageDeflate,
    /// An extension that closewatch does not know. It may use any RSV bit of data frames.
    Other,
}

impl Extensions {
    /// Reads the `Sec-WebSocket-Extensions` of the server's answer (RFC 6455, 9.1).
    pub fn parse(header: Option<&str>) -> Self {
        let mut names = header
            .unwrap_or_default()
            .split(',')
            .filter_map(|extension| extension.split(';').next())
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .peekable();
        if names.peek().is_none() {
            Self::None
        } else if names.all(|name| name.eq_ignore_ascii_case("permessage-deflate")) {
            Self::PermessageDeflate
        } else {
            Self::Other
        }
    }

    /// The RSV bits that a frame may have.
    fn allowed_rsv(self, header: &FrameHeader) -> u8 {
        match self {
            _ if starts_message(header) => self.rsv_of_messages(),
            Self::Other if !header.control => 0b111,
            _ => 0,
        }
    }

    /// The RSV bits that the first frame of a message may have.
    #[inline]
    fn rsv_of_messages(self) -> u8 {
        match self {
            Self::None => 0,
            Self::PermessageDeflate => 0b100,
            Self::Other => 0b111,
        }
    }
}

/// The result of [`Conformance::frame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The violations that are the first of their kind from this sender.
    pub new: Violations,
    /// The message that the frame completes.
    pub message: Option<CompletedMessage>,
}

/// A message whose last header is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompletedMessage {
    /// The type of its payload.
    pub kind: MessageType,
    /// The payload bytes of all its fragments.
    pub payload_len: u64,
}

/// The result of [`Conformance::close`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseVerdict {
    /// The violations that are the first of their kind from this sender.
    pub new: Violations,
    /// The Close frame, if this is the one that counts: at most one for each sender and session.
    pub taken: Option<CloseFrame>,
    /// It comes after a violation at which its receiver must fail the connection.
    pub is_provisional: bool,
}

/// Judges the frames of one sender, in their order.
///
/// A message begins with a text or binary frame. If that comes inside a fragmented message, the fragmented message is
/// never complete. A continuation outside of a message belongs to none. Reserved and control frames neither begin nor end
/// a message.
#[derive(Debug, Clone)]
pub struct Conformance {
    sender: Endpoint,
    extensions: Extensions,
    seen: Violations,
    unfinished: Option<UnfinishedMessage>,
    closing: CloseProgress,
}

/// A fragmented message whose last frame has not come.
#[derive(Debug, Clone, Copy)]
struct UnfinishedMessage {
    kind: MessageType,
    payload_len: u64,
}

/// How far a sender has come in closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CloseProgress {
    /// No Close frame.
    NotBegun,
    /// The header of a Close frame came. The frame need not count as the Close frame.
    Seen,
    /// The Close frame that counts came.
    Taken,
}

impl Conformance {
    /// Before the first frame of `sender`.
    pub const fn new(sender: Endpoint, extensions: Extensions) -> Self {
        Self { sender, extensions, seen: Violations::NONE, unfinished: None, closing: CloseProgress::NotBegun }
    }

    /// Judges the next frame by its header.
    pub fn frame(&mut self, header: &FrameHeader) -> Verdict {
        let new = self.record(self.header_violations(header));
        if header.opcode == Opcode::Close && self.closing == CloseProgress::NotBegun {
            self.closing = CloseProgress::Seen;
        }
        Verdict { new, message: self.advance_message(header) }
    }

    /// Judges the whole payload of a Close frame, unmasked, after [`Conformance::frame`] has judged its `header`.
    ///
    /// Without a violation by this sender up to its header, the frame counts as the Close frame; after one, only if it is
    /// well-formed, because the bytes of such a stream need not be what they look like. A frame with more than 125 bytes
    /// never counts, so its payload is not needed.
    pub fn close(&mut self, header: &FrameHeader, payload: &[u8]) -> CloseVerdict {
        let (status, reason) = match payload {
            [] => (CloseStatus::NoStatus, payload),
            [_] => (CloseStatus::Malformed, &[][..]),
            [high, low, reason @ ..] => (CloseStatus::Sent(CloseCode(u16::from_be_bytes([*high, *low]))), reason),
        };
        let is_provisional = self.seen.fail_the_connection();
        let trusted = self.seen.is_empty() || self.well_formed(header, status);
        let new = self.record(close_violations(status, reason));
        let taken = (trusted && self.closing != CloseProgress::Taken).then(|| {
            self.closing = CloseProgress::Taken;
            CloseFrame { status, reason: String::from_utf8_lossy(reason).into_owned() }
        });
        CloseVerdict { new, taken, is_provisional }
    }

    /// All violations so far.
    pub const fn seen(&self) -> Violations {
        self.seen
    }

    /// The violations in the frames before the Close frame.
    pub const fn seen_before_close(&self) -> Violations {
        self.seen.difference(Violations::OF_CLOSE)
    }

    /// The payload bytes of the unfinished message, including its current frame; 0 outside of a message. The last frame
    /// finishes the message: its size is then in the [`Verdict`].
    pub fn message_so_far(&self) -> u64 {
        self.unfinished.map_or(0, |message| message.payload_len)
    }

    /// The violations in a header and in its place in the stream.
    fn header_violations(&self, header: &FrameHeader) -> Violations {
        let starts = starts_message(header);
        let continues = header.opcode == Opcode::Continuation;
        let inside = self.unfinished.is_some();
        let wrong_mask = !self.masks_rightly(header);
        [
            (Violation::Unmasked, wrong_mask && header.mask.is_none()),
            (Violation::Masked, wrong_mask && header.mask.is_some()),
            (Violation::ReservedOpcode, header.opcode == Opcode::Reserved),
            (Violation::ReservedBits, header.rsv & !self.extensions.allowed_rsv(header) != 0),
            (Violation::ControlTooLong, header.control && header.payload_len > 125),
            (Violation::ControlFragmented, header.control && !header.fin),
            (Violation::UnexpectedContinuation, continues && !inside),
            (Violation::ExpectedContinuation, starts && inside),
            (Violation::LengthEncoding, !header.minimal || header.loses_framing()),
            (Violation::DataAfterClose, (starts || continues) && self.closing != CloseProgress::NotBegun),
        ]
        .into_iter()
        .filter_map(|(violation, committed)| committed.then_some(violation))
        .collect()
    }

    /// Advances the sender's message; returns it if this frame completes it.
    fn advance_message(&mut self, header: &FrameHeader) -> Option<CompletedMessage> {
        let before = match message_type(header.opcode) {
            Some(kind) => UnfinishedMessage { kind, payload_len: 0 },
            None if header.opcode == Opcode::Continuation => self.unfinished?,
            None => return None,
        };
        let payload_len = before.payload_len.saturating_add(header.payload_len);
        let message = UnfinishedMessage { payload_len, ..before };
        self.unfinished = (!header.fin).then_some(message);
        header.fin.then_some(CompletedMessage { kind: message.kind, payload_len })
    }

    /// A client masks all its frames, a server none (5.1).
    #[inline]
    fn masks_rightly(&self, header: &FrameHeader) -> bool {
        header.mask.is_some() == (self.sender == Endpoint::Client)
    }

    /// Whether a Close frame counts after a violation.
    fn well_formed(&self, header: &FrameHeader, status: CloseStatus) -> bool {
        let code_allowed = match status {
            CloseStatus::Sent(code) => code.allowed_on_wire(),
            CloseStatus::NoStatus => true,
            CloseStatus::Malformed | CloseStatus::Abnormal => false,
        };
        header.fin
            && header.rsv == 0
            && header.minimal
            && header.payload_len <= 125
            && self.masks_rightly(header)
            && code_allowed
    }

    /// Adds to the violations seen, and returns the new ones.
    fn record(&mut self, found: Violations) -> Violations {
        let new = found.difference(self.seen);
        self.seen = self.seen.union(new);
        new
    }
}

/// The violations in the payload of a Close frame (7.4 and 5.5.1).
fn close_violations(status: CloseStatus, reason: &[u8]) -> Violations {
    let illegal_code = match status {
        CloseStatus::Sent(code) => !code.allowed_on_wire() || matches!(code.0, 1016..=2999),
        CloseStatus::Malformed => true,
        CloseStatus::NoStatus | CloseStatus::Abnormal => false,
    };
    [(Violation::CloseCode, illegal_code), (Violation::CloseReasonUtf8, str::from_utf8(reason).is_err())]
        .into_iter()
        .filter_map(|(violation, committed)| committed.then_some(violation))
        .collect()
}

/// The type of the message that a frame with this opcode starts.
#[inline]
fn message_type(opcode: Opcode) -> Option<MessageType> {
    match opcode {
        Opcode::Text => Some(MessageType::Text),
        Opcode::Binary => Some(MessageType::Binary),
        _ => None,
    }
}

/// Whether a frame is the first of a message.
#[inline]
fn starts_message(header: &FrameHeader) -> bool {
    message_type(header.opcode).is_some()
}

#[cfg(test)]
mod tests;
