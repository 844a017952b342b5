//! A client's connection as the HTTP parser reads it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A client's TCP stream. What was read of it before (behind a PROXY header) is read first, and the bytes of request
/// heads are kept for a second look.
///
/// hyper tells nothing of a Content-Length that stood beside a Transfer-Encoding: it follows the latter, as RFC 9112,
/// 6.3 allows. That shape is how requests are smuggled past a server that decides otherwise, so it is refused here, and
/// for that the head's own bytes must be seen.
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

/// What hyper adds, and where.
const ADDED: &[u8] = b", close";
const CONNECTION_CLOSE: &[u8] = b"\nconnection: upgrade, close\r\n";

/// The bytes read last, and not yet known to belong to a request that was looked at.
#[derive(Debug, Clone)]
pub(super) struct Heads {
    bytes: Arc<Mutex<Vec<u8>>>,
    limit: usize,
}

impl Heads {
    /// `limit` is the size of the largest head in bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: Arc::default(), limit }
    }

    /// Whether the head of a request that was just parsed has both a Content-Length and a Transfer-Encoding. Forgets what
    /// came before it.
    ///
    /// Where its head begins is not known: a body before it may hold what reads like one. So every head with its method
    /// is looked at, and where none is found the answer is yes.
    pub(super) fn have_two_lengths(&self, method: &str) -> bool {
        let mut bytes = self.lock();
        let mut head = None;
        let mut first_end = None;
        let mut two_lengths = false;
        let mut position = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            position += line.len();
            let line = line.trim_ascii_end();
            if is_request_line(line, method) {
                head = Some(Lengths::default());
            } else if line.is_empty() && head.take().is_some() {
                first_end.get_or_insert(position);
            } else if let Some(lengths) = &mut head {
                two_lengths |= lengths.add(line);
            }
        }
        let Some(end) = first_end else { return true };
        bytes.drain(..end);
        two_lengths
    }

    /// Whether the bytes of a head that no parser accepted ask for a WebSocket.
    pub(super) fn mention_websocket(&self) -> bool {
        let bytes = self.lock();
        bytes.windows(b"websocket".len()).any(|window| window.eq_ignore_ascii_case(b"websocket"))
    }

    fn push(&self, read: &[u8]) {
        let mut bytes = self.lock();
        bytes.extend_from_slice(read);
        // A body is no head: of what is not a request's, only as much stays as hyper may have read and not parsed yet.
        let length = bytes.len();
        if length > 4 * self.limit {
            bytes.drain(..length - 2 * self.limit);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which of the two headers that tell where a body ends were seen in a head.
#[derive(Default)]
struct Lengths {
    content_length: bool,
    transfer_encoding: bool,
}

impl Lengths {
    /// Looks at one more line, and says whether both were seen.
    fn add(&mut self, line: &[u8]) -> bool {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        self.content_length |= name.eq_ignore_ascii_case(b"content-length");
        self.transfer_encoding |= name.eq_ignore_ascii_case(b"transfer-encoding");
        self.content_length && self.transfer_encoding
    }
}

fn is_request_line(line: &[u8], method: &str) -> bool {
    let target = line.strip_prefix(method.as_bytes()).and_then(|rest| rest.strip_prefix(b" "));
    target.is_some_and(|rest| rest.ends_with(b" HTTP/1.1") || rest.ends_with(b" HTTP/1.0"))
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
