//! The demo's server: connections, plain HTTP, and the opening handshake.

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
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::{handshake::server::create_response_with_body, protocol::Role};
use tokio_util::sync::CancellationToken;

use super::conversation;
use crate::peer::Connection;

/// How long open sessions have for their closing handshakes when the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait after a failed accept, such as at the limit of open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const GREETING: &str = "\
closewatch demo server: open a WebSocket here and send one of these as a text message
close CODE REASON  closes with that code, without one by an empty Close frame
abort              sends RST
vanish             sends FIN without a Close frame
silent             leaves Close frames unanswered
ping               sends a Ping
flood N SIZE       sends N messages of SIZE bytes
anything else      comes back
The path /status/NNN refuses the upgrade with that HTTP status.
";

/// A WebSocket server that echoes, and that ends sessions in the way it is asked to.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
}

impl Server {
    /// Listens on an address; port 0 takes a free one.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let local_addr = listener.local_addr()?;
        Ok(Self { listener, local_addr })
    }

    /// The address it listens on, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` is ready, then closes the open sessions with 1001 and returns within seconds.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let stop = CancellationToken::new();
        // Its drop ends what is left, be it that patience ended or that this future was dropped.
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(serve(stream, stop.clone()));
                    }
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(self.listener);
        stop.cancel();
        let _ = timeout(STOP_PATIENCE, async { while connections.join_next().await.is_some() {} }).await;
    }
}

/// Serves one connection: plain requests, and perhaps an upgrade and the session that follows.
async fn serve(stream: TcpStream, stop: CancellationToken) {
    // Only latency suffers without it.
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

async fn upgraded(upgrade: Option<OnUpgrade>) -> Option<Connection<TcpStream>> {
    let upgraded = upgrade?.await.ok()?;
    let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    Some(Connection::new(io.into_inner(), Role::Server, &read_buf))
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
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n"),
    }
}

/// The answer of a server that refuses an upgrade with the status in its path; 1xx cannot be a last answer.
fn refusal(status: &str) -> Response<Full<Bytes>> {
    match status.parse::<StatusCode>() {
        Ok(status) if !status.is_informational() => text(status, format!("{status}, as asked for\n")),
        _ => text(StatusCode::NOT_FOUND, "no such status: /status/200 to /status/999\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

/// The client's favourite, since this server speaks them all.
fn first_subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered = headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    HeaderValue::from_str(offered.split(',').next()?.trim()).ok()
}
