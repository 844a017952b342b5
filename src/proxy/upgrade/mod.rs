//! The opening handshake (RFC 6455, section 4): one head each way, on a fresh connection to the server.
//!
//! - [`raw_head`], [`request`] and [`answer`] parse, judge and write heads. [`machine`] makes a handshake of them: a state
//!   machine without I/O, whose table of tests has a row for each path.
//! - [`handshake`] drives it: it connects, reads and writes, and has the timers.
//! - [`handshake_guard`] counts a handshake once, however it ends, and records its failure; [`session_info`] and [`agent`]
//!   are the parts of it that records show.

mod agent;
pub(super) mod answer;
pub(super) mod handshake;
pub(super) mod handshake_guard;
pub(super) mod machine;
pub(super) mod raw_head;
pub(super) mod request;
pub(super) mod session_info;
