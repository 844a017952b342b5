//! A configuration with its defaults filled in, as YAML.

use std::collections::HashSet;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::types::Config;

impl Config {
    /// Returns the configuration as YAML, routes with everything that they inherit. Every reader of YAML reads it alike.
    #[expect(clippy::missing_panics_doc, reason = "sections and scalars can always be written")]
    pub fn to_yaml(&self) -> String {
        let mut filled = self.clone();
        for route in &mut filled.routes {
            route.timeouts = route.timeouts.over(&self.timeouts).into();
            route.limits = route.limits.over(&self.limits).into();
            route.on_server_loss.get_or_insert_with(|| self.on_server_loss.clone());
            route.on_client_loss.get_or_insert_with(|| self.on_client_loss.clone());
        }
        in_quotes(&serde_yaml::to_string(&filled).expect("sections and scalars can always be written"))
    }
}

/// Puts plain scalars in quotes if YAML 1.1 has another type for them. The serializer itself quotes by YAML 1.2.
fn in_quotes(yaml: &str) -> String {
    let events = Parser::new_from_str(yaml).map_while(Result::ok);
    let ambiguous =
        events.filter(|(event, _)| matches!(event, Event::Scalar(text, ScalarStyle::Plain, ..) if is_ambiguous(text)));
    let quotes: HashSet<_> = ambiguous.flat_map(|(_, span)| [span.start.index(), span.end.index()]).collect();
    let quote = |index| quotes.contains(&index).then_some('"');
    yaml.chars().enumerate().flat_map(|(index, character)| quote(index).into_iter().chain([character])).collect()
}

/// Returns whether YAML 1.1 takes a text, which YAML 1.2 takes for a text, for a boolean, a number or a date.
fn is_ambiguous(text: &str) -> bool {
    const WORDS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "=", "<<"];
    let is_numeric = text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
    let has_separator = text.contains(['_', ':', '-']);
    let fits = |character: char| character.is_ascii_digit() || "_:-+. TtZz".contains(character);
    WORDS.contains(&text.to_ascii_lowercase().as_str()) || (is_numeric && has_separator && text.chars().all(fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_a_text_to_every_reader() {
        let texts = ["off", "No", "YES", "y", "true", "null", "123", "0777", "0x1F", "0o17", "1_000", "1e3", "1.5"];
        for text in texts.iter().chain(&["1:30", "12:30:45.5", "2026-11-21", "2026-1-1T00:00:00Z", "0.0.0.0:80", ""]) {
            let yaml = in_quotes(&serde_yaml::to_string(&[text]).unwrap());
            assert!([format!("- \"{text}\"\n"), format!("- '{text}'\n")].contains(&yaml), "{text}: {yaml}");
        }
        for text in ["chat", "office", "v1", "1st", "30s", "64KiB", "10.0.0.0/8", "ws://h:1", "a-1", "übung"] {
            assert_eq!(in_quotes(&serde_yaml::to_string(&[text]).unwrap()), format!("- {text}\n"));
        }
    }

    #[test]
    fn number_and_boolean_stay_unquoted() {
        assert_eq!(in_quotes(&serde_yaml::to_string(&(1001, 0.25, true)).unwrap()), "- 1001\n- 0.25\n- true\n");
    }
}
