//! Plain requests on the WebSocket port: health checks, long polling, the pages of the server. They pass, with both
//! bodies streamed.

use std::{error::Error, io, sync::Arc};

use hyper::{
    Request, Response, StatusCode, Uri, Version,
    header::{self, HeaderValue},
};

use super::{
    body::{BodyError, RequestBody},
    response::{Body, close_after, draining, forwarded, refusal},
    server_connection::{SendError, ServerConnection, send},
};
use crate::proxy::{
    Proxy,
    connection::Limits,
    forwarding_headers,
    proxy_protocol::Ends,
    routing::{Route, Routing},
    upgrade::handshake_guard::{LostUpgrade, status_of},
};

/// A plain request whose route is known.
pub(crate) struct PlainRequest<'a> {
    pub(crate) proxy: &'a Proxy,
    pub(crate) routing: &'a Routing,
    pub(crate) route: &'a Arc<Route>,
    pub(crate) ends: Ends,
    pub(crate) limits: Limits,
    /// The connection to the server that an earlier request of this client connection has left.
    pub(crate) kept: &'a mut Option<ServerConnection>,
    /// Set if the request was an upgrade before a hop in front removed headers.
    pub(crate) lost_upgrade: Option<LostUpgrade>,
}

impl PlainRequest<'_> {
    /// Forwards the request, and returns the response for the client.
    pub(crate) async fn forward(mut self, mut request: Request<RequestBody>) -> Response<Body> {
        let (proxy, route) = (self.proxy, self.route);
        self.prepare(&mut request);
        let sending = send(self.kept, (route, self.ends, self.limits.body), request);
        let mut response = match proxy.unless_cut(sending).await {
            None => draining(),
            Some(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                refusal(StatusCode::BAD_GATEWAY, "the upstream switched protocols without being asked")
            }
            Some(Ok(response)) => forwarded(response),
            Some(Err(error)) => failure(&error),
        };
        if proxy.is_draining() {
            // The next request is another instance's.
            close_after(&mut response);
        }
        route.metrics.http_request(response.status().as_u16());
        if let Some(mut lost_upgrade) = self.lost_upgrade.take() {
            lost_upgrade.answered(response.status());
        }
        response
    }

    fn prepare(&self, request: &mut Request<RequestBody>) {
        let target = origin_form(request.uri());
        let authority = request.uri().authority().map(|authority| HeaderValue::try_from(authority.as_str()));
        let headers = request.headers_mut();
        if let Some(Ok(host)) = authority {
            headers.insert(header::HOST, host);
        }
        forwarding_headers::strip_hop_by_hop(headers);
        self.routing.forward(headers, self.route, self.ends);
        if !headers.contains_key(header::HOST)
            && let Ok(host) = HeaderValue::try_from(self.route.config.upstream.url.host_header())
        {
            headers.insert(header::HOST, host);
        }
        *request.uri_mut() = target;
        *request.version_mut() = Version::HTTP_11;
    }
}

/// The target in the form that a server reads: path and query (RFC 9112, 3.2.1).
fn origin_form(target: &Uri) -> Uri {
    let target = target.path_and_query().map_or("/", |target| target.as_str());
    // Behind an authority the path may be empty.
    let origin_form = if target.starts_with('?') { format!("/{target}").parse() } else { target.parse() };
    origin_form.unwrap_or_default()
}

fn failure(error: &SendError) -> Response<Body> {
    let error = match error {
        SendError::Connect(error) => return refusal(status_of(error.cause), &error.message),
        SendError::Http(error) => error,
    };
    if let Some(error) = source::<BodyError>(error) {
        return match error {
            BodyError::Stalled => refusal(StatusCode::REQUEST_TIMEOUT, "the request's body did not come in time"),
            BodyError::Broken(_) => {
                refusal(StatusCode::BAD_REQUEST, "the request's body is malformed, or ended before its end")
            }
        };
    }
    match source::<io::Error>(error) {
        Some(error) if error.kind() == io::ErrorKind::TimedOut => {
            refusal(StatusCode::GATEWAY_TIMEOUT, "the upstream did not read the request's body in time")
        }
        _ => refusal(StatusCode::BAD_GATEWAY, "the upstream ended the connection before its response, or sent no HTTP"),
    }
}

fn source<E: Error + 'static>(error: &hyper::Error) -> Option<&E> {
    error.source()?.downcast_ref()
}
