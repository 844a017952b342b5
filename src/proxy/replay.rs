//! Reading a client's or a server's connection: piece by piece, and once more as the HTTP library's.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
};

use super::http::second_look::Heads;

/// How much is read at once, before anything is known of a connection.
const READ: usize = 2 * 1024;

/// Reads a piece of a connection to the end of `read`. Says whether there was something: at its end, and where it is
/// broken, there is not.
pub(super) async fn read_more(stream: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>) -> bool {
    read.reserve(READ);
    matches!(stream.read_buf(read).await, Ok(1..))
}

/// What was read of a connection before the library had it, and is read again.
#[derive(Debug)]
pub(super) struct Early(Bytes);

impl Early {
    pub(super) fn new(read: Vec<u8>) -> Self {
        Self(read.into())
    }

    /// Says whether there was something left.
    pub(super) fn read(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let count = self.0.len().min(buf.remaining());
        buf.put_slice(&self.0[..count]);
        self.0.advance(count);
        count > 0
    }
}

/// Whether the library is to give a connection back.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// How many header lines the upgrade request has that was met; none, while there was none.
    lines: AtomicUsize,
    is_flushed: Notify,
}

impl Leaving {
    /// An upgrade request was met, with so many header lines.
    pub(super) fn meet(&self, lines: usize) {
        self.lines.store(lines, Ordering::Release);
    }

    /// Waits until one was met, and everything that the library had written before has gone out. Says how many header
    /// lines it has.
    pub(super) async fn ready(&self) -> usize {
        self.is_flushed.notified().await;
        self.lines.load(Ordering::Acquire)
    }

    fn flushed(&self) {
        if self.lines.load(Ordering::Acquire) > 0 {
            self.is_flushed.notify_one();
        }
    }
}

/// A client's TCP stream as the library sees it. What was read before is read first, and the bytes of request heads are
/// kept in [`Heads`].
#[derive(Debug)]
pub(super) struct ClientStream {
    tcp: TcpStream,
    early: Early,
    heads: Heads,
    leaving: Arc<Leaving>,
}

impl ClientStream {
    /// `early` is read before what `tcp` brings.
    pub(super) fn new(tcp: TcpStream, early: Vec<u8>, heads: Heads, leaving: Arc<Leaving>) -> Self {
        Self { tcp, early: Early::new(early), heads, leaving }
    }

    /// The bare stream, and what was read early and not read again.
    pub(super) fn into_parts(self) -> (TcpStream, Bytes) {
        (self.tcp, self.early.0)
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let filled = buf.filled().len();
        if !this.early.read(buf) {
            ready!(Pin::new(&mut this.tcp).poll_read(cx, buf))?;
        }
        this.heads.push(&buf.filled()[filled..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    /// The library flushes when it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.tcp).poll_flush(cx))?;
        self.leaving.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
