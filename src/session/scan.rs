//! One read of an endpoint's bytes: frames are counted and judged, and the bytes that may pass are measured.

use std::{num::NonZero, time::Instant};

use super::{
    FrameSink, Session,
    direction::{ControlPayload, Direction, Injection},
};
use crate::websocket::{
    Endpoint,
    close_code::{CloseCode, CloseText},
    closing_handshake::{Action, ReceivedClose, says_failure},
    decoder::{FrameDecoder, Item},
    frame::{FrameHeader, Opcode},
};

/// The bytes of one read that pass to the other leg.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use = "these bytes must be written to the other leg"]
pub struct Forward {
    /// The start of a header that was withheld until the header was complete: to be written first.
    pub withheld: PartialHeader,
    /// How many of the bytes just read pass, from their start. The others are dropped, or withheld.
    pub keep: usize,
}

impl Forward {
    fn len(&self) -> u64 {
        (self.withheld.as_slice().len() + self.keep) as u64
    }
}

/// The start of a frame header, at most 13 of its 14 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartialHeader {
    bytes: [u8; 14],
    len: u8,
}

impl PartialHeader {
    fn new(partial_header: &[u8]) -> Self {
        let mut header = Self::default();
        for (place, byte) in header.bytes.iter_mut().zip(partial_header) {
            *place = *byte;
            header.len += 1;
        }
        header
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Session {
    /// At least one byte was read from an endpoint: counts and judges the frames, and returns how much passes to the
    /// other endpoint.
    #[inline]
    pub fn handle_data(&mut self, from: Endpoint, bytes: &[u8], now: Instant, sink: &impl FrameSink) -> Forward {
        debug_assert!(!bytes.is_empty(), "the end of a stream is not data");
        let direction = &mut self.directions[from];
        direction.sent.bytes += bytes.len() as u64;
        sink.bytes(bytes.len() as u64);
        let mut rest = bytes;
        direction.take_whole_messages(&mut rest, &self.policy, sink);
        if rest.is_empty() {
            direction.queued += bytes.len() as u64;
            self.last_byte = now;
            return Forward { withheld: PartialHeader::default(), keep: bytes.len() };
        }
        self.scan_frames(Receipt { from, now, sink }, bytes, rest)
    }

    /// Reads `bytes` frame by frame, from `rest` on: everything before are whole messages that were taken.
    #[inline(never)]
    fn scan_frames(&mut self, receipt: Receipt<'_, impl FrameSink>, bytes: &[u8], rest: &[u8]) -> Forward {
        let Receipt { from, now, sink } = receipt;
        let mut scan = Scan::new(&self.directions[from], self.policy.limits_frames(), bytes, rest);
        loop {
            self.stop_for_injection(receipt, &mut scan);
            let direction = &mut self.directions[from];
            direction.decoder.skip_payload(&mut scan.rest);
            if direction.decoder.at_boundary() {
                direction.record_arrived_message(sink);
            }
            direction.take_whole_messages(&mut scan.rest, &self.policy, sink);
            match scan.next(&mut direction.decoder) {
                Some(Item::Header(header)) => self.header(receipt, &header, &mut scan),
                Some(Item::ControlPayload { header, bytes, last, .. }) => {
                    if header.opcode == Opcode::Close {
                        scan.note_close_payload(bytes);
                    }
                    self.control_piece(receipt, &header, bytes, last, &scan);
                }
                None => break,
            }
        }
        let direction = &mut self.directions[from];
        let (forward, passes_others) = scan.finish(&direction.decoder);
        direction.queued += forward.len();
        if passes_others {
            self.last_byte = now;
        }
        forward
    }

    /// The start of a header that was withheld, now that its sender sends no more.
    pub(super) fn release_withheld(&mut self, from: Endpoint) -> Forward {
        let direction = &mut self.directions[from];
        if !self.policy.limits_frames() || !direction.passes() {
            return Forward::default();
        }
        let forward = Forward { withheld: PartialHeader::new(direction.decoder.partial_header()), keep: 0 };
        direction.queued += forward.len();
        forward
    }

    fn header(&mut self, receipt: Receipt<'_, impl FrameSink>, header: &FrameHeader, scan: &mut Scan<'_>) {
        let message_bytes = self.count_frame(receipt, header);
        let direction = &mut self.directions[receipt.from];
        // A longer frame is never treated as a Close frame (RFC 6455, 5.5).
        let is_close = header.opcode == Opcode::Close && header.payload_len <= 125;
        direction.in_close = is_close && header.payload_len > 0;
        if self.exceeds_limits(header, message_bytes) {
            self.stop_for_limit(receipt, header, scan);
        } else if is_close {
            scan.note_close_header(header);
        }
        if header.payload_len == 0 {
            self.control_frame(receipt, header, &[], scan);
        }
    }

    /// Counts a frame, and returns the size of its message up to and including it.
    fn count_frame(&mut self, Receipt { from, sink, .. }: Receipt<'_, impl FrameSink>, header: &FrameHeader) -> u64 {
        let direction = &mut self.directions[from];
        direction.sent.frames += 1;
        sink.frame(header.opcode);
        let verdict = direction.conformance.frame(header);
        if let Some(message) = verdict.message {
            direction.sent.messages += 1;
            sink.message(message.kind);
            direction.arriving = NonZero::new(message.payload_len).filter(|_| header.payload_len > 0);
            if direction.arriving.is_none() {
                sink.message_size(message.payload_len);
            }
        }
        for violation in verdict.new.iter() {
            sink.violation(violation);
        }
        verdict.message.map_or_else(|| direction.conformance.message_so_far(), |message| message.payload_len)
    }

    /// A piece of a control frame's payload; nearly always all of it.
    fn control_piece(
        &mut self,
        receipt: Receipt<'_, impl FrameSink>,
        header: &FrameHeader,
        bytes: &[u8],
        last: bool,
        scan: &Scan<'_>,
    ) {
        let direction = &mut self.directions[receipt.from];
        let begun = direction.control.take();
        if last {
            direction.in_close = false;
            let mut payload = begun.map_or(ControlPayload::EMPTY, |begun| *begun);
            payload.push(header, bytes);
            self.control_frame(receipt, header, payload.as_slice(), scan);
        } else {
            direction.control.insert(begun.unwrap_or_else(|| Box::new(ControlPayload::EMPTY))).push(header, bytes);
        }
    }

    /// A frame whose payload is complete.
    fn control_frame(
        &mut self,
        receipt: Receipt<'_, impl FrameSink>,
        header: &FrameHeader,
        payload: &[u8],
        scan: &Scan<'_>,
    ) {
        let Receipt { from, now, sink } = receipt;
        match header.opcode {
            Opcode::Close => self.close_frame(receipt, header, payload, scan),
            Opcode::Ping => {
                let direction = &mut self.directions[from];
                direction.sent.pings += 1;
                if scan.end_in_queue().is_some() {
                    direction.pings.ping(payload, now);
                }
            }
            Opcode::Pong => {
                if let Some(round_trip) = self.directions[from.other()].pings.pong(payload, now) {
                    sink.ping_rtt(round_trip);
                }
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary | Opcode::Reserved => {}
        }
    }

    fn close_frame(
        &mut self,
        receipt: Receipt<'_, impl FrameSink>,
        header: &FrameHeader,
        payload: &[u8],
        scan: &Scan<'_>,
    ) {
        let Receipt { from, now, sink } = receipt;
        let peer_violated = !self.directions[from.other()].conformance.seen_before_close().is_empty();
        let direction = &mut self.directions[from];
        let verdict = direction.conformance.close(header, payload);
        for violation in verdict.new.iter() {
            sink.violation(violation);
        }
        let Some(frame) = verdict.taken else { return };
        if direction.injection == Injection::Wanted {
            // That leg has a Close frame now: a part of it had passed before closewatch wanted to inject one.
            direction.injection = Injection::None;
        }
        self.abandon_injection();
        self.note_relayed(receipt, scan);
        let fails_connection = peer_violated && says_failure(frame.status);
        let closing = self.phase.closing();
        closing.close_end[from] = closing.close_end[from].or(scan.end_in_queue());
        closing
            .handshake
            .close_received(from, ReceivedClose { frame, is_provisional: verdict.is_provisional, fails_connection });
        self.begin(now);
        self.await_end(now);
        self.settle(now);
    }

    /// Whether a frame is larger than the route allows. A session that closes already is left to its closing handshake.
    fn exceeds_limits(&self, header: &FrameHeader, message_bytes: u64) -> bool {
        !self.is_closing() && self.policy.is_exceeded(header.payload_len, message_bytes)
    }

    /// Closes the session before a frame that is too large.
    fn stop_for_limit(&mut self, receipt: Receipt<'_, impl FrameSink>, header: &FrameHeader, scan: &mut Scan<'_>) {
        scan.stop_before(header);
        self.note_relayed(receipt, scan);
        let direction = &mut self.directions[receipt.from];
        if direction.passes() {
            direction.injection = Injection::Ready;
        }
        self.close(Action::Limit, CloseText::code(CloseCode::TOO_BIG), receipt.now);
    }

    /// If a Close frame of closewatch waits for the end of a frame, stops the direction there.
    fn stop_for_injection(&mut self, receipt: Receipt<'_, impl FrameSink>, scan: &mut Scan<'_>) {
        let direction = &mut self.directions[receipt.from];
        let waits = direction.injection == Injection::Wanted && direction.passes() && !direction.in_close;
        if waits && scan.stop_at_boundary(&direction.decoder) {
            direction.injection = Injection::Ready;
            self.note_relayed(receipt, scan);
            self.begin_injection(receipt.now);
        }
    }

    /// An event that ends the idle time follows: counts the bytes of this read that came before it.
    fn note_relayed(&mut self, Receipt { now, .. }: Receipt<'_, impl FrameSink>, scan: &Scan<'_>) {
        if scan.passes_others() {
            self.last_byte = now;
        }
    }
}

/// The sender, the time and the counters of one read.
struct Receipt<'a, S> {
    from: Endpoint,
    now: Instant,
    sink: &'a S,
}

// Derived, they would ask the same of `S`.
impl<S> Clone for Receipt<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Receipt<'_, S> {}

/// One read while its frames are looked at.
struct Scan<'a> {
    length: usize,
    rest: &'a [u8],
    /// A header passes only when it is complete.
    withholds: bool,
    /// The part of a header that an earlier read brought, and that was withheld.
    withheld: PartialHeader,
    /// Where in [`Direction::queued`] this read begins.
    base: u64,
    /// How much of this read passes, once that is settled.
    stop: Option<usize>,
    /// How many of the bytes that pass so far belong to Close frames.
    close_bytes: usize,
}

impl<'a> Scan<'a> {
    /// A read of `bytes`: everything before `rest` are whole messages that were taken.
    fn new(direction: &Direction, withholds: bool, bytes: &'a [u8], rest: &'a [u8]) -> Self {
        let partial_header = direction.decoder.partial_header();
        let withheld =
            if withholds && direction.passes() { PartialHeader::new(partial_header) } else { PartialHeader::default() };
        Self {
            length: bytes.len(),
            rest,
            withholds,
            withheld,
            base: direction.queued + withheld.as_slice().len() as u64,
            stop: (!direction.passes()).then_some(0),
            close_bytes: 0,
        }
    }

    fn next(&mut self, decoder: &mut FrameDecoder) -> Option<Item<'a>> {
        decoder.decode(&mut self.rest)
    }

    fn position(&self) -> usize {
        self.length - self.rest.len()
    }

    /// Lets nothing pass from the next boundary between two frames on, if that boundary lies in this read.
    fn stop_at_boundary(&mut self, decoder: &FrameDecoder) -> bool {
        // A length that does not fit into usize does not end in this read.
        let remaining = usize::try_from(decoder.payload_remaining()).unwrap_or(usize::MAX);
        let in_reach = decoder.at_boundary() || (0 < remaining && remaining <= self.rest.len());
        if in_reach && self.stop.is_none() {
            self.stop = Some(self.position() + remaining);
        }
        in_reach
    }

    /// Lets nothing pass from the start of the header just read on.
    fn stop_before(&mut self, header: &FrameHeader) {
        let start = self.position().checked_sub(usize::from(header.header_len));
        if start.is_none() {
            self.withheld = PartialHeader::default();
        }
        self.stop = Some(self.stop.unwrap_or(usize::MAX).min(start.unwrap_or(0)));
    }

    /// The header just read belongs to a Close frame.
    fn note_close_header(&mut self, header: &FrameHeader) {
        // The bytes of it that an earlier read brought have passed then, unless they were withheld.
        self.close_bytes += usize::from(header.header_len).min(self.passed());
    }

    /// These bytes, the last ones read, belong to a Close frame.
    fn note_close_payload(&mut self, payload: &[u8]) {
        self.close_bytes += payload.len();
    }

    /// Whether anything but Close frames passes, of the bytes read so far or up to the stop.
    fn passes_others(&self) -> bool {
        self.passed() > self.close_bytes
    }

    fn passed(&self) -> usize {
        self.withheld.as_slice().len() + self.stop.unwrap_or(self.position())
    }

    /// Where in [`Direction::queued`] the item just read ends, if it passes.
    fn end_in_queue(&self) -> Option<u64> {
        let position = self.position();
        self.stop.is_none_or(|stop| position <= stop).then(|| self.base + position as u64)
    }

    /// Everything is read: the bytes that pass, and whether these are more than Close frames.
    fn finish(mut self, decoder: &FrameDecoder) -> (Forward, bool) {
        let partial = decoder.partial_header();
        let withheld = if self.withholds { partial.len() } else { 0 };
        if is_close_header(partial) && !self.withholds {
            self.close_bytes += partial.len().min(self.length);
        }
        let forward = match self.stop {
            Some(keep) => Forward { withheld: self.withheld, keep },
            // The header that an earlier read began is still incomplete.
            None if withheld > self.length => Forward::default(),
            None => Forward { withheld: self.withheld, keep: self.length - withheld },
        };
        (forward, forward.len() > self.close_bytes as u64)
    }
}

/// Whether an incomplete header belongs to a Close frame (RFC 6455, 5.2: the low four bits of its first byte).
fn is_close_header(partial: &[u8]) -> bool {
    partial.first().is_some_and(|first| first & 0x0f == 0x8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{session::direction::WriteSide, websocket::conformance::Extensions};

    /// "Hi" from a client, masked with the key 1, 2, 3, 4.
    const MASKED_HI: [u8; 8] = [0x81, 0x82, 1, 2, 3, 4, b'H' ^ 1, b'i' ^ 2];

    fn direction() -> Direction {
        Direction::new(Endpoint::Client, Extensions::None)
    }

    /// The bytes that pass of one read: those withheld of earlier reads, and those of this one.
    fn pass<'a>(direction: &mut Direction, withholds: bool, piece: &'a [u8]) -> (Vec<u8>, &'a [u8]) {
        let mut scan = Scan::new(direction, withholds, piece, piece);
        while scan.next(&mut direction.decoder).is_some() {}
        let (forward, _) = scan.finish(&direction.decoder);
        direction.queued += forward.len();
        (forward.withheld.as_slice().to_vec(), &piece[..forward.keep])
    }

    #[test]
    fn bytes_pass_as_they_come_without_limits() {
        let mut direction = direction();
        for piece in [&MASKED_HI[..1], &MASKED_HI[1..7], &MASKED_HI[7..]] {
            assert_eq!(pass(&mut direction, false, piece), (Vec::new(), piece));
        }
        assert_eq!(direction.queued, 8);
    }

    #[test]
    fn header_passes_when_complete_with_limits() {
        let mut direction = direction();
        let two = [MASKED_HI, MASKED_HI].concat();
        let steps: [(&[u8], &[u8], &[u8]); 6] = [
            (&two[..1], &[], &[]),
            (&two[1..5], &[], &[]),
            (&two[5..7], &two[..5], &two[5..7]),
            (&two[7..13], &[], &two[7..8]),
            (&[], &[], &[]),
            (&two[13..], &two[8..13], &two[13..]),
        ];
        for (piece, withheld, passed) in steps {
            assert_eq!(pass(&mut direction, true, piece), (withheld.to_vec(), passed), "{piece:x?}");
        }
        assert_eq!(direction.queued, 16);
    }

    #[test]
    fn withheld_bytes_count_for_the_end_in_the_queue() {
        let mut direction = direction();
        pass(&mut direction, true, &MASKED_HI[..3]);
        let mut scan = Scan::new(&direction, true, &MASKED_HI[3..6], &MASKED_HI[3..6]);
        assert!(scan.next(&mut direction.decoder).is_some());
        assert_eq!(scan.end_in_queue(), Some(6));
    }

    #[test]
    fn nothing_passes_to_a_leg_that_takes_nothing() {
        for blocked in [
            Direction { write_side: WriteSide::Gone, ..direction() },
            Direction { injection: Injection::Ready, ..direction() },
            Direction { injection: Injection::Dropping, ..direction() },
        ] {
            let mut blocked = blocked;
            assert_eq!(pass(&mut blocked, false, &MASKED_HI), (Vec::new(), &[][..]));
        }
    }

    #[test]
    fn scan_stops_at_a_boundary_within_the_read() {
        let two = [MASKED_HI, MASKED_HI].concat();
        for (read_before, piece, stops, passed) in [(7, 7..8, true, 1), (7, 7..16, true, 1), (6, 6..7, false, 1)] {
            let mut direction = direction();
            pass(&mut direction, false, &two[..read_before]);
            let piece = &two[piece];
            let mut scan = Scan::new(&direction, false, piece, piece);
            assert_eq!(scan.stop_at_boundary(&direction.decoder), stops);
            while scan.next(&mut direction.decoder).is_some() {}
            assert_eq!(scan.finish(&direction.decoder).0.keep, passed);
        }
    }

    #[test]
    fn stop_before_a_frame_drops_its_withheld_header() {
        for (read_before, passed) in [(8, 0), (10, 0), (0, 8)] {
            let two = [MASKED_HI, MASKED_HI].concat();
            let mut direction = direction();
            pass(&mut direction, true, &two[..read_before]);
            let piece = &two[read_before..];
            let mut scan = Scan::new(&direction, true, piece, piece);
            while let Some(Item::Header(header)) = scan.next(&mut direction.decoder) {
                // The second frame's header is complete: its payload is left.
                if scan.rest.len() == 2 {
                    scan.stop_before(&header);
                }
            }
            let (forward, _) = scan.finish(&direction.decoder);
            assert_eq!((forward.withheld.as_slice(), forward.keep), (&[][..], passed), "{read_before}");
        }
    }
}
