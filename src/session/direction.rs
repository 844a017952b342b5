//! The state of one direction: everything that one endpoint sends, on its way to the other.

use std::{mem::offset_of, num::NonZero};

use super::{FrameSink, Policy, ping::PingWatch, summary::Sent};
use crate::websocket::{
    Endpoint,
    conformance::{Conformance, Extensions},
    decoder::FrameDecoder,
    frame::{FrameHeader, unmask},
};

/// How the reading side of a leg ended, as its connection reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegEnd {
    /// FIN; on TLS also `close_notify`.
    Fin,
    /// RST, or a write that encountered one.
    Reset,
    /// Keepalive is unanswered, or data is unacknowledged.
    Timeout,
    /// No route.
    Unreachable,
    /// A TLS alert or a bad record.
    Tls,
}

/// One direction of a session.
///
/// The fields that every message touches come first, in two cache lines.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Direction {
    pub(super) decoder: FrameDecoder,
    pub(super) conformance: Conformance,
    pub(super) injection: Injection,
    pub(super) write_side: WriteSide,
    pub(super) read_side: ReadSide,
    /// The decoder is in the payload of a Close frame.
    pub(super) in_close: bool,
    /// Bytes that passed to the receiver's leg, and how many of these have left the process.
    pub(super) queued: u64,
    pub(super) written: u64,
    pub(super) sent: Sent,
    /// The size of the message whose last payload is still on its way.
    pub(super) arriving: Option<NonZero<u64>>,
    /// The payload of a control frame that comes in pieces.
    pub(super) control: Option<Box<ControlPayload>>,
    pub(super) pings: PingWatch,
}

const _: () = assert!(offset_of!(Direction, control) <= 2 * 64 && size_of::<Direction>() <= 144);

/// Whether closewatch's own Close frame goes into a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Injection {
    /// No. Bytes pass.
    None,
    /// As soon as the direction stands between two frames. Until then bytes pass.
    Wanted,
    /// It can be written: the direction stands between two frames. The sender's bytes are dropped.
    Ready,
    /// It was written. The sender's bytes are dropped.
    Done,
    /// The receiver is lost, and the sender got a Close frame instead: its bytes are dropped.
    Dropping,
}

/// The writing side of the receiver's leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteSide {
    Open,
    /// The FIN is on its way out: on TLS, it can wait for the socket.
    Finishing,
    /// FIN was sent.
    Finished,
    /// An RST waits until the written bytes are acknowledged.
    Resetting,
    /// Reset, or lost with its leg.
    Gone,
}

/// The reading side of the sender's leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadSide {
    Open,
    Finished,
    /// Lost without a FIN.
    Lost,
    /// Lost after a FIN.
    LostAfterFin,
    /// Ended by a TLS alert or a bad record. The other leg gets a FIN for it, not an RST.
    TlsFailed,
}

impl ReadSide {
    /// The state after one more end of the leg; `None` if that is nothing new.
    pub(super) fn after(self, end: LegEnd) -> Option<Self> {
        match (self, end) {
            (Self::Open, LegEnd::Fin) => Some(Self::Finished),
            (Self::Finished, LegEnd::Fin) | (Self::Lost | Self::LostAfterFin | Self::TlsFailed, _) => None,
            (Self::Open | Self::Finished, LegEnd::Tls) => Some(Self::TlsFailed),
            (Self::Open, _) => Some(Self::Lost),
            (Self::Finished, _) => Some(Self::LostAfterFin),
        }
    }

    pub(super) fn has_ended(self) -> bool {
        self != Self::Open
    }

    /// Whether the other leg ends with RST because of it.
    pub(super) fn resets_other(self) -> bool {
        matches!(self, Self::Lost | Self::LostAfterFin)
    }

    pub(super) fn had_fin(self) -> bool {
        matches!(self, Self::Finished | Self::LostAfterFin)
    }
}

impl Direction {
    pub(super) fn new(sender: Endpoint, extensions: Extensions) -> Self {
        Self {
            decoder: FrameDecoder::new(),
            conformance: Conformance::new(sender, extensions),
            injection: Injection::None,
            write_side: WriteSide::Open,
            read_side: ReadSide::Open,
            in_close: false,
            queued: 0,
            written: 0,
            sent: Sent::default(),
            arriving: None,
            control: None,
            pings: PingWatch::default(),
        }
    }

    /// Whether everything that passed has left the process.
    pub(super) fn is_flushed(&self) -> bool {
        self.written == self.queued
    }

    /// Whether the sender's bytes still pass to the receiver.
    pub(super) fn passes(&self) -> bool {
        self.write_side == WriteSide::Open && matches!(self.injection, Injection::None | Injection::Wanted)
    }

    /// Takes the whole messages at the start of `input`, if they pass and the policy allows their size.
    #[inline]
    pub(super) fn take_whole_messages(&mut self, input: &mut &[u8], policy: &Policy, sink: &impl FrameSink) {
        if !self.passes_freely() {
            return;
        }
        while let Some((messages, behind)) = self.conformance.whole_messages(input, policy.largest_frame()) {
            self.sent.frames += messages.count;
            self.sent.messages += messages.count;
            sink.whole_messages(&messages);
            *input = behind;
        }
    }

    /// Whether the bytes that passed end between two frames. With `withholds`, an incomplete header has not passed.
    pub(super) fn passed_whole_frames(&self, withholds: bool) -> bool {
        self.decoder.at_boundary() || (withholds && !self.decoder.partial_header().is_empty())
    }

    /// The last payload byte of the pending message has arrived: record its size. A header can announce any size, so the
    /// header alone does not count.
    pub(super) fn record_arrived_message(&mut self, sink: &impl FrameSink) {
        if let Some(size) = self.arriving.take() {
            sink.message_size(size.get());
        }
    }

    /// Whether the direction stands between two frames, and everything that comes next may pass.
    #[inline]
    fn passes_freely(&self) -> bool {
        self.decoder.at_boundary() && self.write_side == WriteSide::Open && self.injection == Injection::None
    }
}

/// The payload of a control frame as far as it came, unmasked (RFC 6455, 5.5: at most 125 bytes).
#[derive(Debug)]
pub(super) struct ControlPayload {
    bytes: [u8; 125],
    len: usize,
}

impl ControlPayload {
    pub(super) const EMPTY: Self = Self { bytes: [0; 125], len: 0 };

    pub(super) fn push(&mut self, header: &FrameHeader, masked: &[u8]) {
        let piece = &mut self.bytes[self.len..self.len + masked.len()];
        piece.copy_from_slice(masked);
        if let Some(mask) = header.mask {
            unmask(piece, mask, self.len);
        }
        self.len += masked.len();
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::websocket::{
        conformance::{Violation, WholeMessages},
        decoder::Item,
        frame::{MessageType, Opcode},
    };

    /// Counts whole messages alone.
    #[derive(Default)]
    struct MessageCount(Cell<u64>);

    impl FrameSink for MessageCount {
        fn bytes(&self, _: u64) {}
        fn frame(&self, _: Opcode) {}
        fn message(&self, _: MessageType) {}
        fn message_size(&self, _: u64) {}
        fn whole_messages(&self, messages: &WholeMessages) {
            self.0.set(self.0.get() + messages.count);
        }
        fn violation(&self, _: Violation) {}
        fn ping_rtt(&self, _: std::time::Duration) {}
    }

    /// "Hi" from a client, with a key of zeros.
    const HI: [u8; 8] = [0x81, 0x82, 0, 0, 0, 0, b'H', b'i'];

    fn direction() -> Direction {
        Direction::new(Endpoint::Client, Extensions::None)
    }

    #[test]
    fn whole_messages_are_taken_if_they_pass_and_are_small() {
        let bytes = [&HI[..], &HI, &HI[..4]].concat();
        let limited = |frame_bytes, message_bytes| Policy { frame_bytes, message_bytes, ..Policy::default() };
        let mut inside_header = direction();
        assert_eq!(inside_header.decoder.decode(&mut &HI[..1]), None);
        for (number, (mut direction, policy, left)) in [
            (direction(), limited(None, None), 4),
            (direction(), limited(Some(2), Some(3)), 4),
            (direction(), limited(Some(1), None), 20),
            (direction(), limited(Some(2), Some(1)), 20),
            (Direction { injection: Injection::Wanted, ..direction() }, limited(None, None), 20),
            (Direction { injection: Injection::Ready, ..direction() }, limited(None, None), 20),
            (Direction { write_side: WriteSide::Gone, ..direction() }, limited(None, None), 20),
            (inside_header, limited(None, None), 20),
        ]
        .into_iter()
        .enumerate()
        {
            let (mut rest, counted) = (&bytes[..], MessageCount::default());
            direction.take_whole_messages(&mut rest, &policy, &counted);
            assert_eq!((number, rest.len()), (number, left));
            let taken = if left == 4 { 2 } else { 0 };
            assert_eq!((direction.sent.frames, direction.sent.messages), (taken, taken), "{number}");
            assert_eq!(counted.0.get(), taken, "{number}");
        }
    }

    #[test]
    fn control_payload_is_unmasked_across_its_pieces() {
        let bytes = [&[0x8a, 0xfd, 1, 2, 3, 4][..], &[0; 125]].concat();
        let Some(Item::Header(header)) = FrameDecoder::new().decode(&mut &bytes[..]) else {
            panic!("no header");
        };
        let mut payload = ControlPayload::EMPTY;
        payload.push(&header, &bytes[6..11]);
        payload.push(&header, &bytes[11..]);
        let key_repeated: Vec<u8> = [1, 2, 3, 4].into_iter().cycle().take(125).collect();
        assert_eq!(payload.as_slice(), key_repeated);
    }

    #[test]
    fn leg_ends_at_most_twice() {
        use ReadSide::{Finished, Lost, LostAfterFin, Open, TlsFailed};
        assert_eq!(Open.after(LegEnd::Fin), Some(Finished));
        assert_eq!(Finished.after(LegEnd::Fin), None);
        assert_eq!([Open.after(LegEnd::Tls), Finished.after(LegEnd::Tls)], [Some(TlsFailed), Some(TlsFailed)]);
        assert_eq!(TlsFailed.after(LegEnd::Reset), None);
        for end in [LegEnd::Reset, LegEnd::Timeout, LegEnd::Unreachable] {
            assert_eq!(Open.after(end), Some(Lost));
            assert_eq!(Finished.after(end), Some(LostAfterFin));
            assert_eq!([Lost.after(end), LostAfterFin.after(end)], [None, None]);
        }
        assert_eq!([Lost.after(LegEnd::Fin), LostAfterFin.after(LegEnd::Fin)], [None, None]);
    }
}
