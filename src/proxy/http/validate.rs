//! Classifies requests, and refuses those that must not be forwarded.

use hyper::header;

use super::framing::BodyFraming;
use crate::{
    authority::host_in_header,
    proxy::{
        forwarding_headers::{HeaderFields, has, has_token, texts},
        upgrade::raw_head::{RequestHead, Target},
    },
};

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// An upgrade to WebSocket.
    Upgrade { has_body: bool },
    /// Anything else, with this body.
    Plain(BodyFraming),
}

/// Classifies a request. An upgrade uses GET and HTTP/1.1; its key and its version are the server's to judge.
///
/// # Errors
///
/// The request must not be forwarded, as a line for the client.
pub(crate) fn classify(request: &RequestHead<'_>) -> Result<RequestKind, &'static str> {
    let body = BodyFraming::of(request)?;
    match request.method {
        "CONNECT" => Err("CONNECT is for forward proxies; closewatch is a reverse proxy"),
        "GET" if request.is_http_11 && asks_for_websocket(&request.fields) => {
            Ok(RequestKind::Upgrade { has_body: !body.is_over() })
        }
        _ => Ok(RequestKind::Plain(body)),
    }
}

/// Whether a plain request was an upgrade before a hop in front removed headers, or made it HTTP/1.0.
pub(crate) fn has_lost_headers(request: &RequestHead<'_>) -> bool {
    request.method == "GET" && has(&request.fields, &header::SEC_WEBSOCKET_KEY)
}

/// Whether a message is for a WebSocket (RFC 6455, 4.1 and 4.2.2).
pub(crate) fn asks_for_websocket(headers: &impl HeaderFields) -> bool {
    has_token(headers, &header::CONNECTION, "upgrade") && has_token(headers, &header::UPGRADE, "websocket")
}

/// The target of a request and the host that it is for, without port. The host is empty if an HTTP/1.0 request names none.
///
/// # Errors
///
/// There is not exactly one valid host, or the target has no path, as a line for the client.
pub(crate) fn destination<'r, 'h: 'r>(request: &'r RequestHead<'h>) -> Result<(Target<'h>, &'r str), &'static str> {
    let target = request.target().ok_or("the request target is no path and no URL (RFC 9112, 3.2)")?;
    let mut hosts = request.fields.values(&header::HOST);
    let host = match (target.authority, hosts.next(), hosts.next()) {
        // A target in absolute form overrules the Host header (RFC 9112, 3.2.2).
        (Some(authority), _, _) => Some(authority),
        (None, None, _) if !request.is_http_11 => Some(""),
        (None, None, _) => return Err("a request needs a Host header (RFC 9112, 3.2)"),
        (None, Some(_), None) => texts(&request.fields, &header::HOST).next(),
        (None, Some(_), Some(_)) => return Err("a request must have exactly one Host header (RFC 9112, 3.2)"),
    };
    let host = host.and_then(host_in_header).ok_or("the Host header names no host (RFC 9110, 7.2)")?;
    Ok((target, host))
}
