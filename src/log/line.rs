//! The lines of the log in each format.

use std::{fmt::Write as _, time::SystemTime};

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};
use tracing::Level;

use super::LineFormat;
use crate::journal::{Entry, OneLine};

/// A line that waits for the writer. Only the writer renders it, because it is a thread without other work.
pub(super) enum LogLine {
    /// The ending of a session, or a failed handshake.
    Entry(Entry),
    /// An event of the program itself.
    Operational(Event),
    /// The number of lines that were dropped since the last report.
    Dropped { time: SystemTime, count: u64 },
}

impl LogLine {
    /// The line with its line break.
    pub(super) fn render(&self, format: LineFormat) -> String {
        let mut line = match (self, format) {
            (Self::Entry(entry), LineFormat::Text) => {
                format!("{} {entry}", humantime::format_rfc3339_millis(entry.time()))
            }
            (Self::Entry(entry), LineFormat::Json) => json_line(entry),
            (Self::Operational(event), LineFormat::Text) => event.sentence(),
            (Self::Operational(event), LineFormat::Json) => json_line(event),
            (Self::Dropped { time, count }, LineFormat::Text) => {
                format!("{} WARN  dropped {count} lines of the log", humantime::format_rfc3339_millis(*time))
            }
            (Self::Dropped { time, count }, LineFormat::Json) => {
                let time = humantime::format_rfc3339_millis(*time).to_string();
                json_line(&DroppedObject { time, event: "dropped", count: *count })
            }
        };
        line.push('\n');
        line
    }
}

/// The JSON of [`LogLine::Dropped`]. These names and their order are a public interface.
#[derive(Serialize)]
struct DroppedObject {
    time: String,
    event: &'static str,
    count: u64,
}

/// An event of the program itself.
pub(super) struct Event {
    pub(super) time: SystemTime,
    pub(super) level: Level,
    pub(super) message: String,
    pub(super) fields: Map<String, Value>,
}

impl Event {
    /// An event of now, without fields.
    pub(super) fn new(level: Level, message: impl Into<String>) -> Self {
        Self { time: SystemTime::now(), level, message: message.into(), fields: Map::new() }
    }

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

/// JSON on one line. It also escapes the characters that JSON allows but that end a line for some readers.
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
    use crate::journal::record;

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
    fn event_line_is_a_sentence_or_an_object() {
        let line = LogLine::Operational(event("cannot listen"));
        assert_eq!(
            line.render(LineFormat::Text),
            "2025-11-20T00:53:20.250Z WARN  cannot listen error=\"in \\\"use\\\"\" port=8080\n"
        );
        assert_eq!(
            line.render(LineFormat::Json),
            concat!(
                r#"{"time":"2025-11-20T00:53:20.250Z","event":"log","level":"warn","message":"cannot listen","#,
                r#""fields":{"error":"in \"use\"","port":8080}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn dropped_line_has_its_count() {
        let line = LogLine::Dropped { time: SystemTime::UNIX_EPOCH, count: 7 };
        assert_eq!(line.render(LineFormat::Text), "1970-01-01T00:00:00.000Z WARN  dropped 7 lines of the log\n");
        let json = "{\"time\":\"1970-01-01T00:00:00.000Z\",\"event\":\"dropped\",\"count\":7}\n";
        assert_eq!(line.render(LineFormat::Json), json);
    }

    #[test]
    fn session_line_is_its_record() {
        let line = LogLine::Entry(Entry::Session(Arc::new(record())));
        assert_eq!(line.render(LineFormat::Text), format!("2025-11-20T00:53:20.250Z {}\n", record()));
        assert_eq!(line.render(LineFormat::Json), format!("{}\n", serde_json::to_string(&record()).unwrap()));
    }

    #[test]
    fn hostile_text_stays_on_one_line() {
        let mut record = record();
        record.info.path = Some(HOSTILE.into());
        record.summary.ending.reason = HOSTILE.to_owned();
        let session = LogLine::Entry(Entry::Session(Arc::new(record)));
        let operational = LogLine::Operational(event(HOSTILE));
        for line in [&session, &operational] {
            for format in [LineFormat::Text, LineFormat::Json] {
                let rendered = line.render(format);
                let text = rendered.strip_suffix('\n').expect("a line ends");
                assert!(!text.contains(OneLine::is_disruptive), "{text:?}");
            }
        }
        let value = |line: &LogLine| serde_json::from_str::<Value>(&line.render(LineFormat::Json)).unwrap();
        assert_eq!(value(&session)["reason"], HOSTILE);
        assert_eq!(value(&operational)["message"], HOSTILE);
    }
}
