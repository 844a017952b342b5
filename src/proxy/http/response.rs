//! Answers to the client: the server's, as they are passed on, and closewatch's own.

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

/// The server's answer as the client gets it.
pub(crate) fn passed_on(mut response: Response<Incoming>) -> Response<Body> {
    let is_about_upgrades = response.status() == StatusCode::UPGRADE_REQUIRED;
    let headers = response.headers_mut();
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // Where both stand the length is void (RFC 9112, 6.3), and hyper would refuse to send it.
        headers.remove(header::CONTENT_LENGTH);
    }
    let offered = headers.get(header::UPGRADE).cloned();
    let codings = kept_codings(headers);
    strip_hop_by_hop(headers);
    if let Some(codings) = codings {
        headers.insert(header::TRANSFER_ENCODING, codings);
    }
    if is_about_upgrades && let Some(protocols) = offered {
        // This answer must name what to upgrade to (RFC 9110, 15.5.22).
        restore_upgrade_to(protocols, headers);
    }
    *response.version_mut() = Version::HTTP_11;
    response.map(Either::Left)
}

/// The transfer codings of an answer that has more of them than `chunked`. Only that one ends here; a body in another
/// passes as it came, and its receiver must be told. Only HTTP/1.0 has no way to: there hyper leaves the header out.
fn kept_codings(headers: &HeaderMap) -> Option<HeaderValue> {
    let codings: Vec<&str> = tokens(headers, &header::TRANSFER_ENCODING).filter(|coding| !coding.is_empty()).collect();
    let is_plain = codings.iter().all(|coding| coding.eq_ignore_ascii_case("chunked"));
    (!is_plain).then(|| HeaderValue::try_from(codings.join(", ")).ok()).flatten()
}

/// An answer of closewatch's own: one line that says what is wrong.
pub(crate) fn refusal(status: StatusCode, line: &str) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::from(format!("{line}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::BAD_REQUEST {
        // Where the message's own frame is in doubt, nothing behind it can be trusted.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The answer to an upgrade request while closewatch drains.
pub(crate) fn draining() -> Response<Body> {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, "closewatch is draining; try another instance");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
