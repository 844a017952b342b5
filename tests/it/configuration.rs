//! The configuration as a user sees it: `closewatch check`, its messages and exit codes, and the values.

use std::{
    fs, io,
    net::TcpListener,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use closewatch::{
    config::{
        self, ClientPrivacy, Config, ForwardedMode, HostHeader, Overrides, ProbeSource, ProxyHeader, ProxyProtocol,
    },
    websocket::close_code::{CloseCode, CloseText},
};
use serde_yaml::Value;

use crate::support::{Outcome, command};

const MINIMAL: &str = "upstream: ws://127.0.0.1:9000\n";

/// The default of every key, as the interface has it.
const DEFAULTS: &str = r#"
listen: [{address: "0.0.0.0:8080", proxy_protocol: "off"}]
upstream: {url: "ws://127.0.0.1:9000", connect_timeout: 5s, proxy_protocol: "off"}
workers: auto
admin: {listen: "127.0.0.1:9917", hosts: [], control: false}
forwarded: {mode: append, trusted: [], proto: auto}
host: preserve
timeouts:
  request_head: 10s
  keep_alive: 620s
  body: 1m
  handshake: 30s
  idle: "off"
  max_age: "off"
  close: 65s
  hang_up: 2s
keepalive: {idle: 45s, interval: 10s, probes: 3}
on_server_loss: propagate
on_client_loss: propagate
limits:
  connections: auto
  connections_per_ip: "off"
  request_head_bytes: 64KiB
  buffer_total_bytes: 256MiB
  frame_bytes: "off"
  message_bytes: "off"
  buffer_bytes: 256KiB
shutdown: {delay: 0s, spread: 0s, code: 1001, reason: "", timeout: 20s, linger: 0s}
probes:
  user_agents: [Blackbox-Exporter, kube-probe, ELB-HealthChecker, GoogleHC]
  from: [loopback, private]
privacy: {path: full, client: full, reason: full, subprotocol: full}
metrics:
  codes: []
  max_custom_codes: 16
  listen: "off"
  buckets:
    session_duration: auto
    idle_before_close: auto
    close_handshake_duration: auto
    handshake_duration: auto
    upstream_connect_duration: auto
    message_size: auto
    ping_rtt: auto
log: {format: text, level: info, sessions: abnormal, max_per_second: 200}
"#;

/// Every key, each with a value that is not its default.
const EVERYTHING: &str = r#"
listen:
  - {address: "127.0.0.1:8081", proxy_protocol: accept}
  - {address: "[::1]:8082", proxy_protocol: require}
routes:
  - name: chat
    match: {host: chat.example.com, path_prefix: /chat}
    upstream: {url: "ws://chat:9001", connect_timeout: 1s, proxy_protocol: v2}
    timeouts: {handshake: 1s, idle: 2s, max_age: 3s, close: 4s, hang_up: 250ms}
    limits: {frame_bytes: 1KiB, message_bytes: 2KiB, buffer_bytes: 4KiB}
    on_server_loss: {code: 1014, reason: "no server: \"chat\""}
    on_client_loss: {code: 4002, reason: ""}
workers: 3
admin: {listen: "127.0.0.1:9999", hosts: [admin.example.com], control: true}
forwarded: {mode: replace, trusted: [10.0.0.0/8, "::1/128"], proto: https}
host: upstream
timeouts:
  request_head: "off"
  keep_alive: 75s
  body: 5m
  handshake: 10s
  idle: 1h
  max_age: 24h
  close: "off"
  hang_up: 1s
keepalive: {idle: 1m, interval: 5s, probes: 5}
on_server_loss: {code: 1012, reason: ""}
on_client_loss: {code: 1001, reason: gone}
limits:
  connections: 1000
  connections_per_ip: 10
  request_head_bytes: 16KiB
  buffer_total_bytes: 1GiB
  frame_bytes: 1MiB
  message_bytes: 2MiB
  buffer_bytes: 65537
shutdown: {delay: 5s, spread: 10s, code: 1012, reason: restart, timeout: 15s, linger: 1s}
probes: {user_agents: [my probe], from: [loopback, 35.191.0.0/16]}
privacy: {path: "off", client: prefix, reason: "off", subprotocol: "off"}
metrics:
  codes: [4001, 4003]
  max_custom_codes: 0
  listen: 127.0.0.1:9998
  buckets:
    session_duration: [1, 2]
    idle_before_close: [1, 3]
    close_handshake_duration: [1, 4]
    handshake_duration: [1, 5]
    upstream_connect_duration: [1, 6]
    message_size: [1, 7]
    ping_rtt: [0.5, 8]
log: {format: json, level: debug, sessions: all, max_per_second: 1}
"#;

/// A route that has nothing of its own but a name and a server.
const INHERITING: &str = r#"
routes: [{name: rest, upstream: "unix:/run/rest.sock"}]
timeouts: {idle: 1h, close: off}
limits: {message_bytes: 2MiB, buffer_bytes: 64KiB}
on_client_loss: {code: 1001, reason: gone}
"#;

fn parse(text: &str) -> Config {
    config::parse("test.yaml", text, &Overrides::default()).unwrap_or_else(|errors| panic!("{text}:\n{errors}"))
}

fn faults(text: &str, overrides: &Overrides) -> String {
    config::parse("test.yaml", text, overrides).expect_err("this configuration is invalid")
}

fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

/// `closewatch check` with a file.
fn check(file: &Path) -> Outcome {
    Outcome::of(command().args(["check", "--config"]).arg(file))
}

/// Asserts that a command refuses the configuration with exactly these lines.
fn assert_refuses(outcome: &Outcome, stderr: impl Into<String>) {
    assert_eq!(*outcome, Outcome { code: Some(2), stdout: String::new(), stderr: stderr.into() });
}

/// Asserts that a command refuses the configuration, and returns the reasons.
fn refusal(command: &mut Command) -> String {
    let outcome = Outcome::of(command);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{}", outcome.stderr);
    outcome.stderr
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Each file in `tests/config` breaks a rule. Its lines that begin with `#! ` are the expected faults.
#[test]
fn bad_file_is_reported_with_fault_and_place() {
    let directory = repository().join("tests/config");
    let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 90, "the table of bad files is gone: {files:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let fault = |line: &str| line.strip_prefix("#! ").map(|fault| format!("{}:{fault}\n", file.display()));
        let expected: String = text.lines().filter_map(fault).collect();
        assert!(!expected.is_empty(), "{} expects nothing", file.display());
        assert_refuses(&check(&file), expected);
    }
}

#[test]
fn reference_file_has_the_defaults() {
    let reference = fs::read_to_string(repository().join("config.yaml")).unwrap();
    assert_eq!(parse(&reference), parse(MINIMAL));
}

#[test]
fn reference_file_names_every_key() {
    let reference = fs::read_to_string(repository().join("config.yaml")).unwrap();
    let everything = parse(EVERYTHING).to_yaml();
    let keys = everything.lines().filter_map(|line| line.trim_start_matches([' ', '-']).split_once(':'));
    for (key, _) in keys.filter(|(key, _)| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')) {
        assert!(reference.contains(&format!("{key}:")), "config.yaml does not name {key}");
    }
}

/// A reader who removes the `#` gets a valid configuration.
#[test]
fn examples_in_comments_of_reference_file_are_valid() {
    let reference = fs::read_to_string(repository().join("config.yaml")).unwrap();
    let lines: Vec<_> = reference.lines().map(|line| line.strip_prefix("#   ").unwrap_or_default()).collect();
    let examples: Vec<_> =
        lines.split(|line| line.is_empty()).filter(|lines| !lines.is_empty()).map(|lines| lines.join("\n")).collect();
    let [listen, upstream, routes] = examples.as_slice() else { panic!("{examples:#?}") };
    assert_eq!(parse(&format!("{MINIMAL}{listen}")).listen.len(), 2);
    // Its values are the defaults.
    assert_eq!(parse(upstream), parse(MINIMAL));
    assert_eq!(parse(routes).routes().len(), 2);
}

#[test]
fn keys_that_need_a_restart_are_known() {
    let fixed = ["workers", "keepalive", "admin.listen", "metrics.listen"];
    let fixed_metrics = ["metrics.codes", "metrics.max_custom_codes", "metrics.buckets"];
    assert_eq!(parse(MINIMAL).fixed_differences(&parse(EVERYTHING)), [&fixed[..], &fixed_metrics].concat());
    for path in ["workers", "keepalive.idle", "metrics.buckets.ping_rtt"] {
        assert!(config::needs_restart(path), "{path}");
    }
    for path in ["admin", "admin.control", "metrics", "log.level"] {
        assert!(!config::needs_restart(path), "{path}");
    }
}

#[test]
fn defaults_are_those_of_the_interface() {
    assert_eq!(yaml(&parse(MINIMAL).to_yaml()), yaml(DEFAULTS));
    let [route] = parse(MINIMAL).routes().try_into().unwrap();
    assert_eq!(route.name.as_str(), "default");
    assert!(route.matches("anything", "/at/all"));
    assert_eq!(parse(MINIMAL).worker_count(), std::thread::available_parallelism().unwrap());
}

/// With the values that another format could confuse, as the rest of the program gets them.
#[test]
fn every_key_reaches_its_value() {
    let config = parse(EVERYTHING);
    assert_eq!(yaml(&config.to_yaml()), yaml(EVERYTHING));
    assert_no_common_value(&yaml(EVERYTHING), &yaml(DEFAULTS));

    assert_eq!(*config.listen[1].address, "[::1]:8082".parse().unwrap());
    assert_eq!(*config.listen[1].proxy_protocol, ProxyProtocol::Require);
    assert_eq!(config.worker_count().get(), 3);
    assert!(config.admin.control.0);
    assert_eq!((*config.forwarded.mode, *config.host), (ForwardedMode::Replace, HostHeader::Upstream));
    assert_eq!(*config.forwarded.trusted[1], "::1/128".parse().unwrap());
    assert_eq!(*config.timeouts.request_head, None);
    assert_eq!(*config.keepalive.idle, Duration::from_mins(1));
    assert_eq!((*config.limits.connections, *config.limits.connections_per_ip), (Some(1000), Some(10)));
    assert_eq!((*config.limits.request_head_bytes, *config.limits.buffer_total_bytes), (16_384, 1_073_741_824));
    assert_eq!((*config.shutdown.code, config.shutdown.reason.as_str()), (CloseCode(1012), "restart"));
    assert_eq!(*config.probes.from[1], ProbeSource::Network("35.191.0.0/16".parse().unwrap()));
    assert_eq!(*config.privacy.client, ClientPrivacy::Prefix);
    assert_eq!(*config.metrics.listen, Some("127.0.0.1:9998".parse().unwrap()));
    assert_eq!(config.metrics.buckets.ping_rtt.list(), Some(vec![0.5, 8.0]));
    assert_eq!(config.on_client_loss.close_text(), Some(close_text(1001, "gone")));
}

/// So that a key that reads another key's value, or none, is found.
fn assert_no_common_value(left: &Value, right: &Value) {
    let (Value::Mapping(left), Value::Mapping(right)) = (left, right) else {
        assert_ne!(left, right);
        return;
    };
    for (key, value) in left {
        right.get(key).into_iter().for_each(|other| assert_no_common_value(value, other));
    }
}

fn close_text(code: u16, reason: &str) -> CloseText {
    CloseText { code: CloseCode(code), reason: reason.to_owned() }
}

#[test]
fn route_overrides_the_values_of_all_routes() {
    let config = parse(EVERYTHING);
    let [chat] = config.routes().try_into().unwrap();
    assert_eq!(chat.upstream.url.to_string(), "ws://chat:9001");
    assert_eq!(*chat.upstream.connect_timeout, Duration::from_secs(1));
    assert_eq!(*chat.upstream.proxy_protocol, ProxyHeader::V2);
    assert_eq!(*chat.timeouts.over(&config.timeouts).hang_up, Some(Duration::from_millis(250)));
    let limits = chat.limits.over(&config.limits);
    assert_eq!((*limits.frame_bytes, *limits.buffer_bytes), (Some(1024), 4096));
    assert_eq!(chat.on_server_loss.unwrap().close_text(), Some(close_text(1014, "no server: \"chat\"")));
}

#[test]
fn route_inherits_the_values_of_all_routes() {
    let config = parse(INHERITING);
    let [rest] = config.routes().try_into().unwrap();
    let timeouts = rest.timeouts.over(&config.timeouts);
    assert_eq!((*timeouts.idle, *timeouts.close), (Some(Duration::from_hours(1)), None));
    let limits = rest.limits.over(&config.limits);
    assert_eq!((*limits.message_bytes, *limits.buffer_bytes), (Some(2_097_152), 65_536));
    let filled = yaml(&config.to_yaml());
    let route = &filled["routes"][0];
    assert_eq!(route["timeouts"]["idle"], "1h");
    assert_eq!(route["limits"]["message_bytes"], "2MiB");
    assert_eq!((&route["on_server_loss"], &route["on_client_loss"]["code"]), (&"propagate".into(), &1001.into()));
}

#[test]
fn route_takes_the_requests_that_match() {
    let text = EVERYTHING.replace("\nworkers", "\n  - {name: rest, upstream: \"ws://rest:1\"}\nworkers");
    let routes = parse(&text).routes();
    let taker =
        |host: &str, path: &str| routes.iter().find(|route| route.matches(host, path)).map(|route| route.name.as_str());
    assert_eq!(taker("chat.example.com", "/chat"), Some("chat"));
    assert_eq!(taker("Chat.Example.COM:8080", "/chat/room"), Some("chat"));
    assert_eq!(taker("chat.example.com.", "/chat"), Some("chat"));
    assert_eq!(taker("chat.example.com", "/chatter"), Some("rest"));
    assert_eq!(taker("other.example.com", "/chat"), Some("rest"));
}

#[test]
fn filled_in_configuration_is_the_same_configuration() {
    for text in [MINIMAL, EVERYTHING, INHERITING] {
        let filled = parse(text).to_yaml();
        assert_eq!(parse(&filled).to_yaml(), filled);
        assert_eq!(parse(&filled).routes().len(), parse(text).routes().len());
    }
    assert_eq!(parse(&parse(EVERYTHING).to_yaml()), parse(EVERYTHING));
}

/// YAML 1.1 has more spellings of booleans and numbers than 1.2, and dates.
#[test]
fn filled_in_configuration_is_read_alike_by_yaml_1_1() {
    let text = "routes:\n- {name: off, match: {host: '1e3'}, upstream: 'ws://h:1'}\n- {name: 2026-11-21, upstream: \
                'ws://h:1'}\nshutdown: {reason: '123', code: 1012}\nadmin: {control: TRUE}\n";
    let filled = parse(text).to_yaml();
    let lines: Vec<_> = filled.lines().map(|line| line.trim_start_matches([' ', '-'])).collect();
    let quoted = ["name: \"off\"", "host: '1e3'", "name: \"2026-11-21\"", "reason: '123'", "idle: \"off\""];
    for line in quoted.iter().chain(&["code: 1012", "control: true", "idle: 45s", "probes: 3", "workers: auto"]) {
        assert!(lines.contains(line), "{line} is not in {filled}");
    }
    assert_eq!(parse(&filled).to_yaml(), filled);
}

#[test]
fn equivalent_spellings_give_the_same_configuration() {
    let same = [
        "\u{feff}upstream: ws://127.0.0.1:9000\r\n",
        "---\nupstream: 'ws://127.0.0.1:9000'\n...\n",
        "{upstream: {url: 'ws://127.0.0.1:9000'}}",
        "upstream: ws://127.0.0.1:9000\nlisten: {}\ntimeouts:\n  # idle: 5m\nworkers: \"auto\"\n",
        "upstream: ws://127.0.0.1:9000\nlimits: {buffer_bytes: 262144}\nkeepalive: {idle: 45000ms}\n",
        "upstream: &server ws://127.0.0.1:9000\nlisten: {address: &any 0.0.0.0:8080}\n",
    ];
    for text in same {
        assert_eq!(parse(text), parse(MINIMAL), "{text}");
    }
    let routes = "routes: {name: a, upstream: 'ws://h:1', timeouts: {idle: null}}";
    assert_eq!(parse(routes), parse("routes: [{name: a, upstream: 'ws://h:1'}]"));
}

/// YAML 1.1 tools turn `off` into `false`.
#[test]
fn false_means_off_for_every_key_that_allows_off() {
    let everything_off = |off: &str| {
        let text =
            "upstream: {url: 'ws://h:1', tls: off, proxy_protocol: off}\nlisten: [{tls: off, proxy_protocol: off}]
forwarded: {mode: off}\ntimeouts: {request_head: off, keep_alive: off, body: off, handshake: off, idle: off, max_age: off, close: off, hang_up: off}
limits: {connections_per_ip: off, frame_bytes: off, message_bytes: off}\nprivacy: {path: off, client: off, reason: off, subprotocol: off}
metrics: {listen: off}\nlog: {sessions: off}";
        parse(&text.replace(": off", &format!(": {off}")))
    };
    assert_eq!(everything_off("false"), everything_off("off"));
    assert_eq!(everything_off("off").to_yaml().matches("\"off\"").count(), 20);
}

fn overrides(listen: Option<&str>, upstream: Option<&str>, admin: Option<&str>) -> Overrides {
    Overrides {
        listen: listen.map(|address| address.parse().unwrap()),
        upstream: upstream.map(|url| url.parse().unwrap()),
        admin: admin.map(|address| address.parse().unwrap()),
    }
}

#[test]
fn flag_takes_precedence_over_the_file() {
    let overrides = overrides(Some("127.0.0.1:0"), Some("ws://[::1]:9009"), Some("127.0.0.1:0"));
    let file =
        "listen: [0.0.0.0:1, 0.0.0.0:2]\nupstream: {url: 'ws://h:1', connect_timeout: 1s}\nadmin: {control: true}";
    let config = config::parse("test.yaml", file, &overrides).unwrap();
    let [listen] = config.listen.as_slice() else { panic!("{:?}", config.listen) };
    assert_eq!(listen.address.to_string(), "127.0.0.1:0");
    let upstream = config.upstream.as_ref().unwrap();
    assert_eq!(upstream.url.to_string(), "ws://[::1]:9009");
    // Values that no flag sets stay.
    assert_eq!(*upstream.connect_timeout, Duration::from_secs(1));
    assert_eq!((config.admin.listen.to_string().as_str(), config.admin.control.0), ("127.0.0.1:0", true));

    for file in ["", "upstream: {connect_timeout: 2s}"] {
        let config = config::parse("test.yaml", file, &overrides).unwrap();
        assert_eq!(config.upstream.unwrap().url.to_string(), "ws://[::1]:9009");
    }
}

#[test]
fn bad_flag_is_refused_with_its_name() {
    let cases = [
        (&["--listen", "8080"][..], "invalid value '8080' for '--listen <ADDR>': invalid socket address syntax"),
        (&["--admin", "off"], "invalid value 'off' for '--admin <ADDR>': invalid socket address syntax"),
        (&["--upstream", "chat"], "invalid value 'chat' for '--upstream <URL>': found \"chat\", allowed: "),
        (&["--upstream", "wss://chat"], "--upstream (CLOSEWATCH_UPSTREAM): found \"wss://chat\", allowed: "),
    ];
    let directory = tempfile::tempdir().unwrap();
    for (flag, message) in cases {
        for name in ["run", "check"] {
            let errors = refusal(command().arg(name).args(flag).current_dir(&directory));
            assert!(errors.contains(message), "{name} {flag:?}: {errors}");
        }
    }
}

#[test]
fn contradiction_of_flag_and_file_names_the_flag() {
    let overrides = overrides(None, None, Some("127.0.0.1:8080"));
    let expected = "--admin (CLOSEWATCH_ADMIN): listen[0].address (0.0.0.0:8080) and admin.listen (127.0.0.1:8080) \
                    conflict; choose another port";
    assert_eq!(faults(MINIMAL, &overrides), expected);
}

#[test]
fn server_from_a_flag_replaces_all_routes() {
    let overrides = overrides(None, Some("ws://127.0.0.1:9000"), None);
    let routes = "routes:\n  - {name: a, upstream: 'ws://h:1'}\n";
    for file in [routes.to_owned(), format!("upstream: ws://h:2\n{routes}")] {
        let config = config::parse("test.yaml", &file, &overrides).unwrap();
        let [route] = config.routes().try_into().unwrap();
        assert_eq!((route.name.as_str(), route.upstream.url.to_string().as_str()), ("default", "ws://127.0.0.1:9000"));
        assert!(config.has_unused_routes.0);
    }
    assert!(!config::parse("test.yaml", MINIMAL, &overrides).unwrap().has_unused_routes.0);
    assert!(!parse(EVERYTHING).has_unused_routes.0);
}

/// Texts made to cost time or memory: each is refused, in a few lines.
#[test]
fn hostile_file_is_refused() {
    let many = 20_000;
    let long_key = "k".repeat(200_000);
    let bomb =
        |level: u8| format!("{0}: &{0} [{1}]\n", char::from(level), format!("*{}, ", char::from(level - 1)).repeat(9));
    let bomb: String = ["metrics:\n codes: &a [4001]\n".to_owned()].into_iter().chain((b'b'..b'j').map(bomb)).collect();
    let hostile = [
        "[".repeat(many),
        "{a: ".repeat(many),
        "- ".repeat(many),
        "? ".repeat(many),
        "a: ".repeat(many),
        (0..many).map(|key| ["k", &key.to_string(), ": 1\n"].concat()).collect(),
        "a: 1\n".repeat(many),
        format!("routes: [{}]", "{}, ".repeat(many)),
        format!("listen: [{}]", "0.0.0.0:1, ".repeat(many)),
        format!("metrics: {{codes: [{}]}}", "4001, ".repeat(many)),
        format!("{long_key}: [{}]", "1, ".repeat(many)),
        "\u{0}".repeat(many),
        "\"".to_owned() + &"a".repeat(many),
        bomb,
        "a: \u{1b}[31m".to_owned(),
        "\u{7}: \"\\e[31m\"".to_owned(),
    ];
    for text in hostile {
        let start: String = text.chars().take(20).collect();
        let errors = faults(&text, &Overrides::default());
        assert!(errors.lines().count() <= 101, "{start}: {} lines", errors.lines().count());
        assert!(errors.len() < 150_000, "{start}: {} bytes", errors.len());
        assert!(!errors.contains(|character: char| character.is_control() && character != '\n'), "{start}: {errors:?}");
    }
}

proptest::proptest! {
    /// Any text is a configuration, or is refused with a fault.
    #[test]
    fn no_text_disturbs_the_parser(
        cut in 0..EVERYTHING.len(),
        rest in 0..EVERYTHING.len(),
        text in r#"[ \n\t\-:,?{}\[\]&*!|>'"%@`#a-z0\PC]{0,20}"#,
    ) {
        let is_handled = |text: &str| match config::parse("test.yaml", text, &Overrides::default()) {
            Ok(_) => true,
            Err(errors) => errors.starts_with("test.yaml:"),
        };
        proptest::prop_assert!(is_handled(&text));
        let spliced: String = [&EVERYTHING[..cut], &text, &EVERYTHING[rest..]].concat();
        proptest::prop_assert!(is_handled(&spliced));
    }

    #[test]
    fn any_reason_survives_writing_and_reading(reason in r"[\PC\n\t\\]{0,30}") {
        let escape = |character: char| format!("\\U{:08X}", u32::from(character));
        let escaped: String = reason.chars().map(escape).collect();
        let text = format!("{MINIMAL}shutdown: {{reason: \"{escaped}\"}}");
        let filled = parse(&text).to_yaml();
        proptest::prop_assert_eq!(&parse(&filled).shutdown.reason.0, &reason, "{}", filled);
    }
}

#[test]
fn check_prints_the_configuration_filled_in() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("config.yaml"), MINIMAL).unwrap();
    // Without --config: the file in the working directory.
    let outcome = Outcome::of(command().arg("check").current_dir(&directory));
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    assert_eq!(yaml(&outcome.stdout), yaml(DEFAULTS));
}

#[test]
fn check_reads_flags_and_environment_like_run() {
    let directory = tempfile::tempdir().unwrap();
    let check = || {
        let mut command = command();
        command.arg("check").current_dir(&directory);
        command
    };
    let by_environment = Outcome::of(check().env("CLOSEWATCH_UPSTREAM", "ws://127.0.0.1:9000"));
    let by_flag = Outcome::of(check().args(["--upstream", "ws://127.0.0.1:9000"]));
    for outcome in [by_environment, by_flag] {
        assert_eq!(outcome.code, Some(0));
        assert_eq!(parse(&outcome.stdout), parse(MINIMAL));
    }
    let errors = refusal(check().env("CLOSEWATCH_UPSTREAM", "chat"));
    assert!(errors.contains("invalid value 'chat' for '--upstream <URL>'"), "{errors}");
}

#[test]
fn empty_variable_is_not_set() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("config.yaml"), MINIMAL).unwrap();
    let variables = ["CLOSEWATCH_LISTEN", "CLOSEWATCH_UPSTREAM", "CLOSEWATCH_ADMIN"].map(|name| (name, ""));
    let checked = Outcome::of(command().arg("check").envs(variables).current_dir(&directory));
    assert_eq!((checked.code, parse(&checked.stdout)), (Some(0), parse(MINIMAL)), "{}", checked.stderr);

    // The refusal of the file shows that it was read. The admin has the default address.
    fs::write(directory.path().join("config.yaml"), "nonsense: 1").unwrap();
    for run in [&["run"][..], &[]] {
        let errors = refusal(command().args(run).envs(variables).current_dir(&directory));
        assert!(errors.lines().all(|line| line.starts_with("config.yaml:1:1: ")), "{errors}");
    }
    let health = Outcome::of(command().arg("health").env("CLOSEWATCH_ADMIN", ""));
    assert!([health.stdout, health.stderr].concat().contains("http://127.0.0.1:9917"));
}

#[test]
fn check_reports_a_file_that_it_cannot_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    fs::write(file("latin1.yaml"), b"upstream: ws://127.0.0.1:9000\n# \xc3\xbc caf\xe9\n").unwrap();
    fs::write(file("long.yaml"), "# a line\n".repeat(1 << 17)).unwrap();
    let cases = [
        (file("missing.yaml"), "cannot read the file: No such file or directory (os error 2)"),
        (file(""), "cannot read the file: Is a directory (os error 21)"),
        (file("latin1.yaml"), "invalid UTF-8 behind 38 bytes"),
        (file("long.yaml"), "longer than 1048576 bytes, too long for a configuration"),
        (PathBuf::from("/dev/zero"), "longer than 1048576 bytes, too long for a configuration"),
    ];
    for (path, message) in cases {
        let expected = format!("{}: {message}\n", path.display());
        assert_refuses(&check(&path), expected);
    }
    let nothing = "config.yaml: file not found, and so no upstream; name the server by --upstream URL or \
                   CLOSEWATCH_UPSTREAM, or a file by --config FILE\n";
    assert_refuses(&Outcome::of(command().arg("check").current_dir(&directory)), nothing);
}

#[test]
fn check_reports_why_it_cannot_print() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("config.yaml");
    fs::write(&file, MINIMAL)?;
    let full = fs::OpenOptions::new().write(true).open("/dev/full")?;
    let output = command().args(["check", "--config"]).arg(&file).stdout(full).output()?;
    let message = "error: cannot write the configuration: No space left on device (os error 28)\n";
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(1), message));
    Ok(())
}

#[test]
fn check_opens_unix_sockets() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("chat.sock");
    let file = directory.path().join("config.yaml");
    fs::write(&file, format!("upstream: unix:{}", socket.display()))?;
    // The server may start later.
    assert_eq!(check(&file).code, Some(0));
    let listener = UnixListener::bind(&socket)?;
    assert_eq!(check(&file).code, Some(0));
    drop(listener);
    fs::remove_file(&socket)?;
    fs::write(&socket, "")?;
    let expected = format!("{}:1:11: upstream: {} is not a socket\n", file.display(), socket.display());
    assert_refuses(&check(&file), expected);
    Ok(())
}

#[test]
fn check_leaves_the_addresses_alone() -> io::Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("config.yaml");
    fs::write(&file, format!("upstream: ws://127.0.0.1:9000\nlisten: {}\n", taken.local_addr()?))?;
    assert_eq!(check(&file).code, Some(0));
    Ok(())
}
