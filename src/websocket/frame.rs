//! Frames on the wire (RFC 6455, 5.2).

/// What a frame is (RFC 6455, 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// 0: more of a fragmented message.
    Continuation,
    /// 1: a text message, or its first fragment.
    Text,
    /// 2: a binary message, or its first fragment.
    Binary,
    /// 8: a Close frame.
    Close,
    /// 9: a Ping.
    Ping,
    /// 10: a Pong.
    Pong,
    /// 3 to 7 and 11 to 15: without a meaning yet.
    Reserved,
}

impl Opcode {
    /// Every opcode label, in the order of the wire's numbers; [`Opcode::Reserved`] last.
    pub const ALL: [Self; 7] =
        [Self::Continuation, Self::Text, Self::Binary, Self::Close, Self::Ping, Self::Pong, Self::Reserved];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Continuation => "continuation",
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Close => "close",
            Self::Ping => "ping",
            Self::Pong => "pong",
            Self::Reserved => "reserved",
        }
    }
}

/// What a message carries (RFC 6455, 5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// UTF-8 text.
    Text,
    /// Arbitrary bytes.
    Binary,
}

impl MessageType {
    /// Both types.
    pub const ALL: [Self; 2] = [Self::Text, Self::Binary];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Binary => "binary",
        }
    }
}
