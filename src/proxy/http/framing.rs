//! Where the body of a request ends (RFC 9112, 6 and 7.1).

use hyper::header;

use crate::proxy::{forwarding_headers::HeaderFields, upgrade::raw_head::RequestHead};

/// The part of a request's body that is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
}

/// The place of the next byte in a body of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// In the digits of a chunk's size.
    Size(u64),
    /// Behind these digits, in the same line.
    Extension(u64),
    /// In a chunk, with so many bytes and its line break to come.
    Data(u64),
    /// In the trailer section, in a line that has bytes or has none yet.
    Trailer { is_empty_line: bool },
    /// Behind the body.
    Over,
}

impl BodyFraming {
    pub(crate) const EMPTY: Self = Self::Length(0);

    /// The framing of a request's body.
    ///
    /// # Errors
    ///
    /// Two recipients could see different ends of the body: this is how requests are smuggled (RFC 9112, 11.2).
    pub(crate) fn of(request: &RequestHead<'_>) -> Result<Self, &'static str> {
        let mut codings = request.fields.values(&header::TRANSFER_ENCODING);
        let mut lengths = request.fields.values(&header::CONTENT_LENGTH);
        match (codings.next(), lengths.next()) {
            (None, None) => Ok(Self::EMPTY),
            (None, Some(length)) => match (parse_length(length), lengths.next()) {
                (Some(length), None) => Ok(Self::Length(length)),
                _ => Err("a request needs one Content-Length, in digits (RFC 9112, 6.3)"),
            },
            (Some(_), Some(_)) => {
                Err("a request must not have both Content-Length and Transfer-Encoding (RFC 9112, 6.3)")
            }
            (Some(_), None) if !request.is_http_11 => Err("HTTP/1.0 has no Transfer-Encoding (RFC 9112, 6.1)"),
            (Some(coding), None) if codings.next().is_none() && coding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Self::Chunked(Chunks::Size(0)))
            }
            (Some(_), None) => Err("chunked is the only transfer coding that closewatch reads"),
        }
    }

    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks::Over))
    }

    /// Moves behind the bytes that belong to the body, and returns their number.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Length(length) => take(length, bytes),
            Self::Chunked(chunks) => {
                let mut count = 0;
                while count < bytes.len() && *chunks != Chunks::Over {
                    count += chunks.advance(&bytes[count..]);
                }
                count
            }
        }
    }
}

impl Chunks {
    /// Moves behind the chunk's data, or else behind one byte. Returns the number of bytes.
    ///
    /// The HTTP library judges the syntax. If it reads a malformed body otherwise, the connection ends: see
    /// [`super::handback`].
    fn advance(&mut self, bytes: &[u8]) -> usize {
        if let Self::Data(length) = self {
            let count = take(length, bytes);
            if *length == 0 {
                *self = Self::Size(0);
            }
            return count;
        }
        *self = match (*self, bytes[0]) {
            (Self::Size(0) | Self::Extension(0), b'\n') => Self::Trailer { is_empty_line: true },
            (Self::Size(size) | Self::Extension(size), b'\n') => Self::Data(size.saturating_add(2)),
            (Self::Size(size), byte) => match char::from(byte).to_digit(16) {
                Some(digit) => Self::Size(size.saturating_mul(16).saturating_add(digit.into())),
                None => Self::Extension(size),
            },
            (Self::Trailer { is_empty_line: true }, b'\n') => Self::Over,
            (Self::Trailer { .. }, b'\n') => Self::Trailer { is_empty_line: true },
            (Self::Trailer { is_empty_line }, byte) => Self::Trailer { is_empty_line: is_empty_line && byte == b'\r' },
            (other, _) => other,
        };
        1
    }
}

fn parse_length(value: &[u8]) -> Option<u64> {
    // `u64::from_str` accepts a plus sign.
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// Takes as many of these bytes as are left, and returns their number.
fn take(left: &mut u64, bytes: &[u8]) -> usize {
    let count = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *left -= count as u64;
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proxy::upgrade::raw_head::Parsed;

    fn framing(version: &str, headers: &str) -> Result<BodyFraming, &'static str> {
        let head = format!("POST / HTTP/{version}\r\n{headers}\r\n");
        let Parsed::Whole(request, _) = RequestHead::parse(head.as_bytes()) else { panic!("a whole head: {head}") };
        BodyFraming::of(&request)
    }

    #[test]
    fn headers_frame_the_body() {
        let chunked = BodyFraming::Chunked(Chunks::Size(0));
        for (headers, expected) in [
            ("Host: a\r\n", BodyFraming::EMPTY),
            ("Content-Length: 0\r\n", BodyFraming::EMPTY),
            ("content-length: 0017\r\n", BodyFraming::Length(17)),
            ("Transfer-Encoding: Chunked\r\n", chunked),
        ] {
            assert_eq!(framing("1.1", headers), Ok(expected), "{headers}");
        }
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for headers in [
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding:\r\n",
        ] {
            assert!(framing("1.1", headers).is_err(), "{headers}");
        }
        assert!(framing("1.0", "Transfer-Encoding: chunked\r\n").is_err());
    }

    #[test]
    fn body_ends_at_its_last_byte_however_it_comes() {
        let next = "GET / HTTP/1.1\r\n\r\n";
        let chunked = BodyFraming::Chunked(Chunks::Size(0));
        for (start, body) in [
            (BodyFraming::Length(5), "hello"),
            (chunked, "0\r\n\r\n"),
            (chunked, "5\r\nhello\r\n0\r\n\r\n"),
            (chunked, "1A;name=\"0\"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n0\r\n\r\n"),
            (chunked, "5\r\nhello\r\n000\r\nX-Sum: 1\r\nX-Empty:\r\n\r\n"),
            (chunked, "5 \nhello\r\n0\n\n"),
        ] {
            for piece in [1, 2, 7, 1000] {
                let (mut framing, mut count) = (start, 0);
                let bytes = [body, next].concat();
                for piece in bytes.as_bytes().chunks(piece) {
                    count += framing.advance(piece);
                    assert_eq!(framing.is_over(), count == body.len(), "{count} bytes of {body:?}");
                }
                assert_eq!(count, body.len(), "{body:?} in pieces of {piece}");
            }
        }
    }

    proptest! {
        #[test]
        fn body_ends_at_the_same_byte_in_any_pieces(bytes in "[0-2a\r\n; ]{0,60}", length in 1_usize..8) {
            let chunked = BodyFraming::Chunked(Chunks::Size(0));
            let (mut whole, mut pieces, mut count) = (chunked, chunked, 0);
            for piece in bytes.as_bytes().chunks(length) {
                count += pieces.advance(piece);
            }
            prop_assert_eq!(whole.advance(bytes.as_bytes()), count);
            prop_assert_eq!(whole, pieces);
        }
    }

    #[test]
    fn endless_body_is_never_over() {
        let mut framing = BodyFraming::Chunked(Chunks::Size(0));
        let size = "f".repeat(40);
        assert_eq!(framing.advance(size.as_bytes()), size.len());
        let data = [b"\r\n".as_slice(), &[7; 1000]].concat();
        assert_eq!(framing.advance(&data), data.len());
        assert!(!framing.is_over());
        assert_eq!(BodyFraming::Length(u64::MAX).advance(&data), data.len());
    }
}
