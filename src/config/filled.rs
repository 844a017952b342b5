//! A configuration with its defaults filled in, as YAML.

use std::fmt;

use super::format::Format;

/// A value as it is written. Scalars are YAML already.
#[derive(Debug)]
pub(super) enum Filled {
    Scalar(String),
    Scalars(Vec<String>),
    Mapping(Mapping),
    Mappings(Vec<Mapping>),
}

/// Keys and values as they are written. Displayed as YAML.
#[derive(Debug)]
pub(super) struct Mapping(pub(super) Vec<(&'static str, Filled)>);

impl fmt::Display for Mapping {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(key, value)| match value {
            Filled::Scalar(yaml) => writeln!(formatter, "{key}: {yaml}"),
            Filled::Scalars(items) => writeln!(formatter, "{key}: {}", yaml_list(items)),
            Filled::Mapping(Self(entries)) if entries.is_empty() => writeln!(formatter, "{key}: {{}}"),
            Filled::Mapping(mapping) => writeln!(formatter, "{key}:\n{}", mapping.block("  ")),
            Filled::Mappings(mappings) => {
                writeln!(formatter, "{key}:")?;
                mappings.iter().try_for_each(|mapping| writeln!(formatter, "{}", mapping.block("  - ")))
            }
        })
    }
}

impl Mapping {
    /// The lines of this mapping, the first behind `lead`, the others as far to the right.
    fn block(&self, lead: &str) -> String {
        let indent = format!("\n{:1$}", "", lead.len());
        format!("{lead}{}", self.to_string().trim_end().replace('\n', &indent))
    }
}

/// `items`, which are YAML, as a list on one line.
pub(super) fn yaml_list(items: &[String]) -> String {
    format!("[{}]", items.join(", "))
}

/// `value` as every reader of YAML takes it for the same: a text is a text to all of them.
pub(super) fn yaml_value<F: Format>(format: &F, value: &F::Value) -> String {
    let text = format.write(value);
    if !format.is_typed(&text) && is_ambiguous(&text) { in_quotes(&text) } else { yaml_scalar(&text) }
}

/// Whether some reader takes `text` for a boolean, nothing, a number or a date (the types of YAML 1.1, and the core
/// schema of 1.2). Where it is in doubt, it does.
fn is_ambiguous(text: &str) -> bool {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let text = text.to_ascii_lowercase().replace('_', "");
    let has_base = ["0b", "0o", "0x"].iter().any(|base| text.starts_with(base));
    // 1:30 is 90 in YAML 1.1.
    let fits_base_60 = |byte: u8| byte.is_ascii_digit() || b":.".contains(&byte);
    let is_base_60 = text.contains(':') && text.bytes().all(fits_base_60) && text.matches('.').count() < 2;
    let is_date = text.split_once('-').is_some_and(|(year, _)| year.len() == 4 && year.parse::<u16>().is_ok());
    WORDS.contains(&text.as_str()) || text.parse::<f64>().is_ok() || has_base || is_base_60 || is_date
}

/// `text` as it is safe in YAML 1.2: plain where it is not taken for structure or nothing, else in quotes.
pub(super) fn yaml_scalar(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
    let begins_plain = text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/');
    if begins_plain && text.bytes().all(plain) && !text.ends_with(':') && !text.eq_ignore_ascii_case("null") {
        return text.to_owned();
    }
    in_quotes(text)
}

/// `text` in double quotes (YAML 1.2.2, 7.3.1).
fn in_quotes(text: &str) -> String {
    let escaped = |character: char| match character {
        '"' | '\\' => format!("\\{character}"),
        ' '..='~' => character.to_string(),
        _ if character.is_alphanumeric() => character.to_string(),
        _ => format!("\\U{:08X}", u32::from(character)),
    };
    format!("\"{}\"", text.chars().map(escaped).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            format::{Boolean, Time, Whole, auto_or, off_or},
            grammars::{BUCKET, CLOSE_CODE, CLOSE_REASON},
        },
        *,
    };
    use crate::websocket::close_code::CloseCode;

    #[test]
    fn a_text_is_a_text_to_every_reader() {
        let texts = ["off", "No", "YES", "y", "true", "null", "123", "0777", "0x1F", "0o17", "1_000", "1e3", "1.5"];
        for text in texts.iter().chain(&["1:30", "12:30:45.5", "2026-11-21", "2026-1-1T00:00:00Z", "inf", "nan", ""]) {
            assert_eq!(yaml_value(&CLOSE_REASON, &(*text).to_owned()), format!("\"{text}\""));
        }
        for text in ["chat", "office", "v1", "1st", "30s", "64KiB", "0.0.0.0:8080", "10.0.0.0/8", "ws://h:1", "a-1"] {
            assert_eq!(yaml_value(&CLOSE_REASON, &text.to_owned()), text);
        }
    }

    #[test]
    fn numbers_and_booleans_stay_what_they_are() {
        assert_eq!(yaml_value(&CLOSE_CODE, &CloseCode(1001)), "1001");
        assert_eq!((yaml_value(&BUCKET, &1e6), yaml_value(&BUCKET, &0.25)), ("1000000".to_owned(), "0.25".to_owned()));
        assert_eq!(yaml_value(&Boolean, &true), "true");
        let count = auto_or(Whole(1..=9));
        assert_eq!((yaml_value(&count, &Some(3)), yaml_value(&count, &None)), ("3".to_owned(), "auto".to_owned()));
        assert_eq!(yaml_value(&off_or(Time::TIMEOUT), &None), "\"off\"");
    }

    #[test]
    fn what_could_be_taken_for_something_else_is_quoted() {
        let plain = ["8080", "30s", "0.0.0.0:8080", "ws://127.0.0.1:9000", "unix:/run/a.sock", "off", "10.0.0.0/8"];
        for text in plain {
            assert_eq!(yaml_scalar(text), text);
        }
        let quoted = [
            ("", r#""""#),
            ("null", r#""null""#),
            ("~", r#""~""#),
            ("[::1]:80", r#""[::1]:80""#),
            ("a: b", r#""a: b""#),
            ("a #b", "\"a #b\""),
            ("say \"hi\" \\", r#""say \"hi\" \\""#),
            ("übung", "\"übung\""),
            ("a\u{7f}\n\u{85}b", r#""a\U0000007F\U0000000A\U00000085b""#),
        ];
        for (text, expected) in quoted {
            assert_eq!(yaml_scalar(text), expected);
        }
    }

    #[test]
    fn nested_values_are_indented() {
        let scalar = |text: &str| Filled::Scalar(text.to_owned());
        let innermost = || Filled::Mapping(Mapping(vec![("z", scalar("2"))]));
        let inner = || Mapping(vec![("x", scalar("1")), ("y", innermost())]);
        let root = Mapping(vec![
            ("list", Filled::Scalars(vec!["a".to_owned(), "\"b c\"".to_owned()])),
            ("empty", Filled::Scalars(vec![])),
            ("nothing", Filled::Mapping(Mapping(vec![]))),
            ("items", Filled::Mappings(vec![inner(), inner()])),
        ]);
        let expected = "\
list: [a, \"b c\"]
empty: []
nothing: {}
items:
  - x: 1
    y:
      z: 2
  - x: 1
    y:
      z: 2
";
        assert_eq!(root.to_string(), expected);
    }
}
