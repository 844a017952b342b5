//! Every key of the configuration: its meaning (the doc comment), its type with its range, its default.
//!
//! The doc comments become the JSON Schema and `docs/configuration.md`.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    time::Duration,
};

use garde::Validate;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::{
    formats::{
        Auto, AutoWord, ClientPrivacy, Format, ForwardedMode, ForwardedProto, HostHeader, LogFormat, LogLevel,
        LogSessions, NotYet, Off, PathPrefix, ProxyHeader, ProxyProtocol, Reason, RouteName, SameLoss, Setting, Shown,
        Size, Time, UserAgent, Whole, missing_url,
    },
    rules,
    shorthand::{self, Either, Shorthand},
};
use crate::{
    authority::{Host, UpstreamUrl, host_in_header},
    websocket::close_code::{CloseCode, CloseText},
};

/// A year, in milliseconds. A timer is set to now and this, which must be a time.
const YEAR: u64 = 365 * 24 * 3_600_000;

/// A timeout. One that ends at once is a mistake.
type Timeout = Time<1, YEAR, 1>;

/// A pause, which may be none.
type Pause = Time<0, YEAR, 1>;

/// The range that the kernel takes for `TCP_KEEPIDLE` and `TCP_KEEPINTVL` (tcp(7)), in whole seconds.
type KeepaliveTime = Time<1_000, 32_767_000, 1_000>;

/// The upper end is more than any kernel has descriptors for.
type Connections = Whole<usize, 1, 100_000_000>;

/// The upper end is more than any machine has, and far from an overflow.
type Payload = Size<u64, 1, { 1 << 40 }>;

/// Declares sections. Each key has its meaning as a doc comment, its type with its range, and its default. Keys behind
/// `=> T` can also be in a route, in its section `T`.
macro_rules! sections {
    ($(
        $(#[$attribute:meta])* $section:ident {
            $($(#[$meaning:meta])* $key:ident: $type:ty = $default:expr,)+
        $(=> $overrides:ident {
            $($(#[$route_meaning:meta])* $route_key:ident: $route_type:ty = $route_default:expr,)+
        })? }
    )+) => {$(
        #[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema, Validate)]
        #[serde(default, deny_unknown_fields, expecting = "keys and values")]
        $(#[$attribute])*
        pub struct $section {
            $($(#[$meaning])* #[garde(dive)] pub $key: $type,)+
            $($($(#[$route_meaning])* #[garde(dive)] pub $route_key: $route_type,)+)?
        }

        impl Default for $section {
            fn default() -> Self {
                Self { $($key: $default,)+ $($($route_key: $route_default,)+)? }
            }
        }

        $(#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema, Validate)]
        #[serde(default, deny_unknown_fields, expecting = "keys and values")]
        #[doc = concat!("The [`", stringify!($section), "`] that a route sets for itself.")]
        #[allow(clippy::struct_field_names, reason = "the names of the keys")]
        pub struct $overrides {
            $($(#[$route_meaning])* #[garde(dive)] pub $route_key: Option<$route_type>,)+
        }

        impl $overrides {
            /// Returns what holds for the route: its own values, and for the rest the `common` ones.
            pub fn over(&self, common: &$section) -> $section {
                let mut section = common.clone();
                $(section.$route_key = self.$route_key.clone().unwrap_or(section.$route_key);)+
                section
            }
        }

        impl From<$section> for $overrides {
            fn from(section: $section) -> Self {
                Self { $($route_key: Some(section.$route_key),)+ }
            }
        })?
    )+};
}

sections! {
    /// The configuration of closewatch.
    #[schemars(title = "The configuration of closewatch")]
    Config {
        /// The addresses for clients: one, or a list.
        #[serde(deserialize_with = "shorthand::sections")]
        #[schemars(with = "Either<Either<Setting<SocketAddr>, Listen>, Vec<Either<Setting<SocketAddr>, Listen>>>")]
        #[garde(length(min = 1, max = 64))]
        listen: Vec<Listen> = vec![Listen::default()],
        /// The WebSocket server.
        #[serde(deserialize_with = "shorthand::optional", skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<Either<Setting<UpstreamUrl>, Upstream>>")]
        upstream: Option<Upstream> = None,
        /// Several servers, or several kinds of traffic that the metrics keep apart, instead of `upstream`. The first
        /// route that matches a request is used; if none matches, the answer is 404.
        #[serde(deserialize_with = "shorthand::one_or_list", skip_serializing_if = "Vec::is_empty")]
        #[schemars(with = "Either<Route, Vec<Route>>")]
        #[garde(length(max = 256))]
        routes: Vec<Route> = Vec::new(),
        /// Whether the file has routes that a flag or the environment replaces by one server.
        #[serde(skip)]
        has_unused_routes: Switch = Switch(false),
        /// Threads that carry sessions. `auto`: the CPUs that the process may use, by cgroup limit and affinity.
        workers: Setting<Auto<Whole<usize, 1, 1024>>> = Setting(None),
        /// The page, the API, the metrics and health. They show client addresses, so the default is loopback.
        admin: Admin = Admin::default(),
        /// The headers `X-Forwarded-For`, `-Proto` and `-Host`.
        forwarded: Forwarded = Forwarded::default(),
        /// The Host header that the server gets: the client's (`preserve`), or the one of its URL (`upstream`).
        host: Setting<HostHeader> = Setting(HostHeader::Preserve),
        /// Limits of time.
        timeouts: Timeouts = Timeouts::default(),
        /// TCP keepalive on both connections of a session. A link is dead after `idle` + `probes` * `interval` without
        /// an answer, or with data unacknowledged for as long. A live peer that reads nothing is not dead.
        keepalive: Keepalive = Keepalive::default(),
        /// What the client gets if the server is lost without a Close frame: the same loss, or a Close frame.
        on_server_loss: OnLoss = PROPAGATE,
        /// What the server gets if the client is lost without a Close frame: the same loss, or a Close frame.
        on_client_loss: OnLoss = PROPAGATE,
        /// Limits of number and size.
        limits: Limits = Limits::default(),
        /// A drain, on SIGTERM. In all it must take less than the grace period (30 s in Kubernetes).
        shutdown: Shutdown = Shutdown::default(),
        /// Health checkers' sessions, which are reported as route `probe`: those with one of `user_agents` from one of
        /// `from`, unless a proxy forwarded the request (`X-Forwarded-For`, `Forwarded`).
        probes: Probes = Probes::default(),
        /// Parts of a session that log, records and page show. `off`: null stands there.
        privacy: Privacy = Privacy::default(),
        /// The shape of `/metrics`.
        metrics: Metrics = Metrics::default(),
        /// The log, on standard output.
        log: Log = Log::default(),
    }

    /// A public address.
    Listen {
        /// The address. With port 0 the kernel chooses the port.
        address: Setting<SocketAddr> = Setting(([0, 0, 0, 0], 8080).into()),
        /// TLS toward clients, which is not supported yet.
        #[serde(skip_serializing)]
        tls: Setting<NotYet> = Setting(NotYet::Off),
        /// A PROXY protocol header before the first byte of a client: never, perhaps (`accept`), always (`require`).
        /// With `accept` and `require`, everyone who reaches the address can claim any client address.
        proxy_protocol: Setting<ProxyProtocol> = Setting(ProxyProtocol::Off),
    }

    /// A kind of traffic: the requests that belong to it, their server, the limits of their sessions.
    #[schemars(extend("required" = ["name", "upstream"]))]
    Route {
        /// The value of the label `route`. Each route has its own.
        name: Setting<RouteName> = Setting(String::new()),
        /// The requests that take the route: those that fit all keys here. Without keys every request does.
        r#match: Match = Match::default(),
        /// The WebSocket server.
        #[serde(deserialize_with = "shorthand::section")]
        #[schemars(with = "Either<Setting<UpstreamUrl>, Upstream>")]
        upstream: Upstream = Upstream::default(),
        /// Limits of time for this route.
        timeouts: RouteTimeouts = RouteTimeouts::default(),
        /// Limits of size for this route.
        limits: RouteLimits = RouteLimits::default(),
        /// What the client gets if this route's server is lost.
        on_server_loss: Option<OnLoss> = None,
        /// What this route's server gets if the client is lost.
        on_client_loss: Option<OnLoss> = None,
    }

    /// The requests that take a route: those that fit all keys here.
    Match {
        /// The host of the request, without its port. Neither case nor a trailing dot matters.
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<Setting<Host>> = None,
        /// The beginning of the path, in whole segments: `/chat` fits `/chat` and `/chat/room`, not `/chatter`.
        #[serde(skip_serializing_if = "Option::is_none")]
        path_prefix: Option<Setting<PathPrefix>> = None,
    }

    /// The server behind closewatch.
    #[schemars(extend("required" = ["url"]))]
    Upstream {
        /// The address of the server. The path of each request passes unchanged.
        url: Setting<UpstreamUrl> = Setting(missing_url()),
        /// TLS toward the server, which is not supported yet.
        #[serde(skip_serializing)]
        tls: Setting<NotYet> = Setting(NotYet::Off),
        /// For a connection to the server. After it the client gets a 504.
        connect_timeout: Setting<Timeout> = Setting(Duration::from_secs(5)),
        /// `v2`: a PROXY protocol header with the client's address comes first.
        proxy_protocol: Setting<ProxyHeader> = Setting(ProxyHeader::Off),
    }

    /// Limits of time.
    Timeouts {
        /// For a client to finish its request head. After it the connection is closed.
        request_head: Setting<Off<Timeout>> = Setting(Some(Duration::from_secs(10))),
        /// For the next request on a connection that has been answered. The default is longer than that of load
        /// balancers in front.
        keep_alive: Setting<Off<Timeout>> = Setting(Some(Duration::from_secs(620))),
        /// Of a plain request or its answer: bytes wait, and their receiver accepts none of them for so long; or the
        /// body of a request stands still for so long. Then the client gets a 504, a reset or a 408. An answer may be
        /// silent.
        body: Setting<Off<Timeout>> = Setting(Some(Duration::from_mins(1))),
    => RouteTimeouts {
        /// For the server to answer an upgrade. After it the client gets a 504.
        handshake: Setting<Off<Timeout>> = Setting(Some(Duration::from_secs(30))),
        /// Without a byte in either direction. After it both endpoints get Close 1001; action `idle_timeout`.
        idle: Setting<Off<Timeout>> = Setting(None),
        /// The age of a session, less up to a tenth at random. After it both endpoints get Close 1001; action
        /// `max_age`.
        max_age: Setting<Off<Timeout>> = Setting(None),
        /// After the first Close frame, for the answer. Chromium itself waits 60 s.
        close: Setting<Off<Timeout>> = Setting(Some(Duration::from_secs(65))),
        /// After both Close frames, for the endpoints to hang up.
        hang_up: Setting<Off<Timeout>> = Setting(Some(Duration::from_secs(2))),
    }}

    /// TCP keepalive: a silent link is dead after `idle + probes * interval`.
    Keepalive {
        /// Silence before the first probe.
        idle: Setting<KeepaliveTime> = Setting(Duration::from_secs(45)),
        /// From one probe to the next.
        interval: Setting<KeepaliveTime> = Setting(Duration::from_secs(10)),
        /// Unanswered probes that make a link dead.
        probes: Setting<Whole<u32, 1, 127>> = Setting(3),
    }

    /// A Close frame for an endpoint that loses the other one.
    #[schemars(extend("required" = ["code"]))]
    LossClose {
        /// The code of this Close frame.
        code: Setting<CloseCode> = Setting(CloseCode(0)),
        /// The reason of this Close frame.
        reason: Setting<Reason> = Setting(String::new()),
    }

    /// Limits of number and size.
    Limits {
        /// Client connections at once. More are closed at once and counted. `auto`: as many as the open-file limit
        /// allows; the soft limit is raised to the hard limit.
        connections: Setting<Auto<Connections>> = Setting(None),
        /// The same for each client address. Behind a trusted peer that is the address that the peer vouches for.
        connections_per_ip: Setting<Off<Connections>> = Setting(None),
        /// The longest request head. A longer one gets a 431.
        // hyper's read buffer is never smaller than the lower end.
        request_head_bytes: Setting<Size<usize, { 8 << 10 }, { 16 << 20 }>> = Setting(64 << 10),
        /// Bytes held for the slow readers of all sessions together. Above it, blocked directions are read in small
        /// pieces.
        buffer_total_bytes: Setting<Size<u64, { 4 << 10 }, { 1 << 40 }>> = Setting(256 << 20),
    => RouteLimits {
        /// The payload of a frame. Above it both endpoints get Close 1009; action `limit`.
        frame_bytes: Setting<Off<Payload>> = Setting(None),
        /// The payload of a message on the wire, perhaps compressed. Above it both endpoints get Close 1009; action
        /// `limit`.
        message_bytes: Setting<Off<Payload>> = Setting(None),
        /// Bytes held for one direction of a session if its reader is slow. Above it, the sender is not read.
        buffer_bytes: Setting<Size<usize, { 4 << 10 }, { 1 << 30 }>> = Setting(256 << 10),
    }}

    /// The headers `X-Forwarded-For`, `-Proto` and `-Host`.
    Forwarded {
        /// `append`: `-For` grows by the client's address, the others are set if they are absent. `replace`: all are
        /// set anew. `off`: they pass unchanged.
        mode: Setting<ForwardedMode> = Setting(ForwardedMode::Append),
        /// Networks whose headers are trusted. Empty: those of everyone. Else the headers of other clients are replaced, and
        /// the client of records and of `limits.connections_per_ip` is the address that a trusted peer vouches for.
        trusted: Vec<Setting<IpNet>> = Vec::new(),
        /// The value of `-Proto`. `auto`: what the client used to reach closewatch, or a load balancer that says so in a
        /// PROXY protocol header, version 2.
        proto: Setting<ForwardedProto> = Setting(ForwardedProto::Auto),
    }

    /// The admin: page, API, metrics, health.
    Admin {
        /// Its address.
        listen: Setting<SocketAddr> = Setting(([127, 0, 0, 1], 9917).into()),
        /// Names under which it may be controlled, besides IP addresses and `localhost`.
        hosts: Vec<Setting<Host>> = Vec::new(),
        /// Allows the endpoints that change something: `/-/reload`, `/-/drain`, `/-/close`.
        control: Switch = Switch(false),
    }

    /// A drain.
    Shutdown {
        /// From the signal to the closing of the listeners: closewatch is no longer ready, but all else continues.
        delay: Setting<Pause> = Setting(Duration::ZERO),
        /// The time over which the Close frames of the sessions are spread; less than `timeout`.
        spread: Setting<Pause> = Setting(Duration::ZERO),
        /// The code of these Close frames.
        code: Setting<CloseCode> = Setting(CloseCode::GOING_AWAY),
        /// The reason of these Close frames.
        reason: Setting<Reason> = Setting(String::new()),
        /// From the end of `delay` to the termination of the sessions that are left.
        timeout: Setting<Timeout> = Setting(Duration::from_secs(20)),
        /// From the last session to the end of the process, for a last scrape.
        linger: Setting<Pause> = Setting(Duration::ZERO),
    }

    /// The properties of a health checker's session, which is reported as route `probe`.
    Probes {
        /// Product tokens at the start of the User-Agent header. Empty: there is no route `probe`.
        user_agents: Vec<Setting<UserAgent>> = ["Blackbox-Exporter", "kube-probe", "ELB-HealthChecker", "GoogleHC"]
            .map(|agent| Setting(agent.to_owned()))
            .into(),
        /// Their addresses. `private` is RFC 1918, RFC 4193 and link-local addresses.
        from: Vec<Setting<ProbeSource>> = vec![Setting(ProbeSource::Loopback), Setting(ProbeSource::Private)],
    }

    /// The parts of a session that log, records and page show.
    Privacy {
        /// The path of the request, always without its query.
        path: Setting<Shown> = Setting(Shown::Full),
        /// The client's address. `prefix`: its /24 (IPv4) or /48 (IPv6).
        client: Setting<ClientPrivacy> = Setting(ClientPrivacy::Full),
        /// The reasons in Close frames.
        reason: Setting<Shown> = Setting(Shown::Full),
        /// The subprotocol that the server chose.
        subprotocol: Setting<Shown> = Setting(Shown::Full),
    }

    /// The shape of `/metrics`.
    Metrics {
        /// Codes that always have series of their own, such as [4001, 4003].
        codes: Vec<Setting<Whole<u16, 3000, 4999>>> = Vec::new(),
        /// The number of other codes from 3000 on that get series of their own in the life of the process. Later ones
        /// are folded into `3xxx` and `4xxx`.
        max_custom_codes: Setting<Whole<usize, 0, 2000>> = Setting(16),
        /// A second address with only `/metrics` and health, for scrapers outside.
        listen: Setting<Off<SocketAddr>> = Setting(None),
        /// The upper bounds of the histograms' buckets, in seconds or bytes, at most 50 for each histogram. `auto`:
        /// those of closewatch.
        buckets: Buckets = Buckets::default(),
    }

    /// The upper bounds of each histogram, ascending, without `+Inf`.
    Buckets {
        /// Of `websocket_session_duration_seconds`.
        session_duration: BoundsSetting = BoundsSetting(vec![Setting(None)]),
        /// Of `websocket_idle_before_close_seconds`.
        idle_before_close: BoundsSetting = BoundsSetting(vec![Setting(None)]),
        /// Of `websocket_close_handshake_duration_seconds`.
        close_handshake_duration: BoundsSetting = BoundsSetting(vec![Setting(None)]),
        /// Of `websocket_handshake_duration_seconds`.
        handshake_duration: BoundsSetting = BoundsSetting(vec![Setting(None)]),
        /// Of `websocket_upstream_connect_duration_seconds`.
        upstream_connect_duration: BoundsSetting = BoundsSetting(vec![Setting(None)]),
        /// Of `websocket_message_size_bytes`.
        message_size: BoundsSetting = BoundsSetting(vec![Setting(None)]),
        /// Of `websocket_ping_rtt_seconds`.
        ping_rtt: BoundsSetting = BoundsSetting(vec![Setting(None)]),
    }

    /// The log.
    Log {
        /// A line is a sentence, or a JSON object.
        format: Setting<LogFormat> = Setting(LogFormat::Text),
        /// The least severe level that is written.
        level: Setting<LogLevel> = Setting(LogLevel::Info),
        /// The sessions whose end is written: all, those that are not clean, none.
        sessions: Setting<LogSessions> = Setting(LogSessions::Abnormal),
        /// Lines per second, for sessions, for failed handshakes and for other lines each. More are dropped and counted, and
        /// a line reports how many.
        max_per_second: Setting<Whole<u32, 1, 1_000_000>> = Setting(200),
    }
}

/// `true` or `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema, Validate)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Switch(#[garde(skip)] pub bool);

/// The reaction to the loss of an endpoint without a Close frame.
pub type OnLoss = Either<Setting<SameLoss>, LossClose>;

const PROPAGATE: OnLoss = Either::Short(Setting(SameLoss::Propagate));

impl OnLoss {
    /// Returns the Close frame, if there is one.
    pub fn close_text(&self) -> Option<CloseText> {
        match self {
            Self::Short(_) => None,
            Self::Long(close) => Some(CloseText { code: *close.code, reason: close.reason.0.clone() }),
        }
    }
}

/// The upper bounds of one histogram, ascending; a single `None` for those of closewatch.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema, Validate)]
#[schemars(with = "Either<Setting<Auto<f64>>, Vec<Setting<Auto<f64>>>>")]
#[garde(transparent)]
pub struct BoundsSetting(
    #[serde(deserialize_with = "shorthand::one_or_list")]
    #[garde(length(min = 1, max = 50), custom(rules::ascending), dive)]
    pub Vec<Setting<Auto<f64>>>,
);

impl BoundsSetting {
    /// Returns the bounds, unless closewatch chooses them.
    pub fn list(&self) -> Option<Vec<f64>> {
        self.0.iter().map(|bound| bound.0).collect()
    }
}

impl Serialize for BoundsSetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.list().is_some() { self.0.serialize(serializer) } else { AutoWord::allowed().serialize(serializer) }
    }
}

impl Shorthand for Listen {
    type Short = Setting<SocketAddr>;

    fn from_short(address: Self::Short) -> Self {
        Self { address, ..Self::default() }
    }
}

impl Shorthand for Upstream {
    type Short = Setting<UpstreamUrl>;

    fn from_short(url: Self::Short) -> Self {
        Self { url, ..Self::default() }
    }
}

impl Config {
    /// Returns the routes in their order: those of the file, or `default`, which takes every request to `upstream`. A
    /// valid configuration has at least one.
    pub fn routes(&self) -> Vec<Route> {
        let name = || Setting("default".to_owned());
        let default = |upstream| vec![Route { name: name(), upstream, ..Route::default() }];
        self.upstream.clone().map_or_else(|| self.routes.clone(), default)
    }

    /// Returns the number of threads for the data plane.
    pub fn worker_count(&self) -> NonZeroUsize {
        // This honours cgroup quota and affinity.
        let workers = self.workers.and_then(NonZeroUsize::new);
        workers.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
    }
}

impl Route {
    /// Returns whether a request for `path` (without its query) on `host` (a Host header, with or without port) takes
    /// this route. Path prefixes match by whole segments: `/chat` is no prefix of `/chatter`.
    pub fn matches(&self, host: &str, path: &str) -> bool {
        let is_host = |name: &Setting<Host>| host_in_header(host).is_some_and(|host| name.matches(host));
        self.r#match.host.as_ref().is_none_or(is_host)
            && self.r#match.path_prefix.as_ref().is_none_or(|prefix| is_path_prefix(prefix, path))
    }
}

impl Match {
    /// Returns whether every request that fits `other` fits this too.
    pub(super) fn covers(&self, other: &Self) -> bool {
        // Every path begins with a slash.
        let prefix =
            |matcher: &Self| matcher.path_prefix.as_ref().map_or_else(|| "/".to_owned(), |prefix| prefix.0.clone());
        (self.host.is_none() || self.host == other.host) && is_path_prefix(&prefix(self), &prefix(other))
    }
}

/// Returns whether `path` begins with `prefix` and goes on, if at all, with a new segment.
fn is_path_prefix(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

/// An origin of health checkers.
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
    /// Returns whether `address` is one of these. An IPv4 address mapped into IPv6 is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self, address.to_canonical()) {
            (Self::Loopback, address) => address.is_loopback(),
            (Self::Private, IpAddr::V4(address)) => address.is_private() || address.is_link_local(),
            (Self::Private, IpAddr::V6(address)) => address.is_unique_local() || address.is_unicast_link_local(),
            (Self::Network(network), address) => network.contains(&address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_prefix_ends_at_a_segment() {
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
    fn match_covers_a_narrower_one() {
        let matcher = |host: Option<&str>, prefix: Option<&str>| Match {
            host: host.map(|host| Setting(host.parse().unwrap())),
            path_prefix: prefix.map(|prefix| Setting(prefix.to_owned())),
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
    fn probe_source_contains_its_addresses() {
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
