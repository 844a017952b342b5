//! closewatch: a transparent WebSocket reverse proxy that tells how and why each connection ended.

pub mod admin;
pub mod admission;
pub mod cli;
pub mod config;
pub mod demo;
mod endpoint;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod journal;
pub mod log;
pub mod metrics;
pub mod probe;
pub mod proxy;
pub mod relay;
pub mod service;
pub mod websocket;
