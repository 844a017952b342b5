//! An opening handshake as a state machine: no I/O, no clock, no tokio.
//!
//! Each call is an event, and returns the next [`HandshakeStep`]. The driver performs it and reports the result as the next
//! event:
//!
//! | phase | action | events |
//! | --- | --- | --- |
//! | connecting | [`HandshakeStep::Connect`] | `connected`, `connect_failed` |
//! | answering | [`HandshakeStep::Ask`], [`HandshakeStep::Read`] | `received`, `server_ended`, `timed_out` |
//! | switching | [`HandshakeStep::Switch`] | `switched`, `timed_out` |
//! | over | [`HandshakeStep::End`] | none |
//!
//! `client_ended` and `cut` may come in any phase. The driver has the timers: `upstream.connect_timeout` runs in the first
//! phase and is a failed connection; `timeouts.handshake` runs anew in the other two.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{
    answer::{Answer, AnswerReader, for_client},
    handshake_guard::Failure,
    raw_head::{Parsed, RequestHead, ResponseHead, Target},
    request::ForwardedRequest,
};
use crate::{metrics::HandshakeFailure, proxy::http::validate::destination};

/// An opening handshake whose request may be forwarded.
#[derive(Debug)]
pub(crate) struct Handshake {
    request: ForwardedRequest,
    reader: AnswerReader,
    phase: HandshakePhase,
}

#[derive(Debug)]
enum HandshakePhase {
    Connecting,
    Answering,
    Switching(Box<Switching>),
    Over,
}

/// A task for the driver.
#[derive(Debug)]
pub(crate) enum HandshakeStep {
    /// Connect to the server.
    Connect,
    /// Send these bytes to the server, and read its answer.
    Ask(Vec<u8>),
    /// Read more of the answer.
    Read,
    /// Send these bytes to the client.
    Switch(Vec<u8>),
    /// The handshake is over.
    End(HandshakeVerdict),
}

/// How a handshake ended.
#[derive(Debug)]
pub(crate) enum HandshakeVerdict {
    /// It is a session.
    Session(Box<Switching>),
    /// The client gets the server's response, whose head has so many lines.
    Reject { lines: usize },
    /// The client gets a response of closewatch's own.
    Fail(Failure),
    /// The client has gone without an answer.
    ClientGone,
}

/// A handshake that becomes a session.
#[derive(Debug)]
pub(crate) struct Switching {
    pub(crate) path: Box<str>,
    pub(crate) trace_id: Option<Box<str>>,
    /// The head of the server's 101.
    pub(crate) head: Bytes,
    /// The bytes right behind it.
    pub(crate) early: BytesMut,
}

/// Decides whether an upgrade request is forwarded. `find` returns the route for a host and a path.
///
/// # Errors
///
/// The request is not forwarded, though it may have a route.
pub(crate) fn admit<'h, R>(
    request: &RequestHead<'h>,
    has_body: bool,
    is_draining: bool,
    find: impl FnOnce(&str, &str) -> Option<R>,
) -> Result<(R, Target<'h>), (Option<R>, Failure)> {
    let (target, host) =
        destination(request).map_err(|message| (None, Failure::new(HandshakeFailure::BadRequest, message)))?;
    match find(host, target.path()) {
        None => Err((None, Failure::new(HandshakeFailure::NoRoute, "no route matches this host and path"))),
        Some(route) if is_draining => Err((Some(route), Failure::draining())),
        Some(route) if has_body => {
            let message = "an upgrade request must not have a body";
            Err((Some(route), Failure::new(HandshakeFailure::BadRequest, message)))
        }
        Some(route) => Ok((route, target)),
    }
}

impl Handshake {
    /// Starts the handshake of a request.
    pub(crate) fn start(request: ForwardedRequest) -> (Self, HandshakeStep) {
        (Self { request, reader: AnswerReader::default(), phase: HandshakePhase::Connecting }, HandshakeStep::Connect)
    }

    /// There is a connection to the server.
    pub(crate) fn connected(&mut self) -> HandshakeStep {
        self.phase = HandshakePhase::Answering;
        HandshakeStep::Ask(std::mem::take(&mut self.request.head))
    }

    /// There is none.
    pub(crate) fn connect_failed(&mut self, failure: Failure) -> HandshakeStep {
        self.end(HandshakeVerdict::Fail(failure))
    }

    /// These bytes of the answer have come, and no others. Removes the head of a 101, and the bytes behind it.
    pub(crate) fn received(&mut self, bytes: &mut BytesMut) -> HandshakeStep {
        match self.reader.judge(bytes) {
            Answer::Partial => HandshakeStep::Read,
            Answer::Invalid(message) => self.fail(HandshakeFailure::UpstreamInvalid, message),
            Answer::Rejected { lines } => self.end(HandshakeVerdict::Reject { lines }),
            Answer::Switching(length) => {
                let head = bytes.split_to(length).freeze();
                self.switch(head, bytes.split())
            }
        }
    }

    /// The server has ended the connection before its answer was complete.
    pub(crate) fn server_ended(&mut self) -> HandshakeStep {
        let message = "the upstream ended the connection before its answer";
        self.fail(HandshakeFailure::UpstreamReset, message)
    }

    /// The client has its 101.
    pub(crate) fn switched(&mut self) -> HandshakeStep {
        match std::mem::replace(&mut self.phase, HandshakePhase::Over) {
            HandshakePhase::Switching(switching) => HandshakeStep::End(HandshakeVerdict::Session(switching)),
            _ => HandshakeStep::End(HandshakeVerdict::ClientGone),
        }
    }

    /// `timeouts.handshake` is over, which is so long.
    pub(crate) fn timed_out(&mut self, timeout: Duration) -> HandshakeStep {
        if matches!(self.phase, HandshakePhase::Switching(_)) {
            return self.client_ended();
        }
        let message = format!("no answer from the upstream within {}", humantime::format_duration(timeout));
        self.fail(HandshakeFailure::UpstreamTimeout, &message)
    }

    /// The client has ended the connection.
    pub(crate) fn client_ended(&mut self) -> HandshakeStep {
        self.end(HandshakeVerdict::ClientGone)
    }

    /// The time of a drain is over.
    pub(crate) fn cut(&mut self) -> HandshakeStep {
        self.end(HandshakeVerdict::Fail(Failure::draining()))
    }

    fn switch(&mut self, head: Bytes, early: BytesMut) -> HandshakeStep {
        let Parsed::Whole(response, _) = ResponseHead::parse(&head) else {
            return self.fail(HandshakeFailure::UpstreamInvalid, "the upstream's answer is not HTTP");
        };
        if let Some(misfit) = self.request.offer.misfit(&response.fields) {
            return self.fail(HandshakeFailure::UpstreamInvalid, misfit);
        }
        let for_client = for_client(response);
        let (path, trace_id) = (std::mem::take(&mut self.request.path), self.request.trace_id.take());
        self.phase = HandshakePhase::Switching(Box::new(Switching { path, trace_id, head, early }));
        HandshakeStep::Switch(for_client)
    }

    fn fail(&mut self, cause: HandshakeFailure, message: &str) -> HandshakeStep {
        self.end(HandshakeVerdict::Fail(Failure::new(cause, message)))
    }

    fn end(&mut self, verdict: HandshakeVerdict) -> HandshakeStep {
        self.phase = HandshakePhase::Over;
        HandshakeStep::End(verdict)
    }
}

#[cfg(test)]
mod tests;
