//! A WebSocket client that reports the events of a browser's API, and the reason for each ending.

use std::time::{Duration, Instant};

use hyper::{HeaderMap, StatusCode};
use serde::{Serialize, Serializer};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    authority::Url,
    peer::{PeerConnection, PeerEvent, ReadError, close_frame},
    websocket::close_code::{CloseCode, CloseFrame, CloseStatus},
};

mod handshake;

pub use crate::peer::Message;

/// How long the server may take to answer the Close frame that ends the wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server may take to hang up after the closing handshake.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest sum of message bytes that a probe receives. More closes with 1009.
const MAX_MESSAGES: usize = 64 << 20;

/// The course of a probe.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The WebSocket to open.
    pub url: Url,
    /// The subprotocols to offer, the first choice first.
    pub subprotocols: Vec<String>,
    /// Further headers of the opening handshake.
    pub headers: HeaderMap,
    /// Text messages to send after `onopen`.
    pub send: Vec<String>,
    /// The code and the reason to close with, directly after these messages. `None`: the server may close until the wait
    /// is over; then the probe closes with 1000.
    pub close: Option<(CloseCode, String)>,
    /// The time limit, from the connection on.
    pub wait: Duration,
}

impl Plan {
    fn close_frame(&self) -> CloseFrame {
        let (code, reason) = self.close.clone().unwrap_or((CloseCode::NORMAL, String::new()));
        close_frame(code, reason)
    }
}

/// An event, reported when it happens.
#[derive(Debug)]
pub enum Progress<'a> {
    /// `onopen`.
    Open(&'a Agreement),
    /// `onmessage`.
    Message(&'a Message),
}

/// The result of an opening handshake.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// The subprotocol that the server chose.
    pub subprotocol: Option<String>,
    /// The extensions that the server agreed to.
    pub extensions: Option<String>,
}

/// The result of a probe.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The URL.
    pub url: String,
    /// Whether a browser would call `onopen`.
    pub opened: bool,
    /// The HTTP status of the answer to the upgrade.
    pub status: Option<u16>,
    /// The subprotocol that the server chose.
    pub subprotocol: Option<String>,
    /// The extensions that the server agreed to.
    pub extensions: Option<String>,
    /// The received messages. Text is a JSON string, bytes are `{"binary": "..."}` in hexadecimal digits.
    pub messages: Vec<Message>,
    /// The event of `onclose`.
    pub close: CloseEvent,
    /// The reason of a failure, in words.
    pub error: Option<String>,
    /// From the start to the end of the connection, in seconds.
    pub duration_seconds: f64,
}

/// A browser's close event.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct CloseEvent {
    /// The code of the server's Close frame; 1005 if the frame has none, 1006 if there is no Close frame.
    pub code: u16,
    /// The code's name.
    pub name: &'static str,
    /// The reason in that frame.
    pub reason: String,
    /// `wasClean`: both endpoints sent a Close frame.
    pub clean: bool,
}

/// Opens a WebSocket, follows the plan, and reports.
pub async fn run(plan: &Plan, mut observe: impl FnMut(Progress<'_>)) -> Report {
    let started = Instant::now();
    let mut report = Report::never_opened(plan.url.to_string());
    match timeout(plan.wait, handshake::open(plan)).await {
        Err(_) => report.error = Some(format!("no WebSocket within {}", humantime::format_duration(plan.wait))),
        Ok(Err(failure)) => {
            report.status = failure.status.as_ref().map(StatusCode::as_u16);
            report.error = Some(failure.message);
        }
        Ok(Ok((connection, agreement))) => {
            report.open(&agreement);
            observe(Progress::Open(&agreement));
            let rest = plan.wait.saturating_sub(started.elapsed());
            OpenProbe { connection, report: &mut report, sent_close: false, received: 0 }
                .run(plan, rest, &mut observe)
                .await;
        }
    }
    report.duration_seconds = started.elapsed().as_secs_f64();
    report
}

/// An open connection and its report so far.
struct OpenProbe<'a> {
    connection: PeerConnection<TcpStream>,
    report: &'a mut Report,
    sent_close: bool,
    /// Bytes of messages so far.
    received: usize,
}

impl OpenProbe<'_> {
    async fn run(mut self, plan: &Plan, wait: Duration, observe: &mut impl FnMut(Progress<'_>)) {
        let talk = async {
            self.send(plan).await;
            self.receive(observe).await
        };
        let end = match timeout(wait, talk).await {
            Err(_) if !self.sent_close => timeout(ANSWER_TIMEOUT, self.close_and_receive(plan, observe)).await,
            end => end,
        };
        match end {
            Ok(Ok(frame)) => self.finish(frame).await,
            Ok(Err(error)) => self.fail(error).await,
            Err(_) => self.report.error = Some("the server did not answer the Close frame in time".to_owned()),
        }
    }

    async fn send(&mut self, plan: &Plan) {
        for text in &plan.send {
            // If the server hung up, the bytes that it sent before explain more than this error.
            let _ = self.connection.send(Message::Text(text.clone())).await;
        }
        if plan.close.is_some() {
            self.close(&plan.close_frame()).await;
        }
    }

    async fn close_and_receive(
        &mut self,
        plan: &Plan,
        observe: &mut impl FnMut(Progress<'_>),
    ) -> Result<CloseFrame, ReadError> {
        self.close(&plan.close_frame()).await;
        self.receive(observe).await
    }

    /// Reads until the server's Close frame, or until nothing more can be read.
    async fn receive(&mut self, observe: &mut impl FnMut(Progress<'_>)) -> Result<CloseFrame, ReadError> {
        loop {
            match self.connection.next_event().await? {
                PeerEvent::Close(frame) => return Ok(frame),
                PeerEvent::Ping(payload) if !self.sent_close => self.connection.pong(payload).await?,
                PeerEvent::Ping(_) | PeerEvent::Pong => {}
                PeerEvent::Message(message) => {
                    self.received += message.len();
                    if self.received > MAX_MESSAGES {
                        let message = format!("more than {MAX_MESSAGES} bytes of messages");
                        return Err(ReadError::Violation { code: CloseCode::TOO_BIG.0, message });
                    }
                    observe(Progress::Message(&message));
                    self.report.messages.push(message);
                }
            }
        }
    }

    /// Completes the closing handshake that the server's Close frame begins or ends.
    async fn finish(mut self, frame: CloseFrame) {
        if !self.sent_close {
            self.close(&frame).await;
        }
        if !self.sent_close {
            self.report.error = Some("the answer to the server's Close frame cannot be sent".to_owned());
        }
        self.report.close = CloseEvent::new(frame.status, frame.reason, self.sent_close);
        self.connection.hang_up(HANG_UP_TIMEOUT).await;
    }

    /// Ends a connection without a closing handshake.
    async fn fail(mut self, error: ReadError) {
        self.report.error = Some(match error {
            ReadError::Ended => "the server ended the connection without a Close frame".to_owned(),
            ReadError::Broken(error) => format!("the connection broke: {error}"),
            ReadError::Violation { code, message } => {
                if !self.sent_close {
                    self.close(&close_frame(CloseCode(code), message.clone())).await;
                }
                format!("failed the connection with {code}: {message}")
            }
        });
        self.connection.hang_up(HANG_UP_TIMEOUT).await;
    }

    async fn close(&mut self, frame: &CloseFrame) {
        // If a Close frame cannot be sent, the session is not clean, and the next read returns the reason.
        self.sent_close = matches!(timeout(HANG_UP_TIMEOUT, self.connection.close(frame)).await, Ok(Ok(())));
    }
}

impl Report {
    /// The report of a connection that was never open. A browser reports it as closed with 1006.
    fn never_opened(url: String) -> Self {
        Self {
            url,
            opened: false,
            status: None,
            subprotocol: None,
            extensions: None,
            messages: Vec::new(),
            close: CloseEvent::new(CloseStatus::Abnormal, String::new(), false),
            error: None,
            duration_seconds: 0.0,
        }
    }

    fn open(&mut self, agreement: &Agreement) {
        self.opened = true;
        self.status = Some(StatusCode::SWITCHING_PROTOCOLS.as_u16());
        self.subprotocol.clone_from(&agreement.subprotocol);
        self.extensions.clone_from(&agreement.extensions);
    }
}

impl CloseEvent {
    fn new(status: CloseStatus, reason: String, clean: bool) -> Self {
        let code = status.number().expect("a Close frame with half a code fails the connection");
        Self { code, name: status.name(), reason, clean }
    }
}

impl Message {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Binary(bytes) => serializer.collect_map([("binary", hexadecimal(bytes))]),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from_digit(digit.into(), 16).expect("below 16")).collect()
}
