//! Every key as a reader is told of it. `docs/configuration.md` is made of this.
//!
//! A key is described where it is decoded, so the reference is made by decoding: documents that leave out as much as they
//! can are read, and whatever key is asked for is one of the reference, with the default that it would have had.

use super::{document::Node, fixed, schema};

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

/// Documents that open every section: `upstream` and `routes` exclude each other, what an endpoint is told of a loss has
/// keys where it is a mapping, and a list needs an item.
const DOCUMENTS: [&str; 2] =
    ["{listen: [{}], upstream: {}}", "{listen: [{}], routes: [{}], on_server_loss: {}, on_client_loss: {}}"];

/// Every key there is, each once, sections before the keys in them.
#[expect(clippy::missing_panics_doc, reason = "the documents are constants")]
pub fn keys() -> Vec<KeyDescription> {
    let mut keys: Vec<KeyDescription> = Vec::new();
    for document in DOCUMENTS {
        let root = Node::parse(document).expect("the documents above are YAML");
        for mut key in schema::keys(&root) {
            key.path = key.path.replace("[0]", "[]");
            if keys.iter().all(|known| known.path != key.path) {
                keys.push(key);
            }
        }
    }
    keys
}
