//! The ways to write a single value. Each is a [`Format`]; a [`Setting`] gives it serde, garde and schemars.

use std::{
    fmt::{self, Display},
    marker::PhantomData,
    net::{IpAddr, SocketAddr},
    ops::Deref,
    str::FromStr,
    time::Duration,
};

use bytesize::ByteSize;
use garde::{Path, Report, Validate};
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use strum::{EnumString, IntoStaticStr, VariantNames};

use super::{schema, types::ProbeSource};
use crate::{
    authority::{Host, InvalidAddress, UpstreamUrl},
    websocket::close_code::{CloseCode, MAX_REASON},
};

/// A value in the configuration, written in the format `F`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting<F: Format>(pub F::Value);

/// A way to write values of one type. Errors are remedies for the user, or empty.
pub trait Format {
    /// The type.
    type Value;

    /// Describes every text that is allowed, for errors and for the schema.
    fn allowed() -> String;

    /// Reads a scalar.
    fn read(text: &str) -> Result<Self::Value, String>;

    /// Returns the text that is read as `value`.
    fn write(value: &Self::Value) -> String;

    /// Checks a value that could be read.
    fn check(_: &Self::Value) -> Result<(), String> {
        Ok(())
    }

    /// The JSON Schema of what is allowed, as far as a schema can express it.
    fn schema() -> Schema {
        json_schema!({"type": "string"})
    }
}

impl<F: Format> Display for Setting<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&F::write(&self.0))
    }
}

impl<F: Format> Deref for Setting<F> {
    type Target = F::Value;

    fn deref(&self) -> &F::Value {
        &self.0
    }
}

impl<'de, F: Format> Deserialize<'de> for Setting<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // YAML's own types do not matter: `off` is a boolean to some readers, and a route may be called 123.
        deserializer.deserialize_str(ScalarVisitor(PhantomData))
    }
}

struct ScalarVisitor<F>(PhantomData<F>);

impl<F: Format> de::Visitor<'_> for ScalarVisitor<F> {
    type Value = Setting<F>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&F::allowed())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Setting<F>, E> {
        // YAML 1.1 tools turn `off` into `false`.
        let off = |remedy| if text == "false" { F::read("off").map_err(|_| remedy) } else { Err(remedy) };
        let value = F::read(text).or_else(off).map(Setting);
        value.map_err(|remedy| E::custom(refusal::<F>(text, &remedy)))
    }
}

impl<F: Format> Serialize for Setting<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The default of a required key is invalid: it has none in the schema.
        F::check(&self.0).map_err(ser::Error::custom)?;
        let text = F::write(&self.0);
        // A route may be called 123, which is no number.
        match serde_json::from_str::<serde_json::Number>(&text) {
            Ok(number) if F::schema().get("type") != Some(&"string".into()) => number.serialize(serializer),
            _ => serializer.serialize_str(&text),
        }
    }
}

impl<F: Format> Validate for Setting<F> {
    type Context = ();

    fn validate_into(&self, (): &(), parent: &mut dyn FnMut() -> Path, report: &mut Report) {
        if let Err(remedy) = F::check(&self.0) {
            report.append(parent(), garde::Error::new(refusal::<F>(&F::write(&self.0), &remedy)));
        }
    }
}

impl<F: Format> JsonSchema for Setting<F> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        F::allowed().into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = F::schema();
        schema.insert(schema::ALLOWED.to_owned(), F::allowed().into());
        schema
    }
}

fn refusal<F: Format>(found: &str, remedy: &str) -> String {
    let separator = if remedy.is_empty() { "" } else { "; " };
    format!("found {found:?}, allowed: {}{separator}{remedy}", F::allowed())
}

/// Drops an error that says no more than [`Format::allowed`].
fn no_remedy<E>(_: E) -> String {
    String::new()
}

fn require(holds: bool) -> Result<(), String> {
    if holds { Ok(()) } else { Err(String::new()) }
}

/// Declares formats by their functions.
macro_rules! formats {
    ($(
        $({$($generics:tt)*})? $format:ty as $value:ty {
            allowed: $allowed:expr,
            read($text:ident): $read:expr,
            write($written:pat): $write:expr,
            $(check($checked:ident): $check:expr,)?
            $(schema: $schema:expr,)?
        }
    )+) => {$(
        impl $(<$($generics)*>)? Format for $format {
            type Value = $value;

            fn allowed() -> String {
                $allowed.to_string()
            }

            fn read($text: &str) -> Result<$value, String> {
                $read
            }

            fn write($written: &$value) -> String {
                $write
            }

            $(fn check($checked: &$value) -> Result<(), String> {
                $check
            })?

            $(fn schema() -> Schema {
                $schema
            })?
        }
    )+};
}

/// Declares enumerations that are written as the names of their variants.
macro_rules! words {
    ($($(#[$meaning:meta])* $name:ident: $($word:ident),+ $(; $remark:literal)?;)+) => {$(
        #[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
        #[strum(serialize_all = "lowercase")]
        #[allow(missing_docs, reason = "the key's documentation explains its words")]
        $(#[$meaning])*
        pub enum $name {
            $($word,)+
        }

        formats! {
            $name as $name {
                allowed: $name::VARIANTS.join(", ") + concat!("" $(, "; ", $remark)?),
                read(text): text.parse().map_err(no_remedy),
                write(word): <&str>::from(word).to_owned(),
                schema: json_schema!({"enum": $name::VARIANTS}),
            }
        }
    )+};
}

/// Declares texts that a rule restricts.
macro_rules! texts {
    ($($(#[$meaning:meta])* $name:ident($text:ident): $allowed:literal => $check:expr;)+) => {$(
        $(#[$meaning])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name;

        formats! {
            $name as String {
                allowed: $allowed,
                read(text): Ok(text.to_owned()),
                write(value): value.clone(),
                check($text): $check,
            }
        }
    )+};
}

words! {
    /// The word that switches a limit off.
    OffWord: Off;
    /// The word that leaves a value to closewatch.
    AutoWord: Auto;
    /// The only form of a section that a later version brings. Another one is refused, never ignored.
    NotYet: Off; "TLS is not supported yet";
    /// The short form of a reaction to a loss: the other endpoint gets the same loss.
    SameLoss: Propagate; "or {code: ..., reason: ...}";
    /// Whether a client connection begins with a PROXY protocol header.
    ProxyProtocol: Off, Accept, Require;
    /// The PROXY protocol header that a server gets.
    ProxyHeader: Off, V2;
    /// The change to the `X-Forwarded-*` headers.
    ForwardedMode: Append, Replace, Off;
    /// The value of `X-Forwarded-Proto`.
    ForwardedProto: Auto, Http, Https;
    /// The Host header that the server gets: the client's, or that of the upstream's URL.
    HostHeader: Preserve, Upstream;
    /// Whether something is shown.
    Shown: Full, Off;
    /// The part of a client's address that is shown.
    ClientPrivacy: Full, Prefix, Off;
    /// The shape of a log line.
    LogFormat: Text, Json;
    /// The least severe level of a log, in the words of `tracing`.
    LogLevel: Error, Warn, Info, Debug, Trace;
    /// The sessions whose end is logged.
    LogSessions: All, Abnormal, Off;
}

texts! {
    /// The reason of a Close frame: what the 125 bytes of a control frame leave beside the code (RFC 6455, 5.5).
    Reason(text): "a text of at most 123 bytes" =>
        if text.len() <= MAX_REASON { Ok(()) } else { Err(format!("this one has {}", text.len())) };

    /// The name of a route, which becomes a label value.
    RouteName(text): "a name of 1 to 64 letters, digits, `-`, `_`, `.`, `:` or `/`" => match text.chars().count() {
        5 if text == "probe" => Err("probe is the route of health checkers' sessions (see probes)".to_owned()),
        length => require((1..=64).contains(&length) && text.chars().all(|c| c.is_alphanumeric() || "-_.:/".contains(c))),
    };

    /// The beginning of a request's path.
    PathPrefix(text): "a path that begins with /, without query, such as /chat" =>
        require(text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte)));

    /// The start of a User-Agent header. Every header begins with an empty one.
    UserAgent(text): "the start of a User-Agent header, not empty, such as kube-probe" =>
        require(!text.trim().is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
}

/// `off`, or a value.
pub type Off<F> = Or<OffWord, F>;

/// `auto`, or a value.
pub type Auto<F> = Or<AutoWord, F>;

/// A word that stands for `None`, or a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Or<W, F>(PhantomData<(W, F)>);

/// A whole number within a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole<T, const LEAST: u64, const MOST: u64>(PhantomData<T>);

/// A number of bytes within a range: `65536`, `64KiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size<T, const LEAST: u64, const MOST: u64>(PhantomData<T>);

/// A duration within a range, in whole multiples of a step, all in milliseconds: `250ms`, `30s`, `5m`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time<const LEAST: u64, const MOST: u64, const STEP: u64>;

/// A type of whole numbers.
pub trait Number: Copy + Display + FromStr + TryFrom<u64> + TryInto<u64> {}

impl<T: Copy + Display + FromStr + TryFrom<u64> + TryInto<u64>> Number for T {}

formats! {
    {W: Format, F: Format} Or<W, F> as Option<F::Value> {
        allowed: format!("{}, or {}", W::allowed(), F::allowed()),
        read(text): if W::read(text).is_ok() { Ok(None) } else { F::read(text).map(Some) },
        write(value): value.as_ref().map_or_else(W::allowed, F::write),
        check(value): value.as_ref().map_or(Ok(()), F::check),
        schema: json_schema!({"anyOf": [W::schema(), F::schema()]}),
    }

    {T: Number, const LEAST: u64, const MOST: u64} Whole<T, LEAST, MOST> as T {
        allowed: format!("a whole number from {LEAST} to {MOST}"),
        read(text): text.parse().map_err(no_remedy),
        write(value): value.to_string(),
        check(value): is_within(*value, LEAST, MOST),
        schema: json_schema!({"type": "integer", "minimum": LEAST, "maximum": MOST}),
    }

    {T: Number, const LEAST: u64, const MOST: u64} Size<T, LEAST, MOST> as T {
        allowed: format!("a number of bytes from {} to {}, such as 65536, 64KiB or 1MiB", size(LEAST), size(MOST)),
        read(text): text.parse().map_err(no_remedy).and_then(|ByteSize(bytes)| bytes.try_into().map_err(no_remedy)),
        write(value): (*value).try_into().map_or_else(|_| value.to_string(), size),
        check(value): is_within(*value, LEAST, MOST),
        schema: json_schema!({"type": ["integer", "string"], "minimum": LEAST, "maximum": MOST, "pattern": SIZE}),
    }

    {const LEAST: u64, const MOST: u64, const STEP: u64} Time<LEAST, MOST, STEP> as Duration {
        allowed: {
            let example = if STEP == 1 { "such as 250ms, 30s, 5m or 1h" } else { "in whole seconds, such as 30s" };
            format!("a duration from {} to {}, {example}", time(LEAST), time(MOST))
        },
        read(text): match (humantime::parse_duration(text), text.parse::<u32>()) {
            (Ok(duration), _) if duration.subsec_nanos().is_multiple_of(1_000_000) => Ok(duration),
            (_, Ok(number)) => Err(format!("the unit is missing: write {number}s")),
            _ => Err(String::new()),
        },
        write(value): time(u64::try_from(value.as_millis()).unwrap_or(u64::MAX)),
        check(value): is_within(value.as_millis(), LEAST, MOST)
            .and_then(|()| require(value.as_millis().is_multiple_of(u128::from(STEP)))),
        schema: json_schema!({"type": "string", "pattern": "^(0|([0-9.]+ ?[a-z]+ ?)+)$"}),
    }

    // The upper bound of a histogram's bucket.
    f64 as f64 {
        allowed: "a number above 0, such as 0.5 or 30; +Inf is always there",
        read(text): text.parse().map_err(no_remedy),
        write(value): value.to_string(),
        check(value): require(value.is_finite() && *value > 0.0),
        schema: json_schema!({"type": "number", "exclusiveMinimum": 0}),
    }

    // An address to listen on.
    SocketAddr as SocketAddr {
        allowed: "an IP address and a port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080",
        read(text): text.parse().map_err(|_| match text.strip_prefix(':').map(str::parse::<u16>) {
            Some(Ok(port)) => format!("write 0.0.0.0:{port} for all addresses of this machine"),
            _ => String::new(),
        }),
        write(value): value.to_string(),
    }

    // A network, or one address.
    IpNet as IpNet {
        allowed: "a network such as 10.0.0.0/8 or fd00::/8, or an IP address",
        read(text): text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(no_remedy),
        write(value): value.to_string(),
        check(value): match value.trunc() {
            network if network == *value => Ok(()),
            network => Err(format!("bits after the prefix are set: write {network}")),
        },
    }

    // An origin of health checkers.
    ProbeSource as ProbeSource {
        allowed: "loopback, private, a network such as 35.191.0.0/16, or an IP address",
        read(text): match text {
            "loopback" => Ok(ProbeSource::Loopback),
            "private" => Ok(ProbeSource::Private),
            _ => IpNet::read(text).map(ProbeSource::Network),
        },
        write(value): match value {
            ProbeSource::Loopback => "loopback".to_owned(),
            ProbeSource::Private => "private".to_owned(),
            ProbeSource::Network(network) => network.to_string(),
        },
        check(value): if let ProbeSource::Network(network) = value { IpNet::check(network) } else { Ok(()) },
    }

    // The code of a Close frame that closewatch sends.
    CloseCode as CloseCode {
        allowed: "a Close code that endpoints accept: 1000-1003, 1007-1014, 3000-4999",
        read(text): text.parse().map(CloseCode).map_err(no_remedy),
        write(code): code.0.to_string(),
        // RFC 6455, 7.4.1 reserves some; endpoints answer 1016 to 2999 with 1002 today (7.4.2).
        check(code): match code.0 {
            number @ (1004..=1006 | 1015..=2999) => Err(format!("{number} is reserved")),
            _ => require(code.allowed_on_wire()),
        },
        schema: json_schema!({"type": "integer", "minimum": 1000, "maximum": 4999}),
    }

    // A host name as in a Host header.
    Host as Host {
        allowed: Host::ALLOWED,
        read(text): text.parse().map_err(|error: InvalidAddress| error.remedy().to_owned()),
        write(value): value.to_string(),
    }

    // The URL of a server. The issue that brings TLS allows what `UpstreamUrl::ALLOWED` says.
    UpstreamUrl as UpstreamUrl {
        allowed: "ws://HOST:PORT, http://HOST:PORT or unix:/PATH",
        read(text): text.parse().map_err(|error: InvalidAddress| error.remedy().to_owned()),
        write(value): value.to_string(),
        check(value): match value {
            UpstreamUrl::Tcp(url) if url.scheme.is_tls() => Err("TLS toward the server is not supported yet".to_owned()),
            url => require(*url != missing_url()),
        },
    }
}

/// The texts that `ByteSize` reads.
const SIZE: &str = "^[0-9.]+ ?([KMGTkmgt]i?)?[Bb]?$";

fn is_within<T: TryInto<u64>>(number: T, least: u64, most: u64) -> Result<(), String> {
    require(number.try_into().is_ok_and(|number| (least..=most).contains(&number)))
}

/// Returns bytes in the largest unit that divides them. `ByteSize` itself rounds.
fn size(bytes: u64) -> String {
    in_largest_unit(bytes, &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]).unwrap_or_else(|| bytes.to_string())
}

/// Returns a duration in the largest unit that divides it: `65s`, not the `1m 5s` of humantime.
fn time(milliseconds: u64) -> String {
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    in_largest_unit(milliseconds, &units).unwrap_or_else(|| "0s".to_owned())
}

fn in_largest_unit(number: u64, units: &[(&str, u64)]) -> Option<String> {
    let (name, unit) = units.iter().find(|(_, unit)| number > 0 && number.is_multiple_of(*unit))?;
    Some(format!("{}{name}", number / unit))
}

/// The URL of an upstream that the file does not name. A flag may still replace it; else it is refused.
pub(super) fn missing_url() -> UpstreamUrl {
    UpstreamUrl::Unix(std::path::PathBuf::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each text is read as a valid value, which is written so that it is read again.
    fn reads<F: Format<Value: PartialEq + fmt::Debug>>(cases: &[(&str, F::Value)]) {
        for (text, value) in cases {
            assert_eq!(F::read(text).as_ref(), Ok(value), "{text}");
            assert_eq!(F::check(value), Ok(()), "{text}");
            assert_eq!(F::read(&F::write(value)).as_ref(), Ok(value), "{text} written and read again");
        }
    }

    fn refuses<F: Format>(texts: &[&str]) {
        for text in texts {
            assert!(F::read(text).and_then(|value| F::check(&value)).is_err(), "{text:?} must be refused");
        }
    }

    type Year = Time<0, 31_536_000_000, 1>;
    type Seconds = Time<1_000, 32_767_000, 1_000>;
    type Bytes = Size<u64, 1, { 1 << 40 }>;

    #[test]
    fn durations() {
        let seconds = Duration::from_secs;
        reads::<Year>(&[("250ms", Duration::from_millis(250)), ("30s", seconds(30)), ("5m", seconds(300))]);
        reads::<Year>(&[("1h", seconds(3600)), ("0s", seconds(0)), ("0ms", seconds(0)), ("1m 30s", seconds(90))]);
        refuses::<Year>(&["", "s", "30", "-1s", "+1s", "1us", "30S", "off", "99999999999999999999s", "8761h"]);
        refuses::<Seconds>(&["500ms", "1500ms", "0s", "32768s"]);
        reads::<Seconds>(&[("45s", seconds(45)), ("2000ms", seconds(2))]);
        reads::<Off<Seconds>>(&[("off", None), ("2s", Some(seconds(2)))]);
        assert_eq!(Year::read("30"), Err("the unit is missing: write 30s".to_owned()));
    }

    #[test]
    fn duration_is_written_in_its_largest_whole_unit() {
        let cases = [(0, "0s"), (250, "250ms"), (1500, "1500ms"), (65_000, "65s"), (60_000, "1m"), (7_200_000, "2h")];
        for (milliseconds, text) in cases {
            assert_eq!(time(milliseconds), text);
        }
    }

    #[test]
    fn sizes() {
        reads::<Bytes>(&[("1", 1), ("65536", 65_536), ("512B", 512), ("64KiB", 65_536), ("256MiB", 1 << 28)]);
        reads::<Bytes>(&[("1GiB", 1 << 30), ("1024GiB", 1 << 40), ("1.5MiB", 1_572_864), ("64KB", 64_000)]);
        refuses::<Bytes>(&["", "0", "-1", "1e3", "1025GiB", "18446744073709551615GiB", "off"]);
        assert_eq!((size(65_536), size(65_537)), ("64KiB".to_owned(), "65537".to_owned()));
    }

    #[test]
    fn whole_numbers() {
        type Probes = Whole<u32, 1, 127>;
        reads::<Probes>(&[("1", 1), ("127", 127), ("007", 7)]);
        refuses::<Probes>(&["", "0", "128", "-1", "1.0", "0x10", "one", "99999999999"]);
    }

    #[test]
    fn bounds() {
        reads::<f64>(&[("0.005", 0.005), ("30", 30.0), ("1e6", 1e6)]);
        refuses::<f64>(&["", "0", "-1", "inf", "+Inf", "NaN", "1s"]);
    }

    #[test]
    fn addresses() {
        reads::<SocketAddr>(&[("0.0.0.0:8080", ([0, 0, 0, 0], 8080).into()), ("[::1]:0", "[::1]:0".parse().unwrap())]);
        refuses::<SocketAddr>(&["", "8080", "localhost:8080", "127.0.0.1", "127.0.0.1:65536", "::1:80", ":8080"]);
        assert_eq!(SocketAddr::read(":8080"), Err("write 0.0.0.0:8080 for all addresses of this machine".to_owned()));
    }

    #[test]
    fn networks() {
        reads::<IpNet>(&[("10.0.0.0/8", "10.0.0.0/8".parse().unwrap()), ("::1", "::1/128".parse().unwrap())]);
        refuses::<IpNet>(&["", "10.0.0.0/33", "10.0.0/8", "10.0.0.1/8", "everyone"]);
        reads::<ProbeSource>(&[("loopback", ProbeSource::Loopback), ("private", ProbeSource::Private)]);
        refuses::<ProbeSource>(&["public", "", "10.0.0.1/8"]);
    }

    #[test]
    fn close_code_is_one_that_endpoints_accept() {
        for code in [1000, 1001, 1003, 1007, 1014, 3000, 3999, 4000, 4999] {
            reads::<CloseCode>(&[(&code.to_string(), CloseCode(code))]);
        }
        refuses::<CloseCode>(&["", "0", "999", "1004", "1005", "1006", "1015", "1016", "2999", "5000", "65536", "off"]);
    }

    #[test]
    fn close_reason_is_counted_in_bytes() {
        assert!(Reason::check(&"a".repeat(123)).is_ok());
        assert_eq!(Reason::check(&"ä".repeat(62)), Err("this one has 124".to_owned()));
    }

    #[test]
    fn texts() {
        reads::<RouteName>(&[("chat", "chat".to_owned()), ("räume/2.0", "räume/2.0".to_owned())]);
        refuses::<RouteName>(&["", " ", "a b", "a\"b", "a\\b", "a\nb", "probe", &"x".repeat(65)]);
        reads::<PathPrefix>(&[("/", "/".to_owned()), ("/a/b", "/a/b".to_owned())]);
        refuses::<PathPrefix>(&["", "chat", "/a?b", "/a#b", "/a b"]);
        refuses::<UserAgent>(&["", "  ", "a\nb"]);
    }

    #[test]
    fn words() {
        reads::<LogLevel>(&[("error", LogLevel::Error), ("trace", LogLevel::Trace)]);
        refuses::<LogLevel>(&["", "1", "INFO", "off", "loud"]);
        reads::<Auto<f64>>(&[("auto", None), ("2", Some(2.0))]);
    }
}
