//! A reverse proxy's changes to headers: hop-by-hop headers end here (RFC 9110, 7.6.1), forwarding headers are added,
//! and all others pass.
//!
//! The rules work on any [`HeaderFields`]: the HTTP library's map, which groups headers by name, and the raw lines of an
//! opening handshake, which stay as they came.

use std::net::IpAddr;

use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};

use super::proxy_protocol::Ends;
use crate::config::{Forwarded, ForwardedMode, ForwardedProto};

const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The headers of a message.
pub(super) trait HeaderFields {
    /// The values of all lines with this name.
    fn values<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]>;

    /// Removes all lines with this name.
    fn remove(&mut self, name: &HeaderName);

    /// Makes this the only line with its name. If there was one, its spelling of the name stays.
    fn set(&mut self, name: HeaderName, value: HeaderValue);
}

impl HeaderFields for HeaderMap {
    fn values<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name).into_iter().map(HeaderValue::as_bytes)
    }

    fn remove(&mut self, name: &HeaderName) {
        HeaderMap::remove(self, name);
    }

    fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.insert(name, value);
    }
}

/// Removes the headers that concern one connection only, and those that `Connection` names.
pub(super) fn strip_hop_by_hop(headers: &mut impl HeaderFields) {
    strip_but_upgrade(headers);
    for name in [header::CONNECTION, header::UPGRADE] {
        headers.remove(&name);
    }
}

/// The same for a message of the opening handshake. It stays an upgrade to WebSocket, and to nothing else.
pub(super) fn strip_to_upgrade(headers: &mut impl HeaderFields) {
    strip_but_upgrade(headers);
    restore_upgrade_to(HeaderValue::from_static("websocket"), headers);
}

/// Removes headers named by `Connection`, except `Sec-WebSocket-*`: a client must not strip its own handshake.
fn strip_but_upgrade(headers: &mut impl HeaderFields) {
    let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter(|token| !token.eq_ignore_ascii_case("upgrade"))
        .filter_map(|token| token.parse().ok())
        .filter(|name: &HeaderName| !name.as_str().starts_with("sec-websocket-") && !is_end_to_end(name))
        .collect();
    for name in named {
        headers.remove(&name);
    }
    let keeps_trailers = has_token(headers, &header::TE, "trailers");
    for name in [KEEP_ALIVE, PROXY_CONNECTION, header::TE, header::TRANSFER_ENCODING] {
        headers.remove(&name);
    }
    if keeps_trailers {
        headers.set(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// The next hop would read another message without these headers: `Connection` cannot remove them.
fn is_end_to_end(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH].contains(name)
}

/// Makes a stripped message an upgrade to these protocols.
pub(super) fn restore_upgrade_to(protocols: HeaderValue, headers: &mut impl HeaderFields) {
    headers.set(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.set(header::UPGRADE, protocols);
}

/// Adds the client, the scheme and the host of a request, as far as the configuration wants it.
pub(super) fn forward(headers: &mut impl HeaderFields, forwarded: &Forwarded, ends: Ends, host: Option<&HeaderValue>) {
    let client = ends.client.ip().to_canonical();
    let is_trusted = forwarded.trusted.is_empty() || super::client_address::is_trusted(&forwarded.trusted, client);
    let replaces = match *forwarded.mode {
        ForwardedMode::Off => return,
        ForwardedMode::Replace => true,
        ForwardedMode::Append => !is_trusted,
    };
    if replaces {
        for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, header::FORWARDED] {
            headers.remove(&name);
        }
    }
    append_client(headers, client);
    let is_https = match *forwarded.proto {
        ForwardedProto::Auto => ends.is_tls,
        ForwardedProto::Http => false,
        ForwardedProto::Https => true,
    };
    let scheme = HeaderValue::from_static(if is_https { "https" } else { "http" });
    set_if_absent(headers, X_FORWARDED_PROTO, Some(&scheme));
    set_if_absent(headers, X_FORWARDED_HOST, host);
}

fn append_client(headers: &mut impl HeaderFields, client: IpAddr) {
    let (name, client) = (X_FORWARDED_FOR, client.to_string());
    let before = tokens(headers, &name).filter(|address| !address.is_empty());
    let list = before.chain([client.as_str()]).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::try_from(list) {
        headers.set(name, value);
    }
}

fn set_if_absent(headers: &mut impl HeaderFields, name: HeaderName, value: Option<&HeaderValue>) {
    if let Some(value) = value
        && !has(headers, &name)
    {
        headers.set(name, value.clone());
    }
}

/// The values of all lines with this name that are text: visible ASCII, spaces and tabs.
pub(super) fn texts<'a>(headers: &'a impl HeaderFields, name: &'a HeaderName) -> impl Iterator<Item = &'a str> {
    let is_visible = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    headers
        .values(name)
        .filter(move |value| value.iter().all(is_visible))
        .filter_map(|value| std::str::from_utf8(value).ok())
}

/// The parts of a comma-separated list, in all lines of its header.
pub(super) fn tokens<'a>(headers: &'a impl HeaderFields, name: &'a HeaderName) -> impl Iterator<Item = &'a str> {
    texts(headers, name).flat_map(|value| value.split(',')).map(str::trim)
}

/// Whether a comma-separated list has a token, in any line of its header and in any case.
pub(super) fn has_token(headers: &impl HeaderFields, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

/// The lines of a header as one (RFC 9110, 5.3).
pub(super) fn joined(headers: &impl HeaderFields, name: &HeaderName) -> Option<String> {
    let lines: Vec<&str> = texts(headers, name).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// Whether there is a line with this name.
pub(super) fn has(headers: &impl HeaderFields, name: &HeaderName) -> bool {
    headers.values(name).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Setting;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn append(trusted: &[&str]) -> Forwarded {
        let trusted = trusted.iter().map(|network| Setting(network.parse().unwrap())).collect();
        Forwarded { trusted, ..Forwarded::default() }
    }

    fn ends(client: &str, is_tls: bool) -> Ends {
        let client = client.parse().unwrap();
        Ends { client, peer: client, local: "10.0.0.9:80".parse().unwrap(), is_tls }
    }

    #[test]
    fn connection_strips_what_it_names_except_the_handshake() {
        let mut found = headers(&[
            ("connection", "close, X-Secret"),
            ("connection", "sec-websocket-key, host"),
            ("x-secret", "1"),
            ("host", "example.com"),
            ("sec-websocket-key", "abc"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-other", "2"),
        ]);
        strip_hop_by_hop(&mut found);
        let expected =
            headers(&[("host", "example.com"), ("sec-websocket-key", "abc"), ("te", "trailers"), ("x-other", "2")]);
        assert_eq!(found, expected);
    }

    #[test]
    fn upgrade_keeps_only_websocket() {
        let mut found = headers(&[
            ("connection", "keep-alive, Upgrade, X-Secret"),
            ("upgrade", "h2c, websocket"),
            ("keep-alive", "timeout=5"),
            ("x-secret", "1"),
        ]);
        strip_to_upgrade(&mut found);
        assert_eq!(found, headers(&[("connection", "Upgrade"), ("upgrade", "websocket")]));
    }

    #[test]
    fn append_extends_client_list_and_sets_absent_headers() {
        let mut found = headers(&[("x-forwarded-for", "1.2.3.4, "), ("x-forwarded-proto", "https")]);
        let host = HeaderValue::from_static("chat.example.com");
        forward(&mut found, &append(&[]), ends("10.0.0.1:1", false), Some(&host));
        assert_eq!(found["x-forwarded-for"], "1.2.3.4, 10.0.0.1");
        assert_eq!(found["x-forwarded-proto"], "https");
        assert_eq!(found["x-forwarded-host"], "chat.example.com");
    }

    #[test]
    fn scheme_is_https_if_the_load_balancer_reports_tls() {
        for (is_tls, scheme) in [(false, "http"), (true, "https")] {
            let mut found = HeaderMap::new();
            forward(&mut found, &append(&[]), ends("10.0.0.1:1", is_tls), None);
            assert_eq!(found["x-forwarded-proto"], scheme);
        }
    }

    #[test]
    fn configured_scheme_replaces_the_observed_one() {
        for (proto, is_tls, scheme) in [(ForwardedProto::Http, true, "http"), (ForwardedProto::Https, false, "https")] {
            let mut found = HeaderMap::new();
            let forwarded = Forwarded { proto: Setting(proto), ..Forwarded::default() };
            forward(&mut found, &forwarded, ends("10.0.0.1:1", is_tls), None);
            assert_eq!(found["x-forwarded-proto"], scheme);
        }
    }

    #[test]
    fn headers_of_untrusted_clients_are_replaced() {
        for (client, for_list) in [
            ("10.0.0.1:1", "10.0.0.1"),
            ("192.168.0.1:1", "1.2.3.4, 192.168.0.1"),
            // A listener for both families reports an IPv4 client like this.
            ("[::ffff:192.168.0.1]:1", "1.2.3.4, 192.168.0.1"),
        ] {
            let mut found = headers(&[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")]);
            forward(&mut found, &append(&["192.168.0.0/16"]), ends(client, false), None);
            assert_eq!(found["x-forwarded-for"], for_list, "{client}");
            assert_eq!(found["x-forwarded-proto"] == "https", for_list.contains(','), "{client}");
        }
    }
}
