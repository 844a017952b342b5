//! The record of an opening handshake that did not become a session, its JSON and its sentence.

use std::{
    fmt::{self, Display, Formatter},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde::{Serialize, Serializer};

use super::{OneLine, instance::instance};

/// The facts about an opening handshake before it has an outcome. `None` is also what privacy leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeInfo {
    /// When the request head was received.
    pub started: Instant,
    /// The client's address, or its network.
    pub client: Option<Box<str>>,
    /// The other end of the TCP connection.
    pub peer: Option<Box<str>>,
    /// The server's address that was tried.
    pub server: Option<Arc<str>>,
    /// The family of the `User-Agent`.
    pub agent: Option<&'static str>,
    /// The path without the query, which can hold tokens.
    pub path: Option<Box<str>>,
}

/// An opening handshake that did not become a session. It serializes to the object of the log and the API, and displays as
/// one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedHandshake {
    /// When the failure was known.
    pub time: SystemTime,
    /// The route's name, empty if no route was found.
    pub route: Box<str>,
    /// The facts about the handshake.
    pub handshake: HandshakeInfo,
    /// The status that the client got.
    pub status: Option<u16>,
    /// The value of the label `cause`.
    pub cause: &'static str,
    /// The reason in words.
    pub error: Option<Box<str>>,
    /// From the request head to the failure.
    pub duration: Duration,
}

impl HandshakeInfo {
    /// The record of this handshake's failure, which has just happened.
    pub fn fail(self, route: &str, cause: &'static str, status: Option<u16>, error: Option<&str>) -> FailedHandshake {
        FailedHandshake {
            time: SystemTime::now(),
            route: route.into(),
            duration: self.started.elapsed(),
            handshake: self,
            status,
            cause,
            error: error.map(Into::into),
        }
    }
}

impl Serialize for FailedHandshake {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        HandshakeObject::from(self).serialize(serializer)
    }
}

/// The record's object: these names and their order are a public interface.
#[derive(Serialize)]
struct HandshakeObject<'a> {
    time: String,
    event: &'static str,
    instance: &'a str,
    route: &'a str,
    client: Option<&'a str>,
    peer: Option<&'a str>,
    server: Option<&'a str>,
    agent: Option<&'a str>,
    path: Option<&'a str>,
    status: Option<u16>,
    cause: &'static str,
    error: Option<&'a str>,
    duration_seconds: f64,
}

impl<'a> From<&'a FailedHandshake> for HandshakeObject<'a> {
    fn from(record: &'a FailedHandshake) -> Self {
        let handshake = &record.handshake;
        Self {
            time: humantime::format_rfc3339_millis(record.time).to_string(),
            event: "handshake_failed",
            instance: instance(),
            route: &record.route,
            client: handshake.client.as_deref(),
            peer: handshake.peer.as_deref(),
            server: handshake.server.as_deref(),
            agent: handshake.agent,
            path: handshake.path.as_deref(),
            status: record.status,
            cause: record.cause,
            error: record.error.as_deref(),
            duration_seconds: record.duration.as_secs_f64(),
        }
    }
}

impl Display for FailedHandshake {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let HandshakeInfo { client, server, path, .. } = &self.handshake;
        write!(formatter, "handshake on {:?}", &*self.route)?;
        if let Some(client) = client {
            write!(formatter, " from {}", OneLine(client))?;
        }
        if let Some(server) = server {
            write!(formatter, " to {}", OneLine(server))?;
        }
        if let Some(path) = path {
            write!(formatter, " path {path:?}")?;
        }
        write!(formatter, " failed: {}", self.cause)?;
        if let Some(status) = self.status {
            write!(formatter, ", status {status}")?;
        }
        if let Some(error) = &self.error {
            write!(formatter, ", {}", OneLine(error))?;
        }
        write!(formatter, "; {:.3} s", self.duration.as_secs_f64())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// A handshake whose server's port was closed.
    pub(crate) fn failed_handshake() -> FailedHandshake {
        FailedHandshake {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_763_600_000_250),
            route: "chat".into(),
            handshake: HandshakeInfo {
                started: Instant::now(),
                client: Some("192.0.2.7".into()),
                peer: Some("10.0.0.7:41234".into()),
                server: Some("127.0.0.1:9000".into()),
                agent: Some("firefox"),
                path: Some("/chat".into()),
            },
            status: Some(502),
            cause: "upstream_refused",
            error: Some("no connection".into()),
            duration: Duration::from_millis(3),
        }
    }

    #[test]
    fn record_has_exactly_the_keys_of_the_interface() {
        let record = failed_handshake();
        let expected = json!({
            "time": "2025-11-20T00:53:20.250Z", "event": "handshake_failed", "instance": instance(), "route": "chat",
            "client": "192.0.2.7", "peer": "10.0.0.7:41234", "server": "127.0.0.1:9000", "agent": "firefox",
            "path": "/chat", "status": 502, "cause": "upstream_refused", "error": "no connection",
            "duration_seconds": 0.003,
        });
        assert_eq!(serde_json::to_value(record).unwrap(), expected);
    }

    #[test]
    fn sentence_names_known_facts_only() {
        let mut record = failed_handshake();
        assert_eq!(
            record.to_string(),
            "handshake on \"chat\" from 192.0.2.7 to 127.0.0.1:9000 path \"/chat\" failed: upstream_refused, status 502, \
             no connection; 0.003 s"
        );
        let HandshakeInfo { client, server, path, .. } = &mut record.handshake;
        (*client, *server, *path) = (None, None, None);
        (record.status, record.error, record.cause, record.route) = (None, None, "client_gone", "".into());
        assert_eq!(record.to_string(), "handshake on \"\" failed: client_gone; 0.003 s");
    }
}
