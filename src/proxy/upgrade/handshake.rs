//! Drives an opening handshake: the client's request to the server, the server's answer to the client. This is the only
//! file of the room with I/O and timers; [`super::machine`] decides.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use hyper::{Response, StatusCode, header};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    handshake_guard::{Failure, HandshakeGuard},
    machine::{Handshake, HandshakeStep, HandshakeVerdict, Switching, admit},
    raw_head::{Parsed, RequestHead, ResponseHead},
    request::ForwardedRequest,
    session_info::{handshake_info, session_info},
};
use crate::{
    journal::{HandshakeInfo, SessionInfo},
    metrics::{HandshakeFailure, HandshakeOutcome, RouteMetrics},
    proxy::{
        Proxy,
        client_address::ClientAddress,
        connector::{Connected, ServerStream},
        forwarding_headers::joined,
        http::{
            rejected_response,
            response::{Body, forwarded},
        },
        proxy_protocol::Ends,
        routing::{Route, Routing},
    },
    session::Policy,
    websocket::conformance::Extensions,
};

/// The bytes of an answer that are read at once.
const READ: usize = 2 * 1024;

/// The result of an upgrade request.
pub(crate) enum Outcome {
    /// A session, as soon as the client has its 101.
    Switching(Box<PendingSession>),
    /// Another response.
    Answered(Response<Body>),
    /// The client has gone.
    Gone,
}

/// A handshake whose 101 is about to be sent to the client.
pub(crate) struct PendingSession {
    handshake: Handshake,
    guard: HandshakeGuard,
    routing: Arc<Routing>,
    route: Arc<Route>,
    client: ClientAddress,
    /// The head of the 101.
    head: Vec<u8>,
    server: Connected,
}

/// A session whose 101 is sent.
pub(crate) struct OpenedSession {
    pub(crate) server: ServerStream,
    /// The bytes that the server sent right behind its 101.
    pub(crate) early: Vec<u8>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) extensions: Extensions,
    pub(crate) info: SessionInfo,
    pub(crate) handshake: Box<HandshakeInfo>,
    pub(crate) metrics: Arc<RouteMetrics>,
}

/// The server's side of a handshake.
#[derive(Default)]
struct UpgradeServer {
    connected: Option<Connected>,
    /// The bytes of the answer that were read and not used yet.
    read: BytesMut,
}

/// Forwards an upgrade request of a client whose connection has these `ends`. `gone` is the end of that connection.
pub(crate) async fn forward(
    proxy: &Proxy,
    ends: Ends,
    request: RequestHead<'_>,
    has_body: bool,
    gone: impl Future<Output = ()>,
) -> Outcome {
    let routing = proxy.routing.load_full();
    let find = |host: &str, path: &str| routing.find(host, path).cloned();
    let admitted = admit(&request, has_body, proxy.is_draining(), find);
    let route = admitted.as_ref().map_or_else(|(route, _)| route.as_ref(), |(route, _)| Some(route));
    let metrics = route.map(|route| routing.metrics_for(route, &request.fields, ends.client.ip()));
    let metrics = metrics.unwrap_or_else(|| Arc::clone(&proxy.unrouted));
    let info = handshake_info(&routing, ends, Some(&request));
    let mut guard = HandshakeGuard::start(metrics, &proxy.journal, info);
    let (route, target) = match admitted {
        Ok(admitted) => admitted,
        Err((_, failure)) => return Outcome::Answered(guard.fail(&failure)),
    };
    let client = routing.client(&request.fields, ends);
    let request = ForwardedRequest::new(request, &target, |headers| routing.forward(headers, &route, ends));
    let (mut handshake, action) = Handshake::start(request);
    let mut server = UpgradeServer::default();
    let action = tokio::select! {
        biased;
        action = async {
            // Pinned, since a future that is passed on by value takes its place twice.
            let driving = pin!(server.drive(&mut handshake, action, &route, &mut guard, ends));
            proxy.unless_cut(driving).await
        } => action.unwrap_or_else(|| handshake.cut()),
        () = gone => handshake.client_ended(),
    };
    match (action, server.connected) {
        (HandshakeStep::Switch(head), Some(server)) => {
            Outcome::Switching(Box::new(PendingSession { handshake, guard, routing, route, client, head, server }))
        }
        (HandshakeStep::End(HandshakeVerdict::Reject { lines }), Some(connected)) => {
            // Boxed, since its state is large, and most answers are none of these.
            Outcome::Answered(Box::pin(reject(guard, connected.stream, server.read, lines)).await)
        }
        (HandshakeStep::End(HandshakeVerdict::Fail(failure)), _) => Outcome::Answered(guard.fail(&failure)),
        _ => Outcome::Gone,
    }
}

/// Counts an upgrade request that could not be read, or not in one way only, and that was answered with this status and
/// this line.
pub(crate) fn count_bad_request(
    proxy: &Proxy,
    ends: Ends,
    request: Option<&RequestHead<'_>>,
    (status, line): (StatusCode, &str),
) {
    let info = handshake_info(&proxy.routing.load(), ends, request);
    let guard = HandshakeGuard::start(Arc::clone(&proxy.unrouted), &proxy.journal, info);
    guard.count(HandshakeFailure::BadRequest, status, HandshakeOutcome::Failed, Some(line));
}

impl UpgradeServer {
    /// Performs actions until one concerns the client.
    async fn drive(
        &mut self,
        handshake: &mut Handshake,
        first: HandshakeStep,
        route: &Route,
        guard: &mut HandshakeGuard,
        ends: Ends,
    ) -> HandshakeStep {
        let HandshakeStep::Connect = first else { return first };
        let started = Instant::now();
        guard.tries(route.connector.known_server());
        match route.connector.connect(ends).await {
            Ok(connected) => {
                guard.tries(Some(Arc::clone(&connected.server)));
                self.connected = Some(connected);
            }
            Err(error) => {
                guard.tries(error.server);
                return handshake.connect_failed(Failure::new(error.cause, error.message));
            }
        }
        guard.connected(started.elapsed());
        match route.handshake_timeout {
            None => self.ask(handshake).await,
            Some(limit) => {
                let answer = timeout(limit, pin!(self.ask(handshake))).await;
                answer.unwrap_or_else(|_| handshake.timed_out(limit))
            }
        }
    }

    /// Sends the request on the fresh connection and reads the answer.
    async fn ask(&mut self, handshake: &mut Handshake) -> HandshakeStep {
        let mut action = handshake.connected();
        let Some(Connected { stream, .. }) = &mut self.connected else { return handshake.server_ended() };
        loop {
            match &action {
                // A server that ends the connection before it has read all of a request may have said why.
                HandshakeStep::Ask(head) => drop(stream.write_all(head).await),
                HandshakeStep::Read => {}
                _ => return action,
            }
            self.read.reserve(READ);
            action = match stream.read_buf(&mut self.read).await {
                Ok(1..) => handshake.received(&mut self.read),
                _ => handshake.server_ended(),
            };
        }
    }
}

impl PendingSession {
    /// Sends the 101. A client that does not read could delay it forever.
    pub(crate) async fn switch(mut self: Box<Self>, client: &mut TcpStream) -> Option<OpenedSession> {
        let limit = self.route.handshake_timeout.unwrap_or(Duration::MAX);
        let action = match timeout(limit, client.write_all(&self.head)).await {
            Ok(Ok(())) => self.handshake.switched(),
            Ok(Err(_)) => self.handshake.client_ended(),
            Err(_) => self.handshake.timed_out(limit),
        };
        match action {
            HandshakeStep::End(HandshakeVerdict::Session(switching)) => self.open(*switching),
            // The guard counts a client that has gone.
            _ => None,
        }
    }

    fn open(self, switching: Switching) -> Option<OpenedSession> {
        let Switching { path, trace_id, head, early } = switching;
        let Parsed::Whole(response, _) = ResponseHead::parse(&head) else { return None };
        let Connected { stream, server } = self.server;
        let privacy = &self.routing.privacy;
        let (metrics, handshake) = self.guard.upgraded();
        Some(OpenedSession {
            info: session_info(privacy, self.client, server, &path, trace_id, &response.fields),
            extensions: Extensions::parse(joined(&response.fields, &header::SEC_WEBSOCKET_EXTENSIONS).as_deref()),
            server: stream,
            early: early.to_vec(),
            policy: Arc::clone(&self.route.policy),
            handshake,
            metrics,
        })
    }
}

/// Reads the rest of a response that is no 101.
async fn reject(guard: HandshakeGuard, stream: ServerStream, read: BytesMut, lines: usize) -> Response<Body> {
    match rejected_response::receive(stream, read.freeze(), lines).await {
        Ok(response) => {
            guard.reject(response.status());
            forwarded(response)
        }
        Err(error) => {
            let message = if error.is_parse() { "is not HTTP" } else { "ended before its head was complete" };
            let message = format!("the upstream's answer {message}");
            guard.fail(&Failure::new(HandshakeFailure::UpstreamInvalid, message))
        }
    }
}
