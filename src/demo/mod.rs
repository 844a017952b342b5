//! The built-in parties of `closewatch demo`: a server that closes as it is asked, and clients that come and go.

pub mod clients;
mod command;
mod conversation;
mod script;
mod server;

pub use server::Server;
