//! The whole program on real sockets: a client, closewatch in a process of its own, and a service, where both ends hold
//! every byte, FIN and RST in their hands. The modules are named by what they show.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::cast_possible_truncation, reason = "lengths of frames made here")]
#![expect(clippy::float_cmp, reason = "samples that are compared are whole numbers")]

mod harness;

mod endings;
mod ends_of_connections;
mod failing_handshakes;
mod hostile_input;
mod large_readings;
mod log;
mod opening_handshake;
mod out_of_descriptors;
mod plain_http;
mod proxy_protocol;
mod relay_of_bytes;
mod routes;
mod slow_readers;
mod starting_and_stopping;
mod timers_and_limits;
mod under_load;
