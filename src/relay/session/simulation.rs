//! A session between two legs that are no sockets: what the tests and the fuzz targets watch it in.
//!
//! It does what the owner of the sockets does, and stops where that could not go on: a byte written behind a FIN, a
//! [`Session::poll`] that never ends, a timer that comes due again and again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Command, Session, Summary};
use crate::{
    metrics::Traffic,
    relay::{LegEnd, Policy},
    websocket::{Endpoint, PerEndpoint, close_code::CloseText, closing_handshake::Action, conformance::Extensions},
};

/// More commands than any one event can ask for: two Close frames, a FIN or RST for each leg, the end.
const MOST_COMMANDS: usize = 5;

/// Where [`Session::new`] takes the masking key from; its fifth byte, 0, is what `max_age` is spread by.
const RANDOM: u64 = 0x0403_0201;

/// A session, its legs, and the time.
pub(crate) struct Simulation {
    session: Session,
    traffic: Traffic,
    now: Instant,
    legs: PerEndpoint<Leg>,
    is_over: bool,
}

/// The leg of one endpoint, as it looks from there.
#[derive(Debug, Default)]
pub(crate) struct Leg {
    /// What its kernel accepted.
    pub(crate) accepted: Vec<u8>,
    /// What its kernel does not accept yet.
    pub(crate) waiting: Vec<u8>,
    /// closewatch's own Close frame, and how many bytes were written before it.
    pub(crate) put: Option<(usize, Vec<u8>)>,
    pub(crate) state: LegState,
    /// How many bytes its kernel accepts now.
    room: usize,
    /// Whether it leaves what it accepted unacknowledged.
    is_unacknowledged: bool,
    death: Death,
    /// It is to be reset.
    is_resetting: bool,
}

/// Whether an RST has come that only a write will meet.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Death {
    #[default]
    Alive,
    /// The next write will meet it.
    Unknown,
    /// A write has met it.
    Met,
}

/// What became of a leg.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LegState {
    #[default]
    Open,
    /// closewatch sent FIN.
    Finished,
    /// closewatch sent RST.
    Reset,
    /// The endpoint, or the network, ended it.
    Lost,
    /// closewatch let go of it at the end of the session, without a FIN of its own before.
    Cut,
}

impl Leg {
    /// All that was written to it, be it accepted yet or not.
    pub(crate) fn written(&self) -> Vec<u8> {
        [&self.accepted[..], &self.waiting].concat()
    }

    /// Whether what is written to it still gets there.
    pub(crate) fn takes(&self) -> bool {
        self.state == LegState::Open && self.death != Death::Met
    }
}

impl Simulation {
    /// A session that was opened just now, and whose legs accept everything.
    pub(crate) fn new(policy: Policy) -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(Arc::new(policy), Extensions::None, now, RANDOM),
            traffic: Traffic::alone(),
            now,
            legs: PerEndpoint::from_fn(|_| Leg { room: usize::MAX, ..Leg::default() }),
            is_over: false,
        }
    }

    pub(crate) fn leg(&self, endpoint: Endpoint) -> &Leg {
        &self.legs[endpoint]
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether an endpoint can still send, and end its leg by FIN.
    pub(crate) fn reads(&self, from: Endpoint) -> bool {
        !self.is_over && self.session.reads(from)
    }

    /// Bytes come from an endpoint, in pieces of a size.
    pub(crate) fn receive(&mut self, from: Endpoint, bytes: &[u8], piece: usize) {
        assert!(self.reads(from), "nobody reads {from:?} any more");
        for piece in bytes.chunks(piece) {
            let passage = self.session.receive(from, piece, self.now, &self.traffic[from]);
            self.write(from.other(), passage.held.as_slice());
            self.write(from.other(), &piece[..passage.keep]);
        }
        self.obey();
    }

    /// An endpoint's leg ends.
    pub(crate) fn end(&mut self, endpoint: Endpoint, end: LegEnd) {
        let passage = self.session.ended(endpoint, end, self.now);
        if end != LegEnd::Fin {
            let leg = &mut self.legs[endpoint];
            leg.waiting.clear();
            leg.state = LegState::Lost;
        }
        self.write(endpoint.other(), passage.held.as_slice());
        self.obey();
    }

    /// An endpoint's kernel accepts so many bytes more, or none from now on.
    pub(crate) fn set_room(&mut self, to: Endpoint, room: usize) {
        self.legs[to].room = room;
        self.flush(to);
        self.obey();
    }

    /// An endpoint acknowledges what its kernel accepted, or does not.
    pub(crate) fn acknowledge(&mut self, to: Endpoint, acknowledges: bool) {
        self.legs[to].is_unacknowledged = !acknowledges;
        self.reset_acknowledged(to);
        self.obey();
    }

    /// The next write to an endpoint meets an RST.
    pub(crate) fn kill(&mut self, to: Endpoint) {
        let death = &mut self.legs[to].death;
        if *death == Death::Alive {
            *death = Death::Unknown;
        }
    }

    /// Whether a write to an endpoint has met an RST.
    pub(crate) fn is_broken(&self, to: Endpoint) -> bool {
        self.legs[to].death == Death::Met
    }

    pub(crate) fn close(&mut self, action: Action, text: CloseText) {
        self.session.close(action, text, self.now);
        self.obey();
    }

    pub(crate) fn drain(&mut self, text: CloseText, within: Duration) {
        self.session.drain(text, self.now + within, self.now);
        self.obey();
    }

    pub(crate) fn cut(&mut self) {
        self.session.cut(Action::Drain, self.now);
        self.obey();
    }

    /// Time passes: the session is woken when it asks for it, and once too early.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.session.deadline().filter(|deadline| *deadline <= end && !self.is_over) {
            self.now = self.now.max(deadline);
            self.wake();
            assert!(self.is_over || self.session.deadline() != Some(deadline), "the timer comes due again and again");
        }
        self.now = end;
        self.wake();
    }

    /// What was counted of what each endpoint sent.
    pub(crate) fn counts(&self) -> PerEndpoint<Vec<u64>> {
        self.traffic.counts()
    }

    /// What is told of the session.
    pub(crate) fn finish(self) -> (Summary, PerEndpoint<Leg>) {
        (self.session.finish(self.now), self.legs)
    }

    fn wake(&mut self) {
        self.session.wake(self.now);
        self.obey();
    }

    fn write(&mut self, to: Endpoint, bytes: &[u8]) {
        let leg = &mut self.legs[to];
        if bytes.is_empty() || leg.death == Death::Met {
            return;
        }
        assert_eq!(leg.state, LegState::Open, "nothing can be written to {to:?} any more");
        leg.waiting.extend_from_slice(bytes);
        self.flush(to);
    }

    fn flush(&mut self, to: Endpoint) {
        let leg = &mut self.legs[to];
        let count = leg.room.min(leg.waiting.len());
        if count == 0 {
            return;
        }
        if leg.death == Death::Unknown {
            leg.death = Death::Met;
            leg.waiting.clear();
            self.session.found_dead(to, self.now);
            return;
        }
        leg.accepted.extend(leg.waiting.drain(..count));
        leg.room -= count;
        self.session.written(to, count, self.now);
    }

    /// Carries out what the session says.
    fn obey(&mut self) {
        if self.is_over {
            return;
        }
        for _ in 0..=MOST_COMMANDS {
            let Some(command) = self.session.poll(self.now) else { return };
            match command {
                Command::PutClose(to, bytes) => self.put_close(to, &bytes),
                Command::Finish(to) => self.end_writing(to).state = LegState::Finished,
                Command::Reset(to) => {
                    let leg = &mut self.legs[to];
                    assert!(leg.takes() || leg.state == LegState::Finished, "{to:?} cannot be reset here: {leg:?}");
                    assert!(leg.waiting.is_empty(), "a reset of {to:?} loses bytes: {leg:?}");
                    leg.is_resetting = true;
                    self.reset_acknowledged(to);
                }
                Command::Over => return self.let_go(),
            }
        }
        panic!("the session asks for more and more");
    }

    fn put_close(&mut self, to: Endpoint, bytes: &[u8]) {
        let leg = &mut self.legs[to];
        assert_eq!(leg.put, None, "a second Close frame for {to:?}");
        leg.put = Some((leg.written().len(), bytes.to_vec()));
        self.write(to, bytes);
    }

    fn end_writing(&mut self, to: Endpoint) -> &mut Leg {
        let leg = &mut self.legs[to];
        assert!(leg.takes() && leg.waiting.is_empty(), "the writing to {to:?} cannot end here: {leg:?}");
        leg
    }

    fn reset_acknowledged(&mut self, to: Endpoint) {
        let leg = &mut self.legs[to];
        let stands = matches!(leg.state, LegState::Open | LegState::Finished);
        if leg.is_resetting && !leg.is_unacknowledged && stands {
            leg.state = LegState::Reset;
            self.session.reset_done(to);
        }
    }

    fn let_go(&mut self) {
        self.is_over = true;
        for endpoint in Endpoint::BOTH {
            let resets = self.session.ends_by_reset(endpoint);
            let leg = &mut self.legs[endpoint];
            leg.waiting.clear();
            if leg.state == LegState::Open {
                leg.state = if resets { LegState::Reset } else { LegState::Cut };
            }
        }
    }
}
