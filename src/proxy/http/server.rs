//! The requests of one client connection, as the HTTP library serves them: all plain ones, and the upgrade requests whose
//! answer is no 101.
//!
//! An upgrade request behind plain ones (load balancers keep their connections for both) is met here. Then the library
//! gives the connection back, with the request's head as it came, and it goes the way of the others.

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    sync::{Arc, Mutex, PoisonError},
};

use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::{
    passthrough,
    response::{Body, draining, refusal},
    second_look::Heads,
    validate::{Limits, checked_host, has_body, is_upgrade},
};
use crate::proxy::{
    Proxy,
    proxy_protocol::Ends,
    replay::{ClientStream, Leaving},
    upgrade::handshake,
};

/// The answer to an upgrade request whose head cannot be found again: it has a length twice.
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// What the requests of one connection share.
struct Client {
    proxy: Arc<Proxy>,
    ends: Ends,
    heads: Heads,
    /// The answer to the next request, where there is one already.
    prepared: Mutex<Option<Response<Body>>>,
    leaving: Arc<Leaving>,
}

/// A connection that the library has given back.
pub(crate) struct GivenBack {
    pub(crate) stream: TcpStream,
    /// What was read of it and not used.
    pub(crate) read: Vec<u8>,
    /// How long the head of the upgrade request is that it was given back for, the first of these bytes. Without one it
    /// is over.
    pub(crate) opening: Option<usize>,
}

/// Serves the requests of a client whose connection has these `ends`, beginning with what was `read` of it, until it is
/// over, or one is an upgrade. `prepared` is the answer to the first, where there is one already.
pub(crate) async fn serve(
    proxy: Arc<Proxy>,
    ends: Ends,
    limits: Limits,
    stream: TcpStream,
    read: Vec<u8>,
    prepared: Option<Response<Body>>,
) -> GivenBack {
    let heads = Heads::new(limits.buffer());
    let leaving = Arc::<Leaving>::default();
    let client = Arc::new(Client {
        proxy: Arc::clone(&proxy),
        ends,
        heads: heads.clone(),
        prepared: Mutex::new(prepared),
        leaving: Arc::clone(&leaving),
    });
    let service = service_fn(|request| Box::pin(answer(Arc::clone(&client), request)));
    let io = TokioIo::new(ClientStream::new(stream, read, heads.clone(), Arc::clone(&leaving)));
    let mut served = builder(limits).serve_connection(io, service);
    let mut is_closing = false;
    let met = loop {
        tokio::select! {
            biased;
            result = poll_fn(|cx| served.poll_without_shutdown(cx)) => {
                if let Err(error) = result {
                    count_unreadable(&proxy, &heads, &error);
                }
                break None;
            }
            lines = leaving.ready() => break Some(lines),
            () = proxy.closing.cancelled(), if !is_closing => {
                Pin::new(&mut served).graceful_shutdown();
                is_closing = true;
            }
        }
    };
    let parts = served.into_parts();
    let (stream, early) = parts.io.into_inner().into_parts();
    let over = |stream| GivenBack { stream, read: Vec::new(), opening: None };
    let Some(lines) = met else { return over(stream) };
    if let Some(head) = heads.last(lines, parts.read_buf.len()) {
        return GivenBack { stream, read: [&head[..], &parts.read_buf, &early].concat(), opening: Some(head.len()) };
    }
    handshake::count_bad_request(&proxy, StatusCode::BAD_REQUEST);
    // Nothing that was written before waits, so there is room for it; to a client that is gone there is nothing to say.
    let _ = stream.try_write(BAD_REQUEST);
    over(stream)
}

fn builder(limits: Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_header_size(limits.head_bytes)
        .max_buf_size(limits.buffer())
        .preserve_header_case(true)
        .title_case_headers(true)
        .auto_date_header(false);
    builder
}

async fn answer(client: Arc<Client>, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let prepared = client.prepared.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut response = match prepared {
        Some(response) => {
            client.heads.forget_get();
            response
        }
        None if is_upgrade(&request) => client.upgrade(request).await,
        None => {
            let host = checked_host(&mut request, &client.heads);
            client.plain(host, request).await
        }
    };
    if client.proxy.is_draining() {
        // The next request is another instance's.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

impl Client {
    /// Refuses an upgrade request with a body, whose end only the library can tell. From any other the library is left.
    async fn upgrade(&self, mut request: Request<Incoming>) -> Response<Body> {
        if has_body(request.headers()) {
            let host = checked_host(&mut request, &self.heads);
            return handshake::refuse_body(&self.proxy, self.ends, host, &request);
        }
        self.leaving.meet(request.headers().len());
        pending().await
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
        let answer = self.proxy.unless_cut(passthrough::forward(&routing, route, self.ends, request)).await;
        answer.unwrap_or_else(|| {
            let response = draining();
            route.metrics.http_request(response.status().as_u16());
            response
        })
    }
}

/// What the library says to a head that it cannot read it has said already. Where that asked for a WebSocket, it is
/// counted as one that failed.
fn count_unreadable(proxy: &Proxy, heads: &Heads, error: &hyper::Error) {
    if error.is_parse() && heads.mention_websocket() {
        let is_too_large = error.is_parse_too_large();
        let status = if is_too_large { StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE } else { StatusCode::BAD_REQUEST };
        handshake::count_bad_request(proxy, status);
    }
}
