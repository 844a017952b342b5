//! The source of the configuration, at the start and for each reload.

use std::path::PathBuf;

use crate::config::{self, Config, Overrides};

/// The source of the configuration.
#[derive(Debug, Clone)]
pub struct Source {
    /// The YAML.
    pub origin: Origin,
    /// The values of flags and environment, which take precedence over the YAML.
    pub overrides: Overrides,
}

/// The origin of the YAML.
#[derive(Debug, Clone)]
pub enum Origin {
    /// The file that `--config` names.
    File(PathBuf),
    /// `config.yaml` in the working directory, if it exists.
    DefaultFile,
    /// A text in the program.
    Text {
        /// Its name in errors.
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
