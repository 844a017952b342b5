//! What a request must be before anything is done with it.

use std::time::Duration;

use hyper::{
    Method, Request, Uri, Version,
    body::Incoming,
    header::{self, HeaderValue},
};

use super::second_look::Heads;
use crate::proxy::{
    forwarding_headers::{HeaderFields, has, has_token, texts},
    upgrade::raw_head::RequestHead,
};

/// The library's own lower bound for its buffer.
const MIN_BUFFER: usize = 8 * 1024;

/// What holds for the requests of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How long a client may take for its request head.
    pub(crate) head_timeout: Option<Duration>,
    /// How large that may be.
    pub(crate) head_bytes: usize,
}

impl Limits {
    /// How much may be read of a client before it is used.
    pub(crate) fn buffer(&self) -> usize {
        self.head_bytes.max(MIN_BUFFER)
    }
}

/// The host that a plain request is for, as [`host_of`] tells it.
///
/// # Errors
///
/// What is wrong with a request that must not be passed on.
pub(crate) fn checked_host(request: &mut Request<Incoming>, heads: &Heads) -> Result<String, &'static str> {
    refuse_doubtful_lengths(request, heads)?;
    if request.method() == Method::CONNECT {
        return Err("CONNECT is for forward proxies; closewatch stands before one service");
    }
    let target = request.uri().clone();
    let is_http_10 = request.version() == Version::HTTP_10;
    host_of(&target, request.headers_mut(), is_http_10)
}

/// The host that a request is for, in lower case and without its port; empty where an HTTP/1.0 request names none. A
/// target in absolute form overrules the Host header, which is made to say the same (RFC 9112, 3.2.2).
///
/// # Errors
///
/// Where it is not one host.
pub(crate) fn host_of(target: &Uri, fields: &mut impl HeaderFields, is_http_10: bool) -> Result<String, &'static str> {
    let authority = target.authority().map(|authority| HeaderValue::try_from(authority.as_str()));
    if let Some(Ok(host)) = authority {
        fields.set(header::HOST, host);
    }
    match fields.values(&header::HOST).count() {
        0 if is_http_10 => Ok(String::new()),
        0 => Err("a request needs a Host header (RFC 9112, 3.2)"),
        1 => {
            let name = texts(fields, &header::HOST).next().and_then(name_of);
            Ok(name.ok_or("the Host header names no host (RFC 9110, 7.2)")?.to_ascii_lowercase())
        }
        _ => Err("a request must have exactly one Host header (RFC 9112, 3.2)"),
    }
}

/// An upgrade to WebSocket, as far as closewatch judges it: key and version are the server's to judge.
pub(crate) fn is_upgrade(request: &Request<Incoming>) -> bool {
    request.method() == Method::GET && request.version() == Version::HTTP_11 && asks_for_websocket(request.headers())
}

/// The same of a head that came on its own. One that announces a body, or how long it is twice, is left to the library.
pub(crate) fn is_opening(head: &RequestHead<'_>) -> bool {
    let has_two_lengths = head.fields.values(&header::CONTENT_LENGTH).count() > 1;
    head.method == "GET"
        && head.is_http_11
        && asks_for_websocket(&head.fields)
        && !has_two_lengths
        && !has_body(&head.fields)
}

/// Whether a message is for a WebSocket (RFC 6455, 4.1 and 4.2.2).
pub(crate) fn asks_for_websocket(fields: &impl HeaderFields) -> bool {
    has_token(fields, &header::CONNECTION, "upgrade") && has_token(fields, &header::UPGRADE, "websocket")
}

/// Whether a request announces a body. `Content-Length: 0` is none.
pub(crate) fn has_body(fields: &impl HeaderFields) -> bool {
    has(fields, &header::TRANSFER_ENCODING) || fields.values(&header::CONTENT_LENGTH).any(|length| length != b"0")
}

/// The target as the server is to read it: path and query (RFC 9112, 3.2.1).
pub(crate) fn origin_form(target: &Uri) -> Uri {
    let target = target.path_and_query().map_or("/", |target| target.as_str());
    // A part of a valid target is one. Behind an authority the path may be empty.
    let origin_form = if target.starts_with('?') { format!("/{target}").parse() } else { target.parse() };
    origin_form.unwrap_or_default()
}

/// A Content-Length beside a Transfer-Encoding is how requests are smuggled (RFC 9112, 11.2). Of any other coding than
/// `chunked`, which ends here and begins anew, the server would not be told.
fn refuse_doubtful_lengths(request: &Request<Incoming>, heads: &Heads) -> Result<(), &'static str> {
    let two_lengths = heads.have_two_lengths(request.method().as_str());
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).into_iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(_), _) if two_lengths => {
            Err("a request must not have both Content-Length and Transfer-Encoding (RFC 9112, 6.3)")
        }
        (Some(coding), None) if coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(()),
        (Some(_), _) => Err("of all transfer codings only chunked is understood"),
    }
}

/// A Host header's value without the port, where both are what RFC 3986, 3.2.2 and 3.2.3 allow. Empty is allowed too: the
/// target of such a request has no host.
fn name_of(host: &str) -> Option<&str> {
    let (name, port) = match host.rsplit_once(':') {
        // The colons of an IPv6 address stand inside its brackets.
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    };
    let in_brackets = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_name = match in_brackets {
        Some(address) => !address.is_empty() && address.split(':').all(is_registered_name),
        None => is_registered_name(name),
    };
    (is_name && port.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

/// `reg-name` of RFC 3986, 3.2.2: unreserved characters, delimiters and percent-encoded bytes.
fn is_registered_name(text: &str) -> bool {
    let mut parts = text.split('%');
    let is_plain =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte));
    let is_encoded = |part: &str| part.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2 && is_plain(part);
    parts.next().is_some_and(is_plain) && parts.all(is_encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_valid_host_is_taken() {
        for (host, name) in [
            ("example.com", "example.com"),
            ("example.com:8080", "example.com"),
            ("example.com:", "example.com"),
            ("example.com.", "example.com."),
            ("my_service.internal:80", "my_service.internal"),
            ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
            ("caf%C3%a9.example:1", "caf%C3%a9.example"),
            ("127.0.0.1:9000", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[2001:db8::7]:443", "[2001:db8::7]"),
            ("[::ffff:192.0.2.7]:", "[::ffff:192.0.2.7]"),
            ("[fe80::1%25eth0]:80", "[fe80::1%25eth0]"),
            ("[v1.a:b]", "[v1.a:b]"),
            ("a~b!$&'()*+,;=", "a~b!$&'()*+,;="),
            ("", ""),
            (":80", ""),
        ] {
            assert_eq!(name_of(host), Some(name), "{host}");
        }
    }

    #[test]
    fn what_no_host_can_be_is_not() {
        for host in [
            "a b",
            "a\tb",
            "a, b",
            "a/b",
            "a\\b",
            "a?b",
            "a#b",
            "user@a",
            "a<b>",
            "a\"b",
            "a|b",
            "a^b",
            "a`b",
            "{a}",
            "a%",
            "a%4",
            "a%4g",
            "%zz",
            "a:b",
            "a:80x",
            "a:-1",
            "a:80:80",
            "::1",
            "[::1",
            "::1]",
            "[]",
            "[]:80",
            "[::1]x",
            "[::1]x:80",
            "[::1]:x",
            "x[::1]",
            "[[::1]]",
            "[::1 ]",
            "[a/b]",
        ] {
            assert_eq!(name_of(host), None, "{host}");
        }
    }
}
