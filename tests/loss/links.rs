//! Links that die, and links that recover in time.

use closewatch::websocket::Endpoint;
use libtest_mimic::Trial;
use serde_json::json;

use crate::{
    case,
    lab::{IN_TIME, Lab, close, closed_by_client, lost, message, talk},
    network::{Lost, Network},
    support::{close_from, eventually},
};

/// The fault of a link.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The cable is pulled out of the endpoint's host.
    Cable,
    /// closewatch's interface is switched off.
    OwnInterface,
    /// No host has the endpoint's address.
    Host,
    /// A firewall answers every packet with ICMP "port unreachable".
    Icmp,
    /// Packets are lost.
    Packets(Lost),
}

/// Each fault, its name, and its cause if data is in flight. The cause of an idle link is always `timeout`: the kernel
/// ignores ICMP messages about keepalive probes, because the sequence number of a probe is before the window.
const FAULTS: [(Fault, &str, &str); 7] = [
    (Fault::Cable, "cable_pulled", "unreachable"),
    (Fault::OwnInterface, "own_interface_off", "timeout"),
    (Fault::Host, "host_gone", "unreachable"),
    (Fault::Icmp, "refused_by_icmp", "unreachable"),
    (Fault::Packets(Lost::Inbound), "packets_to_it_lost", "timeout"),
    (Fault::Packets(Lost::Outbound), "packets_from_it_lost", "timeout"),
    (Fault::Packets(Lost::Both), "all_packets_lost", "timeout"),
];

pub(crate) fn cases() -> Vec<Trial> {
    let mut cases = Vec::new();
    for endpoint in Endpoint::BOTH {
        let name = endpoint.as_str();
        for (fault, what, cause) in FAULTS {
            cases.push(case(format!("{name}::{what}_while_idle"), move || dies_while_idle(endpoint, fault)));
            cases.push(case(format!("{name}::{what}_in_flight"), move || dies_in_flight(endpoint, fault, cause)));
        }
        cases.push(case(format!("{name}::back_in_time_while_idle"), move || back_in_time_while_idle(endpoint)));
        cases.push(case(format!("{name}::back_in_time_in_flight"), move || back_in_time_in_flight(endpoint)));
        cases.push(case(format!("{name}::back_late_but_in_time"), move || back_late_but_in_time(endpoint)));
        cases.push(case(format!("{name}::host_back_in_time"), move || host_back_in_time(endpoint)));
        cases.push(case(format!("{name}::other_gets_a_close_frame"), move || other_gets_a_close_frame(endpoint)));
    }
    cases
}

impl Fault {
    fn apply(self, endpoint: Endpoint, network: &Network) {
        match self {
            Self::Cable => network.pull_cable(endpoint),
            Self::OwnInterface => network.switch_off_interface(endpoint),
            Self::Host => network.remove_host(endpoint),
            Self::Icmp => network.refuse_by_icmp(endpoint),
            Self::Packets(lost) => network.lose(endpoint, lost),
        }
    }
}

/// Keepalive finds the fault.
fn dies_while_idle(endpoint: Endpoint, fault: Fault) {
    let lab = Lab::new();
    let mut session = lab.open_and_idle(endpoint);
    fault.apply(endpoint, &lab.network);
    lab.expect_record(&lost(endpoint, "timeout"), IN_TIME);
    session.end(endpoint.other()).expect_rst();
}

/// The kernel sends no keepalive while data waits for an acknowledgement.
fn dies_in_flight(endpoint: Endpoint, fault: Fault, cause: &str) {
    let lab = Lab::new();
    let mut session = lab.open_and_idle(endpoint);
    fault.apply(endpoint, &lab.network);
    session.end(endpoint.other()).send(message(endpoint.other(), b"hello"));
    lab.expect_record(&lost(endpoint, cause), IN_TIME);
    session.end(endpoint.other()).expect_rst();
}

fn back_in_time_while_idle(endpoint: Endpoint) {
    let lab = Lab::new();
    let mut session = lab.open_and_idle(endpoint);
    lab.network.lose(endpoint, Lost::Both);
    eventually("a keepalive probe is lost", || (lab.network.lost_packets(endpoint) > 0).then_some(()));
    lab.network.heal(endpoint);
    talk(&mut session, endpoint);
    close(session);
    lab.expect_record(&closed_by_client(), IN_TIME);
}

fn back_in_time_in_flight(endpoint: Endpoint) {
    let lab = Lab::new();
    let mut session = lab.open_and_idle(endpoint);
    lab.network.lose(endpoint, Lost::Both);
    let message = message(endpoint.other(), b"hello");
    session.end(endpoint.other()).send(&message);
    eventually("the message is sent again", || (lab.network.lost_packets(endpoint) > 1).then_some(()));
    lab.network.heal(endpoint);
    session.end(endpoint).expect(&message);
    close(session);
    let record = lab.expect_record(&closed_by_client(), IN_TIME);
    assert!(record["tcp"][endpoint.as_str()]["retransmits"].as_u64() > Some(0), "{record:#}");
    assert_eq!(record["tcp"][endpoint.other().as_str()]["retransmits"], 0, "{record:#}");
}

/// The kernel doubles the time between two attempts. By default it makes no attempt between 7 s and 13 s.
fn back_late_but_in_time(endpoint: Endpoint) {
    if !Network::can_limit_backoff() {
        eprintln!("NOT RUN: back_late_but_in_time: Linux before 6.15 has no limit of the backoff");
        return;
    }
    let lab = Lab::with_keepalive("{idle: 8s, interval: 1s, probes: 2}");
    let mut session = lab.open_and_idle(endpoint);
    lab.network.lose(endpoint, Lost::Both);
    let message = message(endpoint.other(), b"hello");
    session.end(endpoint.other()).send(&message);
    eventually("the message is sent 8 times", || (lab.network.lost_packets(endpoint) >= 8).then_some(()));
    lab.network.heal(endpoint);
    session.end(endpoint).expect(&message);
    close(session);
    lab.expect_record(&closed_by_client(), IN_TIME);
}

/// The kernel learns that the host is gone. The session goes on after the host is back.
fn host_back_in_time(endpoint: Endpoint) {
    let lab = Lab::new();
    let mut session = lab.open_and_idle(endpoint);
    lab.network.remove_host(endpoint);
    let message = message(endpoint.other(), b"hello");
    session.end(endpoint.other()).send(&message);
    eventually("no host is found", || lab.network.knows_no_host(endpoint).then_some(()));
    lab.network.return_host(endpoint);
    session.end(endpoint).expect(&message);
    talk(&mut session, endpoint);
    close(session);
    lab.expect_record(&closed_by_client(), IN_TIME);
}

/// `on_server_loss` and `on_client_loss`.
fn other_gets_a_close_frame(lost_one: Endpoint) {
    let lab = Lab::with("on_server_loss: {code: 1014, reason: gone}\non_client_loss: {code: 1001, reason: gone}");
    let mut session = lab.open_and_idle(lost_one);
    lab.network.pull_cable(lost_one);
    let (other, code) = match lost_one {
        Endpoint::Client => (Endpoint::Server, 1001),
        Endpoint::Server => (Endpoint::Client, 1014),
    };
    let is_server = other == Endpoint::Server;
    assert_eq!(session.end(other).receive_close(is_server), (code, "gone".to_owned()));
    session.end(other).send(close_from(other, code, ""));
    let mut expected = lost(lost_one, "timeout");
    expected["action"] = format!("{}_loss", lost_one.as_str()).into();
    expected[format!("{}_saw", other.as_str())] = json!({"code": code, "reason": "gone", "clean": true});
    lab.expect_record(&expected, IN_TIME);
}
