//! The integration tests, with one module per behaviour. Most run the program between peers that control every byte,
//! FIN and RST. Some call the public parts of the library.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::cast_possible_truncation, reason = "frames made here are shorter than 4 GiB")]
#![expect(clippy::float_cmp, reason = "samples that are compared are whole numbers")]

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod admin_under_pressure;
mod architecture;
mod blame;
mod client_address;
mod configuration;
mod containers;
mod control;
mod decoder_properties;
mod demo;
mod drain_closing_handshakes;
mod drain_connections;
mod drain_phases;
mod endings;
mod ends_of_connections;
mod event_stream;
mod failing_handshakes;
mod handshake_records;
mod hostile_input;
mod large_reads;
mod log;
mod metrics_exposition;
mod opening_handshake;
mod out_of_descriptors;
mod plain_http;
mod probe_and_explain;
mod proxy_protocol;
mod reference;
mod relay_of_bytes;
mod reload;
mod routes;
mod slow_readers;
mod starting_and_stopping;
mod systemd;
mod timers_and_limits;
mod under_load;
