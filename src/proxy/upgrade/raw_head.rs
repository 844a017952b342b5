//! The head of a request or a response: its lines as they came, in their order and in their own spelling.
//!
//! An opening handshake passes as it came, except for a few lines. The HTTP library groups headers by name, so only its
//! parser is used here. Everything in this file is a function of bytes.

use std::{borrow::Cow, mem::MaybeUninit};

use httparse::{Header, ParserConfig, Status};
use hyper::header::{HOST, HeaderName, HeaderValue};

use crate::proxy::forwarding_headers::HeaderFields;

/// Heads with more lines are parsed twice: first without room for them.
const USUAL_LINES: usize = 100;

/// The most header lines: the HTTP library's map has room for 24,576.
const MAX_LINES: usize = 20_000;

/// The beginning of some bytes.
#[derive(Debug)]
pub(crate) enum Parsed<T> {
    /// A head and its length.
    Whole(T, usize),
    /// A head whose end is still to come.
    Partial,
    /// Something else.
    Other,
}

/// Whether the bytes from `new` on may have brought the end of a head. If not, skip parsing: reparsing on every byte
/// would be quadratic.
pub(crate) fn may_end(bytes: &[u8], new: usize) -> bool {
    let last = &bytes[new.saturating_sub(b"\n\r".len()).min(bytes.len())..];
    new == 0 || last.windows(2).any(|pair| pair == b"\n\n") || last.windows(3).any(|three| three == b"\n\r\n")
}

/// The head of a request.
#[derive(Debug)]
pub(crate) struct RequestHead<'a> {
    pub(crate) method: &'a str,
    /// The request target as it came.
    pub(crate) raw_target: &'a str,
    /// The request is HTTP/1.1, not 1.0.
    pub(crate) is_http_11: bool,
    pub(crate) fields: HeaderLines<'a>,
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct ResponseHead<'a> {
    pub(crate) status: u16,
    pub(crate) reason: &'a str,
    pub(crate) fields: HeaderLines<'a>,
}

/// A request target (RFC 9112, 3.2), with all its characters as they came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    /// The host and port of a target in absolute form.
    pub(crate) authority: Option<&'a str>,
    /// The target in origin form, as a server reads it.
    pub(crate) origin_form: Cow<'a, str>,
}

/// The header lines of a head.
#[derive(Debug)]
pub(crate) struct HeaderLines<'a> {
    lines: Vec<HeaderLine<'a>>,
}

#[derive(Debug)]
struct HeaderLine<'a> {
    name: HeaderLineName<'a>,
    value: Value<'a>,
}

#[derive(Debug)]
enum HeaderLineName<'a> {
    Received(&'a str),
    Added(HeaderName),
}

#[derive(Debug)]
enum Value<'a> {
    Received(&'a [u8]),
    Set(HeaderValue),
}

impl<'a> RequestHead<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Parsed<Self> {
        parse_with_room_for_lines(bytes, |lines| {
            let mut request = httparse::Request::new(&mut []);
            let status = request.parse_with_uninit_headers(bytes, lines);
            parsed(status, || {
                let (method, raw_target) = (request.method?, request.path?);
                let is_http_11 = request.version? == 1;
                Some(Self { method, raw_target, is_http_11, fields: HeaderLines::new(request.headers) })
            })
        })
    }

    /// The request target, if it is a path, `*` or a URL.
    pub(crate) fn target(&self) -> Option<Target<'a>> {
        Target::parse(self.raw_target)
    }
}

impl<'a> ResponseHead<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Parsed<Self> {
        parse_with_room_for_lines(bytes, |lines| {
            let mut config = ParserConfig::default();
            config.allow_spaces_after_header_name_in_responses(true);
            let mut response = httparse::Response::new(&mut []);
            let status = config.parse_response_with_uninit_headers(&mut response, bytes, lines);
            parsed(status, || {
                let (status, reason) = (response.code?, response.reason?);
                Some(Self { status, reason, fields: HeaderLines::new(response.headers) })
            })
        })
    }
}

impl<'a> Target<'a> {
    fn parse(target: &'a str) -> Option<Self> {
        if target.starts_with('/') || target == "*" {
            return Some(Self { authority: None, origin_form: Cow::Borrowed(target) });
        }
        let (_scheme, rest) = target.split_once("://").filter(|(scheme, _)| is_scheme(scheme))?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // Behind an authority the path may be empty.
        let origin_form = if path.starts_with('/') { path.into() } else { format!("/{path}").into() };
        Some(Self { authority: Some(authority), origin_form })
    }

    /// The path, without the query.
    pub(crate) fn path(&self) -> &str {
        let end = self.origin_form.find(['?', '#']).unwrap_or(self.origin_form.len());
        &self.origin_form[..end]
    }

    /// A target in absolute form overrules the Host header (RFC 9112, 3.2.2).
    pub(crate) fn overrule_host(&self, headers: &mut impl HeaderFields) {
        if let Some(Ok(host)) = self.authority.map(HeaderValue::from_str) {
            headers.set(HOST, host);
        }
    }
}

impl<'a> HeaderLines<'a> {
    fn new(lines: &[Header<'a>]) -> Self {
        // A proxy adds a few.
        let mut kept = Vec::with_capacity(lines.len() + 4);
        kept.extend(
            lines.iter().map(|line| HeaderLine {
                name: HeaderLineName::Received(line.name),
                value: Value::Received(line.value),
            }),
        );
        Self { lines: kept }
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// The bytes of a head with this first line.
    pub(crate) fn encode(&self, first_line: &str) -> Vec<u8> {
        let length: usize =
            self.lines.iter().map(|line| line.name.as_str().len() + line.value.as_bytes().len() + 4).sum();
        let mut bytes = Vec::with_capacity(first_line.len() + length + 4);
        bytes.extend_from_slice(first_line.as_bytes());
        bytes.extend_from_slice(b"\r\n");
        for line in &self.lines {
            line.name.encode(&mut bytes);
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(line.value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }
}

impl HeaderFields for HeaderLines<'_> {
    fn values<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let name = name.as_str();
        self.lines.iter().filter(move |line| line.name.is(name)).map(|line| line.value.as_bytes())
    }

    fn remove(&mut self, name: &HeaderName) {
        let name = name.as_str();
        self.lines.retain(|line| !line.name.is(name));
    }

    fn set(&mut self, name: HeaderName, value: HeaderValue) {
        let value = Value::Set(value);
        let Some(first) = self.lines.iter().position(|line| line.name.is(name.as_str())) else {
            self.lines.push(HeaderLine { name: HeaderLineName::Added(name), value });
            return;
        };
        self.lines[first].value = value;
        let mut position = 0;
        self.lines.retain(|line| {
            position += 1;
            position <= first + 1 || !line.name.is(name.as_str())
        });
    }
}

impl HeaderLineName<'_> {
    fn as_str(&self) -> &str {
        match self {
            Self::Received(name) => name,
            Self::Added(name) => name.as_str(),
        }
    }

    /// A handshake asks this hundreds of times: nearly always the lengths differ.
    #[inline]
    fn is(&self, name: &str) -> bool {
        let own = self.as_str();
        own.len() == name.len() && own.eq_ignore_ascii_case(name)
    }

    /// Spells added names as most clients and servers do.
    fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Received(name) => bytes.extend_from_slice(name.as_bytes()),
            Self::Added(name) => {
                let mut begins_word = true;
                for byte in name.as_str().bytes() {
                    bytes.push(if begins_word { byte.to_ascii_uppercase() } else { byte });
                    begins_word = byte == b'-';
                }
            }
        }
    }
}

impl Value<'_> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Received(value) => value,
            Self::Set(value) => value.as_bytes(),
        }
    }
}

type Room<'r, 'a> = &'r mut [MaybeUninit<Header<'a>>];

/// Parses a head with room for the usual number of lines, or else for as many as there are.
fn parse_with_room_for_lines<'a, T>(
    bytes: &'a [u8],
    mut parse: impl FnMut(Room<'_, 'a>) -> Result<Parsed<T>, httparse::Error>,
) -> Parsed<T> {
    let usual = parse(&mut [const { MaybeUninit::uninit() }; USUAL_LINES]);
    let parsed = match usual {
        Err(httparse::Error::TooManyHeaders) => {
            let lines = bytes.split(|byte| *byte == b'\n').count().min(MAX_LINES);
            parse(&mut vec![MaybeUninit::uninit(); lines])
        }
        usual => usual,
    };
    parsed.unwrap_or(Parsed::Other)
}

fn parsed<T>(status: httparse::Result<usize>, head: impl FnOnce() -> Option<T>) -> Result<Parsed<T>, httparse::Error> {
    Ok(match status? {
        Status::Complete(length) => head().map_or(Parsed::Other, |head| Parsed::Whole(head, length)),
        Status::Partial => Parsed::Partial,
    })
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use hyper::header;

    use super::*;

    fn request(bytes: &str) -> RequestHead<'_> {
        match RequestHead::parse(bytes.as_bytes()) {
            Parsed::Whole(head, length) if length == bytes.len() => head,
            other => panic!("{other:?}"),
        }
    }

    fn encoded(head: &HeaderLines<'_>) -> String {
        String::from_utf8(head.encode("first")).expect("these tests use text")
    }

    #[test]
    fn head_passes_as_it_came() {
        let head = request("GET /a?b HTTP/1.1\r\nhost: a\r\nX-Twice: 1\r\nEmpty:\r\nx-TWICE:2 \r\n\r\n");
        assert_eq!((head.method, head.raw_target, head.is_http_11), ("GET", "/a?b", true));
        assert_eq!(encoded(&head.fields), "first\r\nhost: a\r\nX-Twice: 1\r\nEmpty: \r\nx-TWICE: 2\r\n\r\n");
    }

    #[test]
    fn set_replaces_all_lines_with_its_name() {
        let mut fields = request("GET / HTTP/1.1\r\nx-a: 1\r\nHOST: b\r\nX-A: 2\r\nx-b: 3\r\nX-a: 4\r\n\r\n").fields;
        fields.set(HeaderName::from_static("x-a"), HeaderValue::from_static("5"));
        fields.set(HOST, HeaderValue::from_static("c"));
        fields.set(HeaderName::from_static("x-forwarded-for"), HeaderValue::from_static("6"));
        assert_eq!(encoded(&fields), "first\r\nx-a: 5\r\nHOST: c\r\nx-b: 3\r\nX-Forwarded-For: 6\r\n\r\n");
        fields.remove(&HeaderName::from_static("x-a"));
        fields.remove(&HeaderName::from_static("x-forwarded-for"));
        assert_eq!(encoded(&fields), "first\r\nHOST: c\r\nx-b: 3\r\n\r\n");
    }

    #[test]
    fn response_has_a_status_and_a_reason() {
        let bytes = b"HTTP/1.1 101 Web Socket\r\nUpgrade : websocket\r\n\r\n\x81\x00";
        let Parsed::Whole(head, length) = ResponseHead::parse(bytes) else { panic!("a whole head") };
        assert_eq!((head.status, head.reason, length), (101, "Web Socket", bytes.len() - 2));
        assert_eq!(head.fields.values(&header::UPGRADE).collect::<Vec<_>>(), [b"websocket"]);
    }

    #[test]
    fn head_that_comes_byte_by_byte_is_parsed_twice() {
        for whole in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"GET / HTTP/1.1\nHost: a\n\n"] {
            let parsed_at: Vec<usize> = (0..whole.len()).filter(|&new| may_end(&whole[..=new], new)).collect();
            assert_eq!(parsed_at, [0, whole.len() - 1]);
        }
        assert!(may_end(b"\n\n\x81", 1));
    }

    #[test]
    fn every_prefix_of_a_head_is_partial() {
        let whole = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for end in 0..whole.len() {
            assert!(matches!(RequestHead::parse(&whole.as_bytes()[..end]), Parsed::Partial), "{end}");
        }
        for bytes in
            ["\x16\x03\x01", "GET / HTTP/1.1\r\na b: c\r\n", "GET / HTTP/1.1\r\na: \0\r\n", "GET / HTTP/2.0\r\n"]
        {
            assert!(matches!(RequestHead::parse(bytes.as_bytes()), Parsed::Other), "{bytes:?}");
        }
        assert!(matches!(ResponseHead::parse(b"220 mail.example.com\r\n"), Parsed::Other));
    }

    #[test]
    fn number_of_lines_has_a_high_limit() {
        for (lines, is_whole) in [(101, true), (MAX_LINES - 2, true), (MAX_LINES + 1, false)] {
            let request = format!("GET / HTTP/1.1\r\n{}\r\n", "a:\r\n".repeat(lines));
            let response = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a:\r\n".repeat(lines));
            assert_eq!(matches!(RequestHead::parse(request.as_bytes()), Parsed::Whole(..)), is_whole, "{lines}");
            assert_eq!(matches!(ResponseHead::parse(response.as_bytes()), Parsed::Whole(..)), is_whole, "{lines}");
        }
    }

    #[test]
    fn target_keeps_characters_that_a_uri_has_not() {
        for (target, authority, origin_form, path) in [
            ("/ws?filter={\"room\":1}", None, "/ws?filter={\"room\":1}", "/ws"),
            ("/<a>`|^\\\"?<b>`|^\\\"#c", None, "/<a>`|^\\\"?<b>`|^\\\"#c", "/<a>`|^\\\""),
            ("//a/b", None, "//a/b", "//a/b"),
            ("/%7e/\u{e9}", None, "/%7e/\u{e9}", "/%7e/\u{e9}"),
            ("*", None, "*", "*"),
            ("http://a.example:81/b?c", Some("a.example:81"), "/b?c", "/b"),
            ("ws://a.example", Some("a.example"), "/", "/"),
            ("WSS://[::1]?q=/", Some("[::1]"), "/?q=/", "/"),
        ] {
            let bytes = format!("GET {target} HTTP/1.1\r\n\r\n");
            let found = request(&bytes).target().unwrap();
            assert_eq!((found.authority, &*found.origin_form), (authority, origin_form));
            assert_eq!(found.path(), path);
        }
        for target in ["a.example:443", "chat", "://a/b", "1a://b/", "?q", "mailto:a"] {
            assert_eq!(Target::parse(target), None, "{target}");
        }
    }
}
