//! The admin's HTTP server: bounded in connections, and patient with nobody for long.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Admin, Phase, Scope, closes, codes, control,
    guests::{Guest, Guests},
    resource::Resource,
    response,
    response::Body,
};
use crate::accept_backoff::AcceptBackoff;

const PAGE: &str = include_str!("index.html");

/// Serves the admin on `listener` until `stop` is cancelled and the answers under way are given.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, scope: Scope, stop: CancellationToken) {
    serve_within(Limits::default(), listener, admin, scope, stop).await;
}

/// What slow or many clients can take from the server at most.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Connections at a time; for one more, one that has nothing under way has to go.
    connections: usize,
    /// Readers of the stream at a time, so that some connections are always left for scrapes and health checks.
    streams: usize,
    /// For a request's head to arrive, from the connection or the last answer on.
    request_head: Duration,
    /// For sent bytes to be acknowledged, or for a client to read at all.
    unread: Duration,
    /// For answers under way when the server stops.
    last_answers: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (request_head, unread) = (Duration::from_secs(20), Duration::from_secs(30));
        Self { connections: 128, streams: 64, request_head, unread, last_answers: Duration::from_secs(1) }
    }
}

async fn serve_within(limits: Limits, listener: TcpListener, admin: Arc<Admin>, scope: Scope, stop: CancellationToken) {
    let mut guests = Guests::new(limits.connections, stop.clone());
    let streams = Arc::new(Semaphore::new(limits.streams));
    let server = Arc::new(Server { limits, admin, scope, streams, stop: stop.clone() });
    let tasks = TaskTracker::new();
    let mut backoff = AcceptBackoff::default();
    while let Some((stream, guest)) = stop.run_until_cancelled(accept(&listener, &mut guests, &mut backoff)).await {
        let server = Arc::clone(&server);
        tasks.spawn(async move { server.serve_connection(stream, &guest).await });
    }
    tasks.close();
    tasks.wait().await;
}

/// The next connection, with a place for it.
async fn accept(listener: &TcpListener, guests: &mut Guests, backoff: &mut AcceptBackoff) -> (TcpStream, Arc<Guest>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, guests.welcome().await),
            Err(error) => backoff.pause(&error, "admin").await,
        }
    }
}

struct Server {
    limits: Limits,
    admin: Arc<Admin>,
    scope: Scope,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Server {
    async fn serve_connection(&self, stream: TcpStream, guest: &Guest) {
        self.expect_a_reader(&stream);
        let service = service_fn(|request| {
            guest.asks();
            async { Ok::<_, Infallible>(self.answer(request).await) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.limits.request_head);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        // An error here is a client that has gone, or was too slow: nobody is left to be told.
        tokio::select! {
            // What has arrived is read first: it may be a request.
            biased;
            _ = connection.as_mut() => return,
            () = guest.is_to_leave() => {}
        }
        // Before its first request hyper would wait for that one.
        if guest.has_asked() {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                _ = connection => {}
                () = self.has_stopped() => {}
            }
        }
    }

    /// Waits until the answers under way have had their time.
    async fn has_stopped(&self) {
        self.stop.cancelled().await;
        sleep(self.limits.last_answers).await;
    }

    /// Lets the kernel end the connection where the client is dead, or alive but does not read.
    fn expect_a_reader(&self, stream: &TcpStream) {
        let socket = SockRef::from(stream);
        // Where a kernel cannot, the number of connections is the bound that is left.
        let _ = socket.set_tcp_user_timeout(Some(self.limits.unread));
        let _ = socket.set_tcp_nodelay(true);
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let Some(resource) = Resource::at(request.uri().path(), self.scope) else {
            return response::line(StatusCode::NOT_FOUND, "there is nothing here");
        };
        if !resource.allows(request.method()) {
            return response::method_not_allowed(resource.allowed());
        }
        let admin = &self.admin;
        match resource {
            Resource::Page => response::html(PAGE),
            Resource::Metrics => response::whole(StatusCode::OK, admin.metrics_content_type, (admin.metrics)()),
            Resource::Healthy => response::line(StatusCode::OK, "healthy"),
            Resource::Ready => self.ready(),
            Resource::Closes => self.closes(request.uri().query()),
            Resource::ClosesStream => self.closes_stream(),
            Resource::Codes => response::json(codes::array()),
            Resource::NotYet => response::line(StatusCode::NOT_FOUND, "this is not supported yet"),
            Resource::Command(command) => {
                let options = admin.options.load_full();
                control::answer(command, request, &options, Arc::clone(&admin.control), &self.stop).await
            }
        }
    }

    fn ready(&self) -> Response<Body> {
        let phase = self.admin.control.phase();
        let status = if phase == Phase::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        response::line(status, phase.as_str())
    }

    fn closes(&self, query: Option<&str>) -> Response<Body> {
        match closes::limit(query) {
            Ok(limit) => response::json_stream(closes::array(self.admin.journal.latest(limit))),
            Err(message) => response::line(StatusCode::BAD_REQUEST, &message),
        }
    }

    fn closes_stream(&self) -> Response<Body> {
        let Ok(place) = Arc::clone(&self.streams).try_acquire_owned() else {
            let most = self.limits.streams;
            return response::line(StatusCode::SERVICE_UNAVAILABLE, &format!("{most} others read the stream already"));
        };
        response::events(closes::events(self.admin.journal.subscribe(), self.stop.clone(), place))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use arc_swap::ArcSwap;
    use futures_util::{FutureExt, future::BoxFuture};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        task::JoinHandle,
        time::timeout,
    };

    use super::*;
    use crate::{
        admin::{CloseRequest, Control, Options},
        journal::Journal,
    };

    struct Idle;

    impl Control for Idle {
        fn phase(&self) -> Phase {
            Phase::Ready
        }

        fn drain(&self) {}

        fn reload(&self) -> BoxFuture<'_, Result<(), String>> {
            async { Ok(()) }.boxed()
        }

        fn close(&self, _request: CloseRequest) -> BoxFuture<'_, usize> {
            async { 0 }.boxed()
        }
    }

    /// More than the kernel holds for a connection that nobody reads.
    const LARGE: usize = 64 << 20;

    async fn start(limits: Limits) -> SocketAddr {
        start_until(CancellationToken::new(), limits).await.0
    }

    async fn start_until(stop: CancellationToken, limits: Limits) -> (SocketAddr, JoinHandle<()>) {
        let admin = Admin {
            metrics: Box::new(|| vec![b'#'; LARGE]),
            metrics_content_type: "text/plain",
            journal: Arc::new(Journal::new(1)),
            control: Arc::new(Idle),
            options: ArcSwap::from_pointee(Options { control: true, hosts: Vec::new() }),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (address, tokio::spawn(serve_within(limits, listener, Arc::new(admin), Scope::Full, stop)))
    }

    async fn ask(address: SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn status(stream: &mut TcpStream) -> String {
        let mut head = [0; 12];
        let read = timeout(Duration::from_mins(1), stream.read_exact(&mut head)).await;
        read.expect("an answer comes").unwrap();
        String::from_utf8(head.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn silent_connections_are_ended() {
        let address = start(Limits { request_head: Duration::from_millis(50), ..Limits::default() }).await;
        for beginning in ["", "GET /-/healthy HTTP/1.1\r\nHost"] {
            let mut silent = TcpStream::connect(address).await.unwrap();
            silent.write_all(beginning.as_bytes()).await.unwrap();
            let read = timeout(Duration::from_mins(1), silent.read_to_end(&mut Vec::new())).await;
            read.expect("it is ended").unwrap();
        }
    }

    #[tokio::test]
    async fn a_request_that_is_not_whole_does_not_hold_up_the_end() {
        let stop = CancellationToken::new();
        let long = Duration::from_mins(10);
        let limits = Limits { request_head: long, last_answers: long, ..Limits::default() };
        let (address, server) = start_until(stop.clone(), limits).await;
        let whole = "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n";
        let half_head = "GET /-/healthy HTTP/1.1\r\nHost";
        let half_body = "POST /-/close HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                         Expect: 100-continue\r\nContent-Length: 10\r\n\r\n{";
        let mut waiting = Vec::new();
        for (request, answered) in
            [("", false), (half_head, false), (whole, true), (&format!("{whole}{half_head}"), true), (half_body, true)]
        {
            let mut connection = TcpStream::connect(address).await.unwrap();
            connection.write_all(request.as_bytes()).await.unwrap();
            if answered {
                status(&mut connection).await;
            }
            waiting.push(connection);
        }
        stop.cancel();
        timeout(Duration::from_mins(1), server).await.expect("it ends").unwrap();
        let mut answer = String::new();
        waiting.pop().unwrap().read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("HTTP/1.1 503 "), "{answer}");
    }

    #[tokio::test]
    async fn a_scraper_that_does_not_read_makes_room() {
        let unread = Duration::from_millis(50);
        let address = start(Limits { connections: 1, unread, ..Limits::default() }).await;
        let mut deaf = ask(address, "/metrics").await;
        assert_eq!(status(&mut deaf).await, "HTTP/1.1 200");
        assert_eq!(status(&mut ask(address, "/-/healthy").await).await, "HTTP/1.1 200");
    }

    #[tokio::test]
    async fn readers_of_the_stream_are_bounded_and_leave_nothing_behind() {
        let address = start(Limits { streams: 1, ..Limits::default() }).await;
        let mut first = ask(address, "/api/v1/closes/stream").await;
        assert_eq!(status(&mut first).await, "HTTP/1.1 200");
        assert_eq!(status(&mut ask(address, "/api/v1/closes/stream").await).await, "HTTP/1.1 503");
        drop(first);
        while status(&mut ask(address, "/api/v1/closes/stream").await).await != "HTTP/1.1 200" {
            tokio::task::yield_now().await;
        }
    }
}
