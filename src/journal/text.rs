//! A record as one sentence, always on one line.

use std::fmt::{self, Display, Formatter, Write as _};

use super::Record;
use crate::websocket::{
    Endpoint,
    close_code::CloseStatus,
    closing_handshake::{Fault, LegFault, Party},
};

impl Display for Record {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        self.write_session(formatter)?;
        self.write_beginning(formatter)?;
        self.write_answers(formatter)?;
        self.write_fault(formatter)?;
        self.write_violations(formatter)?;
        write!(
            formatter,
            "; {:.3} s, idle {:.3} s",
            self.summary.duration.as_secs_f64(),
            self.summary.idle.as_secs_f64()
        )
    }
}

impl Record {
    fn write_session(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "session {} on {}", OneLine(&self.info.id), OneLine(&self.route))?;
        if let Some(client) = &self.info.client {
            write!(formatter, " from {}", OneLine(client))?;
        }
        write!(formatter, " to {}", OneLine(&self.info.server))?;
        if let Some(path) = &self.info.path {
            write!(formatter, " path {path:?}")?;
        }
        formatter.write_str(": ")
    }

    /// The first Close frame, or how a leg ended without one.
    fn write_beginning(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let ending = &self.summary.ending;
        let initiator = PartyName(ending.initiator);
        match (ending.status, ending.fault) {
            (CloseStatus::Abnormal, Some(fault)) if fault.party() == ending.initiator => {
                write!(formatter, "no Close frame: {initiator} {}", verb(fault))?;
            }
            (CloseStatus::Abnormal, _) => write!(formatter, "no Close frame: the connection of {initiator} ended")?,
            (status @ CloseStatus::Sent(_), _) => {
                write!(formatter, "{initiator} sent {} ({})", StatusText(status), status.name())?;
            }
            (status, _) => write!(formatter, "{initiator} sent {}", StatusText(status))?,
        }
        if !self.info.hide_reasons && !ending.reason.is_empty() {
            write!(formatter, " {:?}", ending.reason)?;
        }
        Ok(())
    }

    /// The Close frames after the first event.
    fn write_answers(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let ending = &self.summary.ending;
        let nothing_to_answer = ending.status == CloseStatus::Abnormal;
        for endpoint in Endpoint::BOTH {
            let is_first = !nothing_to_answer && Party::from(endpoint) == ending.initiator;
            if let Some(status) = ending.received[endpoint].filter(|_| !is_first) {
                let verb = if nothing_to_answer { "sent" } else { "answered with" };
                write!(formatter, "; then {} {verb} {}", endpoint.as_str(), StatusText(status))?;
            }
        }
        Ok(())
    }

    /// The fault, unless [`Record::write_beginning`] has named it, and the close events of the endpoints.
    fn write_fault(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let ending = &self.summary.ending;
        match ending.fault {
            Some(fault) if ending.status == CloseStatus::Abnormal && fault.party() == ending.initiator => {}
            Some(Fault::Proxy(_)) => formatter.write_str("; closewatch ended it without every answer")?,
            Some(fault) => write!(formatter, "; {} {}", PartyName(fault.party()), verb(fault))?,
            None => {}
        }
        if let Some(action) = ending.action {
            write!(formatter, "; action {}", action.as_str())?;
        }
        if !ending.is_clean() {
            let seen = &ending.seen;
            write!(
                formatter,
                "; client saw {}, server saw {}",
                StatusText(seen.client.status),
                StatusText(seen.server.status)
            )?;
        }
        Ok(())
    }

    fn write_violations(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        for endpoint in Endpoint::BOTH {
            for (index, violation) in self.summary.sent[endpoint].violations.iter().enumerate() {
                match index {
                    0 => write!(formatter, "; {} broke the protocol: ", endpoint.as_str())?,
                    _ => formatter.write_str(", ")?,
                }
                formatter.write_str(violation.as_str())?;
            }
        }
        Ok(())
    }
}

/// The failure of a party, as the verb of a sentence.
const fn verb(fault: Fault) -> &'static str {
    match fault {
        Fault::Endpoint(_, LegFault::Eof) => "closed the connection (FIN)",
        Fault::Endpoint(_, LegFault::Truncated) => "closed the connection inside a frame (FIN)",
        Fault::Endpoint(_, LegFault::Reset) => "reset the connection (RST)",
        Fault::Endpoint(_, LegFault::Timeout) => "acknowledged nothing any more: its link is dead",
        Fault::Endpoint(_, LegFault::Unreachable) => "became unreachable: there is no route to it",
        Fault::Endpoint(_, LegFault::Tls) => "ended TLS with an alert or a bad record",
        Fault::Endpoint(_, LegFault::NoCloseReply) => "did not answer the Close frame in time",
        Fault::Proxy(_) => "cut the session",
    }
}

/// A party as a sentence names it.
struct PartyName(Party);

impl Display for PartyName {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.0 {
            Party::Proxy => "closewatch",
            endpoint => endpoint.as_str(),
        })
    }
}

/// A status as a sentence names it.
struct StatusText(CloseStatus);

impl Display for StatusText {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            CloseStatus::Sent(code) => write!(formatter, "{}", code.0),
            CloseStatus::Malformed => formatter.write_str("a Close frame with half a code"),
            CloseStatus::NoStatus => formatter.write_str("an empty Close frame (1005)"),
            CloseStatus::Abnormal => formatter.write_str("1006"),
        }
    }
}

/// Text on one line: it escapes line breaks, control sequences of terminals and marks of the writing direction.
pub(crate) struct OneLine<'a>(pub(crate) &'a str);

impl OneLine<'_> {
    /// Whether a character has an effect besides its own place in the line.
    pub(crate) fn is_disruptive(character: char) -> bool {
        character.is_control()
            || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    }
}

impl Display for OneLine<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if Self::is_disruptive(character) {
                write!(formatter, "{}", character.escape_default())?;
            } else {
                formatter.write_char(character)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        journal::{SessionInfo, record::tests::record},
        session::Sent,
        websocket::{
            PerEndpoint, close_code::CloseCode, closing_handshake::Action, closing_handshake::CloseEvent,
            conformance::Violation, conformance::Violations,
        },
    };

    const SESSION: &str = "session 4f on default from 10.0.0.7:41234 to 127.0.0.1:9000 path \"/chat\": ";
    const TIMES: &str = "; 12.345 s, idle 0.200 s";

    fn sent(code: u16) -> CloseStatus {
        CloseStatus::Sent(CloseCode(code))
    }

    fn seen(client: CloseStatus, server: CloseStatus) -> PerEndpoint<CloseEvent> {
        let seen = |status| CloseEvent { status, reason: String::new(), clean: false };
        PerEndpoint { client: seen(client), server: seen(server) }
    }

    fn assert_sentence(record: &Record, events: &str) {
        assert_eq!(record.to_string(), format!("{SESSION}{events}{TIMES}"));
    }

    #[test]
    fn answered_close_frame() {
        assert_sentence(&record(), "server sent 1011 (Internal Error) \"boom\"; then client answered with 1011");
    }

    #[test]
    fn empty_close_frame_and_malformed_answer() {
        let mut record = record();
        record.summary.ending.status = CloseStatus::NoStatus;
        record.summary.ending.reason = String::new();
        record.summary.ending.received.client = Some(CloseStatus::Malformed);
        assert_sentence(
            &record,
            "server sent an empty Close frame (1005); then client answered with a Close frame with half a code",
        );
    }

    #[test]
    fn unanswered_close_frame() {
        let mut record = record();
        record.summary.ending.fault = Some(Fault::Endpoint(Endpoint::Client, LegFault::NoCloseReply));
        record.summary.ending.received.client = None;
        record.summary.ending.seen = seen(sent(1011), CloseStatus::Abnormal);
        assert_sentence(
            &record,
            "server sent 1011 (Internal Error) \"boom\"; client did not answer the Close frame in time; \
             client saw 1011, server saw 1006",
        );
    }

    #[test]
    fn reset_and_close_frame_after_it() {
        let mut record = record();
        record.summary.ending.status = CloseStatus::Abnormal;
        record.summary.ending.reason = String::new();
        record.summary.ending.fault = Some(Fault::Endpoint(Endpoint::Server, LegFault::Reset));
        record.summary.ending.received = PerEndpoint { client: Some(sent(1000)), server: None };
        record.summary.ending.seen = seen(CloseStatus::Abnormal, CloseStatus::Abnormal);
        assert_sentence(
            &record,
            "no Close frame: server reset the connection (RST); then client sent 1000; \
             client saw 1006, server saw 1006",
        );
    }

    #[test]
    fn reported_loss_without_an_answer() {
        let mut record = record();
        record.summary.ending.status = CloseStatus::Abnormal;
        record.summary.ending.reason = String::new();
        record.summary.ending.fault = Some(Fault::Proxy(Action::ServerLoss));
        record.summary.ending.action = Some(Action::ServerLoss);
        record.summary.ending.received = PerEndpoint::default();
        record.summary.ending.seen = seen(sent(1014), CloseStatus::Abnormal);
        assert_sentence(
            &record,
            "no Close frame: the connection of server ended; closewatch ended it without every answer; \
             action server_loss; client saw 1014, server saw 1006",
        );
    }

    #[test]
    fn killed_session() {
        let mut record = record();
        record.summary.ending.status = CloseStatus::Abnormal;
        record.summary.ending.reason = String::new();
        record.summary.ending.initiator = Party::Proxy;
        record.summary.ending.fault = Some(Fault::Proxy(Action::Drain));
        record.summary.ending.action = Some(Action::Drain);
        record.summary.ending.received = PerEndpoint::default();
        record.summary.ending.seen = seen(CloseStatus::Abnormal, CloseStatus::Abnormal);
        assert_sentence(
            &record,
            "no Close frame: closewatch cut the session; action drain; client saw 1006, server saw 1006",
        );
    }

    #[test]
    fn drain_with_both_answers() {
        let mut record = record();
        record.summary.ending.status = sent(1001);
        record.summary.ending.reason = String::new();
        record.summary.ending.initiator = Party::Proxy;
        record.summary.ending.action = Some(Action::Drain);
        record.summary.ending.received = PerEndpoint { client: Some(sent(1001)), server: Some(CloseStatus::NoStatus) };
        assert_sentence(
            &record,
            "closewatch sent 1001 (Going Away); then client answered with 1001; \
             then server answered with an empty Close frame (1005); action drain",
        );
    }

    #[test]
    fn protocol_violations() {
        let mut record = record();
        let violations = Violations::from_iter([Violation::Unmasked, Violation::CloseCode]);
        record.summary.sent.client = Sent { violations, ..Sent::default() };
        assert_sentence(
            &record,
            "server sent 1011 (Internal Error) \"boom\"; then client answered with 1011; \
             client broke the protocol: unmasked, close_code",
        );
    }

    #[test]
    fn private_values_are_left_out() {
        let mut private = record();
        private.info = SessionInfo { client: None, path: None, hide_reasons: true, ..private.info };
        assert_eq!(
            private.to_string(),
            "session 4f on default to 127.0.0.1:9000: server sent 1011 (Internal Error); \
             then client answered with 1011; 12.345 s, idle 0.200 s"
        );
    }

    #[test]
    fn hostile_text_stays_on_one_line() {
        let hostile = "\u{1b}[2J\r\nfake \u{85}\u{9b}\u{2028}\u{202e}\0\"";
        let mut record = Record { route: hostile.into(), ..record() };
        record.info.path = Some(hostile.into());
        record.summary.ending.reason = hostile.to_owned();
        let sentence = record.to_string();
        assert!(!sentence.contains(OneLine::is_disruptive), "{sentence:?}");
        let quoted = r#" "\u{1b}[2J\r\nfake \u{85}\u{9b}\u{2028}\u{202e}\0\"""#;
        assert_eq!(sentence.matches(quoted).count(), 2, "{sentence}");
        assert!(sentence.starts_with(r"session 4f on \u{1b}[2J\r\nfake "), "{sentence}");
    }
}
