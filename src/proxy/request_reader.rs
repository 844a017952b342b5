//! Finds the head of the next request in the bytes of a connection, or the reason why there is none. No I/O.

use bytes::{Buf, BytesMut};
use hyper::StatusCode;

use super::upgrade::raw_head::{Parsed, RequestHead, may_end};
use crate::metrics::RejectReason;

/// The first byte of a TLS handshake (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// The beginning of HTTP/2 (RFC 9113, 3.4), up to the first byte of its version.
const HTTP_2: &[u8] = b"PRI * HTTP/2";

/// Reads one head.
#[derive(Debug)]
pub(super) struct RequestReader {
    /// The largest head.
    limit: usize,
    /// Bytes that were searched already.
    searched: usize,
}

/// Bytes that are no request head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Something else.
    Malformed,
    Tls,
    Http2,
    /// The request line alone is above the limit.
    LineTooLong,
    /// The head is above the limit.
    HeadTooLarge,
}

impl RequestReader {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, searched: 0 }
    }

    /// Looks at the bytes that have come. Returns the length of the head, if it is complete. Removes empty lines before it.
    pub(super) fn read(&mut self, bytes: &mut BytesMut) -> Result<Option<usize>, Unreadable> {
        if skip_empty_lines(bytes) {
            self.searched = 0;
        }
        if bytes.len() > self.searched && may_end(bytes, self.searched) {
            match RequestHead::parse(bytes) {
                Parsed::Partial => {}
                Parsed::Whole(_, length) if length <= self.limit => return Ok(Some(length)),
                Parsed::Whole(..) => return Err(self.too_large(bytes)),
                Parsed::Other => return Err(foreign(bytes)),
            }
        }
        self.searched = bytes.len();
        if bytes.len() < self.limit { Ok(None) } else { Err(self.too_large(bytes)) }
    }

    fn too_large(&self, bytes: &[u8]) -> Unreadable {
        let ends_in_time = bytes.iter().take(self.limit).any(|byte| *byte == b'\n');
        if ends_in_time { Unreadable::HeadTooLarge } else { Unreadable::LineTooLong }
    }
}

impl Unreadable {
    /// The status and a line for the client.
    pub(super) fn refusal(self) -> (StatusCode, &'static str) {
        match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, "the request is malformed"),
            Self::Tls => (StatusCode::BAD_REQUEST, "this port expects HTTP without TLS"),
            Self::Http2 => (StatusCode::BAD_REQUEST, "this port expects HTTP/1.1"),
            Self::LineTooLong => (StatusCode::URI_TOO_LONG, "the request line is too long"),
            Self::HeadTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request head is too large"),
        }
    }

    pub(super) fn reason(self) -> RejectReason {
        match self {
            Self::Malformed => RejectReason::Malformed,
            Self::Tls => RejectReason::TlsOnPlain,
            Self::Http2 => RejectReason::Http2OnPlain,
            Self::LineTooLong | Self::HeadTooLarge => RejectReason::HeadTooLarge,
        }
    }
}

/// Removes the empty lines that a client may send before a request (RFC 9112, 2.2). Reports whether there were any.
pub(super) fn skip_empty_lines(bytes: &mut BytesMut) -> bool {
    let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let breaks = bytes.iter().take_while(|byte| is_break(byte)).count();
    // A carriage return behind the last line feed may begin another empty line.
    let lines = bytes[..breaks].iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    bytes.advance(lines);
    lines > 0
}

fn foreign(bytes: &[u8]) -> Unreadable {
    match bytes.first() {
        Some(&TLS_HANDSHAKE) => Unreadable::Tls,
        _ if bytes.starts_with(HTTP_2) => Unreadable::Http2,
        _ => Unreadable::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 100;

    /// Feeds pieces of this length until there is a result, and returns it with the bytes that are left.
    fn read(bytes: &[u8], length: usize) -> (Result<Option<usize>, Unreadable>, BytesMut) {
        let (mut reader, mut read) = (RequestReader::new(LIMIT), BytesMut::new());
        for piece in bytes.chunks(length) {
            read.extend_from_slice(piece);
            match reader.read(&mut read) {
                Ok(None) => {}
                result => return (result, read),
            }
        }
        (Ok(None), read)
    }

    #[test]
    fn head_is_found_however_it_comes() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for before in ["", "\r\n", "\n\r\n\n"] {
            for length in [1, 2, 5, 1000] {
                let bytes = [before, head, "\u{1}"].concat();
                let (result, left) = read(bytes.as_bytes(), length);
                assert_eq!(result, Ok(Some(head.len())), "{before:?} in pieces of {length}");
                assert!(left.starts_with(head.as_bytes()));
            }
        }
        assert_eq!(read(b"\r\n\r\nGET / HT", 3).0, Ok(None));
    }

    proptest! {
        /// A fault may be found later, since a head is parsed only if its end may have come.
        #[test]
        fn same_head_is_found_in_any_pieces(
            bytes in r"(GET |/| HTTP/1.1|\r\n|\n|[A-Z]: ?[a-z]|.){0,12}",
            length in 1_usize..8,
        ) {
            let (whole, pieces) = (read(bytes.as_bytes(), 1000).0, read(bytes.as_bytes(), length).0);
            if whole.is_ok() || pieces != Ok(None) {
                prop_assert_eq!(whole.ok(), pieces.ok());
            }
        }
    }

    #[test]
    fn other_bytes_are_recognised() {
        let headers = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(LIMIT));
        let target = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(LIMIT));
        for (bytes, expected) in [
            (b"\x16\x03\x01\x02\x00".as_slice(), Unreadable::Tls),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Unreadable::Http2),
            (b"\0\0\0", Unreadable::Malformed),
            (b"GET / HTTP/1.1\r\nBroken header\r\n\r\n", Unreadable::Malformed),
            (b"GET / HTTP/9.9\r\n\r\n", Unreadable::Malformed),
            (headers.as_bytes(), Unreadable::HeadTooLarge),
            (&headers.as_bytes()[..LIMIT], Unreadable::HeadTooLarge),
            (target.as_bytes(), Unreadable::LineTooLong),
            (&target.as_bytes()[..LIMIT], Unreadable::LineTooLong),
        ] {
            for length in [1, 1000] {
                assert_eq!(read(bytes, length).0, Err(expected), "{:?}", String::from_utf8_lossy(bytes));
            }
        }
    }
}
