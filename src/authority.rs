//! Hosts, ports and URLs: the only parser of them.
//!
//! - [`Host`], [`Authority`], [`Url`] and [`UpstreamUrl`] are values that a user writes: strict, with errors that name
//!   the allowed form.
//! - [`host_in_header`] reads the Host header of any client: all that RFC 3986 allows.
//! - [`Host::matches`] and [`same_host`] compare hosts.

use std::{
    error::Error,
    fmt,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    str::FromStr,
};

use hyper::http::uri::PathAndQuery;

/// A host name, an IPv4 address or an IPv6 address.
///
/// Two hosts are equal if [`same_host`] says so.
#[derive(Debug, Clone)]
pub struct Host {
    /// As it was written, without brackets.
    text: String,
}

/// `HOST` or `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port, if one is written; never 0.
    pub port: Option<u16>,
}

/// The scheme of a [`Url`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// WebSocket without TLS.
    Ws,
    /// WebSocket on TLS.
    Wss,
    /// HTTP without TLS.
    Http,
    /// HTTP on TLS.
    Https,
}

/// `SCHEME://HOST[:PORT][/PATH][?QUERY]`, without user, password and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// The scheme.
    pub scheme: Scheme,
    /// The host and the port.
    pub authority: Authority,
    /// As it was written; possibly empty.
    path_and_query: String,
}

/// The address of a server: a [`Url`] without a path, or `unix:/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamUrl {
    /// A host and a port.
    Tcp(Url),
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
}

/// A text that does not have the allowed form: `found X, allowed: Y`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidAddress {
    found: String,
    allowed: &'static str,
    /// Empty if there is none.
    remedy: String,
}

/// The longest path that fits a `sockaddr_un` with its final NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

impl Host {
    /// The form that a user may write.
    pub const ALLOWED: &str =
        "a host name or an IP address, without scheme, port or wildcard, such as chat.example.com";

    /// The host without brackets: the form that connecting and TLS take.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The IP address, if the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.text.parse().ok()
    }

    /// Whether a request for this host (see [`host_in_header`]) is meant.
    pub fn matches(&self, requested: &str) -> bool {
        same_host(&self.text, requested)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let unbracketed = without_brackets(text);
        let is_ipv6 = unbracketed.contains(':') || unbracketed != text;
        let is_host = if is_ipv6 { unbracketed.parse::<Ipv6Addr>().is_ok() } else { is_name(text) };
        match is_host {
            true => Ok(Self { text: unbracketed.to_owned() }),
            false if text.contains('*') => {
                Err("a wildcard is unknown: leave the host out, or list each name".to_owned())
            }
            false => Err(String::new()),
        }
    }
}

impl Authority {
    /// The form that a user may write.
    pub const ALLOWED: &str = "HOST or HOST:PORT";

    fn parse(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            return Err("leave the user and the password out".to_owned());
        }
        let (host, port) = split_port(text);
        if host.contains(':') && !host.starts_with('[') {
            return Err("write an IPv6 address in brackets, such as [::1]:9000".to_owned());
        }
        Ok(Self { host: Host::parse(host)?, port: port.map(parse_port).transpose()? })
    }
}

impl Scheme {
    const ALL: [Self; 4] = [Self::Ws, Self::Wss, Self::Http, Self::Https];

    /// The port of a URL without one (RFC 6455, 3; RFC 9110, 4.2).
    pub fn default_port(self) -> u16 {
        if self.is_tls() { 443 } else { 80 }
    }

    /// Whether the connection uses TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Wss | Self::Https)
    }

    /// The scheme as URLs have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl Url {
    /// The form that a user may write.
    pub const ALLOWED: &str = "a URL such as ws://HOST:PORT/PATH, with the scheme ws, wss, http or https";

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.authority.port.unwrap_or_else(|| self.scheme.default_port())
    }

    /// The value of a request's Host header, without the scheme's default port (RFC 9110, 4.2.3).
    pub fn host_header(&self) -> String {
        let host = self.authority.host.clone();
        let port = self.authority.port.filter(|port| *port != self.scheme.default_port());
        Authority { host, port }.to_string()
    }

    /// The target of a request for this URL: its path and its query (RFC 9112, 3.2.1).
    pub fn target(&self) -> String {
        let slash = if self.path_and_query.starts_with('/') { "" } else { "/" };
        format!("{slash}{}", self.path_and_query)
    }

    /// Whether the URL names more than a scheme, a host and a port.
    pub fn has_path(&self) -> bool {
        !matches!(self.path_and_query.as_str(), "" | "/")
    }

    fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            Authority::parse(text).map_err(|_| String::new())?;
            return Err(format!("the scheme is missing: write ws://{text}"));
        };
        let known = Scheme::ALL.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(scheme));
        let scheme = known.ok_or_else(String::new)?;
        let (authority, path_and_query) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if path_and_query.contains('#') {
            return Err("a URL here has no fragment: write %23 for a # in its path".to_owned());
        }
        if !path_and_query.is_empty() && path_and_query.parse::<PathAndQuery>().is_err() {
            return Err("percent-encode the characters that no URL may have".to_owned());
        }
        let authority = Authority::parse(authority)?;
        Ok(Self { scheme, authority, path_and_query: path_and_query.to_owned() })
    }
}

impl UpstreamUrl {
    /// The form that a user may write.
    pub const ALLOWED: &str = "ws://HOST:PORT, wss://HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:/PATH";

    /// The value of a request's Host header; `localhost` for a Unix socket.
    pub fn host_header(&self) -> String {
        match self {
            Self::Tcp(url) => url.host_header(),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((scheme, path)) if scheme.eq_ignore_ascii_case("unix") => parse_socket_path(path).map(Self::Unix),
            _ => match Url::parse(text)? {
                url if url.has_path() => Err("leave the path out: a request's own path passes as it is".to_owned()),
                url => Ok(Self::Tcp(url)),
            },
        }
    }
}

/// The host in a Host header's value, as written but without the port. `None` if RFC 3986, 3.2.2 and 3.2.3 do not allow
/// the host or the port. The host may be empty: the target of such a request has no host.
pub fn host_in_header(value: &str) -> Option<&str> {
    let (host, port) = split_port(value);
    let is_host = match without_brackets(host) {
        name if name == host => is_registered_name(name),
        literal => !literal.is_empty() && literal.split(':').all(is_registered_name),
    };
    (is_host && port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()))).then_some(host)
}

/// The IP address that a host is, with or without brackets.
pub fn ip_of(host: &str) -> Option<IpAddr> {
    without_brackets(host).parse().ok()
}

/// Compares two hosts without ports: names without case and trailing dot, IP addresses by value, IPv6 addresses with or
/// without brackets.
pub fn same_host(left: &str, right: &str) -> bool {
    match (ip_of(left), ip_of(right)) {
        (Some(left), Some(right)) => left == right,
        _ => without_dot(left).eq_ignore_ascii_case(without_dot(right)),
    }
}

/// The colons of an IPv6 address stand inside its brackets.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    // `u16::from_str` takes a plus sign.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port @ 1..) if is_number => Ok(port),
        _ => Err("a port is a number from 1 to 65535".to_owned()),
    }
}

fn parse_socket_path(path: &str) -> Result<PathBuf, String> {
    if !path.starts_with('/') || path.starts_with("//") || path.contains('\0') {
        return Err("the path of a Unix socket begins with one /, such as unix:/run/chat.sock".to_owned());
    }
    if path.len() > MAX_SOCKET_PATH {
        return Err(format!("the path of a Unix socket has at most {MAX_SOCKET_PATH} bytes"));
    }
    Ok(PathBuf::from(path))
}

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=253).contains(&without_dot(text).len()) && text.bytes().all(is_allowed)
}

/// `reg-name` of RFC 3986, 3.2.2: unreserved characters, delimiters and percent-encoded bytes.
fn is_registered_name(text: &str) -> bool {
    let mut parts = text.split('%');
    let is_plain =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte));
    let is_encoded = |part: &str| part.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2 && is_plain(part);
    parts.next().is_some_and(is_plain) && parts.all(is_encoded)
}

/// Implements `FromStr` by the type's own `parse`, with an error that shows the text and the allowed form.
macro_rules! from_str {
    ($($type:ty),*) => {$(
        impl FromStr for $type {
            type Err = InvalidAddress;

            fn from_str(text: &str) -> Result<Self, InvalidAddress> {
                Self::parse(text).map_err(|remedy| InvalidAddress {
                    found: text.to_owned(),
                    allowed: Self::ALLOWED,
                    remedy,
                })
            }
        }
    )*};
}

from_str!(Host, Authority, Url, UpstreamUrl);

impl InvalidAddress {
    /// The remedy for the user; empty if there is none.
    pub fn remedy(&self) -> &str {
        &self.remedy
    }
}

impl PartialEq for Host {
    fn eq(&self, other: &Self) -> bool {
        same_host(&self.text, &other.text)
    }
}

impl Eq for Host {}

impl fmt::Display for Host {
    /// An IPv6 address has brackets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.contains(':') { write!(formatter, "[{}]", self.text) } else { formatter.write_str(&self.text) }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(formatter, "{}:{port}", self.host),
            None => self.host.fmt(formatter),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}{}", self.scheme.as_str(), self.authority, self.path_and_query)
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(url) => url.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for InvalidAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { found, allowed, remedy } = self;
        write!(formatter, "found {found:?}, allowed: {allowed}")?;
        if remedy.is_empty() { Ok(()) } else { write!(formatter, "; {remedy}") }
    }
}

impl Error for InvalidAddress {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each text is refused with this remedy; "" stands for none.
    fn assert_refused<T: FromStr<Err = InvalidAddress> + fmt::Debug>(cases: &[(&str, &str)]) {
        for (text, remedy) in cases {
            let error = text.parse::<T>().expect_err(text);
            assert_eq!(error.remedy, *remedy, "{text}");
        }
    }

    #[test]
    fn host_parses_names_and_addresses() {
        for (text, bare, displayed) in [
            ("chat.example.com", "chat.example.com", "chat.example.com"),
            ("Chat.Example.com.", "Chat.Example.com.", "Chat.Example.com."),
            ("my_server-1", "my_server-1", "my_server-1"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
            ("::1", "::1", "[::1]"),
            ("[2001:db8::7]", "2001:db8::7", "[2001:db8::7]"),
        ] {
            let host: Host = text.parse().unwrap();
            assert_eq!((host.as_str(), host.to_string().as_str()), (bare, displayed), "{text}");
        }
        let wildcard = "a wildcard is unknown: leave the host out, or list each name";
        assert_refused::<Host>(&[("*.example.com", wildcard)]);
        let long = "x".repeat(254);
        let none =
            ["", ".", "a b", "a/b", "a:80", "[a]", "[::1", "::1]", "[127.0.0.1]", "[]", "http://a", "a@b", &long];
        assert_refused::<Host>(&none.map(|text| (text, "")));
    }

    #[test]
    fn hosts_compare_without_case_dot_and_brackets() {
        for (configured, requested, expected) in [
            ("chat.example.com", "CHAT.example.com.", true),
            ("chat.example.com.", "chat.example.com", true),
            ("::1", "[::1]", true),
            ("[::1]", "[0:0:0:0:0:0:0:1]", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("chat.example.com", "example.com", false),
            ("chat", "", false),
        ] {
            assert_eq!(configured.parse::<Host>().unwrap().matches(requested), expected, "{configured} {requested}");
        }
    }

    #[test]
    fn authority_parses_host_and_port() {
        for (text, host, port) in [
            ("chat", "chat", None),
            ("chat:80", "chat", Some(80)),
            ("127.0.0.1:65535", "127.0.0.1", Some(65535)),
            ("[::1]", "::1", None),
            ("[::1]:9000", "::1", Some(9000)),
        ] {
            let authority: Authority = text.parse().unwrap();
            assert_eq!((authority.host.as_str(), authority.port), (host, port), "{text}");
            assert_eq!(authority.to_string(), text);
        }
        let bad_port = ["h:0", "h:65536", "h:", "h:x", "h:-1", "h:+80", "[::1]:-1"];
        assert_refused::<Authority>(&bad_port.map(|text| (text, "a port is a number from 1 to 65535")));
        let unbracketed = ["::1", "::1:80", "h:80:80"];
        let brackets = "write an IPv6 address in brackets, such as [::1]:9000";
        assert_refused::<Authority>(&unbracketed.map(|text| (text, brackets)));
        assert_refused::<Authority>(&[("user:secret@h:1", "leave the user and the password out")]);
        assert_refused::<Authority>(&["", ":80", "a b", "[::1", "[::1]x:80", "+h"].map(|text| (text, "")));
    }

    #[test]
    fn url_parses_into_what_a_request_needs() {
        for (text, host, port, host_header, target) in [
            ("ws://example.org", "example.org", 80, "example.org", "/"),
            ("ws://example.org?token=1", "example.org", 80, "example.org", "/?token=1"),
            ("http://127.0.0.1:8080/chat/7?a=b", "127.0.0.1", 8080, "127.0.0.1:8080", "/chat/7?a=b"),
            ("ws://[::1]:9000/", "::1", 9000, "[::1]:9000", "/"),
            ("wss://[::1]/", "::1", 443, "[::1]", "/"),
            ("wss://example.org.:443", "example.org.", 443, "example.org.", "/"),
            ("ws://example.org:443", "example.org", 443, "example.org:443", "/"),
            ("https://example.org:80//", "example.org", 80, "example.org:80", "//"),
        ] {
            let url: Url = text.parse().unwrap();
            let parts = (url.authority.host.as_str(), url.port(), url.host_header(), url.target());
            assert_eq!(parts, (host, port, host_header.to_owned(), target.to_owned()), "{text}");
            assert_eq!(url.to_string(), text);
        }
        assert_eq!("WSS://h".parse::<Url>().unwrap().scheme, Scheme::Wss);
    }

    #[test]
    fn url_refuses_everything_else_with_a_remedy() {
        assert_refused::<Url>(&[
            ("localhost:9000", "the scheme is missing: write ws://localhost:9000"),
            ("chat", "the scheme is missing: write ws://chat"),
            ("ws://me:secret@h", "leave the user and the password out"),
            ("ws://h:99999/", "a port is a number from 1 to 65535"),
            ("ws://::1:80", "write an IPv6 address in brackets, such as [::1]:9000"),
            ("ws://h/#part", "a URL here has no fragment: write %23 for a # in its path"),
            ("ws://h#", "a URL here has no fragment: write %23 for a # in its path"),
            ("ws://h/a b", "percent-encode the characters that no URL may have"),
        ]);
        assert_refused::<Url>(
            &["", "ws:", "ws://", "ws:/h", "ftp://h", "ws://:80", "://h", "ws:///p"].map(|text| (text, "")),
        );
    }

    #[test]
    fn upstream_url_is_a_server_or_a_unix_socket() {
        for text in ["ws://127.0.0.1:9000", "https://chat/", "unix:/run/chat.sock"] {
            assert_eq!(text.parse::<UpstreamUrl>().unwrap().to_string(), text);
        }
        let longest = format!("unix:/{}", "x".repeat(106));
        assert!(matches!(longest.parse(), Ok(UpstreamUrl::Unix(path)) if path.as_os_str().len() == 107));
        let one_slash = "the path of a Unix socket begins with one /, such as unix:/run/chat.sock";
        assert_refused::<UpstreamUrl>(&["unix:", "unix:a.sock", "unix://run/a.sock"].map(|text| (text, one_slash)));
        let too_long = "the path of a Unix socket has at most 107 bytes";
        assert_refused::<UpstreamUrl>(&[(&format!("{longest}x"), too_long)]);
        let path = "leave the path out: a request's own path passes as it is";
        assert_refused::<UpstreamUrl>(&["ws://h/path", "ws://h?q", "ws://h//"].map(|text| (text, path)));
    }

    #[test]
    fn error_shows_text_form_and_remedy() {
        let error = "ws://h:0".parse::<UpstreamUrl>().unwrap_err();
        let expected =
            format!("found \"ws://h:0\", allowed: {}; a port is a number from 1 to 65535", UpstreamUrl::ALLOWED);
        assert_eq!(error.to_string(), expected);
        assert_eq!("".parse::<Authority>().unwrap_err().to_string(), "found \"\", allowed: HOST or HOST:PORT");
    }

    #[test]
    fn host_header_accepts_what_the_rfc_allows() {
        for (value, host) in [
            ("example.com", "example.com"),
            ("example.com:8080", "example.com"),
            ("example.com:", "example.com"),
            ("example.com.", "example.com."),
            ("my_service.internal:80", "my_service.internal"),
            ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
            ("caf%C3%a9.example:1", "caf%C3%a9.example"),
            ("127.0.0.1:9000", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[2001:db8::7]:443", "[2001:db8::7]"),
            ("[::ffff:192.0.2.7]:", "[::ffff:192.0.2.7]"),
            ("[fe80::1%25eth0]:80", "[fe80::1%25eth0]"),
            ("[v1.a:b]", "[v1.a:b]"),
            ("a~b!$&'()*+,;=", "a~b!$&'()*+,;="),
            ("", ""),
            (":80", ""),
        ] {
            assert_eq!(host_in_header(value), Some(host), "{value}");
        }
    }

    #[test]
    fn host_header_refuses_everything_else() {
        let spaces_and_delimiters =
            ["a b", "a\tb", "a, b", "a/b", "a\\b", "a?b", "a#b", "user@a", "a<b>", "a\"b", "a|b"];
        let braces_and_percent = ["a^b", "a`b", "{a}", "a%", "a%4", "a%4g", "%zz"];
        let ports = ["a:b", "a:80x", "a:-1", "a:80:80", "[::1]:x"];
        let brackets =
            ["::1", "[::1", "::1]", "[]", "[]:80", "[::1]x", "[::1]x:80", "x[::1]", "[[::1]]", "[::1 ]", "[a/b]"];
        for value in spaces_and_delimiters.iter().chain(&braces_and_percent).chain(&ports).chain(&brackets) {
            assert_eq!(host_in_header(value), None, "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn accepted_text_is_displayed_as_an_equal_value(text in r"(wss?://)?[a-z0-9:.\[\]@%-]{0,12}(/[ -~]{0,4})?") {
            if let Ok(url) = text.parse::<Url>() {
                proptest::prop_assert_eq!(url.to_string().parse(), Ok(url));
            }
            if let Ok(authority) = text.parse::<Authority>() {
                proptest::prop_assert_eq!(authority.to_string().parse(), Ok(authority));
            }
            if let Some(host) = host_in_header(&text) {
                proptest::prop_assert!(text.starts_with(host) && same_host(host, host));
            }
        }
    }
}
