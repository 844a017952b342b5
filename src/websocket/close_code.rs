//! Close codes (RFC 6455, 7.4) and Close frames.

pub use super::registry::{CodeEntry, Sender, range_label};

use super::frame::{self, Opcode};

/// The longest reason that fits into a Close frame beside its code, in bytes: 125 less two (RFC 6455, 5.5).
pub const MAX_REASON: usize = 123;

/// A Close status code: any number an endpoint can write, and the three that are never written (1005, 1006, 1015).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The purpose of the connection has been fulfilled (RFC 6455, 7.4.1).
    pub const NORMAL: Self = Self(1000);
    /// The endpoint goes away: a server stops, a browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// The sender fails the connection because of a violation of the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// The sender fails the connection because of data that does not fit its type, such as text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// Synthesized: a Close frame without a code was received.
    pub const NO_STATUS: Self = Self(1005);
    /// Synthesized: the connection ended without a Close frame.
    pub const ABNORMAL: Self = Self(1006);
    /// A message too big to process.
    pub const TOO_BIG: Self = Self(1009);
    /// Synthesized: the TLS handshake failed.
    pub const TLS: Self = Self(1015);

    /// Whether an endpoint may write this code into a Close frame: 1000 to 4999 without the synthesized ones and 1004.
    pub const fn allowed_on_wire(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 1016..=4999)
    }

    /// Whether IANA's WebSocket Close Code registry has this code, rather than a range that contains it.
    pub fn is_registered(self) -> bool {
        CodeEntry::of(self.0).single_code().is_some()
    }

    /// The name in IANA's WebSocket Close Code registry, else that of the range: `Reserved` (1016 to 2999), `Registered`
    /// (3000 to 3999), `Private` (4000 to 4999), `Invalid` (the rest).
    pub fn name(self) -> &'static str {
        CodeEntry::of(self.0).name
    }
}

/// The status of a Close frame, or of its absence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseStatus {
    /// A number in a Close frame, legal or not.
    Sent(CloseCode),
    /// A Close frame with a payload of one byte, which holds no number.
    Malformed,
    /// 1005: a Close frame without a payload.
    NoStatus,
    /// 1006: no Close frame.
    Abnormal,
}

impl CloseStatus {
    /// The number as records show it: synthesized where no number stood on the wire, `None` for a one-byte payload.
    pub const fn number(self) -> Option<u16> {
        match self {
            Self::Sent(code) => Some(code.0),
            Self::Malformed => None,
            Self::NoStatus => Some(CloseCode::NO_STATUS.0),
            Self::Abnormal => Some(CloseCode::ABNORMAL.0),
        }
    }

    /// The code's name as records show it; `Invalid` if it is not allowed on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sent(code) if code.allowed_on_wire() => code.name(),
            Self::Sent(_) | Self::Malformed => super::registry::INVALID,
            Self::NoStatus => CloseCode::NO_STATUS.name(),
            Self::Abnormal => CloseCode::ABNORMAL.name(),
        }
    }
}

/// The content of a Close frame, as its receiver reads it (RFC 6455, 5.5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame {
    /// Its code: [`CloseStatus::Sent`], [`CloseStatus::Malformed`] or [`CloseStatus::NoStatus`].
    pub status: CloseStatus,
    /// Its reason, empty if there is none, with replacement characters for invalid UTF-8.
    pub reason: String,
}

/// The content of a Close frame that closewatch writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseText {
    /// A code that is allowed on the wire.
    pub code: CloseCode,
    /// At most [`MAX_REASON`] bytes.
    pub reason: String,
}

impl CloseText {
    /// A code without a reason.
    pub const fn code(code: CloseCode) -> Self {
        Self { code, reason: String::new() }
    }

    /// The frame as its receiver reads it.
    pub fn frame(&self) -> CloseFrame {
        CloseFrame { status: CloseStatus::Sent(self.code), reason: self.reason.clone() }
    }

    /// The frame's bytes, with a mask if it goes to a server (RFC 6455, 5.1).
    pub fn encode(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut payload = self.code.0.to_be_bytes().to_vec();
        payload.extend_from_slice(self.reason.as_bytes());
        let mut bytes = Vec::with_capacity(payload.len() + 6);
        frame::encode(true, Opcode::Close, mask, &payload, &mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_has_the_name_that_records_show() {
        let sent = |code| CloseStatus::Sent(CloseCode(code));
        let expected = [
            (sent(1000), "Normal Closure"),
            (sent(1012), "Service Restart"),
            (sent(1014), "Bad Gateway"),
            (sent(1016), "Reserved"),
            (sent(2999), "Reserved"),
            (sent(3000), "Unauthorized"),
            (sent(3001), "Registered"),
            (sent(3999), "Registered"),
            (sent(4000), "Private"),
            (sent(4999), "Private"),
            (CloseStatus::NoStatus, "No Status Rcvd"),
            (CloseStatus::Abnormal, "Abnormal Closure"),
            (sent(0), "Invalid"),
            (sent(999), "Invalid"),
            (sent(1004), "Invalid"),
            (sent(1005), "Invalid"),
            (sent(1006), "Invalid"),
            (sent(1015), "Invalid"),
            (sent(5000), "Invalid"),
            (sent(u16::MAX), "Invalid"),
            (CloseStatus::Malformed, "Invalid"),
        ];
        for (status, name) in expected {
            assert_eq!(status.name(), name, "{status:?}");
        }
    }
}
