//! Values with a grammar of their own: addresses, networks, Close codes, names.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::{
    format::{Format, Reading, Whole},
    types::ProbeSource,
};
use crate::websocket::close_code::{CloseCode, MAX_REASON};

/// A way to write values that takes no more than two functions.
pub(super) struct Parsed<T> {
    pub(super) allowed: &'static str,
    pub(super) parse: fn(&str) -> Reading<T>,
    pub(super) write: fn(&T) -> String,
}

impl<T> Format for Parsed<T> {
    type Value = T;

    fn read(&self, text: &str) -> Reading<T> {
        (self.parse)(text)
    }

    fn write(&self, value: &T) -> String {
        (self.write)(value)
    }

    fn allowed(&self) -> String {
        self.allowed.to_owned()
    }
}

/// A value that is written as a number.
pub(super) struct Numeric<T>(Parsed<T>);

impl<T> Format for Numeric<T> {
    type Value = T;

    fn read(&self, text: &str) -> Reading<T> {
        self.0.read(text)
    }

    fn write(&self, value: &T) -> String {
        self.0.write(value)
    }

    fn allowed(&self) -> String {
        self.0.allowed()
    }

    fn is_typed(&self, _: &str) -> bool {
        true
    }
}

/// An address to listen on.
pub(super) const ADDRESS: Parsed<SocketAddr> = Parsed {
    allowed: "an IP address and a port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080",
    parse: |text| {
        text.parse().map_err(|_| match text.strip_prefix(':') {
            Some(port) if port.parse::<u16>().is_ok() => Some(format!("write 0.0.0.0:{port} for every address")),
            _ => None,
        })
    },
    write: ToString::to_string,
};

/// A network, or one address.
pub(super) const NETWORK: Parsed<IpNet> = Parsed {
    allowed: "a network such as 10.0.0.0/8 or fd00::/8, or an IP address",
    parse: |text| {
        let one_address = || text.parse::<IpAddr>().map(IpNet::from).map_err(|_| None);
        let network = text.parse::<IpNet>().or_else(|_| one_address())?;
        match network.trunc() {
            truncated if truncated == network => Ok(network),
            truncated => Err(Some(format!("this has bits beyond its prefix: write {truncated}"))),
        }
    },
    write: ToString::to_string,
};

/// Where health checkers come from.
pub(super) const PROBE_SOURCE: Parsed<ProbeSource> = Parsed {
    allowed: "loopback, private, a network such as 35.191.0.0/16, or an IP address",
    parse: |text| match text {
        "loopback" => Ok(ProbeSource::Loopback),
        "private" => Ok(ProbeSource::Private),
        _ => (NETWORK.parse)(text).map(ProbeSource::Network),
    },
    write: |source| match source {
        ProbeSource::Loopback => "loopback".to_owned(),
        ProbeSource::Private => "private".to_owned(),
        ProbeSource::Network(network) => network.to_string(),
    },
};

/// The code of a Close frame that closewatch puts in.
pub(super) const CLOSE_CODE: Numeric<CloseCode> = Numeric(Parsed {
    allowed: "a Close code that endpoints accept: 1000-1003, 1007-1014, 3000-4999",
    parse: |text| {
        let code = Whole(0..=u16::MAX).read(text).map(CloseCode)?;
        match code {
            CloseCode(1004) => Err(Some("1004 has no meaning yet".to_owned())),
            CloseCode::NO_STATUS | CloseCode::ABNORMAL | CloseCode::TLS => {
                Err(Some(format!("{} is never sent, only reported by an endpoint's API", code.0)))
            }
            // Legal on the wire one day; today endpoints answer these with 1002 (RFC 6455, 7.4.2).
            CloseCode(1016..=2999) => Err(Some("1016-2999 are reserved".to_owned())),
            code if code.allowed_on_wire() => Ok(code),
            _ => Err(None),
        }
    },
    write: |code| code.0.to_string(),
});

/// The reason of a Close frame: what a control frame's 125 bytes leave beside the code (RFC 6455, 5.5).
pub(super) const CLOSE_REASON: Parsed<String> = Parsed {
    allowed: "a text of at most 123 bytes",
    parse: |text| match text.len() {
        ..=MAX_REASON => Ok(text.to_owned()),
        length => Err(Some(format!("this one has {length}"))),
    },
    write: Clone::clone,
};

/// A route's name, which becomes a label value.
pub(super) const ROUTE_NAME: Parsed<String> = Parsed {
    allowed: "a name of 1 to 64 letters, digits, `-`, `_`, `.`, `:` or `/`",
    parse: |text| {
        let fits = |character: char| character.is_alphanumeric() || "-_.:/".contains(character);
        match text {
            "probe" => Err(Some("probe is the route of health checkers' sessions (see probes)".to_owned())),
            _ if (1..=64).contains(&text.chars().count()) && text.chars().all(fits) => Ok(text.to_owned()),
            _ => Err(None),
        }
    },
    write: Clone::clone,
};

/// A host name as a Host header has it.
pub(super) const HOST_NAME: Parsed<String> = Parsed {
    allowed: "a host name or an IP address, without scheme, port or wildcard, such as chat.example.com",
    parse: |text| match is_host(text) {
        true => Ok(text.to_owned()),
        false if text.contains('*') => {
            Err(Some("wildcards are not known: leave host out, or name each one".to_owned()))
        }
        false => Err(None),
    },
    write: Clone::clone,
};

/// Whether `text` can be the host of a URL: a name, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(fits)
}

/// What a request's path begins with.
pub(super) const PATH_PREFIX: Parsed<String> = Parsed {
    allowed: "a path that begins with /, without query, such as /chat",
    parse: |text| {
        let fits = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
        if text.starts_with('/') && text.bytes().all(fits) { Ok(text.to_owned()) } else { Err(None) }
    },
    write: Clone::clone,
};

/// A part of a User-Agent header.
pub(super) const USER_AGENT: Parsed<String> = Parsed {
    allowed: "a part of a User-Agent header, not empty, such as kube-probe",
    parse: |text| {
        // An empty one would be part of every header.
        let fits = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if !text.trim().is_empty() && text.bytes().all(fits) { Ok(text.to_owned()) } else { Err(None) }
    },
    write: Clone::clone,
};

/// A code that always has its own series.
pub(super) const CUSTOM_CODE: Numeric<u16> = Numeric(Parsed {
    allowed: "a code from 3000 to 4999",
    parse: |text| match Whole(0..=u16::MAX).read(text)? {
        code @ 3000..=4999 => Ok(code),
        code @ ..3000 => Err(Some(format!("{code} needs no mention: codes below 3000 are never folded together"))),
        _ => Err(None),
    },
    write: ToString::to_string,
});

/// An upper bound of a histogram.
pub(super) const BUCKET: Numeric<f64> = Numeric(Parsed {
    allowed: "a number above 0, such as 0.5 or 30; +Inf is always there",
    parse: |text| match text.parse::<f64>() {
        Ok(bound) if bound.is_finite() && bound > 0.0 => Ok(bound),
        _ => Err(None),
    },
    write: ToString::to_string,
});

#[cfg(test)]
mod tests {
    use super::{
        super::format::tests::{reads, refuses},
        *,
    };

    #[test]
    fn addresses() {
        reads(&ADDRESS, &[("0.0.0.0:8080", ([0, 0, 0, 0], 8080).into()), ("[::1]:0", "[::1]:0".parse().unwrap())]);
        refuses(&ADDRESS, &["", "8080", "localhost:8080", "127.0.0.1", "127.0.0.1:65536", "::1:80", ":8080"]);
        assert_eq!(ADDRESS.read(":8080"), Err(Some("write 0.0.0.0:8080 for every address".to_owned())));
    }

    #[test]
    fn networks() {
        reads(&NETWORK, &[("10.0.0.0/8", "10.0.0.0/8".parse().unwrap()), ("::1", "::1/128".parse().unwrap())]);
        refuses(&NETWORK, &["", "10.0.0.0/33", "10.0.0/8", "10.0.0.1/8", "everyone"]);
        reads(&PROBE_SOURCE, &[("loopback", ProbeSource::Loopback), ("private", ProbeSource::Private)]);
        refuses(&PROBE_SOURCE, &["public", ""]);
    }

    #[test]
    fn close_codes_are_those_that_endpoints_accept() {
        for code in [1000, 1001, 1003, 1007, 1014, 3000, 3999, 4000, 4999] {
            assert_eq!(CLOSE_CODE.read(&code.to_string()), Ok(CloseCode(code)));
        }
        refuses(&CLOSE_CODE, &["", "0", "999", "1004", "1005", "1006", "1015", "1016", "2999", "5000", "65536", "off"]);
    }

    #[test]
    fn close_reasons_are_counted_in_bytes() {
        assert!(CLOSE_REASON.read(&"a".repeat(123)).is_ok());
        assert_eq!(CLOSE_REASON.read(&"ä".repeat(62)), Err(Some("this one has 124".to_owned())));
    }

    #[test]
    fn names_that_become_labels_or_are_compared() {
        reads(&ROUTE_NAME, &[("chat", "chat".to_owned()), ("räume/2.0", "räume/2.0".to_owned())]);
        refuses(&ROUTE_NAME, &["", " ", "a b", "a\"b", "a\\b", "a\nb", "probe", &"x".repeat(65)]);
        reads(&HOST_NAME, &[("a.example", "a.example".to_owned()), ("[::1]", "[::1]".to_owned())]);
        refuses(&HOST_NAME, &["", "a.example:80", "http://a", "*.example", "a b", "[::1", "a/b", &"x".repeat(254)]);
        reads(&PATH_PREFIX, &[("/", "/".to_owned()), ("/a/b", "/a/b".to_owned())]);
        refuses(&PATH_PREFIX, &["", "chat", "/a?b", "/a#b", "/a b"]);
        refuses(&USER_AGENT, &["", "  ", "a\nb"]);
    }

    #[test]
    fn metrics() {
        reads(&CUSTOM_CODE, &[("3000", 3000), ("4999", 4999)]);
        refuses(&CUSTOM_CODE, &["2999", "1000", "5000", "many"]);
        reads(&BUCKET, &[("0.005", 0.005), ("30", 30.0), ("1e6", 1e6)]);
        refuses(&BUCKET, &["", "0", "-1", "inf", "+Inf", "NaN", "1s"]);
    }
}
