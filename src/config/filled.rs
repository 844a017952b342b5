//! A configuration with its defaults filled in, as YAML.

use std::fmt;

/// A value as it is written.
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
            Filled::Scalar(text) => writeln!(formatter, "{key}: {}", yaml_scalar(text)),
            Filled::Scalars(texts) => writeln!(formatter, "{key}: {}", yaml_list(texts)),
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

/// `texts` as a list in YAML, on one line.
pub(super) fn yaml_list(texts: &[String]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| yaml_scalar(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// `text` as it is safe in YAML: plain where it cannot be taken for anything else, else in double quotes (7.3.1).
pub(super) fn yaml_scalar(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
    let begins_plain = text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/');
    if begins_plain && text.bytes().all(plain) && !text.ends_with(':') && !text.eq_ignore_ascii_case("null") {
        return text.to_owned();
    }
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
    use super::*;

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
            ("list", Filled::Scalars(vec!["a".to_owned(), "b c".to_owned()])),
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
