//! Label values from closed sets, except those that the protocol's own types name.

use std::borrow::Cow;

use strum::{IntoStaticStr, VariantArray};

/// Why an upgrade request did not become a session (`cause` of `websocket_handshake_failures_total`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum HandshakeFailure {
    /// The request is malformed (400).
    BadRequest,
    /// No route matches (404).
    NoRoute,
    /// The server's answer was not a 101.
    Rejected,
    /// closewatch is draining (503).
    Draining,
    /// The server's port is closed (502).
    UpstreamRefused,
    /// There is no way to the server: no route, no such name, no such Unix socket (502).
    UpstreamUnreachable,
    /// The server did not answer in time (504).
    UpstreamTimeout,
    /// The TLS handshake with the server failed (502).
    UpstreamTls,
    /// The server ended the connection before its answer (502).
    UpstreamReset,
    /// closewatch itself has no file descriptor, port or memory left (503).
    OutOfResources,
    /// The server's answer is not HTTP, or is a 101 that does not fit the request (502).
    UpstreamInvalid,
    /// The client left before the answer.
    ClientGone,
    /// The request is no upgrade any more, because a hop in front removed headers. It passed as a plain request.
    HeadersLost,
}

impl HandshakeFailure {
    /// The label value.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How an upgrade request was answered (`outcome` of `websocket_handshake_duration_seconds`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum HandshakeOutcome {
    /// The client got the server's 101.
    Upgraded,
    /// The client got the server's answer, which was not a 101.
    Rejected,
    /// closewatch itself answered.
    Failed,
}

impl HandshakeOutcome {
    /// The label value.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Why an accepted connection never brought a request (`reason` of `closewatch_connections_rejected_total`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum RejectReason {
    /// A limit on connections was reached.
    Limit,
    /// The TLS handshake failed.
    Tls,
    /// The PROXY header is missing or malformed.
    ProxyProtocol,
    /// The request head was not complete in time.
    Timeout,
    /// The bytes are no HTTP.
    Malformed,
    /// The bytes are a TLS handshake, on a listener without TLS.
    TlsOnPlain,
    /// The bytes are the beginning of HTTP/2, on a listener without it.
    Http2OnPlain,
    /// The request head is too large.
    HeadTooLarge,
}

impl RejectReason {
    /// The label value.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// `clean` as a label value.
pub(super) const fn clean(clean: bool) -> &'static str {
    if clean { "true" } else { "false" }
}

/// An HTTP status as a label value. A server may write any three digits, but HTTP has five classes (RFC 9110, 15).
pub(super) fn status(status: u16) -> Cow<'static, str> {
    match status {
        101 => "101".into(),
        200 => "200".into(),
        100..=599 => status.to_string().into(),
        _ => "other".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_label_is_digits_inside_http_classes() {
        for (code, label) in [(100, "100"), (101, "101"), (200, "200"), (404, "404"), (599, "599")] {
            assert_eq!(status(code), label);
        }
        for code in [0, 99, 600, 999, u16::MAX] {
            assert_eq!(status(code), "other", "{code}");
        }
    }

    #[test]
    fn label_words_are_in_snake_case() {
        assert_eq!(HandshakeFailure::UpstreamUnreachable.as_str(), "upstream_unreachable");
        assert_eq!(HandshakeOutcome::Upgraded.as_str(), "upgraded");
        assert_eq!(RejectReason::ProxyProtocol.as_str(), "proxy_protocol");
    }
}
