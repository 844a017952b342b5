//! What may happen to a session, in any order, and what must hold of it whatever does.

use std::time::Duration;

use super::{
    Summary,
    simulation::{Leg, LegState, Simulation},
};
use crate::{
    relay::{LegEnd, Policy},
    websocket::{
        Endpoint, PerEndpoint,
        close_code::{CloseCode, CloseStatus, CloseText},
        closing_handshake::{Action, Party},
        conformance::{Conformance, Extensions},
        decoder::{FrameDecoder, Item},
        frame::{self, Opcode, unmask},
    },
};

/// The longest that a header can be held back for.
const MOST_HELD: usize = 13;

/// Something that happens to a session. What cannot happen any more is passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// An endpoint's bytes are read.
    Receive(Endpoint, Vec<u8>),
    /// An endpoint's leg ends.
    End(Endpoint, LegEnd),
    /// An endpoint's kernel accepts so many bytes more, and then none.
    Room(Endpoint, usize),
    /// An endpoint acknowledges what it is sent, or no longer does.
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
pub(crate) struct Schedule {
    pub(crate) policy: Policy,
    pub(crate) steps: Vec<Step>,
}

/// How a schedule went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) summary: Summary,
    /// What each endpoint's kernel accepted, and what became of its leg.
    pub(crate) legs: PerEndpoint<(Vec<u8>, LegState)>,
    /// What was counted of what each sent.
    pub(crate) counts: PerEndpoint<Vec<u64>>,
}

impl Schedule {
    /// A schedule that bytes describe: the first one the policy, then step by step. Any bytes are some schedule.
    pub(crate) fn read(mut bytes: &[u8]) -> Self {
        let policy = policy(take_byte(&mut bytes).unwrap_or_default());
        let steps = std::iter::from_fn(|| Step::read(&mut bytes)).collect();
        Self { policy, steps }
    }

    /// The same without writes that fail: how much had passed before them would depend on the pieces.
    pub(crate) fn without_failing_writes(mut self) -> Self {
        self.steps.retain(|step| !matches!(step, Step::Kill(_)));
        self
    }

    /// Runs all steps, then lets both endpoints hang up. What is read comes in pieces of at most `piece` bytes.
    ///
    /// # Panics
    ///
    /// Where the session does what no session may.
    pub(crate) fn run(&self, piece: usize) -> Run {
        let mut watched = Watched {
            simulation: Simulation::new(self.policy.clone()),
            sent: PerEndpoint::default(),
            most_held: if self.policy.limits_frames() { MOST_HELD } else { 0 },
        };
        for step in &self.steps {
            watched.perform(step, piece);
            watched.check();
        }
        watched.hang_up();
        watched.finish()
    }
}

/// A session, and what its endpoints have sent.
struct Watched {
    simulation: Simulation,
    sent: PerEndpoint<Vec<u8>>,
    /// How much of what was sent may be held back.
    most_held: usize,
}

impl Watched {
    fn perform(&mut self, step: &Step, piece: usize) {
        if self.simulation.is_over() {
            return;
        }
        match *step {
            Step::Receive(from, ref bytes) => {
                if self.simulation.reads(from) {
                    self.sent[from].extend_from_slice(bytes);
                    self.simulation.receive(from, bytes, piece);
                }
            }
            Step::End(endpoint, end) => self.end(endpoint, end),
            Step::Room(to, room) => self.simulation.set_room(to, room),
            Step::Acknowledge(to, acknowledges) => self.simulation.acknowledge(to, acknowledges),
            Step::Kill(to) => self.simulation.kill(to),
            Step::Wait(time) => self.simulation.wait(time),
            Step::Close => self.simulation.close(Action::Control, CloseText::code(CloseCode(1012))),
            Step::Drain(within) => self.simulation.drain(CloseText::code(CloseCode::GOING_AWAY), within),
            Step::Cut => self.simulation.cut(),
        }
    }

    fn end(&mut self, endpoint: Endpoint, end: LegEnd) {
        // A leg that a write found dead ends by nothing else; one that has ended by FIN can be found dead only later.
        let end = if self.simulation.is_broken(endpoint) { LegEnd::Reset } else { end };
        if self.simulation.reads(endpoint) || end != LegEnd::Fin {
            self.simulation.end(endpoint, end);
        }
    }

    /// Both endpoints take everything, and then hang up: that ends every session.
    fn hang_up(&mut self) {
        for endpoint in Endpoint::BOTH {
            self.perform(&Step::Acknowledge(endpoint, true), usize::MAX);
            self.perform(&Step::Room(endpoint, usize::MAX), usize::MAX);
        }
        for endpoint in Endpoint::BOTH {
            self.perform(&Step::End(endpoint, LegEnd::Fin), usize::MAX);
        }
        self.check();
        assert!(self.simulation.is_over(), "both endpoints have hung up, and the session goes on");
    }

    /// What was written is what was sent, up to where it ends or closewatch's own Close frame stands.
    fn check(&self) {
        for to in Endpoint::BOTH {
            let (leg, sent) = (self.simulation.leg(to), &self.sent[to.other()]);
            let written = leg.written();
            let Some((place, close)) = &leg.put else {
                assert!(sent.starts_with(&written), "{to:?} got what nobody sent: {written:x?} of {sent:x?}");
                let missing = sent.len() - written.len();
                let goes_on = leg.takes() && !self.simulation.is_over();
                assert!(!goes_on || missing <= self.most_held, "{missing} bytes for {to:?} are missing");
                continue;
            };
            let (before, behind) = written.split_at(written.len().min(*place));
            assert!(sent.starts_with(before), "{to:?} got what nobody sent");
            assert!(close.starts_with(behind), "{to:?} got more than a Close frame");
            assert!(ends_between_frames(&sent[..*place]), "{to:?} got a Close frame inside a frame");
        }
    }

    fn finish(self) -> Run {
        let counts = self.simulation.counts();
        let (summary, legs) = self.simulation.finish();
        check_ending(&summary, &self.sent, &legs);
        let legs = PerEndpoint::from_fn(|endpoint| (legs[endpoint].accepted.clone(), legs[endpoint].state));
        Run { summary, legs, counts }
    }
}

/// What is told of a session against what its endpoints sent and got.
fn check_ending(summary: &Summary, sent: &PerEndpoint<Vec<u8>>, legs: &PerEndpoint<Leg>) {
    let ending = &summary.ending;
    assert_eq!(ending.clean, ending.cause.is_none());
    for endpoint in Endpoint::BOTH {
        let (seen, own) = (&ending.seen[endpoint], first_close(endpoint, &sent[endpoint]));
        let got = first_close(endpoint.other(), &legs[endpoint].accepted);
        assert_eq!(summary.sent[endpoint].bytes, sent[endpoint].len() as u64);
        assert_eq!(ending.received[endpoint], own);
        assert_eq!(seen.status, got.unwrap_or(CloseStatus::Abnormal), "what {endpoint:?} saw: {summary:?}");
        assert_eq!(seen.clean, got.is_some() && own.is_some());
        assert!(got.is_none() || legs[endpoint].state != LegState::Reset, "an RST behind a Close frame");
    }
    let both = |holds: fn(&CloseStatus) -> bool| {
        Endpoint::BOTH.into_iter().all(|endpoint| holds(&ending.seen[endpoint].status))
    };
    match ending.initiator {
        Party::Client => assert!([ending.received.client, None].contains(&real(ending.status))),
        Party::Server => assert!([ending.received.server, None].contains(&real(ending.status))),
        Party::Proxy => assert!(ending.action.is_some()),
    }
    if ending.clean {
        assert!(ending.received.client.is_some() && ending.received.server.is_some());
        assert!(ending.initiator == Party::Proxy || both(|status| *status != CloseStatus::Abnormal));
    }
}

/// A status that stood on the wire.
fn real(status: CloseStatus) -> Option<CloseStatus> {
    Some(status).filter(|status| *status != CloseStatus::Abnormal)
}

/// The first Close frame in all that an endpoint sent, by the rules for what is taken for one.
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
    let told = |code| Some(CloseText::code(CloseCode(code)));
    Policy {
        idle: bit(0).then_some(Duration::from_mins(1)),
        max_age: bit(1).then_some(Duration::from_secs(100)),
        close: (!bit(2)).then_some(Duration::from_secs(65)),
        hang_up: (!bit(3)).then_some(Duration::from_secs(2)),
        frame_bytes: bit(4).then_some(20),
        message_bytes: bit(5).then_some(30),
        buffer_bytes: usize::MAX,
        on_loss: PerEndpoint { client: told(1001).filter(|_| bit(6)), server: told(1014).filter(|_| bit(7)) },
    }
}

impl Step {
    /// The next step in a description: a byte that says what happens to whom, and for some one that says how much.
    fn read(bytes: &mut &[u8]) -> Option<Self> {
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

/// As many bytes as the next one says, or all that are left.
fn take(bytes: &mut &[u8]) -> Vec<u8> {
    let count = take_byte(bytes).unwrap_or_default();
    let (taken, rest) = bytes.split_at(bytes.len().min(count.into()));
    *bytes = rest;
    taken.to_vec()
}

/// A Close frame, or the beginning of one: the next byte says which code, and where it ends.
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
