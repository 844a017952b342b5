//! The opening handshake (RFC 6455, section 4): one head each way, on a fresh connection to the server.

pub(crate) mod handshake;
pub(crate) mod handshake_guard;
pub(crate) mod raw_head;
pub(crate) mod session_info;
