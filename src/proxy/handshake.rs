//! The opening handshake (RFC 6455, 4), forwarded: the client's request to the server, the server's answer to the
//! client. Where it is a 101, both connections are on their way to the data plane.
//!
//! # Design
//!
//! Each upgrade has a fresh connection to the server, driven here by hand until its answer is read: no task and no
//! channel of its own, and at the 101 hyper gives back the bare connection and what it read behind the head. The design
//! left out is `hyper::upgrade`: its future says `Ok` also after an answer that is no 101, and its boxed stream would
//! have to be taken apart again.

use std::{
    future::poll_fn,
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{self, HeaderMap},
};
use hyper_util::rt::TokioIo;

use super::{
    Proxy,
    about::about,
    headers,
    proxy_protocol::Ends,
    request::{has_body, origin_form},
    response::{Body, draining, empty, passed_on, refusal},
    routing::{Route, Routing},
    upstream::{Connected, ServerStream},
};
use crate::{
    journal::About,
    metrics::{HandshakeFailure, HandshakeInProgress, HandshakeOutcome, RouteMetrics},
    relay::Policy,
    websocket::conformance::Extensions,
};

/// A session whose 101 is about to be sent to the client.
pub(super) struct Upgraded {
    pub(super) server: ServerStream,
    /// What the server sent right behind its 101.
    pub(super) early: Vec<u8>,
    pub(super) policy: Arc<Policy>,
    pub(super) extensions: Extensions,
    pub(super) about: About,
    pub(super) metrics: Arc<RouteMetrics>,
    /// How long the client may take to read its 101.
    pub(super) timeout: Option<Duration>,
}

/// An opening handshake under way. Whatever becomes of it, it is counted once: one that is dropped has lost its client.
pub(super) struct Attempt {
    metrics: Arc<RouteMetrics>,
    started: Instant,
    is_counted: bool,
    _in_progress: HandshakeInProgress,
}

impl Attempt {
    pub(super) fn start(metrics: Arc<RouteMetrics>) -> Self {
        let in_progress = metrics.handshake_started();
        Self { metrics, started: Instant::now(), is_counted: false, _in_progress: in_progress }
    }

    /// Ends with an answer of closewatch's own.
    pub(super) fn fail(self, failure: &Failure) -> Response<Body> {
        let status = failure.status();
        self.count(failure.cause, status, HandshakeOutcome::Failed);
        refusal(status, &failure.message)
    }

    /// Ends with an answer of closewatch's own that is more than a line.
    pub(super) fn answer(self, cause: HandshakeFailure, response: Response<Body>) -> Response<Body> {
        self.count(cause, response.status(), HandshakeOutcome::Failed);
        response
    }

    fn reject(self, status: StatusCode) {
        self.count(HandshakeFailure::Rejected, status, HandshakeOutcome::Rejected);
    }

    /// The session itself is counted when a worker has it. Returns the metrics that it is counted in then.
    fn upgraded(mut self) -> Arc<RouteMetrics> {
        self.is_counted = true;
        let status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
        self.metrics.handshake_answered(status, HandshakeOutcome::Upgraded, self.started.elapsed());
        Arc::clone(&self.metrics)
    }

    fn count(mut self, cause: HandshakeFailure, status: StatusCode, outcome: HandshakeOutcome) {
        self.is_counted = true;
        self.metrics.handshake_failed(cause);
        self.metrics.handshake_answered(status.as_u16(), outcome, self.started.elapsed());
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.is_counted {
            self.metrics.handshake_failed(HandshakeFailure::ClientGone);
        }
    }
}

/// Why a handshake did not become a session.
pub(super) struct Failure {
    cause: HandshakeFailure,
    message: String,
}

impl Failure {
    pub(super) fn new(cause: HandshakeFailure, message: impl Into<String>) -> Self {
        Self { cause, message: message.into() }
    }

    fn status(&self) -> StatusCode {
        match self.cause {
            HandshakeFailure::BadRequest => StatusCode::BAD_REQUEST,
            HandshakeFailure::NoRoute => StatusCode::NOT_FOUND,
            HandshakeFailure::Draining => StatusCode::SERVICE_UNAVAILABLE,
            HandshakeFailure::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

/// What the server said.
enum Answer {
    /// 101: the connection is a WebSocket now, `early` what came behind the head.
    Upgraded { response: Response<Incoming>, server: Connected, early: Vec<u8> },
    /// Anything else.
    Rejected(Response<Incoming>),
}

/// Forwards the upgrade request of a client whose connection has these `ends`. With the answer to it comes, where it is a
/// 101, what the data plane needs.
pub(super) async fn forward(
    proxy: &Proxy,
    routing: &Routing,
    route: &Route,
    attempt: Attempt,
    ends: Ends,
    mut request: Request<Incoming>,
) -> (Response<Body>, Option<Upgraded>) {
    if has_body(&request) {
        let failure = Failure::new(HandshakeFailure::BadRequest, "an upgrade request must not have a body");
        return (attempt.fail(&failure), None);
    }
    let path = request.uri().path().to_owned();
    prepare(routing, route, ends.client.ip(), &mut request);
    let request_headers = request.headers().clone();
    match proxy.unless_cut(ask(route, &attempt.metrics, ends, request)).await {
        None => (attempt.answer(HandshakeFailure::Draining, draining()), None),
        Some(Err(failure)) => (attempt.fail(&failure), None),
        Some(Ok(Answer::Rejected(response))) => {
            attempt.reject(response.status());
            (passed_on(response), None)
        }
        Some(Ok(Answer::Upgraded { mut response, server, early })) => {
            let upgraded = Upgraded {
                about: about(&routing.privacy, ends.client, server.server, &path, &request_headers, response.headers()),
                extensions: agreed_extensions(response.headers()),
                server: server.stream,
                early,
                policy: Arc::clone(&route.policy),
                metrics: attempt.upgraded(),
                timeout: route.config.timeouts.handshake,
            };
            headers::strip_hop_by_hop(response.headers_mut());
            headers::restore_upgrade(response.headers_mut());
            (response.map(|_| empty()), Some(upgraded))
        }
    }
}

fn prepare(routing: &Routing, route: &Route, client: IpAddr, request: &mut Request<Incoming>) {
    routing.rewrite(request.headers_mut(), route, client);
    headers::restore_upgrade(request.headers_mut());
    *request.uri_mut() = origin_form(request);
    hyper::upgrade::on(request);
}

async fn ask(route: &Route, metrics: &RouteMetrics, ends: Ends, request: Request<Incoming>) -> Result<Answer, Failure> {
    let started = Instant::now();
    let connected = route.connector.connect(ends).await;
    let connected = connected.map_err(|error| Failure::new(error.cause, error.message))?;
    metrics.upstream_connected(started.elapsed());
    let asking = exchange(connected, request.map(|_| Empty::new()));
    match route.config.timeouts.handshake {
        None => asking.await,
        Some(timeout) => tokio::time::timeout(timeout, asking).await.unwrap_or_else(|_| {
            let message = format!("no answer from the upstream within {}", humantime::format_duration(timeout));
            Err(Failure::new(HandshakeFailure::UpstreamTimeout, message))
        }),
    }
}

/// Sends the request on a fresh connection and reads the answer's head.
async fn exchange(connected: Connected, request: Request<Empty<Bytes>>) -> Result<Answer, Failure> {
    let Connected { stream, server } = connected;
    let (mut sender, mut connection) = http1::Builder::new()
        .preserve_header_case(true)
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let mut sending = pin!(sender.send_request(request));
    let mut is_over = false;
    let response = loop {
        tokio::select! {
            biased;
            response = &mut sending => break response.map_err(|error| failed(&error))?,
            // Whatever ends the connection, the response's future tells it.
            _ = poll_fn(|cx| connection.poll_without_shutdown(cx)), if !is_over => is_over = true,
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // The body is still to be read from it.
        tokio::spawn(connection);
        return Ok(Answer::Rejected(response));
    }
    if !is_over {
        poll_fn(|cx| connection.poll_without_shutdown(cx)).await.map_err(|error| failed(&error))?;
    }
    if !is_websocket(response.headers()) {
        let message = "the upstream switched to a protocol that is not WebSocket";
        return Err(Failure::new(HandshakeFailure::UpstreamInvalid, message));
    }
    let parts = connection.into_parts();
    let server = Connected { stream: parts.io.into_inner(), server };
    Ok(Answer::Upgraded { response, server, early: parts.read_buf.to_vec() })
}

fn failed(error: &hyper::Error) -> Failure {
    if error.is_parse() {
        Failure::new(HandshakeFailure::UpstreamInvalid, "the upstream's answer is no HTTP")
    } else {
        Failure::new(HandshakeFailure::UpstreamReset, "the upstream ended the connection before its answer")
    }
}

fn is_websocket(headers: &HeaderMap) -> bool {
    headers::has_token(headers, &header::UPGRADE, "websocket")
        && headers::has_token(headers, &header::CONNECTION, "upgrade")
}

fn agreed_extensions(headers: &HeaderMap) -> Extensions {
    let lines: Vec<&str> =
        headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).into_iter().filter_map(|line| line.to_str().ok()).collect();
    Extensions::parse((!lines.is_empty()).then(|| lines.join(", ")).as_deref())
}
