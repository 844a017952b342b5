//! Label values from closed sets, apart from those that the protocol's own types name.

use std::borrow::Cow;

/// Why an upgrade request did not become a session (`cause` of `websocket_handshake_failures_total`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeFailure {
    /// The request was refused as malformed (400).
    BadRequest,
    /// No route matched (404).
    NoRoute,
    /// The server answered other than 101.
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
    /// The server's answer is no HTTP, or a 101 that does not fit (502).
    UpstreamInvalid,
    /// The client left before it could be answered.
    ClientGone,
}

impl HandshakeFailure {
    /// Every cause.
    pub const ALL: [Self; 11] = [
        Self::BadRequest,
        Self::NoRoute,
        Self::Rejected,
        Self::Draining,
        Self::UpstreamRefused,
        Self::UpstreamUnreachable,
        Self::UpstreamTimeout,
        Self::UpstreamTls,
        Self::UpstreamReset,
        Self::UpstreamInvalid,
        Self::ClientGone,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::NoRoute => "no_route",
            Self::Rejected => "rejected",
            Self::Draining => "draining",
            Self::UpstreamRefused => "upstream_refused",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamTls => "upstream_tls",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamInvalid => "upstream_invalid",
            Self::ClientGone => "client_gone",
        }
    }
}

/// What became of an upgrade request that was answered (`outcome` of `websocket_handshake_duration_seconds`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeOutcome {
    /// The server's 101 was sent to the client.
    Upgraded,
    /// The server's answer, other than 101, was sent to the client.
    Rejected,
    /// closewatch had to answer itself.
    Failed,
}

impl HandshakeOutcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Upgraded, Self::Rejected, Self::Failed];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Upgraded => "upgraded",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }
}

/// Why an accepted connection came to no request (`reason` of `closewatch_connections_rejected_total`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// A limit on connections was reached.
    Limit,
    /// The TLS handshake failed.
    Tls,
    /// The PROXY protocol's header is missing or malformed.
    ProxyProtocol,
    /// No whole request head came in time.
    Timeout,
}

impl RejectReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Limit, Self::Tls, Self::ProxyProtocol, Self::Timeout];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Tls => "tls",
            Self::ProxyProtocol => "proxy_protocol",
            Self::Timeout => "timeout",
        }
    }
}

/// `clean` as a label value.
pub(super) const fn clean(clean: bool) -> &'static str {
    if clean { "true" } else { "false" }
}

/// An HTTP status as a label value. HTTP has no more classes (RFC 9110, 15), but a server may write any three digits.
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
    fn a_status_is_its_digits_where_http_has_such_a_class() {
        for (code, label) in [(100, "100"), (101, "101"), (200, "200"), (404, "404"), (599, "599")] {
            assert_eq!(status(code), label);
        }
        for code in [0, 99, 600, 999, u16::MAX] {
            assert_eq!(status(code), "other", "{code}");
        }
    }
}
