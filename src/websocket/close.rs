//! Close codes (RFC 6455, 7.4): what each means, who may send it, whether it may stand on the wire.

/// A Close status code: any number an endpoint can write, and the three that are never written (1005, 1006, 1015).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The purpose of the connection has been fulfilled (RFC 6455, 7.4.1).
    pub const NORMAL: Self = Self(1000);
    /// The endpoint goes away: a server stops, a browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
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
}

/// What a Close frame, or its absence, says about why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseStatus {
    /// A number that stood in a Close frame, legal there or not.
    Sent(CloseCode),
    /// A Close frame with a payload of one byte: no number can be read.
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
}
