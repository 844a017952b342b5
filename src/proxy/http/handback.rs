//! One request of a client's connection, as the HTTP library reads it.
//!
//! **Invariant: the library never gets a byte behind the request that it serves.** So the connection can be taken from
//! it when the exchange is over: nothing that came is in the library's buffers, and the next request, which may be an
//! upgrade, is read as the bytes that came.
//!
//! - [`OneRequest`] gives the library the head, and then the bytes that [`BodyFraming`] counts as the body. Behind it the
//!   connection seems silent, though its end is still reported, so that the library gives up a request whose client has
//!   gone.
//! - An exchange is over when the response is flushed and the library has read the request's body to its end. If the
//!   library and `BodyFraming` disagree on that end, which takes a malformed body, the connection is closed.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::io::poll_read_buf;

use super::{
    body::{BodyProgress, StallTimer, Stalled},
    framing::BodyFraming,
};

/// The bytes that are read at once, and kept while the library does not want them.
const READ: usize = 8 * 1024;

/// A client's connection, whose bytes end behind one request.
pub(crate) struct OneRequest<'a> {
    stream: &'a mut TcpStream,
    /// Read from the stream, and not given to the library.
    read: &'a mut BytesMut,
    /// The part of the head that the library has still to read.
    head: Bytes,
    body: BodyFraming,
    progress: Arc<BodyProgress>,
    write_timer: StallTimer,
    has_stalled: bool,
}

impl<'a> OneRequest<'a> {
    /// A request with this head, whose body comes next on the connection. `limit` is how long the client may accept
    /// nothing of the response.
    pub(crate) fn new(
        (stream, read): (&'a mut TcpStream, &'a mut BytesMut),
        head: Bytes,
        body: BodyFraming,
        progress: Arc<BodyProgress>,
        limit: Duration,
    ) -> Self {
        Self { stream, read, head, body, progress, write_timer: StallTimer::new(limit), has_stalled: false }
    }

    /// Whether the library was given the whole request.
    pub(crate) fn is_given(&self) -> bool {
        self.head.is_empty() && self.body.is_over()
    }

    /// Whether the client accepted nothing of the response for too long.
    pub(crate) fn has_stalled(&self) -> bool {
        self.has_stalled
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(READ);
        poll_read_buf(Pin::new(&mut *self.stream), cx, &mut *self.read)
    }

    /// Reads ahead, to learn of the connection's end.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.read.len() < READ {
            if ready!(self.poll_fill(cx))? == 0 {
                // Requests that came before the end are still answered.
                return if self.read.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
        }
        Poll::Pending
    }
}

impl AsyncRead for OneRequest<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.head.is_empty() {
            let count = this.head.len().min(buf.remaining());
            buf.put_slice(&this.head.split_to(count));
            return Poll::Ready(Ok(()));
        }
        if this.body.is_over() {
            return this.poll_end(cx);
        }
        if this.read.is_empty() && ready!(this.poll_fill(cx))? == 0 {
            return Poll::Ready(Ok(()));
        }
        let count = this.read.len().min(buf.remaining());
        let count = this.body.advance(&this.read[..count]);
        buf.put_slice(&this.read[..count]);
        this.read.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for OneRequest<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.progress.set_flushed(false);
        let written = Pin::new(&mut *this.stream).poll_write_vectored(cx, bufs);
        this.write_timer.check(cx, written).map(|written| {
            written.unwrap_or_else(|Stalled| {
                this.has_stalled = true;
                Err(io::ErrorKind::TimedOut.into())
            })
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The library flushes when it has nothing left to write. A TCP stream has no buffer of its own.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.progress.set_flushed(true);
        Poll::Ready(Ok(()))
    }

    /// The connection itself outlives the exchange.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
