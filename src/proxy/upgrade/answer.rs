//! Judges the server's answer to an upgrade request.

use bytes::{Buf, BytesMut};
use hyper::header::{
    CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::raw_head::{Parsed, ResponseHead, may_end};
use crate::proxy::{
    forwarding_headers::{HeaderFields, has, joined, strip_to_upgrade},
    http::validate::asks_for_websocket,
};

/// The largest head of an answer, in bytes: as large as HTTP libraries accept.
pub(crate) const MAX_HEAD: usize = 400 * 1024;

/// The most 1xx responses before the final one.
pub(crate) const MAX_INFORMATIONAL: usize = 100;

/// The beginning of a server's answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A head whose end is still to come.
    Partial,
    /// A 101, whose head has this length.
    Switching(usize),
    /// Another final response, whose head has so many header lines.
    Rejected { lines: usize },
    /// No answer that closewatch can forward.
    Invalid(&'static str),
}

/// Finds the final response in the bytes of an answer.
#[derive(Debug, Default)]
pub(crate) struct AnswerReader {
    /// Bytes that were searched already.
    searched: usize,
    informational: usize,
}

impl AnswerReader {
    /// Looks at the bytes that have come. Informational responses are removed: no client of a WebSocket asks for them.
    pub(crate) fn judge(&mut self, bytes: &mut BytesMut) -> Answer {
        while may_end(bytes, self.searched) {
            match ResponseHead::parse(bytes) {
                Parsed::Partial => break,
                Parsed::Other => return Answer::Invalid("the upstream's answer is not HTTP"),
                Parsed::Whole(ResponseHead { status: 101, .. }, length) => return Answer::Switching(length),
                Parsed::Whole(ResponseHead { status: 100..200, .. }, length) => {
                    bytes.advance(length);
                    self.searched = 0;
                    self.informational += 1;
                    if self.informational > MAX_INFORMATIONAL {
                        return Answer::Invalid("the upstream sent too many 1xx responses");
                    }
                }
                Parsed::Whole(response, _) => return Answer::Rejected { lines: response.fields.len() },
            }
        }
        self.searched = bytes.len();
        if bytes.len() < MAX_HEAD {
            Answer::Partial
        } else {
            Answer::Invalid("the head of the upstream's answer is too large")
        }
    }
}

/// The parts of a client's request that the server may choose from.
#[derive(Debug)]
pub(crate) struct Offer {
    /// The `Sec-WebSocket-Accept` that fits the client's key, if it sent one key.
    accept: Option<String>,
    protocols: Option<String>,
    extensions: Option<String>,
}

impl Offer {
    /// The offer of an upgrade request.
    pub(crate) fn of(request: &impl HeaderFields) -> Self {
        let mut keys = request.values(&SEC_WEBSOCKET_KEY);
        let accept = match (keys.next(), keys.next()) {
            (Some(key), None) => Some(derive_accept_key(key)),
            // The server judges the key.
            _ => None,
        };
        let protocols = joined(request, &SEC_WEBSOCKET_PROTOCOL);
        Self { accept, protocols, extensions: joined(request, &SEC_WEBSOCKET_EXTENSIONS) }
    }

    /// Why a 101 does not fit (RFC 6455, 4.1): every client would fail the connection.
    pub(crate) fn misfit(&self, response: &impl HeaderFields) -> Option<&'static str> {
        if !asks_for_websocket(response) {
            return Some("the upstream switched to a protocol that is not WebSocket");
        }
        let fits_key = |accept: &String| response.values(&SEC_WEBSOCKET_ACCEPT).eq([accept.as_bytes()]);
        if !self.accept.as_ref().is_none_or(fits_key) {
            return Some("the upstream's Sec-WebSocket-Accept does not fit the client's key");
        }
        if has(response, &SEC_WEBSOCKET_PROTOCOL) && !self.has_protocol_of(response) {
            return Some("the upstream chose a subprotocol that the client did not offer");
        }
        if !self.has_extensions_of(response) {
            return Some("the upstream chose an extension that the client did not offer");
        }
        None
    }

    fn has_protocol_of(&self, response: &impl HeaderFields) -> bool {
        let chosen = joined(response, &SEC_WEBSOCKET_PROTOCOL);
        let mut offered = self.protocols.iter().flat_map(|list| list.split(',')).map(str::trim);
        chosen.is_some_and(|chosen| offered.any(|protocol| protocol == chosen))
    }

    fn has_extensions_of(&self, response: &impl HeaderFields) -> bool {
        let chosen = joined(response, &SEC_WEBSOCKET_EXTENSIONS);
        let offered = self.extensions.as_deref().unwrap_or_default();
        let is_offered = |name: &str| extensions(offered).any(|offered| offered.eq_ignore_ascii_case(name));
        chosen.is_none_or(|chosen| extensions(&chosen).all(is_offered))
    }
}

/// The names in a list of extensions (RFC 6455, 9.1). A parameter in quotes may hold a comma.
fn extensions(list: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let ends_extension = move |character| {
        is_quoted ^= character == '"';
        character == ',' && !is_quoted
    };
    let names = list.split(ends_extension).filter_map(|extension| extension.split(';').next());
    names.map(str::trim).filter(|name| !name.is_empty())
}

/// The head of a 101 as the client gets it.
pub(crate) fn for_client(mut response: ResponseHead<'_>) -> Vec<u8> {
    strip_to_upgrade(&mut response.fields);
    // A 101 has no body and must not have a length (RFC 9110, 8.6).
    response.fields.remove(&CONTENT_LENGTH);
    response.fields.encode(&format!("HTTP/1.1 101 {}", response.reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::upgrade::raw_head::RequestHead;

    const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

    fn judge(pieces: &[&str]) -> Answer {
        let (mut reader, mut bytes) = (AnswerReader::default(), BytesMut::new());
        let mut last = Answer::Partial;
        for piece in pieces {
            assert_eq!(last, Answer::Partial, "before {piece:?}");
            bytes.extend_from_slice(piece.as_bytes());
            last = reader.judge(&mut bytes);
        }
        last
    }

    #[test]
    fn final_head_is_found_however_it_comes() {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let refused = "HTTP/1.1 401 Unauthorized\r\nA: b\r\nContent-Length: 9\r\n\r\n";
        for (before, head, expected) in [
            ("", SWITCHING, Answer::Switching(SWITCHING.len())),
            (hints, SWITCHING, Answer::Switching(SWITCHING.len())),
            ("", refused, Answer::Rejected { lines: 2 }),
            (hints, refused, Answer::Rejected { lines: 2 }),
        ] {
            let answer = [before, head].concat();
            for length in [1, 7, 1000] {
                let pieces: Vec<&str> =
                    answer.as_bytes().chunks(length).map(|piece| std::str::from_utf8(piece).unwrap()).collect();
                assert_eq!(judge(&pieces), expected);
            }
        }
    }

    #[test]
    fn answer_that_is_not_http_is_invalid() {
        let endless = format!("HTTP/1.1 101 Switching Protocols\r\nX: {}", "x".repeat(MAX_HEAD));
        for answer in ["220 mail.example.com ESMTP\r\n", "\0\u{1}\u{2}", "GET / HTTP/1.1\r\n\r\n", &endless] {
            assert!(matches!(judge(&[answer]), Answer::Invalid(_)), "{answer:.60}");
        }
    }

    #[test]
    fn informational_responses_are_bounded() {
        let flood = "HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_INFORMATIONAL);
        assert_eq!(judge(&[&flood, SWITCHING]), Answer::Switching(SWITCHING.len()));
        assert!(matches!(judge(&[&flood, "HTTP/1.1 100 Continue\r\n\r\n"]), Answer::Invalid(_)));
    }

    /// Headers of the request, headers of the 101, and the beginning of the fault.
    const OFFERS: &[(&str, &str, &str)] = &[
        ("", "", ""),
        ("Sec-WebSocket-Protocol: a, b\r\n", "", ""),
        ("Sec-WebSocket-Protocol: a, b\r\n", "Sec-WebSocket-Protocol: b\r\n", ""),
        ("Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b\r\n", "Sec-WebSocket-Protocol: b\r\n", ""),
        ("", "Sec-WebSocket-Protocol: b\r\n", "the upstream chose a subprotocol"),
        ("Sec-WebSocket-Protocol: a, b\r\n", "Sec-WebSocket-Protocol: B\r\n", "the upstream chose a subprotocol"),
        ("Sec-WebSocket-Protocol: a, b\r\n", "Sec-WebSocket-Protocol: a, b\r\n", "the upstream chose a subprotocol"),
        ("Sec-WebSocket-Protocol: a\r\n", "Sec-WebSocket-Protocol:\r\n", "the upstream chose a subprotocol"),
        ("Sec-WebSocket-Extensions: x; a=\"1,y\", z\r\n", "Sec-WebSocket-Extensions: z, X; b\r\n", ""),
        (
            "Sec-WebSocket-Extensions: x; a=\"1,y\"\r\n",
            "Sec-WebSocket-Extensions: y\r\n",
            "the upstream chose an extension",
        ),
        ("", "Sec-WebSocket-Extensions: permessage-deflate\r\n", "the upstream chose an extension"),
        ("", "Sec-WebSocket-Extensions:\r\n", ""),
    ];

    #[test]
    fn server_chooses_only_what_the_client_offered() {
        for (offered, chosen, expected) in OFFERS {
            let request = format!("GET / HTTP/1.1\r\n{offered}\r\n");
            let response = format!("HTTP/1.1 101 A\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{chosen}\r\n");
            assert_misfit(&request, &response, expected);
        }
    }

    #[test]
    fn accept_fits_the_key() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let (right, wrong) = ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "S3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let line = |name: &str, value: &str| format!("Sec-WebSocket-{name}: {value}\r\n");
        let misfit = "the upstream's Sec-WebSocket-Accept does not fit";
        for (keys, accepts, expected) in [
            (line("Key", key), line("Accept", right), ""),
            (line("Key", key), line("Accept", wrong), misfit),
            (line("Key", key), String::new(), misfit),
            (line("Key", key), line("Accept", right) + &line("Accept", right), misfit),
            (String::new(), line("Accept", right), ""),
            (line("Key", key) + &line("Key", "other"), String::new(), ""),
        ] {
            let request = format!("GET / HTTP/1.1\r\n{keys}\r\n");
            let response = format!("HTTP/1.1 101 A\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n{accepts}\r\n");
            assert_misfit(&request, &response, expected);
        }
        assert_misfit("GET / HTTP/1.1\r\n\r\n", SWITCHING, "the upstream switched to a protocol");
    }

    fn assert_misfit(request: &str, response: &str, expected: &str) {
        let Parsed::Whole(sent, _) = RequestHead::parse(request.as_bytes()) else { panic!("{request}") };
        let Parsed::Whole(received, _) = ResponseHead::parse(response.as_bytes()) else { panic!("{response}") };
        let misfit = Offer::of(&sent.fields).misfit(&received.fields).unwrap_or_default();
        assert!(
            misfit.starts_with(expected) && misfit.is_empty() == expected.is_empty(),
            "{request}{response}{misfit}"
        );
    }
}
