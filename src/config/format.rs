//! How single values are written: text to value, value to text, and what is allowed, in words.

use std::{
    fmt::Display,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use ipnet::IpNet;

use super::types::ProbeSource;
use crate::websocket::close::CloseCode;

/// A value, or why there is none, where that is not plain from [`Format::allowed`].
pub(super) type Reading<T> = Result<T, Option<String>>;

/// A way to write values of one type.
pub(super) trait Format {
    /// What is read.
    type Value;

    fn read(&self, text: &str) -> Reading<Self::Value>;

    /// The text that is read as `value`.
    fn write(&self, value: &Self::Value) -> String;

    /// What is allowed, to stand behind "allowed: ".
    fn allowed(&self) -> String;
}

/// One of some words.
pub(super) struct Words<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Format for Words<T> {
    type Value = T;

    fn read(&self, text: &str) -> Reading<T> {
        self.0.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or(None)
    }

    fn write(&self, value: &T) -> String {
        self.0.iter().find(|(_, known)| known == value).map_or_else(String::new, |(word, _)| (*word).to_owned())
    }

    fn allowed(&self) -> String {
        self.0.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
    }
}

/// `true` or `false`.
pub(super) const BOOLEAN: Words<bool> = Words(&[("true", true), ("false", false)]);

/// A word that stands for `None`, or else a value: `off`, `auto`.
pub(super) struct WordOr<F> {
    pub(super) word: &'static str,
    pub(super) other: F,
}

pub(super) const fn off_or<F>(other: F) -> WordOr<F> {
    WordOr { word: "off", other }
}

pub(super) const fn auto_or<F>(other: F) -> WordOr<F> {
    WordOr { word: "auto", other }
}

impl<F: Format> Format for WordOr<F> {
    type Value = Option<F::Value>;

    fn read(&self, text: &str) -> Reading<Self::Value> {
        if text == self.word { Ok(None) } else { self.other.read(text).map(Some) }
    }

    fn write(&self, value: &Self::Value) -> String {
        value.as_ref().map_or_else(|| self.word.to_owned(), |value| self.other.write(value))
    }

    fn allowed(&self) -> String {
        format!("{}, or {}", self.word, self.other.allowed())
    }
}

/// A whole number within a range.
pub(super) struct Whole<T>(pub(super) RangeInclusive<T>);

impl<T: FromStr + Display + PartialOrd> Format for Whole<T> {
    type Value = T;

    fn read(&self, text: &str) -> Reading<T> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number.filter(|number| self.0.contains(number)).ok_or(None)
    }

    fn write(&self, value: &T) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        format!("a whole number from {} to {}", self.0.start(), self.0.end())
    }
}

/// A number of bytes within a range: `65536`, `64KiB`.
pub(super) struct Size(pub(super) RangeInclusive<u64>);

/// From the largest, so that the first that divides a size is its shortest spelling.
const SIZE_UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// More than any machine has; far from any overflow.
pub(super) const LARGEST_SIZE: u64 = 1 << 40;

impl Format for Size {
    type Value = u64;

    fn read(&self, text: &str) -> Reading<u64> {
        let (number, unit) = split_number(text);
        let scale = match SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
            Some((_, scale)) => *scale,
            None if unit.is_empty() || unit == "B" => 1,
            None => return Err(None),
        };
        let bytes = number.and_then(|number| number.checked_mul(scale));
        bytes.filter(|bytes| self.0.contains(bytes)).ok_or(None)
    }

    fn write(&self, bytes: &u64) -> String {
        match SIZE_UNITS.iter().find(|(_, scale)| *bytes > 0 && bytes.is_multiple_of(*scale)) {
            Some((unit, scale)) => format!("{}{unit}", bytes / scale),
            None => bytes.to_string(),
        }
    }

    fn allowed(&self) -> String {
        let (least, most) = (self.write(self.0.start()), self.write(self.0.end()));
        format!("a number of bytes from {least} to {most}, such as 65536, 64KiB or 1MiB")
    }
}

/// A duration within a range, in whole multiples of a step: `250ms`, `30s`, `5m`, `1h`.
pub(super) struct Time {
    range: RangeInclusive<Duration>,
    step: Duration,
}

/// From the longest, so that the first that divides a duration is its shortest spelling.
const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A year: timers are set to now and this, which must be a time.
const LONGEST: Duration = Duration::from_hours(24 * 365);

impl Time {
    /// Any duration, 0 too.
    pub(super) const ANY: Self = Self { range: Duration::ZERO..=LONGEST, step: Duration::from_millis(1) };

    /// A timeout: what ends at once is a mistake, not a wish.
    pub(super) const TIMEOUT: Self = Self { range: Duration::from_millis(1)..=LONGEST, step: Duration::from_millis(1) };

    /// What the kernel takes for `TCP_KEEPIDLE` and `TCP_KEEPINTVL` (tcp(7)).
    pub(super) const KEEPALIVE: Self =
        Self { range: Duration::from_secs(1)..=Duration::from_secs(32_767), step: Duration::from_secs(1) };
}

impl Format for Time {
    type Value = Duration;

    fn read(&self, text: &str) -> Reading<Duration> {
        let (number, unit) = split_number(text);
        let Some(number) = number else { return Err(None) };
        if unit.is_empty() {
            return Err(Some(format!("the unit is missing: write {number}s for seconds")));
        }
        let scale = TIME_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
        let milliseconds = scale.and_then(|scale| number.checked_mul(scale));
        let duration = milliseconds.map(Duration::from_millis);
        duration
            .filter(|duration| self.range.contains(duration))
            .filter(|duration| duration.as_millis().is_multiple_of(self.step.as_millis()))
            .ok_or(None)
    }

    fn write(&self, duration: &Duration) -> String {
        let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        match TIME_UNITS.iter().find(|(_, scale)| milliseconds > 0 && milliseconds.is_multiple_of(*scale)) {
            Some((unit, scale)) => format!("{}{unit}", milliseconds / scale),
            None => "0s".to_owned(),
        }
    }

    fn allowed(&self) -> String {
        let (least, most) = (self.write(self.range.start()), self.write(self.range.end()));
        let example = if self.step < Duration::from_secs(1) { "250ms, 30s" } else { "whole seconds: 30s" };
        format!("a duration from {least} to {most}, such as {example}, 5m or 1h")
    }
}

/// The whole number that a text begins with, and what follows it.
fn split_number(text: &str) -> (Option<u64>, &str) {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (digits.parse().ok(), rest)
}

/// Values with a grammar of their own.
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
pub(super) const CLOSE_CODE: Parsed<CloseCode> = Parsed {
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
};

/// The reason of a Close frame: what a control frame's 125 bytes leave beside the code (RFC 6455, 5.5).
pub(super) const CLOSE_REASON: Parsed<String> = Parsed {
    allowed: "a text of at most 123 bytes",
    parse: |text| match text.len() {
        ..=123 => Ok(text.to_owned()),
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
pub(super) const CUSTOM_CODE: Parsed<u16> = Parsed {
    allowed: "a code from 3000 to 4999",
    parse: |text| match Whole(0..=u16::MAX).read(text)? {
        code @ 3000..=4999 => Ok(code),
        code @ ..3000 => Err(Some(format!("{code} needs no mention: codes below 3000 are never folded together"))),
        _ => Err(None),
    },
    write: ToString::to_string,
};

/// An upper bound of a histogram.
pub(super) const BUCKET: Parsed<f64> = Parsed {
    allowed: "a number above 0, such as 0.5 or 30; +Inf is always there",
    parse: |text| match text.parse::<f64>() {
        Ok(bound) if bound.is_finite() && bound > 0.0 => Ok(bound),
        _ => Err(None),
    },
    write: ToString::to_string,
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Each text, and the value it is read as.
    fn reads<F: Format<Value: PartialEq + std::fmt::Debug>>(format: &F, cases: &[(&str, F::Value)]) {
        for (text, value) in cases {
            assert_eq!(format.read(text).as_ref(), Ok(value), "{text}");
            assert_eq!(format.read(&format.write(value)).as_ref(), Ok(value), "{text} written and read again");
        }
    }

    fn refuses<F: Format>(format: &F, texts: &[&str]) {
        for text in texts {
            assert!(format.read(text).is_err(), "{text:?} must be refused");
        }
    }

    #[test]
    fn durations() {
        let seconds = Duration::from_secs;
        let good = [("250ms", Duration::from_millis(250)), ("30s", seconds(30)), ("5m", seconds(300))];
        reads(&Time::ANY, &good);
        reads(&Time::ANY, &[("1h", seconds(3600)), ("0s", seconds(0)), ("0ms", seconds(0))]);
        let bad = ["", "s", "30", "-1s", "+1s", "1.5s", "30 s", "1d", "1m30s", "30S", "off", "99999999999999999999s"];
        refuses(&Time::ANY, &bad);
        refuses(&Time::ANY, &["8761h", "18446744073709551615h"]);
        refuses(&Time::TIMEOUT, &["0s", "0ms"]);
        refuses(&Time::KEEPALIVE, &["500ms", "1500ms", "0s", "32768s"]);
        reads(&Time::KEEPALIVE, &[("45s", seconds(45)), ("2000ms", seconds(2))]);
        reads(&off_or(Time::TIMEOUT), &[("off", None), ("2s", Some(seconds(2)))]);
        assert_eq!(Time::ANY.read("30"), Err(Some("the unit is missing: write 30s for seconds".to_owned())));
    }

    #[test]
    fn durations_are_written_in_their_largest_whole_unit() {
        let cases = [(0, "0s"), (250, "250ms"), (1500, "1500ms"), (65_000, "65s"), (60_000, "1m"), (7_200_000, "2h")];
        for (milliseconds, text) in cases {
            assert_eq!(Time::ANY.write(&Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn sizes() {
        let size = Size(1..=LARGEST_SIZE);
        reads(&size, &[("1", 1), ("65536", 65_536), ("512B", 512), ("64KiB", 65_536), ("256MiB", 1 << 28)]);
        reads(&size, &[("1GiB", 1 << 30), ("1024GiB", 1 << 40)]);
        refuses(&size, &["", "0", "-1", "64KB", "64 KiB", "1.5MiB", "1e3", "1025GiB", "18446744073709551615GiB"]);
        assert_eq!((size.write(&65_536), size.write(&65_537)), ("64KiB".to_owned(), "65537".to_owned()));
    }

    #[test]
    fn whole_numbers() {
        reads(&Whole(1..=127_u32), &[("1", 1), ("127", 127), ("007", 7)]);
        refuses(&Whole(1..=127_u32), &["", "0", "128", "+1", "-1", "1.0", "0x10", "one", "99999999999"]);
    }

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
