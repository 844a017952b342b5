//! Links that die, and links that come back in time.

use closewatch::websocket::Endpoint;
use libtest_mimic::Trial;
use serde_json::json;

use crate::{
    case,
    lab::{IN_TIME, Lab, close, closed_by_client, lost, message, talk},
    network::{Lost, Network},
    support::{close as close_payload, eventually, from},
};

/// What befalls a link.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The cable is pulled out of the endpoint's host.
    Cable,
    /// closewatch's own interface is switched off.
    OwnInterface,
    /// Nobody answers for the endpoint's address any more.
    Host,
    /// A firewall answers every packet with ICMP "port unreachable".
    Icmp,
    /// Packets get lost.
    Packets(Lost),
}

/// Each fault, its name, and the cause that is told where it meets data in flight. Of an idle link the cause is always
/// `timeout`: the kernel takes no ICMP message for an answer to a keepalive probe, since the probe's sequence number
/// lies before the window.
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
        cases.push(case(format!("{name}::other_is_told_by_a_close_frame"), move || other_is_told(endpoint)));
    }
    cases
}

impl Fault {
    fn befall(self, endpoint: Endpoint, network: &Network) {
        match self {
            Self::Cable => network.pull_cable(endpoint),
            Self::OwnInterface => network.switch_off_interface(endpoint),
            Self::Host => network.remove_host(endpoint),
            Self::Icmp => network.refuse_by_icmp(endpoint),
            Self::Packets(lost) => network.lose(endpoint, lost),
        }
    }
}

/// Keepalive finds it.
fn dies_while_idle(endpoint: Endpoint, fault: Fault) {
    let lab = Lab::new();
    let mut session = lab.open_and_idle(endpoint);
    fault.befall(endpoint, &lab.network);
    lab.expect_record(&lost(endpoint, "timeout"), IN_TIME);
    session.end(endpoint.other()).expect_rst();
}

/// There is no keepalive while data waits for an acknowledgement.
fn dies_in_flight(endpoint: Endpoint, fault: Fault, cause: &str) {
    let lab = Lab::new();
    let mut session = lab.open_and_idle(endpoint);
    fault.befall(endpoint, &lab.network);
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
    eventually("it is sent again", || (lab.network.lost_packets(endpoint) > 1).then_some(()));
    lab.network.heal(endpoint);
    session.end(endpoint).expect(&message);
    close(session);
    let record = lab.expect_record(&closed_by_client(), IN_TIME);
    assert!(record["tcp"][endpoint.as_str()]["retransmits"].as_u64() > Some(0), "{record:#}");
    assert_eq!(record["tcp"][endpoint.other().as_str()]["retransmits"], 0, "{record:#}");
}

/// The kernel doubles the time between two attempts. Left alone, it would make none between 7 s and 13 s.
fn back_late_but_in_time(endpoint: Endpoint) {
    if !Network::can_limit_backoff() {
        eprintln!("NOT RUN: back_late_but_in_time: before Linux 6.15 nothing can be done about it");
        return;
    }
    let lab = Lab::with_keepalive("{idle: 8s, interval: 1s, probes: 2}");
    let mut session = lab.open_and_idle(endpoint);
    lab.network.lose(endpoint, Lost::Both);
    let message = message(endpoint.other(), b"hello");
    session.end(endpoint.other()).send(&message);
    eventually("it is sent 8 times", || (lab.network.lost_packets(endpoint) >= 8).then_some(()));
    lab.network.heal(endpoint);
    session.end(endpoint).expect(&message);
    close(session);
    lab.expect_record(&closed_by_client(), IN_TIME);
}

/// The kernel hears that the host is gone. It comes back, and that was that.
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
fn other_is_told(lost_one: Endpoint) {
    let lab = Lab::with("on_server_loss: {code: 1014, reason: gone}\non_client_loss: {code: 1001, reason: gone}");
    let mut session = lab.open_and_idle(lost_one);
    lab.network.pull_cable(lost_one);
    let (told, code) = match lost_one {
        Endpoint::Client => (Endpoint::Server, 1001),
        Endpoint::Server => (Endpoint::Client, 1014),
    };
    let is_server = told == Endpoint::Server;
    assert_eq!(session.end(told).receive_close(is_server), (code, "gone".to_owned()));
    session.end(told).send(from(told, 0x88, &close_payload(code, "")));
    let mut expected = lost(lost_one, "timeout");
    expected["action"] = format!("{}_loss", lost_one.as_str()).into();
    expected[format!("{}_saw", told.as_str())] = json!({"code": code, "reason": "gone", "clean": true});
    lab.expect_record(&expected, IN_TIME);
}
