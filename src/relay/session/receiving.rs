//! What an endpoint sends: looked at, counted, and let pass as far as it may.

use std::{num::NonZero, time::Instant};

use super::{
    super::lane::{ControlPayload, Held, Passage, Put, Reading},
    Session,
};
use crate::{
    metrics::EndpointTraffic,
    websocket::{
        Endpoint,
        close_code::{CloseCode, CloseText},
        closing_handshake::Action,
        decoder::Item,
        frame::{FrameHeader, Opcode},
    },
};

impl Session {
    /// Bytes, one at least, were read from an endpoint: looks at them, counts them, and says how many pass to the other.
    pub fn receive(&mut self, from: Endpoint, bytes: &[u8], now: Instant, traffic: &EndpointTraffic) -> Passage {
        debug_assert!(!bytes.is_empty(), "the end of what a sender says is no piece of it");
        let lane = &mut self.lanes[from];
        lane.sent.bytes += bytes.len() as u64;
        traffic.bytes(bytes.len() as u64);
        let mut rest = bytes;
        lane.take_whole_messages(&mut rest, &self.policy, traffic);
        if rest.is_empty() {
            lane.queued += bytes.len() as u64;
            self.last_byte = now;
            return Passage { held: Held::default(), keep: bytes.len() };
        }
        self.look_closely(Receipt { from, now, traffic }, bytes, rest)
    }

    /// Reads `bytes` frame by frame, from `rest` on: all before are whole messages that were taken.
    #[inline(never)]
    fn look_closely(&mut self, receipt: Receipt<'_>, bytes: &[u8], rest: &[u8]) -> Passage {
        let Receipt { from, now, traffic } = receipt;
        let mut reading = Reading::new(&self.lanes[from], self.policy.limits_frames(), bytes, rest);
        loop {
            self.stop_for_put_in(receipt, &mut reading);
            let lane = &mut self.lanes[from];
            reading.skip_ahead(lane, &self.policy, traffic);
            match reading.next(&mut lane.decoder) {
                Some(Item::Header(header)) => self.header(receipt, &header, &mut reading),
                Some(Item::ControlPayload { header, bytes, last, .. }) => {
                    if header.opcode == Opcode::Close {
                        reading.note_close_payload(bytes);
                    }
                    self.control_piece(receipt, &header, bytes, last, &reading);
                }
                None => break,
            }
        }
        let lane = &mut self.lanes[from];
        let (passage, passes_others) = reading.finish(&lane.decoder);
        lane.queued += passage.len();
        if passes_others {
            self.last_byte = now;
        }
        passage
    }

    /// The beginning of a header that was held back, now that its sender sends no more.
    pub(super) fn release_held(&mut self, from: Endpoint) -> Passage {
        let lane = &mut self.lanes[from];
        if !self.policy.limits_frames() || !lane.passes() {
            return Passage::default();
        }
        let passage = Passage { held: Held::new(lane.decoder.partial_header()), keep: 0 };
        lane.queued += passage.len();
        passage
    }

    fn header(&mut self, receipt: Receipt<'_>, header: &FrameHeader, reading: &mut Reading<'_>) {
        let message_bytes = self.count_frame(receipt, header);
        let lane = &mut self.lanes[receipt.from];
        // A longer one is never taken for a Close frame (RFC 6455, 5.5).
        let is_close = header.opcode == Opcode::Close && header.payload_len <= 125;
        lane.in_close = is_close && header.payload_len > 0;
        if self.exceeds_limits(header, message_bytes) {
            self.stop_for_limit(receipt, header, reading);
        } else if is_close {
            reading.note_close_header(header);
        }
        if header.payload_len == 0 {
            self.control_frame(receipt, header, &[], reading);
        }
    }

    /// Counts a frame, and says how large its message is up to it.
    fn count_frame(&mut self, Receipt { from, traffic, .. }: Receipt<'_>, header: &FrameHeader) -> u64 {
        let lane = &mut self.lanes[from];
        lane.sent.frames += 1;
        traffic.frame(header.opcode);
        let verdict = lane.conformance.frame(header);
        if let Some(message) = verdict.message {
            lane.sent.messages += 1;
            traffic.message(message.kind);
            lane.arriving = NonZero::new(message.payload_len).filter(|_| header.payload_len > 0);
            if lane.arriving.is_none() {
                traffic.message_size(message.payload_len);
            }
        }
        for violation in verdict.new.iter() {
            traffic.violation(violation);
        }
        verdict.message.map_or_else(|| lane.conformance.message_so_far(), |message| message.payload_len)
    }

    /// A piece of a control frame's payload: all of it, nearly always.
    fn control_piece(
        &mut self,
        receipt: Receipt<'_>,
        header: &FrameHeader,
        bytes: &[u8],
        last: bool,
        reading: &Reading<'_>,
    ) {
        let lane = &mut self.lanes[receipt.from];
        let begun = lane.control.take();
        if last {
            lane.in_close = false;
            let mut payload = begun.map_or(ControlPayload::EMPTY, |begun| *begun);
            payload.push(header, bytes);
            self.control_frame(receipt, header, payload.as_slice(), reading);
        } else {
            lane.control.insert(begun.unwrap_or_else(|| Box::new(ControlPayload::EMPTY))).push(header, bytes);
        }
    }

    /// A frame whose payload is complete.
    fn control_frame(&mut self, receipt: Receipt<'_>, header: &FrameHeader, payload: &[u8], reading: &Reading<'_>) {
        let Receipt { from, now, traffic } = receipt;
        match header.opcode {
            Opcode::Close => self.close_frame(receipt, header, payload, reading),
            Opcode::Ping => {
                let lane = &mut self.lanes[from];
                lane.sent.pings += 1;
                if reading.end_in_queue().is_some() {
                    lane.ping.ping(payload, now);
                }
            }
            Opcode::Pong => {
                if let Some(round_trip) = self.lanes[from.other()].ping.pong(payload, now) {
                    traffic.ping_rtt(round_trip);
                }
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary | Opcode::Reserved => {}
        }
    }

    fn close_frame(&mut self, receipt: Receipt<'_>, header: &FrameHeader, payload: &[u8], reading: &Reading<'_>) {
        let Receipt { from, now, traffic } = receipt;
        let lane = &mut self.lanes[from];
        let verdict = lane.conformance.close(header, payload);
        for violation in verdict.new.iter() {
            traffic.violation(violation);
        }
        let Some(taken) = verdict.taken else { return };
        lane.close_end = lane.close_end.or(reading.end_in_queue());
        if lane.put == Put::Wanted {
            // That leg has a Close frame now, of which a part had passed before closewatch wanted to put one in.
            lane.put = Put::No;
        }
        self.abandon_put_in();
        self.closing.close_received(from, taken);
        self.note_relayed(receipt, reading);
        self.begin(now);
        self.await_end(now);
        self.settle(now);
    }

    /// Whether a frame is larger than the route allows. A session that is closing already is left to it.
    fn exceeds_limits(&self, header: &FrameHeader, message_bytes: u64) -> bool {
        !self.is_closing() && self.policy.is_exceeded(header.payload_len, message_bytes)
    }

    /// Closes the session before a frame that is too large.
    fn stop_for_limit(&mut self, receipt: Receipt<'_>, header: &FrameHeader, reading: &mut Reading<'_>) {
        reading.stop_before(header);
        self.note_relayed(receipt, reading);
        let lane = &mut self.lanes[receipt.from];
        if lane.passes() {
            lane.put = Put::Ready;
        }
        self.close(Action::Limit, CloseText::code(CloseCode::TOO_BIG), receipt.now);
    }

    /// Where a Close frame of closewatch's waits for the end of a frame, stops the lane there.
    fn stop_for_put_in(&mut self, receipt: Receipt<'_>, reading: &mut Reading<'_>) {
        let lane = &mut self.lanes[receipt.from];
        if lane.put == Put::Wanted && lane.passes() && !lane.in_close && reading.stop_at_boundary(&lane.decoder) {
            lane.put = Put::Ready;
            self.note_relayed(receipt, reading);
            self.begin_put_in(receipt.now);
        }
    }

    /// Before something is told to have come after the last byte: is that one in this piece?
    fn note_relayed(&mut self, Receipt { now, .. }: Receipt<'_>, reading: &Reading<'_>) {
        if reading.passes_others() {
            self.last_byte = now;
        }
    }
}

/// What was read from whom, and when: what every step of [`Session::receive`] needs.
#[derive(Clone, Copy)]
struct Receipt<'a> {
    from: Endpoint,
    now: Instant,
    traffic: &'a EndpointTraffic,
}
