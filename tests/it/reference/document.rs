//! A document in `docs`, of which a part is made from the code.

use std::{env, fs, path::PathBuf};

/// What stands before the part that is made, and behind it.
const BEGIN: &str =
    "<!-- made from the code by UPDATE_DOCS=1 cargo test --test it reference::; do not edit by hand -->\n";
const END: &str = "<!-- end of what is made from the code -->\n";

pub(crate) struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    pub(crate) fn open(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
        let text = fs::read_to_string(&path).expect("the document can be read");
        Self { path, text }
    }

    /// Holds the part between the marks against what it is to be. With `UPDATE_DOCS=1` it is written instead.
    pub(crate) fn must_say(&self, made: &str) {
        let (before, behind) = self.parts();
        let wanted = [before, BEGIN, "\n", made, "\n", END, behind].concat();
        if env::var_os("UPDATE_DOCS").is_some_and(|update| update == "1") {
            return fs::write(&self.path, wanted).expect("the document can be written");
        }
        let first_difference = self.text.lines().zip(wanted.lines()).find(|(found, wanted)| found != wanted);
        assert!(
            self.text == wanted,
            "{} is not what the code makes of it; see tests/it/reference/mod.rs. First difference: {first_difference:#?}",
            self.path.display()
        );
    }

    /// What was written by hand.
    pub(crate) fn by_hand(&self) -> String {
        let (before, behind) = self.parts();
        [before, behind].concat()
    }

    /// What stands before the part that is made, and behind it.
    fn parts(&self) -> (&str, &str) {
        let (before, rest) = self.text.split_once(BEGIN).expect("the document has the mark of where it is made");
        let (_, behind) = rest.split_once(END).expect("the document has the mark of where it is made no more");
        (before, behind)
    }
}

/// A table in Markdown.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<_> = head.iter().map(|&cell| cell.to_owned()).collect();
    let rule = vec!["---".to_owned(); head.len()];
    [head, rule].into_iter().chain(rows).map(|cells| line(&cells)).collect()
}

/// `text` as code in Markdown.
pub(crate) fn code(text: &str) -> String {
    format!("`{text}`")
}
