//! One client connection: it reads the head of each request, and an upgrade makes it a session.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use hyper::{Response, StatusCode};
use socket2::Socket;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{
    Proxy,
    connector::into_socket,
    http::{
        framing::BodyFraming,
        passthrough::PlainRequest,
        response::{Body, close_after, refusal},
        server::{Served, respond, serve as serve_request},
        server_connection::ServerConnection,
        validate::{RequestKind, asks_for_websocket, classify, destination, has_lost_headers},
    },
    proxy_protocol::Ends,
    request_reader::{RequestReader, Unreadable, skip_empty_lines},
    upgrade::{
        handshake::{self, OpenedSession, Outcome},
        handshake_guard::LostUpgrade,
        raw_head::{Parsed, RequestHead},
        session_info::handshake_info,
    },
};
use crate::{
    admission::ConnectionPermit,
    metrics::RejectReason,
    relay::{NewSession, SessionGuard},
    websocket::PerEndpoint,
};

/// The bytes that are read at once while a head is expected.
const READ: usize = 2 * 1024;

/// The bytes of early frames that are kept while the server has not answered an upgrade, at least.
const MIN_EARLY: usize = 8 * 1024;

/// The bytes that are still read of a refused client, so that the response reaches it before the reset would.
const LINGER_BYTES: u64 = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// Limits for the requests of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How long a client may take for its request head: from accept for the first, from its first byte for later ones.
    pub(super) head_timeout: Option<Duration>,
    /// The largest request head.
    pub(super) head_bytes: usize,
    /// How long the connection may rest between two requests.
    pub(super) keep_alive: Duration,
    /// How long the body of a plain request or of its response may stand still.
    pub(super) body: Duration,
}

/// A connection that was accepted.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    /// The bytes that were read behind a PROXY header.
    pub(super) early: BytesMut,
    pub(super) ends: Ends,
    pub(super) permit: ConnectionPermit,
    /// Held while a request is in flight: a drain waits for it.
    pub(super) in_service: TaskTrackerToken,
}

/// How a connection ends.
enum ConnectionEnd {
    /// As a session.
    Session(Box<OpenedSession>),
    /// By a FIN, behind the last response.
    HangUp,
    /// By a RST: the client does not read.
    Reset,
    /// At once: its client has too many connections.
    Refused,
}

/// Why there is no request head.
enum NoHead {
    Unreadable(Unreadable),
    /// The client has ended the connection.
    Ended,
    TimedOut,
    /// closewatch drains.
    Closing,
}

/// A client's connection until it is a session.
struct Connection {
    proxy: Arc<Proxy>,
    ends: Ends,
    limits: Limits,
    stream: TcpStream,
    /// The bytes that were read and not used yet.
    read: BytesMut,
    /// The connection to the server that an earlier plain request has left.
    kept: Option<ServerConnection>,
    permit: ConnectionPermit,
}

/// Serves a connection until it ends, or until it is a session of the data plane.
pub(super) async fn serve(proxy: Arc<Proxy>, accepted: Accepted, limits: Limits) {
    let Accepted { stream, early, ends, permit, in_service } = accepted;
    let mut connection = Connection { proxy, ends, limits, stream, read: early, kept: None, permit };
    match connection.run().await {
        ConnectionEnd::Session(session) => connection.hand_over(*session),
        ConnectionEnd::HangUp => hang_up(connection.stream, in_service).await,
        // A socket that refuses the option ends by a FIN.
        ConnectionEnd::Reset => drop(connection.stream.set_zero_linger()),
        ConnectionEnd::Refused => {}
    }
}

impl Connection {
    /// Answers requests until the connection ends.
    async fn run(&mut self) -> ConnectionEnd {
        let mut is_first = true;
        loop {
            let end = match self.read_head(is_first).await {
                Ok(head) => self.answer(head).await,
                Err(no_head) => {
                    if is_first {
                        self.count_rejected(&no_head);
                    }
                    self.end_without_head(&no_head).await
                }
            };
            if let Some(end) = end {
                return end;
            }
            is_first = false;
        }
    }

    /// Reads the head of the next request, within the configured times.
    async fn read_head(&mut self, is_first: bool) -> Result<Bytes, NoHead> {
        let (proxy, limits) = (Arc::clone(&self.proxy), self.limits);
        if !is_first && proxy.closing.is_cancelled() {
            return Err(NoHead::Closing);
        }
        let reading = async {
            if !is_first {
                let first_byte = timeout(limits.keep_alive, self.read_first_byte()).await;
                first_byte.unwrap_or(Err(NoHead::TimedOut))?;
            }
            let head = timeout(limits.head_timeout.unwrap_or(Duration::MAX), self.read_rest_of_head()).await;
            head.unwrap_or(Err(NoHead::TimedOut))
        };
        tokio::select! {
            biased;
            head = reading => head,
            () = proxy.closing.cancelled() => Err(NoHead::Closing),
        }
    }

    async fn read_first_byte(&mut self) -> Result<(), NoHead> {
        skip_empty_lines(&mut self.read);
        while self.read.is_empty() {
            self.read_more().await?;
            skip_empty_lines(&mut self.read);
        }
        Ok(())
    }

    async fn read_rest_of_head(&mut self) -> Result<Bytes, NoHead> {
        let mut reader = RequestReader::new(self.limits.head_bytes);
        loop {
            match reader.read(&mut self.read) {
                Ok(Some(length)) => return Ok(self.read.split_to(length).freeze()),
                Ok(None) => self.read_more().await?,
                Err(unreadable) => return Err(NoHead::Unreadable(unreadable)),
            }
        }
    }

    async fn read_more(&mut self) -> Result<(), NoHead> {
        self.read.reserve(READ);
        if matches!(self.stream.read_buf(&mut self.read).await, Ok(1..)) { Ok(()) } else { Err(NoHead::Ended) }
    }

    /// Counts a connection that brought no request. One that ends before its first byte is a TCP probe.
    fn count_rejected(&self, no_head: &NoHead) {
        let reason = match no_head {
            NoHead::Unreadable(unreadable) => unreadable.reason(),
            NoHead::TimedOut => RejectReason::Timeout,
            NoHead::Ended if !self.read.is_empty() => RejectReason::Malformed,
            NoHead::Ended | NoHead::Closing => return,
        };
        self.proxy.reject(self.ends.client, reason);
    }

    async fn end_without_head(&mut self, no_head: &NoHead) -> Option<ConnectionEnd> {
        let NoHead::Unreadable(unreadable) = no_head else { return Some(ConnectionEnd::HangUp) };
        let (status, line) = unreadable.refusal();
        if self.mentions_websocket() {
            handshake::count_bad_request(&self.proxy, self.ends, None, (status, line));
        }
        self.respond(None, refusal(status, line)).await
    }

    /// Answers the request with this head. Returns the end of the connection, if this was the last one.
    async fn answer(&mut self, head: Bytes) -> Option<ConnectionEnd> {
        let Parsed::Whole(request, _) = RequestHead::parse(&head) else { return Some(ConnectionEnd::HangUp) };
        if !self.admit(&request) {
            return Some(ConnectionEnd::Refused);
        }
        match classify(&request) {
            Ok(RequestKind::Upgrade { has_body }) => self.upgrade(request, &head, has_body).await,
            Ok(RequestKind::Plain(body)) => self.pass(&request, head.clone(), body).await,
            Err(line) => {
                let status = StatusCode::BAD_REQUEST;
                if asks_for_websocket(&request.fields) {
                    handshake::count_bad_request(&self.proxy, self.ends, Some(&request), (status, line));
                } else {
                    self.proxy.unrouted.http_request(status.as_u16());
                }
                self.respond(None, refusal(status, line)).await
            }
        }
    }

    /// Counts the connection for the client that a trusted peer vouches for. Other peers were counted when they came.
    fn admit(&mut self, request: &RequestHead<'_>) -> bool {
        let routing = self.proxy.routing.load();
        if !routing.trusts(self.ends.client.ip()) {
            return true;
        }
        let client = routing.client(&request.fields, self.ends);
        let is_admitted = self.proxy.admission.admit_client(&mut self.permit, client.ip);
        if !is_admitted {
            self.proxy.log_rejected(client, RejectReason::Limit);
        }
        is_admitted
    }

    /// Forwards an opening handshake.
    async fn upgrade(&mut self, request: RequestHead<'_>, head: &[u8], has_body: bool) -> Option<ConnectionEnd> {
        let (proxy, ends) = (Arc::clone(&self.proxy), self.ends);
        match handshake::forward(&proxy, ends, request, has_body, self.gone()).await {
            Outcome::Switching(pending) => {
                let session = pending.switch(&mut self.stream).await;
                Some(session.map_or(ConnectionEnd::HangUp, |session| ConnectionEnd::Session(Box::new(session))))
            }
            Outcome::Answered(mut response) => {
                if has_body {
                    close_after(&mut response);
                }
                let Parsed::Whole(request, _) = RequestHead::parse(head) else { return Some(ConnectionEnd::HangUp) };
                self.respond(Some(&request), response).await
            }
            Outcome::Gone => Some(ConnectionEnd::HangUp),
        }
    }

    /// Ends when the client does. Keeps the frames that it sends meanwhile, up to a limit.
    async fn gone(&mut self) {
        while self.read.len() < self.limits.head_bytes.max(MIN_EARLY) {
            if self.read_more().await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Passes a plain request.
    async fn pass(&mut self, request: &RequestHead<'_>, head: Bytes, body: BodyFraming) -> Option<ConnectionEnd> {
        let routing = self.proxy.routing.load_full();
        let (target, host) = match destination(request) {
            Ok(destination) => destination,
            Err(line) => return self.refuse(request, body, StatusCode::BAD_REQUEST, line).await,
        };
        let Some(route) = routing.find(host, target.path()) else {
            let line = "no route matches this host and path";
            return self.refuse(request, body, StatusCode::NOT_FOUND, line).await;
        };
        let lost_upgrade = has_lost_headers(request).then(|| {
            let mut info = handshake_info(&routing, self.ends, Some(request));
            info.server = route.connector.known_server();
            LostUpgrade::new(Arc::clone(&route.metrics), &self.proxy.journal, info)
        });
        let plain = PlainRequest {
            proxy: &self.proxy,
            routing: &routing,
            route,
            ends: self.ends,
            limits: self.limits,
            kept: &mut self.kept,
            lost_upgrade,
        };
        let client = (&mut self.stream, &mut self.read);
        // Boxed, since its state is large, and most connections never come here.
        let serving = Box::pin(serve_request(client, (head, body), self.limits.body, |request| plain.forward(request)));
        end_behind(serving.await)
    }

    /// Refuses a plain request.
    async fn refuse(
        &mut self,
        request: &RequestHead<'_>,
        body: BodyFraming,
        status: StatusCode,
        line: &str,
    ) -> Option<ConnectionEnd> {
        self.proxy.unrouted.http_request(status.as_u16());
        let mut response = refusal(status, line);
        if !body.is_over() {
            // The body is not read.
            close_after(&mut response);
        }
        self.respond(Some(request), response).await
    }

    fn mentions_websocket(&self) -> bool {
        self.read.windows(b"websocket".len()).any(|window| window.eq_ignore_ascii_case(b"websocket"))
    }

    /// Sends a response to a request; without one, the connection ends behind it.
    async fn respond(
        &mut self,
        request: Option<&RequestHead<'_>>,
        mut response: Response<Body>,
    ) -> Option<ConnectionEnd> {
        if self.proxy.is_draining() {
            // The next request is another instance's.
            close_after(&mut response);
        }
        let client = (&mut self.stream, &mut self.read);
        // Boxed, since its state is large, and most connections never come here.
        end_behind(Box::pin(respond(client, request, self.limits.body, response)).await)
    }

    /// Gives both connections to the data plane.
    fn hand_over(self, session: OpenedSession) {
        let OpenedSession { server, early, policy, extensions, info, handshake, metrics } = session;
        let guard = SessionGuard::new(info, handshake, metrics, Arc::clone(&self.proxy.journal));
        let sockets = self.stream.into_std().and_then(|client| Ok((Socket::from(client), into_socket(server)?)));
        match sockets {
            Ok((client, server)) => self.proxy.relay.hand_over(NewSession {
                sockets: PerEndpoint { client, server },
                early: PerEndpoint { client: self.read.to_vec(), server: early },
                policy,
                extensions,
                opened: Instant::now(),
                guard,
                permit: self.permit,
            }),
            // The guard counts the session that did not come about.
            Err(error) => tracing::error!(%error, "a connection could not be handed to the data plane"),
        }
    }
}

/// The end of a connection behind an exchange, unless another request may follow.
fn end_behind(served: Served) -> Option<ConnectionEnd> {
    match served {
        Served::Kept => None,
        Served::Over => Some(ConnectionEnd::HangUp),
        Served::Stalled => Some(ConnectionEnd::Reset),
    }
}

/// Ends a connection so that the last response reaches the client: FIN, and then the client's bytes are read for a while.
async fn hang_up(mut stream: TcpStream, in_service: TaskTrackerToken) {
    drop(in_service);
    let _ = stream.shutdown().await;
    let mut rest = stream.take(LINGER_BYTES);
    let _ = timeout(LINGER_TIME, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}
