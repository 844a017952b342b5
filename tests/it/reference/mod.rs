//! The reference documents are what the code makes of itself. Where one is not, write it anew and look at the change:
//!
//!     UPDATE_DOCS=1 cargo test --test it reference::

mod configuration;
mod document;
mod metrics;
