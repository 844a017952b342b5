//! The configuration as the rest of closewatch uses it: every value parsed, every default filled in, what is set for
//! all routes merged into each of them.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use tracing::Level;

use crate::websocket::close_code::{CloseCode, CloseText};

/// A whole configuration: valid, and free of contradictions.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where clients are taken, at least one address.
    pub listen: Vec<Listen>,
    /// The kinds of traffic, at least one; the first that matches wins.
    pub routes: Vec<Route>,
    /// The file has routes in whose place a flag or the environment puts one server.
    pub has_unused_routes: bool,
    /// Threads of the data plane.
    pub workers: NonZeroUsize,
    /// Page, API and metrics.
    pub admin: Admin,
    /// What becomes of the `X-Forwarded-*` headers.
    pub forwarded: Forwarded,
    /// The Host header that the server gets.
    pub host: HostHeader,
    /// How long a client may take for its request head; `None`: for ever.
    pub request_head_timeout: Option<Duration>,
    /// TCP keepalive on both legs.
    pub keepalive: Keepalive,
    /// Most client connections at once; `None`: what the open-file limit allows.
    pub connections: Option<usize>,
    /// Most connections at once from one client address; `None`: no limit.
    pub connections_per_ip: Option<usize>,
    /// Longest request head in bytes.
    pub request_head_bytes: usize,
    /// Bytes held for all slow readers together before blocked directions are read in small pieces.
    pub buffer_total_bytes: u64,
    /// How a drain goes.
    pub shutdown: Shutdown,
    /// What tells a health checker's session.
    pub probes: Probes,
    /// What of a session is not written down.
    pub privacy: Privacy,
    /// What shapes the metrics.
    pub metrics: Metrics,
    /// The log.
    pub log: Log,
}

/// A public address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The address; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// Whether connections begin with a PROXY protocol header.
    pub proxy_protocol: ProxyProtocol,
}

/// Whether a client connection begins with a PROXY protocol header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Never: the bytes are the client's.
    Off,
    /// It may.
    Accept,
    /// It must.
    Require,
}

/// A kind of traffic: which requests it is, where they go, what holds for their sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The value of the label `route`.
    pub name: String,
    /// Which requests take this route.
    pub matcher: Match,
    /// The server.
    pub upstream: Upstream,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How large things may be.
    pub limits: SessionLimits,
    /// The Close frame that tells the client of the server's loss; `None`: the bare loss is passed on.
    pub on_server_loss: Option<CloseText>,
    /// The Close frame that tells the server of the client's loss; `None`: the bare loss is passed on.
    pub on_client_loss: Option<CloseText>,
}

impl Route {
    /// Whether a request for `path` (without its query) on `host` (a Host header, with or without port) takes this
    /// route. Hosts are compared without case, path prefixes by whole segments: `/chat` is no prefix of `/chatter`.
    pub fn matches(&self, host: &str, path: &str) -> bool {
        let host_fits = self.matcher.host.as_deref().is_none_or(|name| name.eq_ignore_ascii_case(without_port(host)));
        let path_fits = self.matcher.path_prefix.as_deref().is_none_or(|prefix| is_path_prefix(prefix, path));
        host_fits && path_fits
    }
}

/// Which requests take a route: all that fit everything given here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// The host name asked for, without port.
    pub host: Option<String>,
    /// What the path begins with, in whole segments.
    pub path_prefix: Option<String>,
}

impl Match {
    /// Whether every request that fits `other` fits this too.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let host_covers = match (&self.host, &other.host) {
            (None, _) => true,
            (Some(mine), Some(theirs)) => mine.eq_ignore_ascii_case(theirs),
            (Some(_), None) => false,
        };
        let path_covers = match (&self.path_prefix, &other.path_prefix) {
            (None, _) => true,
            (Some(mine), Some(theirs)) => is_path_prefix(mine, theirs),
            (Some(mine), None) => mine == "/",
        };
        host_covers && path_covers
    }
}

/// The server behind closewatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The URL as it was configured.
    pub url: String,
    /// Where to connect.
    pub address: UpstreamAddress,
    /// The Host header in mode [`HostHeader::Upstream`]; `localhost` for a Unix socket.
    pub authority: String,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// Whether a PROXY protocol header, version 2, is sent first.
    pub proxy_protocol: bool,
}

/// Where a server is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamAddress {
    /// Over TCP.
    Tcp {
        /// A name, an IPv4 address, or an IPv6 address without brackets.
        host: String,
        /// The port, never 0.
        port: u16,
    },
    /// Over a Unix socket, by its absolute path.
    Unix(PathBuf),
}

/// How long the parts of a session may take; `None`: for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// The server's answer to the upgrade.
    pub handshake: Option<Duration>,
    /// No byte in either direction.
    pub idle: Option<Duration>,
    /// A session's age.
    pub max_age: Option<Duration>,
    /// After the first Close frame, for the answer.
    pub close: Option<Duration>,
    /// After both Close frames, for the endpoints to hang up.
    pub hang_up: Option<Duration>,
}

/// How large the parts of a session may be, in bytes; `None`: without limit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "the names of the configuration's keys")]
pub struct SessionLimits {
    /// A frame's payload.
    pub frame_bytes: Option<u64>,
    /// A message's payload on the wire.
    pub message_bytes: Option<u64>,
    /// What is held for one direction while its reader is slow.
    pub buffer_bytes: usize,
}

/// TCP keepalive: a silent link is dead after `idle + probes * interval`. Whole seconds, as the kernel takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Between two probes.
    pub interval: Duration,
    /// Unanswered probes that make a link dead.
    pub probes: u32,
}

/// What becomes of the `X-Forwarded-*` headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// What is done to them.
    pub mode: ForwardedMode,
    /// Networks whose headers are believed; empty: everyone's are.
    pub trusted: Vec<IpNet>,
}

/// What is done to the `X-Forwarded-*` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedMode {
    /// X-Forwarded-For grows, the others are set where absent.
    Append,
    /// What the client sent is replaced.
    Replace,
    /// What the client sent passes.
    Off,
}

/// The Host header that the server gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's.
    Preserve,
    /// [`Upstream::authority`].
    Upstream,
}

/// The admin: page, API, metrics, health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Its address.
    pub listen: SocketAddr,
    /// Names under which it may be controlled, besides IP addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Whether the endpoints that change something work at all.
    pub control: bool,
}

/// How a drain goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// From the signal to the closing of the listeners.
    pub delay: Duration,
    /// The time over which the sessions' Close frames are spread.
    pub spread: Duration,
    /// What is left this long after `delay` is cut; always more than `spread`.
    pub timeout: Duration,
    /// How long the process stays after the last session.
    pub linger: Duration,
    /// The code of the sessions' Close frames.
    pub code: CloseCode,
    /// Their reason.
    pub reason: String,
}

/// What tells a health checker's session, so that it is told as route `probe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probes {
    /// What the User-Agent header contains.
    pub user_agents: Vec<String>,
    /// Where such sessions are believed to come from.
    pub from: Vec<ProbeSource>,
}

/// Where a health checker's session may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeSource {
    /// The machine itself.
    Loopback,
    /// RFC 1918, RFC 4193 and link-local addresses.
    Private,
    /// A network.
    Network(IpNet),
}

impl ProbeSource {
    /// Whether `address` is one of these; an IPv4 address mapped into IPv6 is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match self {
            Self::Loopback => address.is_loopback(),
            Self::Private => match address {
                IpAddr::V4(address) => address.is_private() || address.is_link_local(),
                IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
            },
            Self::Network(network) => network.contains(&address),
        }
    }
}

/// What of a session is written down, in log, records and page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privacy {
    /// Whether the request's path is.
    pub path: bool,
    /// How much of the client's address is.
    pub client: ClientPrivacy,
    /// Whether Close reasons are.
    pub reason: bool,
}

/// How much of a client's address is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientPrivacy {
    /// Address and port.
    Full,
    /// Its /24 (IPv4) or /48 (IPv6).
    Prefix,
    /// Nothing.
    Off,
}

/// What shapes the metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// Codes from 3000 to 4999 that always have their own series.
    pub codes: Vec<u16>,
    /// How many other codes from 3000 on get their own series in the life of the process.
    pub max_custom_codes: usize,
    /// A second address with nothing but metrics and health.
    pub listen: Option<SocketAddr>,
    /// The histograms' bounds.
    pub buckets: Buckets,
}

/// The upper bounds of each histogram, ascending, without `+Inf`; `None`: the family's own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Buckets {
    /// Of `websocket_session_duration_seconds`.
    pub session_duration: Option<Vec<f64>>,
    /// Of `websocket_idle_before_close_seconds`.
    pub idle_before_close: Option<Vec<f64>>,
    /// Of `websocket_close_handshake_duration_seconds`.
    pub close_handshake_duration: Option<Vec<f64>>,
    /// Of `websocket_handshake_duration_seconds`.
    pub handshake_duration: Option<Vec<f64>>,
    /// Of `websocket_upstream_connect_duration_seconds`.
    pub upstream_connect_duration: Option<Vec<f64>>,
    /// Of `websocket_message_size_bytes`.
    pub message_size: Option<Vec<f64>>,
    /// Of `websocket_ping_rtt_seconds`.
    pub ping_rtt: Option<Vec<f64>>,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: Level,
    /// Which sessions' ends are written.
    pub sessions: LogSessions,
    /// Lines a second; what is beyond is dropped and counted.
    pub max_per_second: u32,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// A sentence.
    Text,
    /// A JSON object.
    Json,
}

/// Which sessions' ends are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogSessions {
    /// Every one.
    All,
    /// Those that are not clean.
    Abnormal,
    /// None.
    Off,
}

/// The name in a Host header. The colons of an IPv6 address stand inside its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

/// Whether `path` begins with `prefix` and goes on, if at all, with a new segment.
fn is_path_prefix(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_prefix_ends_at_a_segment() {
        let cases = [
            ("/chat", "/chat", true),
            ("/chat", "/chat/x", true),
            ("/chat", "/chatter", false),
            ("/chat", "/", false),
            ("/chat/", "/chat/x", true),
            ("/chat/", "/chat", false),
            ("/", "/anything", true),
            ("/Chat", "/chat", false),
        ];
        for (prefix, path, expected) in cases {
            assert_eq!(is_path_prefix(prefix, path), expected, "{prefix} of {path}");
        }
    }

    #[test]
    fn a_host_is_compared_without_its_port() {
        let cases = [
            ("example.com", "example.com"),
            ("example.com:8080", "example.com"),
            ("[::1]", "[::1]"),
            ("[::1]:8080", "[::1]"),
            ("", ""),
        ];
        for (host, name) in cases {
            assert_eq!(without_port(host), name, "{host}");
        }
    }

    #[test]
    fn a_match_covers_what_is_narrower() {
        let matcher = |host: Option<&str>, path: Option<&str>| Match {
            host: host.map(str::to_owned),
            path_prefix: path.map(str::to_owned),
        };
        let everything = matcher(None, None);
        let host = matcher(Some("a.example"), None);
        let path = matcher(None, Some("/chat"));
        let both = matcher(Some("A.example"), Some("/chat/room"));
        assert!(everything.covers(&both) && host.covers(&both) && path.covers(&both));
        assert!(matcher(None, Some("/")).covers(&everything));
        assert!(!host.covers(&everything) && !path.covers(&host) && !host.covers(&path) && !both.covers(&path));
    }

    #[test]
    fn a_probe_source_knows_its_addresses() {
        let contains = |source: ProbeSource, address: &str| source.contains(address.parse().unwrap());
        assert!(contains(ProbeSource::Loopback, "127.0.0.9"));
        assert!(contains(ProbeSource::Loopback, "::1"));
        assert!(contains(ProbeSource::Loopback, "::ffff:127.0.0.1"));
        assert!(!contains(ProbeSource::Loopback, "10.0.0.1"));
        for address in ["10.1.2.3", "172.31.0.1", "192.168.1.1", "169.254.1.1", "fd00::1", "fe80::1"] {
            assert!(contains(ProbeSource::Private, address), "{address}");
        }
        assert!(!contains(ProbeSource::Private, "8.8.8.8"));
        assert!(!contains(ProbeSource::Private, "2001:db8::1"));
        let network = ProbeSource::Network("35.191.0.0/16".parse().unwrap());
        assert!(contains(network, "35.191.4.4") && !contains(network, "35.192.0.1"));
    }
}
