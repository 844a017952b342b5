//! Responses to the client: the server's, as they are forwarded, and closewatch's own.

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{
    HeaderMap, Response, StatusCode, Version,
    body::Incoming,
    header::{self, HeaderValue},
};

use crate::proxy::forwarding_headers::{restore_upgrade_to, strip_hop_by_hop, tokens};

/// Either the server's body, streamed, or a line of closewatch's own.
pub(crate) type Body = Either<Incoming, Full<Bytes>>;

/// The server's response as the client gets it.
pub(crate) fn forwarded(mut response: Response<Incoming>) -> Response<Body> {
    let is_about_upgrades = response.status() == StatusCode::UPGRADE_REQUIRED;
    let headers = response.headers_mut();
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // A length beside it is void (RFC 9112, 6.3), and hyper would refuse to send both.
        headers.remove(header::CONTENT_LENGTH);
    }
    let offered = headers.get(header::UPGRADE).cloned();
    let codings = kept_codings(headers);
    strip_hop_by_hop(headers);
    if let Some(codings) = codings {
        headers.insert(header::TRANSFER_ENCODING, codings);
    }
    if is_about_upgrades && let Some(protocols) = offered {
        // A 426 must name the protocols that the client may upgrade to (RFC 9110, 15.5.22).
        restore_upgrade_to(protocols, headers);
    }
    *response.version_mut() = Version::HTTP_11;
    response.map(Either::Left)
}

/// The transfer codings of a response that has others than `chunked`. Only `chunked` ends here: a body in another coding
/// passes as it came, and its receiver must know. hyper leaves the header out for HTTP/1.0, which has no such header.
fn kept_codings(headers: &HeaderMap) -> Option<HeaderValue> {
    let codings: Vec<&str> = tokens(headers, &header::TRANSFER_ENCODING).filter(|coding| !coding.is_empty()).collect();
    let is_plain = codings.iter().all(|coding| coding.eq_ignore_ascii_case("chunked"));
    (!is_plain).then(|| HeaderValue::try_from(codings.join(", ")).ok()).flatten()
}

/// A response of closewatch's own: one line of text.
pub(crate) fn refusal(status: StatusCode, line: &str) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::from(format!("{line}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::BAD_REQUEST {
        // If a message is malformed, nothing behind it can be trusted.
        close_after(&mut response);
    }
    response
}

/// The response to an upgrade request while closewatch drains.
pub(crate) fn draining() -> Response<Body> {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, "closewatch is draining; try another instance");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Whether closewatch itself made a response.
pub(crate) fn is_own(response: &Response<Body>) -> bool {
    matches!(response.body(), Either::Right(_))
}

/// Makes a response the last one of its connection.
pub(crate) fn close_after(response: &mut Response<Body>) {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}
