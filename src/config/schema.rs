//! Every key of the configuration: its name, what it means, how its value is written, its default, and what it must
//! agree with. The keys of a route stand in `routes`.

use std::{collections::HashSet, net::SocketAddr, num::NonZeroUsize, time::Duration};

use tracing::Level;

use super::{
    addresses::Addresses,
    document::{Content, Node},
    error::Fault,
    filled::Mapping,
    format::{Boolean, LARGEST_SIZE, Size, Time, Whole, Words, auto_or, off_or},
    grammars::{
        ADDRESS, BUCKET, CLOSE_CODE, CLOSE_REASON, CUSTOM_CODE, HOST_NAME, NETWORK, PROBE_SOURCE, Parsed, USER_AGENT,
    },
    key::KeyDescription,
    routes::{self, Common, LIMITS, ON_CLIENT_LOSS, ON_SERVER_LOSS, TIMEOUTS},
    section::{Notes, Section},
    types::{
        Admin, Buckets, ClientPrivacy, Config, Forwarded, ForwardedMode, HostHeader, Keepalive, Listen, Log, LogFormat,
        LogSessions, Metrics, Privacy, ProbeSource, Probes, ProxyProtocol, SessionLimits, Shutdown, Timeouts,
    },
};
use crate::websocket::close_code::CloseCode;

/// What a document without fault says.
pub(super) struct Reading {
    pub(super) config: Config,
    /// The document with its defaults filled in.
    pub(super) filled: Mapping,
    pub(super) addresses: Addresses,
}

/// Reads a document, or finds everything that is wrong with it.
pub(super) fn read(root: &Node) -> Result<Reading, Vec<Fault>> {
    let notes = Notes::default();
    let mut addresses = Addresses::default();
    let (config, filled) = Section::read_root(root, &notes, |root| config(root, &mut addresses));
    let mut faults = notes.into_faults();
    faults.extend(addresses.faults());
    if faults.is_empty() { Ok(Reading { config, filled, addresses }) } else { Err(faults) }
}

/// The keys that are asked for when a document is read, whatever is wrong with it.
pub(super) fn keys(root: &Node) -> Vec<KeyDescription> {
    let notes = Notes::with_keys();
    Section::read_root(root, &notes, |root| config(root, &mut Addresses::default()));
    notes.into_keys()
}

const MOST_LISTENERS: usize = 64;
const MOST_WORKERS: NonZeroUsize = NonZeroUsize::new(1024).expect("not 0");
/// More than any kernel has descriptors for.
const MOST_CONNECTIONS: usize = 100_000_000;
/// There are no more codes from 3000 to 4999.
const MOST_CUSTOM_CODES: usize = 2000;
/// Each is a series, for each label value of its family.
const MOST_BUCKETS: usize = 50;
/// hyper's read buffer is never smaller than the lower bound.
const REQUEST_HEAD: Size = Size(8 << 10..=16 << 20);

fn config(root: &mut Section<'_>, addresses: &mut Addresses) -> Config {
    let listen =
        root.key("listen", LISTEN).sections(Some("address"), MOST_LISTENERS, |section| listener(section, addresses));
    let (request_head_timeout, timeouts) = root.key("timeouts", TIMEOUTS).section(timeouts);
    let (limits, session_limits) = root.key("limits", LIMITS).section(limits);
    let common = Common {
        timeouts,
        limits: session_limits,
        buffer_total_bytes: limits.buffer_total_bytes,
        on_server_loss: routes::loss(root, "on_server_loss", ON_SERVER_LOSS, None),
        on_client_loss: routes::loss(root, "on_client_loss", ON_CLIENT_LOSS, None),
    };
    Config {
        listen,
        routes: routes::routes(root, &common, addresses),
        has_unused_routes: false,
        workers: workers(root),
        admin: root.key("admin", ADMIN).section(|section| admin(section, addresses)),
        forwarded: root.key("forwarded", FORWARDED).section(forwarded),
        host: host(root),
        request_head_timeout,
        keepalive: root.key("keepalive", KEEPALIVE).section(keepalive),
        connections: limits.connections,
        connections_per_ip: limits.connections_per_ip,
        request_head_bytes: limits.request_head_bytes,
        // Nobody gets a configuration with a bad one.
        buffer_total_bytes: limits.buffer_total_bytes.unwrap_or_default(),
        shutdown: root.key("shutdown", SHUTDOWN).section(shutdown),
        probes: root.key("probes", PROBES).section(probes),
        privacy: root.key("privacy", PRIVACY).section(privacy),
        metrics: root.key("metrics", METRICS).section(|section| metrics(section, addresses)),
        log: root.key("log", LOG).section(log),
    }
}

fn workers(root: &mut Section<'_>) -> NonZeroUsize {
    let workers = root
        .key(
            "workers",
            "Threads that carry sessions. `auto`: the CPUs that the process may use, by cgroup limit and affinity.",
        )
        .value(None, &auto_or(Whole(NonZeroUsize::MIN..=MOST_WORKERS)));
    // Honours cgroup quota and affinity.
    workers.unwrap_or_else(|| std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
}

fn host(root: &mut Section<'_>) -> HostHeader {
    root.key(
        "host",
        "The Host header that the service gets: the client's (`preserve`), or the one of its URL (`upstream`).",
    )
    .value(HostHeader::Preserve, &Words(&[("preserve", HostHeader::Preserve), ("upstream", HostHeader::Upstream)]))
}

const LISTEN: &str = "Where clients connect.";

fn listener(section: &mut Section<'_>, addresses: &mut Addresses) -> Listen {
    let address = section
        .key("address", "The address. With port 0 the kernel chooses the port.")
        .value(SocketAddr::from(([0, 0, 0, 0], 8080)), &ADDRESS);
    if section.is_sound("address") {
        addresses.claim(section.spot("address"), address);
    }
    section.key("tls", "TLS toward clients").not_yet();
    let modes =
        Words(&[("off", ProxyProtocol::Off), ("accept", ProxyProtocol::Accept), ("require", ProxyProtocol::Require)]);
    let proxy_protocol = section
        .key(
            "proxy_protocol",
            "Whether connections begin with a PROXY protocol header: never, perhaps (`accept`), always (`require`). \
             Whoever can reach such an address can claim any client address.",
        )
        .value(ProxyProtocol::Off, &modes);
    Listen { address, proxy_protocol }
}

fn timeouts(section: &mut Section<'_>) -> (Option<Duration>, Timeouts) {
    let request_head = section
        .key("request_head", "For a client to finish its request head. Beyond, its connection is closed.")
        .value(Some(Duration::from_secs(10)), &off_or(Time::TIMEOUT));
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
    /// `None` where it is bad.
    buffer_total_bytes: Option<u64>,
}

fn limits(section: &mut Section<'_>) -> (ProcessLimits, SessionLimits) {
    let process = process_limits(section);
    let default = SessionLimits { frame_bytes: None, message_bytes: None, buffer_bytes: 256 << 10 };
    let session = routes::limits(section, &default, process.buffer_total_bytes);
    if !section.has("buffer_bytes") {
        routes::refuse_large_buffer(section, "buffer_total_bytes", &session, process.buffer_total_bytes);
    }
    (process, session)
}

fn process_limits(section: &mut Section<'_>) -> ProcessLimits {
    let count = || Whole(1..=MOST_CONNECTIONS);
    ProcessLimits {
        connections: section
            .key(
                "connections",
                "Client connections at once. What is beyond is closed at once, and counted. `auto`: what the open-file \
                 limit allows, of which the soft one is raised to the hard one.",
            )
            .value(None, &auto_or(count())),
        connections_per_ip: section
            .key("connections_per_ip", "The same for each client address.")
            .value(None, &off_or(count())),
        request_head_bytes: routes::memory(
            section
                .key("request_head_bytes", "The longest request head. What is longer is answered by a 431.")
                .value(64 << 10, &REQUEST_HEAD),
        ),
        buffer_total_bytes: buffer_total_bytes(section),
    }
}

fn buffer_total_bytes(section: &mut Section<'_>) -> Option<u64> {
    let total = section
        .key(
            "buffer_total_bytes",
            "What is held for all sessions together. Beyond, blocked directions are read in small pieces.",
        )
        .value(256 << 20, &Size(4 << 10..=LARGEST_SIZE));
    section.is_sound("buffer_total_bytes").then_some(total)
}

const ADMIN: &str = "The page, the API, the metrics and health. They show client addresses, so only this machine sees \
                     them by default.";

fn admin(section: &mut Section<'_>, addresses: &mut Addresses) -> Admin {
    let listen = section.key("listen", "Its address.").value(SocketAddr::from(([127, 0, 0, 1], 9917)), &ADDRESS);
    if section.is_sound("listen") {
        addresses.claim(section.spot("listen"), listen);
    }
    Admin {
        listen,
        hosts: section
            .key("hosts", "Names under which it may be controlled, besides IP addresses and `localhost`.")
            .list(Vec::new(), &HOST_NAME),
        control: section
            .key("control", "Allows the endpoints that change something: `/-/reload`, `/-/drain`, `/-/close`.")
            .value(false, &Boolean),
    }
}

const FORWARDED: &str = "What becomes of `X-Forwarded-For`, `-Proto` and `-Host`.";

fn forwarded(section: &mut Section<'_>) -> Forwarded {
    let modes =
        Words(&[("append", ForwardedMode::Append), ("replace", ForwardedMode::Replace), ("off", ForwardedMode::Off)]);
    Forwarded {
        mode: section
            .key(
                "mode",
                "`append`: the first grows by the client's address, the others are set where absent. `replace`: what \
                 the client sent is replaced. `off`: what the client sent passes.",
            )
            .value(ForwardedMode::Append, &modes),
        trusted: section
            .key(
                "trusted",
                "Networks whose headers are believed. Empty: everyone's are. Else those of other clients are replaced.",
            )
            .list(Vec::new(), &NETWORK),
    }
}

const KEEPALIVE: &str = "TCP keepalive on both connections of a session. A link is dead after `idle` + `probes` * \
                         `interval` without an answer, or with data unacknowledged for as long. A live peer that reads \
                         nothing is not dead.";

fn keepalive(section: &mut Section<'_>) -> Keepalive {
    Keepalive {
        idle: section.key("idle", "Silence before the first probe.").value(Duration::from_secs(45), &Time::KEEPALIVE),
        interval: section.key("interval", "Between two probes.").value(Duration::from_secs(10), &Time::KEEPALIVE),
        // The kernel's bounds of TCP_KEEPCNT.
        probes: section.key("probes", "Unanswered probes that make a link dead.").value(3, &Whole(1..=127)),
    }
}

const SHUTDOWN: &str = "A drain, on SIGTERM. In all it must take less than the grace period (30 s in Kubernetes).";

fn shutdown(section: &mut Section<'_>) -> Shutdown {
    let shutdown = Shutdown {
        delay: section
            .key("delay", "First closewatch is no longer ready for so long, but all goes on.")
            .value(Duration::ZERO, &Time::ANY),
        spread: section
            .key("spread", "The time over which the sessions' Close frames are spread; less than `timeout`.")
            .value(Duration::ZERO, &Time::ANY),
        code: section.key("code", "The code of these Close frames.").value(CloseCode::GOING_AWAY, &CLOSE_CODE),
        reason: section.key("reason", "Their reason.").value(String::new(), &CLOSE_REASON),
        timeout: section
            .key("timeout", "What is left so long after `delay` is cut.")
            .value(Duration::from_secs(20), &Time::TIMEOUT),
        linger: section
            .key("linger", "How long the process stays after the last session, for a last scrape.")
            .value(Duration::ZERO, &Time::ANY),
    };
    if section.is_sound("spread") && section.is_sound("timeout") && shutdown.spread >= shutdown.timeout {
        let key = if section.has("spread") { "spread" } else { "timeout" };
        section.fault(key, SPREAD_TOO_LONG);
    }
    shutdown
}

const SPREAD_TOO_LONG: &str =
    "spread must be less than timeout, or sessions are cut before they are told; make spread shorter or timeout longer";

const PROBES: &str = "Health checkers' sessions, which are told as route `probe`: those with one of `user_agents` from \
                      one of `from`.";

fn probes(section: &mut Section<'_>) -> Probes {
    let user_agents = ["Blackbox-Exporter", "kube-probe", "ELB-HealthChecker", "GoogleHC"];
    Probes {
        user_agents: section
            .key("user_agents", "What the User-Agent header contains. Empty: there is no route `probe`.")
            .list(user_agents.map(str::to_owned).to_vec(), &USER_AGENT),
        from: section
            .key("from", "Where they come from. `private` is RFC 1918, RFC 4193 and link-local addresses.")
            .list(vec![ProbeSource::Loopback, ProbeSource::Private], &PROBE_SOURCE),
    }
}

const PRIVACY: &str = "What of a session is written down, in log, records and page. `off`: null stands there.";

fn privacy(section: &mut Section<'_>) -> Privacy {
    let shown = Words(&[("full", true), ("off", false)]);
    let clients =
        Words(&[("full", ClientPrivacy::Full), ("prefix", ClientPrivacy::Prefix), ("off", ClientPrivacy::Off)]);
    Privacy {
        path: section.key("path", "The request's path, always without its query.").value(true, &shown),
        client: section
            .key("client", "The client's address. `prefix`: its /24 (IPv4) or /48 (IPv6).")
            .value(ClientPrivacy::Full, &clients),
        reason: section.key("reason", "The reasons in Close frames.").value(true, &shown),
    }
}

const METRICS: &str = "What shapes `/metrics`.";

fn metrics(section: &mut Section<'_>, addresses: &mut Addresses) -> Metrics {
    let codes = section
        .key("codes", "Codes that always have series of their own, such as [4001, 4003].")
        .items(&[], &CUSTOM_CODE);
    refuse_repeated_codes(section, &codes);
    let codes = codes.into_iter().flatten().collect();
    let max_custom_codes = section
        .key(
            "max_custom_codes",
            "How many other codes from 3000 on get series of their own in the life of the process. Those after them \
             are folded into `3xxx` and `4xxx`.",
        )
        .value(16, &Whole(0..=MOST_CUSTOM_CODES));
    let listen = section
        .key("listen", "A second address with nothing but `/metrics` and health, for scrapers outside.")
        .value(None, &off_or(ADDRESS));
    if let Some(address) = listen {
        addresses.claim(section.spot("listen"), address);
    }
    let buckets = section.key("buckets", BUCKETS).section(buckets);
    Metrics { codes, max_custom_codes, listen, buckets }
}

fn refuse_repeated_codes(section: &Section<'_>, codes: &[Option<u16>]) {
    let mut seen = HashSet::new();
    let codes = codes.iter().enumerate().filter_map(|(index, code)| Some((index, (*code)?)));
    for (index, code) in codes.filter(|(_, code)| !seen.insert(*code)) {
        section.fault_in_list("codes", index, format!("{code} stands twice; take one of them out"));
    }
}

const BUCKETS: &str = "The upper bounds of the histograms' buckets, in seconds or bytes, 50 of each at most. `auto`: \
                       closewatch's own.";

fn buckets(section: &mut Section<'_>) -> Buckets {
    Buckets {
        session_duration: bounds(section, "session_duration", "Of `websocket_session_duration_seconds`."),
        idle_before_close: bounds(section, "idle_before_close", "Of `websocket_idle_before_close_seconds`."),
        close_handshake_duration: bounds(
            section,
            "close_handshake_duration",
            "Of `websocket_close_handshake_duration_seconds`.",
        ),
        handshake_duration: bounds(section, "handshake_duration", "Of `websocket_handshake_duration_seconds`."),
        upstream_connect_duration: bounds(
            section,
            "upstream_connect_duration",
            "Of `websocket_upstream_connect_duration_seconds`.",
        ),
        message_size: bounds(section, "message_size", "Of `websocket_message_size_bytes`."),
        ping_rtt: bounds(section, "ping_rtt", "Of `websocket_ping_rtt_seconds`."),
    }
}

/// The bounds of one histogram.
fn bounds(section: &mut Section<'_>, key: &'static str, meaning: &'static str) -> Option<Vec<f64>> {
    const AUTO: Parsed<()> = Parsed {
        allowed: "auto, or a list of ascending numbers such as [0.1, 1, 10]",
        parse: |text| if text == "auto" { Ok(()) } else { Err(None) },
        write: |()| "auto".to_owned(),
    };
    let Some(Content::List(items)) = section.content(key) else {
        section.key(key, meaning).value((), &AUTO);
        return None;
    };
    if !(1..=MOST_BUCKETS).contains(&items.len()) {
        let found = items.len();
        section.fault(key, format!("found {found} bounds, allowed: 1 to {MOST_BUCKETS}; or auto, closewatch's own"));
    }
    let bounds = section.key(key, meaning).items(&[], &BUCKET);
    refuse_descent(section, key, &bounds);
    Some(bounds.into_iter().flatten().collect())
}

fn refuse_descent(section: &Section<'_>, key: &str, bounds: &[Option<f64>]) {
    let mut previous: Option<f64> = None;
    for (index, bound) in bounds.iter().enumerate().filter_map(|(index, bound)| Some((index, (*bound)?))) {
        if let Some(before) = previous.filter(|before| *before >= bound) {
            let message = format!("{bound} does not ascend from {before}; sort the bounds, each once");
            section.fault_in_list(key, index, message);
        }
        previous = Some(bound);
    }
}

const LOG: &str = "The log, on standard output.";

fn log(section: &mut Section<'_>) -> Log {
    let formats = Words(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    let levels = Words(&[
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ]);
    let sessions = Words(&[("all", LogSessions::All), ("abnormal", LogSessions::Abnormal), ("off", LogSessions::Off)]);
    Log {
        format: section.key("format", "A line is a sentence, or a JSON object.").value(LogFormat::Text, &formats),
        level: section.key("level", "The least severe level that is written.").value(Level::INFO, &levels),
        sessions: section
            .key("sessions", "Which sessions' ends are written: every one, those that were not clean, none.")
            .value(LogSessions::Abnormal, &sessions),
        max_per_second: section
            .key("max_per_second", "Lines a second. What is beyond is dropped and counted.")
            .value(200, &Whole(1..=1_000_000)),
    }
}
