//! The opening handshake (RFC 6455, 4), forwarded: the client's request to the server, the server's answer to the
//! client. Where it is a 101, both connections are on their way to the data plane.
//!
//! # Design
//!
//! An opening handshake is one head each way, on a fresh connection to the server: see [`super::raw_head`] for why it does
//! not go through the HTTP library. Only an answer that is no 101 does, since it may have a body ([`crate::proxy::http::rejected_response`]).

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{Request, Response, StatusCode, Uri, body::Incoming, header};
use tokio::io::AsyncWriteExt;

use super::{
    handshake_guard::{Failure, HandshakeGuard},
    raw_head::{Parsed, RequestHead, ResponseHead, may_end},
    session_info::{session_info, trace_id},
};
use crate::{
    journal::SessionInfo,
    metrics::{HandshakeFailure, HandshakeOutcome, RouteMetrics},
    proxy::{
        Proxy,
        connector::{Connected, ServerStream},
        forwarding_headers::{self, HeaderFields, joined},
        http::{
            rejected_response,
            response::{Body, passed_on, refusal},
            validate::{asks_for_websocket, host_of, is_opening, origin_form},
        },
        proxy_protocol::Ends,
        replay::read_more,
        routing::{Route, Routing},
    },
    session::Policy,
    websocket::conformance::Extensions,
};

/// The largest head of an answer that is read. HTTP libraries take about as much.
const LARGEST_ANSWER_HEAD: usize = 400 * 1024;

/// What came of an opening handshake.
pub(crate) enum Outcome {
    /// A session, as soon as the client has its 101.
    Upgraded(Box<Upgraded>),
    /// Another answer.
    Answered(Response<Body>),
}

/// A session whose 101 is about to be sent to the client.
pub(crate) struct Upgraded {
    /// The head of the 101.
    pub(crate) switching: Vec<u8>,
    pub(crate) server: ServerStream,
    /// What the server sent right behind its 101.
    pub(crate) early: Vec<u8>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) extensions: Extensions,
    pub(crate) about: SessionInfo,
    pub(crate) metrics: Arc<RouteMetrics>,
    /// How long the client may take to read its 101.
    pub(crate) timeout: Option<Duration>,
}

/// An upgrade request.
pub(crate) struct Opening<'a> {
    request: RequestHead<'a>,
    target: Uri,
}

impl<'a> Opening<'a> {
    /// The upgrade request that bytes begin with.
    pub(crate) fn parse(bytes: &'a [u8]) -> Parsed<Self> {
        match RequestHead::parse(bytes) {
            Parsed::Whole(request, length) if is_opening(&request) => match request.target.parse() {
                Ok(target) => Parsed::Whole(Self { request, target }, length),
                Err(_) => Parsed::Other,
            },
            Parsed::Partial => Parsed::Partial,
            Parsed::Whole(..) | Parsed::Other => Parsed::Other,
        }
    }

    /// The request as the server gets it, and what is told of the session that may come of it.
    fn into_forwarded(mut self, routing: &Routing, route: &Route, ends: Ends) -> Forwarded {
        let fields = &mut self.request.fields;
        forwarding_headers::strip_to_upgrade(fields);
        routing.forward(fields, route, ends);
        Forwarded {
            head: fields.encode(&format!("GET {} HTTP/1.1", origin_form(&self.target))),
            path: self.target.path().into(),
            trace_id: trace_id(fields),
        }
    }
}

struct Forwarded {
    head: Vec<u8>,
    path: Box<str>,
    trace_id: Option<Box<str>>,
}

/// What the server said.
enum Answer {
    /// 101: the connection is a WebSocket now.
    Switching(Switching),
    /// Anything else.
    Rejected(Response<Incoming>),
}

/// A 101 of the server's.
struct Switching {
    head: Vec<u8>,
    /// What came right behind it.
    early: Vec<u8>,
    server: Connected,
}

/// Forwards the upgrade request with this head, of a client whose connection has these `ends`.
pub(crate) async fn forward(proxy: &Proxy, ends: Ends, head: &[u8]) -> Outcome {
    let Parsed::Whole(mut opening, _) = Opening::parse(head) else {
        count_bad_request(proxy, StatusCode::BAD_REQUEST);
        return Outcome::Answered(refusal(StatusCode::BAD_REQUEST, "the request is no upgrade to WebSocket"));
    };
    let routing = proxy.routing.load_full();
    let host = host_of(&opening.target, &mut opening.request.fields, false);
    let (guard, route) = begin(proxy, &routing, ends, host, opening.target.path(), &opening.request.fields);
    let route = match route {
        Ok(route) => route,
        Err(failure) => return Outcome::Answered(guard.fail(&failure)),
    };
    let forwarded = opening.into_forwarded(&routing, route, ends);
    // Pinned, since a future that is passed on by value takes its place twice.
    let answer = proxy.unless_cut(pin!(ask(route, &guard, ends, &forwarded.head))).await;
    match answer {
        None => Outcome::Answered(guard.fail(&Failure::draining())),
        Some(Err(failure)) => Outcome::Answered(guard.fail(&failure)),
        Some(Ok(Answer::Rejected(response))) => {
            guard.reject(response.status());
            Outcome::Answered(passed_on(response))
        }
        Some(Ok(Answer::Switching(switching))) => upgraded(&routing, route, guard, ends, forwarded, switching),
    }
}

/// What comes of a 101.
fn upgraded(
    routing: &Routing,
    route: &Route,
    guard: HandshakeGuard,
    ends: Ends,
    forwarded: Forwarded,
    switching: Switching,
) -> Outcome {
    let Switching { head, early, server } = switching;
    let Parsed::Whole(response, _) = ResponseHead::parse(&head) else {
        return Outcome::Answered(guard.fail(&not_http()));
    };
    if !asks_for_websocket(&response.fields) {
        let message = "the upstream switched to a protocol that is not WebSocket";
        return Outcome::Answered(guard.fail(&Failure::new(HandshakeFailure::UpstreamInvalid, message)));
    }
    let Forwarded { path, trace_id, .. } = forwarded;
    Outcome::Upgraded(Box::new(Upgraded {
        about: session_info(&routing.privacy, ends.client, server.server, &path, trace_id, &response.fields),
        extensions: Extensions::parse(joined(&response.fields, &header::SEC_WEBSOCKET_EXTENSIONS).as_deref()),
        switching: for_client(response),
        server: server.stream,
        early,
        policy: Arc::clone(&route.policy),
        metrics: guard.upgraded(),
        timeout: route.config.timeouts.handshake,
    }))
}

/// Refuses an upgrade request because it has a body, if there is not more against it.
pub(crate) fn refuse_body(
    proxy: &Proxy,
    ends: Ends,
    host: Result<String, &'static str>,
    request: &Request<Incoming>,
) -> Response<Body> {
    let routing = proxy.routing.load();
    let (guard, route) = begin(proxy, &routing, ends, host, request.uri().path(), request.headers());
    let failure = route
        .err()
        .unwrap_or_else(|| Failure::new(HandshakeFailure::BadRequest, "an upgrade request must not have a body"));
    guard.fail(&failure)
}

/// Counts an upgrade request that nobody could read, and that was answered with this status.
pub(crate) fn count_bad_request(proxy: &Proxy, status: StatusCode) {
    let guard = HandshakeGuard::start(Arc::clone(&proxy.unrouted));
    guard.count(HandshakeFailure::BadRequest, status, HandshakeOutcome::Failed);
}

/// Begins to count an upgrade request, and finds its route, or why it goes no further.
fn begin<'a>(
    proxy: &Proxy,
    routing: &'a Routing,
    ends: Ends,
    host: Result<String, &'static str>,
    path: &str,
    fields: &impl HeaderFields,
) -> (HandshakeGuard, Result<&'a Route, Failure>) {
    let route = host.as_ref().ok().and_then(|host| routing.find(host, path));
    let metrics = route.map(|route| routing.metrics_for(route, fields, ends.client.ip()));
    let guard = HandshakeGuard::start(metrics.unwrap_or_else(|| Arc::clone(&proxy.unrouted)));
    let route = match (host, route) {
        (Err(message), _) => Err(Failure::new(HandshakeFailure::BadRequest, message)),
        (Ok(_), None) => Err(Failure::new(HandshakeFailure::NoRoute, "no route matches this host and path")),
        (Ok(_), Some(_)) if proxy.is_draining() => Err(Failure::draining()),
        (Ok(_), Some(route)) => Ok(&**route),
    };
    (guard, route)
}

/// The 101 as the client gets it.
fn for_client(mut response: ResponseHead<'_>) -> Vec<u8> {
    forwarding_headers::strip_to_upgrade(&mut response.fields);
    // It has no body, and must not tell a length (RFC 9110, 8.6).
    response.fields.remove(&header::CONTENT_LENGTH);
    response.fields.encode(&format!("HTTP/1.1 101 {}", response.reason))
}

async fn ask(route: &Route, guard: &HandshakeGuard, ends: Ends, head: &[u8]) -> Result<Answer, Failure> {
    let started = Instant::now();
    let connected = route.connector.connect(ends).await;
    let connected = connected.map_err(|error| Failure::new(error.cause, error.message))?;
    guard.connected(started.elapsed());
    let asking = pin!(exchange(connected, head));
    match route.config.timeouts.handshake {
        None => asking.await,
        Some(timeout) => tokio::time::timeout(timeout, asking).await.unwrap_or_else(|_| {
            let message = format!("no answer from the upstream within {}", humantime::format_duration(timeout));
            Err(Failure::new(HandshakeFailure::UpstreamTimeout, message))
        }),
    }
}

/// Sends the request on a fresh connection and reads the answer's head.
async fn exchange(connected: Connected, head: &[u8]) -> Result<Answer, Failure> {
    let Connected { mut stream, server } = connected;
    // One that ends the connection before it has read all of a request may have said why.
    let _ = stream.write_all(head).await;
    let mut read = Vec::new();
    while read.len() < LARGEST_ANSWER_HEAD {
        let new = read.len();
        if !read_more(&mut stream, &mut read).await {
            return Err(ended_early());
        }
        if may_end(&read, new) {
            match first_head(&mut read)? {
                FirstHead::Partial => {}
                FirstHead::Switching(length) => {
                    let early = read.split_off(length);
                    let server = Connected { stream, server };
                    return Ok(Answer::Switching(Switching { head: read, early, server }));
                }
                FirstHead::Other => {
                    // Boxed, since its state is large, and most answers are none of these.
                    let response = Box::pin(rejected_response::received(stream, read)).await;
                    return response.map(Answer::Rejected).map_err(|error| failed(&error));
                }
            }
        }
    }
    Err(not_http())
}

/// What an answer, as far as it was read, begins with.
enum FirstHead {
    /// A 101, whose head is so long.
    Switching(usize),
    /// Another final answer.
    Other,
    Partial,
}

/// Informational answers before the final one are passed over, as all clients do that did not ask for them.
fn first_head(read: &mut Vec<u8>) -> Result<FirstHead, Failure> {
    loop {
        match ResponseHead::parse(read) {
            Parsed::Partial => return Ok(FirstHead::Partial),
            Parsed::Other => return Err(not_http()),
            Parsed::Whole(ResponseHead { status: 101, .. }, length) => return Ok(FirstHead::Switching(length)),
            Parsed::Whole(ResponseHead { status: 100..200, .. }, length) => drop(read.drain(..length)),
            Parsed::Whole(..) => return Ok(FirstHead::Other),
        }
    }
}

fn failed(error: &hyper::Error) -> Failure {
    if error.is_parse() { not_http() } else { ended_early() }
}

fn not_http() -> Failure {
    Failure::new(HandshakeFailure::UpstreamInvalid, "the upstream's answer is no HTTP")
}

fn ended_early() -> Failure {
    Failure::new(HandshakeFailure::UpstreamReset, "the upstream ended the connection before its answer")
}
