//! The driver and the session core together, over simulated connections.

mod endings;
mod panics;
mod properties;
mod times;
mod transports;
