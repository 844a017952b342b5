//! The built-in endpoints of `closewatch demo`: a server that closes as it is asked to, and clients that come and go.

pub mod clients;
mod command;
mod conversation;
mod script;
mod server;

pub use server::DemoServer;
