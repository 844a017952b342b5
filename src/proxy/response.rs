//! Answers of closewatch's own, and the body type of all answers.

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{
    Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
};

/// Either the server's body, streamed, or a line of closewatch's own.
pub(super) type Body = Either<Incoming, Full<Bytes>>;

/// An answer of closewatch's own: one line that says what is wrong.
pub(super) fn refusal(status: StatusCode, line: &str) -> Response<Body> {
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
pub(super) fn draining() -> Response<Body> {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, "closewatch is draining; try another instance");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// An answer without a body, which takes the place of one that was already sent in another way.
pub(super) fn empty() -> Body {
    Either::Right(Full::default())
}
