//! `/metrics`, as Prometheus reads it: the series at the start, the series of a session, and their limits.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};
use std::{env, fs, path::Path};

use closewatch::config::{BoundsSetting, Buckets, Setting};
use closewatch::metrics::{HandshakeFailure, HandshakeOutcome, Metrics, MetricsOptions, RejectReason, RouteMetrics};
use closewatch::session::{FrameSink, Summary};
use closewatch::websocket::close_code::{CloseCode, CloseStatus};
use closewatch::websocket::closing_handshake::{Action, CloseEvent, Ending, Fault, LegFault, Party};
use closewatch::websocket::conformance::{Violation, WholeMessages};
use closewatch::websocket::frame::{MessageType, Opcode};
use closewatch::websocket::{Endpoint, PerEndpoint};

use crate::support::{Scrape, clean_close};

#[test]
fn sessions_give_the_golden_exposition() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/metrics.txt");
    let expected = fs::read_to_string(&golden).unwrap();
    let found = without_volatile_samples(&text(&some_traffic()));
    if found != expected {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("metrics.txt");
        fs::write(&kept, &found).unwrap();
        let lines = expected.lines().zip(found.lines()).enumerate();
        let first = lines.into_iter().find(|(_, (expected, found))| expected != found);
        panic!("{} is not {}; first difference: {first:#?}", kept.display(), golden.display());
    }
}

/// Needs `promtool` of Prometheus. Without it the test prints a message, and fails in CI.
#[test]
fn promtool_finds_no_fault() {
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match started {
        Err(error) if error.kind() == ErrorKind::NotFound && env::var_os("CI").is_none_or(|ci| ci != "true") => {
            return eprintln!("NOT CHECKED: promtool is not installed");
        }
        started => started.expect("promtool runs"),
    };
    promtool.stdin.take().unwrap().write_all(&some_traffic().render()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let output_text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output_text));
    assert_eq!(String::from_utf8_lossy(&output_text), "");
}

#[test]
fn every_family_is_described_from_the_start() {
    let metrics = Metrics::new(options());
    metrics.route("chat");
    let text = text(&metrics);
    let described: BTreeSet<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let helped = text.lines().filter(|line| line.starts_with("# HELP ")).count();
    assert_eq!(helped, described.len());
    let expected = [
        "closewatch_build_info gauge",
        "closewatch_config_last_reload_success_timestamp_seconds gauge",
        "closewatch_config_last_reload_successful gauge",
        "closewatch_connections_accepted_total counter",
        "closewatch_connections_active gauge",
        "closewatch_connections_rejected_total counter",
        "closewatch_http_requests_total counter",
        "closewatch_log_records_dropped_total counter",
        "process_cpu_seconds_total counter",
        "process_max_fds gauge",
        "process_open_fds gauge",
        "process_resident_memory_bytes gauge",
        "process_start_time_seconds gauge",
        "process_threads gauge",
        "process_virtual_memory_bytes gauge",
        "websocket_abnormal_closes_total counter",
        "websocket_buffered_bytes gauge",
        "websocket_bytes_total counter",
        "websocket_close_code_info gauge",
        "websocket_close_events_total counter",
        "websocket_close_frames_total counter",
        "websocket_close_handshake_duration_seconds histogram",
        "websocket_close_views_total counter",
        "websocket_closes_total counter",
        "websocket_frames_total counter",
        "websocket_handshake_duration_seconds histogram",
        "websocket_handshake_failures_total counter",
        "websocket_handshakes_in_progress gauge",
        "websocket_handshakes_total counter",
        "websocket_idle_before_close_seconds histogram",
        "websocket_message_size_bytes histogram",
        "websocket_messages_total counter",
        "websocket_ping_rtt_seconds histogram",
        "websocket_protocol_violations_total counter",
        "websocket_proxy_actions_total counter",
        "websocket_session_duration_seconds histogram",
        "websocket_sessions_active gauge",
        "websocket_upstream_connect_duration_seconds histogram",
        "websocket_write_blocked_seconds_total counter",
    ];
    assert_eq!(described, BTreeSet::from(expected));
}

#[test]
fn known_series_exist_at_zero_from_the_start() {
    let metrics = Metrics::new(options());
    metrics.route("chat");
    let scrape = scrape(&metrics);
    let known = known_series();
    let missing: Vec<_> = known.iter().filter(|series| scrape.get(series) != Some(0.0)).collect();
    assert_eq!(missing, [""; 0]);
    assert_eq!(known.len(), 15 + 10 + 19 + 7 + 1 + 13 + 14 + 4 + 2 + 24 + 6, "the list is complete");
}

/// The documented series of a route named `chat`.
fn known_series() -> Vec<String> {
    let endpoints = ["client", "server"];
    let mut known = Vec::new();
    for (code, cleans) in [("1000", &["true", "false"][..]), ("1001", &["true", "false"]), ("1006", &["false"])] {
        for clean in cleans {
            for initiator in ["client", "server", "proxy"] {
                known.push(format!(
                    r#"websocket_closes_total{{clean="{clean}",code="{code}",initiator="{initiator}",route="chat"}}"#
                ));
            }
            for endpoint in endpoints {
                known.push(format!(
                    r#"websocket_close_events_total{{clean="{clean}",code="{code}",endpoint="{endpoint}",route="chat"}}"#
                ));
            }
        }
    }
    for endpoint in endpoints {
        for cause in ["eof", "truncated", "reset", "timeout", "unreachable", "tls", "no_close_reply"] {
            known.push(format!(
                r#"websocket_abnormal_closes_total{{cause="{cause}",endpoint="{endpoint}",route="chat"}}"#
            ));
        }
        for opcode in ["continuation", "text", "binary", "close", "ping", "pong", "reserved"] {
            known.push(format!(r#"websocket_frames_total{{from="{endpoint}",opcode="{opcode}",route="chat"}}"#));
        }
        for kind in ["text", "binary"] {
            known.push(format!(r#"websocket_messages_total{{from="{endpoint}",route="chat",type="{kind}"}}"#));
        }
        for kind in [
            "unmasked",
            "masked",
            "reserved_opcode",
            "reserved_bits",
            "control_too_long",
            "control_fragmented",
            "unexpected_continuation",
            "expected_continuation",
            "length_encoding",
            "close_code",
            "close_reason_utf8",
            "data_after_close",
        ] {
            known.push(format!(
                r#"websocket_protocol_violations_total{{from="{endpoint}",kind="{kind}",route="chat"}}"#
            ));
        }
        known.push(format!(r#"websocket_bytes_total{{from="{endpoint}",route="chat"}}"#));
        known.push(format!(r#"websocket_buffered_bytes{{from="{endpoint}",route="chat"}}"#));
        known.push(format!(r#"websocket_write_blocked_seconds_total{{from="{endpoint}",route="chat"}}"#));
    }
    for cause in ["idle_timeout", "max_age", "limit", "drain", "control"] {
        known.push(format!(r#"websocket_abnormal_closes_total{{cause="{cause}",endpoint="proxy",route="chat"}}"#));
    }
    for action in ["idle_timeout", "max_age", "limit", "drain", "control", "server_loss", "client_loss"] {
        known.push(format!(r#"websocket_proxy_actions_total{{action="{action}",route="chat"}}"#));
    }
    for cause in [
        "bad_request",
        "no_route",
        "rejected",
        "draining",
        "upstream_refused",
        "upstream_unreachable",
        "upstream_timeout",
        "upstream_tls",
        "upstream_reset",
        "upstream_invalid",
        "out_of_resources",
        "headers_lost",
        "client_gone",
    ] {
        known.push(format!(r#"websocket_handshake_failures_total{{cause="{cause}",route="chat"}}"#));
    }
    known.push(r#"websocket_handshakes_total{route="chat",status="101"}"#.to_owned());
    known.push(r#"websocket_handshakes_in_progress{route="chat"}"#.to_owned());
    known.push(r#"websocket_sessions_active{route="chat"}"#.to_owned());
    known
}

#[test]
fn sums_hold_at_rest() {
    let scrape = scrape(&some_traffic());
    let tls_failed = scrape.sum("websocket_closes_total", &[("code", "1015")]);
    assert_eq!(tls_failed, 2.0);
    let closes = scrape.sum("websocket_closes_total", &[]) - tls_failed;
    let opened = scrape.sum("websocket_handshakes_total", &[("status", "101")]);
    assert_eq!(closes, opened - scrape.sum("websocket_sessions_active", &[]));
    assert_eq!(scrape.sum("websocket_close_events_total", &[]), 2.0 * closes);
    let unclean = scrape.sum("websocket_closes_total", &[("clean", "false")]) - tls_failed;
    assert_eq!(scrape.sum("websocket_abnormal_closes_total", &[]), unclean);
}

#[test]
fn client_with_every_code_adds_a_bounded_number_of_series() {
    let metrics = Metrics::new(options());
    let route = metrics.route("chat");
    for code in 0..=u16::MAX {
        end_session(
            &route,
            &clean_close(CloseStatus::Sent(CloseCode(code)), Party::Client),
            seconds(1.0),
            seconds(1.0),
        );
    }
    let scrape = scrape(&metrics);
    let codes = scrape.values("websocket_close_frames_total", "code");
    // 1000 to 1003 and 1007 to 1014, reserved and invalid, three registered, two listed, sixteen others, two thousands.
    assert_eq!(codes.len(), 12 + 2 + 3 + 2 + 16 + 2, "{codes:?}");
    assert!(!codes.contains("1005") && !codes.contains("1006") && !codes.contains("1015"), "{codes:?}");
    let in_closes = scrape.values("websocket_closes_total", "code");
    assert_eq!(&in_closes - &codes, BTreeSet::from(["1006", "1015"]), "the codes that exist at 0");
    // No registered and no other code, and 1006, which exists at 0.
    assert_eq!(scrape.values("websocket_session_duration_seconds_count", "code").len(), 12 + 2 + 2 + 2 + 1);
    assert_eq!(scrape.values("websocket_close_views_total", "client").len(), 12 + 2 + 2 + 1);
    assert_eq!(scrape.sum("websocket_close_frames_total", &[("from", "client")]), 65_536.0);
    // 0 to 999, 1004 to 1006, 1015, 5000 and above.
    let invalid = scrape.sum("websocket_close_frames_total", &[("from", "client"), ("code", "invalid")]);
    assert_eq!(invalid, 1000.0 + 3.0 + 1.0 + 60_536.0);
}

#[test]
fn routes_with_a_common_prefix_are_not_merged() {
    let metrics = Metrics::new(options());
    let names = ["a", "ab", "aclient", "a1000", "a1000client"];
    let clean_close = clean_close(CloseStatus::Sent(CloseCode::NORMAL), Party::Client);
    for (sessions, name) in (1..).zip(names) {
        for _ in 0..sessions {
            end_session(&metrics.route(name), &clean_close, seconds(1.0), seconds(1.0));
            end_session(&metrics.route(name), &lost(Endpoint::Client, LegFault::Reset), seconds(1.0), seconds(1.0));
        }
    }
    let scrape = scrape(&metrics);
    for (sessions, name) in (1..).zip(names) {
        let route = ("route", name);
        assert_eq!(scrape.sum("websocket_closes_total", &[route]), f64::from(2 * sessions), "{name}");
        assert_eq!(scrape.sum("websocket_close_events_total", &[route]), f64::from(4 * sessions), "{name}");
        assert_eq!(scrape.sum("websocket_close_views_total", &[route]), f64::from(2 * sessions), "{name}");
        assert_eq!(scrape.sum("websocket_abnormal_closes_total", &[route]), f64::from(sessions), "{name}");
        assert_eq!(scrape.sum("websocket_handshakes_total", &[route]), f64::from(2 * sessions), "{name}");
    }
}

#[test]
fn route_requested_twice_is_one_route() {
    let metrics = Metrics::new(options());
    metrics.route("chat").session_opened();
    metrics.route("chat").session_opened();
    assert_eq!(scrape(&metrics).value(r#"websocket_sessions_active{route="chat"}"#), 2.0);
}

#[test]
fn counts_of_the_workers_are_summed() {
    let metrics = Metrics::new(options());
    let route = metrics.route("chat");
    for worker in [0, 1] {
        let client = &route.traffic(worker)[Endpoint::Client];
        client.whole_messages(&WholeMessages { kind: MessageType::Text, payload_len: 100, count: 2 });
        client.buffered(500);
    }
    route.traffic(0)[Endpoint::Client].buffered(-700);
    let scrape = scrape(&metrics);
    assert_eq!(scrape.value(r#"websocket_frames_total{from="client",opcode="text",route="chat"}"#), 4.0);
    assert_eq!(scrape.value(r#"websocket_message_size_bytes_count{from="client",route="chat"}"#), 4.0);
    assert_eq!(scrape.value(r#"websocket_message_size_bytes_sum{from="client",route="chat"}"#), 400.0);
    assert_eq!(scrape.value(r#"websocket_buffered_bytes{from="client",route="chat"}"#), 300.0);
}

fn bounds(bounds: &[f64]) -> BoundsSetting {
    BoundsSetting(bounds.iter().map(|bound| Setting(Some(*bound))).collect())
}

#[test]
fn configuration_chooses_the_buckets() {
    let buckets = Buckets {
        session_duration: bounds(&[10.0]),
        message_size: bounds(&[100.0, 1000.5]),
        ping_rtt: bounds(&[0.25]),
        ..Buckets::default()
    };
    let metrics = Metrics::new(MetricsOptions { buckets, ..options() });
    let route = metrics.route("chat");
    for size in [100, 101, 1000, 1001] {
        route.traffic(0)[Endpoint::Server].message_size(size);
    }
    let scrape = scrape(&metrics);
    let sizes = [("from", "server")];
    assert_eq!(scrape.buckets("websocket_message_size_bytes", &sizes), [("100", 1.0), ("1000.5", 3.0), ("+Inf", 4.0)]);
    assert_eq!(scrape.buckets("websocket_ping_rtt_seconds", &[("endpoint", "client")]), [("0.25", 0.0), ("+Inf", 0.0)]);
    let durations = [("code", "1000")];
    assert_eq!(scrape.buckets("websocket_session_duration_seconds", &durations), [("10", 0.0), ("+Inf", 0.0)]);
}

#[test]
fn dropped_guards_decrement_their_gauges() {
    let metrics = Metrics::new(options());
    let connection = metrics.connection_accepted();
    let handshake = metrics.route("chat").handshake_started();
    let during = scrape(&metrics);
    assert_eq!(during.value("closewatch_connections_active"), 1.0);
    assert_eq!(during.value(r#"websocket_handshakes_in_progress{route="chat"}"#), 1.0);
    drop((connection, handshake));
    let after = scrape(&metrics);
    assert_eq!(after.value("closewatch_connections_active"), 0.0);
    assert_eq!(after.value("closewatch_connections_accepted_total"), 1.0);
    assert_eq!(after.value(r#"websocket_handshakes_in_progress{route="chat"}"#), 0.0);
}

#[test]
fn failed_reload_keeps_the_time_of_the_last_success() {
    let metrics = Metrics::new(options());
    metrics.reload_succeeded(UNIX_EPOCH + Duration::from_secs(1_000_000));
    metrics.reload_failed();
    let scrape = scrape(&metrics);
    assert_eq!(scrape.value("closewatch_config_last_reload_successful"), 0.0);
    assert_eq!(scrape.value("closewatch_config_last_reload_success_timestamp_seconds"), 1_000_000.0);
}

#[test]
fn route_name_is_escaped() {
    let metrics = Metrics::new(options());
    metrics.route("a \"b\\c\nd é").session_opened();
    assert_eq!(scrape(&metrics).value(r#"websocket_sessions_active{route="a \"b\\c\nd é"}"#), 1.0);
}

/// Sessions of every kind on two routes, and all other counts. The numbers are easy to recognise.
fn some_traffic() -> Metrics {
    let metrics = Metrics::new(options());
    let chat = metrics.route("chat");
    some_handshakes(&metrics, &chat);
    some_frames(&chat);
    some_endings(&chat);
    chat.session_opened();
    metrics
}

fn some_handshakes(metrics: &Metrics, chat: &RouteMetrics) {
    for _ in 0..3 {
        let _connection = metrics.connection_accepted();
    }
    metrics.connection_rejected(RejectReason::Limit);
    metrics.tls_handshake_failed_client();
    metrics.connection_rejected(RejectReason::Tls);
    metrics.log_drops().record_dropped();

    chat.upstream_connected(Duration::from_millis(2));
    chat.handshake_answered(101, HandshakeOutcome::Upgraded, Duration::from_millis(4));
    chat.handshake_answered(401, HandshakeOutcome::Rejected, Duration::from_millis(20));
    chat.handshake_failed(HandshakeFailure::Rejected);
    chat.handshake_answered(502, HandshakeOutcome::Failed, seconds(1.5));
    chat.handshake_failed(HandshakeFailure::UpstreamTls);
    chat.http_request(200);
    chat.http_request(999);

    let unrouted = metrics.route("");
    unrouted.handshake_answered(404, HandshakeOutcome::Failed, Duration::from_millis(1));
    unrouted.handshake_failed(HandshakeFailure::NoRoute);
}

fn some_frames(chat: &RouteMetrics) {
    let PerEndpoint { client, server } = PerEndpoint::from_fn(|endpoint| &chat.traffic(1)[endpoint]);
    client.whole_messages(&WholeMessages { kind: MessageType::Text, payload_len: 64, count: 7 });
    client.frame(Opcode::Reserved);
    client.bytes(490);
    client.violation(Violation::ReservedOpcode);
    server.frame(Opcode::Ping);
    client.ping_rtt(Duration::from_millis(30));
    server.buffered(4096);
    server.write_blocked(seconds(2.5));
}

/// Nine sessions. Four of them are clean.
fn some_endings(chat: &RouteMetrics) {
    let sent = |code| CloseStatus::Sent(CloseCode(code));
    end_session(chat, &clean_close(sent(1000), Party::Client), seconds(20.0), seconds(0.5));
    end_session(chat, &clean_close(CloseStatus::NoStatus, Party::Server), seconds(20.0), seconds(0.5));
    end_session(chat, &clean_close(sent(4001), Party::Server), seconds(20.0), seconds(0.5));
    end_session(chat, &clean_close(sent(3000), Party::Client), seconds(20.0), seconds(0.5));
    end_session(chat, &lost(Endpoint::Server, LegFault::Reset), seconds(100_000.0), seconds(60.0));
    // The idle time excludes the time that the keepalive took.
    end_session(chat, &lost(Endpoint::Client, LegFault::Timeout), seconds(100_000.0), seconds(75.0));
    end_session(chat, &unanswered(sent(1006)), seconds(20.0), seconds(0.5));
    end_session(chat, &unanswered(CloseStatus::Malformed), seconds(20.0), seconds(0.5));
    end_session(chat, &cut_in_drain(), seconds(4000.0), seconds(3601.0));
}

fn end_session(route: &RouteMetrics, ending: &Ending, duration: Duration, idle: Duration) {
    route.session_opened();
    let close_handshake = ending.is_clean().then_some(Duration::from_millis(2));
    route.session_closed(&Summary { ending: ending.clone(), duration, idle, close_handshake, ..Summary::lost() });
}

/// A leg ended before any Close frame.
fn lost(endpoint: Endpoint, fault: LegFault) -> Ending {
    Ending {
        initiator: endpoint.into(),
        fault: Some(Fault::Endpoint(endpoint, fault)),
        seen: PerEndpoint::from_fn(|_| nothing_seen()),
        received: PerEndpoint::default(),
        ..clean_close(CloseStatus::Abnormal, endpoint.into())
    }
}

/// The server's Close frame was delivered to a client that never answered.
fn unanswered(status: CloseStatus) -> Ending {
    let by_client = CloseEvent { status, reason: String::new(), clean: false };
    Ending {
        fault: Some(Fault::Endpoint(Endpoint::Client, LegFault::NoCloseReply)),
        seen: PerEndpoint { client: by_client, server: nothing_seen() },
        received: PerEndpoint { client: None, server: Some(status) },
        ..clean_close(status, Party::Server)
    }
}

/// closewatch sent both endpoints a Close frame. Only the client answered.
fn cut_in_drain() -> Ending {
    let status = CloseStatus::Sent(CloseCode::GOING_AWAY);
    let seen = |clean| CloseEvent { status, reason: String::new(), clean };
    Ending {
        fault: Some(Fault::Proxy(Action::Drain)),
        action: Some(Action::Drain),
        seen: PerEndpoint { client: seen(true), server: seen(false) },
        received: PerEndpoint { client: Some(status), server: None },
        ..clean_close(status, Party::Proxy)
    }
}

fn nothing_seen() -> CloseEvent {
    CloseEvent { status: CloseStatus::Abnormal, reason: String::new(), clean: false }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn options() -> MetricsOptions {
    MetricsOptions {
        codes: vec![4001, 4003],
        max_custom_codes: 16,
        buckets: Buckets::default(),
        workers: 2,
        registered_codes: vec![(1000, "Normal Closure"), (1006, "Abnormal Closure")],
    }
}

fn scrape(metrics: &Metrics) -> Scrape {
    Scrape::new(&text(metrics))
}

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.render()).expect("the text format is UTF-8")
}

/// Removes the samples that differ in each run.
fn without_volatile_samples(text: &str) -> String {
    let volatile = ["process_", "closewatch_build_info{", "closewatch_config_last_reload_success_timestamp_seconds "];
    let stable = text.lines().filter(|line| !volatile.iter().any(|name| line.starts_with(name)));
    stable.flat_map(|line| [line, "\n"]).collect()
}
