//! What a line looks like in each format.

use std::{fmt::Write as _, time::SystemTime};

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};
use tracing::Level;

use super::Format;
use crate::journal::{Entry, OneLine};

/// What waits to be written. It is rendered by the writer: whoever logs has other things to do.
pub(super) enum Line {
    /// The end of a session, or a failed handshake.
    Entry(Entry),
    /// Something that the program itself has to say.
    Operational(Event),
}

impl Line {
    /// The line with its line break.
    pub(super) fn render(&self, format: Format) -> String {
        let mut line = match (self, format) {
            (Self::Entry(entry), Format::Text) => {
                format!("{} {entry}", humantime::format_rfc3339_millis(entry.time()))
            }
            (Self::Entry(entry), Format::Json) => json_line(entry),
            (Self::Operational(event), Format::Text) => event.sentence(),
            (Self::Operational(event), Format::Json) => json_line(event),
        };
        line.push('\n');
        line
    }
}

/// An event of the program itself.
pub(super) struct Event {
    pub(super) time: SystemTime,
    pub(super) level: Level,
    pub(super) message: String,
    pub(super) fields: Map<String, Value>,
}

impl Event {
    fn sentence(&self) -> String {
        let time = humantime::format_rfc3339_millis(self.time);
        let mut sentence = format!("{time} {:<5} {}", self.level, OneLine(&self.message));
        for (name, value) in &self.fields {
            write!(sentence, " {name}={}", OneLine(&value.to_string())).expect("a String takes all text");
        }
        sentence
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(5))?;
        object.serialize_entry("time", &humantime::format_rfc3339_millis(self.time).to_string())?;
        object.serialize_entry("event", "log")?;
        object.serialize_entry("level", &self.level.as_str().to_ascii_lowercase())?;
        object.serialize_entry("message", &self.message)?;
        object.serialize_entry("fields", &self.fields)?;
        object.end()
    }
}

/// JSON in which also those characters are escaped that JSON allows, but that end lines for some readers.
fn json_line(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("every key is a string");
    if !json.contains(OneLine::is_disruptive) {
        return json;
    }
    let mut line = String::with_capacity(json.len() + 64);
    for character in json.chars() {
        if OneLine::is_disruptive(character) {
            write!(line, "\\u{:04x}", u32::from(character)).expect("a String takes all text");
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::journal::{failed_handshake, record};

    const HOSTILE: &str = "\u{1b}[2J\r\nfake \u{7f}\u{85}\u{9b}\u{2028}\u{202e}\0\"\\";

    fn event(message: &str) -> Event {
        let fields = [("port", Value::from(8080)), ("error", Value::from("in \"use\""))];
        Event {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_763_600_000_250),
            level: Level::WARN,
            message: message.to_owned(),
            fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }

    #[test]
    fn an_event_is_a_sentence_or_an_object() {
        let line = Line::Operational(event("cannot listen"));
        assert_eq!(
            line.render(Format::Text),
            "2025-11-20T00:53:20.250Z WARN  cannot listen error=\"in \\\"use\\\"\" port=8080\n"
        );
        assert_eq!(
            line.render(Format::Json),
            concat!(
                r#"{"time":"2025-11-20T00:53:20.250Z","event":"log","level":"warn","message":"cannot listen","#,
                r#""fields":{"error":"in \"use\"","port":8080}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_session_is_its_record() {
        let line = Line::Entry(Entry::Session(Arc::new(record())));
        assert_eq!(line.render(Format::Text), format!("2025-11-20T00:53:20.250Z {}\n", record()));
        assert_eq!(line.render(Format::Json), format!("{}\n", serde_json::to_string(&record()).unwrap()));
    }

    #[test]
    fn hostile_text_stays_on_one_line_and_is_not_lost() {
        let mut record = record();
        record.info.path = Some(HOSTILE.into());
        record.summary.ending.reason = HOSTILE.to_owned();
        let session = Line::Entry(Entry::Session(Arc::new(record)));
        let mut record = failed_handshake();
        record.handshake.path = Some(HOSTILE.into());
        record.error = Some(HOSTILE.into());
        let handshake = Line::Entry(Entry::Handshake(Arc::new(record)));
        let operational = Line::Operational(event(HOSTILE));
        for line in [&session, &handshake, &operational] {
            for format in [Format::Text, Format::Json] {
                let rendered = line.render(format);
                let text = rendered.strip_suffix('\n').expect("a line ends");
                assert!(!text.contains(OneLine::is_disruptive), "{text:?}");
            }
        }
        let value = |line: &Line| serde_json::from_str::<Value>(&line.render(Format::Json)).unwrap();
        assert_eq!(value(&session)["reason"], HOSTILE);
        assert_eq!(value(&handshake)["error"], HOSTILE);
        assert_eq!(value(&operational)["message"], HOSTILE);
    }
}
