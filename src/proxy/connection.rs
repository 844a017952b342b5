//! One client connection: its requests, until it ends or becomes a session.

use std::{
    convert::Infallible,
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::Socket;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{
    Proxy,
    handshake::{self, Attempt, Failure, Upgraded},
    heads::Heads,
    http,
    proxy_protocol::Ends,
    request::{Limits, checked_host, is_upgrade},
    response::{Body, draining, refusal},
    stream::ClientStream,
    upstream::into_socket,
};
use crate::{
    admission::Place,
    metrics::{HandshakeFailure, HandshakeOutcome, RejectReason},
    relay::{NewSession, Ticket},
    websocket::PerEndpoint,
};

/// hyper's own lower bound for its buffer.
const MIN_BUFFER: usize = 8 * 1024;

/// How much of what a refused client still sends is read, so that the answer reaches it before the reset would.
const LINGER_BYTES: u64 = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// A connection that was taken.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    /// What was read of it behind a PROXY header.
    pub(super) early: Vec<u8>,
    pub(super) ends: Ends,
    pub(super) place: Place,
    /// Held while something of the connection's is in flight: a drain waits for it.
    pub(super) in_service: TaskTrackerToken,
}

/// What the requests of one connection share.
struct Client {
    proxy: Arc<Proxy>,
    ends: Ends,
    heads: Heads,
    /// An upgrade request is being forwarded, or was answered with 101.
    is_upgrading: AtomicBool,
    /// One was answered with 101.
    switches: Arc<AtomicBool>,
    /// Set by the request that was answered with 101.
    upgraded: Mutex<Option<Upgraded>>,
    was_upgraded: Notify,
    had_request: AtomicBool,
}

/// Serves a connection's requests; where one becomes a session, hands it to the data plane.
pub(super) async fn serve(proxy: Arc<Proxy>, accepted: Accepted, limits: Limits) {
    let Accepted { stream, early, ends, place, in_service } = accepted;
    let heads = Heads::new(limits.head_bytes.max(MIN_BUFFER));
    let client = Arc::new(Client::new(proxy, ends, heads.clone()));
    let service = service_fn(|request| Box::pin(answer(Arc::clone(&client), request)));
    let io = TokioIo::new(ClientStream::new(stream, early, heads, Arc::clone(&client.switches)));
    let mut connection = builder(limits).serve_connection(io, service);
    let result = tokio::select! {
        biased;
        result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => result.map_err(Some),
        () = client.flush_times_out() => Err(None),
        () = client.proxy.closing.cancelled() => {
            // A 101 that is on its way must not be told to close.
            if !client.is_upgrading.load(Ordering::Acquire) {
                Pin::new(&mut connection).graceful_shutdown();
                if !client.had_request.load(Ordering::Relaxed) {
                    return;
                }
            }
            poll_fn(|cx| connection.poll_without_shutdown(cx)).await.map_err(Some)
        }
    };
    let upgraded = client.upgraded.lock().unwrap_or_else(PoisonError::into_inner).take();
    let parts = connection.into_parts();
    let stream = parts.io.into_inner().into_tcp();
    match (result, upgraded) {
        (Ok(()), Some(upgraded)) => hand_over(&client.proxy, upgraded, stream, parts.read_buf.to_vec(), place),
        (Ok(()), None) => hang_up(stream, in_service).await,
        (Err(error), upgraded) => {
            // The ticket of a session that nobody will have counts it as a lost client.
            drop(upgraded.map(|upgraded| upgraded.ticket(&client.proxy)));
            if let Some(error) = error {
                client.failed(&error);
            }
            hang_up(stream, in_service).await;
        }
    }
}

fn builder(limits: Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_header_size(limits.head_bytes)
        .max_buf_size(limits.head_bytes.max(MIN_BUFFER))
        .preserve_header_case(true)
        .title_case_headers(true)
        .auto_date_header(false);
    builder
}

async fn answer(client: Arc<Client>, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    client.had_request.store(true, Ordering::Relaxed);
    let checked = checked_host(&mut request, &client.heads);
    let response = if is_upgrade(&request) {
        client.is_upgrading.store(true, Ordering::Release);
        let mut response = client.upgrade(checked, request).await;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            client.switches.store(true, Ordering::Release);
        } else {
            client.is_upgrading.store(false, Ordering::Release);
            client.close_for_drain(&mut response);
        }
        response
    } else {
        let mut response = client.plain(checked, request).await;
        client.close_for_drain(&mut response);
        response
    };
    Ok(response)
}

impl Client {
    fn new(proxy: Arc<Proxy>, ends: Ends, heads: Heads) -> Self {
        Self {
            proxy,
            ends,
            heads,
            is_upgrading: AtomicBool::new(false),
            switches: Arc::default(),
            upgraded: Mutex::default(),
            was_upgraded: Notify::new(),
            had_request: AtomicBool::new(false),
        }
    }

    /// In a drain, the next request is another instance's.
    fn close_for_drain(&self, response: &mut Response<Body>) {
        if self.proxy.is_draining() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    async fn upgrade(&self, host: Result<String, &'static str>, request: Request<Incoming>) -> Response<Body> {
        let proxy = &self.proxy;
        let routing = proxy.routing.load_full();
        let route = host.as_ref().ok().and_then(|host| routing.find(host, request.uri().path()));
        let user_agent = request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        let metrics = route.map(|route| routing.metrics_for(route, user_agent, self.ends.client.ip()));
        let attempt = Attempt::start(metrics.unwrap_or_else(|| Arc::clone(&proxy.unrouted)));
        if let Err(message) = host {
            return attempt.fail(&Failure::new(HandshakeFailure::BadRequest, message));
        }
        let Some(route) = route else {
            return attempt.fail(&Failure::new(HandshakeFailure::NoRoute, "no route matches this host and path"));
        };
        if proxy.is_draining() {
            return attempt.answer(HandshakeFailure::Draining, draining());
        }
        let (response, upgraded) = handshake::forward(proxy, &routing, route, attempt, self.ends, request).await;
        if let Some(upgraded) = upgraded {
            *self.upgraded.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgraded);
            self.was_upgraded.notify_one();
        }
        response
    }

    async fn plain(&self, host: Result<String, &'static str>, request: Request<Incoming>) -> Response<Body> {
        let refused = |status: StatusCode, line: &str| {
            self.proxy.unrouted.http_request(status.as_u16());
            refusal(status, line)
        };
        let host = match host {
            Ok(host) => host,
            Err(message) => return refused(StatusCode::BAD_REQUEST, message),
        };
        let routing = self.proxy.routing.load_full();
        let Some(route) = routing.find(&host, request.uri().path()) else {
            return refused(StatusCode::NOT_FOUND, "no route matches this host and path");
        };
        let answer = self.proxy.unless_cut(http::forward(&routing, route, self.ends, request)).await;
        answer.unwrap_or_else(|| {
            let response = draining();
            route.metrics.http_request(response.status().as_u16());
            response
        })
    }

    /// Ends when a client has not read its 101 for as long as a handshake may take. hyper hands the connection over only
    /// when the 101 is flushed, and a client that does not read would hold it for ever.
    async fn flush_times_out(&self) {
        self.was_upgraded.notified().await;
        let timeout = self.upgraded.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(|it| it.timeout);
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    }

    /// hyper gave the connection up, and has answered what can be answered.
    fn failed(&self, error: &hyper::Error) {
        let had_request = self.had_request.load(Ordering::Relaxed);
        if error.is_timeout() && !had_request {
            self.proxy.metrics.connection_rejected(RejectReason::Timeout);
        } else if error.is_parse() && self.heads.mention_websocket() {
            // A head that no parser accepts, from someone who asked for a WebSocket.
            let status = if error.is_parse_too_large() {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            } else {
                StatusCode::BAD_REQUEST
            };
            self.proxy.unrouted.handshake_failed(HandshakeFailure::BadRequest);
            self.proxy.unrouted.handshake_answered(status.as_u16(), HandshakeOutcome::Failed, Duration::ZERO);
        }
    }
}

impl Upgraded {
    fn ticket(self, proxy: &Proxy) -> Ticket {
        Ticket::new(self.about, self.metrics, Arc::clone(&proxy.journal))
    }
}

/// The 101 is flushed: the data plane takes both connections.
fn hand_over(proxy: &Proxy, upgraded: Upgraded, client: TcpStream, early: Vec<u8>, place: Place) {
    let Upgraded { server, early: early_server, policy, extensions, about, metrics, timeout: _ } = upgraded;
    let ticket = Ticket::new(about, metrics, Arc::clone(&proxy.journal));
    let sockets = client.into_std().and_then(|client| Ok((Socket::from(client), into_socket(server)?)));
    match sockets {
        Ok((client, server)) => proxy.relay.hand_over(NewSession {
            sockets: PerEndpoint { client, server },
            early: PerEndpoint { client: early, server: early_server },
            policy,
            extensions,
            opened: Instant::now(),
            ticket,
            place,
        }),
        // The ticket counts the session that did not come about.
        Err(error) => tracing::error!(%error, "a connection could not be handed to the data plane"),
    }
}

/// Ends a connection so that the last answer reaches the client: FIN, and then what it still sends is read for a while.
async fn hang_up(mut stream: TcpStream, in_service: TaskTrackerToken) {
    drop(in_service);
    let _ = stream.shutdown().await;
    let mut rest = stream.take(LINGER_BYTES);
    let _ = tokio::time::timeout(LINGER_TIME, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}
