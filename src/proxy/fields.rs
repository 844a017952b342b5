//! The header fields of a message, whoever holds them: the HTTP library, which files them by name, or [`Lines`], which
//! are as they came. What a proxy does to headers is written once for both.
//!
//! [`Lines`]: super::head::Lines

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

/// Header fields.
pub(super) trait Fields {
    /// The values of all lines with this name.
    fn values<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]>;

    /// Takes out all lines with this name.
    fn remove(&mut self, name: &HeaderName);

    /// Makes this the only line with its name. Where there was one, the spelling of its name stays.
    fn set(&mut self, name: HeaderName, value: HeaderValue);
}

impl Fields for HeaderMap {
    fn values<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name).into_iter().map(HeaderValue::as_bytes)
    }

    fn remove(&mut self, name: &HeaderName) {
        HeaderMap::remove(self, name);
    }

    fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.insert(name, value);
    }
}

/// The values of all lines with this name that are text: visible ASCII, blanks and tabs.
pub(super) fn texts<'a>(fields: &'a impl Fields, name: &'a HeaderName) -> impl Iterator<Item = &'a str> {
    let is_visible = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    fields
        .values(name)
        .filter(move |value| value.iter().all(is_visible))
        .filter_map(|value| std::str::from_utf8(value).ok())
}

/// The parts of a comma-separated list, in all of its header's lines.
pub(super) fn tokens<'a>(fields: &'a impl Fields, name: &'a HeaderName) -> impl Iterator<Item = &'a str> {
    texts(fields, name).flat_map(|value| value.split(',')).map(str::trim)
}

/// Whether a comma-separated list has a token, in any of its header's lines and in any case.
pub(super) fn has_token(fields: &impl Fields, name: &HeaderName, token: &str) -> bool {
    tokens(fields, name).any(|found| found.eq_ignore_ascii_case(token))
}

/// The lines of a header as one (RFC 9110, 5.3).
pub(super) fn joined(fields: &impl Fields, name: &HeaderName) -> Option<String> {
    let lines: Vec<&str> = texts(fields, name).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// Whether there is a line with this name.
pub(super) fn has(fields: &impl Fields, name: &HeaderName) -> bool {
    fields.values(name).next().is_some()
}
