//! The configuration: a YAML file, the command line and the environment to one [`Config`], with every fault located.
//!
//! `document` makes of the text a tree of located keys and values; `schema` and `routes` read every key of it through
//! a `section`, every value by a `format` or one of the `grammars`; `addresses` holds the sections against each other.
//!
//! The tree is decoded by hand. The other way, serde with its paths to errors, was left because it stops at the first
//! fault, cannot say where an unknown or doubled key of the root stands, and needs a second parser's events for the
//! places. Here all faults are told in one run, a key is known because some code reads it, and reading a key is also
//! what writes it into the filled-in file that `closewatch check` prints, and what describes it in the `reference`.

mod addresses;
mod document;
mod error;
mod filled;
mod fixed;
mod format;
mod grammars;
mod key;
mod load;
mod reference;
mod routes;
mod schema;
mod section;
mod spelling;
mod types;
mod upstream;

pub use error::Errors;
pub use key::{KeyDescription, Missing};
pub use load::{Overrides, check, load, parse, to_yaml};
pub use reference::keys;
pub use types::*;
