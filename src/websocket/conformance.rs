//! What an endpoint's frames break of RFC 6455: counted, never corrected.

/// A kind of breach, counted once for each session and sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Violation {
    /// A client's frame without a mask (5.1).
    Unmasked,
    /// A server's frame with a mask (5.1).
    Masked,
    /// An opcode without a meaning (5.2).
    ReservedOpcode,
    /// An RSV bit that no agreed extension explains (5.2).
    ReservedBits,
    /// A control frame with more than 125 bytes of payload (5.5).
    ControlTooLong,
    /// A control frame in fragments (5.5).
    ControlFragmented,
    /// A continuation where no message was begun (5.4).
    UnexpectedContinuation,
    /// A new message inside a fragmented one (5.4).
    ExpectedContinuation,
    /// A length not in its shortest form, or with its top bit set (5.2).
    LengthEncoding,
    /// A Close frame with one byte of payload, or with a code that may not be sent (7.4).
    CloseCode,
    /// A Close reason that is no UTF-8 (5.5.1).
    CloseReasonUtf8,
    /// A data frame after the Close frame (5.5.1).
    DataAfterClose,
}

impl Violation {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Unmasked,
        Self::Masked,
        Self::ReservedOpcode,
        Self::ReservedBits,
        Self::ControlTooLong,
        Self::ControlFragmented,
        Self::UnexpectedContinuation,
        Self::ExpectedContinuation,
        Self::LengthEncoding,
        Self::CloseCode,
        Self::CloseReasonUtf8,
        Self::DataAfterClose,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unmasked => "unmasked",
            Self::Masked => "masked",
            Self::ReservedOpcode => "reserved_opcode",
            Self::ReservedBits => "reserved_bits",
            Self::ControlTooLong => "control_too_long",
            Self::ControlFragmented => "control_fragmented",
            Self::UnexpectedContinuation => "unexpected_continuation",
            Self::ExpectedContinuation => "expected_continuation",
            Self::LengthEncoding => "length_encoding",
            Self::CloseCode => "close_code",
            Self::CloseReasonUtf8 => "close_reason_utf8",
            Self::DataAfterClose => "data_after_close",
        }
    }
}
