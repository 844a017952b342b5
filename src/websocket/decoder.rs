//! Reads frames from a sender's bytes, in pieces of any size: headers are parsed, payloads skipped. Any bytes are a
//! sequence of frames, so reading never fails; [`super::conformance`] judges violations.

use super::frame::{FrameHeader, MAX_HEADER, MAX_SMALL_PAYLOAD, Opcode};

/// An item of [`FrameDecoder::decode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// A header is complete. Its payload follows.
    Header(FrameHeader),
    /// A piece of the payload of a Close, Ping or Pong frame of 1 to 125 bytes.
    ControlPayload {
        /// The frame's header, which was the item before.
        header: FrameHeader,
        /// The piece's offset in the payload.
        offset: u8,
        /// The piece, masked as on the wire, never empty.
        bytes: &'a [u8],
        /// It completes the payload.
        last: bool,
    },
}

/// Reads the frames of one sender. It holds no payload and never allocates.
///
/// A length with its top bit set loses the framing ([`FrameHeader::loses_framing`]): its header is the last item, all
/// bytes behind it are consumed and ignored.
#[derive(Debug, Clone, Default)]
pub struct FrameDecoder {
    position: Position,
}

/// The decoder's place in the stream.
#[derive(Debug, Clone)]
enum Position {
    /// In a header whose first `len` bytes are known, or before it.
    Header { bytes: [u8; MAX_HEADER], len: u8 },
    /// In a payload that is skipped.
    Payload { remaining: u64 },
    /// In a payload that is returned: at most 125 bytes.
    ControlPayload { header: FrameHeader, offset: u8, remaining: u8 },
    /// Behind a header that lost the framing.
    Lost,
}

impl Position {
    const BOUNDARY: Self = Self::Header { bytes: [0; MAX_HEADER], len: 0 };

    /// Behind `header`.
    fn behind(header: &FrameHeader) -> Self {
        let handed_out = matches!(header.opcode, Opcode::Close | Opcode::Ping | Opcode::Pong);
        match u8::try_from(header.payload_len) {
            _ if header.loses_framing() => Self::Lost,
            Ok(0) => Self::BOUNDARY,
            Ok(remaining @ 1..=MAX_SMALL_PAYLOAD) if handed_out => {
                Self::ControlPayload { header: *header, offset: 0, remaining }
            }
            _ => Self::Payload { remaining: header.payload_len },
        }
    }
}

impl Default for Position {
    fn default() -> Self {
        Self::BOUNDARY
    }
}

impl FrameDecoder {
    /// A decoder before the first frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads up to the next item and advances `input` behind it. A header began `header_len` bytes before, which may be in
    /// an earlier piece of input. `None`: all of `input` is consumed.
    ///
    /// The payload of a data frame, a reserved frame, or a control frame with more than 125 bytes is not an item.
    pub fn decode<'a>(&mut self, input: &mut &'a [u8]) -> Option<Item<'a>> {
        self.skip_payload(input);
        match &mut self.position {
            Position::Header { bytes, len } => {
                let header = match FrameHeader::parse(input) {
                    Some(header) if *len == 0 => {
                        *input = &input[usize::from(header.header_len)..];
                        header
                    }
                    _ => complete_header(bytes, len, input)?,
                };
                self.position = Position::behind(&header);
                Some(Item::Header(header))
            }
            &mut Position::ControlPayload { header, offset, remaining } => {
                let here = u8::try_from(input.len()).unwrap_or(u8::MAX).min(remaining);
                if here == 0 {
                    return None;
                }
                let last = here == remaining;
                self.position = if last {
                    Position::BOUNDARY
                } else {
                    Position::ControlPayload { header, offset: offset + here, remaining: remaining - here }
                };
                Some(Item::ControlPayload { header, offset, bytes: take(input, here.into()), last })
            }
            Position::Payload { .. } | Position::Lost => None,
        }
    }

    /// Skips a payload that is not an item, or the bytes behind a header that lost the framing, as far as they are there.
    pub fn skip_payload(&mut self, input: &mut &[u8]) {
        match &mut self.position {
            Position::Payload { remaining } => {
                *remaining -= take(input, *remaining).len() as u64;
                if *remaining == 0 {
                    self.position = Position::BOUNDARY;
                }
            }
            Position::Lost => *input = &[],
            Position::Header { .. } | Position::ControlPayload { .. } => {}
        }
    }

    /// Whether the decoder is between two frames, or before the first.
    #[inline]
    pub fn at_boundary(&self) -> bool {
        matches!(self.position, Position::Header { len: 0, .. })
    }

    /// The known bytes of an incomplete header.
    pub fn partial_header(&self) -> &[u8] {
        match &self.position {
            Position::Header { bytes, len } => &bytes[..usize::from(*len)],
            _ => &[],
        }
    }

    /// How many bytes of the current frame's payload have not come: 0 in a header, [`u64::MAX`] once the framing is lost.
    pub fn payload_remaining(&self) -> u64 {
        match self.position {
            Position::Header { .. } => 0,
            Position::Payload { remaining } => remaining,
            Position::ControlPayload { remaining, .. } => u64::from(remaining),
            Position::Lost => u64::MAX,
        }
    }

    /// Whether the framing is lost: nothing more is read from this sender.
    pub fn is_lost(&self) -> bool {
        matches!(self.position, Position::Lost)
    }
}

/// Moves bytes from `input` to a header, up to its end.
fn complete_header(bytes: &mut [u8; MAX_HEADER], len: &mut u8, input: &mut &[u8]) -> Option<FrameHeader> {
    while let Some((&byte, rest)) = input.split_first() {
        *input = rest;
        bytes[usize::from(*len)] = byte;
        *len += 1;
        let header = FrameHeader::parse(&bytes[..usize::from(*len)]);
        if header.is_some() {
            return header;
        }
    }
    None
}

/// Takes `most` bytes from `input`, or all if there are fewer.
fn take<'a>(input: &mut &'a [u8], most: u64) -> &'a [u8] {
    let count = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
    let (taken, rest) = input.split_at(count);
    *input = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// "Hello" from a client, as in RFC 6455, 5.7.
    const MASKED_HELLO: [u8; 11] = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];

    fn text(payload_len: u64, header_len: u8) -> FrameHeader {
        FrameHeader {
            fin: true,
            rsv: 0,
            opcode: Opcode::Text,
            control: false,
            mask: None,
            payload_len,
            header_len,
            minimal: true,
        }
    }

    #[test]
    fn every_length_form_is_read_with_and_without_mask() {
        let overlong = |payload_len, header_len| FrameHeader { minimal: false, ..text(payload_len, header_len) };
        let cases: [(&[u8], FrameHeader); 11] = [
            (&[0], text(0, 2)),
            (&[125], text(125, 2)),
            (&[126, 0, 0], overlong(0, 4)),
            (&[126, 0, 125], overlong(125, 4)),
            (&[126, 0, 126], text(126, 4)),
            (&[126, 0xff, 0xff], text(65535, 4)),
            (&[127, 0, 0, 0, 0, 0, 0, 0, 1], overlong(1, 10)),
            (&[127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], overlong(65535, 10)),
            (&[127, 0, 0, 0, 0, 0, 1, 0, 0], text(65536, 10)),
            (&[127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], text((1 << 63) - 1, 10)),
            (&[127, 0x80, 0, 0, 0, 0, 0, 0, 0], text(1 << 63, 10)),
        ];
        for (length, header) in cases {
            let plain = [&[0x81], length].concat();
            assert_eq!(FrameDecoder::new().decode(&mut &plain[..]), Some(Item::Header(header)), "{plain:x?}");

            let mut masked = [&plain, &KEY[..]].concat();
            masked[1] |= 0x80;
            let header = FrameHeader { mask: Some(KEY), header_len: header.header_len + 4, ..header };
            assert_eq!(FrameDecoder::new().decode(&mut &masked[..]), Some(Item::Header(header)), "{masked:x?}");
        }
    }

    #[test]
    fn first_byte_has_fin_rsv_and_opcode() {
        use Opcode::{Binary, Close, Continuation, Ping, Pong, Reserved, Text};
        let opcodes = [
            [Continuation, Text, Binary, Reserved, Reserved, Reserved, Reserved, Reserved],
            [Close, Ping, Pong, Reserved, Reserved, Reserved, Reserved, Reserved],
        ];
        for first in 0..=255_u8 {
            let number = usize::from(first % 16);
            let header = FrameHeader {
                fin: first >= 0x80,
                rsv: first / 16 % 8,
                opcode: opcodes[number / 8][number % 8],
                control: number >= 8,
                ..text(0, 2)
            };
            assert_eq!(FrameDecoder::new().decode(&mut &[first, 0][..]), Some(Item::Header(header)), "{first:#x}");
        }
    }

    #[test]
    fn frame_in_single_bytes_is_the_same_frame() {
        let bytes = [&[0x82, 0xfe, 0, 126][..], &KEY, &[7; 126]].concat();
        let header = FrameHeader { opcode: Opcode::Binary, mask: Some(KEY), ..text(126, 8) };
        let mut decoder = FrameDecoder::new();
        for (position, byte) in bytes.iter().enumerate() {
            assert_eq!(decoder.at_boundary(), position == 0);
            let mut input = std::slice::from_ref(byte);
            let item = decoder.decode(&mut input);
            assert!(input.is_empty());
            if position < 7 {
                assert_eq!((item, decoder.partial_header()), (None, &bytes[..=position]));
            } else {
                assert_eq!(item, (position == 7).then_some(Item::Header(header)));
                assert!(decoder.partial_header().is_empty());
                assert_eq!(decoder.payload_remaining(), 133 - position as u64);
            }
        }
        assert!(decoder.at_boundary());
    }

    #[test]
    fn control_payload_comes_in_the_pieces_of_the_input() {
        let header = FrameHeader { opcode: Opcode::Ping, control: true, ..text(5, 2) };
        let mut decoder = FrameDecoder::new();
        let mut input = &[0x89, 5, b'a', b'b'][..];
        assert_eq!(decoder.decode(&mut input), Some(Item::Header(header)));
        let first = Item::ControlPayload { header, offset: 0, bytes: b"ab", last: false };
        assert_eq!(decoder.decode(&mut input), Some(first));
        assert_eq!(decoder.decode(&mut input), None);
        assert_eq!(decoder.payload_remaining(), 3);
        let mut input = &[b'c', b'd', b'e', 0x81, 0][..];
        let second = Item::ControlPayload { header, offset: 2, bytes: b"cde", last: true };
        assert_eq!(decoder.decode(&mut input), Some(second));
        assert!(decoder.at_boundary());
        assert_eq!(decoder.decode(&mut input), Some(Item::Header(text(0, 2))));
    }

    #[test]
    fn odd_control_frames_have_no_payload_items() {
        let too_long = [&[0x88, 126, 0, 126][..], &[0; 126]].concat();
        let reserved = [0x8b, 3, 1, 2, 3];
        for bytes in [&[0x8a, 0][..], &too_long, &reserved] {
            let mut decoder = FrameDecoder::new();
            let mut input = bytes;
            assert!(matches!(decoder.decode(&mut input), Some(Item::Header(_))), "{bytes:x?}");
            assert_eq!(decoder.decode(&mut input), None, "{bytes:x?}");
            assert!(input.is_empty() && decoder.at_boundary(), "{bytes:x?}");
        }
    }

    #[test]
    fn input_is_behind_each_header() {
        let bytes = [MASKED_HELLO; 2].concat();
        let hello = Item::Header(FrameHeader { mask: Some(KEY), ..text(5, 6) });
        let mut decoder = FrameDecoder::new();
        let mut input = &bytes[..];
        assert_eq!((decoder.decode(&mut input), input.len()), (Some(hello), 16));
        assert_eq!((decoder.decode(&mut input), input.len()), (Some(hello), 5));
        assert_eq!(decoder.payload_remaining(), 5);
        assert_eq!((decoder.decode(&mut input), input.len()), (None, 0));
        assert!(decoder.at_boundary());
    }

    #[test]
    fn payload_is_skipped_up_to_its_end() {
        let bytes = [MASKED_HELLO; 2].concat();
        let mut decoder = FrameDecoder::new();
        let mut input = &bytes[..8];
        decoder.decode(&mut input);
        decoder.skip_payload(&mut input);
        assert_eq!((decoder.payload_remaining(), input.len()), (3, 0));
        let mut input = &bytes[8..];
        decoder.skip_payload(&mut input);
        assert!(decoder.at_boundary());
        assert_eq!(input, MASKED_HELLO);
    }

    #[test]
    fn top_bit_of_a_length_loses_the_framing() {
        for opcode in [0x82, 0x88] {
            let bytes = [&[opcode, 127, 0x80, 0, 0, 0, 0, 0, 0, 0][..], &[0x81, 0]].concat();
            let mut decoder = FrameDecoder::new();
            let mut input = &bytes[..];
            assert!(matches!(decoder.decode(&mut input), Some(Item::Header(header)) if header.loses_framing()));
            assert!(decoder.is_lost() && !decoder.at_boundary());
            assert_eq!((decoder.decode(&mut input), input.len()), (None, 0));
            assert_eq!(decoder.decode(&mut &[0x81, 0][..]), None);
            assert!(decoder.is_lost());
        }
    }

    #[test]
    fn idle_decoder_is_small() {
        assert!(size_of::<FrameDecoder>() <= 48);
    }
}
