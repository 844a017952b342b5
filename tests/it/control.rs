//! `POST /-/close`, and where the admin can and cannot be reached.

use serde_json::json;

use crate::{
    drain_closing_handshakes::{answer_both, receive_masked_close},
    support::closewatch::{Answer, Closewatch, LOG_ALL, ask},
    support::{REQUEST, Server, Session, close, from_server},
};

fn closed(count: usize) -> Answer {
    Answer { status: 200, body: format!("{{\"closed\":{count}}}\n") }
}

/// Whether a session was closed with code 1012, and if so, ends it. Else it is alive.
fn is_closed(session: &mut Session) -> bool {
    let message = from_server(0x81, b"are you there?");
    session.server.send(&message);
    let expected = from_server(0x88, &close(1012, "restart"));
    let first = session.client.receive(1);
    if first[0] == message[0] {
        session.client.expect(&message[1..]);
        return false;
    }
    assert_eq!([first, session.client.receive(expected.len() - 1)].concat(), expected);
    assert_eq!(receive_masked_close(&mut session.server), close(1012, "restart"));
    answer_both(session);
    true
}

#[test]
fn some_sessions_or_those_of_a_route_or_all_are_closed() {
    let (chat, rest) = (Server::start(), Server::start());
    let config = format!(
        "listen: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0, control: true}}\nworkers: 2\nroutes:\n\
         - {{name: chat, match: {{path_prefix: /chat}}, upstream: \"ws://{}\"}}\n\
         - {{name: rest, upstream: \"ws://{}\"}}\n",
        chat.address(),
        rest.address()
    );
    let closewatch = Closewatch::start(&config);
    let open_rest =
        || Session::open_with(closewatch.connect(), &rest, &REQUEST.replace("GET /chat ", "GET /elsewhere "));
    let mut chats = [(); 5].map(|()| closewatch.session(&chat));
    let mut rests = [(); 2].map(|()| open_rest());
    // An endpoint has the 101 before the relay has the session.
    chats.iter_mut().chain(&mut rests).for_each(Session::exchange);
    let post = |body: &str| closewatch.post("/-/close", body);

    let some = post(r#"{"code": 1012, "reason": "restart", "count": 2, "route": "chat"}"#);
    assert_eq!(some, closed(2));
    let mut alive: Vec<Session> = Vec::new();
    for mut session in chats {
        if !is_closed(&mut session) {
            alive.push(session);
        }
    }
    assert_eq!(alive.len(), 3);
    assert!(!rests.iter_mut().any(is_closed));

    // More than there are.
    let restart = |rest: &str| post(&format!("{{\"code\": 1012, \"reason\": \"restart\"{rest}}}"));
    assert_eq!(restart(r#", "route": "nowhere", "count": "all""#), closed(0));
    assert_eq!(restart(r#", "route": "rest", "count": 10"#), closed(2));
    assert!(rests.iter_mut().all(is_closed));
    assert_eq!(restart(r#", "count": 0"#), closed(0));
    assert!(!alive.iter_mut().any(is_closed));
    assert_eq!(restart(r#", "count": "all""#), closed(3));
    assert!(alive.iter_mut().all(is_closed));

    let records = closewatch.records(7);
    for record in &records {
        assert_eq!((&record["code"], &record["reason"]), (&json!(1012), &json!("restart")), "{record}");
        assert_eq!((&record["initiator"], &record["action"]), (&json!("proxy"), &json!("control")), "{record}");
        assert_eq!(record["clean"], true, "{record}");
    }
    let scrape = closewatch.scrape();
    assert_eq!(scrape.sum("websocket_proxy_actions_total", &[("action", "control")]), 7.0);
    scrape.assert_sums();
}

#[test]
fn a_session_that_is_closing_is_left_alone() {
    let server = Server::start();
    let closewatch = Closewatch::before(&server, "");
    let mut session = closewatch.session(&server);
    session.client_closes(1000, "done");
    assert_eq!(closewatch.post("/-/close", r#"{"code": 1012, "count": "all"}"#), closed(0));
    session.server_closes(1000, "done");
    session.client.finish();
    let record = &closewatch.records(1)[0];
    assert_eq!((&record["code"], &record["action"]), (&json!(1000), &json!(null)));
}

#[test]
fn a_session_that_control_closes_is_given_up_after_timeouts_close() {
    let server = Server::start();
    let closewatch = Closewatch::before(&server, &format!("timeouts: {{close: 200ms}}\n{LOG_ALL}"));
    let mut session = closewatch.session(&server);
    // An endpoint has the 101 before the relay has the session.
    session.exchange();
    assert_eq!(closewatch.post("/-/close", r#"{"code": 4001}"#), closed(1));
    session.client.expect(from_server(0x88, &close(4001, "")));
    session.client.expect_fin();
    let record = &closewatch.records(1)[0];
    assert_eq!((&record["cause"], &record["cause_endpoint"]), (&json!("control"), &json!("proxy")));
}

#[test]
fn metrics_have_an_address_of_their_own_with_nothing_else() {
    let server = Server::start();
    let closewatch = Closewatch::before(&server, "metrics: {listen: \"127.0.0.1:0\"}\n");
    let metrics = closewatch.metrics_address();
    assert_ne!(metrics, closewatch.admin());
    closewatch.wait_for_phase("ready");
    let get = |path: &str| ask(metrics, &format!("GET {path} HTTP/1.0\r\nHost: scraper\r\n\r\n"));
    assert!(get("/metrics").body.contains("\nwebsocket_sessions_active{route=\"default\"} 0\n"));
    assert_eq!((get("/-/healthy").status, get("/-/ready").status), (200, 200));
    for path in ["/", "/api/v1/closes", "/api/v1/closes/stream", "/api/v1/codes"] {
        assert_eq!(get(path).status, 404, "{path}");
    }
    for path in ["/-/drain", "/-/reload", "/-/close"] {
        let head = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 0\r\n";
        assert_eq!(ask(metrics, &format!("POST {path} HTTP/1.0\r\n{head}\r\n")).status, 404, "{path}");
    }
    // It goes on during a drain, like the other.
    assert_eq!(closewatch.post("/-/drain", "").status, 202);
    closewatch.wait_for_phase("drained");
    assert_eq!((get("/-/healthy").status, get("/-/ready").status, get("/metrics").status), (200, 503, 200));
}

#[test]
fn on_the_public_address_there_is_no_admin() {
    let server = Server::start();
    let closewatch = Closewatch::before(&server, "");
    for path in ["/metrics", "/-/ready", "/api/v1/closes"] {
        let mut client = closewatch.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        let mut behind = server.accept();
        assert_eq!(behind.receive_head().first_line(), format!("GET {path} HTTP/1.1"));
        behind.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nthine");
        assert_eq!(client.receive_answer().1, "thine");
    }
}
