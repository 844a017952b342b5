//! Events of a session in any order, and the properties that hold whatever the order.

use std::time::Duration;

use super::harness::{Harness, Kind, LegOutcome};
use crate::{
    session::{LegEnd, Policy, Summary},
    websocket::{
        Endpoint, PerEndpoint,
        close_code::{CloseCode, CloseStatus, CloseText},
        closing_handshake::{Fault, LegFault, Party},
        conformance::{Conformance, Extensions},
        decoder::{FrameDecoder, Item},
        frame::{self, Opcode, unmask},
    },
};

/// The most bytes of a header that are withheld.
const MOST_WITHHELD: usize = 13;

/// Close codes that closewatch writes in a scenario.
const OWN_CODES: [u16; 4] = [1001, 1009, 1012, 1014];

/// An event of a session. One that can no longer happen is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// An endpoint sends bytes.
    Receive(Endpoint, Vec<u8>),
    /// An endpoint's leg ends.
    End(Endpoint, LegEnd),
    /// An endpoint's connection takes so many bytes more, and then none.
    Room(Endpoint, usize),
    /// An endpoint acknowledges the bytes that it gets, or no longer does.
    Acknowledge(Endpoint, bool),
    /// The next write to an endpoint meets an RST.
    Kill(Endpoint),
    /// Time passes.
    Wait(Duration),
    /// An operator closes the session.
    Close,
    /// The session is drained within so long.
    Drain(Duration),
    /// The process ends.
    Cut,
}

/// A policy, and what happens to a session under it.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) policy: Policy,
    pub(crate) steps: Vec<Step>,
}

/// The result of a scenario.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) summary: Summary,
    /// The bytes that each endpoint got, and how its leg ended.
    pub(crate) legs: PerEndpoint<(Vec<u8>, LegOutcome)>,
    /// The counters of each endpoint's traffic.
    pub(crate) counts: PerEndpoint<Vec<u64>>,
}

impl Scenario {
    /// The scenario that bytes describe: the first byte is the policy, the others are steps. Any bytes are a scenario.
    pub(crate) fn decode(mut bytes: &[u8]) -> Self {
        let policy = policy(take_byte(&mut bytes).unwrap_or_default());
        let steps = std::iter::from_fn(|| Step::decode(&mut bytes)).collect();
        Self { policy, steps }
    }

    /// The same without slow readers and failing writes: how much has passed before them, and how the reads of both legs
    /// interleave, depends on the size of the reads.
    pub(crate) fn with_ready_endpoints(mut self) -> Self {
        self.steps.retain(|step| !matches!(step, Step::Kill(_) | Step::Room(..)));
        self
    }

    /// Runs all steps, then lets both endpoints hang up. A read returns at most `read_size` bytes.
    ///
    /// # Panics
    ///
    /// If the session breaks a property of all sessions.
    pub(crate) fn run(&self, read_size: usize, kind: Kind) -> Run {
        let most_withheld = if self.policy.limits_frames() { MOST_WITHHELD } else { 0 };
        let mut watched = Watched { harness: Harness::new(self.policy.clone(), kind), most_withheld };
        for endpoint in Endpoint::BOTH {
            watched.harness.leg(endpoint).read_size = read_size;
        }
        for step in &self.steps {
            watched.perform(step);
            watched.check();
        }
        watched.hang_up();
        watched.finish()
    }
}

/// A session whose properties are checked after each step.
struct Watched {
    harness: Harness,
    /// How many of the bytes that were read may be withheld.
    most_withheld: usize,
}

impl Watched {
    fn perform(&mut self, step: &Step) {
        if self.harness.is_over() {
            return;
        }
        match *step {
            Step::Receive(from, ref bytes) => {
                if self.harness.reads(from) {
                    self.harness.receive(from, bytes);
                }
            }
            Step::End(endpoint, end) => self.end(endpoint, end),
            Step::Room(to, room) => self.harness.set_room(to, room),
            Step::Acknowledge(to, acknowledges) => self.harness.acknowledge(to, acknowledges),
            Step::Kill(to) => self.harness.kill(to),
            Step::Wait(time) => self.harness.wait(time),
            Step::Close => self.harness.close(CloseText::code(CloseCode(1012))),
            Step::Drain(within) => self.harness.drain(CloseText::code(CloseCode::GOING_AWAY), within),
            Step::Cut => self.harness.cut(),
        }
    }

    /// A leg that has ended by FIN can be lost later; a lost leg does not end again.
    fn end(&mut self, endpoint: Endpoint, end: LegEnd) {
        let is_lost = self.harness.leg(endpoint).is_lost;
        if !is_lost && (self.harness.reads(endpoint) || end != LegEnd::Fin) {
            self.harness.end(endpoint, end);
        }
    }

    /// Both endpoints take everything, and then hang up: that ends every session.
    fn hang_up(&mut self) {
        for endpoint in Endpoint::BOTH {
            self.perform(&Step::Acknowledge(endpoint, true));
            self.perform(&Step::Room(endpoint, usize::MAX));
        }
        for endpoint in Endpoint::BOTH {
            self.perform(&Step::End(endpoint, LegEnd::Fin));
            self.perform(&Step::Acknowledge(endpoint, true));
        }
        self.check();
        assert!(self.harness.is_over(), "both endpoints have hung up, and the session goes on");
    }

    /// The bytes written are the bytes read, up to the end, or up to closewatch's own Close frame.
    fn check(&self) {
        for to in Endpoint::BOTH {
            let (written, read) = (self.harness.written(to), self.harness.leg(to.other()).consumed.clone());
            let common = written.iter().zip(&read).take_while(|(written, read)| written == read).count();
            if common == written.len() {
                let missing = read.len() - written.len();
                let goes_on = self.harness.takes(to) && !self.harness.drops(to.other());
                assert!(!goes_on || missing <= self.most_withheld, "{missing} bytes for {to:?} are missing");
            } else {
                let is_own_close = |place: usize| {
                    ends_between_frames(&read[..place])
                        && OWN_CODES.iter().any(|code| own_close(to, *code).starts_with(&written[place..]))
                };
                let found = (0..=common).rev().take(9).any(is_own_close);
                assert!(found, "{to:?} got bytes that nobody sent: {written:x?} of {read:x?}");
            }
        }
    }

    fn finish(self) -> Run {
        let counts = self.harness.counts();
        let (summary, outcomes, legs) = self.harness.finish();
        let read = PerEndpoint::from_fn(|endpoint| legs[endpoint].sim().consumed.clone());
        let got = PerEndpoint::from_fn(|endpoint| (legs[endpoint].sim().sent.clone(), outcomes[endpoint]));
        check_ending(&summary, &read, &got);
        Run { summary, legs: got, counts }
    }
}

/// The summary of a session against the bytes that its endpoints sent and got.
fn check_ending(summary: &Summary, read: &PerEndpoint<Vec<u8>>, got: &PerEndpoint<(Vec<u8>, LegOutcome)>) {
    let ending = &summary.ending;
    let has_violations = Endpoint::BOTH.into_iter().any(|endpoint| !summary.sent[endpoint].violations.is_empty());
    for endpoint in Endpoint::BOTH {
        let (seen, own) = (&ending.seen[endpoint], first_close(endpoint, &read[endpoint]));
        let delivered = first_close(endpoint.other(), &got[endpoint].0);
        assert_eq!(summary.sent[endpoint].bytes, read[endpoint].len() as u64);
        assert_eq!(ending.received[endpoint], own);
        // After a violation, an endpoint may fail the connection.
        if !has_violations || seen.status != CloseStatus::Abnormal {
            assert_eq!(seen.status, delivered.unwrap_or(CloseStatus::Abnormal), "what {endpoint:?} saw: {summary:?}");
            assert_eq!(seen.clean, delivered.is_some() && own.is_some());
        }
        assert!(delivered.is_none() || got[endpoint].1 != LegOutcome::Reset, "an RST behind a Close frame");
    }
    let both_saw_a_code =
        Endpoint::BOTH.into_iter().all(|endpoint| ending.seen[endpoint].status != CloseStatus::Abnormal);
    match ending.initiator {
        Party::Client => assert!([ending.received.client, None].contains(&real(ending.status))),
        Party::Server => assert!([ending.received.server, None].contains(&real(ending.status))),
        Party::Proxy => {
            let is_silence = matches!(ending.fault, Some(Fault::Endpoint(_, LegFault::NoCloseReply)));
            assert!(ending.action.is_some() || is_silence);
        }
    }
    if ending.is_clean() {
        assert!(ending.received.client.is_some() && ending.received.server.is_some());
        assert!(ending.initiator == Party::Proxy || both_saw_a_code || has_violations);
    }
}

/// A status that was on the wire.
fn real(status: CloseStatus) -> Option<CloseStatus> {
    Some(status).filter(|status| *status != CloseStatus::Abnormal)
}

/// closewatch's own Close frame to an endpoint.
fn own_close(to: Endpoint, code: u16) -> Vec<u8> {
    CloseText::code(CloseCode(code)).encode((to == Endpoint::Server).then_some([1, 2, 3, 4]))
}

/// The first Close frame in a stream, by the rules for the frames that count as one.
fn first_close(sender: Endpoint, mut bytes: &[u8]) -> Option<CloseStatus> {
    let mut decoder = FrameDecoder::new();
    let mut conformance = Conformance::new(sender, Extensions::None);
    let mut payload = Vec::new();
    while let Some(item) = decoder.decode(&mut bytes) {
        let complete = match item {
            Item::Header(header) => {
                conformance.frame(&header);
                payload.clear();
                (header.payload_len == 0).then_some(header)
            }
            Item::ControlPayload { header, bytes, last, .. } => {
                payload.extend_from_slice(bytes);
                last.then_some(header)
            }
        };
        if let Some(header) = complete.filter(|header| header.opcode == Opcode::Close) {
            unmask(&mut payload, header.mask.unwrap_or_default(), 0);
            if let Some(taken) = conformance.close(&header, &payload).taken {
                return Some(taken.status);
            }
        }
    }
    None
}

fn ends_between_frames(mut bytes: &[u8]) -> bool {
    let mut decoder = FrameDecoder::new();
    while decoder.decode(&mut bytes).is_some() {}
    decoder.at_boundary()
}

/// The policy that the bits of a byte describe.
fn policy(bits: u8) -> Policy {
    let bit = |place: u8| bits & 1 << place != 0;
    let reported = |code| Some(CloseText::code(CloseCode(code)));
    Policy {
        idle: bit(0).then_some(Duration::from_mins(1)),
        max_age: bit(1).then_some(Duration::from_secs(100)),
        close: (!bit(2)).then_some(Duration::from_secs(65)),
        hang_up: (!bit(3)).then_some(Duration::from_secs(2)),
        frame_bytes: bit(4).then_some(20),
        message_bytes: bit(5).then_some(30),
        buffer_bytes: usize::MAX,
        on_loss: PerEndpoint { client: reported(1001).filter(|_| bit(6)), server: reported(1014).filter(|_| bit(7)) },
    }
}

impl Step {
    /// The next step of a description: a byte for the event and its endpoint, and for some events one for how much.
    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let kind = take_byte(bytes)?;
        let endpoint = if kind & 1 == 0 { Endpoint::Client } else { Endpoint::Server };
        Some(match kind >> 1 & 0x0f {
            0 => Self::Receive(endpoint, take(bytes)),
            1 | 2 => Self::Receive(endpoint, close_frame(endpoint, bytes)),
            3 => Self::Receive(endpoint, data_frame(endpoint, bytes)),
            4 => Self::End(endpoint, LegEnd::Fin),
            5 => Self::End(endpoint, LegEnd::Reset),
            6 => Self::End(endpoint, LegEnd::Timeout),
            7 => Self::Room(endpoint, take_byte(bytes)?.into()),
            8 => Self::Room(endpoint, usize::MAX),
            9 => Self::Acknowledge(endpoint, false),
            10 => Self::Acknowledge(endpoint, true),
            11 => Self::Kill(endpoint),
            12 => Self::Wait(Duration::from_secs(take_byte(bytes)?.into())),
            13 => Self::Close,
            14 => Self::Drain(Duration::from_secs(take_byte(bytes)?.into())),
            _ => Self::Cut,
        })
    }
}

fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    bytes.split_off_first().copied()
}

/// As many bytes as the next byte says, or all that are left.
fn take(bytes: &mut &[u8]) -> Vec<u8> {
    let count = take_byte(bytes).unwrap_or_default();
    let (taken, rest) = bytes.split_at(bytes.len().min(count.into()));
    *bytes = rest;
    taken.to_vec()
}

/// A Close frame, or the start of one: the next byte says which code, and where it ends.
fn close_frame(sender: Endpoint, bytes: &mut &[u8]) -> Vec<u8> {
    let choice = take_byte(bytes).unwrap_or_default();
    let payload: &[u8] = match choice & 3 {
        0 => &[],
        1 => &1006_u16.to_be_bytes(),
        _ => &1000_u16.to_be_bytes(),
    };
    let mut frame = encoded(sender, Opcode::Close, payload);
    if choice & 4 != 0 {
        frame.truncate(usize::from(choice >> 3) % frame.len());
    }
    frame
}

fn data_frame(sender: Endpoint, bytes: &mut &[u8]) -> Vec<u8> {
    encoded(sender, Opcode::Text, &take(bytes))
}

/// A frame as its sender should write it.
pub(crate) fn encoded(sender: Endpoint, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(true, opcode, (sender == Endpoint::Client).then_some([9, 8, 7, 6]), payload, &mut bytes);
    bytes
}
