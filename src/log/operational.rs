//! The program's own lines: what it says through `tracing`.

use std::{fmt, time::SystemTime};

use serde_json::Value;
use tracing::{
    Event as TracingEvent, Metadata, Subscriber,
    field::{Field, Visit},
    subscriber::SetGlobalDefaultError,
};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
};

use super::{
    LogHandle,
    line::{Event, Line},
};

/// Sends what this process says through `tracing` to the log. Once in a process.
pub fn install(log: LogHandle) -> Result<(), SetGlobalDefaultError> {
    tracing::subscriber::set_global_default(subscriber(log))
}

/// A subscriber that hands events to the log.
pub fn subscriber(log: LogHandle) -> impl Subscriber + Send + Sync {
    Registry::default().with(ToLog(log))
}

struct ToLog(LogHandle);

impl<S: Subscriber> Layer<S> for ToLog {
    fn enabled(&self, metadata: &Metadata<'_>, _context: Context<'_, S>) -> bool {
        *metadata.level() <= self.0.0.settings.load().level
    }

    fn on_event(&self, event: &TracingEvent<'_>, _context: Context<'_, S>) {
        let level = *event.metadata().level();
        let line = Event { time: SystemTime::now(), level, message: String::new(), fields: serde_json::Map::new() };
        let mut fields = Fields(line);
        event.record(&mut fields);
        self.0.0.push(Line::Operational(fields.0));
    }
}

/// Collects an event's fields.
struct Fields(Event);

impl Fields {
    fn take(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.fields.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.0.message = format!("{value:?}"),
            _ => self.take(field, format!("{value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.0.message),
            _ => self.take(field, value),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take(field, value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tracing::Level;

    use super::{
        super::{
            Settings,
            tests::{PATIENCE, SETTINGS, log},
        },
        *,
    };

    #[test]
    fn events_become_lines_with_typed_fields() {
        let (log, written) = log(SETTINGS);
        tracing::subscriber::with_default(subscriber(log.clone()), || {
            tracing::warn!(port = 8080, ok = false, path = "/x", error = %"in use", "cannot listen on {}", "a");
        });
        assert!(log.flush(PATIENCE));
        let line = serde_json::from_str::<Value>(&written.lines()[0]).unwrap();
        assert_eq!(line["event"], "log");
        assert_eq!(line["level"], "warn");
        assert_eq!(line["message"], "cannot listen on a");
        assert_eq!(line["fields"], json!({"port": 8080, "ok": false, "path": "/x", "error": "in use"}));
    }

    #[test]
    fn the_level_holds_and_can_be_changed() {
        let (log, written) = log(SETTINGS);
        let say = |message: &'static str| tracing::debug!("{message}");
        tracing::subscriber::with_default(subscriber(log.clone()), || {
            say("not wanted");
            log.reconfigure(Settings { level: Level::DEBUG, ..SETTINGS });
            say("wanted");
        });
        assert!(log.flush(PATIENCE));
        let lines = written.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(r#""message":"wanted""#), "{lines:?}");
    }
}
