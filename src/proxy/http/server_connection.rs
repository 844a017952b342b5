//! The connection to the server on which the plain requests of one client connection pass.
//!
//! It belongs to that client connection alone: a server that authenticates connections (NTLM, Negotiate) never takes one
//! client for another. It is kept for the next request, and ends with the client connection at the latest.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::{
    Request, Response,
    body::{Body, Incoming},
    client::conn::http1::{self, SendRequest},
    ext::on_informational,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::{RequestBody, StallTimer, Stalled};
use crate::proxy::{
    connector::{ConnectError, ServerStream},
    proxy_protocol::Ends,
    routing::Route,
    upgrade::answer::MAX_INFORMATIONAL,
};

/// The largest head of a response to a plain request. The library keeps it in its read buffer.
const MAX_RESPONSE_HEAD: usize = 64 * 1024;

/// The most header lines of a response to a plain request. The library makes room for them at each response.
const MAX_RESPONSE_LINES: usize = 1024;

/// The most bytes that are read at once. The library doubles its buffer of 8 KiB whenever it was filled.
const READ: usize = 8 * 1024 - 1;

/// The bytes of a request's body that the library may hold for a server that does not read them.
const MAX_UPLOAD: usize = 16 * 1024;

/// A connection that requests pass on.
pub(crate) struct ServerConnection {
    route: Arc<Route>,
    sender: SendRequest<RequestBody>,
    upload: Arc<Upload>,
    response: Arc<ResponseStart>,
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum SendError {
    Connect(ConnectError),
    Http(hyper::Error),
}

impl ServerConnection {
    async fn open(route: &Arc<Route>, ends: Ends, limit: Duration) -> Result<Self, SendError> {
        let connected = route.connector.connect(ends).await.map_err(SendError::Connect)?;
        let (upload, response) = (Arc::<Upload>::default(), Arc::<ResponseStart>::default());
        let io = TokioIo::new(ServerIo {
            stream: connected.stream,
            upload: Arc::clone(&upload),
            response: Arc::clone(&response),
            write_timer: StallTimer::new(limit),
        });
        let (sender, connection) = builder().handshake(io).await.map_err(SendError::Http)?;
        // It ends when the sender is dropped and no exchange is left.
        tokio::spawn(connection);
        Ok(Self { route: Arc::clone(route), sender, upload, response })
    }

    /// Sends a request and waits for the head of the final response.
    async fn send(&mut self, mut request: Request<RequestBody>) -> Result<Response<Incoming>, Unsent> {
        self.response.expect();
        request.body_mut().send_on(Arc::clone(&self.upload));
        let response = Arc::clone(&self.response);
        on_informational(&mut request, move |_| response.count_informational());
        self.sender.try_send_request(request).await.map_err(|mut error| {
            let request = error.take_message().map(Box::new);
            Unsent { request, error: error.into_error() }
        })
    }
}

/// A request without a response.
struct Unsent {
    /// The request, if none of it was sent.
    request: Option<Box<Request<RequestBody>>>,
    error: hyper::Error,
}

/// Sends a request on the kept connection if it leads to this route's server, or else on a new one, which is then kept.
///
/// A server may close a kept connection just as the next request comes. If no byte of the response has come, a request
/// that may be repeated (RFC 9110, 9.2.2) and has no body is sent once more, on a new connection.
pub(crate) async fn send(
    kept: &mut Option<ServerConnection>,
    (route, ends, limit): (&Arc<Route>, Ends, Duration),
    mut request: Request<RequestBody>,
) -> Result<Response<Incoming>, SendError> {
    let reusable = kept.take().filter(|connection| Arc::ptr_eq(&connection.route, route));
    if let Some(mut connection) = reusable
        && connection.sender.ready().await.is_ok()
    {
        let again = repeatable(&request);
        match connection.send(request).await {
            Ok(response) => {
                *kept = Some(connection);
                return Ok(response);
            }
            Err(Unsent { request: Some(unsent), .. }) => request = *unsent,
            Err(Unsent { error, .. }) => match again.filter(|_| !connection.response.has_begun()) {
                Some(again) => request = again,
                None => return Err(SendError::Http(error)),
            },
        }
    }
    let mut connection = ServerConnection::open(route, ends, limit).await?;
    let response = connection.send(request).await.map_err(|unsent| SendError::Http(unsent.error))?;
    *kept = Some(connection);
    Ok(response)
}

fn repeatable(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let may_repeat = request.method().is_idempotent() && request.body().is_end_stream();
    may_repeat.then(|| {
        let mut again = Request::new(RequestBody::empty());
        again.method_mut().clone_from(request.method());
        again.uri_mut().clone_from(request.uri());
        again.headers_mut().clone_from(request.headers());
        again.extensions_mut().clone_from(request.extensions());
        again
    })
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .allow_spaces_after_header_name_in_responses(true)
        .max_headers(MAX_RESPONSE_LINES)
        .max_buf_size(MAX_RESPONSE_HEAD)
        .preserve_header_case(true)
        .title_case_headers(true);
    builder
}

/// The bytes of a request's body that the library holds.
#[derive(Debug, Default)]
pub(crate) struct Upload(AtomicUsize);

impl Upload {
    /// Whether no more may be given to the library.
    pub(crate) fn is_full(&self) -> bool {
        self.0.load(Ordering::Acquire) > MAX_UPLOAD
    }

    /// So many more were given to it.
    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::AcqRel);
    }

    fn flushed(&self) {
        self.0.store(0, Ordering::Release);
    }
}

/// How much of a response has come before its final head.
#[derive(Debug, Default)]
struct ResponseStart {
    has_begun: AtomicBool,
    informational: AtomicUsize,
}

impl ResponseStart {
    fn expect(&self) {
        self.has_begun.store(false, Ordering::Release);
        self.informational.store(0, Ordering::Release);
    }

    fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }

    fn count_informational(&self) {
        self.informational.fetch_add(1, Ordering::AcqRel);
    }

    fn has_too_many(&self) -> bool {
        self.informational.load(Ordering::Acquire) > MAX_INFORMATIONAL
    }
}

/// A server's connection as the library sees it.
struct ServerIo {
    stream: ServerStream,
    upload: Arc<Upload>,
    response: Arc<ResponseStart>,
    write_timer: StallTimer,
}

impl AsyncRead for ServerIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.response.has_too_many() {
            return Poll::Ready(Err(io::Error::other("too many 1xx responses")));
        }
        let before = buf.filled().len();
        ready!(poll_read_piece(&mut self.stream, cx, buf))?;
        if buf.filled().len() > before {
            self.response.has_begun.store(true, Ordering::Release);
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads so little at once that the library never makes its buffer larger.
pub(crate) fn poll_read_piece(
    stream: &mut ServerStream,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let length = buf.remaining().min(READ);
    let mut piece = ReadBuf::new(buf.initialize_unfilled_to(length));
    ready!(Pin::new(stream).poll_read(cx, &mut piece))?;
    let count = piece.filled().len();
    buf.advance(count);
    Poll::Ready(Ok(()))
}

impl AsyncWrite for ServerIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        let written = this.write_timer.check(cx, written);
        written.map(|written| written.unwrap_or_else(|Stalled| Err(io::ErrorKind::TimedOut.into())))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The library flushes when it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.upload.flushed();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
