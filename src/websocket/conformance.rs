//! What an endpoint's frames break of RFC 6455: counted, never corrected.

use super::{
    Endpoint,
    close::{CloseCode, CloseFrame, CloseStatus},
    frame::{FrameHeader, MessageType, Opcode},
};

/// What the opening handshake agreed on, as far as it gives the RSV bits a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extensions {
    /// No extension: no RSV bit may be set.
    None,
    /// permessage-deflate alone: RSV1 marks a compressed message, on its first frame (RFC 7692, 6).
    PermessageDeflate,
    /// An extension that closewatch does not know, and that may use any RSV bit of data frames.
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
    #[inline]
    fn allowed_rsv(self, header: &FrameHeader) -> u8 {
        match self {
            Self::PermessageDeflate if starts_message(header) => 0b100,
            Self::Other if !header.control => 0b111,
            _ => 0,
        }
    }
}

/// A set of breaches.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Violations(u16);

impl Violations {
    /// The set without a breach.
    pub const NONE: Self = Self(0);

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `violation` is one of them.
    pub const fn contains(self, violation: Violation) -> bool {
        self.0 & 1 << violation as u8 != 0
    }

    /// Adds one.
    pub const fn insert(&mut self, violation: Violation) {
        self.0 |= 1 << violation as u8;
    }

    /// Those that are not in `other`.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Each of them, in the order of [`Violation::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Violation> {
        Violation::ALL.into_iter().filter(move |&violation| self.contains(violation))
    }
}

impl FromIterator<Violation> for Violations {
    fn from_iter<I: IntoIterator<Item = Violation>>(violations: I) -> Self {
        let mut set = Self::NONE;
        violations.into_iter().for_each(|violation| set.insert(violation));
        set
    }
}

/// What [`Conformance::frames`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The breaches that this sender had not committed before.
    pub new: Violations,
    /// What the frames complete.
    pub message: Option<CompletedMessage>,
}

/// A message whose last header is complete, or several alike in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompletedMessage {
    /// What it carries.
    pub kind: MessageType,
    /// The payload bytes of all its fragments; of several messages, of each.
    pub payload_len: u64,
    /// How many messages: more than 1 only where so many frames were judged at once.
    pub count: u32,
}

/// What [`Conformance::close`] finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseVerdict {
    /// The breaches that this sender had not committed before.
    pub new: Violations,
    /// The Close frame that ends what this sender says, where this is it: at most one in a session.
    pub taken: Option<CloseFrame>,
}

/// Judges the frames of one sender, in their order.
///
/// A message begins with a text or binary frame, whatever came before: one inside a fragmented message takes that
/// message's place, which is then never completed. A continuation where no message was begun belongs to none.
/// Reserved and control frames neither begin nor end a message.
#[derive(Debug, Clone)]
pub struct Conformance {
    sender: Endpoint,
    extensions: Extensions,
    seen: Violations,
    unfinished: Option<UnfinishedMessage>,
    closing: Closing,
}

/// A fragmented message whose last frame is still to come.
#[derive(Debug, Clone, Copy)]
struct UnfinishedMessage {
    kind: MessageType,
    payload_len: u64,
}

/// How far a sender has come in closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// No Close frame.
    NotBegun,
    /// The header of a Close frame, which need not be taken for one.
    Seen,
    /// A Close frame was taken.
    Taken,
}

impl Conformance {
    /// Before the first frame of `sender`.
    pub const fn new(sender: Endpoint, extensions: Extensions) -> Self {
        Self { sender, extensions, seen: Violations::NONE, unfinished: None, closing: Closing::NotBegun }
    }

    /// Judges `count` frames by the header of the first, as [`Item::Frames`](super::decoder::Item::Frames) tells them.
    #[expect(clippy::inline_always, reason = "measured: as a call it doubles the time of a lone frame")]
    #[inline(always)]
    pub fn frames(&mut self, header: &FrameHeader, count: u32) -> Verdict {
        match self.plain_message(header) {
            Some(kind) => {
                let message = CompletedMessage { kind, payload_len: header.payload_len, count };
                Verdict { new: Violations::NONE, message: Some(message) }
            }
            None => self.judge(*header, count),
        }
    }

    /// Judges the whole payload of a Close frame, unmasked, after [`Conformance::frames`] has judged its `header`.
    ///
    /// The frame is taken for a Close frame where no breach was seen from this sender up to its header, else only where
    /// it is well-formed: what stands in a stream that breaks the rules need not be what it looks like. One with more
    /// than 125 bytes is never taken, so its payload need not be shown.
    pub fn close(&mut self, header: &FrameHeader, payload: &[u8]) -> CloseVerdict {
        let (status, reason) = match payload {
            [] => (CloseStatus::NoStatus, payload),
            [_] => (CloseStatus::Malformed, &[][..]),
            [high, low, reason @ ..] => (CloseStatus::Sent(CloseCode(u16::from_be_bytes([*high, *low]))), reason),
        };
        let trusted = self.seen.is_empty() || self.well_formed(header, status);
        let new = self.record(close_breaches(status, reason));
        let taken = (trusted && self.closing != Closing::Taken).then(|| {
            self.closing = Closing::Taken;
            CloseFrame { status, reason: String::from_utf8_lossy(reason).into_owned() }
        });
        CloseVerdict { new, taken }
    }

    /// All breaches so far.
    pub const fn seen(&self) -> Violations {
        self.seen
    }

    /// The payload bytes of the message that is not finished yet, those of its current frame included; 0 outside one.
    /// A message's last frame finishes it: its size is then in the [`Verdict`].
    pub fn message_so_far(&self) -> u64 {
        self.unfinished.map_or(0, |message| message.payload_len)
    }

    /// What the message carries, where the frame is one as nearly all are: whole, and in nothing against any rule.
    #[inline]
    fn plain_message(&self, header: &FrameHeader) -> Option<MessageType> {
        let plain = header.fin
            && header.rsv & !self.extensions.allowed_rsv(header) == 0
            && header.minimal
            && !header.loses_framing()
            && self.masks_rightly(header)
            && self.unfinished.is_none()
            && self.closing == Closing::NotBegun;
        message_type(header.opcode).filter(|_| plain)
    }

    /// Judges by every rule. A header by reference would have to be in memory on the path of plain messages, too.
    #[inline(never)]
    fn judge(&mut self, header: FrameHeader, count: u32) -> Verdict {
        let new = self.record(self.header_breaches(&header));
        if header.opcode == Opcode::Close && self.closing == Closing::NotBegun {
            self.closing = Closing::Seen;
        }
        Verdict { new, message: self.advance_message(&header, count) }
    }

    /// The breaches that show in a header, and in where it stands.
    fn header_breaches(&self, header: &FrameHeader) -> Violations {
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
            (Violation::DataAfterClose, (starts || continues) && self.closing != Closing::NotBegun),
        ]
        .into_iter()
        .filter_map(|(violation, committed)| committed.then_some(violation))
        .collect()
    }

    /// Moves on in the sender's message, up to its completion.
    fn advance_message(&mut self, header: &FrameHeader, count: u32) -> Option<CompletedMessage> {
        let before = match message_type(header.opcode) {
            Some(kind) => UnfinishedMessage { kind, payload_len: 0 },
            None if header.opcode == Opcode::Continuation => self.unfinished?,
            None => return None,
        };
        let payload_len = before.payload_len.saturating_add(header.payload_len);
        let message = UnfinishedMessage { payload_len, ..before };
        self.unfinished = (!header.fin).then_some(message);
        header.fin.then_some(CompletedMessage { kind: message.kind, payload_len, count })
    }

    /// A client masks all its frames, a server none (5.1).
    #[inline]
    fn masks_rightly(&self, header: &FrameHeader) -> bool {
        header.mask.is_some() == (self.sender == Endpoint::Client)
    }

    /// Whether a Close frame can be trusted in a stream that has broken the rules.
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

    /// Adds to the breaches seen, and returns those that are new.
    fn record(&mut self, found: Violations) -> Violations {
        let new = found.difference(self.seen);
        self.seen.0 |= new.0;
        new
    }
}

/// The breaches in what a Close frame says (7.4 and 5.5.1).
fn close_breaches(status: CloseStatus, reason: &[u8]) -> Violations {
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

/// What the message that such a frame starts carries.
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

#[cfg(test)]
mod tests {
    use super::super::decoder::{FrameDecoder, Item};
    use super::Violation::{
        CloseCode as IllegalCode, CloseReasonUtf8, ControlFragmented, ControlTooLong, DataAfterClose,
        ExpectedContinuation, LengthEncoding, Masked, ReservedBits, ReservedOpcode, UnexpectedContinuation, Unmasked,
    };
    use super::*;

    /// The headers of frames in a row.
    type Headers<'a> = &'a [&'a [u8]];

    /// The header that the bytes begin with.
    fn header(bytes: &[u8]) -> FrameHeader {
        match FrameDecoder::new().decode(&mut &bytes[..]) {
            Some(Item::Frames { header, .. }) => header,
            other => panic!("{bytes:x?} is no header: {other:?}"),
        }
    }

    /// What the server breaks with frames of these headers, each time anew.
    fn breaches(extensions: Extensions, headers: Headers) -> Vec<Vec<Violation>> {
        let mut server = Conformance::new(Endpoint::Server, extensions);
        headers.iter().map(|bytes| server.frames(&header(bytes), 1).new.iter().collect()).collect()
    }

    fn message(kind: MessageType, payload_len: u64) -> CompletedMessage {
        CompletedMessage { kind, payload_len, count: 1 }
    }

    #[test]
    fn every_breach_of_a_header_is_told_once() {
        let long_ping = [0x89, 126, 0, 126];
        let top_bit = [0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0];
        let cases: [(Headers, &[&[Violation]]); 16] = [
            (&[&[0x81, 0], &[0x82, 125], &[0x88, 0], &[0x89, 125], &[0x8a, 0]], &[&[], &[], &[], &[], &[]]),
            (&[&[0x81, 0x80, 1, 2, 3, 4], &[0x81, 0x80, 1, 2, 3, 4], &[0x81, 0]], &[&[Masked], &[], &[]]),
            (&[&[0x83, 0], &[0x87, 0], &[0x8b, 0], &[0x8f, 0]], &[&[ReservedOpcode], &[], &[], &[]]),
            (&[&[0x8f, 0]], &[&[ReservedOpcode]]),
            (&[&[0x91, 0]], &[&[ReservedBits]]),
            (&[&long_ping, &long_ping], &[&[ControlTooLong], &[]]),
            (&[&[0x8b, 126, 0, 126]], &[&[ReservedOpcode, ControlTooLong]]),
            (&[&[0x09, 0], &[0x08, 0]], &[&[ControlFragmented], &[]]),
            (&[&[0x80, 0], &[0x00, 0], &[0x80, 0]], &[&[UnexpectedContinuation], &[], &[]]),
            (&[&[0x01, 0], &[0x82, 0], &[0x80, 0]], &[&[], &[ExpectedContinuation], &[UnexpectedContinuation]]),
            (&[&[0x01, 0], &[0x02, 0], &[0x80, 0]], &[&[], &[ExpectedContinuation], &[]]),
            (&[&[0x81, 126, 0, 125], &[0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]], &[&[LengthEncoding], &[]]),
            (&[&[0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]], &[&[LengthEncoding]]),
            (&[&top_bit], &[&[LengthEncoding]]),
            (&[&[0x88, 0], &[0x8a, 0], &[0x83, 0], &[0x81, 0]], &[&[], &[], &[ReservedOpcode], &[DataAfterClose]]),
            (&[&[0x01, 0], &[0x88, 0], &[0x00, 0], &[0x80, 0]], &[&[], &[], &[DataAfterClose], &[]]),
        ];
        for (headers, expected) in cases {
            assert_eq!(breaches(Extensions::None, headers), expected, "{headers:x?}");
        }
    }

    #[test]
    fn a_client_must_mask() {
        let mut client = Conformance::new(Endpoint::Client, Extensions::None);
        assert!(client.frames(&header(&[0x81, 0x80, 1, 2, 3, 4]), 1).new.is_empty());
        assert_eq!(client.frames(&header(&[0x81, 0]), 1).new, Violations::from_iter([Unmasked]));
        assert_eq!(client.frames(&header(&[0x89, 0]), 1).new, Violations::NONE);
        assert_eq!(client.seen(), Violations::from_iter([Unmasked]));
    }

    #[test]
    fn rsv_bits_are_what_the_extensions_make_of_them() {
        let cases: [(Extensions, Headers, bool); 16] = [
            (Extensions::None, &[&[0xc1, 0]], false),
            (Extensions::PermessageDeflate, &[&[0xc1, 0]], true),
            (Extensions::PermessageDeflate, &[&[0x42, 0], &[0x80, 0]], true),
            (Extensions::PermessageDeflate, &[&[0x41, 0], &[0xc0, 0]], false),
            (Extensions::PermessageDeflate, &[&[0xa1, 0]], false),
            (Extensions::PermessageDeflate, &[&[0x91, 0]], false),
            (Extensions::PermessageDeflate, &[&[0xd1, 0]], false),
            (Extensions::PermessageDeflate, &[&[0xc3, 0]], false),
            (Extensions::PermessageDeflate, &[&[0xc9, 0]], false),
            (Extensions::PermessageDeflate, &[&[0xc8, 0]], false),
            (Extensions::Other, &[&[0x71, 0], &[0xf0, 0]], true),
            (Extensions::Other, &[&[0xf7, 0]], true),
            (Extensions::Other, &[&[0x98, 0]], false),
            (Extensions::Other, &[&[0xa9, 0]], false),
            (Extensions::Other, &[&[0xca, 0]], false),
            (Extensions::Other, &[&[0xcb, 0]], false),
        ];
        for (extensions, headers, allowed) in cases {
            let told = breaches(extensions, headers).concat();
            assert_eq!(!told.contains(&ReservedBits), allowed, "{extensions:?} {headers:x?}");
        }
    }

    #[test]
    fn extensions_are_read_from_the_servers_answer() {
        for (value, expected) in [
            (None, Extensions::None),
            (Some(""), Extensions::None),
            (Some(" , "), Extensions::None),
            (Some("permessage-deflate"), Extensions::PermessageDeflate),
            (
                Some("Permessage-Deflate; server_no_context_takeover;client_max_window_bits=15"),
                Extensions::PermessageDeflate,
            ),
            (Some("permessage-deflate-2"), Extensions::Other),
            (Some("x-webkit-deflate-frame"), Extensions::Other),
            (Some("permessage-deflate, x-mux"), Extensions::Other),
            (Some("x-mux; a=1, permessage-deflate"), Extensions::Other),
        ] {
            assert_eq!(Extensions::parse(value), expected, "{value:?}");
        }
    }

    #[test]
    fn messages_are_complete_with_their_last_header() {
        use MessageType::{Binary, Text};
        let steps: [(&[u8], Option<CompletedMessage>, u64); 12] = [
            (&[0x81, 3], Some(message(Text, 3)), 0),
            (&[0x02, 4], None, 4),
            (&[0x89, 9], None, 4),
            (&[0x83, 7], None, 4),
            (&[0x00, 5], None, 9),
            (&[0x80, 6], Some(message(Binary, 15)), 0),
            (&[0x80, 8], None, 0),
            (&[0x00, 8], None, 0),
            (&[0x01, 1], None, 1),
            (&[0x02, 2], None, 2),
            (&[0x81, 3], Some(message(Text, 3)), 0),
            (&[0x80, 4], None, 0),
        ];
        let mut server = Conformance::new(Endpoint::Server, Extensions::None);
        for (step, (bytes, completed, so_far)) in steps.into_iter().enumerate() {
            assert_eq!(server.frames(&header(bytes), 1).message, completed, "step {step}");
            assert_eq!(server.message_so_far(), so_far, "step {step}");
        }
    }

    #[test]
    fn equal_frames_are_judged_at_once() {
        let mut server = Conformance::new(Endpoint::Server, Extensions::None);
        let expected = CompletedMessage { kind: MessageType::Binary, payload_len: 7, count: 40 };
        server.frames(&header(&[0x01, 1]), 1);
        let verdict = server.frames(&header(&[0xa2, 7]), 40);
        assert_eq!(verdict.new, Violations::from_iter([ReservedBits, ExpectedContinuation]));
        assert_eq!(verdict.message, Some(expected));
        assert_eq!(server.frames(&header(&[0x82, 7]), 40), Verdict { new: Violations::NONE, message: Some(expected) });
    }

    #[test]
    fn sums_that_no_number_holds_do_not_panic() {
        let longest = [0x01, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        let mut server = Conformance::new(Endpoint::Server, Extensions::None);
        server.frames(&header(&longest), 1);
        assert_eq!(server.frames(&header(&[0x80, 9]), 1).message, Some(message(MessageType::Text, u64::MAX)));
    }

    /// Judges an unmasked Close frame of the server.
    fn close(server: &mut Conformance, payload: &[u8]) -> CloseVerdict {
        let length = u8::try_from(payload.len()).expect("tests keep to control frames");
        let header = header(&[0x88, length]);
        server.frames(&header, 1);
        server.close(&header, payload)
    }

    fn taken(status: CloseStatus, reason: &str) -> CloseFrame {
        CloseFrame { status, reason: reason.to_owned() }
    }

    #[test]
    fn the_first_close_frame_is_taken_whatever_it_says() {
        let sent = |code| CloseStatus::Sent(CloseCode(code));
        let cases: [(&[u8], CloseFrame, &[Violation]); 12] = [
            (&[], taken(CloseStatus::NoStatus, ""), &[]),
            (&[3], taken(CloseStatus::Malformed, ""), &[IllegalCode]),
            (b"\x03\xe8", taken(sent(1000), ""), &[]),
            (b"\x03\xf6bye", taken(sent(1014), "bye"), &[]),
            (b"\x0f\xa1", taken(sent(4001), ""), &[]),
            (b"\x00\x00", taken(sent(0), ""), &[IllegalCode]),
            (b"\x03\xee", taken(sent(1006), ""), &[IllegalCode]),
            (b"\x03\xf8", taken(sent(1016), ""), &[IllegalCode]),
            (b"\x0b\xb7", taken(sent(2999), ""), &[IllegalCode]),
            (b"\x13\x88", taken(sent(5000), ""), &[IllegalCode]),
            (b"\x03\xe8a\xff", taken(sent(1000), "a\u{fffd}"), &[CloseReasonUtf8]),
            (b"\x03\xed\xff", taken(sent(1005), "\u{fffd}"), &[IllegalCode, CloseReasonUtf8]),
        ];
        for (payload, taken, new) in cases {
            let mut server = Conformance::new(Endpoint::Server, Extensions::None);
            let new = new.iter().copied().collect();
            assert_eq!(close(&mut server, payload), CloseVerdict { new, taken: Some(taken) }, "{payload:x?}");
            assert_eq!(server.seen(), new, "{payload:x?}");
        }
    }

    #[test]
    fn after_a_breach_only_a_well_formed_close_frame_is_taken() {
        let (masked, rsv, fragment) = ([0x88, 0x82, 1, 2, 3, 4], [0xc8, 2], [0x08, 2]);
        let (overlong, too_long, plain) = ([0x88, 126, 0, 2], [0x88, 126, 0, 126], [0x88, 2]);
        let cases: [(&[u8], &[u8], bool); 14] = [
            (&plain, b"\x03\xe8", true),
            (&[0x88, 0], b"", true),
            (&plain, b"\x0f\xa0", true),
            (&plain, b"\x03\xf8", true),
            (&[0x88, 3], b"\x03\xe8\xff", true),
            (&[0x88, 1], b"\x03", false),
            (&plain, b"\x03\xe7", false),
            (&plain, b"\x03\xee", false),
            (&plain, b"\x13\x88", false),
            (&masked, b"\x03\xe8", false),
            (&rsv, b"\x03\xe8", false),
            (&fragment, b"\x03\xe8", false),
            (&overlong, b"\x03\xe8", false),
            (&too_long, b"", false),
        ];
        for (bytes, payload, expected) in cases {
            let mut server = Conformance::new(Endpoint::Server, Extensions::None);
            server.frames(&header(&[0x83, 0]), 1);
            server.frames(&header(bytes), 1);
            let taken = server.close(&header(bytes), payload).taken;
            assert_eq!(taken.is_some(), expected, "{bytes:x?} {payload:x?}");
        }
    }

    #[test]
    fn a_breach_in_its_own_header_keeps_a_close_frame_from_being_taken() {
        let mut server = Conformance::new(Endpoint::Server, Extensions::None);
        let fragment = header(&[0x08, 2]);
        assert_eq!(server.frames(&fragment, 1).new, Violations::from_iter([ControlFragmented]));
        assert_eq!(server.close(&fragment, b"\x03\xe8").taken, None);
        assert_eq!(server.frames(&header(&[0x81, 0]), 1).new, Violations::from_iter([DataAfterClose]));
        assert_eq!(close(&mut server, b"\x03\xe9").taken, Some(taken(CloseStatus::Sent(CloseCode::GOING_AWAY), "")));
    }

    #[test]
    fn only_one_close_frame_is_taken_but_all_are_judged() {
        let mut server = Conformance::new(Endpoint::Server, Extensions::None);
        assert!(close(&mut server, b"\x03\xe8").taken.is_some());
        let second = close(&mut server, b"\x03\xee");
        assert_eq!(second, CloseVerdict { new: Violations::from_iter([IllegalCode]), taken: None });
        assert_eq!(close(&mut server, b"\x03\xee").new, Violations::NONE);
    }

    #[test]
    fn a_set_of_violations_holds_each_kind() {
        let mut set = Violations::NONE;
        for (count, violation) in Violation::ALL.into_iter().enumerate() {
            assert!(!set.contains(violation));
            set.insert(violation);
            assert!(set.contains(violation));
            assert_eq!(set.iter().collect::<Vec<_>>(), Violation::ALL[..=count]);
        }
        assert_eq!(set.difference(Violations::from_iter([Masked])).iter().count(), 11);
        assert_eq!(Violations::default(), Violations::NONE);
    }
}
