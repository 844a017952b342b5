//! The table of Close codes, with the meaning, the usual causes and the next steps for the engineer on call.
//!
//! The names are those of IANA's WebSocket Close Code Number registry.

use std::{fmt, ops::RangeInclusive};

/// The name of a number that must not be on the wire and that IANA has not registered.
pub(super) const INVALID: &str = "Invalid";

/// The description of one Close code, or of all codes of a range.
#[derive(Debug, PartialEq, Eq)]
pub struct CodeEntry {
    /// The codes of this entry, in ascending order. Each `u16` is in exactly one entry.
    pub codes: &'static [RangeInclusive<u16>],
    /// The registered name, or else the name of the range.
    pub name: &'static str,
    /// The meaning in one sentence.
    pub meaning: &'static str,
    /// The endpoints that may write it into a Close frame.
    pub sender: Sender,
    /// The usual causes in practice, the most frequent first.
    pub causes: &'static [&'static str],
    /// The next steps.
    pub next_steps: &'static [&'static str],
}

impl CodeEntry {
    /// The entry of a code.
    #[expect(clippy::missing_panics_doc, reason = "the table covers every u16")]
    pub fn of(code: u16) -> &'static Self {
        TABLE
            .iter()
            .find(|entry| entry.codes.iter().any(|range| range.contains(&code)))
            .expect("the table covers every u16")
    }

    /// All entries, by their first code in ascending order.
    pub fn all() -> std::slice::Iter<'static, Self> {
        TABLE.iter()
    }

    /// Whether an endpoint may write these codes into a Close frame.
    pub fn allowed_on_wire(&self) -> bool {
        self.sender != Sender::Nobody
    }

    /// The code, if the entry has only one. Every registered code has its own entry.
    pub fn single_code(&self) -> Option<u16> {
        match self.codes {
            [range] if range.start() == range.end() => Some(*range.start()),
            _ => None,
        }
    }

    /// The codes as text, such as `3001-3002, 3004-3007, 3009-3999`.
    pub fn codes_label(&self) -> String {
        self.codes.iter().map(range_label).collect::<Vec<_>>().join(", ")
    }
}

/// A range of codes as text: `1006`, `4000-4999`, `5000 and up`.
pub fn range_label(range: &RangeInclusive<u16>) -> String {
    match (*range.start(), *range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, u16::MAX) => format!("{first} and up"),
        (first, last) => format!("{first}-{last}"),
    }
}

/// The endpoints that may write a code into a Close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// Either endpoint.
    Either,
    /// Only a client.
    Client,
    /// Only a server, or a gateway for it.
    Server,
    /// An endpoint with an extension or a later protocol revision that defines the code.
    Extension,
    /// No endpoint: the code is synthesized, has no meaning, or is not a code.
    Nobody,
}

impl Sender {
    /// The label value: `either`, `client`, `server`, `extension` or `nobody`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Either => "either",
            Self::Client => "client",
            Self::Server => "server",
            Self::Extension => "extension",
            Self::Nobody => "nobody",
        }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

static TABLE: [CodeEntry; 24] = [
    CodeEntry {
        codes: &[0..=999],
        name: INVALID,
        meaning: "Not a Close code: numbers below 1000 are not used.",
        sender: Sender::Nobody,
        causes: &[
            "The application used another number as the Close code: an HTTP status (401, 503), an exit status, the index of an enumeration.",
            "The payload of the Close frame begins with the text of the reason, and not with the two bytes of the code.",
        ],
        next_steps: &[
            "Find the sender: `initiator` in the record, and `websocket_protocol_violations_total{kind=\"close_code\"}` by `from`.",
            "Use a code from 4000 to 4999 in that application. Most peers fail the connection with 1002 when they read this number, and browsers report 1006.",
        ],
    },
    CodeEntry {
        codes: &[1000..=1000],
        name: "Normal Closure",
        meaning: "The connection has fulfilled its purpose.",
        sender: Sender::Either,
        causes: &[
            "The application was finished and closed: a logout, the end of a stream, a page that needs no more updates.",
            "The default of a library: Python websockets and aiohttp send 1000 if `close()` is called without a code.",
            "An answer to a Close frame of the other endpoint: aiohttp's client answers every code with 1000.",
        ],
        next_steps: &[
            "Nothing, if the rate is as usual.",
            "If sessions are much shorter than usual, clients may connect, close and connect again at once: look at `websocket_session_duration_seconds` and the reason.",
            "If many sessions have the same duration, look for the lifetime of a token or a limit of the application.",
        ],
    },
    CodeEntry {
        codes: &[1001..=1001],
        name: "Going Away",
        meaning: "The endpoint goes away: the user leaves a page, or a server stops.",
        sender: Sender::Either,
        causes: &[
            "From a client: the user closed or reloaded the browser's tab, or went to another page.",
            "From a server: it shuts down and closes its sessions properly.",
            "An idle timeout or a maximum age: Jetty's idle timeout, AWS API Gateway's (10 minutes idle, 2 hours in all), closewatch's `timeouts.idle` and `timeouts.max_age`.",
        ],
        next_steps: &[
            "Initiator client: normal for pages. A step after a release of the front end can be a reload loop.",
            "Initiator server: compare with deployments, scale-downs and node drains (`kubectl get events`).",
            "Initiator proxy: the reason is `action` in the record: `drain`, `idle_timeout`, `max_age`.",
            "If `websocket_idle_before_close_seconds` clusters at one value, it is an idle timeout: send Pings more often than that.",
        ],
    },
    CodeEntry {
        codes: &[1002..=1002],
        name: "Protocol error",
        meaning: "The other endpoint violated the WebSocket protocol.",
        sender: Sender::Either,
        causes: &[
            "Compressed frames (RSV1) without an agreed permessage-deflate, or a middlebox that removed Sec-WebSocket-Extensions from one side of the handshake.",
            "Two threads or tasks that write to one connection without a lock, so that frames get mixed up.",
            "A client that does not mask its frames, a server that does, or code that writes HTTP or a log line after the 101.",
            "A forbidden Close code or reason: some libraries answer 1014, or a code above 4999, with 1002.",
        ],
        next_steps: &[
            "Look at `websocket_protocol_violations_total`: `from` is the endpoint, `kind` the rule.",
            "Compare `extensions` in the record with the configuration of each endpoint.",
            "Read the reason and the log of the endpoint that closed: libraries name the violated rule there.",
        ],
    },
    CodeEntry {
        codes: &[1003..=1003],
        name: "Unsupported Data",
        meaning: "The endpoint got a type of data that it does not accept.",
        sender: Sender::Either,
        causes: &[
            "A binary message to an endpoint that accepts only text, or the reverse.",
            "A wrong serialization or subprotocol: MessagePack or Protobuf if the peer expects JSON.",
        ],
        next_steps: &[
            "Compare `websocket_messages_total` by `type` with the types that the server accepts.",
            "Look for a client version that changed its serialization, and at the agreed `subprotocol` in the record.",
        ],
    },
    CodeEntry {
        codes: &[1004..=1004],
        name: "Reserved",
        meaning: "Reserved, and never defined.",
        sender: Sender::Nobody,
        causes: &["An application that took the next free number of the protocol's range."],
        next_steps: &["Find the sender by `initiator` in the record, and use a code from 4000 to 4999 there."],
    },
    CodeEntry {
        codes: &[1005..=1005],
        name: "No Status Rcvd",
        meaning: "The Close frame had no code.",
        sender: Sender::Nobody,
        causes: &[
            "`close()` without arguments, in browsers and in Node's ws.",
            "Libraries that close without a code: socket.io, wscat.",
            "An endpoint that answered a Close frame with an empty one.",
        ],
        next_steps: &[
            "Nothing, if the close was intended: the closing handshake took place.",
            "Send a code and a reason in the application, to distinguish intended and unintended closes.",
        ],
    },
    CodeEntry {
        codes: &[1006..=1006],
        name: "Abnormal Closure",
        meaning: "The connection ended without a Close frame.",
        sender: Sender::Nobody,
        causes: &[
            "An idle timeout on the way: nginx `proxy_read_timeout` 60 s, AWS ALB 60 s, Cloudflare 100 s, Azure Load Balancer 4 min, Envoy streams 5 min, AWS NLB 350 s; Google Cloud's backend service timeout (30 s) ends sessions that are not idle, too.",
            "The server process ended without closing its sessions: a crash, an OOM kill (exit status 137), Node or Mosquitto at SIGTERM, a pod killed after its grace period.",
            "The handler failed or hung up without a Close frame: an exception under uvicorn, gorilla/websocket's `Close()`, paho's disconnect.",
            "The client's network went away: a laptop that sleeps, a phone between networks, a NAT entry that expired.",
            "A reload or restart of a proxy in front: nginx ends old workers at `worker_shutdown_timeout`, HAProxy at `hard-stop-after`.",
        ],
        next_steps: &[
            "Look at `websocket_abnormal_closes_total` by `endpoint` and `cause` (`eof`, `reset`, `timeout`, ...): the endpoint that ended first, and how.",
            "Endpoint server: `kubectl describe pod` (Restart Count, Last State, OOMKilled), and the log of the server at that second.",
            "Endpoint client: is it one network, one client version, one load balancer? Look at `client` and `path` in the records.",
            "A cluster in `websocket_idle_before_close_seconds` at one of the values above is that timeout: raise it, or send Pings at less than half of it.",
            "If the server says 1000 and the browser says 1006, compare `client_saw` with `server_saw`.",
        ],
    },
    CodeEntry {
        codes: &[1007..=1007],
        name: "Invalid frame payload data",
        meaning: "The content of a message did not fit its type, such as text that is not UTF-8.",
        sender: Sender::Either,
        causes: &[
            "Bytes sent as a text message: another encoding (Latin-1, UTF-16), or binary data.",
            "A text that was cut in the middle of a character before it was sent.",
            "A compressed message that cannot be inflated, because the two sides disagree on permessage-deflate's parameters.",
        ],
        next_steps: &[
            "The peer of the initiator sent the bad data: look at the source of its text messages, above all at truncation.",
            "Send such data as binary messages, or encode it.",
        ],
    },
    CodeEntry {
        codes: &[1008..=1008],
        name: "Policy Violation",
        meaning: "The endpoint does not permit the message or the identity of the other endpoint.",
        sender: Sender::Either,
        causes: &[
            "Authentication or authorization that failed after the upgrade: a missing, wrong or expired token (usual in FastAPI and Starlette).",
            "An Origin, a room or a subscription that is not allowed.",
            "A rate limit, or a queue of unread messages that grew too long.",
        ],
        next_steps: &[
            "Read the reason, then the log of the server for that session: the code does not name the policy.",
            "A step at one moment: a rotated key, a changed CORS or Origin list, a clock that is off.",
            "If all sessions end at the same age, it is the lifetime of the token: renew it on the open connection.",
        ],
    },
    CodeEntry {
        codes: &[1009..=1009],
        name: "Message Too Big",
        meaning: "A message was larger than the endpoint accepts.",
        sender: Sender::Either,
        causes: &[
            "The default limit of a library: Tomcat 8 KiB, Jetty 64 KiB for text, Python websockets 1 MiB, aiohttp 4 MiB, Node's ws 100 MiB.",
            "AWS API Gateway: frames above 32 KB.",
            "closewatch's `limits.frame_bytes` or `limits.message_bytes` (initiator proxy, action `limit`).",
        ],
        next_steps: &[
            "Look at the largest buckets of `websocket_message_size_bytes` from the endpoint that did not close.",
            "If the size is intended, raise the limit of the receiver (`max_size`, `max_msg_size`, `maxPayload`, `SetReadLimit`). If not, send less at once: pages, chunks, binary instead of base64.",
        ],
    },
    CodeEntry {
        codes: &[1010..=1010],
        name: "Mandatory Ext.",
        meaning: "The client needs an extension that the server did not agree to.",
        sender: Sender::Client,
        causes: &[
            "A client that requires permessage-deflate, and a server with permessage-deflate turned off.",
            "A proxy on the way that drops Sec-WebSocket-Extensions.",
        ],
        next_steps: &[
            "The reason names the missing extensions.",
            "Compare `Sec-WebSocket-Extensions` in request and answer of the handshake, in front of and behind each proxy.",
        ],
    },
    CodeEntry {
        codes: &[1011..=1011],
        name: "Internal Error",
        meaning: "The endpoint met an unexpected condition and cannot continue.",
        sender: Sender::Either,
        causes: &[
            "An unhandled exception in the handler of the server (Python websockets and many frameworks turn it into 1011).",
            "With the reason `keepalive ping timeout`: Python websockets, also under uvicorn, got no Pong in time (20 s by default).",
            "A database, broker or other back end of the handler that failed.",
        ],
        next_steps: &[
            "Look for the stack trace in the log of the server at the `time` of the record.",
            "`keepalive ping timeout`: the client is gone, or an event loop is blocked for seconds. Look at `websocket_ping_rtt_seconds` and at CPU throttling.",
            "A step after a deployment: roll back first.",
        ],
    },
    CodeEntry {
        codes: &[1012..=1012],
        name: "Service Restart",
        meaning: "The server restarts; clients may reconnect after a random delay.",
        sender: Sender::Server,
        causes: &[
            "uvicorn at SIGTERM: a rolling update, a scale-down or a node drain under Kubernetes.",
            "A server, or closewatch's drain (`shutdown.code`), that is configured to close with 1012.",
        ],
        next_steps: &[
            "Compare with the times of rollouts (`kubectl rollout history`, events). Outside of a rollout, look for failing liveness probes and evictions.",
            "Watch `websocket_handshakes_total` after it: clients should wait a random time of 5 to 30 s before they return.",
            "If reconnects are a problem, spread the closes over time (closewatch: `shutdown.spread`).",
        ],
    },
    CodeEntry {
        codes: &[1013..=1013],
        name: "Try Again Later",
        meaning: "The server is temporarily overloaded; the client should return later.",
        sender: Sender::Server,
        causes: &[
            "The server sheds load: too many connections, a full queue, a client that reads too slowly.",
            "A back end of the server is down, and the server refuses work until it is back.",
        ],
        next_steps: &[
            "Look at the saturation of the server: CPU, memory, open files, the depth of its queues, `websocket_sessions_active`.",
            "Check that clients wait longer after each 1013. A client that returns at once keeps the overload alive.",
        ],
    },
    CodeEntry {
        codes: &[1014..=1014],
        name: "Bad Gateway",
        meaning: "A gateway or proxy got an invalid answer from the server behind it, as HTTP's 502.",
        sender: Sender::Server,
        causes: &[
            "A WebSocket gateway or proxy that lost its server and reports this to the client with a Close frame.",
            "closewatch with `on_server_loss: {code: 1014}` (action `server_loss`).",
        ],
        next_steps: &[
            "The fault is behind the sender: look at the health, restarts and log of the server there, and at the error log of the gateway.",
            "If closewatch is the sender, `cause` in the record is how the server was lost; read `closewatch explain 1006` for that.",
            "Some client libraries do not know 1014 and report it as 1002 or 1006.",
        ],
    },
    CodeEntry {
        codes: &[1015..=1015],
        name: "TLS handshake",
        meaning: "The TLS handshake failed, so there was no WebSocket connection.",
        sender: Sender::Nobody,
        causes: &[
            "A certificate that is expired, has another name, or comes from an authority that the client does not trust.",
            "An incomplete chain: the intermediate certificate is missing.",
            "No common TLS version or cipher, or plain ws:// sent to a TLS port.",
        ],
        next_steps: &[
            "Run `openssl s_client -connect HOST:PORT -servername HOST`: it shows the chain, the dates and the alert.",
            "Chrome reports 1006 for the same failure: read the browser's console.",
            "After a renewal: does every replica serve the new certificate with its chain?",
        ],
    },
    CodeEntry {
        codes: &[1016..=2999],
        name: "Reserved",
        meaning: "Reserved for later revisions of the protocol and for extensions; none is defined today.",
        sender: Sender::Extension,
        causes: &[
            "An application or library that took a number from the wrong range: SockJS has 2010, others continue after 1015.",
            "A code that was registered after this version of closewatch.",
        ],
        next_steps: &[
            "Look the number up in IANA's WebSocket Close Code registry.",
            "If it belongs to the application, move it to 4000 to 4999: browsers and many libraries refuse this range, and report 1002 or 1006.",
        ],
    },
    CodeEntry {
        codes: &[3000..=3000],
        name: "Unauthorized",
        meaning: "The other endpoint is not authenticated, like 401 in HTTP.",
        sender: Sender::Either,
        causes: &[
            "No credentials, or wrong or expired ones.",
            "Older libraries use 3000 with another meaning: SockJS sends it with `Go away!`.",
        ],
        next_steps: &[
            "Check that the client renews its token before it reconnects. If not, it loops.",
            "A step at one moment: a rotated signing key, an identity provider that is down, a clock that is off.",
        ],
    },
    CodeEntry {
        codes: &[3001..=3002, 3004..=3007, 3009..=3999],
        name: "Registered",
        meaning: "For libraries and frameworks, which register their codes with IANA.",
        sender: Sender::Either,
        causes: &["The library or framework of an endpoint closes with its own code, registered or not."],
        next_steps: &[
            "Look the number up in IANA's WebSocket Close Code registry, then in the documentation of the initiator's library.",
            "Read the reason in the record.",
        ],
    },
    CodeEntry {
        codes: &[3003..=3003],
        name: "Forbidden",
        meaning: "The other endpoint is authenticated but not permitted, like 403 in HTTP.",
        sender: Sender::Either,
        causes: &[
            "A role, tenant, room or subscription without the right for this user.",
            "A right that was withdrawn during the session.",
        ],
        next_steps: &[
            "Look at the authorization log of the server for that user.",
            "A reconnect does not help: check that the client does not loop.",
        ],
    },
    CodeEntry {
        codes: &[3008..=3008],
        name: "Timeout",
        meaning: "The other endpoint took too long, like 408 in HTTP.",
        sender: Sender::Either,
        causes: &[
            "A login, a first message or an answer that did not come in time.",
            "A missed heartbeat of the application.",
        ],
        next_steps: &[
            "Look at `websocket_idle_before_close_seconds` for this code: a cluster at one value is a timer.",
            "Check if the late endpoint was slow or cut off: `websocket_ping_rtt_seconds`, `websocket_write_blocked_seconds_total`.",
        ],
    },
    CodeEntry {
        codes: &[4000..=4999],
        name: "Private",
        meaning: "A code of the application: only its two endpoints know the meaning.",
        sender: Sender::Either,
        causes: &[
            "The application gives its own reason: a session that another one replaced, a kick, a version that is too old.",
            "A protocol above WebSocket: graphql-ws 4400 to 4499 (4401 unauthorized, 4406 subprotocol not acceptable, 4408 initialisation timeout), Pusher 4000 to 4299, Discord's gateway 4000 to 4014.",
        ],
        next_steps: &[
            "Read the reason, then look the code up in the application's source or its protocol's documentation.",
            "Add important codes to `metrics.codes`, so that they always have their own series.",
        ],
    },
    CodeEntry {
        codes: &[5000..=u16::MAX],
        name: INVALID,
        meaning: "Not a Close code: they end at 4999.",
        sender: Sender::Nobody,
        causes: &[
            "The two bytes of the code are in the wrong order: 59395 is 1000, 59651 is 1001.",
            "The payload of the Close frame begins with the text of the reason, and not with the code: 17263 is `Co`.",
            "A Close frame that was not unmasked, or masked twice.",
        ],
        next_steps: &[
            "Find the sender: `initiator` in the record, and `websocket_protocol_violations_total{kind=\"close_code\"}` by `from`.",
            "Check the Close frame of that endpoint: two bytes, big-endian, then the reason in UTF-8.",
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::close_code::CloseCode;

    #[test]
    fn every_number_has_exactly_one_entry() {
        for code in 0..=u16::MAX {
            let entries = CodeEntry::all().filter(|entry| entry.codes.iter().any(|range| range.contains(&code)));
            assert_eq!(entries.count(), 1, "{code}");
        }
    }

    #[test]
    fn table_agrees_with_codes_allowed_on_wire() {
        for code in 0..=u16::MAX {
            assert_eq!(CodeEntry::of(code).allowed_on_wire(), CloseCode(code).allowed_on_wire(), "{code}");
        }
    }

    #[test]
    fn registered_codes_have_registered_names() {
        let names = [
            (1000, "Normal Closure"),
            (1001, "Going Away"),
            (1002, "Protocol error"),
            (1003, "Unsupported Data"),
            (1004, "Reserved"),
            (1005, "No Status Rcvd"),
            (1006, "Abnormal Closure"),
            (1007, "Invalid frame payload data"),
            (1008, "Policy Violation"),
            (1009, "Message Too Big"),
            (1010, "Mandatory Ext."),
            (1011, "Internal Error"),
            (1012, "Service Restart"),
            (1013, "Try Again Later"),
            (1014, "Bad Gateway"),
            (1015, "TLS handshake"),
            (3000, "Unauthorized"),
            (3003, "Forbidden"),
            (3008, "Timeout"),
        ];
        for (code, name) in names {
            let entry = CodeEntry::of(code);
            assert_eq!((entry.name, entry.codes), (name, &[code..=code][..]));
        }
    }

    #[test]
    fn ranges_have_readable_labels() {
        let labels: Vec<_> = [500, 1006, 2000, 3999, 4001, 59395].map(|code| CodeEntry::of(code).codes_label()).into();
        let expected = ["0-999", "1006", "1016-2999", "3001-3002, 3004-3007, 3009-3999", "4000-4999", "5000 and up"];
        assert_eq!(labels, expected);
    }

    #[test]
    fn entries_are_complete_and_in_order() {
        let mut previous = None;
        for entry in CodeEntry::all() {
            let first = entry.codes.first().map(|range| *range.start());
            assert!(first > previous, "{entry:?}");
            previous = first;
            assert!(entry.meaning.ends_with('.'), "{entry:?}");
            assert!(!entry.causes.is_empty() && !entry.next_steps.is_empty(), "{entry:?}");
        }
    }
}
