//! Plain HTTP: requests that are no upgrade, and answers to an upgrade that are not a 101.

pub(crate) mod passthrough;
pub(crate) mod pool;
pub(crate) mod rejected_response;
pub(crate) mod response;
pub(crate) mod second_look;
pub(crate) mod server;
pub(crate) mod validate;
