//! The properties of every session, in any order of events: [`Scenario::run`] checks them.

use std::time::Duration;

use proptest::{collection::vec, prelude::*, sample::select};

use super::super::testing::{
    Kind,
    scenario::{Scenario, Step, encoded},
};
use crate::{
    session::LegEnd,
    websocket::{Endpoint, frame::Opcode},
};

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    select(Endpoint::BOTH.to_vec())
}

/// A frame as its sender should write it, mostly small; a Close frame among three.
fn any_frame() -> impl Strategy<Value = (Opcode, Vec<u8>)> {
    let opcode = select(vec![Opcode::Text, Opcode::Binary, Opcode::Continuation, Opcode::Ping, Opcode::Pong]);
    let code = select(vec![vec![], vec![3], vec![3, 232], vec![3, 238], vec![15, 160, b'!']]);
    prop_oneof![
        2 => (opcode, prop_oneof![vec(any::<u8>(), 0..4), vec(any::<u8>(), 0..300)]),
        1 => code.prop_map(|payload| (Opcode::Close, payload)),
    ]
}

/// The whole stream of one endpoint: frames, now and then anything, cut into reads at any places.
fn any_stream(from: Endpoint) -> impl Strategy<Value = Vec<Step>> {
    let frame = any_frame().prop_map(move |(opcode, payload)| encoded(from, opcode, &payload));
    let bytes = prop_oneof![12 => frame, 1 => vec(any::<u8>(), 1..20)];
    (vec(bytes, 0..8), vec(any::<prop::sample::Index>(), 0..6)).prop_map(move |(frames, cuts)| {
        let stream = frames.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|ends| Step::Receive(from, stream[ends[0]..ends[1]].to_vec())).collect()
    })
}

/// An event other than bytes.
fn any_incident() -> impl Strategy<Value = Step> {
    let end = select(vec![LegEnd::Fin, LegEnd::Fin, LegEnd::Reset, LegEnd::Timeout, LegEnd::Unreachable, LegEnd::Tls]);
    let seconds = || (0..130_u64).prop_map(Duration::from_secs);
    prop_oneof![
        4 => (any_endpoint(), end).prop_map(|(endpoint, end)| Step::End(endpoint, end)),
        4 => (any_endpoint(), 0..40_usize).prop_map(|(endpoint, room)| Step::Room(endpoint, room)),
        3 => any_endpoint().prop_map(|endpoint| Step::Room(endpoint, usize::MAX)),
        1 => (any_endpoint(), any::<bool>()).prop_map(|(endpoint, acknowledges)| Step::Acknowledge(endpoint, acknowledges)),
        1 => any_endpoint().prop_map(Step::Kill),
        3 => seconds().prop_map(Step::Wait),
        2 => Just(Step::Close),
        2 => seconds().prop_map(Step::Drain),
        1 => Just(Step::Cut),
    ]
}

/// Both streams and other events, in any order that keeps the order of each stream.
fn any_scenario() -> impl Strategy<Value = Scenario> {
    let parts = (any_stream(Endpoint::Client), any_stream(Endpoint::Server), vec(any_incident(), 0..6));
    (any::<u8>(), parts, vec(0..3_usize, 24)).prop_map(|(policy, (client, server, incidents), order)| {
        let mut parts = [client, server, incidents].map(Vec::into_iter);
        let mut steps: Vec<Step> = order.into_iter().filter_map(|part| parts[part].next()).collect();
        steps.extend(parts.into_iter().flatten());
        Scenario { steps, ..Scenario::decode(&[policy]) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn session_keeps_its_properties_in_any_order(scenario in any_scenario()) {
        scenario.run(usize::MAX, Kind::Plain);
        scenario.run(usize::MAX, Kind::Buffered);
        scenario.run(5, Kind::Buffered);
    }

    #[test]
    fn size_of_reads_changes_nothing(scenario in any_scenario(), size in 1..9_usize) {
        let scenario = scenario.with_ready_endpoints();
        let (whole, pieces) = (scenario.run(usize::MAX, Kind::Plain), scenario.run(size, Kind::Plain));
        prop_assert_eq!(pieces.summary.ending, whole.summary.ending);
    }
}
