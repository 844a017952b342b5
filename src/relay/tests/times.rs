//! The times of a session's summary, to the second, and the random part of `max_age`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::super::testing::{Harness, Kind};
use crate::{
    session::{LegEnd, Policy, Session, Summary},
    websocket::{
        Endpoint::{self, Client, Server},
        close_code::{CloseCode, CloseStatus, CloseText},
        closing_handshake::Action,
        conformance::Extensions,
    },
};

/// "Hi", a Ping "?", its Pong, and Close 1000, as servers send them.
const TEXT: [u8; 4] = [0x81, 2, b'H', b'i'];
const PING: [u8; 3] = [0x89, 1, b'?'];
const PONG: [u8; 3] = [0x8a, 1, b'?'];
const CLOSE: [u8; 4] = [0x88, 2, 0x03, 0xe8];

/// Close 1000 as a client sends it, with a key of zeros: after a frame without a mask it would not be taken for one.
const MASKED_CLOSE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn policy() -> Policy {
    Policy { close: Some(seconds(65)), hang_up: Some(seconds(2)), buffer_bytes: usize::MAX, ..Policy::default() }
}

/// What happens, and then so many seconds.
enum Event<'a> {
    Sends(Endpoint, &'a [u8], u64),
    Ends(Endpoint, LegEnd, u64),
    Close(u64),
}

use Event::{Close, Ends, Sends};

/// The summary of a session with these events, from its fifth second on.
fn summary_of(policy: Policy, events: &[Event<'_>]) -> Summary {
    let mut harness = Harness::new(policy, Kind::Plain);
    harness.wait(seconds(5));
    for event in events {
        let wait = match event {
            Sends(from, bytes, wait) => {
                harness.receive(*from, bytes);
                wait
            }
            Ends(endpoint, end, wait) => {
                harness.end(*endpoint, *end);
                wait
            }
            Close(wait) => {
                harness.close(CloseText::code(CloseCode::GOING_AWAY));
                wait
            }
        };
        harness.wait(seconds(*wait));
    }
    assert!(harness.is_over());
    harness.finish().0
}

#[test]
fn idle_lasts_from_the_last_byte_to_the_close_frame_or_loss() {
    let text_and_close = [TEXT, CLOSE].concat();
    let close_and_text = [CLOSE, TEXT].concat();
    let reset = || Ends(Client, LegEnd::Reset, 0);
    let breach_and_text = [&[0x08, 0][..], &TEXT].concat();
    let cases: [(&str, &[Event<'_>], u64); 17] = [
        ("no byte at all", &[Ends(Client, LegEnd::Reset, 0)], 5),
        ("a Close frame first", &[Sends(Server, &CLOSE, 7), reset()], 5),
        (
            "a message, 3 s, a Close frame",
            &[Sends(Server, &TEXT, 3), Sends(Server, &CLOSE, 7), Ends(Client, LegEnd::Reset, 65)],
            3,
        ),
        ("a message, 3 s, an RST", &[Sends(Server, &TEXT, 3), Ends(Client, LegEnd::Reset, 0)], 3),
        (
            "a message, 3 s, a FIN, 4 s, an RST",
            &[Sends(Server, &TEXT, 3), Ends(Client, LegEnd::Fin, 4), Ends(Server, LegEnd::Reset, 0)],
            3,
        ),
        ("a message and a Close frame at once", &[Sends(Server, &text_and_close, 65)], 0),
        ("bytes behind the Close frame", &[Sends(Server, &close_and_text, 65)], 5),
        ("a Close frame in two pieces", &[Sends(Server, &CLOSE[..3], 3), Sends(Server, &CLOSE[3..], 65)], 8),
        ("a Close frame's header, then the rest", &[Sends(Server, &CLOSE[..2], 3), Sends(Server, &CLOSE[2..], 65)], 8),
        (
            "a Close frame's first byte, then the rest",
            &[Sends(Server, &CLOSE[..1], 3), Sends(Server, &CLOSE[1..], 65)],
            8,
        ),
        (
            "a message and half a Close frame",
            &[Sends(Server, &text_and_close[..6], 3), Sends(Server, &CLOSE[2..], 65)],
            3,
        ),
        (
            "a Ping in two pieces, 3 s",
            &[Sends(Server, &PING[..2], 6), Sends(Server, &PING[2..], 3), Ends(Client, LegEnd::Reset, 0)],
            3,
        ),
        ("a Close frame too long to be one", &[Sends(Server, &[0x88, 126, 0, 126, b'.'], 3), reset()], 3),
        ("its header only", &[Sends(Server, &[0x88, 126, 0], 6), Sends(Server, &[126], 3), reset()], 3),
        ("a message behind a Close frame that is not taken", &[Sends(Server, &breach_and_text, 3), reset()], 3),
        ("closewatch's Close frame", &[Sends(Server, &TEXT, 3), Close(65)], 3),
        (
            "closewatch's Close frame, which waits for both frames",
            &[Sends(Server, &TEXT[..3], 0), Sends(Client, &TEXT[..3], 3), Close(4), Sends(Client, &TEXT[3..], 65)],
            0,
        ),
    ];
    for (name, events, idle) in cases {
        assert_eq!(summary_of(policy(), events).idle, seconds(idle), "{name}");
    }
}

#[test]
fn idle_ends_before_the_frame_above_a_limit() {
    let limits = || Policy { frame_bytes: Some(1), ..policy() };
    let small_and_large = [&[0x81, 1, b'.'][..], &TEXT].concat();
    assert_eq!(summary_of(limits(), &[Sends(Server, &TEXT, 65)]).idle, seconds(5));
    assert_eq!(summary_of(limits(), &[Sends(Server, &small_and_large, 65)]).idle, seconds(0));
    // A header that is held back has not been relayed.
    assert_eq!(summary_of(limits(), &[Sends(Server, &TEXT[..1], 3), Sends(Server, &TEXT[1..], 65)]).idle, seconds(8));
}

#[test]
fn close_handshake_lasts_from_the_first_to_the_answer() {
    let cases: [(&str, &[Event<'_>], Option<u64>); 5] = [
        ("answered", &[Sends(Server, &CLOSE, 3), Sends(Client, &MASKED_CLOSE, 2)], Some(3)),
        (
            "answered in two pieces",
            &[Sends(Server, &CLOSE, 3), Sends(Client, &MASKED_CLOSE[..3], 4), Sends(Client, &MASKED_CLOSE[3..], 2)],
            Some(7),
        ),
        ("not answered", &[Sends(Server, &CLOSE, 65)], None),
        ("behind a loss", &[Ends(Client, LegEnd::Fin, 3), Sends(Server, &CLOSE, 65)], None),
        ("both answer closewatch", &[Close(3), Sends(Client, &MASKED_CLOSE, 4), Sends(Server, &CLOSE, 2)], Some(7)),
    ];
    for (name, events, duration) in cases {
        assert_eq!(summary_of(policy(), events).close_handshake, duration.map(seconds), "{name}");
    }
}

#[test]
fn ping_is_timed_to_its_own_pong() {
    let other_pong = [0x8a, 1, b'!'];
    let reset = || Ends(Client, LegEnd::Reset, 0);
    let cases: [(&str, &[Event<'_>], Option<u64>); 5] = [
        ("a Pong", &[Sends(Server, &PING, 3), Sends(Client, &PONG, 1), reset()], Some(3)),
        (
            "in pieces",
            &[Sends(Server, &PING[..2], 9), Sends(Server, &PING[2..], 3), Sends(Client, &PONG, 1), reset()],
            Some(3),
        ),
        ("another's Pong", &[Sends(Server, &PING, 3), Sends(Client, &other_pong, 1), reset()], None),
        (
            "the last of two",
            &[
                Sends(Server, &PING, 3),
                Sends(Server, &PING, 2),
                Sends(Client, &PONG, 1),
                Sends(Client, &PONG, 1),
                reset(),
            ],
            Some(2),
        ),
        (
            "a Ping that was dropped",
            &[Close(1), Sends(Server, &PING, 3), Sends(Client, &PONG, 1), reset(), Ends(Server, LegEnd::Reset, 0)],
            None,
        ),
    ];
    for (name, events, round_trip) in cases {
        let summary = summary_of(policy(), events);
        assert_eq!(summary.ping_rtt.client, round_trip.map(seconds), "{name}");
        assert_eq!(summary.ping_rtt.server, None, "{name}");
    }
}

#[test]
fn duration_ends_with_both_legs() {
    let summary = summary_of(
        policy(),
        &[Sends(Server, &CLOSE, 3), Sends(Client, &MASKED_CLOSE, 1), Ends(Client, LegEnd::Fin, 60)],
    );
    assert_eq!(summary.duration, seconds(9));
    let summary = summary_of(policy(), &[Sends(Server, &CLOSE, 80)]);
    assert_eq!(summary.duration, seconds(70));
}

#[test]
fn max_age_is_shortened_by_less_than_a_tenth() {
    let policy = Arc::new(Policy { max_age: Some(seconds(100)), ..policy() });
    let opened = Instant::now();
    for (spread, shortest, longest) in [(0_u64, 100_000, 100_000), (128, 94_900, 95_100), (255, 90_001, 90_100)] {
        let session = Session::new(Arc::clone(&policy), Extensions::None, opened, spread << 32);
        let age = session.poll_timeout().unwrap() - opened;
        assert!((shortest..=longest).contains(&age.as_millis()), "{spread}: {age:?}");
    }
}

#[test]
fn time_beyond_the_clock_is_no_deadline() {
    let policy = Policy { idle: Some(Duration::MAX), max_age: Some(Duration::MAX), ..policy() };
    let session = Session::new(Arc::new(policy), Extensions::None, Instant::now(), 0);
    assert_eq!(session.poll_timeout(), None);
}

/// If its 101 comes when the drain's time is over, nobody has time to write Close frames.
#[test]
fn drain_that_is_over_terminates_at_once() {
    let mut harness = Harness::new(policy(), Kind::Plain);
    harness.drain(CloseText::code(CloseCode::GOING_AWAY), Duration::ZERO);
    harness.wait(Duration::ZERO);
    assert!(harness.is_over());
    let (summary, ..) = harness.finish();
    assert_eq!(summary.ending.status, CloseStatus::Abnormal);
    assert_eq!(summary.ending.action, Some(Action::Drain));
}
