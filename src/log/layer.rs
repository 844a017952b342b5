//! The layer for `tracing` that logs the events of the program itself.

use serde_json::{Map, Value};
use tracing::{Event as TracingEvent, Metadata, Subscriber, subscriber::SetGlobalDefaultError};
use tracing_serde::fields::AsMap;
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
};

use super::{
    LogHandle,
    line::{Event, LogLine},
};

/// Logs the events of this process. It can be called once in a process.
pub fn install(log: LogHandle) -> Result<(), SetGlobalDefaultError> {
    tracing::subscriber::set_global_default(subscriber(log))
}

/// A subscriber that logs events.
pub fn subscriber(log: LogHandle) -> impl Subscriber + Send + Sync {
    Registry::default().with(LogLayer(log))
}

struct LogLayer(LogHandle);

impl<S: Subscriber> Layer<S> for LogLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _context: Context<'_, S>) -> bool {
        *metadata.level() <= self.0.0.settings.load().level
    }

    fn on_event(&self, event: &TracingEvent<'_>, _context: Context<'_, S>) {
        let mut fields = fields(event);
        let message = match fields.remove("message") {
            Some(Value::String(message)) => message,
            _ => String::new(),
        };
        let line = Event { fields, ..Event::new(*event.metadata().level(), message) };
        self.0.0.push(LogLine::Operational(line));
    }
}

fn fields(event: &TracingEvent<'_>) -> Map<String, Value> {
    match serde_json::to_value(event.field_map()) {
        Ok(Value::Object(fields)) => fields,
        // JSON has a value for each type of field.
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tracing::Level;

    use super::{
        super::{
            LogSettings,
            tests::{PATIENCE, SETTINGS, log},
        },
        *,
    };

    #[test]
    fn events_become_lines_with_typed_fields() {
        let (log, written) = log(SETTINGS);
        tracing::subscriber::with_default(subscriber(log.clone()), || {
            let error = std::io::Error::other("in use");
            tracing::warn!(port = 8080, ok = false, share = 0.5, path = "/x", %error, "cannot listen on {}", "a");
        });
        assert!(log.flush(PATIENCE));
        let line = serde_json::from_str::<Value>(&written.lines()[0]).unwrap();
        assert_eq!(line["event"], "log");
        assert_eq!(line["level"], "warn");
        assert_eq!(line["message"], "cannot listen on a");
        assert_eq!(line["fields"], json!({"port": 8080, "ok": false, "share": 0.5, "path": "/x", "error": "in use"}));
    }

    #[test]
    fn level_applies_and_can_change() {
        let (log, written) = log(SETTINGS);
        let emit = |message: &'static str| tracing::debug!("{message}");
        tracing::subscriber::with_default(subscriber(log.clone()), || {
            emit("below the level");
            log.reconfigure(LogSettings { level: Level::DEBUG, ..SETTINGS });
            emit("at the level");
        });
        assert!(log.flush(PATIENCE));
        let lines = written.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(r#""message":"at the level""#), "{lines:?}");
    }
}
