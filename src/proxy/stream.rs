//! A client's connection as the HTTP parser reads it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::heads::Heads;

/// What hyper adds to a 101, and where.
const ADDED: &[u8] = b", close";
const CONNECTION_CLOSE: &[u8] = b"\nconnection: upgrade, close\r\n";

/// A client's TCP stream. What was read of it before (behind a PROXY header) is read first, and the bytes of request
/// heads are kept in [`Heads`].
///
/// To the 101 of a client that had asked to close the connection too, hyper adds `close`, which some clients take for a
/// failed handshake. That is left out of what is written.
#[derive(Debug)]
pub(super) struct ClientStream {
    tcp: TcpStream,
    early: Vec<u8>,
    heads: Heads,
    /// The next head written is a 101.
    switches: Arc<AtomicBool>,
    /// In how many bytes [`ADDED`] stands.
    until_added: Option<usize>,
}

impl ClientStream {
    /// `early` is read before what `tcp` brings. `switches` is set when a 101 is about to be written.
    pub(super) fn new(tcp: TcpStream, early: Vec<u8>, heads: Heads, switches: Arc<AtomicBool>) -> Self {
        Self { tcp, early, heads, switches, until_added: None }
    }

    /// The bare stream. Everything read early has been read again by then.
    pub(super) fn into_tcp(self) -> TcpStream {
        self.tcp
    }

    fn writes_switch(&self) -> bool {
        self.until_added.is_some() || self.switches.load(Ordering::Acquire)
    }

    /// Writes (a part of) a 101's head without what hyper added to it.
    fn poll_write_switch(&mut self, cx: &mut Context<'_>, head: &[u8]) -> Poll<io::Result<usize>> {
        let Some(until) = self.until_added.or_else(|| place_of_added(head)) else {
            return Pin::new(&mut self.tcp).poll_write(cx, head);
        };
        if until == 0 {
            self.until_added = None;
            return Poll::Ready(Ok(ADDED.len()));
        }
        let count = ready!(Pin::new(&mut self.tcp).poll_write(cx, &head[..until]))?;
        self.until_added = Some(until - count);
        Poll::Ready(Ok(count))
    }
}

fn place_of_added(head: &[u8]) -> Option<usize> {
    let is_line = |line: &[u8]| line.eq_ignore_ascii_case(CONNECTION_CLOSE);
    let line = head.windows(CONNECTION_CLOSE.len()).position(is_line)?;
    Some(line + CONNECTION_CLOSE.len() - ADDED.len() - b"\r\n".len())
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let filled = buf.filled().len();
        if this.early.is_empty() {
            ready!(Pin::new(&mut this.tcp).poll_read(cx, buf))?;
        } else {
            let count = this.early.len().min(buf.remaining());
            buf.put_slice(&this.early[..count]);
            this.early.drain(..count);
        }
        this.heads.push(&buf.filled()[filled..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.writes_switch() {
            return self.poll_write_switch(cx, buf);
        }
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.writes_switch() {
            let first = bufs.iter().find(|buf| !buf.is_empty());
            return self.poll_write_switch(cx, first.map_or(&[], |buf| buf));
        }
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
