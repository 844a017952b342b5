//! The connections to one upstream that plain requests use. They are kept for the next request; an upgrade never takes
//! one of them. Where a connection tells the server its client, each request has its own.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{
    Request, Response, Uri,
    body::{Body, Incoming},
    http::Extensions,
};
use hyper_util::{
    client::legacy::{
        Builder, Client, Error,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::{
    connector::{ConnectError, Connector, ServerStream},
    proxy_protocol::Ends,
};

/// Sends plain requests to one upstream.
pub(crate) struct Pool {
    connector: Arc<Connector>,
    kept: Client<PoolConnector, Incoming>,
    /// Makes a connection for each request.
    fresh: Client<PoolConnector, Empty<Bytes>>,
}

impl Pool {
    pub(crate) fn new(connector: Connector) -> Self {
        let connector = Arc::new(connector);
        let shared = PoolConnector { connector: Arc::clone(&connector), ends: None };
        let kept = builder().build(shared.clone());
        Self { connector, kept, fresh: builder().pool_max_idle_per_host(0).build(shared) }
    }

    /// Sends a request of a client's to the server and waits for the head of its answer.
    pub(crate) async fn request(&self, ends: Ends, request: Request<Incoming>) -> Result<Response<Incoming>, Error> {
        if !self.connector.speaks_for_one() {
            return self.request_on_kept(request).await;
        }
        let own = PoolConnector { connector: Arc::clone(&self.connector), ends: Some(ends) };
        builder().pool_max_idle_per_host(0).build(own).request(request).await
    }

    /// A server may close a kept connection just as the next request comes. A request that may be repeated (RFC 9110,
    /// 9.2.2), and has no body that is gone by then, is sent once more, on a fresh connection.
    async fn request_on_kept(&self, request: Request<Incoming>) -> Result<Response<Incoming>, Error> {
        let (head, body) = request.into_parts();
        let may_repeat = head.method.is_idempotent() && body.is_end_stream();
        let again = may_repeat.then(|| head.clone());
        match (self.kept.request(Request::from_parts(head, body)).await, again) {
            (Err(error), Some(head)) if ended_before_another_answer(&error) => {
                self.fresh.request(Request::from_parts(head, Empty::new())).await
            }
            (result, _) => result,
        }
    }
}

fn builder() -> Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .http1_preserve_header_case(true)
        .http1_title_case_headers(true)
        .set_host(false);
    builder
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Pool")
    }
}

/// Whether a request failed because its connection, kept from another one, ended before any of the answer.
fn ended_before_another_answer(error: &Error) -> bool {
    let mut extras = Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut extras);
    }
    extras.get::<Arc<Course>>().is_some_and(|course| course.awaits_another_answer())
}

/// Lets the pool make connections to the one upstream, whatever URI it is asked for.
#[derive(Clone)]
struct PoolConnector {
    connector: Arc<Connector>,
    /// Of the client whose connections they are; `None`: of no one.
    ends: Option<Ends>,
}

impl tower_service::Service<Uri> for PoolConnector {
    type Response = TokioIo<PooledStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { connector, ends } = self.clone();
        Box::pin(async move {
            let connected = match ends {
                Some(ends) => connector.connect(ends).await?,
                None => connector.connect_shared().await?,
            };
            Ok(TokioIo::new(PooledStream { stream: connected.stream, course: Arc::default() }))
        })
    }
}

/// How far a connection is with its requests, one after the other.
#[derive(Default)]
struct Course {
    was_answered: AtomicBool,
    /// Something was asked, and none of the answer is there.
    awaits_answer: AtomicBool,
}

impl Course {
    fn asked(&self) {
        self.awaits_answer.store(true, Ordering::Release);
    }

    fn answered(&self) {
        self.was_answered.store(true, Ordering::Release);
        self.awaits_answer.store(false, Ordering::Release);
    }

    fn awaits_another_answer(&self) -> bool {
        self.was_answered.load(Ordering::Acquire) && self.awaits_answer.load(Ordering::Acquire)
    }
}

/// A connection that tells how far it is.
struct PooledStream {
    stream: ServerStream,
    course: Arc<Course>,
}

impl Connection for PooledStream {
    fn connected(&self) -> Connected {
        Connected::new().extra(Arc::clone(&self.course))
    }
}

impl AsyncRead for PooledStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let filled = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > filled {
            self.course.answered();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PooledStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.course.asked();
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
