//! A WebSocket client that reports what a browser's events would, and why.

use std::time::{Duration, Instant};

use hyper::{HeaderMap, StatusCode};
use serde::{Serialize, Serializer};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    authority::Url,
    peer::{CloseFrame, Connection, Event, Message, ReadError},
    websocket::close_code::{CloseCode, CloseStatus},
};

mod handshake;

/// How long the server may take to answer the Close frame that ends the wait.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// How long the server may take to hang up after the closing handshake.
const HANG_UP_PATIENCE: Duration = Duration::from_secs(2);
/// How many bytes of messages a probe takes in all before it closes with 1009.
const MESSAGES_LIMIT: usize = 64 << 20;

/// What a probe is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where to connect to.
    pub url: Url,
    /// The subprotocols to offer, the favourite first.
    pub subprotocols: Vec<String>,
    /// More headers for the opening handshake.
    pub headers: HeaderMap,
    /// Text messages to send once the connection is open.
    pub send: Vec<String>,
    /// The code and reason to close with, right after these messages; without one the server is given the whole wait
    /// to close, and then closed with 1000.
    pub close: Option<(CloseCode, String)>,
    /// How long all of it may take, from the connection on.
    pub wait: Duration,
}

impl Plan {
    fn close_frame(&self) -> CloseFrame {
        let (code, reason) = self.close.clone().unwrap_or((CloseCode::NORMAL, String::new()));
        CloseFrame::new(code.0, reason)
    }
}

/// What happened, told as soon as it does.
#[derive(Debug)]
pub enum Progress<'a> {
    /// `onopen`.
    Open(&'a Opening),
    /// `onmessage`.
    Message(&'a ReceivedMessage),
}

/// What the opening handshake agreed on.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The subprotocol that the server chose.
    pub subprotocol: Option<String>,
    /// The extensions that the server agreed to.
    pub extensions: Option<String>,
}

/// What was found out.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The URL as given.
    pub url: String,
    /// Whether `onopen` would have been called.
    pub opened: bool,
    /// The HTTP status that answered the upgrade.
    pub status: Option<u16>,
    /// The subprotocol that the server chose.
    pub subprotocol: Option<String>,
    /// The extensions that the server agreed to.
    pub extensions: Option<String>,
    /// The messages received.
    pub messages: Vec<ReceivedMessage>,
    /// What `onclose` would have been given.
    pub close: Close,
    /// What went wrong, in words.
    pub error: Option<String>,
    /// From the start to the end of the connection, in seconds.
    pub duration_seconds: f64,
}

/// A message from the server: text as a JSON string, bytes as `{"binary": "..."}` in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceivedMessage {
    /// UTF-8 text.
    Text(String),
    /// Bytes; also a message in the form that an agreed extension gave it.
    Binary(Vec<u8>),
}

/// A browser's close event.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct Close {
    /// The code of the server's Close frame, 1005 where it carried none, 1006 where there was none.
    pub code: u16,
    /// The code's name.
    pub name: &'static str,
    /// The reason in that frame.
    pub reason: String,
    /// `wasClean`: Close frames went both ways.
    pub clean: bool,
}

/// Opens a WebSocket, does as planned, and reports.
pub async fn run(plan: &Plan, mut observe: impl FnMut(Progress<'_>)) -> Report {
    let started = Instant::now();
    let mut report = Report::of_nothing(plan.url.to_string());
    match timeout(plan.wait, handshake::open(plan)).await {
        Err(_) => report.error = Some(format!("no WebSocket within {}", humantime::format_duration(plan.wait))),
        Ok(Err(refusal)) => {
            report.status = refusal.status.as_ref().map(StatusCode::as_u16);
            report.error = Some(refusal.why);
        }
        Ok(Ok((connection, opening))) => {
            report.open(&opening);
            observe(Progress::Open(&opening));
            let rest = plan.wait.saturating_sub(started.elapsed());
            Conversation { connection, report: &mut report, closing: false, received: 0 }
                .hold(plan, rest, &mut observe)
                .await;
        }
    }
    report.duration_seconds = started.elapsed().as_secs_f64();
    report
}

/// An open connection, on its way to the report.
struct Conversation<'a> {
    connection: Connection<TcpStream>,
    report: &'a mut Report,
    /// Our Close frame is sent.
    closing: bool,
    /// Bytes of messages so far.
    received: usize,
}

impl Conversation<'_> {
    async fn hold(mut self, plan: &Plan, wait: Duration, observe: &mut impl FnMut(Progress<'_>)) {
        let talk = async {
            self.speak(plan).await;
            self.listen(observe).await
        };
        let end = match timeout(wait, talk).await {
            Err(_) if !self.closing => timeout(ANSWER_PATIENCE, self.close_and_listen(plan, observe)).await,
            end => end,
        };
        match end {
            Ok(Ok(frame)) => self.finish(frame).await,
            Ok(Err(error)) => self.fail(error).await,
            Err(_) => self.report.error = Some("the server did not answer the Close frame in time".to_owned()),
        }
    }

    async fn speak(&mut self, plan: &Plan) {
        for text in &plan.send {
            // Where the server has hung up, what it said before is still to be read, and tells more.
            let _ = self.connection.send(Message::Text(text.clone())).await;
        }
        if plan.close.is_some() {
            self.close(&plan.close_frame()).await;
        }
    }

    async fn close_and_listen(
        &mut self,
        plan: &Plan,
        observe: &mut impl FnMut(Progress<'_>),
    ) -> Result<CloseFrame, ReadError> {
        self.close(&plan.close_frame()).await;
        self.listen(observe).await
    }

    /// Reads until the server's Close frame, or until nothing more can be read.
    async fn listen(&mut self, observe: &mut impl FnMut(Progress<'_>)) -> Result<CloseFrame, ReadError> {
        loop {
            match self.connection.next_event().await? {
                Event::Close(frame) => return Ok(frame),
                Event::Ping(payload) if !self.closing => self.connection.pong(payload).await?,
                Event::Ping(_) | Event::Pong => {}
                Event::Message(message) => {
                    let message = ReceivedMessage::from(message);
                    self.received += message.len();
                    if self.received > MESSAGES_LIMIT {
                        let what = format!("more than {MESSAGES_LIMIT} bytes of messages");
                        return Err(ReadError::Violation { code: CloseCode::TOO_BIG.0, what });
                    }
                    observe(Progress::Message(&message));
                    self.report.messages.push(message);
                }
            }
        }
    }

    /// Completes the closing handshake that the server's Close frame begins or ends.
    async fn finish(mut self, frame: CloseFrame) {
        if !self.closing {
            self.close(&frame).await;
        }
        if !self.closing {
            self.report.error = Some("the answer to the server's Close frame could not be sent".to_owned());
        }
        self.report.close = Close::new(frame.status(), frame.reason, self.closing);
        self.connection.hang_up(HANG_UP_PATIENCE).await;
    }

    /// Ends a connection that had no closing handshake.
    async fn fail(mut self, error: ReadError) {
        self.report.error = Some(match error {
            ReadError::Ended => "the server ended the connection without a Close frame".to_owned(),
            ReadError::Broken(error) => format!("the connection broke: {error}"),
            ReadError::Violation { code, what } => {
                if !self.closing {
                    self.close(&CloseFrame::new(code, what.clone())).await;
                }
                format!("failed the connection with {code}: {what}")
            }
        });
        self.connection.hang_up(HANG_UP_PATIENCE).await;
    }

    async fn close(&mut self, frame: &CloseFrame) {
        // A Close frame that cannot be sent leaves the session unclean, and reading tells why.
        self.closing = matches!(timeout(HANG_UP_PATIENCE, self.connection.close(frame)).await, Ok(Ok(())));
    }
}

impl Report {
    /// The report of a connection that never was, as a browser tells it: closed with 1006.
    fn of_nothing(url: String) -> Self {
        Self {
            url,
            opened: false,
            status: None,
            subprotocol: None,
            extensions: None,
            messages: Vec::new(),
            close: Close::new(CloseStatus::Abnormal, String::new(), false),
            error: None,
            duration_seconds: 0.0,
        }
    }

    fn open(&mut self, opening: &Opening) {
        self.opened = true;
        self.status = Some(StatusCode::SWITCHING_PROTOCOLS.as_u16());
        self.subprotocol.clone_from(&opening.subprotocol);
        self.extensions.clone_from(&opening.extensions);
    }
}

impl Close {
    fn new(status: CloseStatus, reason: String, clean: bool) -> Self {
        let code = status.number().expect("a frame with half a code fails the connection");
        Self { code, name: status.name(), reason, clean }
    }
}

impl ReceivedMessage {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

impl From<Message> for ReceivedMessage {
    fn from(message: Message) -> Self {
        match message {
            Message::Text(text) => Self::Text(text),
            Message::Binary(bytes) => Self::Binary(bytes),
        }
    }
}

impl Serialize for ReceivedMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Binary(bytes) => serializer.collect_map([("binary", hexadecimal(bytes))]),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut digits, byte| {
        write!(digits, "{byte:02x}").expect("a String takes all text");
        digits
    })
}
