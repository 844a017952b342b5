//! How single values are written: text to value, value to text, and what is allowed, in words. What is particular to
//! closewatch's keys stands in `grammars`.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

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

    /// Whether the text may stand in quotes.
    fn takes_quoted(&self) -> bool {
        true
    }

    /// Whether `text`, which this wrote, is meant as a number or a boolean, not as a text.
    fn is_typed(&self, _text: &str) -> bool {
        false
    }
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
pub(super) struct Boolean;

impl Format for Boolean {
    type Value = bool;

    /// The spellings of the core schema (YAML 1.2.2, 10.3.2).
    fn read(&self, text: &str) -> Reading<bool> {
        match text {
            "true" | "True" | "TRUE" => Ok(true),
            "false" | "False" | "FALSE" => Ok(false),
            _ => Err(None),
        }
    }

    fn write(&self, value: &bool) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        "true, false".to_owned()
    }

    /// In quotes it is a text.
    fn takes_quoted(&self) -> bool {
        false
    }

    fn is_typed(&self, _: &str) -> bool {
        true
    }
}

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

    fn is_typed(&self, text: &str) -> bool {
        text != self.word && self.other.is_typed(text)
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

    fn is_typed(&self, _: &str) -> bool {
        true
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

    fn is_typed(&self, _: &str) -> bool {
        true
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
        let (what, example) = match self.step.subsec_millis() {
            0 => ("a duration of whole seconds", "30s"),
            _ => ("a duration", "250ms, 30s"),
        };
        format!("{what} from {least} to {most}, such as {example}, 5m or 1h")
    }
}

/// The whole number that a text begins with, and what follows it.
fn split_number(text: &str) -> (Option<u64>, &str) {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (digits.parse().ok(), rest)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Each text, and the value it is read as.
    pub(in super::super) fn reads<F: Format<Value: PartialEq + std::fmt::Debug>>(
        format: &F,
        cases: &[(&str, F::Value)],
    ) {
        for (text, value) in cases {
            assert_eq!(format.read(text).as_ref(), Ok(value), "{text}");
            assert_eq!(format.read(&format.write(value)).as_ref(), Ok(value), "{text} written and read again");
        }
    }

    pub(in super::super) fn refuses<F: Format>(format: &F, texts: &[&str]) {
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
    fn booleans() {
        reads(&Boolean, &[("true", true), ("True", true), ("TRUE", true)]);
        reads(&Boolean, &[("false", false), ("False", false), ("FALSE", false)]);
        refuses(&Boolean, &["", "tRUE", "yes", "on", "off", "1", "0"]);
    }

    #[test]
    fn whole_numbers() {
        reads(&Whole(1..=127_u32), &[("1", 1), ("127", 127), ("007", 7)]);
        refuses(&Whole(1..=127_u32), &["", "0", "128", "+1", "-1", "1.0", "0x10", "one", "99999999999"]);
    }
}
