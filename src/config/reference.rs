//! Every key as a reader is told of it. `docs/configuration.md` is made of this.
//!
//! A key is described where it is decoded, so the reference is made by decoding: documents that leave out as much as they
//! can are read, and whatever key is asked for is one of the reference, with the default that it would have had.

use super::{document::Node, key::KeyDescription, schema};

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
