//! What is said of a key, where it is decoded.

use super::fixed;

/// A key of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDescription {
    /// Where it stands, such as `routes[].upstream.url`; `[]` is any one of a list.
    pub path: String,
    /// What it means, in Markdown.
    pub meaning: &'static str,
    /// What may stand there, as errors tell it.
    pub allowed: String,
    /// What holds where it is missing.
    pub missing: Missing,
}

/// What holds where a key is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// This value, as YAML.
    Default(String),
    /// Without it there is no configuration.
    Refused,
    /// There is no value.
    Unset,
    /// It is a section: what holds for each of its keys.
    Inner,
}

impl KeyDescription {
    /// Whether it holds for the life of the process: a reload that would change it is refused.
    pub fn is_fixed(&self) -> bool {
        fixed::is_fixed(&self.path)
    }
}
