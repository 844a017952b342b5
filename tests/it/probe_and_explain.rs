//! `closewatch probe` and `closewatch explain` as their users run them.

use std::{net::TcpListener, process::Stdio, thread};

use serde_json::{Value, json};

use crate::support::{Demo, Outcome, Server, command, run};

/// The URL of a server that sends these bytes after the request head of its first connection, and waits until the client
/// hangs up.
fn canned(response: impl Into<Vec<u8>>) -> String {
    let (server, response) = (Server::start(), response.into());
    let url = format!("ws://{}", server.address());
    thread::spawn(move || {
        let (mut connection, _) = server.accept_request();
        connection.send(response);
        connection.receive_rest();
    });
    url
}

/// Runs `probe --json` and returns its exit code and its report, without the URL and the duration.
fn probe(url: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let outcome = run(&[&["probe", "--json", url], arguments].concat());
    assert_eq!(outcome.stdout.lines().count(), 1, "{}{}", outcome.stdout, outcome.stderr);
    let mut report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let report_object = report.as_object_mut().unwrap();
    assert_eq!(report_object.remove("url"), Some(json!(url)));
    assert!(report_object.remove("duration_seconds").unwrap().as_f64().unwrap() > 0.0);
    (outcome.code, report)
}

fn opened(messages: &Value, close: &Value, error: &Value) -> Value {
    json!({
        "opened": true, "status": 101, "subprotocol": null, "extensions": null,
        "messages": messages, "close": close, "error": error
    })
}

fn never_opened(status: &Value, error: &str) -> Value {
    json!({
        "opened": false, "status": status, "subprotocol": null, "extensions": null, "messages": [],
        "close": {"code": 1006, "name": "Abnormal Closure", "reason": "", "clean": false}, "error": error
    })
}

#[test]
fn probe_reports_the_code_that_the_server_closes_with() {
    let demo = Demo::start();
    for (command, code, name, reason) in [
        ("close 1000 bye", 1000, "Normal Closure", "bye"),
        ("close 1001", 1001, "Going Away", ""),
        ("close 1012 new version", 1012, "Service Restart", "new version"),
        ("close 1014 lost", 1014, "Bad Gateway", "lost"),
        ("close 2000", 2000, "Reserved", ""),
        ("close 3003", 3003, "Forbidden", ""),
        ("close 3999", 3999, "Registered", ""),
        ("close 4999 caf\u{e9}", 4999, "Private", "caf\u{e9}"),
        ("close", 1005, "No Status Rcvd", ""),
    ] {
        let close = json!({"code": code, "name": name, "reason": reason, "clean": true});
        assert_eq!(
            probe(&demo.url(), &["--send", command]),
            (Some(0), opened(&json!([]), &close, &Value::Null)),
            "{command}"
        );
    }
}

#[test]
fn probe_reports_1006_without_a_legal_close_frame() {
    let demo = Demo::start();
    let close = json!({"code": 1006, "name": "Abnormal Closure", "reason": "", "clean": false});
    for (command, error) in [
        ("vanish", "the server ended the connection without a Close frame"),
        ("abort", "the connection broke: Connection reset by peer (os error 104)"),
        (
            "close 1006 forged",
            "failed the connection with 1002: a Close frame with code 1006, which is illegal on the wire",
        ),
    ] {
        assert_eq!(
            probe(&demo.url(), &["--send", command]),
            (Some(1), opened(&json!([]), &close, &json!(error))),
            "{command}"
        );
    }
}

#[test]
fn probe_closes_with_the_given_code() {
    let demo = Demo::start();
    for (argument, code, name, reason) in [
        ("1000", 1000, "Normal Closure", ""),
        ("1014:gateway", 1014, "Bad Gateway", "gateway"),
        ("4001:one: two", 4001, "Private", "one: two"),
    ] {
        let close = json!({"code": code, "name": name, "reason": reason, "clean": true});
        let report = probe(&demo.url(), &["--send", "hello", "--close", argument]);
        assert_eq!(report, (Some(0), opened(&json!(["hello"]), &close, &Value::Null)), "{argument}");
    }
}

#[test]
fn probe_closes_with_1000_after_the_wait() {
    let close = json!({"code": 1000, "name": "Normal Closure", "reason": "", "clean": true});
    let report = probe(&Demo::start().url(), &["--insecure", "--send", "ping", "--send", "hello", "--wait", "300ms"]);
    assert_eq!(report, (Some(0), opened(&json!(["hello"]), &close, &Value::Null)));
}

#[test]
fn probe_leaves_a_silent_server() {
    let close = json!({"code": 1006, "name": "Abnormal Closure", "reason": "", "clean": false});
    let report = probe(&Demo::start().url(), &["--send", "silent", "--close", "1000", "--wait", "300ms"]);
    let error = json!("the server did not answer the Close frame in time");
    assert_eq!(report, (Some(1), opened(&json!([]), &close, &error)));
}

#[test]
fn probe_offers_subprotocols_and_headers() {
    let demo = Demo::start();
    let (code, report) = probe(&demo.url(), &["--subprotocol", "chat", "--subprotocol", "feed", "--close", "1000"]);
    assert_eq!((code, &report["subprotocol"]), (Some(0), &json!("chat")));

    let server = Server::start();
    let url = format!("ws://{}/path?query=1", server.address());
    let request = thread::spawn(move || server.accept_request().1.text);
    let headers = ["--header", "Authorization: Bearer x:y", "--header", "host: other.example"];
    assert_eq!(probe(&url, &[&headers[..], &["--subprotocol", "chat"]].concat()).0, Some(1));
    let request = request.join().unwrap();
    assert_eq!(request.lines().next(), Some("GET /path?query=1 HTTP/1.1"));
    let request = request.to_lowercase();
    for line in ["authorization: bearer x:y", "host: other.example", "sec-websocket-protocol: chat"] {
        assert_eq!(request.lines().filter(|found| *found == line).count(), 1, "{line} in {request}");
    }
    assert_eq!(request.matches("\r\nhost:").count(), 1);
}

#[test]
fn probe_reports_why_no_websocket_opened() {
    let demo = Demo::start();
    let refused = format!("{}/status/401", demo.url());
    let error = "the server refused the upgrade with 401 Unauthorized";
    assert_eq!(probe(&refused, &[]), (Some(1), never_opened(&json!(401), error)));

    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = format!("cannot connect to {free}: Connection refused (os error 111)");
    assert_eq!(probe(&format!("ws://{free}"), &[]), (Some(1), never_opened(&Value::Null, &error)));

    let mute = canned("");
    let error = "no WebSocket within 200ms";
    assert_eq!(probe(&mute, &["--wait", "200ms"]), (Some(1), never_opened(&Value::Null, error)));

    let forged =
        canned("HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n");
    let error = "the server's 101 has no Sec-WebSocket-Accept that fits the key";
    assert_eq!(probe(&forged, &[]), (Some(1), never_opened(&json!(101), error)));
}

#[test]
fn probe_prints_the_events_of_a_browser_in_order() {
    let outcome = run(&["probe", &Demo::start().url(), "--send", "tab\there", "--send", "close 4001 bye"]);
    let lines = "onopen     protocol \"\", extensions \"\"\n\
                 onmessage  text, 8 bytes: \"tab\\there\"\n\
                 onclose    code 4001 (Private), reason \"bye\", wasClean true\n";
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), lines));
}

#[test]
fn probe_refuses_bad_usage_with_2() {
    for (arguments, message) in [
        (&["wss://127.0.0.1/"][..], "wss:// is not supported yet"),
        (&["http://127.0.0.1/"], "begins with ws://"),
        (&["ws://127.0.0.1:99999/"], "a port is a number from 1 to 65535"),
        (&["ws://127.0.0.1:abc"], "a port is a number from 1 to 65535"),
        (&["ws://127.0.0.1:-1/"], "a port is a number from 1 to 65535"),
        (&["ws://127.0.0.1/chat#room"], "has no fragment: write %23"),
        (&["ws://127.0.0.1/", "--close", "1006"], "1006 is illegal in a Close frame"),
        (&["ws://127.0.0.1/", "--close", "5000"], "5000 is illegal in a Close frame"),
        (&["ws://127.0.0.1/", "--close", "bye"], "a Close code is a number"),
        (&["ws://127.0.0.1/", "--header", "no colon"], "'Name: value'"),
        (&["ws://127.0.0.1/", "--header", "Upgrade: h2c"], "the probe sets upgrade itself"),
        (&["ws://127.0.0.1/", "--subprotocol", "a b"], "allowed in a subprotocol"),
        (&["ws://127.0.0.1/", "--wait", "soon"], "allowed: a duration such as 250ms, 30s or 5m"),
        (&["ws://127.0.0.1/", "--wait", "25h"], "at most 24h"),
        (&[], "required arguments were not provided"),
    ] {
        let outcome = run(&[&["probe"], arguments].concat());
        assert_eq!(outcome.code, Some(2), "{arguments:?}");
        assert!(outcome.stderr.contains(message), "{arguments:?}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
    }
}

#[test]
fn explain_prints_one_code_in_full() {
    for (code, title) in [
        ("0", "0 Invalid"),
        ("1006", "1006 Abnormal Closure"),
        ("1016", "1016 Reserved"),
        ("3000", "3000 Unauthorized"),
        ("3001", "3001 Registered"),
        ("4999", "4999 Private"),
    ] {
        let outcome = run(&["explain", code]);
        assert_eq!((outcome.code, outcome.stdout.lines().next()), (Some(0), Some(title)));
        for section in ["On the wire:", "Sent by:", "Usual causes:", "What to look at next:"] {
            assert!(outcome.stdout.contains(section), "{section} of {code}");
        }
    }
}

#[test]
fn explain_without_a_code_prints_all_codes() {
    let outcome = run(&["explain"]);
    let first_columns: Vec<_> = outcome.stdout.lines().filter_map(|line| line.get(..12)).map(str::trim_end).collect();
    let mut expected = vec!["CODE".to_owned(), "0-999".to_owned()];
    expected.extend((1000..=1015).map(|code| code.to_string()));
    let rest = ["1016-2999", "3000", "3001-3002", "3003", "3004-3007", "3008", "3009-3999", "4000-4999", "5000 and up"];
    expected.extend(rest.map(str::to_owned));
    assert_eq!(first_columns[..expected.len()], expected);
    assert_eq!(outcome.code, Some(0));
}

#[test]
fn explain_refuses_other_words_with_one_line() {
    for text in ["5000", "65535", "99999", "-1", "-1006", "abc", "1e3", ""] {
        let outcome = run(&["explain", text]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{text}");
        assert_eq!(outcome.stderr, format!("error: {text:?} is not a Close code: use a number from 0 to 4999\n"));
    }
}

#[test]
fn explain_ends_quietly_without_a_reader() {
    let mut child = command().arg("explain").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn commands_keep_their_exit_code_without_a_reader() {
    for (arguments, exit) in [
        (&["explain", "9999"][..], 2),
        (&["probe", "wss://127.0.0.1:1"], 2),
        (&["health", "--admin", "127.0.0.1:1"], 1),
        (&["check", "--config", "/nowhere/closewatch.yaml"], 2),
    ] {
        let mut child = command().args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stderr.take());
        assert_eq!(child.wait().unwrap().code(), Some(exit), "{arguments:?}");
    }
}

#[test]
fn health_and_drain_exit_with_0_or_1_only() {
    let run = |arguments: &[&str], admin: &str| Outcome::of(command().args(arguments).env("CLOSEWATCH_ADMIN", admin));
    for name in ["health", "drain"] {
        for (arguments, admin, message) in [
            (&[name, "--admin", "127.0.0.1:99999"][..], "127.0.0.1:1", "found \"127.0.0.1:99999\""),
            (&[name], "https://127.0.0.1", "(an admin is http://HOST:PORT or HOST:PORT)"),
            (&[name, "--loud"], "127.0.0.1:1", "unexpected argument '--loud'"),
        ] {
            let outcome = run(arguments, admin);
            assert_eq!(outcome.code, Some(1), "{arguments:?}");
            assert!(outcome.stderr.contains(message), "{arguments:?}: {}", outcome.stderr);
        }
        let help = run(&[name, "--help"], "127.0.0.1:1");
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    }
    assert_eq!(run(&["--loud"], "127.0.0.1:1").code, Some(2));
}
