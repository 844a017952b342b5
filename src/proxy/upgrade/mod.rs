//! The opening handshake (RFC 6455, section 4): one head each way, on a fresh connection to the server.
//!
//! - [`raw_head`], [`request`] and [`answer`] are functions of bytes: heads are parsed, judged and written there.
//! - [`handshake`] connects, reads and writes: it alone has I/O and timers.
//! - [`handshake_guard`] counts a handshake once, however it ends; [`session_info`] is the part of it that records show.

pub(super) mod answer;
pub(super) mod handshake;
pub(super) mod handshake_guard;
pub(super) mod raw_head;
pub(super) mod request;
pub(super) mod session_info;
