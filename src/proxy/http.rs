//! Plain HTTP requests on the WebSocket port: health checks, long-polling fallbacks, the service's own pages. They pass
//! through, streamed both ways, with connections kept alive on both sides.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::{
    Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{self, HeaderValue},
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};

use super::{
    headers,
    request::origin_form,
    response::{Body, passed_on, refusal},
    routing::{Route, Routing},
    upstream::{ConnectError, Connector, ServerStream},
};
use crate::{config::HostHeader, metrics::HandshakeFailure};

/// The pooled connections to one upstream that plain requests use. An upgrade never takes one of them.
pub(super) struct PlainClient(Client<PooledConnector, Incoming>);

impl std::fmt::Debug for PlainClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PlainClient")
    }
}

impl PlainClient {
    pub(super) fn new(connector: Connector) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .http1_preserve_header_case(true)
            .http1_title_case_headers(true)
            .set_host(false)
            .build(PooledConnector(Arc::new(connector)));
        Self(client)
    }
}

/// Passes a request on to its route's server, and the answer back.
pub(super) async fn forward(
    routing: &Routing,
    route: &Route,
    client: SocketAddr,
    mut request: Request<Incoming>,
) -> Response<Body> {
    prepare(routing, route, client, &mut request);
    let response = match route.plain.0.request(request).await {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            refusal(StatusCode::BAD_GATEWAY, "the upstream switched protocols, which nobody had asked it for")
        }
        Ok(response) => passed_on(response),
        Err(error) => failure(&error),
    };
    route.metrics.http_request(response.status().as_u16());
    response
}

fn prepare(routing: &Routing, route: &Route, client: SocketAddr, request: &mut Request<Incoming>) {
    let host = request.headers().get(header::HOST).cloned();
    headers::strip_hop_by_hop(request.headers_mut());
    headers::forward(request.headers_mut(), &routing.forwarded, client.ip(), host.as_ref());
    if routing.host == HostHeader::Upstream
        && let Ok(authority) = HeaderValue::try_from(&route.config.upstream.authority)
    {
        request.headers_mut().insert(header::HOST, authority);
    }
    // The pool needs a full URI to know its connections by; on the wire stands the path.
    let target =
        Uri::builder().scheme("http").authority("upstream").path_and_query(origin_form(request).to_string()).build();
    *request.uri_mut() = target.unwrap_or_default();
    *request.version_mut() = hyper::Version::HTTP_11;
    hyper::upgrade::on(request);
}

fn failure(error: &hyper_util::client::legacy::Error) -> Response<Body> {
    let connecting = std::error::Error::source(error).and_then(|source| source.downcast_ref::<ConnectError>());
    match connecting {
        Some(error) if error.cause == HandshakeFailure::UpstreamTimeout => {
            refusal(StatusCode::GATEWAY_TIMEOUT, &error.message)
        }
        Some(error) => refusal(StatusCode::BAD_GATEWAY, &error.message),
        None => refusal(StatusCode::BAD_GATEWAY, "the upstream's answer was none, or no HTTP"),
    }
}

/// Lets the pool make connections to the one upstream, whatever URI it is asked for.
#[derive(Clone)]
struct PooledConnector(Arc<Connector>);

impl tower_service::Service<Uri> for PooledConnector {
    type Response = PooledStream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<PooledStream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = Arc::clone(&self.0);
        Box::pin(async move {
            connector.connect_shared().await.map(|connected| PooledStream(TokioIo::new(connected.stream)))
        })
    }
}

/// A pooled connection.
struct PooledStream(TokioIo<ServerStream>);

impl Connection for PooledStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for PooledStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for PooledStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
