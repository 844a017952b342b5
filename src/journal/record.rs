//! The record of one session's end, and its JSON.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};

use crate::{
    session::{Sent, Summary},
    websocket::{
        PerEndpoint,
        closing_handshake::{Action, CloseEvent, Fault},
        conformance::Violation,
    },
};

/// The ending of a session. `Serialize` writes the object of log and API, `Display` one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When the session ended.
    pub time: SystemTime,
    /// The route's name.
    pub route: Arc<str>,
    /// The facts known since the opening handshake.
    pub info: SessionInfo,
    /// How and why it ended, and what passed.
    pub summary: Summary,
    /// The kernel's view of each leg at its end.
    pub tcp: PerEndpoint<Option<TcpSummary>>,
    /// Whether `close_notify` was received on each leg; `None` if the leg does not use TLS.
    pub close_notify: PerEndpoint<Option<bool>>,
}

/// The facts about a session since its opening handshake. A value that `privacy` hides is `None`, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionInfo {
    /// A unique id.
    pub id: String,
    /// The client's address and port, or its network.
    pub client: Option<Box<str>>,
    /// The server's address.
    pub server: Arc<str>,
    /// The path without the query, which can hold tokens.
    pub path: Option<Box<str>>,
    /// The agreed subprotocol.
    pub subprotocol: Option<Box<str>>,
    /// The agreed extensions.
    pub extensions: Option<Box<str>>,
    /// From a `traceparent` header.
    pub trace_id: Option<Box<str>>,
    /// Whether `privacy` hides the reasons of Close frames.
    pub hide_reasons: bool,
}

/// The kernel's values of a TCP connection at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpSummary {
    /// The smoothed round-trip time.
    pub rtt: Duration,
    /// Segments sent again, over the connection's life.
    pub retransmits: u32,
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RecordObject::from(self).serialize(serializer)
    }
}

/// The JSON of a record. These names and their order are a public interface.
#[derive(Serialize)]
struct RecordObject<'a> {
    time: String,
    event: &'static str,
    session: &'a str,
    route: &'a str,
    client: Option<&'a str>,
    server: &'a str,
    path: Option<&'a str>,
    subprotocol: Option<&'a str>,
    extensions: Option<&'a str>,
    trace_id: Option<&'a str>,
    code: Option<u16>,
    name: &'static str,
    reason: Option<&'a str>,
    initiator: &'static str,
    clean: bool,
    cause: Option<&'static str>,
    cause_endpoint: Option<&'static str>,
    action: Option<&'static str>,
    client_saw: SeenObject<'a>,
    server_saw: SeenObject<'a>,
    duration_seconds: f64,
    idle_seconds: f64,
    from_client: SentObject,
    from_server: SentObject,
    ping_rtt_seconds: BothObject<Option<f64>>,
    tcp: BothObject<Option<TcpObject>>,
    close_notify: BothObject<Option<bool>>,
}

impl<'a> From<&'a Record> for RecordObject<'a> {
    fn from(record: &'a Record) -> Self {
        let Record { info, summary, .. } = record;
        let ending = &summary.ending;
        Self {
            time: humantime::format_rfc3339_millis(record.time).to_string(),
            event: "session_closed",
            session: &info.id,
            route: &record.route,
            client: info.client.as_deref(),
            server: &info.server,
            path: info.path.as_deref(),
            subprotocol: info.subprotocol.as_deref(),
            extensions: info.extensions.as_deref(),
            trace_id: info.trace_id.as_deref(),
            code: ending.status.number(),
            name: ending.status.name(),
            reason: (!info.hide_reasons).then_some(&ending.reason),
            initiator: ending.initiator.as_str(),
            clean: ending.is_clean(),
            cause: ending.fault.map(Fault::cause),
            cause_endpoint: ending.fault.map(|fault| fault.party().as_str()),
            action: ending.action.map(Action::as_str),
            client_saw: SeenObject::new(&ending.seen.client, info.hide_reasons),
            server_saw: SeenObject::new(&ending.seen.server, info.hide_reasons),
            duration_seconds: summary.duration.as_secs_f64(),
            idle_seconds: summary.idle.as_secs_f64(),
            from_client: SentObject::from(&summary.sent.client),
            from_server: SentObject::from(&summary.sent.server),
            ping_rtt_seconds: BothObject::new(summary.ping_rtt, |rtt| rtt.map(|rtt| rtt.as_secs_f64())),
            tcp: BothObject::new(record.tcp, |tcp| tcp.map(TcpObject::from)),
            close_notify: BothObject::new(record.close_notify, |received| received),
        }
    }
}

#[derive(Serialize)]
struct SeenObject<'a> {
    code: Option<u16>,
    reason: Option<&'a str>,
    clean: bool,
}

impl<'a> SeenObject<'a> {
    fn new(seen: &'a CloseEvent, hide_reason: bool) -> Self {
        Self { code: seen.status.number(), reason: (!hide_reason).then_some(&seen.reason), clean: seen.clean }
    }
}

#[derive(Serialize)]
struct SentObject {
    frames: u64,
    messages: u64,
    bytes: u64,
    pings: u64,
    violations: Vec<&'static str>,
}

impl From<&Sent> for SentObject {
    fn from(sent: &Sent) -> Self {
        Self {
            frames: sent.frames,
            messages: sent.messages,
            bytes: sent.bytes,
            pings: sent.pings,
            violations: sent.violations.iter().map(Violation::as_str).collect(),
        }
    }
}

#[derive(Serialize)]
struct TcpObject {
    rtt_seconds: f64,
    retransmits: u32,
}

impl From<TcpSummary> for TcpObject {
    fn from(tcp: TcpSummary) -> Self {
        Self { rtt_seconds: tcp.rtt.as_secs_f64(), retransmits: tcp.retransmits }
    }
}

#[derive(Serialize)]
struct BothObject<T> {
    client: T,
    server: T,
}

impl<T> BothObject<T> {
    fn new<V>(values: PerEndpoint<V>, show: impl Fn(V) -> T) -> Self {
        Self { client: show(values.client), server: show(values.server) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;
    use crate::websocket::{
        close_code::{CloseCode, CloseStatus},
        closing_handshake::{Ending, Party},
        conformance::Violations,
    };

    /// A session that the server closed with 1011, and the client answered.
    pub(crate) fn record() -> Record {
        let status = CloseStatus::Sent(CloseCode(1011));
        let seen = CloseEvent { status, reason: "boom".to_owned(), clean: true };
        Record {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_763_600_000_250),
            route: "default".into(),
            info: SessionInfo {
                id: "4f".to_owned(),
                client: Some("10.0.0.7:41234".into()),
                server: "127.0.0.1:9000".into(),
                path: Some("/chat".into()),
                ..SessionInfo::default()
            },
            summary: Summary {
                ending: Ending {
                    status,
                    reason: "boom".to_owned(),
                    initiator: Party::Server,
                    fault: None,
                    action: None,
                    seen: PerEndpoint { client: seen.clone(), server: CloseEvent { reason: String::new(), ..seen } },
                    received: PerEndpoint { client: Some(status), server: Some(status) },
                },
                duration: Duration::from_millis(12_345),
                idle: Duration::from_millis(200),
                close_handshake: None,
                sent: PerEndpoint::default(),
                ping_rtt: PerEndpoint::default(),
            },
            tcp: PerEndpoint::default(),
            close_notify: PerEndpoint::default(),
        }
    }

    #[test]
    fn clean_record_has_exactly_the_interface_keys() {
        let expected = json!({
            "time": "2025-11-20T00:53:20.250Z", "event": "session_closed", "session": "4f", "route": "default",
            "client": "10.0.0.7:41234", "server": "127.0.0.1:9000", "path": "/chat",
            "subprotocol": null, "extensions": null, "trace_id": null,
            "code": 1011, "name": "Internal Error", "reason": "boom", "initiator": "server", "clean": true,
            "cause": null, "cause_endpoint": null, "action": null,
            "client_saw": {"code": 1011, "reason": "boom", "clean": true},
            "server_saw": {"code": 1011, "reason": "", "clean": true},
            "duration_seconds": 12.345, "idle_seconds": 0.2,
            "from_client": {"frames": 0, "messages": 0, "bytes": 0, "pings": 0, "violations": []},
            "from_server": {"frames": 0, "messages": 0, "bytes": 0, "pings": 0, "violations": []},
            "ping_rtt_seconds": {"client": null, "server": null},
            "tcp": {"client": null, "server": null},
            "close_notify": {"client": null, "server": null},
        });
        assert_eq!(serde_json::to_value(record()).unwrap(), expected);
    }

    #[test]
    fn optional_values_have_their_keys() {
        let mut record = record();
        record.info.subprotocol = Some("graphql-ws".into());
        record.info.extensions = Some("permessage-deflate".into());
        record.info.trace_id = Some("4bf92f3577b34da6a3ce929d0e0e4736".into());
        record.summary.ending.status = CloseStatus::Malformed;
        record.summary.ending.fault = Some(Fault::Proxy(Action::Drain));
        record.summary.ending.action = Some(Action::Drain);
        let violations = Violations::from_iter([Violation::CloseCode]);
        record.summary.sent.client = Sent { frames: 5, messages: 3, bytes: 99, pings: 1, violations };
        record.summary.ping_rtt.server = Some(Duration::from_millis(1));
        record.tcp.client = Some(TcpSummary { rtt: Duration::from_millis(30), retransmits: 2 });
        record.close_notify.client = Some(false);

        let object = serde_json::to_value(record).unwrap();
        let expected = json!({
            "subprotocol": "graphql-ws", "extensions": "permessage-deflate",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            "code": null, "name": "Invalid", "cause": "drain", "cause_endpoint": "proxy", "action": "drain",
            "from_client": {"frames": 5, "messages": 3, "bytes": 99, "pings": 1, "violations": ["close_code"]},
            "ping_rtt_seconds": {"client": null, "server": 0.001},
            "tcp": {"client": {"rtt_seconds": 0.03, "retransmits": 2}, "server": null},
            "close_notify": {"client": false, "server": null},
        });
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&object[key], value, "{key}");
        }
    }

    #[test]
    fn private_values_are_null() {
        let mut private = record();
        private.info = SessionInfo { client: None, path: None, hide_reasons: true, ..private.info };
        let object = serde_json::to_value(private).unwrap();
        for pointer in ["/client", "/path", "/reason", "/client_saw/reason", "/server_saw/reason"] {
            assert_eq!(object.pointer(pointer), Some(&serde_json::Value::Null), "{pointer}");
        }
    }
}
