//! The table of Close codes.

use serde::Serialize;

use crate::websocket::close_code::CodeEntry;

/// One Close code, or all codes of a range. The names of the fields are a public interface.
#[derive(Serialize)]
pub(super) struct CodeObject {
    /// `None` for a range.
    code: Option<u16>,
    /// One number or a range: `1006`, `4000-4999`.
    codes: String,
    name: &'static str,
    meaning: &'static str,
    sender: &'static str,
    allowed_on_wire: bool,
    causes: &'static [&'static str],
    next_steps: &'static [&'static str],
}

impl From<&'static CodeEntry> for CodeObject {
    fn from(entry: &'static CodeEntry) -> Self {
        Self {
            code: entry.single_code(),
            codes: entry.codes_label(),
            name: entry.name,
            meaning: entry.meaning,
            sender: entry.sender.as_str(),
            allowed_on_wire: entry.allowed_on_wire(),
            causes: entry.causes,
            next_steps: entry.next_steps,
        }
    }
}

/// All codes, in their order.
pub(super) fn table() -> Vec<CodeObject> {
    CodeEntry::all().map(CodeObject::from).collect()
}
