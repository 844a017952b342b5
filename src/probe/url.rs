//! The URLs that a probe can open (RFC 6455, 3).

use std::{fmt, str::FromStr};

use hyper::{Uri, http::uri::Authority};

/// A `ws://` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketUrl {
    text: String,
    /// The host to connect to, an IPv6 address without its brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// What stands in the Host header: the host, and the port where the URL has one.
    pub(super) authority: String,
    /// The path and the query: the target of the upgrade request.
    pub(super) target: String,
}

impl FromStr for WebSocketUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // An empty one is one, too; the parser below would pass over it (RFC 6455, 3).
        if text.contains('#') {
            return Err("a WebSocket's URL has no fragment; a # in its path is written %23".to_owned());
        }
        let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
        match uri.scheme_str().map(str::to_ascii_lowercase).as_deref() {
            Some("ws") => {}
            Some("wss") => return Err("wss:// is not supported yet".to_owned()),
            _ => return Err("a WebSocket's URL begins with ws://".to_owned()),
        }
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or("a WebSocket's URL has a host, and no user or password")?;
        Ok(Self {
            text: text.to_owned(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: port(authority)?,
            authority: authority.to_string(),
            target: uri.query().map_or(uri.path().to_owned(), |query| format!("{}?{query}", uri.path())),
        })
    }
}

/// The port of a `ws://` URL, 80 where there is none (RFC 6455, 3) or an empty one (RFC 3986, 3.2.3).
fn port(authority: &Authority) -> Result<u16, String> {
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default().trim_start_matches(':');
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        _ if port.is_empty() => Ok(80),
        Ok(number @ 1..) if is_number => Ok(number),
        _ => Err(format!("{port:?} is no port: give a number from 1 to 65535")),
    }
}

impl fmt::Display for WebSocketUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_url_are_what_the_handshake_needs() {
        for (text, host, port, authority, target) in [
            ("ws://example.org", "example.org", 80, "example.org", "/"),
            ("ws://example.org?token=1", "example.org", 80, "example.org", "/?token=1"),
            ("ws://127.0.0.1:8080/chat/7?a=b", "127.0.0.1", 8080, "127.0.0.1:8080", "/chat/7?a=b"),
            ("WS://[::1]:9000/", "::1", 9000, "[::1]:9000", "/"),
            ("ws://[::1]/", "::1", 80, "[::1]", "/"),
            ("ws://example.org:/", "example.org", 80, "example.org:", "/"),
            ("ws://example.org:65535", "example.org", 65535, "example.org:65535", "/"),
        ] {
            let url: WebSocketUrl = text.parse().unwrap();
            let parts = (url.host.as_str(), url.port, url.authority.as_str(), url.target.as_str());
            assert_eq!(parts, (host, port, authority, target), "{text}");
            assert_eq!(url.to_string(), text);
        }
    }

    #[test]
    fn other_urls_are_refused_with_a_reason() {
        for (text, reason) in [
            ("wss://example.org", "wss:// is not supported yet"),
            ("http://example.org", "a WebSocket's URL begins with ws://"),
            ("example.org:80", "a WebSocket's URL begins with ws://"),
            ("ws://me:secret@example.org", "a WebSocket's URL has a host, and no user or password"),
            ("ws://127.0.0.1:99999/", "\"99999\" is no port: give a number from 1 to 65535"),
            ("ws://127.0.0.1:abc/", "\"abc\" is no port: give a number from 1 to 65535"),
            ("ws://[::1]:-1/", "\"-1\" is no port: give a number from 1 to 65535"),
            ("ws://127.0.0.1:+80/", "\"+80\" is no port: give a number from 1 to 65535"),
            ("ws://127.0.0.1:0/", "\"0\" is no port: give a number from 1 to 65535"),
            ("ws://example.org/#part", "a WebSocket's URL has no fragment; a # in its path is written %23"),
            ("ws://example.org#", "a WebSocket's URL has no fragment; a # in its path is written %23"),
        ] {
            assert_eq!(text.parse::<WebSocketUrl>(), Err(reason.to_owned()));
        }
    }
}
