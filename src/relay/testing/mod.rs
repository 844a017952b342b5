//! A driver between two connections that are not sockets: the tests and the fuzzer run it through any order of events.

mod harness;
pub(crate) mod scenario;
mod sim_transport;

pub(crate) use self::harness::Kind;
#[cfg(test)]
pub(super) use self::{
    harness::{Harness, LegOutcome},
    sim_transport::{Fate, SimTransport},
};
