//! Every key of the configuration: its name, how its value is written, its default, and what it must agree with. The
//! keys of a route stand in [`super::routes`].

use std::{collections::HashSet, net::SocketAddr, num::NonZeroUsize, time::Duration};

use tracing::Level;

use super::{
    addresses::Addresses,
    document::{Content, Node},
    error::Fault,
    filled::Mapping,
    format::{
        ADDRESS, BOOLEAN, BUCKET, CLOSE_CODE, CLOSE_REASON, CUSTOM_CODE, HOST_NAME, LARGEST_SIZE, NETWORK,
        PROBE_SOURCE, Parsed, Size, Time, USER_AGENT, Whole, Words, auto_or, off_or,
    },
    routes::{self, Common},
    section::{Faults, Section},
    types::{
        Admin, Buckets, ClientPrivacy, Config, Forwarded, ForwardedMode, HostHeader, Keepalive, Listen, Log, LogFormat,
        LogSessions, Metrics, Privacy, ProbeSource, Probes, ProxyProtocol, SessionLimits, Shutdown, Timeouts,
    },
};
use crate::websocket::close::CloseCode;

/// What a document without fault says.
pub(super) struct Reading {
    pub(super) config: Config,
    /// The document with its defaults filled in.
    pub(super) filled: Mapping,
    pub(super) addresses: Addresses,
}

/// Reads a document, or finds everything that is wrong with it.
pub(super) fn read(root: &Node) -> Result<Reading, Vec<Fault>> {
    let faults = Faults::default();
    let mut addresses = Addresses::default();
    let (config, filled) = Section::read_root(root, &faults, |root| config(root, &mut addresses));
    let mut faults = faults.into_inner();
    faults.extend(addresses.faults());
    if faults.is_empty() { Ok(Reading { config, filled, addresses }) } else { Err(faults) }
}

const MOST_LISTENERS: usize = 64;
const MOST_WORKERS: usize = 1024;
/// More than any kernel has descriptors for.
const MOST_CONNECTIONS: usize = 100_000_000;
/// There are no more codes from 3000 to 4999.
const MOST_CUSTOM_CODES: usize = 2000;
/// Each is a series, for each label value of its family.
const MOST_BUCKETS: usize = 50;
/// hyper's read buffer is never smaller than the lower bound.
const REQUEST_HEAD: Size = Size(8 << 10..=16 << 20);

fn config(root: &mut Section<'_>, addresses: &mut Addresses) -> Config {
    let listen = root.sections("listen", Some("address"), MOST_LISTENERS, |section| listener(section, addresses));
    let (request_head_timeout, timeouts) = root.section("timeouts", timeouts);
    let (limits, session_limits) = root.section("limits", limits);
    let common = Common {
        timeouts,
        limits: session_limits,
        buffer_total_bytes: limits.buffer_total_bytes,
        on_server_loss: routes::loss(root, "on_server_loss", None),
        on_client_loss: routes::loss(root, "on_client_loss", None),
    };
    Config {
        listen,
        routes: routes::routes(root, &common, addresses),
        workers: root.value("workers", None, &auto_or(Whole(1..=MOST_WORKERS))).map_or_else(cpus, at_least_one),
        admin: root.section("admin", |section| admin(section, addresses)),
        forwarded: root.section("forwarded", forwarded),
        host: root.value(
            "host",
            HostHeader::Preserve,
            &Words(&[("preserve", HostHeader::Preserve), ("upstream", HostHeader::Upstream)]),
        ),
        request_head_timeout,
        keepalive: root.section("keepalive", keepalive),
        connections: limits.connections,
        connections_per_ip: limits.connections_per_ip,
        request_head_bytes: limits.request_head_bytes,
        buffer_total_bytes: limits.buffer_total_bytes,
        shutdown: root.section("shutdown", shutdown),
        probes: root.section("probes", probes),
        privacy: root.section("privacy", privacy),
        metrics: root.section("metrics", |section| metrics(section, addresses)),
        log: root.section("log", log),
    }
}

/// The CPUs that the process may use: cgroup quota and affinity are honoured.
fn cpus() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn at_least_one(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
}

fn listener(section: &mut Section<'_>, addresses: &mut Addresses) -> Listen {
    let address = section.value("address", SocketAddr::from(([0, 0, 0, 0], 8080)), &ADDRESS);
    if section.is_sound() {
        addresses.claim(section.spot("address"), address);
    }
    section.known("tls");
    let proxy_protocol = section.value(
        "proxy_protocol",
        ProxyProtocol::Off,
        &Words(&[("off", ProxyProtocol::Off), ("accept", ProxyProtocol::Accept), ("require", ProxyProtocol::Require)]),
    );
    Listen { address, proxy_protocol }
}

fn timeouts(section: &mut Section<'_>) -> (Option<Duration>, Timeouts) {
    let request_head = section.value("request_head", Some(Duration::from_secs(10)), &off_or(Time::TIMEOUT));
    let default = Timeouts {
        handshake: Some(Duration::from_secs(30)),
        idle: None,
        max_age: None,
        // Chromium itself waits 60 s.
        close: Some(Duration::from_secs(65)),
        hang_up: Some(Duration::from_secs(2)),
    };
    (request_head, routes::timeouts(section, &default))
}

/// The limits that hold for all routes together.
struct ProcessLimits {
    connections: Option<usize>,
    connections_per_ip: Option<usize>,
    request_head_bytes: usize,
    buffer_total_bytes: u64,
}

fn limits(section: &mut Section<'_>) -> (ProcessLimits, SessionLimits) {
    let count = || Whole(1..=MOST_CONNECTIONS);
    let process = ProcessLimits {
        connections: section.value("connections", None, &auto_or(count())),
        connections_per_ip: section.value("connections_per_ip", None, &off_or(count())),
        request_head_bytes: routes::memory(section.value("request_head_bytes", 64 << 10, &REQUEST_HEAD)),
        buffer_total_bytes: section.value("buffer_total_bytes", 256 << 20, &Size(4 << 10..=LARGEST_SIZE)),
    };
    let default = SessionLimits { frame_bytes: None, message_bytes: None, buffer_bytes: 256 << 10 };
    let session = routes::limits(section, &default, process.buffer_total_bytes);
    (process, session)
}

fn admin(section: &mut Section<'_>, addresses: &mut Addresses) -> Admin {
    let listen = section.value("listen", SocketAddr::from(([127, 0, 0, 1], 9917)), &ADDRESS);
    if section.is_sound() {
        addresses.claim(section.spot("listen"), listen);
    }
    Admin {
        listen,
        hosts: section.list("hosts", Vec::new(), &HOST_NAME),
        control: section.value("control", false, &BOOLEAN),
    }
}

fn forwarded(section: &mut Section<'_>) -> Forwarded {
    let modes =
        Words(&[("append", ForwardedMode::Append), ("replace", ForwardedMode::Replace), ("off", ForwardedMode::Off)]);
    Forwarded {
        mode: section.value("mode", ForwardedMode::Append, &modes),
        trusted: section.list("trusted", Vec::new(), &NETWORK),
    }
}

fn keepalive(section: &mut Section<'_>) -> Keepalive {
    Keepalive {
        idle: section.value("idle", Duration::from_secs(45), &Time::KEEPALIVE),
        interval: section.value("interval", Duration::from_secs(10), &Time::KEEPALIVE),
        // The kernel's bounds of TCP_KEEPCNT.
        probes: section.value("probes", 3, &Whole(1..=127)),
    }
}

fn shutdown(section: &mut Section<'_>) -> Shutdown {
    let shutdown = Shutdown {
        delay: section.value("delay", Duration::ZERO, &Time::ANY),
        spread: section.value("spread", Duration::ZERO, &Time::ANY),
        code: section.value("code", CloseCode::GOING_AWAY, &CLOSE_CODE),
        reason: section.value("reason", String::new(), &CLOSE_REASON),
        timeout: section.value("timeout", Duration::from_secs(20), &Time::TIMEOUT),
        linger: section.value("linger", Duration::ZERO, &Time::ANY),
    };
    if section.is_sound() && shutdown.spread >= shutdown.timeout {
        let key = if section.has("spread") { "spread" } else { "timeout" };
        section.fault(key, SPREAD_TOO_LONG);
    }
    shutdown
}

const SPREAD_TOO_LONG: &str =
    "spread must be less than timeout, or sessions are cut before they are told; make spread shorter or timeout longer";

fn probes(section: &mut Section<'_>) -> Probes {
    let user_agents = ["Blackbox-Exporter", "kube-probe", "ELB-HealthChecker", "GoogleHC"];
    Probes {
        user_agents: section.list("user_agents", user_agents.map(str::to_owned).to_vec(), &USER_AGENT),
        from: section.list("from", vec![ProbeSource::Loopback, ProbeSource::Private], &PROBE_SOURCE),
    }
}

fn privacy(section: &mut Section<'_>) -> Privacy {
    let shown = Words(&[("full", true), ("off", false)]);
    let clients =
        Words(&[("full", ClientPrivacy::Full), ("prefix", ClientPrivacy::Prefix), ("off", ClientPrivacy::Off)]);
    Privacy {
        path: section.value("path", true, &shown),
        client: section.value("client", ClientPrivacy::Full, &clients),
        reason: section.value("reason", true, &shown),
    }
}

fn metrics(section: &mut Section<'_>, addresses: &mut Addresses) -> Metrics {
    let codes = section.list("codes", Vec::new(), &CUSTOM_CODE);
    if section.is_sound() {
        refuse_repeated_codes(section, &codes);
    }
    let max_custom_codes = section.value("max_custom_codes", 16, &Whole(0..=MOST_CUSTOM_CODES));
    let listen = section.value("listen", None, &off_or(ADDRESS));
    if let Some(address) = listen {
        addresses.claim(section.spot("listen"), address);
    }
    Metrics { codes, max_custom_codes, listen, buckets: section.section("buckets", buckets) }
}

fn refuse_repeated_codes(section: &Section<'_>, codes: &[u16]) {
    let mut seen = HashSet::new();
    for (index, code) in codes.iter().enumerate().filter(|(_, code)| !seen.insert(**code)) {
        section.fault_in_list("codes", index, format!("{code} stands twice; take one of them out"));
    }
}

fn buckets(section: &mut Section<'_>) -> Buckets {
    Buckets {
        session_duration: bounds(section, "session_duration"),
        idle_before_close: bounds(section, "idle_before_close"),
        close_handshake_duration: bounds(section, "close_handshake_duration"),
        handshake_duration: bounds(section, "handshake_duration"),
        upstream_connect_duration: bounds(section, "upstream_connect_duration"),
        message_size: bounds(section, "message_size"),
        ping_rtt: bounds(section, "ping_rtt"),
    }
}

/// The bounds of one histogram.
fn bounds(section: &mut Section<'_>, key: &'static str) -> Option<Vec<f64>> {
    const AUTO: Parsed<()> = Parsed {
        allowed: "auto, or a list of ascending numbers such as [0.1, 1, 10]",
        parse: |text| if text == "auto" { Ok(()) } else { Err(None) },
        write: |()| "auto".to_owned(),
    };
    if !matches!(section.content(key), Some(Content::List(_))) {
        section.value(key, (), &AUTO);
        return None;
    }
    let bounds = section.list(key, Vec::new(), &BUCKET);
    if section.is_sound() {
        refuse_unsound_bounds(section, key, &bounds);
    }
    Some(bounds)
}

fn refuse_unsound_bounds(section: &Section<'_>, key: &str, bounds: &[f64]) {
    if !(1..=MOST_BUCKETS).contains(&bounds.len()) {
        let found = bounds.len();
        section
            .fault(key, format!("found {found} bounds, allowed: 1 to {MOST_BUCKETS}; auto leaves them to closewatch"));
    }
    for (index, pair) in bounds.windows(2).enumerate().filter(|(_, pair)| pair[0] >= pair[1]) {
        let message = format!("{} does not ascend from {}; sort the bounds, each once", pair[1], pair[0]);
        section.fault_in_list(key, index + 1, message);
    }
}

fn log(section: &mut Section<'_>) -> Log {
    let levels = Words(&[
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ]);
    let sessions = Words(&[("all", LogSessions::All), ("abnormal", LogSessions::Abnormal), ("off", LogSessions::Off)]);
    Log {
        format: section.value(
            "format",
            LogFormat::Text,
            &Words(&[("text", LogFormat::Text), ("json", LogFormat::Json)]),
        ),
        level: section.value("level", Level::INFO, &levels),
        sessions: section.value("sessions", LogSessions::Abnormal, &sessions),
        max_per_second: section.value("max_per_second", 200, &Whole(1..=1_000_000)),
    }
}
