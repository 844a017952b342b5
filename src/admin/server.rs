//! The admin's HTTP server. It bounds connections, their memory and the time that a client may take.

use std::{convert::Infallible, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{Request, Response},
};
use futures_util::FutureExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::{
    io::{InspectReader, InspectWriter},
    sync::CancellationToken,
    task::TaskTracker,
};
use tower_service::Service;

use super::{
    Admin, Scope,
    connection_limit::{self, AdminConnection, ConnectionLimit},
    descriptor_reserve::DescriptorReserve,
    routes,
};
use crate::accept_backoff::{AcceptBackoff, is_out_of_descriptors};

/// Serves the admin on `listener` until `stop` is cancelled and the responses in flight are sent. Its reserve of file
/// descriptors is filled at once, before the future runs.
pub fn serve(
    listener: TcpListener,
    admin: Arc<Admin>,
    connections: usize,
    scope: Scope,
    stop: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    serve_within(ServerLimits::new(connections), listener, admin, scope, stop)
}

/// The limits for slow or many clients.
#[derive(Debug, Clone, Copy)]
struct ServerLimits {
    open: connection_limit::ConnectionLimits,
    /// How long a request head may take to arrive, from the connection or the last response on.
    request_head: Duration,
    /// How long sent bytes may stay unacknowledged, or a client's window closed.
    unread: Duration,
    /// How long responses in flight may take when the server stops.
    last_responses: Duration,
}

/// The time between two tries to accept when there is no spare descriptor.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// The size of the read buffer of a connection, and so of a request head.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// The size of the kernel's send buffer of a connection. The kernel's own tuning goes up to 4 MiB for a slow reader.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

impl ServerLimits {
    fn new(connections: usize) -> Self {
        Self {
            open: connection_limit::ConnectionLimits {
                connections,
                unread_bytes: 32 * 1024 * 1024,
                streams: connections / 2,
            },
            request_head: Duration::from_secs(20),
            unread: Duration::from_secs(30),
            last_responses: Duration::from_secs(1),
        }
    }
}

fn serve_within(
    limits: ServerLimits,
    listener: TcpListener,
    admin: Arc<Admin>,
    scope: Scope,
    stop: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let router = routes::router(routes::Endpoints { admin, stop: stop.clone() }, scope);
    let (connections, reserve) = (ConnectionLimit::new(limits.open), DescriptorReserve::new());
    let server = Arc::new(AdminServer { limits, router, connections, reserve, stop });
    async move { server.serve(listener).await }
}

struct AdminServer {
    limits: ServerLimits,
    router: Router,
    connections: ConnectionLimit,
    reserve: DescriptorReserve,
    stop: CancellationToken,
}

impl AdminServer {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        let tasks = TaskTracker::new();
        let mut backoff = AcceptBackoff::default();
        while let Some((stream, peer, connection)) = self.next_connection(&listener, &mut backoff).await {
            let server = Arc::clone(&self);
            tasks.spawn(async move { server.serve_connection(stream, peer, connection).await });
        }
        drop(listener);
        tasks.close();
        tasks.wait().await;
    }

    /// The next connection, once there is a place for it, or `None` when the server stops.
    async fn next_connection(
        &self,
        listener: &TcpListener,
        backoff: &mut AcceptBackoff,
    ) -> Option<(TcpStream, SocketAddr, Arc<AdminConnection>)> {
        let accepted = async {
            let (stream, peer) = self.accept(listener, backoff).await;
            (stream, peer, self.connections.admit().await)
        };
        self.stop.run_until_cancelled(accepted).await
    }

    async fn accept(&self, listener: &TcpListener, backoff: &mut AcceptBackoff) -> (TcpStream, SocketAddr) {
        loop {
            self.reserve.refill();
            match listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) if is_out_of_descriptors(&error) => {
                    backoff.report(&error, "admin");
                    if let Some(accepted) = self.accept_from_reserve(listener).await {
                        return accepted;
                    }
                }
                Err(error) => backoff.pause(&error, "admin").await,
            }
        }
    }

    /// Accepts with a spare descriptor, or with that of the quietest connection. Without descriptors accept(2) fails even
    /// if no connection waits.
    async fn accept_from_reserve(&self, listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
        if !self.reserve.release() {
            if is_readable(listener) {
                self.connections.evict_quietest();
            }
            let _ = timeout(RETRY_INTERVAL, self.reserve.reclaimed()).await;
            if !self.reserve.release() {
                return None;
            }
        }
        // If this had to wait, another thread could take the descriptor.
        listener.accept().now_or_never()?.ok()
    }

    /// Serves a connection to its end.
    async fn serve_connection(&self, stream: TcpStream, peer: SocketAddr, connection: Arc<AdminConnection>) {
        self.set_options(&stream);
        let (reader, writer) = (Arc::clone(&connection), Arc::clone(&connection));
        let stream = InspectReader::new(stream, move |_| reader.on_progress());
        let stream = InspectWriter::new(stream, move |_| writer.on_progress());
        let service = service_fn(|request| self.respond(request, peer, Arc::clone(&connection)));
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(self.limits.request_head).max_buf_size(READ_BUFFER_BYTES);
        let mut http = builder.serve_connection(TokioIo::new(stream), service);
        self.run(&mut http, &connection).await;
        let stream = http.into_parts().io.into_inner().into_inner().into_inner();
        if let Ok(stream) = stream.into_std() {
            self.reserve.reclaim(stream.into());
        }
    }

    /// Runs a connection until its client, an eviction or the stop of the server ends it.
    async fn run(&self, http: &mut (impl GracefulConnection + Unpin), connection: &AdminConnection) {
        // An error of `http` is a client that has gone or was too slow.
        tokio::select! {
            // Bytes that have arrived are read first, because they may be a request.
            biased;
            _ = &mut *http => return,
            () = connection.evicted() => return,
            () = self.stop.cancelled() => {}
        }
        // Before its first request hyper would wait for it.
        if connection.has_requested() {
            Pin::new(&mut *http).graceful_shutdown();
            let _ = timeout(self.limits.last_responses, http).await;
        }
    }

    /// Lets the kernel close the connection if the client is dead, or alive but does not read, and bounds its buffer.
    fn set_options(&self, stream: &TcpStream) {
        let socket = SockRef::from(stream);
        // If a kernel refuses an option, the number of connections is the bound that is left.
        let _ = socket.set_tcp_user_timeout(Some(self.limits.unread));
        let _ = socket.set_send_buffer_size(SEND_BUFFER_BYTES);
        let _ = socket.set_tcp_nodelay(true);
    }

    async fn respond(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        connection: Arc<AdminConnection>,
    ) -> Result<Response<Body>, Infallible> {
        connection.on_request();
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(connection);
        self.router.clone().call(request).await
    }
}

/// Whether a connection waits to be accepted.
fn is_readable(listener: &TcpListener) -> bool {
    let mut events = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut events, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;
    use futures_util::future::BoxFuture;
    use tokio::{
        io::{self, AsyncReadExt, AsyncWriteExt},
        task::{JoinHandle, yield_now},
    };

    use super::*;
    use crate::{
        admin::{CloseRequest, Control, MetricsText, Options, ProcessPhase},
        journal::Journal,
    };

    struct Idle;

    impl Control for Idle {
        fn phase(&self) -> ProcessPhase {
            ProcessPhase::Ready
        }

        fn drain(&self) {}

        fn reload(&self) -> BoxFuture<'_, Result<(), String>> {
            async { Ok(()) }.boxed()
        }

        fn close(&self, _request: CloseRequest) -> BoxFuture<'_, usize> {
            async { 0 }.boxed()
        }
    }

    /// More than the kernel holds for a connection whose client does not read.
    const LARGE: usize = 8 << 20;

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_mins(1);

    async fn start(limits: ServerLimits) -> SocketAddr {
        start_until(CancellationToken::new(), limits, || vec![b'#'; LARGE]).await.0
    }

    async fn start_until(
        stop: CancellationToken,
        limits: ServerLimits,
        render: impl Fn() -> Vec<u8> + Send + 'static,
    ) -> (SocketAddr, JoinHandle<()>) {
        let admin = Admin {
            metrics: MetricsText::start("text/plain", render).unwrap(),
            journal: Arc::new(Journal::new(1)),
            control: Arc::new(Idle),
            options: ArcSwap::from_pointee(Options { control: true, hosts: Vec::new() }),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (address, tokio::spawn(serve_within(limits, listener, Arc::new(admin), Scope::Full, stop)))
    }

    fn limits(open: connection_limit::ConnectionLimits) -> ServerLimits {
        ServerLimits { open, ..ServerLimits::new(128) }
    }

    const OPEN: connection_limit::ConnectionLimits =
        connection_limit::ConnectionLimits { connections: 128, unread_bytes: usize::MAX, streams: 64 };

    async fn send(address: SocketAddr, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn get(address: SocketAddr, path: &str) -> TcpStream {
        send(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await
    }

    async fn status(stream: &mut TcpStream) -> String {
        let mut head = [0; 12];
        let read = timeout(PATIENCE, stream.read_exact(&mut head)).await;
        read.expect("a response comes").unwrap();
        String::from_utf8(head.to_vec()).unwrap()
    }

    /// The number of bytes that come until the server ends the connection.
    async fn rest(stream: &mut TcpStream) -> usize {
        let mut bytes = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the connection ends");
        bytes.len()
    }

    #[tokio::test]
    async fn server_ends_silent_connections() {
        let address = start(ServerLimits { request_head: Duration::from_millis(50), ..ServerLimits::new(128) }).await;
        for beginning in ["", "GET /-/healthy HTTP/1.1\r\nHost"] {
            rest(&mut send(address, beginning).await).await;
        }
    }

    #[tokio::test]
    async fn stop_does_not_wait_for_incomplete_requests() {
        let stop = CancellationToken::new();
        let long = Duration::from_mins(10);
        let limits = ServerLimits { request_head: long, last_responses: long, ..ServerLimits::new(128) };
        let (address, server) = start_until(stop.clone(), limits, Vec::new).await;
        let whole = "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n";
        let half_head = "GET /-/healthy HTTP/1.1\r\nHost";
        let half_body = "POST /-/close HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                         Expect: 100-continue\r\nContent-Length: 10\r\n\r\n{";
        let mut waiting = Vec::new();
        for (request, responds) in
            [("", false), (half_head, false), (whole, true), (&format!("{whole}{half_head}"), true), (half_body, true)]
        {
            let mut connection = send(address, request).await;
            if responds {
                status(&mut connection).await;
            }
            waiting.push(connection);
        }
        stop.cancel();
        timeout(PATIENCE, server).await.expect("the server stops").unwrap();
        let mut response = String::new();
        waiting.pop().unwrap().read_to_string(&mut response).await.unwrap();
        assert!(response.contains("HTTP/1.1 503 "), "{response}");
    }

    #[tokio::test]
    async fn client_that_does_not_read_is_ended() {
        let address = start(ServerLimits { unread: Duration::from_millis(50), ..limits(OPEN) }).await;
        let mut deaf = get(address, "/metrics").await;
        assert_eq!(status(&mut deaf).await, "HTTP/1.1 200");
        // The kernel ends the connection silently, and answers the next segment with RST.
        let is_reset = |error: &io::Error| error.kind() != io::ErrorKind::WouldBlock;
        let reset = async {
            while !deaf.try_write(b"?").is_err_and(|error| is_reset(&error)) {
                yield_now().await;
            }
        };
        timeout(PATIENCE, reset).await.expect("the connection is reset");
    }

    #[tokio::test]
    async fn scraper_that_does_not_read_makes_room() {
        let address = start(limits(connection_limit::ConnectionLimits { connections: 1, ..OPEN })).await;
        let mut deaf = get(address, "/metrics").await;
        assert_eq!(status(&mut deaf).await, "HTTP/1.1 200");
        assert_eq!(status(&mut get(address, "/-/healthy").await).await, "HTTP/1.1 200");
        assert!(rest(&mut deaf).await < LARGE);
    }

    #[tokio::test]
    async fn quietest_connection_makes_room() {
        let address = start(limits(connection_limit::ConnectionLimits { connections: 2, ..OPEN })).await;
        let kept = "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut older = send(address, kept).await;
        status(&mut older).await;
        let mut quietest = send(address, kept).await;
        status(&mut quietest).await;
        older.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        assert_eq!(status(&mut get(address, "/-/healthy").await).await, "HTTP/1.1 200");
        rest(&mut quietest).await;
        older.write_all(b"Connection: close\r\n\r\n").await.unwrap();
        assert!(rest(&mut older).await > 100, "it has its second response");
    }

    #[tokio::test]
    async fn unread_metrics_are_bounded() {
        let address = start(limits(connection_limit::ConnectionLimits { unread_bytes: 2 * LARGE, ..OPEN })).await;
        let mut deaf = Vec::new();
        for _ in 0..3 {
            let mut scraper = get(address, "/metrics").await;
            assert_eq!(status(&mut scraper).await, "HTTP/1.1 200");
            deaf.push(scraper);
        }
        assert!(rest(&mut deaf[0]).await < LARGE, "the first has made room for the third");
        assert!(rest(&mut deaf[1]).await > LARGE, "the second has its whole response");
        assert!(rest(&mut deaf[2]).await > LARGE, "the third has its whole response");
    }

    #[tokio::test]
    async fn streams_are_bounded_and_leave_nothing_behind() {
        let address = start(limits(connection_limit::ConnectionLimits { streams: 1, ..OPEN })).await;
        let mut first = get(address, "/api/v1/closes/stream").await;
        assert_eq!(status(&mut first).await, "HTTP/1.1 200");
        assert_eq!(status(&mut get(address, "/api/v1/closes/stream").await).await, "HTTP/1.1 503");
        drop(first);
        while status(&mut get(address, "/api/v1/closes/stream").await).await != "HTTP/1.1 200" {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn health_answers_while_metrics_are_rendered() {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let render = move || {
            let _ = released.recv();
            b"rendered".to_vec()
        };
        let (address, _) = start_until(CancellationToken::new(), ServerLimits::new(128), render).await;
        let mut scraper = get(address, "/metrics").await;
        for _ in 0..3 {
            assert_eq!(status(&mut get(address, "/-/healthy").await).await, "HTTP/1.1 200");
        }
        drop(release);
        assert_eq!(status(&mut scraper).await, "HTTP/1.1 200");
    }
}
