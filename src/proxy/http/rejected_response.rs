//! A server's response to an upgrade request that is no 101. It may have a body in any framing, so the HTTP library
//! reads it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use http_body_util::Empty;
use hyper::{Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::server_connection::poll_read_piece;
use crate::proxy::{connector::ServerStream, upgrade::answer::MAX_HEAD};

/// Reads a response whose request was sent on this connection. The bytes that were `read` hold its head, at least, which
/// has so many header `lines`. Its body is streamed.
pub(crate) async fn receive(stream: ServerStream, read: Bytes, lines: usize) -> hyper::Result<Response<Incoming>> {
    let io = TokioIo::new(AskedConnection { stream, read, is_asked: false, reader: None });
    let mut builder = http1::Builder::new();
    builder.allow_spaces_after_header_name_in_responses(true).preserve_header_case(true);
    builder.max_headers(lines.max(1)).max_buf_size(MAX_HEAD + 1);
    let (mut sender, connection) = builder.handshake(io).await?;
    // It ends when the body was read or dropped.
    tokio::spawn(connection);
    sender.send_request(Request::new(Empty::<Bytes>::new())).await
}

/// The connection as the library sees it. The library has to send a request before it reads a response; that request
/// goes nowhere.
struct AskedConnection {
    stream: ServerStream,
    /// The bytes of the response that were read already.
    read: Bytes,
    is_asked: bool,
    /// Wants to read, and waits until the library has sent its request.
    reader: Option<Waker>,
}

impl AsyncRead for AskedConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.is_asked {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.read.is_empty() {
            return poll_read_piece(&mut self.stream, cx, buf);
        }
        let count = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..count]);
        self.read.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for AskedConnection {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.is_asked = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
