//! What one endpoint sends, on its way to the other; and one reading of it.

use std::{
    hash::{DefaultHasher, Hasher},
    mem::offset_of,
    num::NonZero,
    time::{Duration, Instant},
};

use super::policy::Policy;
use crate::{
    journal::Sent,
    metrics::EndpointTraffic,
    websocket::{
        Endpoint,
        conformance::{Conformance, Extensions},
        decoder::{FrameDecoder, Item},
        frame::{FrameHeader, unmask},
    },
};

/// How the reading side of a leg ended, as its socket told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegEnd {
    /// FIN.
    Fin,
    /// RST, or a write that met one.
    Reset,
    /// Keepalive unanswered, or data unacknowledged.
    Timeout,
    /// No route.
    Unreachable,
}

/// What one endpoint sends, on its way to the other.
///
/// What every message touches comes first, in two lines of the processor's cache.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Lane {
    pub(super) decoder: FrameDecoder,
    pub(super) conformance: Conformance,
    pub(super) put: Put,
    pub(super) outlet: Outlet,
    /// How the sender's leg ended.
    pub(super) ended: Option<LegEnd>,
    /// It sent FIN, whatever came then.
    pub(super) sent_fin: bool,
    /// It stands in the payload of a Close frame.
    pub(super) in_close: bool,
    /// Bytes given to the receiver's leg to write, and how many of them its kernel has taken.
    pub(super) queued: u64,
    pub(super) written: u64,
    /// Where, in `queued`, the Close frame ends that the receiver is to be delivered.
    pub(super) close_end: Option<u64>,
    pub(super) sent: Sent,
    /// The payload of a control frame that comes in pieces.
    pub(super) control: Option<Box<ControlPayload>>,
    /// The size of the message whose last payload is still on its way.
    pub(super) arriving: Option<NonZero<u64>>,
    pub(super) ping: PingWatch,
}

const _: () = assert!(offset_of!(Lane, ping) == 2 * 64 + 24 && size_of::<Lane>() == 3 * 64);

/// Whether closewatch's own Close frame goes into a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    No,
    /// As soon as the lane stands between two frames.
    Wanted,
    /// The lane stands between two frames, and nothing of the sender's passes any more.
    Ready,
    Done,
}

/// The writing side of the receiver's leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlet {
    Open,
    /// FIN was sent.
    Finished,
    /// An RST waits for what was written to be acknowledged.
    Resetting,
    /// Reset, or lost with its leg.
    Gone,
}

impl Lane {
    pub(super) fn new(sender: Endpoint, extensions: Extensions) -> Self {
        Self {
            decoder: FrameDecoder::new(),
            conformance: Conformance::new(sender, extensions),
            sent: Sent::default(),
            control: None,
            in_close: false,
            arriving: None,
            ping: PingWatch::default(),
            queued: 0,
            written: 0,
            close_end: None,
            put: Put::No,
            ended: None,
            sent_fin: false,
            outlet: Outlet::Open,
        }
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.written == self.queued
    }

    /// Whether what the sender sends still goes to the receiver.
    pub(super) fn passes(&self) -> bool {
        self.outlet == Outlet::Open && matches!(self.put, Put::No | Put::Wanted)
    }

    /// Whether it stands between two frames, and all that comes next may pass.
    #[inline]
    fn passes_freely(&self) -> bool {
        self.decoder.at_boundary() && self.outlet == Outlet::Open && self.put == Put::No
    }

    /// Takes the whole messages that `input` begins with, where they pass and the policy allows their size.
    #[inline]
    pub(super) fn take_whole_messages(&mut self, input: &mut &[u8], policy: &Policy, traffic: &EndpointTraffic) {
        if !self.passes_freely() {
            return;
        }
        while let Some((messages, behind)) = self.conformance.whole_messages(input, policy.largest_frame()) {
            self.sent.frames += messages.count;
            self.sent.messages += messages.count;
            traffic.whole_messages(&messages);
            *input = behind;
        }
    }

    /// Whether what has passed ends between two frames. Where headers are withheld, one that is not whole did not pass.
    pub(super) fn passed_whole_frames(&self, withholds: bool) -> bool {
        self.decoder.at_boundary() || (withholds && !self.decoder.partial_header().is_empty())
    }

    /// What stood before is behind: the message of which a part was missing is whole. A header can announce any size, so
    /// a message is not measured by it alone.
    fn message_arrived(&mut self, traffic: &EndpointTraffic) {
        if let Some(size) = self.arriving.take() {
            traffic.message_size(size.get());
        }
    }

    /// Whether the sender's leg is lost, rather than ended by FIN.
    pub(super) fn is_lost(&self) -> bool {
        self.ended.is_some_and(|end| end != LegEnd::Fin)
    }
}

/// The round trips of the Pings on one lane. Only the last Ping is awaited, so a flood of them costs nothing.
#[derive(Debug, Default)]
pub(super) struct PingWatch {
    /// The hash of its payload, and when it passed.
    awaited: Option<(u64, Instant)>,
    pub(super) last_round_trip: Option<Duration>,
}

impl PingWatch {
    pub(super) fn ping(&mut self, payload: &[u8], now: Instant) {
        self.awaited = Some((hash(payload), now));
    }

    /// A Pong came back: the round trip, where it answers the awaited Ping.
    pub(super) fn pong(&mut self, payload: &[u8], now: Instant) -> Option<Duration> {
        let (_, sent) = self.awaited.take_if(|(awaited, _)| *awaited == hash(payload))?;
        let round_trip = now.saturating_duration_since(sent);
        self.last_round_trip = Some(round_trip);
        Some(round_trip)
    }
}

fn hash(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(payload);
    hasher.finish()
}

/// A control frame's payload as far as it came, unmasked (RFC 6455, 5.5: at most 125 bytes).
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

/// How many of the bytes that were read may pass to the other leg.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passage {
    /// The beginning of a header that was held back until it was whole: to be written first.
    pub held: Held,
    /// How many of the bytes just read pass, from their start. The others are dropped, or held back.
    pub keep: usize,
}

impl Passage {
    pub(super) fn len(&self) -> u64 {
        (self.held.as_slice().len() + self.keep) as u64
    }
}

/// The beginning of a frame header, at most 13 of its 14 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    bytes: [u8; 14],
    len: u8,
}

impl Held {
    pub(super) fn new(partial_header: &[u8]) -> Self {
        let mut held = Self::default();
        for (place, byte) in held.bytes.iter_mut().zip(partial_header) {
            *place = *byte;
            held.len += 1;
        }
        held
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// One piece of what an endpoint sends, while it is looked at.
pub(super) struct Reading<'a> {
    length: usize,
    rest: &'a [u8],
    /// A header passes only when it is whole.
    withholds: bool,
    /// The part of a header that an earlier piece brought, and that is held back.
    held: Held,
    /// Where in `Lane::queued` the piece will begin.
    base: u64,
    /// How much of the piece passes, once that is settled.
    stop: Option<usize>,
    /// How many of the bytes that pass so far are a Close frame's.
    close_bytes: usize,
}

impl<'a> Reading<'a> {
    /// A reading of `bytes`, of which all up to `rest` are whole messages that were taken.
    pub(super) fn new(lane: &Lane, withholds: bool, bytes: &'a [u8], rest: &'a [u8]) -> Self {
        let partial_header = lane.decoder.partial_header();
        let held = if withholds && lane.passes() { Held::new(partial_header) } else { Held::default() };
        Self {
            length: bytes.len(),
            rest,
            withholds,
            held,
            base: lane.queued + held.as_slice().len() as u64,
            stop: (!lane.passes()).then_some(0),
            close_bytes: 0,
        }
    }

    pub(super) fn next(&mut self, decoder: &mut FrameDecoder) -> Option<Item<'a>> {
        decoder.decode(&mut self.rest)
    }

    /// Reads on to the end of a frame, where it comes in this piece, and takes the whole messages behind it.
    pub(super) fn skip_ahead(&mut self, lane: &mut Lane, policy: &Policy, traffic: &EndpointTraffic) {
        lane.decoder.skip_payload(&mut self.rest);
        if lane.decoder.at_boundary() {
            lane.message_arrived(traffic);
        }
        lane.take_whole_messages(&mut self.rest, policy, traffic);
    }

    fn position(&self) -> usize {
        self.length - self.rest.len()
    }

    /// Lets nothing pass from the next boundary between two frames on, and says whether it lies in this piece.
    pub(super) fn stop_at_boundary(&mut self, decoder: &FrameDecoder) -> bool {
        // What does not fit into a usize is not in this piece.
        let remaining = usize::try_from(decoder.payload_remaining()).unwrap_or(usize::MAX);
        let in_reach = decoder.at_boundary() || (0 < remaining && remaining <= self.rest.len());
        if in_reach && self.stop.is_none() {
            self.stop = Some(self.position() + remaining);
        }
        in_reach
    }

    /// Lets nothing pass from the header just read on.
    pub(super) fn stop_before(&mut self, header: &FrameHeader) {
        let start = self.position().checked_sub(usize::from(header.header_len));
        if start.is_none() {
            self.held = Held::default();
        }
        self.stop = Some(self.stop.unwrap_or(usize::MAX).min(start.unwrap_or(0)));
    }

    /// The header just read is a Close frame's.
    pub(super) fn note_close_header(&mut self, header: &FrameHeader) {
        // What an earlier piece brought of it has passed then, if it was not held back.
        self.close_bytes += usize::from(header.header_len).min(self.passed());
    }

    /// These bytes, the last that were read, are a Close frame's.
    pub(super) fn note_close_payload(&mut self, payload: &[u8]) {
        self.close_bytes += payload.len();
    }

    /// Whether anything but Close frames passes: of what is read so far, or up to where the piece is stopped.
    pub(super) fn passes_others(&self) -> bool {
        self.passed() > self.close_bytes
    }

    fn passed(&self) -> usize {
        self.held.as_slice().len() + self.stop.unwrap_or(self.position())
    }

    /// Where in `Lane::queued` what was just read ends, where it passes.
    pub(super) fn end_in_queue(&self) -> Option<u64> {
        let position = self.position();
        self.stop.is_none_or(|stop| position <= stop).then(|| self.base + position as u64)
    }

    /// The piece is read to its end: what of it passes, and whether that is more than Close frames.
    pub(super) fn finish(mut self, decoder: &FrameDecoder) -> (Passage, bool) {
        let partial = decoder.partial_header();
        let withheld = if self.withholds { partial.len() } else { 0 };
        if is_close_header(partial) && !self.withholds {
            self.close_bytes += partial.len().min(self.length);
        }
        let passage = match self.stop {
            Some(keep) => Passage { held: self.held, keep },
            // The header that an earlier piece began is still not whole.
            None if withheld > self.length => Passage::default(),
            None => Passage { held: self.held, keep: self.length - withheld },
        };
        (passage, passage.len() > self.close_bytes as u64)
    }
}

/// Whether an incomplete header is a Close frame's (RFC 6455, 5.2: the low four bits of its first byte).
fn is_close_header(partial: &[u8]) -> bool {
    partial.first().is_some_and(|first| first & 0x0f == 0x8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Traffic;

    /// "Hi" from a client, masked with the key 1, 2, 3, 4.
    const MASKED_HI: [u8; 8] = [0x81, 0x82, 1, 2, 3, 4, b'H' ^ 1, b'i' ^ 2];

    /// What passes of a piece: what was held back of earlier ones, and of this one.
    fn pass<'a>(lane: &mut Lane, withholds: bool, piece: &'a [u8]) -> (Vec<u8>, &'a [u8]) {
        let mut reading = Reading::new(lane, withholds, piece, piece);
        while reading.next(&mut lane.decoder).is_some() {}
        let (passage, _) = reading.finish(&lane.decoder);
        lane.queued += passage.len();
        (passage.held.as_slice().to_vec(), &piece[..passage.keep])
    }

    fn lane() -> Lane {
        Lane::new(Endpoint::Client, Extensions::None)
    }

    #[test]
    fn without_limits_all_bytes_pass_as_they_come() {
        let mut lane = lane();
        for piece in [&MASKED_HI[..1], &MASKED_HI[1..7], &MASKED_HI[7..]] {
            assert_eq!(pass(&mut lane, false, piece), (Vec::new(), piece));
        }
        assert_eq!(lane.queued, 8);
    }

    #[test]
    fn with_limits_a_header_passes_when_it_is_whole() {
        let mut lane = lane();
        let two = [MASKED_HI, MASKED_HI].concat();
        let steps: [(&[u8], &[u8], &[u8]); 6] = [
            (&two[..1], &[], &[]),
            (&two[1..5], &[], &[]),
            (&two[5..7], &two[..5], &two[5..7]),
            (&two[7..13], &[], &two[7..8]),
            (&[], &[], &[]),
            (&two[13..], &two[8..13], &two[13..]),
        ];
        for (piece, held, passed) in steps {
            assert_eq!(pass(&mut lane, true, piece), (held.to_vec(), passed), "{piece:x?}");
        }
        assert_eq!(lane.queued, 16);
    }

    #[test]
    fn what_was_held_back_counts_for_where_a_frame_ends_in_the_queue() {
        let mut lane = lane();
        pass(&mut lane, true, &MASKED_HI[..3]);
        let mut reading = Reading::new(&lane, true, &MASKED_HI[3..6], &MASKED_HI[3..6]);
        assert!(reading.next(&mut lane.decoder).is_some());
        assert_eq!(reading.end_in_queue(), Some(6));
    }

    #[test]
    fn nothing_passes_to_a_leg_that_takes_nothing() {
        for lane in [Lane { outlet: Outlet::Gone, ..lane() }, Lane { put: Put::Ready, ..lane() }] {
            let mut lane = lane;
            assert_eq!(pass(&mut lane, false, &MASKED_HI), (Vec::new(), &[][..]));
            assert_eq!(lane.sent, Sent::default());
            assert!(lane.decoder.at_boundary());
        }
    }

    #[test]
    fn a_lane_stops_at_the_end_of_a_frame_where_that_is_in_the_piece() {
        let two = [MASKED_HI, MASKED_HI].concat();
        for (read_before, piece, stops, passed) in [(7, 7..8, true, 1), (7, 7..16, true, 1), (6, 6..7, false, 1)] {
            let mut lane = lane();
            pass(&mut lane, false, &two[..read_before]);
            let piece = &two[piece];
            let mut reading = Reading::new(&lane, false, piece, piece);
            assert_eq!(reading.stop_at_boundary(&lane.decoder), stops);
            while reading.next(&mut lane.decoder).is_some() {}
            assert_eq!(reading.finish(&lane.decoder).0.keep, passed);
        }
    }

    #[test]
    fn a_frame_stopped_before_takes_what_was_held_of_its_header_with_it() {
        for (read_before, passed) in [(8, 0), (10, 0), (0, 8)] {
            let two = [MASKED_HI, MASKED_HI].concat();
            let mut lane = lane();
            pass(&mut lane, true, &two[..read_before]);
            let piece = &two[read_before..];
            let mut reading = Reading::new(&lane, true, piece, piece);
            while let Some(Item::Header(header)) = reading.next(&mut lane.decoder) {
                // The second frame's header is whole: its payload is left.
                if reading.rest.len() == 2 {
                    reading.stop_before(&header);
                }
            }
            let (passage, _) = reading.finish(&lane.decoder);
            assert_eq!((passage.held.as_slice(), passage.keep), (&[][..], passed), "{read_before}");
        }
    }

    #[test]
    fn whole_messages_are_taken_where_they_pass_and_are_small_enough() {
        let bytes = [&MASKED_HI[..], &MASKED_HI, &MASKED_HI[..4]].concat();
        let limited = |frame_bytes, message_bytes| Policy { frame_bytes, message_bytes, ..Policy::default() };
        let inside = || {
            let mut lane = lane();
            pass(&mut lane, false, &MASKED_HI[..1]);
            lane
        };
        for (number, (mut lane, policy, left)) in [
            (lane(), limited(None, None), 4),
            (lane(), limited(Some(2), Some(3)), 4),
            (lane(), limited(Some(1), None), 20),
            (lane(), limited(Some(2), Some(1)), 20),
            (Lane { put: Put::Wanted, ..lane() }, limited(None, None), 20),
            (Lane { put: Put::Ready, ..lane() }, limited(None, None), 20),
            (Lane { outlet: Outlet::Gone, ..lane() }, limited(None, None), 20),
            (inside(), limited(None, None), 20),
        ]
        .into_iter()
        .enumerate()
        {
            let (mut rest, traffic) = (&bytes[..], Traffic::alone());
            lane.take_whole_messages(&mut rest, &policy, &traffic[Endpoint::Client]);
            assert_eq!((number, rest.len()), (number, left));
            let taken = if left == 4 { 2 } else { 0 };
            assert_eq!((lane.sent.frames, lane.sent.messages), (taken, taken), "{number}");
            assert_eq!(traffic.counts().client.iter().filter(|count| **count > 0).count() > 0, taken > 0, "{number}");
        }
    }

    #[test]
    fn only_the_last_ping_is_awaited() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut watch = PingWatch::default();
        assert_eq!(watch.pong(b"", after(0)), None, "no Ping");
        watch.ping(b"1", after(1));
        watch.ping(b"2", after(3));
        assert_eq!(watch.pong(b"1", after(4)), None, "not the last one");
        assert_eq!(watch.pong(b"2", after(5)), Some(Duration::from_secs(2)));
        assert_eq!(watch.pong(b"2", after(6)), None, "answered already");
        assert_eq!(watch.last_round_trip, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_control_payload_is_unmasked_across_its_pieces() {
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
}
