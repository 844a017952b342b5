//! Plain HTTP: requests that are no upgrade, and answers to an upgrade that are no 101.
//!
//! 1. [`validate`] classifies a request by its raw head, and refuses those that must not be forwarded.
//! 2. [`server`] lets the HTTP library serve this one request; [`handback`] keeps the library from reading further.
//! 3. [`passthrough`] forwards the request on a [`server_connection`] that belongs to this client connection alone.
//! 4. [`rejected_response`] reads the server's answer to an upgrade, and [`response`] makes it the client's.

pub(super) mod body;
pub(super) mod framing;
pub(super) mod handback;
pub(super) mod passthrough;
pub(super) mod rejected_response;
pub(super) mod response;
pub(super) mod server;
pub(super) mod server_connection;
pub(super) mod validate;
