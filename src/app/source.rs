//! Where the configuration comes from, and comes from again on a reload.

use std::path::PathBuf;

use crate::config::{self, Config, Overrides};

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub struct Source {
    /// What flags and environment are put over.
    pub origin: Origin,
    /// What flags and environment say.
    pub overrides: Overrides,
}

/// The configuration without flags and environment.
#[derive(Debug, Clone)]
pub enum Origin {
    /// The file that was named.
    File(PathBuf),
    /// None was named: `config.yaml` in the working directory, where it exists.
    DefaultFile,
    /// Built in.
    Text {
        /// What errors call it.
        name: &'static str,
        /// The YAML.
        text: &'static str,
    },
}

impl Source {
    /// Reads the configuration.
    pub fn load(&self) -> Result<Config, String> {
        match &self.origin {
            Origin::File(path) => config::load(Some(path), &self.overrides),
            Origin::DefaultFile => config::load(None, &self.overrides),
            Origin::Text { name, text } => config::parse(name, text, &self.overrides),
        }
    }
}
