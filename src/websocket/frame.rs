//! Frames on the wire (RFC 6455, 5.2): parsing a header, writing a frame.

/// The longest header: two bytes, eight of length, four of mask.
pub(super) const MAX_HEADER: usize = 14;

/// The longest payload that a control frame may have (5.5), and the largest length in the second byte.
pub(super) const MAX_SMALL_PAYLOAD: u8 = 125;

/// In the first byte: the frame is the last of its message.
pub(super) const FIN_BIT: u8 = 0x80;

/// In the second byte: the header has a masking key.
pub(super) const MASK_BIT: u8 = 0x80;

/// The length of the masking key.
pub(super) const MASK_LEN: u8 = 4;

/// In the second byte: the length follows in two bytes.
const LENGTH_16: u8 = 126;

/// In the second byte: the length follows in eight bytes.
const LENGTH_64: u8 = 127;

/// A complete frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// The last frame of its message.
    pub fin: bool,
    /// The bits RSV1 (4), RSV2 (2) and RSV3 (1).
    pub rsv: u8,
    /// The opcode.
    pub opcode: Opcode,
    /// A control frame (5.5): Close, Ping, Pong, or one of the reserved opcodes 11 to 15.
    pub control: bool,
    /// The masking key, if the mask bit is set.
    pub mask: Option<[u8; 4]>,
    /// The payload's length in bytes as it was read, even with a top bit that is not allowed.
    pub payload_len: u64,
    /// The header's own length in bytes: 2 to 14.
    pub header_len: u8,
    /// The payload's length is in its shortest form, as it must be.
    pub minimal: bool,
}

impl FrameHeader {
    /// The header at the beginning of `bytes`, or `None` if it is incomplete.
    #[inline]
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let &[first, second, ..] = bytes else { return None };
        let Length { payload_len, minimal, end } = Length::parse(bytes)?;
        let (mask, header_len) = match second & MASK_BIT {
            0 => (None, end),
            _ => (Some(*bytes[usize::from(end)..].first_chunk()?), end + MASK_LEN),
        };
        Some(Self {
            fin: first & FIN_BIT != 0,
            rsv: first >> 4 & 0b111,
            opcode: Opcode::from_number(first & 0x0f),
            control: first & 0x08 != 0,
            mask,
            payload_len,
            header_len,
            minimal,
        })
    }

    /// The length has its top bit set, which 5.2 forbids: nobody can know where the next frame begins.
    pub const fn loses_framing(&self) -> bool {
        self.payload_len >> 63 != 0
    }
}

/// The payload's length in a header.
pub(super) struct Length {
    pub(super) payload_len: u64,
    /// It is in its shortest form.
    pub(super) minimal: bool,
    /// The number of header bytes up to its end.
    pub(super) end: u8,
}

impl Length {
    /// Reads the length from the header at the beginning of `bytes`, if the header is complete so far.
    #[inline]
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (payload_len, minimal, end) = match bytes.get(1)? & !MASK_BIT {
            LENGTH_16 => {
                let length = u16::from_be_bytes(*bytes[2..].first_chunk()?);
                (u64::from(length), length > u16::from(MAX_SMALL_PAYLOAD), 4)
            }
            LENGTH_64 => {
                let length = u64::from_be_bytes(*bytes[2..].first_chunk()?);
                (length, length > u64::from(u16::MAX), 10)
            }
            length => (u64::from(length), true, 2),
        };
        Some(Self { payload_len, minimal, end })
    }
}

/// Appends a frame to `out`, with its length in the shortest form, and `payload` masked if there is a `mask`.
/// [`Opcode::Reserved`] is written as 3.
pub fn encode(fin: bool, opcode: Opcode, mask: Option<[u8; 4]>, payload: &[u8], out: &mut Vec<u8>) {
    let fin_bit = if fin { FIN_BIT } else { 0 };
    let mask_bit = if mask.is_some() { MASK_BIT } else { 0 };
    out.push(fin_bit | opcode.number());
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..=MAX_SMALL_PAYLOAD), _) => out.push(mask_bit | length),
        (_, Ok(length)) => {
            out.push(mask_bit | LENGTH_16);
            out.extend(length.to_be_bytes());
        }
        _ => {
            out.push(mask_bit | LENGTH_64);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend(mask.into_iter().flatten());
    let start = out.len();
    out.extend(payload);
    if let Some(mask) = mask {
        unmask(&mut out[start..], mask, 0);
    }
}

/// Masks or unmasks (both are the same, 5.3) a piece that begins `offset` bytes into its frame's payload.
pub fn unmask(payload: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut key = mask;
    key.rotate_left(offset % 4);
    for (byte, key) in payload.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// The type of a frame (RFC 6455, 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
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
    /// The label value.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The opcode in the low four bits of a frame's first byte.
    #[inline]
    const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => Self::Reserved,
        }
    }

    /// The number on the wire; for the reserved ones, the first of them.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Reserved => 3,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

/// The type of a message (RFC 6455, 5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum MessageType {
    /// UTF-8 text.
    Text,
    /// Arbitrary bytes.
    Binary,
}

impl MessageType {
    /// The label value.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// "Hello" from a client, as in RFC 6455, 5.7.
    const MASKED_HELLO: [u8; 11] = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];

    #[test]
    fn frame_is_written_with_the_shortest_length() {
        let encoded = |mask, payload: &[u8]| {
            let mut out = vec![0xee];
            encode(true, Opcode::Text, mask, payload, &mut out);
            assert_eq!(out[0], 0xee);
            out.split_off(1)
        };
        assert_eq!(encoded(None, b"Hello"), *b"\x81\x05Hello");
        assert_eq!(encoded(Some(KEY), b"Hello"), MASKED_HELLO);
        assert_eq!(encoded(None, &[0; 125])[..3], [0x81, 125, 0]);
        assert_eq!(encoded(None, &[0; 126])[..5], [0x81, 126, 0, 126, 0]);
        assert_eq!(encoded(None, &vec![0; 65535])[..5], [0x81, 126, 0xff, 0xff, 0]);
        assert_eq!(
            encoded(Some(KEY), &vec![0; 65536])[..15],
            [0x81, 255, 0, 0, 0, 0, 0, 1, 0, 0, 0x37, 0xfa, 0x21, 0x3d, 0x37]
        );
        assert_eq!(encoded(None, &vec![0; 65536]).len(), 10 + 65536);

        let mut out = Vec::new();
        encode(false, Opcode::Ping, None, &[], &mut out);
        assert_eq!(out, [0x09, 0]);
    }

    #[test]
    fn payload_is_unmasked_in_pieces() {
        let mut payload = *b"\x7f\x9f\x4d\x51\x58";
        let (first, second) = payload.split_at_mut(3);
        unmask(first, KEY, 0);
        unmask(second, KEY, 3);
        assert_eq!(payload, *b"Hello");
    }
}
