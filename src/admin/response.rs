//! Answers.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response, StatusCode,
    body::Frame,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
    },
};

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

const JSON: &str = "application/json";

/// A line for people.
pub(super) fn line(status: StatusCode, line: &str) -> Response<Body> {
    whole(status, "text/plain; charset=utf-8", format!("{line}\n"))
}

/// 405 (RFC 9110, 15.5.6): `allowed` are the methods that the resource has.
pub(super) fn method_not_allowed(allowed: &'static str) -> Response<Body> {
    let refusal = line(StatusCode::METHOD_NOT_ALLOWED, &format!("this takes {allowed} only"));
    with_header(refusal, ALLOW, allowed)
}

pub(super) fn html(page: &'static str) -> Response<Body> {
    let response = whole(StatusCode::OK, "text/html; charset=utf-8", page);
    with_header(response, CONTENT_SECURITY_POLICY, "default-src 'none'")
}

pub(super) fn json(json: impl Into<Bytes>) -> Response<Body> {
    whole(StatusCode::OK, JSON, json)
}

/// JSON that is made while it is sent.
pub(super) fn json_stream(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    streamed(JSON, chunks)
}

/// Server-sent events (WHATWG HTML, 9.2).
pub(super) fn events(events: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    streamed("text/event-stream", events)
}

pub(super) fn whole(status: StatusCode, content_type: &'static str, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = response(content_type, Full::new(content.into()).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn streamed(content_type: &'static str, chunks: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    use futures_util::StreamExt;
    response(content_type, StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))).boxed_unsync())
}

fn response(content_type: &'static str, body: Body) -> Response<Body> {
    let response = with_header(Response::new(body), CONTENT_TYPE, content_type);
    let response = with_header(response, X_CONTENT_TYPE_OPTIONS, "nosniff");
    with_header(response, CACHE_CONTROL, "no-store")
}

fn with_header(mut response: Response<Body>, name: HeaderName, value: &'static str) -> Response<Body> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}
