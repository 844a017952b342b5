//! The closing handshake in every order in which its events can come, against the rules stated another way: as
//! properties of the whole list of events. Rows written by hand are in the table of endings.

use super::{
    super::{
        Endpoint::{self, Client, Server},
        PerEndpoint,
        close_code::{CloseCode, CloseStatus},
    },
    Action, CloseFrame, ClosingHandshake, Ending, Fault, LegFault, Party, ReceivedClose,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// A Close frame of this endpoint is read.
    Sent(Endpoint),
    /// The other endpoint's Close frame is delivered to this one.
    Delivered(Endpoint),
    /// closewatch injects its Close frame.
    Inject,
    /// That frame is delivered to this endpoint.
    InjectedDelivered(Endpoint),
    /// An endpoint's leg ends by FIN.
    Fin(Endpoint),
    /// An endpoint's leg is lost, perhaps after its FIN.
    Reset(Endpoint),
    /// `timeouts.close` has passed.
    TimedOut,
    /// closewatch terminates both legs.
    Cut,
}

use Event::{Cut, Delivered, Fin, Inject, InjectedDelivered, Reset, Sent, TimedOut};

const EVENTS: [Event; 13] = [
    Sent(Client),
    Sent(Server),
    Delivered(Client),
    Delivered(Server),
    Inject,
    InjectedDelivered(Client),
    InjectedDelivered(Server),
    Fin(Client),
    Fin(Server),
    Reset(Client),
    Reset(Server),
    TimedOut,
    Cut,
];

/// What holds for the whole of a story.
#[derive(Debug, Clone, Copy, Default)]
struct Setting {
    /// The client's Close frame comes after its own violation.
    is_provisional: bool,
    /// The code of the server's Close frame; the client's is 1000.
    server_code: u16,
    /// Neither endpoint reads, so the other's bytes wait unread when the time is up.
    is_held_back: bool,
}

/// The events so far.
#[derive(Debug, Clone, Default)]
struct Story(Setting, Vec<Event>);

impl Story {
    fn has(&self, event: Event) -> bool {
        self.1.contains(&event)
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
                Delivered(to) => self.has(Sent(to.other())) && !self.has(Reset(to)) && !self.has(InjectedDelivered(to)),
                // A closing session gets no Close frame of closewatch, except one that reports the loss that came first.
                Inject => matches!(self.1[..], [] | [Fin(_) | Reset(_)]),
                InjectedDelivered(to) => self.has(Inject) && !self.has(Reset(to)) && !self.has(Delivered(to)),
                TimedOut => self.has(Sent(Client)) || self.has(Sent(Server)),
                Reset(_) | Cut => true,
            }
    }

    fn ending(&self) -> Ending {
        let mut closing = ClosingHandshake::default();
        for event in &self.1 {
            match *event {
                Sent(from) => closing.close_received(from, self.close(from)),
                Delivered(to) => closing.close_delivered(to),
                Inject => closing.close_injected(Action::Control, self.frame(Party::Proxy)),
                InjectedDelivered(to) => closing.injected_delivered(to),
                Fin(endpoint) => closing.leg_ended(endpoint, LegFault::Eof),
                Reset(endpoint) => closing.leg_ended(endpoint, LegFault::Reset),
                TimedOut => closing.close_timed_out(PerEndpoint::from_fn(|_| self.0.is_held_back)),
                Cut => closing.cut(Action::Drain),
            }
        }
        closing.into_ending()
    }

    /// An endpoint's Close frame.
    fn close(&self, from: Endpoint) -> ReceivedClose {
        let is_provisional = from == Client && self.0.is_provisional;
        let fails_connection = from == Server && self.fails_connection();
        ReceivedClose { frame: self.frame(from.into()), is_provisional, fails_connection }
    }

    /// Whether the server's Close frame says that the client's violation failed the connection.
    fn fails_connection(&self) -> bool {
        self.0.is_provisional && self.0.server_code == 1002
    }

    /// A Close frame whose reason names its sender.
    fn frame(&self, party: Party) -> CloseFrame {
        let code = match party {
            Party::Client => 1000,
            Party::Server => self.0.server_code,
            Party::Proxy => 1012,
        };
        CloseFrame { status: CloseStatus::Sent(CloseCode(code)), reason: party.as_str().to_owned() }
    }

    /// The party of the first event, and whether that was a Close frame.
    fn first(&self) -> (Party, bool) {
        match self.1.first() {
            Some(Sent(Client)) if self.0.is_provisional => self.first_after_provisional(),
            Some(&Sent(endpoint)) => (endpoint.into(), true),
            Some(&(Fin(endpoint) | Reset(endpoint))) => (endpoint.into(), false),
            Some(Inject) => (Party::Proxy, true),
            _ => (Party::Proxy, false),
        }
    }

    /// The server's Close frame decides if the client's counts, unless a leg or closewatch ended the session before.
    fn first_after_provisional(&self) -> (Party, bool) {
        let decides = |event: &&Event| !matches!(event, Sent(Client) | Delivered(_) | InjectedDelivered(_));
        match self.1.iter().find(decides) {
            Some(Sent(Server)) if self.0.server_code == 1000 => (Party::Client, true),
            Some(Sent(Server)) => (Party::Server, true),
            Some(&(Fin(endpoint) | Reset(endpoint))) => (endpoint.into(), false),
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

    /// The fault of a session that is not clean.
    fn fault(&self) -> Fault {
        match self.first() {
            (Party::Proxy, true) => Fault::Proxy(Action::Control),
            (Party::Proxy, false) if self.has(TimedOut) => self.silent(Client),
            (Party::Proxy, false) => Fault::Proxy(Action::Drain),
            (_, true) if self.has(Cut) => Fault::Proxy(Action::Drain),
            (_, false) => self.1.iter().copied().find_map(leg_fault).unwrap(),
            (first, _) => self.culprit().unwrap_or_else(|| self.fault_without_culprit(first)),
        }
    }

    /// The first end of a leg behind which the session cannot be clean any more.
    fn culprit(&self) -> Option<Fault> {
        let stories = (1..=self.1.len()).map(|count| Self(self.0, self.1[..count].to_vec()));
        let story = stories.into_iter().find(|story| !story.can_be_clean())?;
        leg_fault(*story.1.last()?)
    }

    /// No leg is at fault: the endpoint that kept the others waiting, if the time was up, else closewatch released it.
    fn fault_without_culprit(&self, first: Party) -> Fault {
        if !self.has(TimedOut) {
            return Fault::Proxy(Action::Drain);
        }
        self.silent(if first == Client.into() { Client } else { Server })
    }

    fn silent(&self, sender: Endpoint) -> Fault {
        let peer = sender.other();
        let has_taken = self.has(Delivered(peer)) || self.has(InjectedDelivered(peer));
        let is_sender = has_taken && (self.has(Sent(peer)) || self.0.is_held_back);
        Fault::Endpoint(if is_sender { sender } else { peer }, LegFault::NoCloseReply)
    }

    /// The first thing that closewatch did to the session.
    fn action(&self) -> Option<Action> {
        let let_go = !self.is_clean() && (self.has(Cut) || self.fault().party() == Party::Proxy);
        if self.has(Inject) { Some(Action::Control) } else { let_go.then_some(Action::Drain) }
    }

    fn check(&self) {
        let ending = self.ending();
        let (first, is_close) = self.first();
        let status = if is_close { self.frame(first).status } else { CloseStatus::Abnormal };
        assert_eq!((ending.status, ending.initiator), (status, first), "{self:?}");
        assert_eq!(ending.is_clean(), self.is_clean(), "{self:?}");
        assert_eq!(ending.fault, (!self.is_clean()).then(|| self.fault()), "{self:?}");
        assert_eq!(ending.action, self.action(), "{self:?}");
        for endpoint in Endpoint::BOTH {
            self.check_seen(&ending, endpoint);
        }
    }

    fn check_seen(&self, ending: &Ending, endpoint: Endpoint) {
        let has_sent = self.has(Sent(endpoint));
        let stops_reading = endpoint == Server && self.0.is_provisional && !has_sent;
        let status = match (self.has(Delivered(endpoint)), self.has(InjectedDelivered(endpoint))) {
            _ if endpoint == Server && has_sent && self.fails_connection() => CloseStatus::Abnormal,
            (true, _) if stops_reading => CloseStatus::Abnormal,
            (true, _) => self.frame(endpoint.other().into()).status,
            (_, true) => self.frame(Party::Proxy).status,
            _ => CloseStatus::Abnormal,
        };
        let seen = &ending.seen[endpoint];
        assert_eq!(seen.status, status, "{self:?}");
        assert_eq!(seen.clean, status != CloseStatus::Abnormal && has_sent, "{self:?}");
        let own = has_sent.then(|| self.frame(endpoint.into()).status);
        assert_eq!(ending.received[endpoint], own, "{self:?}");
    }
}

fn leg_fault(event: Event) -> Option<Fault> {
    match event {
        Fin(endpoint) => Some(Fault::Endpoint(endpoint, LegFault::Eof)),
        Reset(endpoint) => Some(Fault::Endpoint(endpoint, LegFault::Reset)),
        _ => None,
    }
}

/// Checks this story and every continuation of it; returns how many.
fn check_all(story: &Story) -> usize {
    story.check();
    let next = EVENTS.into_iter().filter(|event| story.allows(*event));
    1 + next.map(|event| check_all(&Story(story.0, [&story.1[..], &[event]].concat()))).sum::<usize>()
}

#[test]
fn every_order_of_events_follows_the_rules() {
    let setting = Setting { server_code: 1001, ..Setting::default() };
    assert!(check_all(&Story(setting, Vec::new())) > 10_000);
}

#[test]
fn every_order_after_a_violation_follows_the_rules() {
    for server_code in [1000, 1001, 1002] {
        let setting = Setting { is_provisional: true, server_code, is_held_back: false };
        assert!(check_all(&Story(setting, vec![Sent(Client)])) > 1_000);
    }
}

#[test]
fn every_order_with_a_sender_that_does_not_read_follows_the_rules() {
    let setting = Setting { server_code: 1001, is_held_back: true, ..Setting::default() };
    for sender in Endpoint::BOTH {
        assert!(check_all(&Story(setting, vec![Sent(sender)])) > 1_000);
    }
}
