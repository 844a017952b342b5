//! closewatch: a transparent WebSocket reverse proxy that reports how and why each connection ended.
//!
//! The life of a session, as a chain of types:
//!
//! [`config::Config`] → [`app::App`] binds and runs everything. A [`proxy::Listener`] accepts a connection, if
//! [`admission::Admission`] has a permit; [`proxy::Proxy`] forwards its opening handshake as it came. At the 101 the two
//! sockets become a [`relay::NewSession`], which [`relay::Relay`] hands to one of its threads. There the driver reports
//! bytes, ends of legs and time to the [`session::Session`], which has no I/O: it reads frames with
//! [`websocket::decoder::FrameDecoder`] and [`websocket::conformance::Conformance`], and reports Close frames and ends to the
//! [`websocket::closing_handshake::ClosingHandshake`], which returns the one
//! [`websocket::closing_handshake::Ending`]. A [`relay::SessionGuard`] counts it in [`metrics::Metrics`] and writes it as a
//! [`journal::Record`], which the [`log`] and the [`admin`] show.

mod accept_backoff;
pub mod admin;
pub mod admission;
pub mod app;
pub mod authority;
pub mod cli;
pub mod config;
pub mod demo;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod journal;
pub mod log;
pub mod metrics;
mod peer;
pub mod probe;
pub mod proxy;
pub mod relay;
pub mod session;
pub mod websocket;
