//! What a reverse proxy does to headers, and no more: hop-by-hop ones end here (RFC 9110, 7.6.1), forwarding ones are
//! added, everything else passes as it is.

use std::net::IpAddr;

use hyper::{
    HeaderMap,
    header::{self, Entry, HeaderName, HeaderValue},
};

use crate::config::{Forwarded, ForwardedMode};

const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Whether a comma-separated list has a token, in any of its header's lines and in any case.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

/// The parts of a comma-separated list, in all of its header's lines.
pub(super) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Takes out what concerns one connection only. What `Connection` names goes too, but nothing of the WebSocket
/// handshake, of which a client could rob itself so.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter_map(|token| token.parse().ok())
        .filter(|name: &HeaderName| !name.as_str().starts_with("sec-websocket-") && !is_end_to_end(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
    let keeps_trailers = has_token(headers, &header::TE, "trailers");
    for name in
        [header::CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, header::TE, header::TRANSFER_ENCODING, header::UPGRADE]
    {
        headers.remove(name);
    }
    if keeps_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Headers without which the next hop would read another message: naming them in `Connection` does not take them out.
fn is_end_to_end(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH].contains(name)
}

/// Makes the message an upgrade to WebSocket again after [`strip_hop_by_hop`].
pub(super) fn restore_upgrade(headers: &mut HeaderMap) {
    restore_upgrade_to(HeaderValue::from_static("websocket"), headers);
}

/// The same for whatever protocols the message named.
pub(super) fn restore_upgrade_to(protocols: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, protocols);
}

/// Says for whom, by which scheme and for which host the request was made.
pub(super) fn forward(headers: &mut HeaderMap, forwarded: &Forwarded, client: IpAddr, host: Option<&HeaderValue>) {
    let is_believed = forwarded.trusted.is_empty() || forwarded.trusted.iter().any(|network| network.contains(&client));
    let replaces = match forwarded.mode {
        ForwardedMode::Off => return,
        ForwardedMode::Replace => true,
        ForwardedMode::Append => !is_believed,
    };
    if replaces {
        for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, header::FORWARDED] {
            headers.remove(name);
        }
    }
    append_client(headers, client);
    set_where_absent(headers, X_FORWARDED_PROTO, Some(&HeaderValue::from_static("http")));
    set_where_absent(headers, X_FORWARDED_HOST, host);
}

fn append_client(headers: &mut HeaderMap, client: IpAddr) {
    let so_far: Vec<&str> = tokens(headers, &X_FORWARDED_FOR).filter(|address| !address.is_empty()).collect();
    let mut list = so_far.join(", ");
    if !list.is_empty() {
        list.push_str(", ");
    }
    list.push_str(&client.to_canonical().to_string());
    if let Ok(value) = HeaderValue::try_from(list) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

fn set_where_absent(headers: &mut HeaderMap, name: HeaderName, value: Option<&HeaderValue>) {
    if let (Entry::Vacant(vacant), Some(value)) = (headers.entry(name), value) {
        vacant.insert(value.clone());
    }
}

#[cfg(test)]
mod tests {
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
