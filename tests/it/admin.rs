//! The admin on real sockets: its responses, its refusals, and the commands that use it.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;
use closewatch::{
    admin::{Admin, CloseRequest, Control, MetricsText, Options, Phase, Scope, serve},
    journal::{Journal, Record, SessionInfo},
    session::Summary,
    websocket::{
        PerEndpoint,
        close_code::{CloseCode, CloseStatus},
        closing_handshake::{CloseEvent, Ending, Party},
    },
};
use futures_util::{FutureExt, future::BoxFuture};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

const METRICS: &str = "websocket_sessions_active{route=\"default\"} 1\n";

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

struct Program {
    /// Its phases, one for each request for it. The last one stays.
    phases: Mutex<VecDeque<Phase>>,
    requests: Mutex<Vec<String>>,
    broken_configuration: AtomicBool,
}

impl Program {
    fn enter(&self, phases: impl IntoIterator<Item = Phase>) {
        *self.phases.lock().unwrap() = phases.into_iter().collect();
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn note(&self, request: String) {
        self.requests.lock().unwrap().push(request);
    }
}

impl Control for Program {
    fn phase(&self) -> Phase {
        let mut phases = self.phases.lock().unwrap();
        if phases.len() > 1 { phases.pop_front().unwrap() } else { phases[0] }
    }

    fn drain(&self) {
        self.note("drain".to_owned());
    }

    fn reload(&self) -> BoxFuture<'_, Result<(), String>> {
        self.note("reload".to_owned());
        let broken = self.broken_configuration.load(Ordering::SeqCst);
        async move { if broken { Err("config.yaml:3:1: listn: unknown key".to_owned()) } else { Ok(()) } }.boxed()
    }

    fn close(&self, request: CloseRequest) -> BoxFuture<'_, usize> {
        self.note(format!("{request:?}"));
        async { 3 }.boxed()
    }
}

/// An admin on a port of its own.
struct Running {
    address: SocketAddr,
    program: Arc<Program>,
    journal: Arc<Journal>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(options: Options) -> Self {
        Self::start_scoped(options, Scope::Full).await
    }

    async fn controllable() -> Self {
        Self::start(Options { control: true, hosts: vec!["admin.example.com".to_owned()] }).await
    }

    async fn start_scoped(options: Options, scope: Scope) -> Self {
        let program = Arc::new(Program {
            phases: Mutex::new([Phase::Ready].into()),
            requests: Mutex::default(),
            broken_configuration: false.into(),
        });
        let journal = Arc::new(Journal::new(1000));
        let admin = Admin {
            metrics: MetricsText::start(CONTENT_TYPE, || METRICS.as_bytes().to_vec()).unwrap(),
            journal: Arc::clone(&journal),
            control: Arc::clone(&program) as Arc<dyn Control>,
            options: ArcSwap::from_pointee(options),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, Arc::new(admin), scope, stop.clone()));
        Self { address, program, journal, stop, task }
    }

    /// Requests a path with HTTP/1.0, so that the body comes without chunks.
    async fn get(&self, path: &str) -> (u16, String) {
        let reply = self.exchange(&format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")).await;
        (reply.status, reply.body)
    }

    /// Sends a request byte for byte and reads until the admin closes the connection.
    async fn exchange(&self, request: &str) -> Reply {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        Reply::parse(&reply)
    }

    /// Posts JSON as `curl` would, with more headers.
    async fn post(&self, path: &str, headers: &str, body: &str) -> Reply {
        let length = body.len();
        self.exchange(&format!(
            "POST {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        ))
        .await
    }

    /// A reader of the stream, after the comment that opens it.
    async fn reader(&self) -> BufReader<TcpStream> {
        let mut stream = BufReader::new(TcpStream::connect(self.address).await.unwrap());
        stream.write_all(b"GET /api/v1/closes/stream HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        assert!(line_with(&mut stream, "content-type").await.contains("text/event-stream"));
        line_with(&mut stream, ": endings from now on").await;
        stream
    }
}

const LOCAL_JSON: &str = "Host: localhost:9917\r\nContent-Type: application/json\r\n";

struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn parse(reply: &str) -> Self {
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

async fn line_with(stream: &mut BufReader<TcpStream>, part: &str) -> String {
    loop {
        let mut line = String::new();
        assert_ne!(stream.read_line(&mut line).await.unwrap(), 0, "the stream ended before {part:?}");
        if line.contains(part) {
            return line;
        }
    }
}

fn record(session: &str) -> Record {
    let status = CloseStatus::Sent(CloseCode::NORMAL);
    let seen = CloseEvent { status, reason: String::new(), clean: true };
    let ending = Ending {
        status,
        reason: String::new(),
        initiator: Party::Client,
        fault: None,
        action: None,
        seen: PerEndpoint { client: seen.clone(), server: seen },
        received: PerEndpoint { client: Some(status), server: Some(status) },
    };
    Record {
        time: SystemTime::UNIX_EPOCH,
        route: "default".into(),
        info: SessionInfo { id: session.to_owned(), server: "127.0.0.1:9000".into(), ..SessionInfo::default() },
        summary: Summary { ending, ..Summary::lost() },
        tcp: PerEndpoint::default(),
        close_notify: PerEndpoint::default(),
    }
}

fn sessions(json: &str) -> Vec<String> {
    let records = serde_json::from_str::<Vec<Value>>(json).unwrap();
    records.iter().map(|record| record["session"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn get_and_head_of_metrics_have_the_content_type() {
    let admin = Running::start(Options::default()).await;
    let get = admin.exchange("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!((get.status, get.header("content-type")), (200, Some(CONTENT_TYPE)));
    assert_eq!(get.body, METRICS);
    let head = admin.exchange("HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!((head.status, head.header("content-type"), head.body.as_str()), (200, Some(CONTENT_TYPE), ""));
    assert_eq!(head.header("content-length"), Some(METRICS.len().to_string().as_str()));
}

#[tokio::test]
async fn ready_reports_the_phase() {
    let admin = Running::start(Options::default()).await;
    let phases = [
        (Phase::Starting, 503, "starting\n"),
        (Phase::Ready, 200, "ready\n"),
        (Phase::Draining, 503, "draining\n"),
        (Phase::Drained, 503, "drained\n"),
    ];
    for (phase, status, body) in phases {
        admin.program.enter([phase]);
        assert_eq!(admin.get("/-/ready").await, (status, body.to_owned()));
        assert_eq!(admin.get("/-/healthy").await, (200, "healthy\n".to_owned()));
    }
}

#[tokio::test]
async fn closes_lists_the_newest_first() {
    let admin = Running::start(Options::default()).await;
    assert_eq!(admin.get("/api/v1/closes").await, (200, "[]\n".to_owned()));
    for session in ["a", "b", "c"] {
        admin.journal.record(record(session));
    }
    assert_eq!(sessions(&admin.get("/api/v1/closes").await.1), ["c", "b", "a"]);
    assert_eq!(sessions(&admin.get("/api/v1/closes?limit=2").await.1), ["c", "b"]);
    assert_eq!(sessions(&admin.get("/api/v1/closes?limit=%31").await.1), ["c"]);
    assert_eq!(sessions(&admin.get("/api/v1/closes?limit=5000").await.1), ["c", "b", "a"]);
    let (status, line) = admin.get("/api/v1/closes?limit=some").await;
    assert_eq!((status, line.as_str()), (400, "limit must be a whole number (at most 1000 records are kept)\n"));
}

#[tokio::test]
async fn stream_sends_each_close_to_every_reader() {
    let admin = Running::start(Options::default()).await;
    admin.journal.record(record("before"));
    let mut readers = [admin.reader().await, admin.reader().await];
    for session in ["a", "b"] {
        admin.journal.record(record(session));
        for reader in &mut readers {
            let line = line_with(reader, "data: ").await;
            let told = serde_json::from_str::<Value>(line.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(told, serde_json::to_value(record(session)).unwrap());
        }
    }
}

#[tokio::test]
async fn codes_explains_every_code() {
    let admin = Running::start(Options::default()).await;
    let (status, body) = admin.get("/api/v1/codes").await;
    assert_eq!(status, 200);
    let mut codes: Vec<Value> = serde_json::from_str(&body).unwrap();
    for entry in &mut codes {
        let entry = entry.as_object_mut().unwrap();
        assert!(entry.remove("meaning").unwrap().as_str().unwrap().ends_with('.'));
        for list in ["causes", "next_steps"] {
            assert!(!entry.remove(list).unwrap().as_array().unwrap().is_empty(), "{list} of {entry:?}");
        }
    }
    for expected in [
        json!({"code": 1000, "codes": "1000", "name": "Normal Closure", "sender": "either", "allowed_on_wire": true}),
        json!({"code": 1006, "codes": "1006", "name": "Abnormal Closure", "sender": "nobody", "allowed_on_wire": false}),
        json!({"code": null, "codes": "4000-4999", "name": "Private", "sender": "either", "allowed_on_wire": true}),
    ] {
        assert!(codes.contains(&expected), "{expected}");
    }
}

#[tokio::test]
async fn page_lists_the_endpoints_and_loads_nothing() {
    let admin = Running::start(Options::default()).await;
    let page = admin.exchange("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    for path in ["/metrics", "/api/v1/closes", "/api/v1/codes", "/-/ready", "/-/drain"] {
        assert!(page.body.contains(path), "{path}");
    }
    assert!(!page.body.contains("//"), "{}", page.body);
}

#[tokio::test]
async fn unknown_path_is_404_and_wrong_method_is_405() {
    let admin = Running::controllable().await;
    assert_eq!(admin.get("/nothing").await, (404, "not found\n".to_owned()));
    for path in ["/api/v1/sessions?limit=1", "/api/v1/findings"] {
        assert_eq!(admin.get(path).await, (404, "not supported yet\n".to_owned()), "{path}");
    }
    let post = admin.post("/metrics", LOCAL_JSON, "").await;
    assert_eq!((post.status, post.header("allow")), (405, Some("get, head")));
    let get = admin.exchange("GET /-/drain HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!((get.status, get.header("allow")), (405, Some("post")));
    assert_eq!(admin.program.requests(), [""; 0]);
}

#[tokio::test]
async fn metrics_listener_has_only_metrics_and_health() {
    let options = Options { control: true, ..Options::default() };
    let admin = Running::start_scoped(options, Scope::MetricsOnly).await;
    for path in ["/metrics", "/-/healthy", "/-/ready"] {
        assert_eq!(admin.get(path).await.0, 200, "{path}");
    }
    for path in ["/", "/api/v1/closes", "/api/v1/closes/stream", "/api/v1/codes", "/api/v1/sessions"] {
        assert_eq!(admin.get(path).await.0, 404, "{path}");
    }
    for path in ["/-/drain", "/-/reload", "/-/close"] {
        assert_eq!(admin.post(path, LOCAL_JSON, "{}").await.status, 404, "{path}");
    }
    assert_eq!(admin.program.requests(), [""; 0]);
}

#[tokio::test]
async fn operator_drains_reloads_and_closes() {
    let admin = Running::controllable().await;
    let drained = admin.post("/-/drain", LOCAL_JSON, "").await;
    assert_eq!((drained.status, drained.body.as_str()), (202, "draining\n"));

    let reloaded = admin.post("/-/reload", LOCAL_JSON, "{}").await;
    assert_eq!((reloaded.status, reloaded.body.as_str()), (200, "reloaded\n"));
    admin.program.broken_configuration.store(true, Ordering::SeqCst);
    let refused = admin.post("/-/reload", LOCAL_JSON, "{}").await;
    assert_eq!((refused.status, refused.body.as_str()), (400, "config.yaml:3:1: listn: unknown key\n"));

    let body = r#"{"code": 1012, "reason": "bye", "count": 3, "route": "chat"}"#;
    let closed = admin.post("/-/close", LOCAL_JSON, body).await;
    assert_eq!((closed.status, closed.body.as_str()), (200, "{\"closed\":3}\n"));
    assert_eq!(closed.header("content-type"), Some("application/json"));
    let bad = admin.post("/-/close", LOCAL_JSON, r#"{"code": 1006}"#).await;
    assert_eq!(bad.status, 400);
    assert!(bad.body.starts_with("code 1006 is not allowed in a Close frame"), "{}", bad.body);

    let route = Some("chat".to_owned());
    let close = CloseRequest { code: 1012, reason: "bye".to_owned(), count: Some(3), route };
    assert_eq!(admin.program.requests(), ["drain", "reload", "reload", format!("{close:?}").as_str()]);
}

#[tokio::test]
async fn page_and_api_obey_the_host_rule() {
    let admin = Running::controllable().await;
    let status = async |path: &str, host: &str| {
        admin.exchange(&format!("GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n")).await.status
    };
    for path in ["/", "/api/v1/closes", "/api/v1/closes/stream", "/api/v1/codes", "/api/v1/none", "/api/"] {
        for host in ["Host: evil.example\r\n", "Host: localhost.evil.example:9917\r\n", "Host: \r\n"] {
            assert_eq!(status(path, host).await, 403, "{path} {host:?}");
        }
    }
    for host in
        ["Host: 10.0.0.7:9917\r\n", "Host: [::1]:9917\r\n", "Host: localhost\r\n", "Host: ADMIN.example.com\r\n"]
    {
        assert_eq!((status("/", host).await, status("/api/v1/closes", host).await), (200, 200), "{host:?}");
    }
    for path in ["/metrics", "/-/healthy", "/-/ready"] {
        assert_eq!(status(path, "Host: evil.example\r\n").await, 200, "{path}");
    }
    let without_host = admin.exchange("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(without_host.status, 403);
    assert!(without_host.body.contains("admin.hosts"), "{}", without_host.body);
}

#[tokio::test]
async fn control_refuses_requests_of_foreign_pages() {
    let admin = Running::controllable().await;
    let cases = [
        (403, "Host: evil.example\r\nContent-Type: application/json\r\n"),
        (403, "Host: localhost:9917\r\nContent-Type: application/json\r\nOrigin: http://evil.example\r\n"),
        (403, "Host: localhost:9917\r\nContent-Type: application/json\r\nOrigin: null\r\n"),
        (415, "Host: localhost:9917\r\nContent-Type: text/plain\r\n"),
        (415, "Host: localhost:9917\r\n"),
    ];
    for path in ["/-/drain", "/-/reload", "/-/close"] {
        for (status, headers) in cases {
            let reply = admin.post(path, headers, r#"{"code": 1000}"#).await;
            assert_eq!(reply.status, status, "{path} {headers}");
            assert_eq!(reply.body.lines().count(), 1, "{}", reply.body);
        }
    }
    assert_eq!(admin.program.requests(), [""; 0]);

    let own = "Host: admin.example.com\r\nContent-Type: application/json\r\nOrigin: http://admin.example.com\r\n";
    assert_eq!(admin.post("/-/drain", own, "").await.status, 202);
}

#[tokio::test]
async fn control_is_refused_unless_it_is_on() {
    let admin = Running::start(Options::default()).await;
    for path in ["/-/drain", "/-/reload", "/-/close"] {
        let reply = admin.post(path, LOCAL_JSON, r#"{"code": 1000}"#).await;
        assert_eq!(reply.status, 403, "{path}");
        assert!(reply.body.contains("admin.control: true"), "{}", reply.body);
    }
    assert_eq!(admin.program.requests(), [""; 0]);
}

#[tokio::test]
async fn request_body_is_limited_to_64_kib() {
    let admin = Running::controllable().await;
    let padded = |length| {
        let close = r#"{"code": 1000}"#;
        close.to_owned() + &" ".repeat(length - close.len())
    };
    assert_eq!(admin.post("/-/close", LOCAL_JSON, &padded(64 * 1024)).await.status, 200);
    assert_eq!(admin.post("/-/close", LOCAL_JSON, &padded(64 * 1024 + 1)).await.status, 413);
    assert_eq!(admin.program.requests().len(), 1);
}

#[tokio::test]
async fn garbage_ends_its_connection_only() {
    let admin = Running::start(Options::default()).await;
    for garbage in
        ["\u{0}\u{1}\u{2}\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(admin.address).await.unwrap();
        stream.write_all(garbage.as_bytes()).await.unwrap();
        // A response or a reset: the connection is over.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    assert_eq!(admin.get("/-/healthy").await.0, 200);
}

#[tokio::test]
async fn slow_scrapers_do_not_delay_the_next() {
    let admin = Running::start(Options::default()).await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(admin.address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Never-Ends: ").await.unwrap();
        slow.push(stream);
    }
    assert_eq!(admin.get("/metrics").await.0, 200);
}

#[tokio::test]
async fn health_answers_beside_idle_connections() {
    let admin = Running::start(Options::default()).await;
    let mut reader = admin.reader().await;
    let mut idle = Vec::new();
    for (count, beginning) in [(300, ""), (300, "GET /-/ready HTTP/1.1\r\nHost"), (300, KEPT)] {
        for _ in 0..count {
            let mut stream = TcpStream::connect(admin.address).await.unwrap();
            stream.write_all(beginning.as_bytes()).await.unwrap();
            idle.push(stream);
        }
        assert_eq!(admin.get("/-/ready").await, (200, "ready\n".to_owned()), "{beginning:?}");
    }
    // The stream stays open.
    admin.journal.record(record("a"));
    line_with(&mut reader, "data: ").await;
}

/// A request after which the connection stays open.
const KEPT: &str = "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn stop_ends_streams_and_idle_connections() {
    let admin = Running::start(Options::default()).await;
    let mut reader = admin.reader().await;
    let mut idle = TcpStream::connect(admin.address).await.unwrap();
    idle.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_ne!(idle.read(&mut [0; 1024]).await.unwrap(), 0);

    admin.stop.cancel();
    admin.task.await.unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest.trim(), "0", "the last chunk, so that the reader knows that the body is complete: {rest:?}");
    assert!(TcpStream::connect(admin.address).await.is_err());
}

/// Runs the program, and returns its exit code, standard output and standard error.
async fn run(arguments: &[&str]) -> (i32, String, String) {
    let mut command = assert_cmd::Command::cargo_bin("closewatch").unwrap();
    command.env_remove("CLOSEWATCH_ADMIN").args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// An address without a listener.
async fn closed_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn health_command_requests_readiness() {
    let admin = Running::start(Options::default()).await;
    let address = admin.address.to_string();
    let ready = run(&["health", "--admin", &address]).await;
    assert_eq!(ready, (0, format!("http://{address} is ready\n"), String::new()));

    admin.program.enter([Phase::Draining]);
    let (code, out, error) = run(&["health", "--admin", &format!("http://{address}")]).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(error.ends_with("it answers 503 Service Unavailable: draining\n"), "{error}");

    let (code, _, error) = run(&["health", "--admin", &closed_address().await]).await;
    assert_eq!((code, error.lines().count()), (1, 1), "{error}");
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn drain_command_waits_until_drained() {
    let admin = Running::controllable().await;
    let address = admin.address.to_string();
    let asked = run(&["drain", "--admin", &address]).await;
    assert_eq!(asked, (0, format!("http://{address} drains\n"), String::new()));

    // During the delay it is not drained, even without an open session.
    admin.program.enter([Phase::Draining, Phase::Draining, Phase::Drained]);
    let waited = run(&["drain", "--wait", "--admin", &address]).await;
    assert_eq!(waited, (0, format!("http://{address} is drained: no session is left\n"), String::new()));
    assert_eq!(admin.program.requests(), ["drain", "drain"]);
    assert_eq!(admin.program.phases.lock().unwrap().len(), 1, "the command polled until it was drained");
}

#[tokio::test]
async fn drain_command_reports_why_it_failed() {
    let admin = Running::start(Options::default()).await;
    let (code, _, error) = run(&["drain", "--admin", &admin.address.to_string()]).await;
    assert_eq!((code, error.lines().count()), (1, 1), "{error}");
    assert!(error.contains("admin.control: true"), "{error}");

    let (code, _, error) = run(&["drain", "--admin", &closed_address().await]).await;
    assert_eq!((code, error.lines().count()), (1, 1), "{error}");

    let controllable = Running::controllable().await;
    let address = controllable.address.to_string();
    controllable.program.enter([Phase::Draining]);
    let (code, _, error) = run(&["drain", "--wait", "--timeout", "0s", "--admin", &address]).await;
    assert_eq!((code, error), (1, format!("error: http://{address} is not drained after 0s\n")));
    controllable.program.enter([Phase::Starting]);
    let (code, _, error) = run(&["drain", "--wait", "--admin", &address]).await;
    assert_eq!((code, error), (1, format!("error: http://{address} does not drain any more: it was restarted\n")));
}

#[tokio::test]
async fn bad_admin_address_exits_with_1() {
    for arguments in [["health", "--admin", "https://127.0.0.1:1"], ["drain", "--admin", "127.0.0.1:0"]] {
        assert_eq!(run(&arguments).await.0, 1, "{arguments:?}");
    }
}
