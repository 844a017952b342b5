//! The route of a session, its rules, and its privacy.

use serde_json::json;

use closewatch::websocket::Endpoint;

use crate::support::{Peer, Program, REQUEST, Server, Session, close_from_server, from_client, from_server};

fn request(host: &str, path: &str, headers: &str) -> String {
    let request = REQUEST.replace("/chat", path).replace("example.com", host);
    request.replace("\r\n\r\n", &format!("\r\n{headers}\r\n"))
}

#[test]
fn routes_have_their_own_server_counts_and_rules() {
    let (chat, feed, rest) = (Server::start(), Server::start(), Server::start());
    let program = Program::start(&format!(
        "timeouts: {{close: 10s}}\nlimits: {{frame_bytes: 10}}\non_server_loss: {{code: 1012}}\nroutes:\n\
         - {{name: chat, match: {{host: chat.example.com}}, upstream: 'ws://{}', limits: {{frame_bytes: off}}}}\n\
         - {{name: feed, match: {{path_prefix: /feed}}, upstream: 'ws://{}', timeouts: {{idle: 200ms}}, \
              on_server_loss: propagate}}\n\
         - {{name: rest, upstream: 'ws://{}'}}\n",
        chat.address(),
        feed.address(),
        rest.address()
    ));
    let open = |server: &Server, host: &str, path: &str| {
        Session::open_with(program.connect(), server, &request(host, path, ""))
    };
    let mut on_chat = open(&chat, "chat.example.com:8080", "/feed/1");
    let mut on_feed = open(&feed, "example.com", "/feed/1?q");
    let mut on_rest = open(&rest, "example.com", "/feeder");
    for route in ["chat", "feed", "rest"] {
        program.wait_for("websocket_sessions_active", &[("route", route)], 1.0);
    }
    // Only `feed` closes idle sessions.
    assert_eq!(on_feed.client.receive_close(false).0, 1001);
    assert_eq!(on_feed.server.receive_close(true).0, 1001);
    drop(on_feed);
    program.wait_for("websocket_proxy_actions_total", &[("route", "feed"), ("action", "idle_timeout")], 1.0);
    // Only `chat` has no limit of frames.
    let large = from_client(0x82, &[0; 100]);
    on_chat.pass(Endpoint::Client, &large);
    on_rest.client.send(&large);
    assert_eq!(on_rest.client.receive_close(false).0, 1009);
    drop(on_rest);
    program.wait_for("websocket_proxy_actions_total", &[("route", "rest"), ("action", "limit")], 1.0);
    // A route without its own value has the common one.
    drop(on_chat.server);
    assert_eq!(on_chat.client.receive_close(false).0, 1012);
    drop(on_chat.client);
    program.wait_for("websocket_closes_total", &[("route", "chat"), ("code", "1006"), ("initiator", "server")], 1.0);
    let on_feed = open(&feed, "example.com", "/feed");
    let mut client = on_feed.client;
    drop(on_feed.server);
    client.expect_fin();
    drop(client);
    let routes: Vec<_> = program.records(4).iter().map(|record| record["route"].clone()).collect();
    assert_eq!(routes, ["feed", "rest", "chat", "feed"]);
}

#[test]
fn route_overrides_every_rule_of_a_session() {
    let server = Server::start();
    let upstream = format!("upstream: 'ws://{}'", server.address());
    let routes: String = [
        ("handshake", "timeouts: {handshake: 200ms}"),
        ("close", "timeouts: {close: 200ms}"),
        ("hang_up", "timeouts: {hang_up: 200ms}"),
        ("max_age", "timeouts: {max_age: 200ms}"),
        ("message", "limits: {message_bytes: 10}"),
        ("buffer", "limits: {buffer_bytes: 4KiB}"),
        ("client_loss", "on_client_loss: {code: 1001, reason: gone}"),
    ]
    .map(|(name, rule)| format!("- {{name: {name}, match: {{path_prefix: /{name}}}, {upstream}, {rule}}}\n"))
    .concat();
    let program = Program::start(&format!(
        "timeouts: {{handshake: off, close: off, hang_up: off}}\nroutes:\n{routes}- {{name: rest, {upstream}}}\n"
    ));
    let open = |name: &str| Session::open_with(program.connect(), &server, &request("a", &format!("/{name}"), ""));
    // The route without rules acts on nothing.
    let mut rest = open("rest");
    rest.client.send(from_client(0x82, &[0; 11]));
    rest.server.expect(from_client(0x82, &[0; 11]));
    rest.client_closes(1000, "");

    let mut refused = program.connect();
    refused.send(request("a", "/handshake", ""));
    let silent = server.accept();
    assert_eq!(refused.receive_head().first_line(), "HTTP/1.1 504 Gateway Timeout");
    drop(silent);

    let mut session = open("close");
    session.client_closes(1000, "");
    session.client.expect_fin();
    drop(session);
    assert_eq!(program.record()["cause"], "no_close_reply");

    let mut session = open("hang_up");
    session.client_closes(1000, "");
    session.server_closes(1000, "");
    session.client.expect_fin();
    session.server.expect_fin();

    let mut session = open("max_age");
    assert_eq!(session.client.receive_close(false).0, 1001);
    drop(session);
    program.wait_for("websocket_proxy_actions_total", &[("route", "max_age"), ("action", "max_age")], 1.0);

    let mut session = open("message");
    session.client.send(from_client(0x82, &[0; 11]));
    assert_eq!(session.client.receive_close(false).0, 1009);
    drop(session);

    let slow = Peer::connect_with_small_window(program.address());
    let mut session = Session::open_with(slow, &server, &request("a", "/buffer", ""));
    session.server.send_some(&from_server(0x82, &vec![0; 24 << 20]));
    program.wait_for_at_least("websocket_buffered_bytes", &[("route", "buffer")], 1.0);
    assert!(program.scrape().sum("websocket_buffered_bytes", &[]) <= 4096.0);
    drop(session);

    let mut session = open("client_loss");
    session.client.reset();
    assert_eq!(session.server.receive_close(true), (1001, "gone".to_owned()));
    drop(session.server);

    program.records(6);
    rest.exchange_from_server();
    assert_eq!(program.scrape().sum("websocket_sessions_active", &[("route", "rest")]), 1.0);
}

/// The route of a session that opens with these header lines.
fn route_with(config: &str, headers: &str) -> String {
    let server = Server::start();
    let program = Program::before(&server, config);
    drop(Session::open_with(program.connect(), &server, &request("a", "/", headers)));
    let route = program.record()["route"].as_str().unwrap().to_owned();
    program.wait_for("websocket_handshakes_total", &[("route", &route), ("status", "101")], 1.0);
    route
}

#[test]
fn health_check_has_the_route_probe() {
    let health_check = "User-Agent: kube-probe/1.30\r\n";
    assert_eq!(route_with("", health_check), "probe");
    assert_eq!(route_with("probes: {from: [10.0.0.0/8]}\n", health_check), "default");
    assert_eq!(route_with("probes: {user_agents: [Mozilla]}\n", health_check), "default");
    assert_eq!(route_with("", "User-Agent: Mozilla/5.0\r\n"), "default");
}

#[test]
fn client_cannot_pass_as_a_health_check() {
    assert_eq!(route_with("", "User-Agent: x kube-probe\r\n"), "default");
    for header in ["X-Forwarded-For: 203.0.113.7", "Forwarded: for=203.0.113.7"] {
        let forwarded = format!("User-Agent: kube-probe/1.30\r\n{header}\r\n");
        assert_eq!(route_with("", &forwarded), "default", "{header}");
    }
}

#[test]
fn private_values_appear_in_no_record() {
    let server = Server::start();
    let program = Program::before(
        &server,
        "privacy: {path: off, client: off, reason: off}\nlog: {sessions: all, format: json}\n",
    );
    let mut session = Session::open_with(program.connect(), &server, &request("a", "/secret-path", ""));
    let client = session.client.address().to_string();
    session.client_closes(4000, "secret-reason");
    session.server_closes(4000, "secret-answer");
    drop(session);
    let record = program.record();
    assert_eq!(
        json!([record["path"], record["client"], record["reason"], record["client_saw"], record["server_saw"]]),
        json!([null, null, null,
            {"code": 4000, "reason": null, "clean": true}, {"code": 4000, "reason": null, "clean": true}])
    );
    let log = program.terminated().log.join("\n");
    assert!(log.contains("session_closed"));
    assert!(!log.contains("secret") && !log.contains(&client), "{log}");

    let program = Program::before(&server, "privacy: {client: prefix}\n");
    drop(Session::open(&program, &server));
    assert_eq!(program.record()["client"], "127.0.0.0/24");

    let listen = "listen: [{address: '127.0.0.1:0', proxy_protocol: require}]\nprivacy: {client: prefix}\n";
    let program = Program::before(&server, listen);
    let mut client = program.connect();
    client.send("PROXY TCP6 2001:db8:1:2::7 ::1 4711 443\r\n");
    drop(Session::open_with(client, &server, REQUEST));
    assert_eq!(program.record()["client"], "2001:db8:1::/48");
}

/// This includes lines about connections, and sentences.
#[test]
fn private_values_appear_in_no_log_line() {
    let server = Server::start();
    for (privacy, shown) in [("full", Some("127.0.0.1:")), ("prefix", Some("127.0.0.0/24")), ("off", None)] {
        let program = Program::before(
            &server,
            &format!(
                "listen: [{{address: '127.0.0.1:0', proxy_protocol: require}}]\n\
                 privacy: {{client: {privacy}, path: off, reason: off}}\nlog: {{level: trace, sessions: all}}\n"
            ),
        );
        let mut refused = program.connect();
        refused.send("no PROXY header");
        refused.receive_rest();
        let mut client = program.connect();
        client.send("PROXY UNKNOWN\r\n");
        let clients = [&refused, &client].map(|client| client.address().to_string());
        let mut session = Session::open_with(client, &server, &request("a", "/secret-path", ""));
        session.client_closes(4000, "secret-reason");
        session.server_closes(4000, "secret-answer");
        drop(session);
        program.record();
        let log = program.terminated().log;
        for (what, client) in ["connection rejected", " session "].into_iter().zip(clients) {
            let line = log.iter().find(|line| line.contains(what)).unwrap();
            assert!(shown.is_none_or(|shown| line.contains(shown)), "{privacy}: {line}");
            assert_eq!(line.contains(&client), privacy == "full", "{privacy}: {line}");
        }
        assert!(!log.concat().contains("secret"), "{log:#?}");
    }
}

#[test]
fn query_appears_in_no_record_and_no_log_line() {
    let server = Server::start();
    let program = Program::before(&server, "log: {level: trace, sessions: all, format: json}\n");
    drop(Session::open_with(program.connect(), &server, &request("a", "/path?token=hunter2", "")));
    assert_eq!(program.record()["path"], "/path");
    let mut failing = program.connect();
    failing.send(request("a", "/path?token=hunter2", ""));
    drop(server.accept());
    failing.receive_answer();
    assert!(!program.terminated().log.concat().contains("hunter2"));
}

#[test]
fn concurrent_sessions_keep_their_records_apart() {
    let server = Server::start();
    let program = Program::before(&server, "log: {sessions: off}\n");
    let mut sessions: Vec<Session> = (0..50).map(|_| Session::open(&program, &server)).collect();
    for (number, session) in (0_u16..).zip(&mut sessions) {
        session.client_closes(4000 + number, &number.to_string());
    }
    for (number, session) in (0_u16..).zip(&mut sessions) {
        session.pass(Endpoint::Server, close_from_server(4100 + number, ""));
    }
    drop(sessions);
    for record in program.records(50) {
        let code = record["code"].as_u64().unwrap();
        assert_eq!(record["reason"], (code - 4000).to_string());
        assert_eq!(record["client_saw"]["code"], code + 100);
    }
}
