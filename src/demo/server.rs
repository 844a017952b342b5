//! The demo's server: connections, plain HTTP and opening handshakes.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE},
    server::conn::http1,
    service::service_fn,
    upgrade::{OnUpgrade, Parts},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::tungstenite::{handshake::server::create_response_with_body, protocol::Role};
use tokio_util::sync::CancellationToken;

use super::conversation;
use crate::{accept_backoff::AcceptBackoff, peer::PeerConnection};

/// How long open sessions may take for their closing handshakes when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

const GREETING: &str = "\
closewatch demo server: open a WebSocket here and send one of these as a text message
close CODE REASON  closes with that code; close alone sends an empty Close frame
abort              sends RST
vanish             sends FIN without a Close frame
silent             stops answering Close frames
ping               sends a Ping
flood N SIZE       sends N messages of SIZE bytes
anything else      is echoed
The path /status/NNN refuses the upgrade with that HTTP status.
";

/// A WebSocket server that echoes messages, and ends sessions as it is asked to.
#[derive(Debug)]
pub struct DemoServer {
    listener: TcpListener,
    local_addr: SocketAddr,
}

impl DemoServer {
    /// Listens on an address. Port 0 stands for a free port.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let local_addr = listener.local_addr()?;
        Ok(Self { listener, local_addr })
    }

    /// The address that the server listens on, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` is ready. Then it closes the open sessions with 1001 and returns within seconds.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let stop = CancellationToken::new();
        let mut backoff = AcceptBackoff::default();
        // Its drop ends the connections that are left after the timeout, or when this future is dropped.
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(serve(stream, stop.clone()));
                    }
                    Err(error) => backoff.pause(&error, "demo server").await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(self.listener);
        stop.cancel();
        let _ = timeout(STOP_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
    }
}

/// Serves one connection: plain requests, and at most one upgrade with its session.
async fn serve(stream: TcpStream, stop: CancellationToken) {
    // Without this option only latency is worse.
    let _ = stream.set_nodelay(true);
    let upgrade = Arc::new(Mutex::new(None));
    let service = service_fn(|request| {
        let response = answer(request, &upgrade);
        async { Ok::<_, Infallible>(response) }
    });
    let http = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = http.with_upgrades() => {}
        () = stop.cancelled() => return,
    }
    let upgrade = upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(connection) = upgraded(upgrade).await {
        conversation::hold(connection, &stop).await;
    }
}

async fn upgraded(upgrade: Option<OnUpgrade>) -> Option<PeerConnection<TcpStream>> {
    let upgraded = upgrade?.await.ok()?;
    let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    Some(PeerConnection::new(io.into_inner(), Role::Server, &read_buf))
}

fn answer(mut request: Request<Incoming>, upgrade: &Mutex<Option<OnUpgrade>>) -> Response<Full<Bytes>> {
    if let Some(status) = request.uri().path().strip_prefix("/status/") {
        return refusal(status);
    }
    if !request.headers().contains_key(UPGRADE) {
        return plain(request.method());
    }
    match create_response_with_body(&request, Full::default) {
        Ok(mut response) => {
            if let Some(subprotocol) = first_subprotocol(request.headers()) {
                response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
            }
            *upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(hyper::upgrade::on(&mut request));
            response
        }
        Err(error) => {
            let mut response = text(StatusCode::BAD_REQUEST, format!("{error}\n"));
            response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            response
        }
    }
}

fn plain(method: &Method) -> Response<Full<Bytes>> {
    match *method {
        Method::GET | Method::HEAD => text(StatusCode::OK, GREETING),
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "found another method, allowed: GET, HEAD\n"),
    }
}

/// Refuses an upgrade with the status in its path. A 1xx status cannot be a final answer.
fn refusal(status: &str) -> Response<Full<Bytes>> {
    match status.parse::<StatusCode>() {
        Ok(status) if !status.is_informational() => text(status, format!("{status}, as asked for\n")),
        _ => text(StatusCode::NOT_FOUND, "found another status, allowed: /status/200 to /status/999\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

/// The client's first choice: this server speaks every subprotocol.
fn first_subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered = headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    HeaderValue::from_str(offered.split(',').next()?.trim()).ok()
}
