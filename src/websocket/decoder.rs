//! Frames read from a sender's bytes, however split: headers are looked at, payloads passed over. Any bytes are some
//! sequence of frames, so reading never fails; what breaks the rules is for [`super::conformance`] to judge.

use super::frame::{FrameHeader, MAX_HEADER, MAX_SMALL_PAYLOAD, Opcode};

/// What [`FrameDecoder::decode`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// Headers are complete. The payload of the last of them may still be to come.
    Frames {
        /// The first of them.
        header: FrameHeader,
        /// How many in a row share its first two bytes, at least 1. Where it is more, each is a whole text or binary
        /// message of at most 125 bytes; the masking keys differ.
        count: u32,
    },
    /// A piece of the payload of a Close, Ping or Pong frame of 1 to 125 bytes.
    ControlPayload {
        /// The frame's header, which was an item before.
        header: FrameHeader,
        /// Where in the payload the piece begins.
        offset: u8,
        /// The piece, masked as on the wire, never empty.
        bytes: &'a [u8],
        /// The payload is complete with it.
        last: bool,
    },
}

/// Reads the frames of one sender, in pieces of any size. It holds no payload and never allocates.
///
/// A length with its top bit set loses the framing ([`FrameHeader::loses_framing`]): its header is the last item, all
/// bytes behind it are consumed and ignored.
#[derive(Debug, Clone, Default)]
pub struct FrameDecoder {
    state: State,
}

/// Where in the stream a decoder stands.
#[derive(Debug, Clone)]
enum State {
    /// In a header of which the first `len` bytes are known, or before it.
    Header { bytes: [u8; MAX_HEADER], len: u8 },
    /// In a payload that nobody asks for.
    Payload { remaining: u64 },
    /// In a payload that is handed out; of both parts at most 125 bytes.
    ControlPayload { header: FrameHeader, offset: u8, remaining: u8 },
    /// Behind a header that lost the framing.
    Lost,
}

impl State {
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

impl Default for State {
    fn default() -> Self {
        Self::BOUNDARY
    }
}

impl FrameDecoder {
    /// A decoder that stands before the first frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads on up to the next item and advances `input` behind what was read: for frames somewhere into the payload of
    /// the last one. `None`: all of `input` is consumed.
    ///
    /// The payload of a data frame, a reserved frame, or a control frame with more than 125 bytes is no item.
    #[expect(clippy::inline_always, reason = "measured: as a call it doubles the time of a lone frame")]
    #[inline(always)]
    pub fn decode<'a>(&mut self, input: &mut &'a [u8]) -> Option<Item<'a>> {
        self.read(input, true)
    }

    /// As [`FrameDecoder::decode`], but `count` is always 1, and `input` then stands right behind the header: that began
    /// `header_len` bytes before, which may be in an earlier piece of input.
    pub fn decode_single<'a>(&mut self, input: &mut &'a [u8]) -> Option<Item<'a>> {
        self.read(input, false)
    }

    /// Whether it stands between two frames, or before the first.
    #[inline]
    pub fn at_boundary(&self) -> bool {
        matches!(self.state, State::Header { len: 0, .. })
    }

    /// What is known of a header that is not complete yet.
    pub fn partial_header(&self) -> &[u8] {
        match &self.state {
            State::Header { bytes, len } => &bytes[..usize::from(*len)],
            _ => &[],
        }
    }

    /// How many bytes of the current frame's payload are still to come: 0 within a header, [`u64::MAX`] once the framing
    /// is lost.
    pub fn payload_remaining(&self) -> u64 {
        match self.state {
            State::Header { .. } => 0,
            State::Payload { remaining } => remaining,
            State::ControlPayload { remaining, .. } => u64::from(remaining),
            State::Lost => u64::MAX,
        }
    }

    /// Whether the framing is lost: nothing more is read from this sender.
    pub fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost)
    }

    /// [`FrameDecoder::decode`], or without `runs` [`FrameDecoder::decode_single`].
    #[expect(clippy::inline_always, reason = "measured: as a call it doubles the time of a lone frame")]
    #[inline(always)]
    fn read<'a>(&mut self, input: &mut &'a [u8], runs: bool) -> Option<Item<'a>> {
        if self.at_boundary()
            && let Some(header) = FrameHeader::parse(input)
        {
            let count = if runs && header.may_run() { skip_repeated(&header, input) } else { 1 };
            *input = &input[usize::from(header.header_len)..];
            if !(runs && skip_data_payload(&header, input)) {
                self.state = State::behind(&header);
            }
            return Some(Item::Frames { header, count });
        }
        if input.is_empty() {
            return None;
        }
        // `resume` gets a copy: a reference to `input` itself would keep it out of the registers above.
        let mut rest = *input;
        let item = self.resume(&mut rest, runs);
        *input = rest;
        item
    }

    /// Reads on from wherever it stands, up to the next item. `input` is not empty.
    #[inline(never)]
    fn resume<'a>(&mut self, input: &mut &'a [u8], runs: bool) -> Option<Item<'a>> {
        match &mut self.state {
            State::Header { bytes, len } => {
                let header = complete_header(bytes, len, input)?;
                self.state = State::behind(&header);
                Some(Item::Frames { header, count: 1 })
            }
            State::Payload { remaining } => {
                *remaining -= take(input, *remaining).len() as u64;
                if *remaining == 0 {
                    self.state = State::BOUNDARY;
                    return self.read(input, runs);
                }
                None
            }
            &mut State::ControlPayload { header, offset, remaining } => {
                let here = u8::try_from(input.len()).unwrap_or(u8::MAX).min(remaining);
                let last = here == remaining;
                self.state = if last {
                    State::BOUNDARY
                } else {
                    State::ControlPayload { header, offset: offset + here, remaining: remaining - here }
                };
                Some(Item::ControlPayload { header, offset, bytes: take(input, here.into()), last })
            }
            State::Lost => {
                *input = &[];
                None
            }
        }
    }
}

/// Moves bytes from `input` to those of a header, up to its end.
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

/// Takes `most` bytes from `input`, or all where there are fewer.
fn take<'a>(input: &mut &'a [u8], most: u64) -> &'a [u8] {
    let count = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
    let (taken, rest) = input.split_at(count);
    *input = rest;
    taken
}

/// Skips the payload of a data frame behind its header, where all of it is there.
#[inline]
fn skip_data_payload(header: &FrameHeader, input: &mut &[u8]) -> bool {
    let payload = usize::try_from(header.payload_len).unwrap_or(usize::MAX);
    match input.get(payload..) {
        Some(rest) if !header.control => {
            *input = rest;
            true
        }
        _ => false,
    }
}

/// Moves `input` from a frame to the last in a row that begin with the same two bytes, and counts them.
#[inline]
fn skip_repeated(header: &FrameHeader, input: &mut &[u8]) -> u32 {
    let stride = usize::from(header.header_len) + usize::try_from(header.payload_len).unwrap_or(usize::MAX);
    if next_alike(input, stride).is_some() { skip_run(stride, input) } else { 1 }
}

/// As long as frames are alike the processor can predict where the next one begins, and need not wait for its length.
#[inline(never)]
fn skip_run(stride: usize, input: &mut &[u8]) -> u32 {
    let mut count = 1;
    while count < u32::MAX
        && let Some(next) = next_alike(input, stride)
    {
        *input = next;
        count += 1;
    }
    count
}

/// The input from `stride` bytes on, where it begins with the same two bytes. A frame in a run has a header of at most
/// six bytes: with so many its header is complete.
#[inline]
fn next_alike(input: &[u8], stride: usize) -> Option<&[u8]> {
    input.get(stride..).filter(|next| next.len() >= 6 && next.first_chunk::<2>() == input.first_chunk::<2>())
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

    fn frames(header: FrameHeader, count: u32) -> Item<'static> {
        Item::Frames { header, count }
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
            assert_eq!(FrameDecoder::new().decode(&mut &plain[..]), Some(frames(header, 1)), "{plain:x?}");

            let mut masked = [&plain, &KEY[..]].concat();
            masked[1] |= 0x80;
            let header = FrameHeader { mask: Some(KEY), header_len: header.header_len + 4, ..header };
            assert_eq!(FrameDecoder::new().decode(&mut &masked[..]), Some(frames(header, 1)), "{masked:x?}");
        }
    }

    #[test]
    fn the_first_byte_tells_fin_rsv_and_opcode() {
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
            assert_eq!(FrameDecoder::new().decode(&mut &[first, 0][..]), Some(frames(header, 1)), "{first:#x}");
        }
    }

    #[test]
    fn a_frame_in_single_bytes_is_the_same_frame() {
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
                assert_eq!(item, (position == 7).then_some(frames(header, 1)));
                assert!(decoder.partial_header().is_empty());
                assert_eq!(decoder.payload_remaining(), 133 - position as u64);
            }
        }
        assert!(decoder.at_boundary());
    }

    #[test]
    fn control_payloads_come_in_the_pieces_they_are_read_in() {
        let header = FrameHeader { opcode: Opcode::Ping, control: true, ..text(5, 2) };
        let mut decoder = FrameDecoder::new();
        let mut input = &[0x89, 5, b'a', b'b'][..];
        assert_eq!(decoder.decode(&mut input), Some(frames(header, 1)));
        let first = Item::ControlPayload { header, offset: 0, bytes: b"ab", last: false };
        assert_eq!(decoder.decode(&mut input), Some(first));
        assert_eq!(decoder.decode(&mut input), None);
        assert_eq!(decoder.payload_remaining(), 3);
        let mut input = &[b'c', b'd', b'e', 0x81, 0][..];
        let second = Item::ControlPayload { header, offset: 2, bytes: b"cde", last: true };
        assert_eq!(decoder.decode(&mut input), Some(second));
        assert!(decoder.at_boundary());
        assert_eq!(decoder.decode(&mut input), Some(frames(text(0, 2), 1)));
    }

    #[test]
    fn empty_overlong_and_reserved_control_frames_have_no_payload_items() {
        let too_long = [&[0x88, 126, 0, 126][..], &[0; 126]].concat();
        let reserved = [0x8b, 3, 1, 2, 3];
        for bytes in [&[0x8a, 0][..], &too_long, &reserved] {
            let mut decoder = FrameDecoder::new();
            let mut input = bytes;
            assert!(matches!(decoder.decode(&mut input), Some(Item::Frames { count: 1, .. })), "{bytes:x?}");
            assert_eq!(decoder.decode(&mut input), None, "{bytes:x?}");
            assert!(input.is_empty() && decoder.at_boundary(), "{bytes:x?}");
        }
    }

    #[test]
    fn whole_small_messages_in_a_row_are_one_item_up_to_a_different_one() {
        let mut bytes = [MASKED_HELLO, MASKED_HELLO, MASKED_HELLO].concat();
        bytes[11 + 2] = 0xff;
        let hello = FrameHeader { mask: Some(KEY), ..text(5, 6) };
        for (next, item) in [
            ([0x82, 0x85], FrameHeader { opcode: Opcode::Binary, ..hello }),
            ([0x81, 0x84], FrameHeader { payload_len: 4, ..hello }),
            ([0x01, 0x85], FrameHeader { fin: false, ..hello }),
        ] {
            let bytes = [&bytes[..], &next, &KEY].concat();
            let mut decoder = FrameDecoder::new();
            let mut input = &bytes[..];
            assert_eq!(decoder.decode(&mut input), Some(frames(hello, 3)));
            assert_eq!(decoder.decode(&mut input), Some(frames(item, 1)));
            assert_eq!((decoder.decode(&mut input), input.len()), (None, 0));
            assert_eq!(decoder.payload_remaining(), item.payload_len);
        }
    }

    #[test]
    fn a_run_may_end_inside_a_payload_but_not_inside_a_header() {
        let bytes = [MASKED_HELLO; 3].concat();
        for (cut, count, remaining, partial) in [(28, 3, 5, 0), (32, 3, 1, 0), (27, 2, 0, 5), (23, 2, 0, 1)] {
            let mut decoder = FrameDecoder::new();
            let mut input = &bytes[..cut];
            let item = frames(FrameHeader { mask: Some(KEY), ..text(5, 6) }, count);
            assert_eq!(decoder.decode(&mut input), Some(item), "{cut}");
            assert_eq!(decoder.decode(&mut input), None, "{cut}");
            assert_eq!((decoder.payload_remaining(), decoder.partial_header().len()), (remaining, partial), "{cut}");
        }
    }

    #[test]
    fn only_whole_small_messages_run() {
        for frame in [&[0x00, 0][..], &[0x80, 0], &[0x01, 0], &[0x83, 0], &[0x89, 0], &[0x81, 126, 0, 0]] {
            let bytes = frame.repeat(9);
            let mut input = &bytes[..];
            assert!(
                matches!(FrameDecoder::new().decode(&mut input), Some(Item::Frames { count: 1, .. })),
                "{frame:x?}"
            );
            assert_eq!(input.len(), frame.len() * 8, "{frame:x?}");
        }
    }

    #[test]
    fn single_frames_leave_the_input_behind_their_header() {
        let bytes = [MASKED_HELLO; 2].concat();
        let hello = frames(FrameHeader { mask: Some(KEY), ..text(5, 6) }, 1);
        let mut decoder = FrameDecoder::new();
        let mut input = &bytes[..];
        assert_eq!((decoder.decode_single(&mut input), input.len()), (Some(hello), 16));
        assert_eq!((decoder.decode_single(&mut input), input.len()), (Some(hello), 5));
        assert_eq!(decoder.payload_remaining(), 5);
        assert_eq!((decoder.decode_single(&mut input), input.len()), (None, 0));
        assert!(decoder.at_boundary());
    }

    #[test]
    fn the_top_bit_of_a_length_loses_the_framing() {
        for opcode in [0x82, 0x88] {
            let bytes = [&[opcode, 127, 0x80, 0, 0, 0, 0, 0, 0, 0][..], &[0x81, 0]].concat();
            let mut decoder = FrameDecoder::new();
            let mut input = &bytes[..];
            assert!(
                matches!(decoder.decode(&mut input), Some(Item::Frames { header, count: 1 }) if header.loses_framing())
            );
            assert!(decoder.is_lost() && !decoder.at_boundary());
            assert_eq!((decoder.decode(&mut input), input.len()), (None, 0));
            assert_eq!(decoder.decode(&mut &[0x81, 0][..]), None);
            assert!(decoder.is_lost());
        }
    }

    #[test]
    fn an_idle_decoder_is_small() {
        assert!(size_of::<FrameDecoder>() <= 48);
    }
}
