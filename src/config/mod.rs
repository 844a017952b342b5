//! The configuration: a YAML file, the command line and the environment become one [`Config`].
//!
//! - `types` is the only place that names a key, its meaning, its default and its range. serde decodes these structs,
//!   garde checks them, schemars describes them, and the rest of closewatch uses them as they are.
//! - `formats` has the ways to write a single value, `shorthand` the sections with a short form.
//! - `rules` checks values against each other and against the machine.
//! - `load` runs all of this and reports each fault at the line and column that `places` finds for its path.

mod filled;
mod formats;
mod load;
mod places;
mod restart;
mod rules;
mod schema;
mod shorthand;
mod types;

pub use formats::*;
pub use load::{Overrides, check, load, parse};
pub use restart::needs_restart;
pub use schema::schema;
pub use types::*;
