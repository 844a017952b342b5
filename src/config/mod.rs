//! The configuration: a YAML file, the command line and the environment to one [`Config`], with every fault located.
//!
//! `text` → [`document`] (a tree of located keys and values) → [`schema`] and [`routes`] (every key read through a
//! [`section`], every value by a [`format`]) → [`addresses`] (what must agree across sections) → [`Config`].
//!
//! The tree is decoded by hand. The other way, serde with `serde_path_to_error`, was left because it stops at the
//! first fault, cannot say where an unknown or doubled key of the root stands, and needs a second parser's events for
//! the places; here all faults are told in one run, a key is known because some code reads it, and reading a key is
//! also what writes it into the filled-in file that `closewatch check` prints.

mod addresses;
mod document;
mod error;
mod filled;
mod format;
mod load;
mod routes;
mod schema;
mod section;
mod spelling;
mod types;
mod upstream;

pub use error::Errors;
pub use load::{Overrides, check, load, parse, to_yaml};
pub use types::*;
