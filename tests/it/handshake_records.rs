//! The records of handshakes that did not become a session: in the log, in `/api/v1/handshakes` and on the stream.

use serde_json::{Value, json};

use crate::support::{
    CloseStream, Peer, Program, REQUEST, Server, Session, assert_record, command, eventually, request,
};

const KEYS: [&str; 13] = [
    "time",
    "event",
    "instance",
    "route",
    "client",
    "peer",
    "server",
    "agent",
    "path",
    "status",
    "cause",
    "error",
    "duration_seconds",
];

fn with(headers: &str) -> String {
    REQUEST.replace("\r\n\r\n", &format!("\r\n{headers}\r\n\r\n"))
}

fn handshakes(program: &Program, query: &str) -> Vec<Value> {
    serde_json::from_str(&program.get(&format!("/api/v1/handshakes{query}")).body).unwrap()
}

/// Waits for exactly this many records, and returns them, the oldest first. Each of them counts once.
fn records(program: &Program, count: usize) -> Vec<Value> {
    let mut records = eventually(format!("{count} records"), || {
        let records = handshakes(program, "");
        assert!(records.len() <= count, "{records:#?}");
        (records.len() == count).then_some(records)
    });
    records.reverse();
    program.wait_for("websocket_handshake_failures_total", &[], count as f64);
    assert_eq!(program.get("/api/v1/closes").body, "[]\n");
    records
}

fn record(program: &Program) -> Value {
    records(program, 1).remove(0)
}

/// A client that has sent a request, which fails by the closed port of the upstream.
fn fail_one(program: &Program, request: &str) -> Peer {
    let mut client = program.connect();
    client.send(request);
    assert_eq!(client.receive_answer().0.first_line(), "HTTP/1.1 502 Bad Gateway");
    client
}

/// A program whose upstream refuses connections, and the upstream's address.
fn before_closed_port(config: &str) -> (Program, String) {
    let server = Server::start();
    let address = server.address().to_string();
    let program = Program::start(&format!("{}{config}", server.upstream()));
    drop(server);
    (program, address)
}

#[test]
fn failed_handshake_is_a_record_in_api_and_log() {
    let (program, upstream) = before_closed_port("log: {format: json}\n");
    let request = with("User-Agent: Go-http-client/1.1").replace("/chat", "/chat?token=secret");
    let client = fail_one(&program, &request);
    let own = client.address().to_string();
    let found = record(&program);
    assert_record(
        &found,
        &json!({
            "event": "handshake_failed", "route": "default", "client": own, "peer": own, "server": upstream, "agent": "go",
            "path": "/chat", "status": 502, "cause": "upstream_refused",
        }),
    );
    assert!(found["error"].as_str().unwrap().contains("refused"), "{found:#}");
    assert!((0.0..20.0).contains(&found["duration_seconds"].as_f64().unwrap()), "{found:#}");
    let mut keys: Vec<_> = found.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = KEYS;
    keys.sort_unstable();
    expected.sort_unstable();
    assert_eq!(keys, expected);
    let log = program.terminated().log;
    let logged: Vec<Value> = log.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let logged: Vec<_> = logged.into_iter().filter(|line| line["event"] == "handshake_failed").collect();
    assert_eq!(logged, [found]);
}

#[test]
fn rejection_has_the_servers_status() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    client.send(REQUEST);
    let (mut connection, _) = server.accept_request();
    connection.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    client.receive_head();
    let server = server.address().to_string();
    let expected = json!({"status": 401, "cause": "rejected", "error": null, "agent": null, "server": server});
    assert_record(&record(&program), &expected);
}

#[test]
fn client_that_leaves_has_no_status() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    client.send(REQUEST);
    let (mut connection, _) = server.accept_request();
    client.reset();
    connection.receive_rest();
    let server = server.address().to_string();
    assert_record(&record(&program), &json!({"status": null, "cause": "client_gone", "server": server}));
}

#[test]
fn request_without_route_or_with_a_fault_has_no_server() {
    let server = Server::start();
    let address = server.address();
    let program = Program::start(&format!(
        "routes:\n- {{name: chat, match: {{host: chat.example.com}}, upstream: 'ws://{address}'}}\n"
    ));
    for (count, (request, status, cause, path)) in [
        (REQUEST.to_owned(), 404, "no_route", json!("/chat")),
        (with("Host: example.org"), 400, "bad_request", json!("/chat")),
        (with("Content-Length: 0\r\nContent-Length: 1"), 400, "bad_request", json!("/chat")),
        (REQUEST.replace("Host:", "Ho st:"), 400, "bad_request", Value::Null),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = program.connect();
        client.send(request);
        client.receive_answer();
        let found = records(&program, count + 1).pop().unwrap();
        let expected = json!({"route": "", "server": null, "status": status, "cause": cause, "path": path});
        assert_record(&found, &expected);
        assert!(found["error"].is_string(), "{found:#}");
    }
}

#[test]
fn upgrade_that_lost_its_headers_has_the_status_of_its_answer() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut client = program.connect();
    client.send(with("User-Agent: okhttp/4.12.0").replace("Upgrade: websocket\r\n", ""));
    let (mut connection, _) = server.accept_request();
    connection.send("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n");
    client.receive_head();
    let expected = json!({
        "route": "default", "status": 426, "cause": "headers_lost", "agent": "okhttp", "path": "/chat",
        "server": server.address().to_string(),
    });
    assert_record(&record(&program), &expected);
}

#[test]
fn latest_come_first_and_the_limit_is_checked() {
    let (program, _) = before_closed_port("");
    for path in ["/a", "/b", "/c"] {
        fail_one(&program, &REQUEST.replace("/chat", path));
    }
    records(&program, 3);
    let paths =
        |query| handshakes(&program, query).into_iter().map(|mut record| record["path"].take()).collect::<Vec<_>>();
    assert_eq!(paths("?limit=2"), ["/c", "/b"]);
    assert_eq!(paths("?limit=5000"), ["/c", "/b", "/a"]);
    assert_eq!(program.get("/api/v1/handshakes?limit=x").status, 400);
    let foreign = request("GET", program.admin(), "/api/v1/handshakes", &[("Host", "evil.example")], "");
    assert_eq!(foreign.status, 403);
}

#[test]
fn privacy_holds_for_path_client_and_peer() {
    for (privacy, client, path) in [
        ("{path: off, client: off}", Value::Null, Value::Null),
        ("{client: prefix}", json!("127.0.0.0/24"), json!("/chat")),
    ] {
        let (program, _) = before_closed_port(&format!("privacy: {privacy}\nlog: {{format: json}}\n"));
        fail_one(&program, REQUEST);
        assert_record(&record(&program), &json!({"client": client, "peer": client, "path": path}));
    }
}

#[test]
fn client_is_the_one_that_a_trusted_peer_vouches_for() {
    let (program, _) = before_closed_port("forwarded: {trusted: [127.0.0.0/8]}\n");
    let client = fail_one(&program, &with("X-Forwarded-For: 6.6.6.6, 192.0.2.7"));
    let expected = json!({"client": "192.0.2.7", "peer": client.address().to_string()});
    assert_record(&record(&program), &expected);
}

#[test]
fn log_that_wants_no_sessions_has_no_failed_handshakes() {
    for (sessions, expected) in [("all", 1), ("abnormal", 1), ("off", 0)] {
        let (program, _) = before_closed_port(&format!("log: {{sessions: {sessions}}}\n"));
        fail_one(&program, REQUEST);
        record(&program);
        let log = program.terminated().log;
        let found = log.iter().filter(|line| line.contains("failed: upstream_refused, status 502")).count();
        assert_eq!(found, expected, "{log:#?}");
    }
}

#[test]
fn flood_of_failed_handshakes_leaves_sessions_their_lines() {
    const HANDSHAKES: usize = 50;
    let server = Server::start();
    let program = Program::before(&server, "log: {sessions: all, max_per_second: 1}\n");
    for _ in 0..HANDSHAKES {
        let mut client = program.connect();
        client.send(with("Content-Length: 5"));
        client.receive_answer();
    }
    Session::open(&program, &server).exchange();
    program.records(1);
    let dropped = program.scrape().sum("closewatch_log_records_dropped_total", &[]);
    assert!(dropped >= 1.0);
    let log = program.terminated().log;
    let count = |part| log.iter().filter(|line| line.contains(part)).count();
    assert_eq!(count(" session "), 1, "{log:#?}");
    assert_eq!(count("failed: bad_request") as f64 + dropped, HANDSHAKES as f64, "{log:#?}");
}

#[test]
fn stream_has_failed_handshakes_as_a_type_of_their_own() {
    let (program, _) = before_closed_port("");
    let mut reader = CloseStream::open(program.admin()).unwrap();
    fail_one(&program, REQUEST);
    reader.connection.expect("event: handshake_failed\n");
    assert_eq!(reader.next_record(), record(&program));
}

#[test]
fn instance_is_the_variable_the_pod_or_the_host() {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for (variables, expected) in [
        (&[("CLOSEWATCH_INSTANCE", "a"), ("POD_NAME", "b")][..], "a"),
        (&[("CLOSEWATCH_INSTANCE", ""), ("POD_NAME", "b")], "b"),
        (&[], host.trim()),
    ] {
        let mut command = command();
        command.env_remove("CLOSEWATCH_INSTANCE").env_remove("POD_NAME").envs(variables.iter().copied());
        let server = Server::start();
        let program = Program::start_by(command.args(["run", "--config", "closewatch.yaml"]), &server.upstream());
        let mut client = program.connect();
        client.send(with("Content-Length: 5"));
        client.receive_answer();
        assert_eq!(record(&program)["instance"], expected);
    }
}
