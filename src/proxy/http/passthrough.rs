//! Plain HTTP requests on the WebSocket port: health checks, long-polling fallbacks, the service's own pages. They pass
//! through, streamed both ways, with connections kept alive on both sides.

use hyper::{Request, Response, StatusCode, Uri, body::Incoming};
use hyper_util::client::legacy;

use super::{
    response::{Body, passed_on, refusal},
    validate::origin_form,
};
use crate::{
    metrics::HandshakeFailure,
    proxy::{
        connector::ConnectError,
        forwarding_headers,
        proxy_protocol::Ends,
        routing::{Route, Routing},
    },
};

/// Passes a request on to its route's server, and the answer back.
pub(crate) async fn forward(
    routing: &Routing,
    route: &Route,
    ends: Ends,
    mut request: Request<Incoming>,
) -> Response<Body> {
    prepare(routing, route, ends, &mut request);
    let response = match route.pool.request(ends, request).await {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            refusal(StatusCode::BAD_GATEWAY, "the upstream switched protocols, which nobody had asked it for")
        }
        Ok(response) => passed_on(response),
        Err(error) => failure(&error),
    };
    route.metrics.http_request(response.status().as_u16());
    response
}

fn prepare(routing: &Routing, route: &Route, ends: Ends, request: &mut Request<Incoming>) {
    forwarding_headers::strip_hop_by_hop(request.headers_mut());
    routing.forward(request.headers_mut(), route, ends);
    // The pool needs a full URI to know its connections by; on the wire stands the path.
    let target = Uri::builder()
        .scheme("http")
        .authority("upstream")
        .path_and_query(origin_form(request.uri()).to_string())
        .build();
    *request.uri_mut() = target.unwrap_or_default();
    *request.version_mut() = hyper::Version::HTTP_11;
    hyper::upgrade::on(request);
}

fn failure(error: &legacy::Error) -> Response<Body> {
    let source = std::error::Error::source(error);
    if source.and_then(|source| source.downcast_ref()).is_some_and(hyper::Error::is_user) {
        // What goes to the server is the client's body, and that alone can fail on this side.
        return refusal(StatusCode::BAD_REQUEST, "the request's body is malformed, or ended before its end");
    }
    match source.and_then(|source| source.downcast_ref::<ConnectError>()) {
        Some(error) if error.cause == HandshakeFailure::UpstreamTimeout => {
            refusal(StatusCode::GATEWAY_TIMEOUT, &error.message)
        }
        Some(error) => refusal(StatusCode::BAD_GATEWAY, &error.message),
        None => refusal(StatusCode::BAD_GATEWAY, "the upstream's answer was none, or no HTTP"),
    }
}
