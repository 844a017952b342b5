//! The two bodies of a plain exchange: a request and its response on a client's connection.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use super::server_connection::Upload;

/// How far an exchange is.
#[derive(Debug, Default)]
pub(crate) struct BodyProgress {
    /// The request's body was read to its end.
    is_request_read: AtomicBool,
    /// Nobody reads the request's body any more.
    is_request_dropped: AtomicBool,
    /// The last byte of the response is in the library's write buffer.
    is_response_written: AtomicBool,
    /// The library's write buffer is empty.
    is_flushed: AtomicBool,
    waker: AtomicWaker,
}

impl BodyProgress {
    /// Asks to be woken when an exchange may be over.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    /// Whether nothing of the exchange is left to do.
    pub(crate) fn is_over(&self) -> bool {
        let is_set = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        is_set(&self.is_response_written)
            && is_set(&self.is_flushed)
            && (is_set(&self.is_request_read) || is_set(&self.is_request_dropped))
    }

    /// Whether the request was read to its end.
    pub(crate) fn is_request_read(&self) -> bool {
        self.is_request_read.load(Ordering::Acquire)
    }

    pub(crate) fn set_flushed(&self, is_flushed: bool) {
        self.is_flushed.store(is_flushed, Ordering::Release);
    }

    fn set(&self, flag: &AtomicBool) {
        flag.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// The body of a request, on its way from a client to the server.
pub(crate) struct RequestBody {
    /// `None`: the body is empty.
    body: Option<Incoming>,
    /// `None` for a request that is sent again.
    progress: Option<Arc<BodyProgress>>,
    /// The server's connection, once it is chosen.
    upload: Option<Arc<Upload>>,
    timer: StallTimer,
}

impl RequestBody {
    /// `limit` is how long the client may send nothing.
    pub(crate) fn new(body: Incoming, progress: Arc<BodyProgress>, limit: Duration) -> Self {
        let body = Some(body).filter(|body| !body.is_end_stream());
        let body = Self { body, progress: Some(progress), upload: None, timer: StallTimer::new(limit) };
        body.note_end();
        body
    }

    /// The body of a request that is sent again.
    pub(crate) fn empty() -> Self {
        Self { body: None, progress: None, upload: None, timer: StallTimer::new(Duration::MAX) }
    }

    /// The body is sent on this connection.
    pub(crate) fn send_on(&mut self, upload: Arc<Upload>) {
        self.upload = Some(upload);
    }

    fn note_end(&self) {
        if let Some(progress) = &self.progress
            && self.is_end_stream()
        {
            progress.set(&progress.is_request_read);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if this.upload.as_ref().is_some_and(|upload| upload.is_full()) {
            // The library polls again when it has flushed.
            return Poll::Pending;
        }
        let frame = Pin::new(body).poll_frame(cx);
        let frame = ready!(this.timer.check(cx, frame)).map_err(|Stalled| BodyError::Stalled)?;
        match &frame {
            None => this.body = None,
            Some(Ok(frame)) => {
                if let (Some(upload), Some(data)) = (&this.upload, frame.data_ref()) {
                    upload.add(data.len());
                }
            }
            Some(Err(_)) => {}
        }
        this.note_end();
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.set(&progress.is_request_dropped);
        }
    }
}

/// Why a request's body did not come to its end.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The client sent nothing for too long.
    Stalled,
    /// It is malformed, or the client ended the connection.
    Broken(hyper::Error),
}

impl fmt::Display for BodyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stalled => formatter.write_str("the client sent nothing of the request's body for too long"),
            Self::Broken(error) => error.fmt(formatter),
        }
    }
}

impl Error for BodyError {}

/// The body of a response, on its way to a client.
pub(crate) struct ResponseBody {
    body: Either<Incoming, Full<Bytes>>,
    progress: Arc<BodyProgress>,
}

impl ResponseBody {
    pub(crate) fn new(body: Either<Incoming, Full<Bytes>>, progress: Arc<BodyProgress>) -> Self {
        Self { body, progress }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The library drops a body as soon as it has buffered the end of it.
impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.progress.set(&self.progress.is_response_written);
    }
}

/// Ends something that has been pending for too long.
#[derive(Debug)]
pub(crate) struct StallTimer {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// Nothing happened for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stalled;

impl StallTimer {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, sleep: None }
    }

    /// Passes a result on. As long as it is pending, the time runs.
    pub(crate) fn check<T>(&mut self, cx: &mut Context<'_>, result: Poll<T>) -> Poll<Result<T, Stalled>> {
        match result {
            Poll::Ready(result) => {
                self.sleep = None;
                Poll::Ready(Ok(result))
            }
            Poll::Pending => {
                let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(self.limit)));
                sleep.as_mut().poll(cx).map(|()| Err(Stalled))
            }
        }
    }
}
