//! The configuration as a user meets it: `closewatch check`, its messages and exit codes, and the values that come out.

use std::{
    fs, io,
    net::TcpListener,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    time::Duration,
};

use assert_cmd::Command;
use closewatch::{
    config::{
        self, Buckets, ClientPrivacy, Config, ForwardedMode, HostHeader, LogFormat, LogSessions, Overrides,
        ProbeSource, ProxyProtocol, UpstreamAddress,
    },
    websocket::close_code::{CloseCode, CloseText},
};

const MINIMAL: &str = "upstream: ws://127.0.0.1:9000\n";

/// Every key of the interface that works today, each with a value that is not its default.
const EVERYTHING: &str = r#"
listen:
  - 127.0.0.1:8081
  - {address: "[::1]:8082", proxy_protocol: require}
routes:
  - name: chat
    match: {host: chat.example.com, path_prefix: /chat}
    upstream: {url: "ws://chat:9001", connect_timeout: 1s, proxy_protocol: v2}
    timeouts: {handshake: 1s, idle: 2s, max_age: 3s, close: 4s, hang_up: 250ms}
    limits: {frame_bytes: 1KiB, message_bytes: 2KiB, buffer_bytes: 4KiB}
    on_server_loss: {code: 1014, reason: "no server: \"chat\""}
    on_client_loss: {code: 4002}
  - name: rest
    upstream: unix:/run/rest.sock
workers: 3
admin: {listen: "127.0.0.1:9999", hosts: [admin.example.com], control: true}
forwarded: {mode: replace, trusted: [10.0.0.0/8, "::1"]}
host: upstream
timeouts: {request_head: off, handshake: 10s, idle: 1h, max_age: 24h, close: off, hang_up: 1s}
keepalive: {idle: 60s, interval: 5s, probes: 5}
on_server_loss: {code: 1012}
on_client_loss: {code: 1001, reason: gone}
limits:
  connections: 1000
  connections_per_ip: 10
  request_head_bytes: 16KiB
  frame_bytes: 1MiB
  message_bytes: 2MiB
  buffer_bytes: 65536
  buffer_total_bytes: 1GiB
shutdown: {delay: 5s, spread: 10s, code: 1012, reason: restart, timeout: 15s, linger: 1s}
probes: {user_agents: [my probe], from: [loopback, 35.191.0.0/16]}
privacy: {path: off, client: prefix, reason: off}
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

fn parse(text: &str) -> Config {
    config::parse("test.yaml", text, &Overrides::default()).unwrap_or_else(|errors| panic!("{errors}"))
}

fn faults(text: &str, overrides: &Overrides) -> String {
    config::parse("test.yaml", text, overrides).expect_err("this is no configuration").to_string()
}

fn closewatch() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_closewatch"));
    command.env_remove("CLOSEWATCH_LISTEN").env_remove("CLOSEWATCH_UPSTREAM").env_remove("CLOSEWATCH_ADMIN");
    command
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Each file in `tests/config` breaks a rule, and says in lines that begin with `#! ` what it is to be told, and where.
#[test]
fn a_bad_file_is_told_what_is_wrong_and_where() {
    let directory = repository().join("tests/config");
    let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 60, "the table of bad files is gone: {files:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let told = |line: &str| line.strip_prefix("#! ").map(|fault| format!("{}:{fault}\n", file.display()));
        let expected: String = text.lines().filter_map(told).collect();
        assert!(!expected.is_empty(), "{} expects nothing", file.display());
        closewatch().args(["check", "--config"]).arg(&file).assert().code(2).stdout("").stderr(expected);
    }
}

#[test]
fn the_reference_file_is_the_defaults() {
    let reference = fs::read_to_string(repository().join("config.yaml")).unwrap();
    assert_eq!(parse(&reference), parse(MINIMAL));
}

#[test]
fn the_reference_file_names_every_key() {
    let reference = fs::read_to_string(repository().join("config.yaml")).unwrap();
    let everything = config::to_yaml("test.yaml", EVERYTHING, &Overrides::default()).unwrap();
    let keys = everything.lines().filter_map(|line| line.trim_start_matches([' ', '-']).split_once(':'));
    for (key, _) in keys {
        assert!(reference.contains(&format!("{key}:")), "config.yaml does not name {key}");
    }
}

/// Whoever takes the `#` away gets what is promised.
#[test]
fn the_examples_in_the_reference_file_s_comments_hold() {
    let reference = fs::read_to_string(repository().join("config.yaml")).unwrap();
    let lines: Vec<_> = reference.lines().map(|line| line.strip_prefix("#   ").unwrap_or_default()).collect();
    let examples: Vec<_> =
        lines.split(|line| line.is_empty()).filter(|lines| !lines.is_empty()).map(|lines| lines.join("\n")).collect();
    let [listen, upstream, routes] = examples.as_slice() else { panic!("{examples:#?}") };
    assert_eq!(parse(&format!("{MINIMAL}{listen}")).listen.len(), 2);
    // It says no more than the defaults.
    assert_eq!(parse(upstream), parse(MINIMAL));
    assert_eq!(parse(routes).routes.len(), 2);
}

#[test]
fn what_holds_for_the_life_of_the_process_is_known() {
    let fixed = ["workers", "keepalive", "admin.listen", "metrics.listen"];
    let fixed_metrics = ["metrics.codes", "metrics.max_custom_codes", "metrics.buckets"];
    assert_eq!(parse(MINIMAL).fixed_differences(&parse(EVERYTHING)), [&fixed[..], &fixed_metrics].concat());
    let is_fixed = |path: &str| config::keys().iter().find(|key| key.path == path).unwrap().is_fixed();
    assert!(is_fixed("workers") && is_fixed("keepalive.idle") && is_fixed("metrics.buckets.ping_rtt"));
    assert!(!is_fixed("admin") && !is_fixed("admin.control") && !is_fixed("metrics") && !is_fixed("log.level"));
}

#[test]
fn the_defaults_are_those_of_the_interface() {
    let config = parse(MINIMAL);
    let seconds = Duration::from_secs;
    let [listen] = config.listen.as_slice() else { panic!("{:?}", config.listen) };
    assert_eq!((listen.address.to_string().as_str(), listen.proxy_protocol), ("0.0.0.0:8080", ProxyProtocol::Off));
    let [route] = config.routes.as_slice() else { panic!("{:?}", config.routes) };
    assert_eq!((route.name.as_str(), route.upstream.url.as_str()), ("default", "ws://127.0.0.1:9000"));
    assert_eq!(route.upstream.address, UpstreamAddress::Tcp { host: "127.0.0.1".to_owned(), port: 9000 });
    assert_eq!((route.upstream.connect_timeout, route.upstream.proxy_protocol), (seconds(5), false));
    assert!(route.matches("anything", "/at/all"));
    let timeouts = &route.timeouts;
    assert_eq!((config.request_head_timeout, timeouts.handshake), (Some(seconds(10)), Some(seconds(30))));
    assert_eq!((timeouts.idle, timeouts.max_age), (None, None));
    assert_eq!((timeouts.close, timeouts.hang_up), (Some(seconds(65)), Some(seconds(2))));
    assert_eq!((&route.on_server_loss, &route.on_client_loss), (&None, &None));
    let limits = &route.limits;
    assert_eq!((limits.frame_bytes, limits.message_bytes, limits.buffer_bytes), (None, None, 262_144));
    assert_eq!((config.connections, config.connections_per_ip), (None, None));
    assert_eq!((config.request_head_bytes, config.buffer_total_bytes), (65_536, 268_435_456));
    assert_eq!(config.workers, std::thread::available_parallelism().unwrap());
    assert_eq!(config.host, HostHeader::Preserve);
}

#[test]
fn the_defaults_of_what_is_shown_are_those_of_the_interface() {
    let config = parse(MINIMAL);
    let seconds = Duration::from_secs;
    let admin = &config.admin;
    assert_eq!((admin.listen.to_string().as_str(), admin.hosts.len(), admin.control), ("127.0.0.1:9917", 0, false));
    assert_eq!((config.forwarded.mode, config.forwarded.trusted.len()), (ForwardedMode::Append, 0));
    let keepalive = &config.keepalive;
    assert_eq!((keepalive.idle, keepalive.interval, keepalive.probes), (seconds(45), seconds(10), 3));
    let shutdown = &config.shutdown;
    assert_eq!((shutdown.delay, shutdown.spread, shutdown.linger), (seconds(0), seconds(0), seconds(0)));
    assert_eq!((shutdown.timeout, shutdown.code), (seconds(20), CloseCode(1001)));
    assert_eq!(shutdown.reason, "");
    assert_eq!(config.probes.user_agents, ["Blackbox-Exporter", "kube-probe", "ELB-HealthChecker", "GoogleHC"]);
    assert_eq!(config.probes.from, [ProbeSource::Loopback, ProbeSource::Private]);
    let privacy = &config.privacy;
    assert_eq!((privacy.path, privacy.client, privacy.reason), (true, ClientPrivacy::Full, true));
    let metrics = &config.metrics;
    assert_eq!((metrics.codes.len(), metrics.max_custom_codes, metrics.listen), (0, 16, None));
    assert_eq!(metrics.buckets, Buckets::default());
    let log = &config.log;
    assert_eq!((log.format, log.level, log.sessions), (LogFormat::Text, tracing::Level::INFO, LogSessions::Abnormal));
    assert_eq!(log.max_per_second, 200);
}

#[test]
fn every_key_reaches_its_value() {
    let config = parse(EVERYTHING);
    let defaults = parse(MINIMAL);
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.listen[1].proxy_protocol, ProxyProtocol::Require);
    assert_eq!(config.workers.get(), 3);
    assert_ne!(config.admin, defaults.admin);
    assert!(config.admin.control);
    assert_eq!(config.forwarded.mode, ForwardedMode::Replace);
    assert_eq!(config.forwarded.trusted, ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
    assert_eq!(config.host, HostHeader::Upstream);
    assert_eq!(config.request_head_timeout, None);
    assert_eq!(config.keepalive.idle, Duration::from_mins(1));
    assert_eq!((config.connections, config.connections_per_ip), (Some(1000), Some(10)));
    assert_eq!((config.request_head_bytes, config.buffer_total_bytes), (16_384, 1_073_741_824));
    assert_eq!((config.shutdown.delay, config.shutdown.linger), (Duration::from_secs(5), Duration::from_secs(1)));
    assert_eq!((config.shutdown.code, config.shutdown.reason.as_str()), (CloseCode(1012), "restart"));
    assert_eq!(config.probes.from[1], ProbeSource::Network("35.191.0.0/16".parse().unwrap()));
    assert_eq!((config.privacy.path, config.privacy.client), (false, ClientPrivacy::Prefix));
    assert_eq!((config.metrics.codes.as_slice(), config.metrics.max_custom_codes), ([4001, 4003].as_slice(), 0));
    assert_eq!(config.metrics.listen, Some("127.0.0.1:9998".parse().unwrap()));
    let buckets = Buckets {
        session_duration: Some(vec![1.0, 2.0]),
        idle_before_close: Some(vec![1.0, 3.0]),
        close_handshake_duration: Some(vec![1.0, 4.0]),
        handshake_duration: Some(vec![1.0, 5.0]),
        upstream_connect_duration: Some(vec![1.0, 6.0]),
        message_size: Some(vec![1.0, 7.0]),
        ping_rtt: Some(vec![0.5, 8.0]),
    };
    assert_eq!(config.metrics.buckets, buckets);
    assert_eq!((config.log.format, config.log.sessions), (LogFormat::Json, LogSessions::All));
    assert_eq!((config.log.level, config.log.max_per_second), (tracing::Level::DEBUG, 1));
}

#[test]
fn a_route_has_its_own_values_and_else_those_of_all() {
    let config = parse(EVERYTHING);
    let [chat, rest] = config.routes.as_slice() else { panic!("{:?}", config.routes) };
    assert_eq!(chat.upstream.address, UpstreamAddress::Tcp { host: "chat".to_owned(), port: 9001 });
    assert_eq!((chat.upstream.connect_timeout, chat.upstream.proxy_protocol), (Duration::from_secs(1), true));
    assert_eq!(chat.timeouts.hang_up, Some(Duration::from_millis(250)));
    assert_eq!((chat.limits.frame_bytes, chat.limits.buffer_bytes), (Some(1024), 4096));
    let told = |code, reason: &str| Some(CloseText { code: CloseCode(code), reason: reason.to_owned() });
    assert_eq!(chat.on_server_loss, told(1014, "no server: \"chat\""));
    // Its own code, with the reason that holds for all.
    assert_eq!(chat.on_client_loss, told(4002, "gone"));

    assert_eq!(rest.upstream.address, UpstreamAddress::Unix(PathBuf::from("/run/rest.sock")));
    assert_eq!((rest.timeouts.idle, rest.timeouts.close), (Some(Duration::from_hours(1)), None));
    assert_eq!((rest.limits.message_bytes, rest.limits.buffer_bytes), (Some(2_097_152), 65_536));
    assert_eq!((&rest.on_server_loss, &rest.on_client_loss), (&told(1012, ""), &told(1001, "gone")));
}

#[test]
fn a_route_takes_what_matches() {
    let config = parse(EVERYTHING);
    let taker = |host: &str, path: &str| {
        config.routes.iter().find(|route| route.matches(host, path)).map(|route| route.name.as_str())
    };
    assert_eq!(taker("chat.example.com", "/chat"), Some("chat"));
    assert_eq!(taker("Chat.Example.COM:8080", "/chat/room"), Some("chat"));
    assert_eq!(taker("chat.example.com", "/chatter"), Some("rest"));
    assert_eq!(taker("other.example.com", "/chat"), Some("rest"));
}

#[test]
fn a_configuration_filled_in_is_the_same_configuration() {
    for text in [MINIMAL, EVERYTHING] {
        let filled = config::to_yaml("test.yaml", text, &Overrides::default()).unwrap();
        assert_eq!(parse(&filled), parse(text), "{filled}");
        assert_eq!(config::to_yaml("test.yaml", &filled, &Overrides::default()).unwrap(), filled);
    }
}

/// YAML 1.1 has more spellings of booleans and numbers than 1.2, and dates.
#[test]
fn a_configuration_filled_in_says_the_same_to_every_reader_of_yaml() {
    let text = "routes:\n- {name: off, match: {host: '1e3'}, upstream: 'ws://h:1'}\n- {name: 2026-11-21, upstream: \
                'ws://h:1'}\nshutdown: {reason: '123', code: 1012}\nadmin: {control: TRUE}\n";
    let filled = config::to_yaml("test.yaml", text, &Overrides::default()).unwrap();
    let lines: Vec<_> = filled.lines().map(|line| line.trim_start_matches([' ', '-'])).collect();
    let quoted = ["name: \"off\"", "host: \"1e3\"", "name: \"2026-11-21\"", "reason: \"123\"", "idle: \"off\""];
    for line in quoted.iter().chain(&["code: 1012", "control: true", "idle: 45s", "probes: 3", "workers: auto"]) {
        assert!(lines.contains(line), "{line} is not in {filled}");
    }
    assert_eq!(parse(&filled), parse(text));
}

#[test]
fn what_is_written_another_way_means_the_same() {
    let same = [
        "\u{feff}upstream: ws://127.0.0.1:9000\r\n",
        "---\nupstream: 'ws://127.0.0.1:9000'\n...\n",
        "{upstream: {url: 'ws://127.0.0.1:9000'}}",
        "upstream: ws://127.0.0.1:9000\nlisten: {}\ntimeouts:\n  # idle: 5m\nworkers: \"auto\"\n",
        "upstream: ws://127.0.0.1:9000\nlimits: {buffer_bytes: 262144}\nkeepalive: {idle: 45000ms}\n",
    ];
    for text in same {
        assert_eq!(parse(text), parse(MINIMAL), "{text}");
    }
}

#[test]
fn a_flag_wins_over_the_file() {
    let overrides = Overrides {
        listen: Some("127.0.0.1:0".to_owned()),
        upstream: Some("ws://[::1]:9009".to_owned()),
        admin: Some("127.0.0.1:0".to_owned()),
    };
    let file =
        "listen: [0.0.0.0:1, 0.0.0.0:2]\nupstream: {url: 'ws://h:1', connect_timeout: 1s}\nadmin: {control: true}";
    let config = config::parse("test.yaml", file, &overrides).unwrap();
    let [listen] = config.listen.as_slice() else { panic!("{:?}", config.listen) };
    assert_eq!(listen.address.to_string(), "127.0.0.1:0");
    let upstream = &config.routes[0].upstream;
    assert_eq!(upstream.address, UpstreamAddress::Tcp { host: "::1".to_owned(), port: 9009 });
    // What the flag does not say stays.
    assert_eq!(upstream.connect_timeout, Duration::from_secs(1));
    assert_eq!((config.admin.listen.to_string().as_str(), config.admin.control), ("127.0.0.1:0", true));

    let alone = config::parse("test.yaml", "", &overrides).unwrap();
    assert_eq!(alone.routes[0].upstream.url, "ws://[::1]:9009");
}

#[test]
fn a_bad_flag_is_told_by_its_name() {
    let overrides = Overrides {
        listen: Some("8080".to_owned()),
        upstream: Some("wss://chat".to_owned()),
        admin: Some("off".to_owned()),
    };
    let told = faults("workers: none", &overrides);
    let starts: Vec<_> = told.lines().map(|line| line.split(" found").next().unwrap()).collect();
    let expected = [
        "test.yaml:1:10: workers:",
        "--admin (CLOSEWATCH_ADMIN):",
        "--listen (CLOSEWATCH_LISTEN):",
        "--upstream (CLOSEWATCH_UPSTREAM):",
    ];
    assert_eq!(starts, expected, "{told}");
}

#[test]
fn a_flag_can_contradict_the_file() {
    let overrides = Overrides { admin: Some("127.0.0.1:8080".to_owned()), ..Overrides::default() };
    let expected = "--admin (CLOSEWATCH_ADMIN): 127.0.0.1:8080 is taken by listen.address (0.0.0.0:8080); \
                    choose another port";
    assert_eq!(faults(MINIMAL, &overrides), expected);
}

#[test]
fn a_server_from_a_flag_takes_the_place_of_all_routes() {
    let overrides = Overrides { upstream: Some("ws://127.0.0.1:9000".to_owned()), ..Overrides::default() };
    let routes = "routes:\n  - {name: a, upstream: 'ws://h:1'}\n";
    for file in [routes.to_owned(), format!("upstream: ws://h:2\n{routes}")] {
        let config = config::parse("test.yaml", &file, &overrides).unwrap();
        let [route] = config.routes.as_slice() else { panic!("{:?}", config.routes) };
        assert_eq!((route.name.as_str(), route.upstream.url.as_str()), ("default", "ws://127.0.0.1:9000"));
        assert!(config.has_unused_routes);
    }
    assert!(!config::parse("test.yaml", MINIMAL, &overrides).unwrap().has_unused_routes);
    assert!(!parse(EVERYTHING).has_unused_routes);
}

/// Texts made to cost time or memory: each is refused, and told of in a few lines.
#[test]
fn a_hostile_file_is_refused() {
    let many = 20_000;
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
        "\u{0}".repeat(many),
        "\"".to_owned() + &"a".repeat(many),
    ];
    for text in hostile {
        let start: String = text.chars().take(20).collect();
        let told = faults(&text, &Overrides::default());
        assert!(told.lines().count() <= 101, "{start}: {} lines", told.lines().count());
        assert!(told.len() < 100_000, "{start}: {} bytes", told.len());
    }
}

proptest::proptest! {
    /// Whatever a file holds, it is a configuration or a list of faults.
    #[test]
    fn no_text_disturbs_the_parser(
        cut in 0..EVERYTHING.len(),
        rest in 0..EVERYTHING.len(),
        text in r#"[ \n\t\-:,?{}\[\]&*!|>'"%@`#a-z0\PC]{0,20}"#,
    ) {
        let told = |text: &str| match config::parse("test.yaml", text, &Overrides::default()) {
            Ok(_) => true,
            Err(errors) => errors.to_string().starts_with("test.yaml:"),
        };
        proptest::prop_assert!(told(&text));
        let spliced: String = [&EVERYTHING[..cut], &text, &EVERYTHING[rest..]].concat();
        proptest::prop_assert!(told(&spliced));
    }

    #[test]
    fn any_reason_is_written_so_that_it_is_read_again(reason in r"[\PC\n\t\\]{0,30}") {
        let escape = |character: char| format!("\\U{:08X}", u32::from(character));
        let escaped: String = reason.chars().map(escape).collect();
        let text = format!("{MINIMAL}shutdown: {{reason: \"{escaped}\"}}");
        let filled = config::to_yaml("test.yaml", &text, &Overrides::default()).unwrap();
        proptest::prop_assert_eq!(&parse(&filled).shutdown.reason, &reason, "{}", filled);
    }
}

#[test]
fn check_prints_the_configuration_filled_in() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("config.yaml"), MINIMAL).unwrap();
    // Without --config: the file in the working directory.
    let output = closewatch().arg("check").current_dir(&directory).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), [].as_slice()));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(parse(&printed), parse(MINIMAL));
    assert!(printed.contains("\n  close: 65s\n") && printed.contains("\n  url: ws://127.0.0.1:9000\n"), "{printed}");
}

#[test]
fn check_heeds_the_environment_as_run_does() {
    let directory = tempfile::tempdir().unwrap();
    let check = || {
        let mut command = closewatch();
        command.arg("check").current_dir(&directory);
        command
    };
    let output = check().env("CLOSEWATCH_UPSTREAM", "ws://127.0.0.1:9000").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(parse(&String::from_utf8(output.stdout).unwrap()), parse(MINIMAL));
    let refused = check().env("CLOSEWATCH_UPSTREAM", "chat").assert().code(2).stdout("");
    let told = String::from_utf8(refused.get_output().stderr.clone()).unwrap();
    assert!(told.starts_with("--upstream (CLOSEWATCH_UPSTREAM): found \"chat\""), "{told}");
}

#[test]
fn an_empty_variable_is_not_set() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("config.yaml"), MINIMAL).unwrap();
    let variables = ["CLOSEWATCH_LISTEN", "CLOSEWATCH_UPSTREAM", "CLOSEWATCH_ADMIN"].map(|name| (name, ""));
    let checked = closewatch().arg("check").envs(variables).current_dir(&directory).unwrap();
    assert_eq!(parse(&String::from_utf8(checked.stdout).unwrap()), parse(MINIMAL));

    // What is refused is the file, and the address that is asked is the default.
    fs::write(directory.path().join("config.yaml"), "nonsense: 1").unwrap();
    for run in [&["run"][..], &[]] {
        let output = closewatch().args(run).envs(variables).current_dir(&directory).assert().code(2);
        let told = String::from_utf8(output.get_output().stderr.clone()).unwrap();
        assert!(told.lines().all(|line| line.starts_with("config.yaml:1:1: ")), "{told}");
    }
    let asked = closewatch().args(["health"]).env("CLOSEWATCH_ADMIN", "").assert();
    let asked = [asked.get_output().stdout.clone(), asked.get_output().stderr.clone()].concat();
    assert!(String::from_utf8(asked).unwrap().contains("http://127.0.0.1:9917"));
}

#[test]
fn check_tells_of_a_file_that_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    fs::write(file("latin1.yaml"), b"upstream: ws://127.0.0.1:9000\n# \xc3\xbc caf\xe9\n").unwrap();
    fs::write(file("long.yaml"), "# a line\n".repeat(1 << 17)).unwrap();
    let cases = [
        (file("missing.yaml"), ": cannot be read: No such file or directory (os error 2)"),
        (file(""), ": cannot be read: Is a directory (os error 21)"),
        (file("latin1.yaml"), ":2:8: a byte that is no UTF-8; save the file as UTF-8"),
        (file("long.yaml"), ": longer than 1048576 bytes; this is no configuration"),
        (PathBuf::from("/dev/zero"), ": longer than 1048576 bytes; this is no configuration"),
    ];
    for (path, told) in cases {
        let expected = format!("{}{told}\n", path.display());
        closewatch().args(["check", "--config"]).arg(&path).assert().code(2).stdout("").stderr(expected);
    }
    let nothing = "config.yaml: there is no such file here, and so no upstream; name the server by --upstream URL or \
                   CLOSEWATCH_UPSTREAM, or a file by --config FILE\n";
    closewatch().arg("check").current_dir(&directory).assert().code(2).stdout("").stderr(nothing);
}

#[test]
fn check_says_why_it_cannot_print() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("config.yaml");
    fs::write(&file, MINIMAL)?;
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_closewatch"));
    let full = fs::OpenOptions::new().write(true).open("/dev/full")?;
    let output = check.args(["check", "--config"]).arg(&file).stdout(full).output()?;
    let told = "error: cannot write the configuration: No space left on device (os error 28)\n";
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(1), told));
    Ok(())
}

#[test]
fn check_opens_unix_sockets() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("chat.sock");
    let file = directory.path().join("config.yaml");
    fs::write(&file, format!("upstream: unix:{}", socket.display()))?;
    let check = || closewatch().args(["check", "--config"]).arg(&file).assert();
    // Its server may start later.
    check().code(0);
    let listener = UnixListener::bind(&socket)?;
    check().code(0);
    drop(listener);
    fs::remove_file(&socket)?;
    fs::write(&socket, "")?;
    let expected = format!("{}:1:11: upstream: {} is no socket\n", file.display(), socket.display());
    check().code(2).stderr(expected);
    Ok(())
}

#[test]
fn check_leaves_the_addresses_alone() -> io::Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("config.yaml");
    fs::write(&file, format!("upstream: ws://127.0.0.1:9000\nlisten: {}\n", taken.local_addr()?))?;
    closewatch().args(["check", "--config"]).arg(&file).assert().code(0);
    Ok(())
}
