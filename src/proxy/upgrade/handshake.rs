//! Forwards an opening handshake: the client's request to the server, the server's answer to the client. This is the only
//! file of the room with I/O and timers.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use hyper::{Response, StatusCode, body::Incoming, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    answer::{Answer, AnswerReader, for_client},
    handshake_guard::{Failure, HandshakeGuard},
    raw_head::{Parsed, RequestHead, ResponseHead, Target},
    request::ForwardedRequest,
    session_info::session_info,
};
use crate::{
    journal::SessionInfo,
    metrics::{HandshakeFailure, HandshakeOutcome, RouteMetrics},
    proxy::{
        Proxy,
        connector::{Connected, ServerStream},
        forwarding_headers::joined,
        http::{
            rejected_response,
            response::{Body, forwarded},
            validate::destination,
        },
        proxy_protocol::Ends,
        routing::{Route, Routing},
    },
    session::Policy,
    websocket::conformance::Extensions,
};

/// The bytes of an answer that are read at once.
const READ: usize = 2 * 1024;

/// What came of an opening handshake.
pub(crate) enum Outcome {
    /// A session, as soon as the client has its 101.
    Upgraded(Box<Upgraded>),
    /// Another response.
    Answered(Response<Body>),
}

/// A session whose 101 is about to be sent to the client.
pub(crate) struct Upgraded {
    /// The head of the 101.
    pub(crate) switching: Vec<u8>,
    pub(crate) server: ServerStream,
    /// The bytes that the server sent right behind its 101.
    pub(crate) early: Vec<u8>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) extensions: Extensions,
    pub(crate) info: SessionInfo,
    pub(crate) metrics: Arc<RouteMetrics>,
    /// How long the client may take to read its 101.
    pub(crate) timeout: Option<Duration>,
}

/// The server's answer.
enum Received {
    /// A 101: the connection is a WebSocket now.
    Switching(Switching),
    /// Anything else.
    Rejected(Response<Incoming>),
}

/// A 101 of the server's.
struct Switching {
    head: BytesMut,
    /// The bytes right behind it.
    early: BytesMut,
    server: Connected,
}

/// Forwards an upgrade request of a client whose connection has these `ends`.
pub(crate) async fn forward(proxy: &Proxy, ends: Ends, request: RequestHead<'_>, has_body: bool) -> Outcome {
    let routing = proxy.routing.load_full();
    let (guard, route) = begin(proxy, &routing, ends, &request, has_body);
    let (route, target) = match route {
        Ok(route) => route,
        Err(failure) => return Outcome::Answered(guard.fail(&failure)),
    };
    let request = ForwardedRequest::new(request, &target, (&routing, route), ends);
    // Pinned, since a future that is passed on by value takes its place twice.
    let answer = proxy.unless_cut(pin!(ask(route, &guard, ends, &request.head))).await;
    match answer {
        None => Outcome::Answered(guard.fail(&Failure::draining())),
        Some(Err(failure)) => Outcome::Answered(guard.fail(&failure)),
        Some(Ok(Received::Rejected(response))) => {
            guard.reject(response.status());
            Outcome::Answered(forwarded(response))
        }
        Some(Ok(Received::Switching(switching))) => switch(&routing, route, guard, ends, request, switching),
    }
}

/// Counts an upgrade request that could not be read, and that was answered with this status.
pub(crate) fn count_bad_request(proxy: &Proxy, status: StatusCode) {
    let guard = HandshakeGuard::start(Arc::clone(&proxy.unrouted));
    guard.count(HandshakeFailure::BadRequest, status, HandshakeOutcome::Failed);
}

/// Starts to count an upgrade request, and finds its route, or the reason why it is not forwarded.
fn begin<'r, 'h>(
    proxy: &Proxy,
    routing: &'r Routing,
    ends: Ends,
    request: &RequestHead<'h>,
    has_body: bool,
) -> (HandshakeGuard, Result<(&'r Route, Target<'h>), Failure>) {
    let destination = destination(request);
    let route = destination.as_ref().ok().and_then(|(target, host)| routing.find(host, target.path()));
    let metrics = route.map(|route| routing.metrics_for(route, &request.fields, ends.client.ip()));
    let guard = HandshakeGuard::start(metrics.unwrap_or_else(|| Arc::clone(&proxy.unrouted)));
    let route = match (destination, route) {
        (Err(message), _) => Err(Failure::new(HandshakeFailure::BadRequest, message)),
        (Ok(_), None) => Err(Failure::new(HandshakeFailure::NoRoute, "no route matches this host and path")),
        (Ok(_), Some(_)) if proxy.is_draining() => Err(Failure::draining()),
        (Ok(_), Some(_)) if has_body => {
            Err(Failure::new(HandshakeFailure::BadRequest, "an upgrade request must not have a body"))
        }
        (Ok((target, _)), Some(route)) => Ok((&**route, target)),
    };
    (guard, route)
}

/// Judges a 101.
fn switch(
    routing: &Routing,
    route: &Route,
    guard: HandshakeGuard,
    ends: Ends,
    request: ForwardedRequest,
    switching: Switching,
) -> Outcome {
    let Switching { head, early, server } = switching;
    let Parsed::Whole(response, _) = ResponseHead::parse(&head) else {
        return Outcome::Answered(guard.fail(&invalid("the upstream's answer is not HTTP")));
    };
    if let Some(misfit) = request.offer.misfit(&response.fields) {
        return Outcome::Answered(guard.fail(&invalid(misfit)));
    }
    let ForwardedRequest { path, trace_id, .. } = request;
    Outcome::Upgraded(Box::new(Upgraded {
        info: session_info(&routing.privacy, ends.client, server.server, &path, trace_id, &response.fields),
        extensions: Extensions::parse(joined(&response.fields, &header::SEC_WEBSOCKET_EXTENSIONS).as_deref()),
        switching: for_client(response),
        server: server.stream,
        early: early.to_vec(),
        policy: Arc::clone(&route.policy),
        metrics: guard.upgraded(),
        timeout: route.handshake_timeout,
    }))
}

async fn ask(route: &Route, guard: &HandshakeGuard, ends: Ends, head: &[u8]) -> Result<Received, Failure> {
    let started = Instant::now();
    let connected = route.connector.connect(ends).await;
    let connected = connected.map_err(|error| Failure::new(error.cause, error.message))?;
    guard.connected(started.elapsed());
    let asking = pin!(exchange(connected, head));
    match route.handshake_timeout {
        None => asking.await,
        Some(timeout) => tokio::time::timeout(timeout, asking).await.unwrap_or_else(|_| {
            let message = format!("no answer from the upstream within {}", humantime::format_duration(timeout));
            Err(Failure::new(HandshakeFailure::UpstreamTimeout, message))
        }),
    }
}

/// Sends the request on a fresh connection and reads the head of the final response.
async fn exchange(connected: Connected, head: &[u8]) -> Result<Received, Failure> {
    let Connected { mut stream, server } = connected;
    // A server that ends the connection before it has read all of a request may have said why.
    let _ = stream.write_all(head).await;
    let (mut reader, mut read) = (AnswerReader::default(), BytesMut::new());
    loop {
        read.reserve(READ);
        if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
            return Err(ended_early());
        }
        match reader.judge(&mut read) {
            Answer::Partial => {}
            Answer::Invalid(message) => return Err(invalid(message)),
            Answer::Switching(length) => {
                let head = read.split_to(length);
                let server = Connected { stream, server };
                return Ok(Received::Switching(Switching { head, early: read, server }));
            }
            Answer::Rejected { lines } => {
                // Boxed, since its state is large, and most answers are none of these.
                let response = Box::pin(rejected_response::receive(stream, read.freeze(), lines)).await;
                return response.map(Received::Rejected).map_err(|error| failed(&error));
            }
        }
    }
}

fn failed(error: &hyper::Error) -> Failure {
    if error.is_parse() { invalid("the upstream's answer is not HTTP") } else { ended_early() }
}

fn invalid(message: &str) -> Failure {
    Failure::new(HandshakeFailure::UpstreamInvalid, message)
}

fn ended_early() -> Failure {
    Failure::new(HandshakeFailure::UpstreamReset, "the upstream ended the connection before its answer")
}
