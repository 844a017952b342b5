//! The table of Close codes: for the engineer on call, who sees a number and wants to know what to do about it.
//!
//! The names are those of IANA's WebSocket Close Code Number registry.

use std::{fmt, ops::RangeInclusive};

/// The name of a number that may not stand on the wire and that no registry knows.
pub(super) const INVALID: &str = "Invalid";

/// What is known about one Close code, or about all codes of a range.
#[derive(Debug, PartialEq, Eq)]
pub struct CodeEntry {
    /// The codes this entry is about, in ascending order. Each `u16` is in exactly one entry.
    pub codes: &'static [RangeInclusive<u16>],
    /// The registered name, else that of the range.
    pub name: &'static str,
    /// What the code says, in one sentence.
    pub meaning: &'static str,
    /// Who may write it into a Close frame.
    pub sender: Sender,
    /// Why it is seen in practice, the most frequent cause first.
    pub causes: &'static [&'static str],
    /// What to look at or do next.
    pub next_steps: &'static [&'static str],
}

impl CodeEntry {
    /// The entry that a code belongs to.
    #[expect(clippy::missing_panics_doc, reason = "the table covers every u16")]
    pub fn of(code: u16) -> &'static Self {
        TABLE
            .iter()
            .find(|entry| entry.codes.iter().any(|range| range.contains(&code)))
            .expect("the table covers every u16")
    }

    /// The whole table, in ascending order of each entry's first code.
    pub fn all() -> std::slice::Iter<'static, Self> {
        TABLE.iter()
    }

    /// Whether an endpoint may write these codes into a Close frame.
    pub fn allowed_on_wire(&self) -> bool {
        self.sender != Sender::Nobody
    }

    /// The code, where this entry is about one alone, as every registered one is.
    pub fn single_code(&self) -> Option<u16> {
        match self.codes {
            [range] if range.start() == range.end() => Some(*range.start()),
            _ => None,
        }
    }

    /// The codes as people write them, such as `3001-3002, 3004-3007, 3009-3999`.
    pub fn codes_label(&self) -> String {
        self.codes.iter().map(range_label).collect::<Vec<_>>().join(", ")
    }
}

/// A range of codes as people write it: `1006`, `4000-4999`, `5000 and up`.
pub fn range_label(range: &RangeInclusive<u16>) -> String {
    match (*range.start(), *range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, u16::MAX) => format!("{first} and up"),
        (first, last) => format!("{first}-{last}"),
    }
}

/// Who may write a code into a Close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// Either endpoint.
    Either,
    /// Only a client.
    Client,
    /// Only a server, or a gateway that speaks for it.
    Server,
    /// An endpoint under an extension, or a later revision of the protocol, that defines the code.
    Extension,
    /// Nobody: synthesized by an endpoint's own API, without a meaning, or no code at all.
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
        meaning: "No Close code: numbers below 1000 are not used.",
        sender: Sender::Nobody,
        causes: &[
            "The application passed some other number as the Close code: an HTTP status (401, 503), a process's exit status, an enum's index.",
            "The Close frame's payload begins with the reason's text instead of the two bytes of the code.",
        ],
        next_steps: &[
            "Find out who sends it: `initiator` in the record, and `websocket_protocol_violations_total{kind=\"close_code\"}` by `from`.",
            "Give that application a code from 4000 to 4999. Most peers fail the connection with 1002 when they read this one, and browsers report 1006.",
        ],
    },
    CodeEntry {
        codes: &[1000..=1000],
        name: "Normal Closure",
        meaning: "The connection has done what it was opened for.",
        sender: Sender::Either,
        causes: &[
            "The application was done and closed: a logout, a finished stream, a page that needs no updates any more.",
            "A library's default: Python websockets and aiohttp send 1000 when `close()` is called without a code.",
            "An answer to another endpoint's Close: aiohttp's client answers every code with 1000.",
        ],
        next_steps: &[
            "Nothing, as long as the rate is the usual one.",
            "If sessions are much shorter than usual: clients that connect, close and connect again at once; look at `websocket_session_duration_seconds` and the reason.",
            "If many last equally long: a token's lifetime or a limit of the application's own.",
        ],
    },
    CodeEntry {
        codes: &[1001..=1001],
        name: "Going Away",
        meaning: "The endpoint goes away: a page is left, or a server stops.",
        sender: Sender::Either,
        causes: &[
            "From a client: the browser's tab was closed, reloaded or led to another page.",
            "From a server: it is shutting down and closes its sessions in good order.",
            "An idle timeout or a maximum age: Jetty's idle timeout, AWS API Gateway's (10 minutes idle, 2 hours in all), closewatch's `timeouts.idle` and `timeouts.max_age`.",
        ],
        next_steps: &[
            "Initiator client: normal for pages; a step after a release of the front end can be a reload loop.",
            "Initiator server: compare with deployments, scale-downs and node drains (`kubectl get events`).",
            "Initiator proxy: the record's `action` says why: `drain`, `idle_timeout`, `max_age`.",
            "If `websocket_idle_before_close_seconds` piles up at one value, it is an idle timeout: send pings more often than that.",
        ],
    },
    CodeEntry {
        codes: &[1002..=1002],
        name: "Protocol error",
        meaning: "The other endpoint broke the WebSocket protocol.",
        sender: Sender::Either,
        causes: &[
            "Compressed frames (RSV1) where permessage-deflate was not agreed, or a middlebox that removed Sec-WebSocket-Extensions from one side of the handshake.",
            "Two threads or tasks that write to one connection without a lock, so that frames run into each other.",
            "A client that does not mask its frames, a server that does, or something that writes HTTP or a log line after the 101.",
            "A Close code or a reason that may not be sent: some libraries answer 1014, or a code above 4999, with 1002.",
        ],
        next_steps: &[
            "Look at `websocket_protocol_violations_total`: `from` is who broke the rule, `kind` is which one.",
            "Compare the `extensions` of the record with what each endpoint believes was agreed.",
            "Read the reason and the log of the endpoint that closed: libraries name the broken rule there.",
        ],
    },
    CodeEntry {
        codes: &[1003..=1003],
        name: "Unsupported Data",
        meaning: "The endpoint got a type of data that it cannot accept.",
        sender: Sender::Either,
        causes: &[
            "A binary message to an endpoint that takes text only, or the other way round.",
            "Another serialization or subprotocol than the peer speaks: MessagePack or Protobuf where JSON is expected.",
        ],
        next_steps: &[
            "Compare `websocket_messages_total` by `type` with what the service expects.",
            "Look for a client version that changed its serialization, and at the agreed `subprotocol` in the record.",
        ],
    },
    CodeEntry {
        codes: &[1004..=1004],
        name: "Reserved",
        meaning: "Without a meaning: set aside for one that was never defined.",
        sender: Sender::Nobody,
        causes: &["An application that picked the next free number of the protocol's own range for a use of its own."],
        next_steps: &["Find the sender by the record's `initiator`, and give it a code from 4000 to 4999."],
    },
    CodeEntry {
        codes: &[1005..=1005],
        name: "No Status Rcvd",
        meaning: "A Close frame came, and it carried no code.",
        sender: Sender::Nobody,
        causes: &[
            "`close()` without arguments, in browsers and in Node's ws.",
            "Libraries that close without a code: socket.io, wscat.",
            "An endpoint that answered a Close frame with an empty one.",
        ],
        next_steps: &[
            "Nothing, as long as the close was wanted: the closing handshake took place.",
            "Let the application give a code and a reason, so that wanted and unwanted closes can be told apart.",
        ],
    },
    CodeEntry {
        codes: &[1006..=1006],
        name: "Abnormal Closure",
        meaning: "The connection ended without a Close frame.",
        sender: Sender::Nobody,
        causes: &[
            "An idle timeout on the way: nginx `proxy_read_timeout` 60 s, AWS ALB 60 s, Cloudflare 100 s, Azure Load Balancer 4 min, Envoy streams 5 min, AWS NLB 350 s; Google Cloud's backend service timeout (30 s) ends sessions that are not idle, too.",
            "The server's process ended without closing its sessions: a crash, an OOM kill (exit status 137), Node or Mosquitto at SIGTERM, a pod deleted after its grace period.",
            "The handler failed or hung up without a Close frame: an exception under uvicorn, gorilla/websocket's `Close()`, paho's disconnect.",
            "The client's network went away: a laptop that sleeps, a phone between networks, a NAT entry that expired.",
            "A reload or restart of a proxy in front: nginx ends old workers at `worker_shutdown_timeout`, HAProxy at `hard-stop-after`.",
        ],
        next_steps: &[
            "See who died, and how: `websocket_abnormal_closes_total` by `endpoint` and `cause` (`eof`, `reset`, `timeout`, ...).",
            "Endpoint server: `kubectl describe pod` (Restart Count, Last State, OOMKilled), and the service's log at that second.",
            "Endpoint client: is it one network, one client version, one load balancer? The record's `client` and `path` tell.",
            "A pile in `websocket_idle_before_close_seconds` just at one of the values above is that timeout: raise it, or send pings at less than half of it.",
            "Where the service says 1000 and the browser says 1006, compare `client_saw` with `server_saw`.",
        ],
    },
    CodeEntry {
        codes: &[1007..=1007],
        name: "Invalid frame payload data",
        meaning: "A message's content did not fit its type, such as text that is no UTF-8.",
        sender: Sender::Either,
        causes: &[
            "Bytes sent as a text message: another encoding (Latin-1, UTF-16), or binary data.",
            "A text cut in the middle of a character before it was sent.",
            "A compressed message that cannot be inflated, because the two sides disagree on permessage-deflate's parameters.",
        ],
        next_steps: &[
            "The peer of the initiator sent the bad data: look at what it puts into text messages, truncation above all.",
            "Send such data as binary messages, or encode it.",
        ],
    },
    CodeEntry {
        codes: &[1008..=1008],
        name: "Policy Violation",
        meaning: "The endpoint does not permit what the other one sent or is.",
        sender: Sender::Either,
        causes: &[
            "Authentication or authorization that failed after the upgrade: a missing, wrong or expired token (usual in FastAPI and Starlette services).",
            "An Origin, a room or a subscription that is not allowed.",
            "A rate limit, or a queue of unread messages that grew too long.",
        ],
        next_steps: &[
            "Read the reason, then the service's log for that session: this code alone says nothing about which policy.",
            "A step at one moment: a rotated key, a changed CORS or Origin list, a clock that is off.",
            "Sessions that all end equally old: the token's lifetime; renew it on the open connection.",
        ],
    },
    CodeEntry {
        codes: &[1009..=1009],
        name: "Message Too Big",
        meaning: "A message was bigger than the endpoint takes.",
        sender: Sender::Either,
        causes: &[
            "A library's default limit: Tomcat 8 KiB, Jetty 64 KiB for text, Python websockets 1 MiB, aiohttp 4 MiB, Node's ws 100 MiB.",
            "AWS API Gateway: frames above 32 KB.",
            "closewatch's `limits.frame_bytes` or `limits.message_bytes` (initiator proxy, action `limit`).",
        ],
        next_steps: &[
            "Look at the top buckets of `websocket_message_size_bytes` from the endpoint that did not close.",
            "Raise the receiver's limit where the size is meant (`max_size`, `max_msg_size`, `maxPayload`, `SetReadLimit`), else send less at once: pages, chunks, binary instead of base64.",
        ],
    },
    CodeEntry {
        codes: &[1010..=1010],
        name: "Mandatory Ext.",
        meaning: "The client needs an extension that the server did not agree to.",
        sender: Sender::Client,
        causes: &[
            "A client that insists on permessage-deflate before a server that has it turned off.",
            "A proxy on the way that drops Sec-WebSocket-Extensions.",
        ],
        next_steps: &[
            "The reason names the extensions that are missing.",
            "Compare `Sec-WebSocket-Extensions` in the handshake's request and answer, before and behind each proxy.",
        ],
    },
    CodeEntry {
        codes: &[1011..=1011],
        name: "Internal Error",
        meaning: "The endpoint met a condition that it did not expect and cannot go on.",
        sender: Sender::Either,
        causes: &[
            "An unhandled exception in the service's handler (Python websockets and many frameworks turn it into 1011).",
            "With the reason `keepalive ping timeout`: Python websockets, also under uvicorn, got no Pong in time (20 s by default).",
            "A database, broker or service behind that failed under the handler.",
        ],
        next_steps: &[
            "Look for the stack trace in the service's log at the record's `time`.",
            "`keepalive ping timeout`: the client is gone, or one side's event loop is blocked for seconds; look at `websocket_ping_rtt_seconds` and for CPU throttling.",
            "A step after a deployment: roll it back first.",
        ],
    },
    CodeEntry {
        codes: &[1012..=1012],
        name: "Service Restart",
        meaning: "The service restarts; clients may reconnect after a random wait.",
        sender: Sender::Server,
        causes: &[
            "uvicorn at SIGTERM: a rolling update, a scale-down or a node drain under Kubernetes.",
            "A service, or closewatch's drain (`shutdown.code`), that is set to close with 1012.",
        ],
        next_steps: &[
            "Compare with the rollout's times (`kubectl rollout history`, events): outside of one, look for failing liveness probes and evictions.",
            "Watch `websocket_handshakes_total` right after: clients should wait a random 5 to 30 s before they come back, not all at once.",
            "Spread the closes over time (closewatch: `shutdown.spread`) where the reconnects hurt.",
        ],
    },
    CodeEntry {
        codes: &[1013..=1013],
        name: "Try Again Later",
        meaning: "The server is overloaded for the moment; the client should come back later.",
        sender: Sender::Server,
        causes: &[
            "The service sheds load: too many connections, a full queue, a client that reads too slowly.",
            "A part behind the service is down and the service refuses work until it is back.",
        ],
        next_steps: &[
            "Look at the service's saturation: CPU, memory, open files, the depth of its queues, `websocket_sessions_active`.",
            "See whether clients wait longer after each 1013; a client that returns at once keeps the overload alive.",
        ],
    },
    CodeEntry {
        codes: &[1014..=1014],
        name: "Bad Gateway",
        meaning: "A gateway or proxy got an invalid answer from the server behind it, as HTTP's 502.",
        sender: Sender::Server,
        causes: &[
            "A WebSocket gateway or proxy that lost its server and tells the client instead of just hanging up.",
            "closewatch with `on_server_loss: {code: 1014}` (action `server_loss`).",
        ],
        next_steps: &[
            "The fault is behind the sender: look at the health, restarts and log of the server there, and at the gateway's own error log.",
            "With closewatch as the sender, the record's `cause` says how the server was lost; read `closewatch explain 1006` for that.",
            "Some client libraries do not know 1014 and report it as 1002 or 1006.",
        ],
    },
    CodeEntry {
        codes: &[1015..=1015],
        name: "TLS handshake",
        meaning: "The TLS handshake failed, so there never was a connection.",
        sender: Sender::Nobody,
        causes: &[
            "A certificate that is expired, for another name, or from an authority that the client does not trust.",
            "An incomplete chain: the intermediate certificate is missing.",
            "No TLS version or cipher in common, or plain ws:// sent to a TLS port.",
        ],
        next_steps: &[
            "`openssl s_client -connect HOST:PORT -servername HOST` shows the chain, the dates and the alert.",
            "Chrome reports 1006 for the same failure: read the browser's console.",
            "Right after a renewal: does every replica serve the new certificate with its chain?",
        ],
    },
    CodeEntry {
        codes: &[1016..=2999],
        name: "Reserved",
        meaning: "Reserved for later revisions of the protocol and its extensions; none is defined today.",
        sender: Sender::Extension,
        causes: &[
            "An application or library that took a number from the wrong range: SockJS has 2010, others count on from 1015.",
            "A code from a registry newer than this program.",
        ],
        next_steps: &[
            "Look the number up in IANA's WebSocket Close Code registry.",
            "If it is the application's own, move it to 4000 to 4999: browsers and many libraries refuse it here, and report 1002 or 1006.",
        ],
    },
    CodeEntry {
        codes: &[3000..=3000],
        name: "Unauthorized",
        meaning: "The other endpoint has not authenticated itself, as HTTP's 401.",
        sender: Sender::Either,
        causes: &[
            "No credentials, or such as are wrong or expired.",
            "Older libraries gave 3000 a meaning of their own: SockJS says `Go away!` with it.",
        ],
        next_steps: &[
            "See whether the client renews its token before it reconnects; without that it loops.",
            "A step at one moment: a rotated signing key, an identity provider that is down, a clock that is off.",
        ],
    },
    CodeEntry {
        codes: &[3001..=3002, 3004..=3007, 3009..=3999],
        name: "Registered",
        meaning: "For libraries and frameworks, which register their codes with IANA.",
        sender: Sender::Either,
        causes: &["The library or framework of one of the endpoints closes with a code of its own, registered or not."],
        next_steps: &[
            "Look the number up in IANA's WebSocket Close Code registry, then in the documentation of the library the initiator uses.",
            "Read the reason in the record.",
        ],
    },
    CodeEntry {
        codes: &[3003..=3003],
        name: "Forbidden",
        meaning: "The other endpoint is known but may not do this, as HTTP's 403.",
        sender: Sender::Either,
        causes: &[
            "A role, tenant, room or subscription that the user has no right to.",
            "A right that was withdrawn while the session was open.",
        ],
        next_steps: &[
            "Look at the service's authorization log for that user.",
            "A reconnect does not help: see that the client does not try in a loop.",
        ],
    },
    CodeEntry {
        codes: &[3008..=3008],
        name: "Timeout",
        meaning: "The other endpoint took too long, as HTTP's 408.",
        sender: Sender::Either,
        causes: &[
            "A login, a first message or an answer that did not come in time.",
            "An application's own heartbeat that was missed.",
        ],
        next_steps: &[
            "Look at `websocket_idle_before_close_seconds` for this code: one value is one timer.",
            "See whether the late endpoint was slow or cut off: `websocket_ping_rtt_seconds`, `websocket_write_blocked_seconds_total`.",
        ],
    },
    CodeEntry {
        codes: &[4000..=4999],
        name: "Private",
        meaning: "The application's own code: only its two endpoints know the meaning.",
        sender: Sender::Either,
        causes: &[
            "The application says why it closes: a session replaced by another, a kick, a version that is too old.",
            "A protocol above WebSocket: graphql-ws 4400 to 4499 (4401 unauthorized, 4406 subprotocol not acceptable, 4408 initialisation timeout), Pusher 4000 to 4299, Discord's gateway 4000 to 4014.",
        ],
        next_steps: &[
            "Read the reason, then look the code up in the application's source or its protocol's documentation.",
            "Put the codes that matter into `metrics.codes`, so that they always have their own series.",
        ],
    },
    CodeEntry {
        codes: &[5000..=u16::MAX],
        name: INVALID,
        meaning: "No Close code: they end at 4999.",
        sender: Sender::Nobody,
        causes: &[
            "The code's two bytes in the wrong order: 59395 is 1000, 59651 is 1001.",
            "The Close frame's payload begins with the reason's text instead of the code: 17263 is `Co`.",
            "A Close frame that was not unmasked, or masked twice.",
        ],
        next_steps: &[
            "Find out who sends it: `initiator` in the record, and `websocket_protocol_violations_total{kind=\"close_code\"}` by `from`.",
            "Look at how that endpoint writes its Close frame: two bytes, big-endian, then the reason in UTF-8.",
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::close_code::CloseCode;

    #[test]
    fn every_number_is_in_exactly_one_entry() {
        for code in 0..=u16::MAX {
            let entries = CodeEntry::all().filter(|entry| entry.codes.iter().any(|range| range.contains(&code)));
            assert_eq!(entries.count(), 1, "{code}");
        }
    }

    #[test]
    fn the_table_allows_on_the_wire_what_the_code_does() {
        for code in 0..=u16::MAX {
            assert_eq!(CodeEntry::of(code).allowed_on_wire(), CloseCode(code).allowed_on_wire(), "{code}");
        }
    }

    #[test]
    fn registered_codes_have_their_registered_names() {
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
    fn ranges_are_labelled_as_people_write_them() {
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
