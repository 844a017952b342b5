//! The reference documents have parts that are generated from the code. Generate them, and look at the change:
//!
//!     UPDATE_DOCS=1 cargo test --test it reference::

mod configuration;
mod document;
mod metrics;
