//! The admin on real sockets: its responses, its refusals, and the commands that use it.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use closewatch::{
    admin::{Admin, CloseRequest, Control, MetricsText, Options, ProcessPhase, Scope, serve},
    journal::{Journal, Record, SessionInfo},
    session::Summary,
    websocket::{
        PerEndpoint,
        close_code::{CloseCode, CloseStatus},
        closing_handshake::Party,
    },
};
use futures_util::{FutureExt, future::BoxFuture};
use serde_json::{Value, json};
use tokio::{net::TcpSocket, runtime::Builder};
use tokio_util::sync::CancellationToken;

use crate::support::{Answer, CloseStream, Outcome, Peer, Server, TcpEnd, clean_close, get, request, run};

const METRICS: &str = "websocket_sessions_active{route=\"default\"} 1\n";

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

struct Program {
    /// Its phases, one for each request for it. The last one stays.
    phases: Mutex<VecDeque<ProcessPhase>>,
    requests: Mutex<Vec<String>>,
    broken_configuration: AtomicBool,
}

impl Program {
    fn enter(&self, phases: impl IntoIterator<Item = ProcessPhase>) {
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
    fn phase(&self) -> ProcessPhase {
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

/// An admin on its own thread.
struct Running {
    address: SocketAddr,
    program: Arc<Program>,
    journal: Arc<Journal>,
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Running {
    fn start(options: Options) -> Self {
        Self::start_scoped(options, Scope::Full)
    }

    fn controllable() -> Self {
        Self::start(Options { control: true, hosts: vec!["admin.example.com".to_owned()] })
    }

    fn start_scoped(options: Options, scope: Scope) -> Self {
        let program = Arc::new(Program {
            phases: Mutex::new([ProcessPhase::Ready].into()),
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
        let (bound, address) = mpsc::channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
                // If the queue is full, a client waits for a second. The default length is 128.
                let listener = socket.listen(1024).unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                serve(listener, Arc::new(admin), 128, scope, stopped).await;
            });
        });
        let address = address.recv().unwrap();
        Self { address, program, journal, stop, thread }
    }

    fn get(&self, path: &str) -> (u16, String) {
        let answer = get(self.address, path);
        (answer.status, answer.body)
    }

    fn get_for_host(&self, path: &str, host: &str) -> Answer {
        request("GET", self.address, path, &[("Host", host)], "")
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        request("POST", self.address, path, headers, body)
    }

    /// Connects and sends these bytes.
    fn send(&self, bytes: &str) -> Peer {
        let mut client = Peer::connect(self.address);
        client.send(bytes);
        client
    }

    fn reader(&self) -> CloseStream {
        CloseStream::open(self.address).unwrap()
    }
}

/// The headers of an operator's request.
const LOCAL_JSON: &[(&str, &str)] = &[("Host", "localhost:9917"), JSON];

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn record(session: &str) -> Record {
    let ending = clean_close(CloseStatus::Sent(CloseCode::NORMAL), Party::Client);
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

#[test]
fn get_and_head_of_metrics_have_the_content_type() {
    let admin = Running::start(Options::default());
    let get = admin.get_for_host("/metrics", "x");
    assert_eq!((get.status, get.header("content-type")), (200, Some(CONTENT_TYPE)));
    assert_eq!(get.body, METRICS);
    let head = request("HEAD", admin.address, "/metrics", &[("Host", "x")], "");
    assert_eq!((head.status, head.header("content-type"), head.body.as_str()), (200, Some(CONTENT_TYPE), ""));
    assert_eq!(head.header("content-length"), Some(METRICS.len().to_string().as_str()));
}

#[test]
fn ready_reports_the_phase() {
    let admin = Running::start(Options::default());
    let phases = [
        (ProcessPhase::Starting, 503, "starting\n"),
        (ProcessPhase::Ready, 200, "ready\n"),
        (ProcessPhase::Draining, 503, "draining\n"),
        (ProcessPhase::Drained, 503, "drained\n"),
    ];
    for (phase, status, body) in phases {
        admin.program.enter([phase]);
        assert_eq!(admin.get("/-/ready"), (status, body.to_owned()));
        assert_eq!(admin.get("/-/healthy"), (200, "healthy\n".to_owned()));
    }
}

#[test]
fn closes_lists_the_newest_first() {
    let admin = Running::start(Options::default());
    assert_eq!(admin.get("/api/v1/closes"), (200, "[]\n".to_owned()));
    for session in ["a", "b", "c"] {
        admin.journal.record(record(session));
    }
    assert_eq!(sessions(&admin.get("/api/v1/closes").1), ["c", "b", "a"]);
    assert_eq!(sessions(&admin.get("/api/v1/closes?limit=2").1), ["c", "b"]);
    assert_eq!(sessions(&admin.get("/api/v1/closes?limit=%31").1), ["c"]);
    assert_eq!(sessions(&admin.get("/api/v1/closes?limit=5000").1), ["c", "b", "a"]);
    let (status, line) = admin.get("/api/v1/closes?limit=some");
    assert_eq!((status, line.as_str()), (400, "limit must be a whole number (at most 1000 records are kept)\n"));
}

#[test]
fn stream_sends_each_close_to_every_reader() {
    let admin = Running::start(Options::default());
    admin.journal.record(record("before"));
    let mut readers = [admin.reader(), admin.reader()];
    for session in ["a", "b"] {
        admin.journal.record(record(session));
        for reader in &mut readers {
            assert_eq!(reader.next_record(), serde_json::to_value(record(session)).unwrap());
        }
    }
}

#[test]
fn codes_explains_every_code() {
    let admin = Running::start(Options::default());
    let (status, body) = admin.get("/api/v1/codes");
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

#[test]
fn page_lists_the_endpoints_and_loads_nothing() {
    let admin = Running::start(Options::default());
    let page = admin.get_for_host("/", "localhost");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    for path in ["/metrics", "/api/v1/closes", "/api/v1/codes", "/-/ready", "/-/drain"] {
        assert!(page.body.contains(path), "{path}");
    }
    assert!(!page.body.contains("//"), "{}", page.body);
}

#[test]
fn unknown_path_is_404_and_wrong_method_is_405() {
    let admin = Running::controllable();
    assert_eq!(admin.get("/nothing"), (404, "not found\n".to_owned()));
    for path in ["/api/v1/sessions?limit=1", "/api/v1/findings"] {
        assert_eq!(admin.get(path), (404, "not supported yet\n".to_owned()), "{path}");
    }
    let post = admin.post("/metrics", LOCAL_JSON, "");
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
    let get = admin.get_for_host("/-/drain", "localhost");
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    assert_eq!(admin.program.requests(), [""; 0]);
}

#[test]
fn metrics_listener_has_only_metrics_and_health() {
    let options = Options { control: true, ..Options::default() };
    let admin = Running::start_scoped(options, Scope::MetricsOnly);
    for path in ["/metrics", "/-/healthy", "/-/ready"] {
        assert_eq!(admin.get(path).0, 200, "{path}");
    }
    for path in ["/", "/api/v1/closes", "/api/v1/closes/stream", "/api/v1/codes", "/api/v1/sessions"] {
        assert_eq!(admin.get(path).0, 404, "{path}");
    }
    for path in ["/-/drain", "/-/reload", "/-/close"] {
        assert_eq!(admin.post(path, LOCAL_JSON, "{}").status, 404, "{path}");
    }
    assert_eq!(admin.program.requests(), [""; 0]);
}

#[test]
fn operator_drains_reloads_and_closes() {
    let admin = Running::controllable();
    let drained = admin.post("/-/drain", LOCAL_JSON, "");
    assert_eq!((drained.status, drained.body.as_str()), (202, "draining\n"));

    let reloaded = admin.post("/-/reload", LOCAL_JSON, "{}");
    assert_eq!((reloaded.status, reloaded.body.as_str()), (200, "reloaded\n"));
    admin.program.broken_configuration.store(true, Ordering::SeqCst);
    let refused = admin.post("/-/reload", LOCAL_JSON, "{}");
    assert_eq!((refused.status, refused.body.as_str()), (400, "config.yaml:3:1: listn: unknown key\n"));

    let body = r#"{"code": 1012, "reason": "bye", "count": 3, "route": "chat"}"#;
    let closed = admin.post("/-/close", LOCAL_JSON, body);
    assert_eq!((closed.status, closed.body.as_str()), (200, "{\"closed\":3}\n"));
    assert_eq!(closed.header("content-type"), Some("application/json"));
    let bad = admin.post("/-/close", LOCAL_JSON, r#"{"code": 1006}"#);
    assert_eq!(bad.status, 400);
    assert!(bad.body.starts_with("code 1006 is not allowed in a Close frame"), "{}", bad.body);

    let route = Some("chat".to_owned());
    let close = CloseRequest { code: 1012, reason: "bye".to_owned(), count: Some(3), route };
    assert_eq!(admin.program.requests(), ["drain", "reload", "reload", format!("{close:?}").as_str()]);
}

#[test]
fn page_and_api_obey_the_host_rule() {
    let admin = Running::controllable();
    let status = |path: &str, host: &str| admin.get_for_host(path, host).status;
    for path in ["/", "/api/v1/closes", "/api/v1/closes/stream", "/api/v1/codes", "/api/v1/none", "/api/"] {
        for host in ["evil.example", "localhost.evil.example:9917", ""] {
            assert_eq!(status(path, host), 403, "{path} {host:?}");
        }
    }
    for host in ["10.0.0.7:9917", "[::1]:9917", "localhost", "ADMIN.example.com"] {
        assert_eq!((status("/", host), status("/api/v1/closes", host)), (200, 200), "{host:?}");
    }
    for path in ["/metrics", "/-/healthy", "/-/ready"] {
        assert_eq!(status(path, "evil.example"), 200, "{path}");
    }
    let (head, body) = admin.send("GET / HTTP/1.0\r\n\r\n").receive_answer();
    assert_eq!(head.first_line(), "HTTP/1.0 403 Forbidden");
    assert!(body.contains("admin.hosts"), "{body}");
}

#[test]
fn control_refuses_requests_of_foreign_pages() {
    let admin = Running::controllable();
    let local = ("Host", "localhost:9917");
    let cases: [(u16, &[_]); 5] = [
        (403, &[("Host", "evil.example"), JSON]),
        (403, &[local, JSON, ("Origin", "http://evil.example")]),
        (403, &[local, JSON, ("Origin", "null")]),
        (415, &[local, ("Content-Type", "text/plain")]),
        (415, &[local]),
    ];
    for path in ["/-/drain", "/-/reload", "/-/close"] {
        for (status, headers) in cases {
            let reply = admin.post(path, headers, r#"{"code": 1000}"#);
            assert_eq!(reply.status, status, "{path} {headers:?}");
            assert_eq!(reply.body.lines().count(), 1, "{}", reply.body);
        }
    }
    assert_eq!(admin.program.requests(), [""; 0]);

    let own = [("Host", "admin.example.com"), JSON, ("Origin", "http://admin.example.com")];
    assert_eq!(admin.post("/-/drain", &own, "").status, 202);
}

#[test]
fn control_is_refused_unless_it_is_on() {
    let admin = Running::start(Options::default());
    for path in ["/-/drain", "/-/reload", "/-/close"] {
        let reply = admin.post(path, LOCAL_JSON, r#"{"code": 1000}"#);
        assert_eq!(reply.status, 403, "{path}");
        assert!(reply.body.contains("admin.control: true"), "{}", reply.body);
    }
    assert_eq!(admin.program.requests(), [""; 0]);
}

#[test]
fn request_body_is_limited_to_64_kib() {
    let admin = Running::controllable();
    let padded = |length| {
        let close = r#"{"code": 1000}"#;
        close.to_owned() + &" ".repeat(length - close.len())
    };
    assert_eq!(admin.post("/-/close", LOCAL_JSON, &padded(64 * 1024)).status, 200);
    assert_eq!(admin.post("/-/close", LOCAL_JSON, &padded(64 * 1024 + 1)).status, 413);
    assert_eq!(admin.program.requests().len(), 1);
}

#[test]
fn garbage_ends_its_connection_only() {
    let admin = Running::start(Options::default());
    for garbage in
        ["\u{0}\u{1}\u{2}\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        // A response or a reset: the connection is over.
        admin.send(garbage).receive_rest();
    }
    assert_eq!(admin.get("/-/healthy").0, 200);
}

#[test]
fn slow_scrapers_do_not_delay_the_next() {
    let admin = Running::start(Options::default());
    let slow: Vec<Peer> = (0..50).map(|_| admin.send("GET /metrics HTTP/1.1\r\nHost: x\r\nX-Never-Ends: ")).collect();
    assert_eq!(admin.get("/metrics").0, 200);
    drop(slow);
}

#[test]
fn health_answers_beside_idle_connections() {
    let admin = Running::start(Options::default());
    let mut reader = admin.reader();
    let mut idle = Vec::new();
    for (count, beginning) in [(300, ""), (300, "GET /-/ready HTTP/1.1\r\nHost"), (300, KEPT)] {
        idle.extend((0..count).map(|_| admin.send(beginning)));
        assert_eq!(admin.get("/-/ready"), (200, "ready\n".to_owned()), "{beginning:?}");
    }
    // The stream stays open.
    admin.journal.record(record("a"));
    reader.next_record();
}

/// A request after which the connection stays open.
const KEPT: &str = "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn stop_ends_streams_and_idle_connections() {
    let admin = Running::start(Options::default());
    let mut reader = admin.send("GET /api/v1/closes/stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(reader.receive_head().value("transfer-encoding"), Some("chunked"));
    reader.expect("17\r\n: endings from now on\n\n\r\n");
    let mut idle = admin.send(KEPT);
    idle.receive_answer();

    admin.stop.cancel();
    admin.thread.join().unwrap();
    // The last chunk: the body is complete.
    assert_eq!(reader.receive_rest(), (b"0\r\n\r\n".to_vec(), TcpEnd::Fin));
    assert_eq!(idle.receive_rest(), (Vec::new(), TcpEnd::Fin));
    assert!(std::net::TcpStream::connect(admin.address).is_err());
}

/// An address without a listener.
fn closed_address() -> String {
    Server::start().address().to_string()
}

/// Asserts that a command fails with one line, and returns the line.
fn failure(arguments: &[&str]) -> String {
    let outcome = run(arguments);
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(1), 1), "{outcome:?}");
    outcome.stderr
}

/// Asserts that a command succeeds and prints this.
fn assert_prints(arguments: &[&str], stdout: String) {
    assert_eq!(run(arguments), Outcome { code: Some(0), stdout, stderr: String::new() });
}

#[test]
fn health_command_requests_readiness() {
    let admin = Running::start(Options::default());
    let address = admin.address.to_string();
    assert_prints(&["health", "--admin", &address], format!("http://{address} is ready\n"));

    admin.program.enter([ProcessPhase::Draining]);
    let outcome = run(&["health", "--admin", &format!("http://{address}")]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
    assert!(outcome.stderr.ends_with("it answers 503 Service Unavailable: draining\n"), "{outcome:?}");

    let line = failure(&["health", "--admin", &closed_address()]);
    assert!(line.contains("refused"), "{line}");
}

#[test]
fn drain_command_waits_until_drained() {
    let admin = Running::controllable();
    let address = admin.address.to_string();
    assert_prints(&["drain", "--admin", &address], format!("http://{address} drains\n"));

    // During the delay it is not drained, even without an open session.
    admin.program.enter([ProcessPhase::Draining, ProcessPhase::Draining, ProcessPhase::Drained]);
    let drained = format!("http://{address} is drained: no session is left\n");
    assert_prints(&["drain", "--wait", "--admin", &address], drained);
    assert_eq!(admin.program.requests(), ["drain", "drain"]);
    assert_eq!(admin.program.phases.lock().unwrap().len(), 1, "the command polled until it was drained");
}

#[test]
fn drain_command_reports_why_it_failed() {
    let admin = Running::start(Options::default());
    let line = failure(&["drain", "--admin", &admin.address.to_string()]);
    assert!(line.contains("admin.control: true"), "{line}");
    failure(&["drain", "--admin", &closed_address()]);

    let controllable = Running::controllable();
    let address = controllable.address.to_string();
    controllable.program.enter([ProcessPhase::Draining]);
    let line = failure(&["drain", "--wait", "--timeout", "0s", "--admin", &address]);
    assert_eq!(line, format!("error: timeout: http://{address} is not drained after 0s\n"));
    controllable.program.enter([ProcessPhase::Starting]);
    let line = failure(&["drain", "--wait", "--admin", &address]);
    assert_eq!(line, format!("error: http://{address} does not drain any more: it was restarted\n"));
}

#[test]
fn bad_admin_address_exits_with_1() {
    for arguments in [["health", "--admin", "https://127.0.0.1:1"], ["drain", "--admin", "127.0.0.1:0"]] {
        assert_eq!(run(&arguments).code, Some(1), "{arguments:?}");
    }
}
