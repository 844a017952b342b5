//! A document in `docs` with a generated part.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// The marks before and after the generated part.
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

    /// Asserts that the part between the marks is this text. With `UPDATE_DOCS=1`, writes the text instead.
    pub(crate) fn must_say(&self, made: &str) {
        let (before, after) = self.parts();
        let wanted = [before, BEGIN, "\n", made, "\n", END, after].concat();
        compare_or_update(&self.path, &self.text, &wanted);
    }

    /// The parts that are written by hand.
    pub(crate) fn by_hand(&self) -> String {
        let (before, after) = self.parts();
        [before, after].concat()
    }

    /// The parts before and after the generated part.
    fn parts(&self) -> (&str, &str) {
        let (before, rest) = self.text.split_once(BEGIN).expect("the document has the first mark");
        let (_, after) = rest.split_once(END).expect("the document has the last mark");
        (before, after)
    }
}

/// Compares a whole file with its expected text. With `UPDATE_DOCS=1` it is written instead.
pub(crate) fn must_have(name: &str, wanted: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
    let text = fs::read_to_string(&path).unwrap_or_default();
    compare_or_update(&path, &text, wanted);
}

fn compare_or_update(path: &Path, text: &str, wanted: &str) {
    if env::var_os("UPDATE_DOCS").is_some_and(|update| update == "1") {
        return fs::write(path, wanted).expect("the file can be written");
    }
    let first_difference = text.lines().zip(wanted.lines()).find(|(found, wanted)| found != wanted);
    assert!(
        text == wanted,
        "{} is not up to date; see tests/it/reference/mod.rs. First difference: {first_difference:#?}",
        path.display()
    );
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
