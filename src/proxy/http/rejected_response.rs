//! An answer to an upgrade request that is no 101: it has a body, in whichever framing, and is the HTTP library's to
//! read from here on.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::{connector::ServerStream, replay::Early};

/// The answer on a connection whose request was sent, and of whose answer the head, at least, was read. Its body is
/// still to be streamed.
pub(crate) async fn received(stream: ServerStream, read: Vec<u8>) -> hyper::Result<Response<Incoming>> {
    let io = TokioIo::new(Answered { stream, early: Early::new(read), is_asked: false, reader: None });
    let (mut sender, connection) = http1::Builder::new().preserve_header_case(true).handshake(io).await?;
    // It is over when the body was read, or nobody wants it any more.
    tokio::spawn(connection);
    sender.send_request(Request::new(Empty::<Bytes>::new())).await
}

/// Such a connection as the library sees it. It has to ask before it reads an answer; what it asks goes nowhere.
struct Answered {
    stream: ServerStream,
    /// What was read of the answer.
    early: Early,
    is_asked: bool,
    /// Who wanted to read before.
    reader: Option<Waker>,
}

impl AsyncRead for Answered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.is_asked {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.early.read(buf) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Answered {
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
