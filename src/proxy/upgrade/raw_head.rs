//! The head of a message of the opening handshake: its lines as they came, in their order and in their own spelling.
//!
//! # Design
//!
//! The HTTP library files headers by name, which is right for most of what a proxy does and wrong for this: an opening
//! handshake is to pass as it came, but for a few lines. So of the library only its parser is used here. What is left
//! out with the rest (bodies, connections that serve on, a task and a channel for each request) no upgrade needs: it is
//! two heads, and then frames. That a short session costs a quarter less so is welcome where thousands reconnect at once.

use std::mem::MaybeUninit;

use hyper::header::{HeaderName, HeaderValue};

use crate::proxy::forwarding_headers::HeaderFields;

/// As many lines, and as long names, as the library takes where it serves the connection.
const MOST_LINES: usize = 100;
const LONGEST_NAME: usize = u16::MAX as usize;

/// What bytes are the beginning of.
#[derive(Debug)]
pub(crate) enum Parsed<T> {
    /// A head, which is so many bytes long.
    Whole(T, usize),
    /// A head of which the end is still to come.
    Partial,
    /// Something else.
    Other,
}

/// Whether the bytes from `new` on may have brought the end of a head. Where they do not, to parse it again would be in
/// vain, and who sends it byte by byte could make that dear.
pub(crate) fn may_end(bytes: &[u8], new: usize) -> bool {
    let last = &bytes[new.saturating_sub(b"\n\r".len()).min(bytes.len())..];
    new == 0 || last.windows(2).any(|pair| pair == b"\n\n") || last.windows(3).any(|three| three == b"\n\r\n")
}

/// The lines of a head, without the first.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    lines: Vec<Line<'a>>,
}

/// The head of a request.
#[derive(Debug)]
pub(crate) struct RequestHead<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    /// The request is HTTP/1.1, not 1.0.
    pub(crate) is_http_11: bool,
    pub(crate) fields: Lines<'a>,
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct ResponseHead<'a> {
    pub(crate) status: u16,
    pub(crate) reason: &'a str,
    pub(crate) fields: Lines<'a>,
}

#[derive(Debug)]
struct Line<'a> {
    name: Name<'a>,
    value: Value<'a>,
}

#[derive(Debug)]
enum Name<'a> {
    AsItCame(&'a str),
    Added(HeaderName),
}

#[derive(Debug)]
enum Value<'a> {
    AsItCame(&'a [u8]),
    Set(HeaderValue),
}

impl<'a> RequestHead<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Parsed<Self> {
        let mut lines = [const { MaybeUninit::uninit() }; MOST_LINES];
        let mut request = httparse::Request::new(&mut []);
        let status = request.parse_with_uninit_headers(bytes, &mut lines);
        parsed(status, || {
            let (method, target) = (request.method?, request.path?);
            let is_http_11 = request.version? == 1;
            if request.headers.iter().any(|line| line.name.len() > LONGEST_NAME) {
                return None;
            }
            Some(Self { method, target, is_http_11, fields: Lines::new(request.headers) })
        })
    }
}

impl<'a> ResponseHead<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Parsed<Self> {
        let mut lines = [const { MaybeUninit::uninit() }; MOST_LINES];
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let status = config.parse_response_with_uninit_headers(&mut response, bytes, &mut lines);
        parsed(status, || {
            let (status, reason) = (response.code?, response.reason?);
            Some(Self { status, reason, fields: Lines::new(response.headers) })
        })
    }
}

impl<'a> Lines<'a> {
    fn new(lines: &[httparse::Header<'a>]) -> Self {
        // A proxy adds a few.
        let mut kept = Vec::with_capacity(lines.len() + 4);
        kept.extend(
            lines.iter().map(|line| Line { name: Name::AsItCame(line.name), value: Value::AsItCame(line.value) }),
        );
        Self { lines: kept }
    }

    /// The head's bytes, behind this first line.
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

impl HeaderFields for Lines<'_> {
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
            self.lines.push(Line { name: Name::Added(name), value });
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

impl Name<'_> {
    fn as_str(&self) -> &str {
        match self {
            Self::AsItCame(name) => name,
            Self::Added(name) => name.as_str(),
        }
    }

    /// A handshake asks this hundreds of times: nearly always the length has the answer.
    #[inline]
    fn is(&self, name: &str) -> bool {
        let own = self.as_str();
        own.len() == name.len() && own.eq_ignore_ascii_case(name)
    }

    /// Names that were added are spelled as most clients and servers spell them.
    fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::AsItCame(name) => bytes.extend_from_slice(name.as_bytes()),
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
            Self::AsItCame(value) => value,
            Self::Set(value) => value.as_bytes(),
        }
    }
}

fn parsed<T>(status: httparse::Result<usize>, head: impl FnOnce() -> Option<T>) -> Parsed<T> {
    match status {
        Ok(httparse::Status::Complete(length)) => head().map_or(Parsed::Other, |head| Parsed::Whole(head, length)),
        Ok(httparse::Status::Partial) => Parsed::Partial,
        Err(_) => Parsed::Other,
    }
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

    fn encoded(head: &Lines<'_>) -> String {
        String::from_utf8(head.encode("first")).expect("these tests use text")
    }

    #[test]
    fn a_head_passes_as_it_came() {
        let head = request("GET /a?b HTTP/1.1\r\nhost: a\r\nX-Twice: 1\r\nEmpty:\r\nx-TWICE:2 \r\n\r\n");
        assert_eq!((head.method, head.target, head.is_http_11), ("GET", "/a?b", true));
        assert_eq!(encoded(&head.fields), "first\r\nhost: a\r\nX-Twice: 1\r\nEmpty: \r\nx-TWICE: 2\r\n\r\n");
    }

    #[test]
    fn what_is_set_takes_the_place_of_all_lines_with_its_name() {
        let mut fields = request("GET / HTTP/1.1\r\nx-a: 1\r\nHOST: b\r\nX-A: 2\r\nx-b: 3\r\nX-a: 4\r\n\r\n").fields;
        fields.set(HeaderName::from_static("x-a"), HeaderValue::from_static("5"));
        fields.set(header::HOST, HeaderValue::from_static("c"));
        fields.set(HeaderName::from_static("x-forwarded-for"), HeaderValue::from_static("6"));
        assert_eq!(encoded(&fields), "first\r\nx-a: 5\r\nHOST: c\r\nx-b: 3\r\nX-Forwarded-For: 6\r\n\r\n");
        fields.remove(&HeaderName::from_static("x-a"));
        fields.remove(&HeaderName::from_static("x-forwarded-for"));
        assert_eq!(encoded(&fields), "first\r\nHOST: c\r\nx-b: 3\r\n\r\n");
    }

    #[test]
    fn a_response_has_a_status_and_a_reason() {
        let bytes = b"HTTP/1.1 101 Web Socket\r\nUpgrade: websocket\r\n\r\n\x81\x00";
        let Parsed::Whole(head, length) = ResponseHead::parse(bytes) else { panic!("a whole head") };
        assert_eq!((head.status, head.reason, length), (101, "Web Socket", bytes.len() - 2));
        assert_eq!(head.fields.values(&header::UPGRADE).collect::<Vec<_>>(), [b"websocket"]);
    }

    #[test]
    fn a_head_that_comes_byte_by_byte_is_parsed_twice() {
        for whole in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"GET / HTTP/1.1\nHost: a\n\n"] {
            let parsed_at: Vec<usize> = (0..whole.len()).filter(|&new| may_end(&whole[..=new], new)).collect();
            assert_eq!(parsed_at, [0, whole.len() - 1]);
        }
        assert!(may_end(b"\n\n\x81", 1));
    }

    #[test]
    fn half_a_head_is_one_in_time_and_what_is_none_never() {
        let whole = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for end in 0..whole.len() {
            assert!(matches!(RequestHead::parse(&whole.as_bytes()[..end]), Parsed::Partial), "{end}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MOST_LINES + 1));
        for bytes in ["\x16\x03\x01", "GET / HTTP/1.1\r\na b: c\r\n", "GET / HTTP/1.1\r\na: \0\r\n", many.as_str()] {
            assert!(matches!(RequestHead::parse(bytes.as_bytes()), Parsed::Other), "{bytes:?}");
        }
        assert!(matches!(ResponseHead::parse(b"220 mail.example.com\r\n"), Parsed::Other));
    }
}
