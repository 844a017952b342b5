//! `POST /-/close`, and the addresses of the admin.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::{Value, json};

use crate::support::{Answer, LOG_ALL, Program, REQUEST, Server, Session, close_from_server, from_server, get, post};

/// Asserts that a request closed this many sessions.
fn assert_closed(answer: &Answer, count: usize) {
    assert_eq!(answer.status_and_body(), (200, format!("{{\"closed\":{count}}}\n").as_str()));
}

/// Whether closewatch has closed a session with code 1012. Completes the closing handshake then.
fn is_closed(session: &mut Session) -> bool {
    let message = from_server(0x81, b"are you there?");
    session.server.send(&message);
    let expected = close_from_server(1012, "restart");
    let first = session.client.receive(1);
    if first[0] == message[0] {
        session.client.expect(&message[1..]);
        return false;
    }
    assert_eq!([first, session.client.receive(expected.len() - 1)].concat(), expected);
    assert_eq!(session.server.receive_close(true), (1012, "restart".to_owned()));
    session.answer_close(1012);
    true
}

#[test]
fn control_closes_some_sessions_or_a_route_or_all() {
    let (chat, rest) = (Server::start(), Server::start());
    let config = format!(
        "workers: 2\nroutes:\n- {{name: chat, match: {{path_prefix: /chat}}, upstream: \"ws://{}\"}}\n\
         - {{name: rest, upstream: \"ws://{}\"}}\n",
        chat.address(),
        rest.address()
    );
    let program = Program::start(&config);
    let open_rest = || Session::open_with(program.connect(), &rest, &REQUEST.replace("GET /chat ", "GET /elsewhere "));
    let mut chats = [(); 5].map(|()| Session::open(&program, &chat));
    let mut rests = [(); 2].map(|()| open_rest());
    // An endpoint gets the 101 before the relay gets the session.
    chats.iter_mut().chain(&mut rests).for_each(Session::exchange);
    let close = |body: &str| program.post("/-/close", body);

    let some = close(r#"{"code": 1012, "reason": "restart", "count": 2, "route": "chat"}"#);
    assert_closed(&some, 2);
    let mut alive: Vec<Session> = Vec::new();
    for mut session in chats {
        if !is_closed(&mut session) {
            alive.push(session);
        }
    }
    assert_eq!(alive.len(), 3);
    assert!(!rests.iter_mut().any(is_closed));

    // A route that does not exist, and more sessions than exist.
    let restart = |rest: &str| close(&format!("{{\"code\": 1012, \"reason\": \"restart\"{rest}}}"));
    assert_closed(&restart(r#", "route": "nowhere", "count": "all""#), 0);
    assert_closed(&restart(r#", "route": "rest", "count": 10"#), 2);
    assert!(rests.iter_mut().all(is_closed));
    assert_closed(&restart(r#", "count": 0"#), 0);
    assert!(!alive.iter_mut().any(is_closed));
    assert_closed(&restart(r#", "count": "all""#), 3);
    assert!(alive.iter_mut().all(is_closed));

    let records = program.records(7);
    for record in &records {
        assert_eq!((&record["code"], &record["reason"]), (&json!(1012), &json!("restart")), "{record}");
        assert_eq!((&record["initiator"], &record["action"]), (&json!("proxy"), &json!("control")), "{record}");
        assert_eq!(record["clean"], true, "{record}");
    }
    let scrape = program.scrape();
    assert_eq!(scrape.sum("websocket_proxy_actions_total", &[("action", "control")]), 7.0);
    scrape.assert_sums();
}

#[test]
fn control_ignores_closing_sessions() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut session = Session::open(&program, &server);
    session.client_closes(1000, "done");
    assert_closed(&program.post("/-/close", r#"{"code": 1012, "count": "all"}"#), 0);
    session.server_closes(1000, "done");
    session.client.finish();
    let record = &program.records(1)[0];
    assert_eq!((&record["code"], &record["action"]), (&json!(1000), &json!(null)));
}

#[test]
fn session_closed_by_control_ends_after_timeouts_close() {
    let server = Server::start();
    let program = Program::before(&server, &format!("timeouts: {{close: 200ms}}\n{LOG_ALL}"));
    let mut session = Session::open(&program, &server);
    // An endpoint gets the 101 before the relay gets the session.
    session.exchange();
    assert_closed(&program.post("/-/close", r#"{"code": 4001}"#), 1);
    session.client.expect(close_from_server(4001, ""));
    session.client.expect_fin();
    let record = &program.records(1)[0];
    assert_eq!((&record["cause"], &record["cause_endpoint"]), (&json!("control"), &json!("proxy")));
}

/// The log's lines about control requests: level, command, and result or error.
fn control_lines(log: &[String]) -> Vec<[String; 3]> {
    let lines = log.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let lines =
        lines.filter(|line| line["message"].as_str().is_some_and(|message| message.starts_with("control request")));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lines = lines.map(|line| {
        let fields = &line["fields"];
        assert!(text(&fields["client"]).starts_with("127.0.0.1:"), "{line}");
        assert_eq!(fields["user_agent"], "an operator", "{line}");
        [text(&line["level"]), text(&fields["command"]), text(&fields["result"]) + &text(&fields["error"])]
    });
    lines.collect()
}

#[test]
fn each_control_request_leaves_a_line_in_the_log() {
    let server = Server::start();
    let program = Program::before(&server, LOG_ALL);
    let mut session = Session::open(&program, &server);
    session.exchange();
    let send = |path: &str, host: &str, length: usize, body: &str| {
        let mut stream = TcpStream::connect(program.admin()).unwrap();
        let head = "User-Agent: an operator\r\nContent-Type: application/json\r\nConnection: close\r\n";
        write!(stream, "POST {path} HTTP/1.1\r\nHost: {host}\r\n{head}Content-Length: {length}\r\n\r\n{body}").unwrap();
        stream
    };
    let post = |path: &str, host: &str, body: &str| {
        let mut response = String::new();
        send(path, host, body.len(), body).read_to_string(&mut response).unwrap();
        response.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    assert_eq!(post("/-/close", "localhost", r#"{"code": 1012, "count": 5, "route": "default"}"#), 200);
    session.proxy_closes(1012, "");
    assert_eq!(post("/-/close", "localhost", r#"{"code": 1006}"#), 400);
    assert_eq!(post("/-/drain", "evil.example", ""), 403);
    assert_eq!(post("/-/reload", "localhost", ""), 200);
    program.configure("listn: x\n");
    assert_eq!(post("/-/reload", "localhost", ""), 400);
    // A requester that hangs up before the response leaves a line, too.
    drop(send("/-/close", "localhost", 1000, "{"));
    program.wait_for_log("control request", 6);
    assert_eq!(post("/-/drain", "localhost", ""), 202);
    let lines = control_lines(&program.terminated().log);
    let expected = [
        ["info", "close 5 sessions of route default with code 1012", "closed 1 sessions"],
        ["warn", "close", "code 1006 is not allowed"],
        ["warn", "drain", "forbidden Host"],
        ["info", "reload", "reloaded"],
        ["warn", "reload", "closewatch.yaml:"],
        ["warn", "close", "Failed to buffer the request body"],
        ["info", "drain", "draining"],
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, [level, command, result]) in lines.iter().zip(expected) {
        assert_eq!((line[0].as_str(), line[1].as_str()), (level, command), "{line:?}");
        assert!(line[2].starts_with(result), "{line:?}");
    }
}

#[test]
fn metrics_listener_serves_metrics_and_health_only() {
    let server = Server::start();
    let program = Program::before(&server, "metrics: {listen: \"127.0.0.1:0\"}\n");
    let metrics = program.metrics_address();
    assert_ne!(metrics, program.admin());
    program.wait_for_phase("ready");
    let get = |path: &str| get(metrics, path);
    assert!(get("/metrics").body.contains("\nwebsocket_sessions_active{route=\"default\"} 0\n"));
    assert_eq!((get("/-/healthy").status, get("/-/ready").status), (200, 200));
    for path in ["/", "/api/v1/closes", "/api/v1/closes/stream", "/api/v1/codes"] {
        assert_eq!(get(path).status, 404, "{path}");
    }
    for path in ["/-/drain", "/-/reload", "/-/close"] {
        assert_eq!(post(metrics, path, "").status, 404, "{path}");
    }
    // Both listeners stay open during a drain.
    assert_eq!(program.post("/-/drain", "").status, 202);
    program.wait_for_phase("drained");
    assert_eq!((get("/-/healthy").status, get("/-/ready").status, get("/metrics").status), (200, 503, 200));
}

#[test]
fn public_listener_passes_admin_paths_to_the_server() {
    let server = Server::start();
    let program = Program::before(&server, "");
    for path in ["/metrics", "/-/ready", "/api/v1/closes"] {
        let mut client = program.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        let mut server_end = server.accept();
        assert_eq!(server_end.receive_head().first_line(), format!("GET {path} HTTP/1.1"));
        server_end.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nthine");
        assert_eq!(client.receive_answer().1, "thine");
    }
}
