//! One client connection: its opening handshake and what becomes of it, or its plain requests until one is a handshake.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::Response;
use socket2::Socket;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{
    Proxy,
    connector::into_socket,
    http::{
        response::Body,
        server::{self, GivenBack},
        validate::Limits,
    },
    proxy_protocol::Ends,
    replay::read_more,
    upgrade::{
        handshake::{self, Opening, Outcome, Upgraded},
        raw_head::{Parsed, may_end},
    },
};
use crate::{
    admission::ConnectionPermit,
    metrics::RejectReason,
    relay::{NewSession, SessionGuard},
    websocket::PerEndpoint,
};

/// How much of what a refused client still sends is read, so that the answer reaches it before the reset would.
const LINGER_BYTES: u64 = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// A connection that was taken.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    /// What was read of it behind a PROXY header.
    pub(super) early: Vec<u8>,
    pub(super) ends: Ends,
    pub(super) place: ConnectionPermit,
    /// Held while something of the connection's is in flight: a drain waits for it.
    pub(super) in_service: TaskTrackerToken,
}

/// What a connection is to do next.
enum Next {
    /// Forward an opening handshake, whose head is the first so many bytes of what was read.
    Open(usize),
    /// Serve requests, of which the first may have an answer already.
    Serve(Option<Response<Body>>),
    /// Hang up.
    End,
    /// Close: nothing was asked, and the process ends.
    Close,
}

/// A client's connection, while it is no session.
struct Connection {
    proxy: Arc<Proxy>,
    ends: Ends,
    limits: Limits,
    stream: TcpStream,
    /// What was read of it and not used yet.
    read: Vec<u8>,
}

/// Serves a connection until it ends; where it becomes a session, hands it to the data plane.
pub(super) async fn serve(proxy: Arc<Proxy>, accepted: Accepted, limits: Limits) {
    let Accepted { stream, early, ends, place, in_service } = accepted;
    let mut connection = Connection { proxy, ends, limits, stream, read: early };
    let mut next = connection.first().await;
    loop {
        match next {
            Next::Open(length) => match connection.open(length).await {
                Some(Outcome::Upgraded(upgraded)) => {
                    if connection.switch(&upgraded).await {
                        return connection.hand_over(*upgraded, place);
                    }
                    // The ticket of a session that nobody will have counts it as a lost client.
                    drop(upgraded.ticket(&connection.proxy));
                    next = Next::End;
                }
                Some(Outcome::Answered(response)) => next = Next::Serve(Some(response)),
                None => next = Next::End,
            },
            // Boxed, since its state is large, and most connections never come here.
            Next::Serve(response) => (connection, next) = Box::pin(connection.serve(response)).await,
            Next::End => return hang_up(connection.stream, in_service).await,
            Next::Close => return,
        }
    }
}

impl Connection {
    /// Reads the head of the first request. What is none, or no opening handshake, is the library's to answer.
    async fn first(&mut self) -> Next {
        let (proxy, timeout) = (Arc::clone(&self.proxy), self.limits.head_timeout.unwrap_or(Duration::MAX));
        tokio::select! {
            biased;
            next = tokio::time::timeout(timeout, self.read_head()) => next.unwrap_or_else(|_| {
                proxy.metrics.connection_rejected(RejectReason::Timeout);
                Next::End
            }),
            () = proxy.closing.cancelled() => Next::Close,
        }
    }

    async fn read_head(&mut self) -> Next {
        let mut new = 0;
        loop {
            if skip_empty_lines(&mut self.read) {
                new = 0;
            }
            if self.read.len() > new && may_end(&self.read, new) {
                match Opening::parse(&self.read) {
                    Parsed::Partial => {}
                    Parsed::Whole(_, length) if length <= self.limits.head_bytes => return Next::Open(length),
                    Parsed::Whole(..) | Parsed::Other => return Next::Serve(None),
                }
            }
            new = self.read.len();
            if new >= self.limits.head_bytes {
                return Next::Serve(None);
            }
            if !read_more(&mut self.stream, &mut self.read).await {
                return Next::End;
            }
        }
    }

    /// Forwards an opening handshake. Nothing comes of it where the client goes meanwhile.
    async fn open(&mut self, length: usize) -> Option<Outcome> {
        let head: Vec<u8> = self.read.drain(..length).collect();
        let (proxy, ends) = (Arc::clone(&self.proxy), self.ends);
        let outcome = tokio::select! {
            biased;
            outcome = handshake::forward(&proxy, ends, &head) => outcome,
            () = self.gone() => return None,
        };
        if let Outcome::Answered(_) = outcome {
            // The library answers, and answers only what it has read.
            self.read.splice(..0, head);
        }
        Some(outcome)
    }

    /// Ends when the client does. What it sends meanwhile is kept, about as much as the library would keep.
    async fn gone(&mut self) {
        while self.read.len() < self.limits.buffer() {
            if !read_more(&mut self.stream, &mut self.read).await {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Lets the library serve requests.
    async fn serve(self, prepared: Option<Response<Body>>) -> (Self, Next) {
        let Self { proxy, ends, limits, stream, read } = self;
        let GivenBack { stream, read, opening } =
            server::serve(Arc::clone(&proxy), ends, limits, stream, read, prepared).await;
        (Self { proxy, ends, limits, stream, read }, opening.map_or(Next::End, Next::Open))
    }

    /// Sends the 101. Says whether that succeeded; a client that does not read could hold it for ever.
    async fn switch(&mut self, upgraded: &Upgraded) -> bool {
        let sending = self.stream.write_all(&upgraded.switching);
        let sent = tokio::time::timeout(upgraded.timeout.unwrap_or(Duration::MAX), sending).await;
        matches!(sent, Ok(Ok(())))
    }

    /// The 101 is sent: the data plane takes both connections.
    fn hand_over(self, upgraded: Upgraded, place: ConnectionPermit) {
        let Upgraded { server, early, policy, extensions, about, metrics, .. } = upgraded;
        let ticket = SessionGuard::new(about, metrics, Arc::clone(&self.proxy.journal));
        let sockets = self.stream.into_std().and_then(|client| Ok((Socket::from(client), into_socket(server)?)));
        match sockets {
            Ok((client, server)) => self.proxy.relay.hand_over(NewSession {
                sockets: PerEndpoint { client, server },
                early: PerEndpoint { client: self.read, server: early },
                policy,
                extensions,
                opened: Instant::now(),
                guard: ticket,
                permit: place,
            }),
            // The ticket counts the session that did not come about.
            Err(error) => tracing::error!(%error, "a connection could not be handed to the data plane"),
        }
    }
}

impl Upgraded {
    fn ticket(self, proxy: &Proxy) -> SessionGuard {
        SessionGuard::new(self.about, self.metrics, Arc::clone(&proxy.journal))
    }
}

/// A client may send some before its request (RFC 9112, 2.2). Says whether there were any.
fn skip_empty_lines(read: &mut Vec<u8>) -> bool {
    let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let breaks = read.iter().take_while(|byte| is_break(byte)).count();
    // What stands behind the last line feed is no line yet.
    let lines = read[..breaks].iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    read.drain(..lines);
    lines > 0
}

/// Ends a connection so that the last answer reaches the client: FIN, and then what it still sends is read for a while.
async fn hang_up(mut stream: TcpStream, in_service: TaskTrackerToken) {
    drop(in_service);
    let _ = stream.shutdown().await;
    let mut rest = stream.take(LINGER_BYTES);
    let _ = tokio::time::timeout(LINGER_TIME, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}
