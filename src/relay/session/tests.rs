//! The session core without a socket: every ending as a row of a table, the times that are told, and what holds of any
//! session whatever happens to it.

mod endings;
mod properties;
mod times;
