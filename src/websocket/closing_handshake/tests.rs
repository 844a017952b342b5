//! The closing handshake in every order in which its events can come, against the rules of the interface's section 2
//! told another way: as what holds of the whole list of events. Rows by hand stand with the session's tests.

use super::{
    super::{
        Endpoint::{self, Client, Server},
        close_code::{CloseCode, CloseStatus},
    },
    Action, Cause, CloseFrame, ClosingHandshake, Ending, Party,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// An endpoint's Close frame is read.
    Sent(Endpoint),
    /// The other endpoint's Close frame is delivered to this one.
    Delivered(Endpoint),
    /// closewatch puts its Close frame in.
    PutIn,
    /// It is delivered to this endpoint.
    PutInDelivered(Endpoint),
    /// An endpoint's leg ends by FIN.
    Fin(Endpoint),
    /// An endpoint's leg is lost, perhaps after its FIN.
    Reset(Endpoint),
    /// `timeouts.close` has passed.
    TimedOut,
    /// closewatch ends both legs.
    Cut,
}

use Event::{Cut, Delivered, Fin, PutIn, PutInDelivered, Reset, Sent, TimedOut};

const EVENTS: [Event; 13] = [
    Sent(Client),
    Sent(Server),
    Delivered(Client),
    Delivered(Server),
    PutIn,
    PutInDelivered(Client),
    PutInDelivered(Server),
    Fin(Client),
    Fin(Server),
    Reset(Client),
    Reset(Server),
    TimedOut,
    Cut,
];

/// What has happened so far.
#[derive(Debug, Clone, Default)]
struct Story(Vec<Event>);

impl Story {
    fn has(&self, event: Event) -> bool {
        self.0.contains(&event)
    }

    fn ended(&self, endpoint: Endpoint) -> bool {
        self.has(Fin(endpoint)) || self.has(Reset(endpoint))
    }

    /// Whether this can happen next. Each event happens once.
    fn allows(&self, event: Event) -> bool {
        let is_last = self.has(TimedOut) || self.has(Cut);
        !is_last
            && !self.has(event)
            && match event {
                Sent(from) | Fin(from) => !self.ended(from),
                Delivered(to) => self.has(Sent(to.other())) && !self.has(Reset(to)) && !self.has(PutInDelivered(to)),
                // A session that is closing gets no Close frame of closewatch's, but to tell of the loss that came first.
                PutIn => matches!(self.0[..], [] | [Fin(_) | Reset(_)]),
                PutInDelivered(to) => self.has(PutIn) && !self.has(Reset(to)) && !self.has(Delivered(to)),
                TimedOut => self.has(Sent(Client)) || self.has(Sent(Server)),
                Reset(_) | Cut => true,
            }
    }

    fn ending(&self) -> Ending {
        let mut closing = ClosingHandshake::default();
        for event in &self.0 {
            match *event {
                Sent(from) => closing.close_received(from, frame(from.into())),
                Delivered(to) => closing.close_delivered(to),
                PutIn => closing.close_put_in(Action::Control, frame(Party::Proxy)),
                PutInDelivered(to) => closing.put_in_delivered(to),
                Fin(endpoint) => closing.leg_ended(endpoint, Cause::Eof),
                Reset(endpoint) => closing.leg_ended(endpoint, Cause::Reset),
                TimedOut => closing.close_timed_out(),
                Cut => closing.cut(Action::Drain),
            }
        }
        closing.into_ending()
    }

    /// What came first: whose, and whether it was a Close frame.
    fn first(&self) -> (Party, bool) {
        match self.0.first() {
            Some(&Sent(endpoint)) => (endpoint.into(), true),
            Some(&(Fin(endpoint) | Reset(endpoint))) => (endpoint.into(), false),
            Some(PutIn) => (Party::Proxy, true),
            _ => (Party::Proxy, false),
        }
    }

    fn is_clean(&self) -> bool {
        let both = |event: fn(Endpoint) -> Event| self.has(event(Client)) && self.has(event(Server));
        match self.first() {
            (_, false) => false,
            (Party::Proxy, true) => both(Sent),
            (_, true) => both(Sent) && both(Delivered),
        }
    }

    /// Whether both Close frames can still be sent and be delivered.
    fn can_be_clean(&self) -> bool {
        Endpoint::BOTH.into_iter().all(|endpoint| {
            (self.has(Sent(endpoint)) || !self.ended(endpoint))
                && (self.has(Delivered(endpoint)) || !self.has(Reset(endpoint)))
        })
    }

    /// Who is at fault in a session that is not clean.
    fn cause(&self) -> (Party, Cause) {
        match self.first() {
            (Party::Proxy, true) => (Party::Proxy, Cause::Proxy(Action::Control)),
            (Party::Proxy, false) => (Party::Proxy, Cause::Proxy(Action::Drain)),
            (_, true) if self.has(Cut) => (Party::Proxy, Cause::Proxy(Action::Drain)),
            (first, _) => self.culprit().unwrap_or_else(|| self.silent(first)),
        }
    }

    /// The first end of a leg behind which the session cannot be clean any more.
    fn culprit(&self) -> Option<(Party, Cause)> {
        let stories = (1..=self.0.len()).map(|count| Self(self.0[..count].to_vec()));
        let story = stories.into_iter().find(|story| !story.can_be_clean())?;
        match *story.0.last()? {
            Fin(endpoint) => Some((endpoint.into(), Cause::Eof)),
            Reset(endpoint) => Some((endpoint.into(), Cause::Reset)),
            _ => None,
        }
    }

    /// Nobody's leg is at fault: who has kept the others waiting, if the time was up, or else closewatch let go.
    fn silent(&self, first: Party) -> (Party, Cause) {
        if !self.has(TimedOut) {
            return (Party::Proxy, Cause::Proxy(Action::Drain));
        }
        let sender = if first == Client.into() { Client } else { Server };
        let peer = sender.other();
        let is_even = self.has(Sent(peer)) && self.has(Delivered(peer));
        (if is_even { sender } else { peer }.into(), Cause::NoCloseReply)
    }

    /// What closewatch did to the session first.
    fn action(&self) -> Option<Action> {
        let let_go = !self.is_clean() && (self.has(Cut) || self.cause().0 == Party::Proxy);
        if self.has(PutIn) { Some(Action::Control) } else { let_go.then_some(Action::Drain) }
    }

    fn check(&self) {
        let ending = self.ending();
        let (first, is_close) = self.first();
        let status = if is_close { frame(first).status } else { CloseStatus::Abnormal };
        assert_eq!((ending.status, ending.initiator), (status, first), "{self:?}");
        assert_eq!(ending.clean, self.is_clean(), "{self:?}");
        assert_eq!(ending.cause, (!self.is_clean()).then(|| self.cause()), "{self:?}");
        assert_eq!(ending.action, self.action(), "{self:?}");
        for endpoint in Endpoint::BOTH {
            self.check_seen(&ending, endpoint);
        }
    }

    fn check_seen(&self, ending: &Ending, endpoint: Endpoint) {
        let status = match (self.has(Delivered(endpoint)), self.has(PutInDelivered(endpoint))) {
            (true, _) => frame(endpoint.other().into()).status,
            (_, true) => frame(Party::Proxy).status,
            _ => CloseStatus::Abnormal,
        };
        let seen = &ending.seen[endpoint];
        assert_eq!(seen.status, status, "{self:?}");
        assert_eq!(seen.clean, status != CloseStatus::Abnormal && self.has(Sent(endpoint)), "{self:?}");
        let own = self.has(Sent(endpoint)).then(|| frame(endpoint.into()).status);
        assert_eq!(ending.received[endpoint], own, "{self:?}");
    }
}

/// A Close frame that tells whose it is.
fn frame(party: Party) -> CloseFrame {
    let code = match party {
        Party::Client => 1000,
        Party::Server => 1001,
        Party::Proxy => 1012,
    };
    CloseFrame { status: CloseStatus::Sent(CloseCode(code)), reason: party.as_str().to_owned() }
}

/// Checks this story and all that can follow; says how many.
fn check_all(story: &Story) -> usize {
    story.check();
    let next = EVENTS.into_iter().filter(|event| story.allows(*event));
    1 + next.map(|event| check_all(&Story([&story.0[..], &[event]].concat()))).sum::<usize>()
}

#[test]
fn every_order_of_events_is_told_by_the_rules() {
    assert!(check_all(&Story::default()) > 10_000);
}

/// Whoever adds a cause is led here by the compiler: it has its place in the list, too.
#[test]
fn every_cause_of_an_endpoint_is_listed() {
    let place = |cause| match cause {
        Cause::Eof => 0,
        Cause::Truncated => 1,
        Cause::Reset => 2,
        Cause::Timeout => 3,
        Cause::Unreachable => 4,
        Cause::Tls => 5,
        Cause::NoCloseReply => 6,
        Cause::Proxy(_) => 7,
    };
    assert_eq!(Cause::OF_ENDPOINTS.map(place), [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn every_action_is_listed() {
    let place = |action| match action {
        Action::IdleTimeout => 0,
        Action::MaxAge => 1,
        Action::Limit => 2,
        Action::Drain => 3,
        Action::Control => 4,
        Action::ServerLoss => 5,
        Action::ClientLoss => 6,
    };
    assert_eq!(Action::ALL.map(place), [0, 1, 2, 3, 4, 5, 6]);
}
