//! closewatch comes and goes: drain, reload, control and the service manager, with the program in a process of its own
//! and both ends of every session in the test's hands.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::cast_possible_truncation, reason = "lengths of frames made here")]
#![expect(clippy::float_cmp, reason = "samples that are compared are whole numbers")]

// The peers of the proxy's tests, of which not everything is used here.
#[allow(dead_code, unused_imports, reason = "shared with tests/proxy, which uses the rest")]
#[path = "../proxy/harness/mod.rs"]
mod harness;

mod closewatch;

mod closing_handshakes_in_a_drain;
mod connections_in_a_drain;
mod containers;
mod control;
mod course_of_a_drain;
mod reload;
mod stream;
mod systemd;
