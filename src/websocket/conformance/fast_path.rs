//! The fast path: whole messages without a violation, which are nearly all messages.
//!
//! Between two frames, [`Conformance::whole_messages`] takes messages of one frame that are there to their last byte and
//! that [`Conformance::frame`] would accept; runs of small equal ones at once. It changes no state. All other bytes (half a
//! frame, a fragment, a control frame, a violation) are read frame by frame by the
//! [`FrameDecoder`](crate::websocket::decoder::FrameDecoder) and judged by [`Conformance::frame`]. One path for all took
//! twice the instructions for a small message.

use super::{CloseProgress, Conformance};
use crate::websocket::{
    Endpoint,
    frame::{FIN_BIT, Length, MASK_BIT, MASK_LEN, MAX_SMALL_PAYLOAD, MessageType, Opcode},
};

/// A run of messages of one frame each, with the same first two bytes. A message of more than 125 bytes, whose length is
/// not in these bytes, comes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WholeMessages {
    /// Their type.
    pub kind: MessageType,
    /// The payload bytes of each.
    pub payload_len: u64,
    /// How many, at least 1.
    pub count: u64,
}

impl Conformance {
    /// The whole messages at the start of `input`, which begins between two frames, and the bytes behind them. `None` if it
    /// starts with anything else, including a message with more than `largest` bytes of payload.
    #[inline]
    pub fn whole_messages<'a>(&self, input: &'a [u8], largest: u64) -> Option<(WholeMessages, &'a [u8])> {
        let &[first, second, ..] = input else { return None };
        let kind = self.kind_of_plain(first)?;
        let Length { payload_len, minimal, end } = Length::parse(input)?;
        let (mask_bit, mask_len) = match self.sender {
            Endpoint::Client => (MASK_BIT, MASK_LEN),
            Endpoint::Server => (0, 0),
        };
        let frame_len = usize::try_from(payload_len).ok()?.checked_add(usize::from(end + mask_len))?;
        let (frame, mut behind) = input.split_at_checked(frame_len)?;
        let is_plain = second & MASK_BIT == mask_bit
            && minimal
            && self.unfinished.is_none()
            && self.closing == CloseProgress::NotBegun;
        // Checked before the run is counted: a frame that is refused must not have the whole run counted each time.
        if !is_plain || payload_len > largest {
            return None;
        }
        let mut count = 1;
        if payload_len <= u64::from(MAX_SMALL_PAYLOAD) {
            count += skip_alike(frame, &mut behind);
        }
        Some((WholeMessages { kind, payload_len, count }, behind))
    }

    /// The type of a message of one frame, by the frame's first byte; `None` if the byte starts no such message, or has an
    /// RSV bit that is not allowed.
    #[inline]
    fn kind_of_plain(&self, first: u8) -> Option<MessageType> {
        const TEXT: u8 = FIN_BIT | Opcode::Text.number();
        const BINARY: u8 = FIN_BIT | Opcode::Binary.number();
        match first & !(self.extensions.rsv_of_messages() << 4) {
            TEXT => Some(MessageType::Text),
            BINARY => Some(MessageType::Binary),
            _ => None,
        }
    }
}

/// Moves `input` behind the whole frames that begin with the same two bytes as `frame`, and counts them. The second byte is
/// their length.
///
/// In a run, the processor can predict where the next frame begins, and need not wait for its length.
#[inline]
fn skip_alike(frame: &[u8], input: &mut &[u8]) -> u64 {
    let mut count = 0;
    while input.first_chunk::<2>() == frame.first_chunk()
        && let Some(behind) = input.get(frame.len()..)
    {
        *input = behind;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::{conformance::Extensions, frame::FrameHeader};

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// "Hello" from a client, as in RFC 6455, 5.7.
    const MASKED_HELLO: [u8; 11] = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];

    const HELLO: WholeMessages = WholeMessages { kind: MessageType::Text, payload_len: 5, count: 1 };

    /// The messages at the start of a client's bytes, and how many bytes are behind them.
    fn whole_messages(bytes: &[u8]) -> Option<(WholeMessages, usize)> {
        let client = Conformance::new(Endpoint::Client, Extensions::None);
        client.whole_messages(bytes, u64::MAX).map(|(messages, behind)| (messages, behind.len()))
    }

    #[test]
    fn run_is_taken_up_to_a_frame_that_differs() {
        let mut bytes = [MASKED_HELLO; 3].concat();
        bytes[11 + 2] = 0xff;
        for next in [[0x82, 0x85], [0x81, 0x84], [0x01, 0x85], [0x88, 0x80], [0x81, 0x05]] {
            let bytes = [&bytes[..], &next, &KEY, &[0; 5]].concat();
            assert_eq!(whole_messages(&bytes), Some((WholeMessages { count: 3, ..HELLO }, 11)), "{next:x?}");
        }
    }

    #[test]
    fn only_whole_messages_are_taken() {
        let bytes = [MASKED_HELLO; 3].concat();
        for (cut, count) in [(33, 3), (32, 2), (28, 2), (23, 2), (22, 2), (21, 1), (11, 1)] {
            let taken = Some((WholeMessages { count, ..HELLO }, cut - 11 * usize::try_from(count).unwrap()));
            assert_eq!(whole_messages(&bytes[..cut]), taken, "{cut}");
        }
        for cut in 0..11 {
            assert_eq!(whole_messages(&bytes[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn large_message_is_taken_alone() {
        let large = [&[0x82, 0xfe, 0, 126][..], &KEY, &[7; 126]].concat();
        let taken = WholeMessages { kind: MessageType::Binary, payload_len: 126, count: 1 };
        assert_eq!(whole_messages(&large.repeat(2)), Some((taken, large.len())));
    }

    #[test]
    fn violation_is_not_taken() {
        let masked = |first: u8| [&[first, 0x80][..], &KEY].concat();
        for bytes in [
            &masked(0x00),
            &masked(0x80),
            &masked(0x01),
            &masked(0x83),
            &masked(0x88),
            &masked(0x89),
            &masked(0xc1),
            &[0x81, 0, 0, 0, 0, 0][..],
            &[&[0x81, 0xfe, 0, 1][..], &KEY, &[0]].concat(),
            &[&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0][..], &KEY, &[0; 64]].concat(),
        ] {
            assert_eq!(whole_messages(bytes), None, "{bytes:x?}");
        }
    }

    #[test]
    fn nothing_is_taken_inside_a_message_or_after_close() {
        for (before, is_taken) in [(0x89, true), (0x01, false), (0x88, false)] {
            let mut server = Conformance::new(Endpoint::Server, Extensions::None);
            server.frame(&FrameHeader::parse(&[before, 0]).unwrap());
            assert_eq!(server.whole_messages(&[0x81, 0], 0).is_some(), is_taken, "{before:x}");
        }
    }

    #[test]
    fn message_above_the_limit_is_not_taken() {
        let server = Conformance::new(Endpoint::Server, Extensions::None);
        for (largest, is_taken) in [(1, false), (2, true), (3, true)] {
            assert_eq!(server.whole_messages(&[0x81, 2, 0, 0], largest).is_some(), is_taken, "{largest}");
        }
    }

    #[test]
    fn message_of_an_extension_is_taken() {
        for (extensions, first, is_taken) in [
            (Extensions::PermessageDeflate, 0xc1, true),
            (Extensions::PermessageDeflate, 0x81, true),
            (Extensions::PermessageDeflate, 0xa2, false),
            (Extensions::Other, 0xf2, true),
            (Extensions::Other, 0xf0, false),
        ] {
            let server = Conformance::new(Endpoint::Server, extensions);
            assert_eq!(server.whole_messages(&[first, 0], 0).is_some(), is_taken, "{extensions:?} {first:x}");
        }
    }
}
