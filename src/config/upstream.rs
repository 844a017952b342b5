//! The URL of a server.

use std::path::PathBuf;

use super::{
    format::{Parsed, Reading, is_host},
    types::UpstreamAddress,
};

/// What a server's URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) url: String,
    pub(super) address: UpstreamAddress,
    pub(super) authority: String,
}

/// A server's URL.
pub(super) const URL: Parsed<Target> =
    Parsed { allowed: "ws://HOST:PORT, http://HOST:PORT or unix:/PATH", parse, write: |target| target.url.clone() };

/// The longest path that fits a `sockaddr_un` with its final NUL (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;

fn parse(url: &str) -> Reading<Target> {
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(Some(format!("the scheme is missing: write ws://{url}")).filter(|_| is_host(url)));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "unix" => unix(url, rest),
        "ws" | "http" => tcp(url, rest),
        // The issue that brings TLS takes this arm out.
        "wss" | "https" => Err(Some("TLS toward the server is not supported yet".to_owned())),
        host if is_host(host) && rest.parse::<u16>().is_ok() => {
            Err(Some(format!("the scheme is missing: write ws://{url}")))
        }
        _ => Err(None),
    }
}

fn unix(url: &str, path: &str) -> Reading<Target> {
    if !path.starts_with('/') || path.starts_with("//") || path.contains('\0') {
        return refuse("the path of a Unix socket begins with one /, such as unix:/run/chat.sock");
    }
    if path.len() > LONGEST_SOCKET_PATH {
        return refuse(format!("a Unix socket's path has at most {LONGEST_SOCKET_PATH} bytes"));
    }
    let address = UpstreamAddress::Unix(PathBuf::from(path));
    Ok(Target { url: url.to_owned(), address, authority: "localhost".to_owned() })
}

fn tcp(url: &str, rest: &str) -> Reading<Target> {
    let Some(rest) = rest.strip_prefix("//") else { return Err(None) };
    let authority = match rest.find(['/', '?', '#']) {
        None => rest,
        Some(slash) if &rest[slash..] == "/" => &rest[..slash],
        Some(_) => return refuse("leave the path out: a request's own path is passed on as it is"),
    };
    if authority.contains('@') {
        return refuse("leave the credentials out: a request's own Authorization header is passed on");
    }
    let (host, port) = split_port(authority)?;
    if !is_host(host) {
        return Err(None);
    }
    // The default port is left out of a Host header (RFC 9110, 7.2; 4.2.3).
    let authority = if port == 80 { host.to_owned() } else { format!("{host}:{port}") };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Target { url: url.to_owned(), address: UpstreamAddress::Tcp { host, port }, authority })
}

/// A URL's host and its port, 80 where there is none (RFC 6455, 3).
fn split_port(authority: &str) -> Result<(&str, u16), Option<String>> {
    match authority.rsplit_once(':') {
        // The colons of an IPv6 address stand inside its brackets.
        Some((host, port)) if !port.contains(']') => match port.parse() {
            Ok(0) | Err(_) => Err(Some("a port is a number from 1 to 65535".to_owned())),
            Ok(port) => Ok((host, port)),
        },
        _ => Ok((authority, 80)),
    }
}

fn refuse(remedy: impl Into<String>) -> Reading<Target> {
    Err(Some(remedy.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_names_a_host_and_a_port() {
        let cases = [
            ("ws://127.0.0.1:9000", "127.0.0.1", 9000, "127.0.0.1:9000"),
            ("http://chat.example.com", "chat.example.com", 80, "chat.example.com"),
            ("ws://chat:80/", "chat", 80, "chat"),
            ("WS://[::1]:9000", "::1", 9000, "[::1]:9000"),
            ("ws://[::1]", "::1", 80, "[::1]"),
        ];
        for (url, host, port, authority) in cases {
            let address = UpstreamAddress::Tcp { host: host.to_owned(), port };
            let expected = Target { url: url.to_owned(), address, authority: authority.to_owned() };
            assert_eq!(parse(url), Ok(expected), "{url}");
        }
    }

    #[test]
    fn a_unix_socket_is_named_by_its_absolute_path() {
        let target = parse("unix:/run/chat.sock").unwrap();
        assert_eq!(target.address, UpstreamAddress::Unix(PathBuf::from("/run/chat.sock")));
        assert_eq!(target.authority, "localhost");
        assert!(parse(&format!("unix:/{}", "x".repeat(106))).is_ok());
        let bad = ["unix:", "unix:chat.sock", "unix://run/chat.sock", &format!("unix:/{}", "x".repeat(107))];
        for url in bad {
            assert!(parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn what_is_no_server_is_refused() {
        let bad = [
            "",
            "ws",
            "ws:",
            "ws://",
            "ws:/h",
            "ftp://h",
            "ws://h:0",
            "ws://h:65536",
            "ws://h:",
            "ws://h:x",
            "ws://:80",
            "ws://a b",
            "ws://::1:80",
            "ws://[::1",
            "ws://[::1]x:80",
            "ws://h/path",
            "ws://h?q",
            "ws://h#f",
            "ws://u:p@h",
            "ws://h:80:80",
            "ws://+h",
        ];
        for url in bad {
            assert!(parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_remedy_is_told() {
        let remedy = |url: &str| parse(url).unwrap_err().unwrap_or_default();
        assert_eq!(remedy("wss://chat"), "TLS toward the server is not supported yet");
        assert_eq!(remedy("localhost:9000"), "the scheme is missing: write ws://localhost:9000");
        assert_eq!(remedy("chat"), "the scheme is missing: write ws://chat");
        assert_eq!(remedy("ws://h/chat"), "leave the path out: a request's own path is passed on as it is");
    }
}
