//! A transport that is not a plain socket: accepted bytes that stay in the process, an end of our stream that must wait,
//! bytes that are left after a read without a new event, and an end that comes with the last bytes.

use std::time::Duration;

use super::super::testing::{Fate, Harness, Kind, LegOutcome};
use crate::{
    session::{LegEnd, Policy, Summary},
    websocket::{
        Endpoint::{Client, Server},
        close_code::{CloseCode, CloseStatus},
        closing_handshake::{Fault, LegFault},
    },
};

/// "Hi", and Close 1000, as servers send them.
const TEXT: [u8; 4] = [0x81, 2, b'H', b'i'];
const CLOSE: [u8; 4] = [0x88, 2, 0x03, 0xe8];

/// Close 1000 as a client sends it.
const MASKED_CLOSE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];

const CLOSE_TIMEOUT: Duration = Duration::from_secs(65);

fn harness() -> Harness {
    let policy = Policy {
        close: Some(CLOSE_TIMEOUT),
        hang_up: Some(Duration::from_secs(2)),
        buffer_bytes: usize::MAX,
        ..Policy::default()
    };
    Harness::new(policy, Kind::Plain)
}

fn summary(harness: Harness) -> Summary {
    assert!(harness.is_over());
    harness.finish().0
}

#[test]
fn held_close_frame_is_not_delivered() {
    let mut harness = harness();
    harness.leg(Client).holds = true;
    harness.receive(Server, &CLOSE);
    assert_eq!(harness.leg(Client).held, CLOSE, "the transport has accepted it");
    harness.wait(CLOSE_TIMEOUT);
    let ending = summary(harness).ending;
    assert_eq!(ending.seen.client.status, CloseStatus::Abnormal);
    assert_eq!(ending.fault, Some(Fault::Endpoint(Client, LegFault::NoCloseReply)));
}

#[test]
fn flushed_close_frame_is_delivered() {
    let mut harness = harness();
    harness.leg(Client).holds = true;
    harness.receive(Server, &CLOSE);
    harness.writable(Client);
    assert_eq!(harness.leg(Client).sent, CLOSE);
    harness.receive(Client, &MASKED_CLOSE);
    harness.end(Client, LegEnd::Fin);
    let ending = summary(harness).ending;
    assert!(ending.is_clean());
    assert_eq!(ending.seen.client.status, CloseStatus::Sent(CloseCode::NORMAL));
}

#[test]
fn fin_waits_for_held_bytes() {
    let mut harness = harness();
    harness.leg(Client).holds = true;
    harness.receive(Server, &TEXT);
    harness.end(Server, LegEnd::Fin);
    assert_eq!(harness.leg(Client).fate, Fate::Open);
    harness.writable(Client);
    assert_eq!(harness.got(Client), (TEXT.to_vec(), Fate::Finished));
}

#[test]
fn blocked_fin_is_tried_again() {
    let mut harness = harness();
    harness.leg(Client).blocks_finish = true;
    harness.end(Server, LegEnd::Fin);
    assert_eq!(harness.leg(Client).fate, Fate::Open);
    harness.end(Client, LegEnd::Fin);
    assert!(!harness.is_over(), "the client has not got its FIN");
    harness.writable(Client);
    let (_, outcomes, _) = harness.finish();
    assert_eq!(outcomes.client, LegOutcome::Finished);
}

#[test]
fn reset_waits_for_held_bytes() {
    let mut harness = harness();
    harness.leg(Client).holds = true;
    harness.receive(Server, &TEXT);
    harness.end(Server, LegEnd::Reset);
    harness.wait(Duration::from_secs(1));
    assert!(!harness.is_over());
    harness.writable(Client);
    harness.wait(Duration::from_secs(1));
    assert!(harness.is_over());
    let (_, outcomes, legs) = harness.finish();
    assert_eq!((outcomes.client, legs.client.sim().sent.clone()), (LegOutcome::Reset, TEXT.to_vec()));
}

#[test]
fn loss_found_by_a_flush_ends_the_leg() {
    let mut harness = harness();
    harness.leg(Client).holds = true;
    harness.receive(Server, &TEXT);
    harness.kill(Client);
    harness.writable(Client);
    let ending = summary(harness).ending;
    assert_eq!(ending.fault, Some(Fault::Endpoint(Client, LegFault::Reset)));
}

/// A TLS library has decrypted more than one read takes, and the socket is empty.
#[test]
fn bytes_left_after_a_read_need_no_event() {
    let mut harness = harness();
    harness.leg(Server).read_size = 3;
    harness.receive(Server, &[TEXT, TEXT, CLOSE].concat());
    assert_eq!(harness.leg(Client).sent, [TEXT, TEXT, CLOSE].concat());
}

#[test]
fn bytes_and_the_end_come_together() {
    let mut harness = harness();
    {
        let mut server = harness.leg(Server);
        (server.joins_end, server.incoming_end) = (true, Some(LegEnd::Fin));
    }
    harness.deliver(Server, &TEXT);
    assert_eq!(harness.got(Client), (TEXT.to_vec(), Fate::Finished));
    harness.end(Client, LegEnd::Fin);
    assert_eq!(summary(harness).ending.fault, Some(Fault::Endpoint(Server, LegFault::Eof)));
}

#[test]
fn tls_alert_ends_the_other_leg_with_fin() {
    let mut harness = harness();
    harness.receive(Server, &TEXT);
    harness.end(Server, LegEnd::Tls);
    assert_eq!(harness.leg(Client).fate, Fate::Finished);
    harness.end(Client, LegEnd::Fin);
    assert_eq!(summary(harness).ending.fault, Some(Fault::Endpoint(Server, LegFault::Tls)));
}
