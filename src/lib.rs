//! closewatch: a transparent WebSocket reverse proxy that tells how and why each connection ended.

pub mod admin;
pub mod cli;
pub mod config;
pub mod demo;
mod endpoint;
pub mod journal;
pub mod metrics;
pub mod probe;
pub mod proxy;
pub mod relay;
pub mod websocket;
