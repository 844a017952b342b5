//! What a reverse proxy does to headers, and no more: hop-by-hop ones end here (RFC 9110, 7.6.1), forwarding ones are
//! added, everything else passes as it is.

use std::net::IpAddr;

use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};

use crate::config::{Forwarded, ForwardedMode};

const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Header fields.
pub(super) trait Fields {
    /// The values of all lines with this name.
    fn values<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]>;

    /// Takes out all lines with this name.
    fn remove(&mut self, name: &HeaderName);

    /// Makes this the only line with its name. Where there was one, the spelling of its name stays.
    fn set(&mut self, name: HeaderName, value: HeaderValue);
}

impl Fields for HeaderMap {
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

/// Takes out what concerns one connection only. What `Connection` names goes too, but nothing of the WebSocket
/// handshake, of which a client could rob itself so.
pub(super) fn strip_hop_by_hop(headers: &mut impl Fields) {
    strip_but_upgrade(headers);
    for name in [header::CONNECTION, header::UPGRADE] {
        headers.remove(&name);
    }
}

/// The same for a message of the opening handshake, which is an upgrade to WebSocket, and nothing else, on the next
/// connection too.
pub(super) fn strip_to_upgrade(headers: &mut impl Fields) {
    strip_but_upgrade(headers);
    restore_upgrade_to(HeaderValue::from_static("websocket"), headers);
}

fn strip_but_upgrade(headers: &mut impl Fields) {
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

/// Headers without which the next hop would read another message: naming them in `Connection` does not take them out.
fn is_end_to_end(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH].contains(name)
}

/// Makes a message, from which everything else that concerns one connection only was stripped, an upgrade to these
/// protocols.
pub(super) fn restore_upgrade_to(protocols: HeaderValue, headers: &mut impl Fields) {
    headers.set(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.set(header::UPGRADE, protocols);
}

/// Says for whom, by which scheme and for which host the request was made.
pub(super) fn forward(headers: &mut impl Fields, forwarded: &Forwarded, client: IpAddr, host: Option<&HeaderValue>) {
    let is_believed = forwarded.trusted.is_empty() || forwarded.trusted.iter().any(|network| network.contains(&client));
    let replaces = match forwarded.mode {
        ForwardedMode::Off => return,
        ForwardedMode::Replace => true,
        ForwardedMode::Append => !is_believed,
    };
    if replaces {
        for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, header::FORWARDED] {
            headers.remove(&name);
        }
    }
    append_client(headers, client);
    set_where_absent(headers, X_FORWARDED_PROTO, Some(&HeaderValue::from_static("http")));
    set_where_absent(headers, X_FORWARDED_HOST, host);
}

fn append_client(headers: &mut impl Fields, client: IpAddr) {
    let name = X_FORWARDED_FOR;
    let so_far: Vec<&str> = tokens(headers, &name).filter(|address| !address.is_empty()).collect();
    let mut list = so_far.join(", ");
    if !list.is_empty() {
        list.push_str(", ");
    }
    list.push_str(&client.to_canonical().to_string());
    if let Ok(value) = HeaderValue::try_from(list) {
        headers.set(name, value);
    }
}

fn set_where_absent(headers: &mut impl Fields, name: HeaderName, value: Option<&HeaderValue>) {
    if let Some(value) = value
        && !has(headers, &name)
    {
        headers.set(name, value.clone());
    }
}

/// The values of all lines with this name that are text: visible ASCII, blanks and tabs.
pub(super) fn texts<'a>(fields: &'a impl Fields, name: &'a HeaderName) -> impl Iterator<Item = &'a str> {
    let is_visible = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    fields
        .values(name)
        .filter(move |value| value.iter().all(is_visible))
        .filter_map(|value| std::str::from_utf8(value).ok())
}

/// The parts of a comma-separated list, in all of its header's lines.
pub(super) fn tokens<'a>(fields: &'a impl Fields, name: &'a HeaderName) -> impl Iterator<Item = &'a str> {
    texts(fields, name).flat_map(|value| value.split(',')).map(str::trim)
}

/// Whether a comma-separated list has a token, in any of its header's lines and in any case.
pub(super) fn has_token(fields: &impl Fields, name: &HeaderName, token: &str) -> bool {
    tokens(fields, name).any(|found| found.eq_ignore_ascii_case(token))
}

/// The lines of a header as one (RFC 9110, 5.3).
pub(super) fn joined(fields: &impl Fields, name: &HeaderName) -> Option<String> {
    let lines: Vec<&str> = texts(fields, name).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// Whether there is a line with this name.
pub(super) fn has(fields: &impl Fields, name: &HeaderName) -> bool {
    fields.values(name).next().is_some()
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn connection_strips_what_it_names_but_not_the_handshake() {
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
    fn an_upgrade_stays_one_and_nothing_else() {
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
    fn forwarding_appends_and_sets_where_absent() {
        let forwarded = Forwarded { mode: ForwardedMode::Append, trusted: Vec::new() };
        let mut found = headers(&[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")]);
        forward(&mut found, &forwarded, [10, 0, 0, 1].into(), Some(&HeaderValue::from_static("chat.example.com")));
        assert_eq!(found["x-forwarded-for"], "1.2.3.4, 10.0.0.1");
        assert_eq!(found["x-forwarded-proto"], "https");
        assert_eq!(found["x-forwarded-host"], "chat.example.com");
    }

    #[test]
    fn a_client_that_is_not_trusted_is_not_believed() {
        let forwarded =
            Forwarded { mode: ForwardedMode::Append, trusted: vec!["192.168.0.0/16".parse().expect("a network")] };
        let mut found = headers(&[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")]);
        forward(&mut found, &forwarded, [10, 0, 0, 1].into(), None);
        assert_eq!(found["x-forwarded-for"], "10.0.0.1");
        assert_eq!(found["x-forwarded-proto"], "http");
    }
}
