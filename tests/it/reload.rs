//! Reloads: changes, unchanged parts, and refused configurations.

use std::net::SocketAddr;

use serde_json::{Value, json};

use closewatch::websocket::Endpoint;

use crate::support::{
    Peer, Program, REQUEST, Server, Session, close_from_server, command, from_client, wait_until_closed,
};

/// An address that is free now.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn reload_changes_the_policy_of_new_sessions_only() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let mut old = Session::open(&program, &server);
    let more = format!("{}limits: {{message_bytes: 10}}\n", server.upstream());
    assert_eq!(program.reload(&more).body, "reloaded\n");
    let mut new = Session::open(&program, &server);

    let long = from_client(0x81, b"more than ten bytes");
    old.pass(Endpoint::Client, &long);
    new.client.send(&long);
    new.client.expect(close_from_server(1009, ""));
    assert_eq!(new.server.receive_close(true), (1009, String::new()));
    old.exchange();
}

#[test]
fn reload_adds_and_removes_routes() {
    let (first, second) = (Server::start(), Server::start());
    let program = Program::before(&first, "");
    let mut old = Session::open(&program, &first);
    let routes =
        format!("routes:\n- {{name: chat, match: {{path_prefix: /chat}}, upstream: \"ws://{}\"}}\n", second.address());
    assert_eq!(program.reload(&routes).status, 200);
    let mut new = Session::open(&program, &second);
    old.exchange();
    new.exchange();
    let scrape = program.scrape();
    let active = |route| scrape.sum("websocket_sessions_active", &[("route", route)]);
    assert_eq!((active("default"), active("chat")), (1.0, 1.0));
    // The counters of the new route exist from the start.
    let first_1006 = r#"websocket_closes_total{clean="false",code="1006",initiator="client",route="chat"} 0"#;
    assert!(program.get("/metrics").body.lines().any(|line| line == first_1006));
}

#[test]
fn reload_keeps_the_upstream_of_the_flag_and_warns() {
    let server = Server::start();
    let upstream = format!("ws://{}", server.address());
    let mut command = command();
    command.args(["run", "--config", "closewatch.yaml", "--upstream", &upstream]);
    let routes = "routes: [{name: chat, upstream: \"ws://127.0.0.1:1\"}]\n";
    let program = Program::start_by(&mut command, routes);
    Session::open(&program, &server).exchange();
    let warning = "the routes of the file are not used";
    program.wait_for_log(warning, 1);
    assert_eq!(program.reload(routes).status, 200);
    program.wait_for_log(warning, 2);
    Session::open(&program, &server).exchange();
    assert_eq!(program.reload("").status, 200);
    program.signal("TERM");
    let ended = program.ended();
    assert_eq!(ended.log.iter().filter(|line| line.contains(warning) && line.contains("WARN")).count(), 2, "{ended:?}");
}

#[test]
fn reload_changes_listeners_and_keeps_their_sessions() {
    let server = Server::start();
    let (first, second) = (free_address(), free_address());
    let with = |listen: &str| format!("listen: [{listen}]\n{}", server.upstream());
    let program = Program::start(&with(&first.to_string()));
    let mut on_first = Session::open_with(Peer::connect(first), &server, REQUEST);
    assert_eq!(program.reload(&with(&format!("{first}, {second}"))).status, 200);
    let mut on_second = Session::open_with(Peer::connect(second), &server, REQUEST);
    let mut more_on_first = Session::open_with(Peer::connect(first), &server, REQUEST);

    assert_eq!(program.reload(&with(&second.to_string())).status, 200);
    wait_until_closed(first);
    for session in [&mut on_first, &mut on_second, &mut more_on_first] {
        session.exchange();
    }
    Session::open_with(Peer::connect(second), &server, REQUEST).exchange();

    // A removed listener may return.
    assert_eq!(program.reload(&with(&format!("{second}, {first}"))).status, 200);
    Session::open_with(Peer::connect(first), &server, REQUEST).exchange();
}

#[test]
fn reload_keeps_two_listeners_on_port_0() {
    let server = Server::start();
    let config = format!("listen: [\"127.0.0.1:0\", \"127.0.0.1:0\"]\n{}", server.upstream());
    let program = Program::start(&config);
    let addresses = program.addresses();
    assert_eq!(addresses.len(), 2);
    assert_eq!(program.post("/-/reload", "").status, 200);
    for address in addresses {
        Session::open_with(Peer::connect(address), &server, REQUEST).exchange();
    }
}

#[test]
fn reload_changes_the_proxy_protocol_of_a_listener() {
    let server = Server::start();
    let with = |listen: &str| format!("listen: [{listen}]\n{}", server.upstream());
    let program = Program::start(&with("\"127.0.0.1:0\""));
    Session::open(&program, &server).exchange();
    let required = with("{address: \"127.0.0.1:0\", proxy_protocol: require}");
    assert_eq!(program.reload(&required).status, 200);
    let mut client = program.connect();
    client.send("PROXY TCP4 192.0.2.7 192.0.2.1 5555 80\r\n");
    Session::open_with(client, &server, REQUEST).client_closes(1000, "");
    let mut other = program.connect();
    other.send(REQUEST);
    assert_eq!(other.receive_rest().0, b"");
    assert_eq!(program.scrape().sum("closewatch_connections_rejected_total", &[("reason", "proxy_protocol")]), 1.0);
}

#[test]
fn reload_changes_the_limit_of_request_heads() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let large = REQUEST.replace("Host:", &format!("X-Large: {}\r\nHost:", "x".repeat(20_000)));
    let mut session = Session::open_with(program.connect(), &server, &large);
    let more = format!("{}limits: {{request_head_bytes: 8KiB}}\n", server.upstream());
    assert_eq!(program.reload(&more).status, 200);
    let mut client = program.connect();
    client.send(&large);
    assert_eq!(client.receive_head().first_line(), "HTTP/1.1 431 Request Header Fields Too Large");
    session.exchange();
}

#[test]
fn reload_of_a_bad_file_changes_nothing_and_reports() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let successful = |program: &Program| {
        let scrape = program.scrape();
        let name = "closewatch_config_last_reload_success";
        (scrape.sum(&format!("{name}ful"), &[]), scrape.sum(&format!("{name}_timestamp_seconds"), &[]))
    };
    let (at_start, started) = successful(&program);
    assert!(at_start == 1.0 && started > 1.6e9, "{at_start} {started}");

    let more = format!("{}timeouts: {{idle: 0s}}\nlog: {{max_per_second: 0}}\n", server.upstream());
    let answer = program.reload(&more);
    assert_eq!(answer.status, 400);
    let lines: Vec<&str> = answer.body.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("closewatch.yaml:4:18: timeouts.idle: "), "{lines:?}");
    assert!(lines[1].starts_with("closewatch.yaml:5:23: log.max_per_second: "), "{lines:?}");
    assert_eq!(successful(&program), (0.0, started));
    program.wait_for_log("closewatch.yaml:4:18: timeouts.idle: ", 1);
    Session::open(&program, &server).exchange();

    assert_eq!(program.reload(&server.upstream()).status, 200);
    let (at_end, reloaded) = successful(&program);
    assert!(at_end == 1.0 && reloaded > started, "{at_end} {reloaded}");
}

#[test]
fn reload_with_a_used_address_changes_nothing() {
    let (server, other) = (Server::start(), Server::start());
    let program = Program::before(&server, "");
    let free = free_address();
    let config = format!("listen: [\"{free}\", \"{}\"]\nupstream: ws://{}\n", other.address(), free_address());
    let answer = program.reload(&config);
    assert_eq!(answer.status, 400);
    assert!(answer.body.starts_with(&format!("listen {}: Address already in use", other.address())), "{answer:?}");
    // The free address of the two is not used, either.
    wait_until_closed(free);
    Session::open(&program, &server).exchange();
}

#[test]
fn reload_refuses_keys_that_need_a_restart() {
    let server = Server::start();
    let program = Program::before(&server, "workers: 1\n");
    let more = format!("{}workers: 2\nmetrics: {{codes: [4001]}}\nlog: {{format: json}}\n", server.upstream());
    let answer = program.reload(&more);
    assert_eq!(answer.status, 400);
    assert_eq!(answer.body, "workers, metrics.codes cannot change by a reload: restart closewatch\n");
    assert_eq!(program.scrape().sum("closewatch_config_last_reload_successful", &[]), 0.0);
}

#[test]
fn reload_changes_log_and_privacy() {
    let server = Server::start();
    let program = Program::before(&server, "log: {sessions: off}\n");
    let close_one = || {
        let mut session = Session::open(&program, &server);
        session.client_closes(1000, "bye");
        session.server_closes(1000, "bye");
        session.client.finish();
    };
    close_one();
    program.records(1);
    let more = format!(
        "{}log: {{format: json, sessions: all}}\nprivacy: {{path: off, client: off, reason: off}}\n",
        server.upstream()
    );
    assert_eq!(program.reload(&more).status, 200);
    close_one();
    let records = program.records(2);
    assert_eq!((&records[0]["path"], &records[0]["reason"]), (&json!("/chat"), &json!("bye")));
    let private = &records[1];
    assert_eq!((&private["path"], &private["client"], &private["reason"]), (&json!(null), &json!(null), &json!(null)));
    program.signal("TERM");
    let log = program.ended().log;
    let json = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let logged: Vec<_> = json.filter(|line| line["event"] == "session_closed").collect();
    assert_eq!(logged, records[1..]);
}

#[test]
fn sighup_reloads_the_configuration() {
    let server = Server::start();
    let program = Program::before(&server, "");
    program.configure("nonsense");
    program.signal("HUP");
    program.wait_for_log("reload failed; the running configuration stays", 1);
    program.configure(&format!("{}limits: {{message_bytes: 1}}\n", server.upstream()));
    program.signal("HUP");
    program.wait_for_log("configuration reloaded", 1);
    let mut session = Session::open(&program, &server);
    session.client.send(from_client(0x81, b"long"));
    session.client.expect(close_from_server(1009, ""));
}

#[test]
fn reload_switches_control_off() {
    let server = Server::start();
    let program = Program::before(&server, "");
    let config = format!("admin: {{listen: 127.0.0.1:0}}\n{}", server.upstream());
    assert_eq!(program.reload(&config).status, 200);
    assert_eq!(program.post("/-/reload", "").status, 403);
    assert_eq!(program.post("/-/drain", "").status, 403);
    assert_eq!(program.get("/-/ready").status, 200);
}

#[test]
fn demo_ignores_the_file_of_its_directory() {
    let mut demo = command();
    demo.args(["demo", "--no-traffic", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let demo = Program::start_by(&mut demo, "");
    std::fs::write(demo.file("config.yaml"), "nonsense").unwrap();
    demo.signal("HUP");
    demo.wait_for_log("configuration reloaded", 1);
    assert_eq!(demo.scrape().sum("closewatch_config_last_reload_successful", &[]), 1.0);
}
