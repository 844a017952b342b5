//! `closewatch probe`: a WebSocket as a browser would report it.

use std::{process::ExitCode, time::Duration};

use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};

use super::{on_one_thread, print, say};
use crate::{
    authority::{Scheme, Url},
    probe::{self, Close, Plan, Progress, ReceivedMessage, Report},
    websocket::close_code::{CloseCode, MAX_REASON},
};

/// The longest `--wait`.
const WAIT_LIMIT: Duration = Duration::from_hours(24);

/// Headers that belong to the probe itself: another value would break the handshake or its framing.
const OWN_HEADERS: [HeaderName; 8] = [
    CONNECTION,
    UPGRADE,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION,
    SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_PROTOCOL,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
];

/// The arguments of `closewatch probe`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Arguments {
    /// The WebSocket to open, `ws://host[:port][/path]` (`wss://` is not supported yet).
    #[arg(value_parser = parse_url)]
    url: Url,
    /// A subprotocol to offer; may be repeated, the favourite first.
    #[arg(long, value_name = "P", value_parser = parse_subprotocol)]
    subprotocol: Vec<String>,
    /// A header for the opening handshake; may be repeated. Where `Sec-WebSocket-Extensions` is offered and agreed,
    /// encoded messages are shown as the bytes they came in.
    #[arg(long, value_name = "K: V", value_parser = parse_header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// A text message to send once the connection is open; may be repeated.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    send: Vec<String>,
    /// Closes with this code right after the messages; without it the server may close while the wait lasts, and is
    /// closed with 1000 then.
    #[arg(long, value_name = "CODE[:REASON]", value_parser = parse_close)]
    close: Option<(CloseCode, String)>,
    /// How long all of it may take, from the connection to the server's Close frame.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_wait)]
    wait: Duration,
    /// Accepts any certificate of a `wss://` server (not supported yet).
    #[arg(long)]
    insecure: bool,
    /// Prints one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    if arguments.insecure {
        say("error: --insecure is not supported yet, since wss:// is not");
        return ExitCode::from(2);
    }
    let plan = plan(arguments);
    let observe = |progress: Progress<'_>| {
        if !arguments.json {
            print(&describe(&progress));
        }
    };
    match on_one_thread(probe::run(&plan, observe)) {
        Ok(report) => {
            print(&if arguments.json { json(&report) } else { summary(&report) });
            if report.close.clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(message) => {
            say(&format!("error: {message}"));
            ExitCode::FAILURE
        }
    }
}

fn plan(arguments: &Arguments) -> Plan {
    let mut headers = HeaderMap::new();
    for (name, value) in &arguments.header {
        headers.append(name, value.clone());
    }
    Plan {
        url: arguments.url.clone(),
        subprotocols: arguments.subprotocol.clone(),
        headers,
        send: arguments.send.clone(),
        close: arguments.close.clone(),
        wait: arguments.wait,
    }
}

fn describe(progress: &Progress<'_>) -> String {
    match progress {
        Progress::Open(opening) => format!(
            "onopen     protocol {:?}, extensions {:?}",
            opening.subprotocol.as_deref().unwrap_or_default(),
            opening.extensions.as_deref().unwrap_or_default()
        ),
        Progress::Message(ReceivedMessage::Text(text)) => format!("onmessage  text, {} bytes: {text:?}", text.len()),
        Progress::Message(ReceivedMessage::Binary(bytes)) => {
            format!("onmessage  binary, {} bytes: \"{}\"", bytes.len(), bytes.escape_ascii())
        }
    }
}

fn summary(report: &Report) -> String {
    let Close { code, name, reason, clean } = &report.close;
    let close = format!("onclose    code {code} ({name}), reason {reason:?}, wasClean {clean}");
    match &report.error {
        Some(error) => format!("onerror    {error:?}\n{close}"),
        None => close,
    }
}

fn json(report: &Report) -> String {
    serde_json::to_string(report).expect("a report has no maps with other keys than strings")
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url = text.parse::<Url>().map_err(|error| error.to_string())?;
    match url.scheme {
        Scheme::Ws => Ok(url),
        Scheme::Wss => Err("wss:// is not supported yet".to_owned()),
        Scheme::Http | Scheme::Https => Err("the URL of a WebSocket begins with ws://".to_owned()),
    }
}

fn parse_subprotocol(text: &str) -> Result<String, String> {
    // A subprotocol is an HTTP token (RFC 6455, 4.1), as a header's name is.
    match HeaderName::from_bytes(text.as_bytes()) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("a subprotocol is made of letters, digits and !#$%&'*+-.^_`|~".to_owned()),
    }
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a header is given as 'Name: value'")?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|error| error.to_string())?;
    let value = HeaderValue::from_str(value.trim()).map_err(|error| error.to_string())?;
    if OWN_HEADERS.contains(&name) {
        return Err(format!("the probe sets {name} itself"));
    }
    Ok((name, value))
}

fn parse_close(text: &str) -> Result<(CloseCode, String), String> {
    let (code, reason) = text.split_once(':').unwrap_or((text, ""));
    let code = CloseCode(code.parse().map_err(|_| "a Close code is a number from 1000 to 4999")?);
    if !code.allowed_on_wire() {
        return Err(format!("{} may not be written into a Close frame", code.0));
    }
    if reason.len() > MAX_REASON {
        return Err(format!("a reason has at most {MAX_REASON} bytes"));
    }
    Ok((code, reason.to_owned()))
}

fn parse_wait(text: &str) -> Result<Duration, String> {
    let wait = humantime::parse_duration(text).map_err(|error| format!("{error} (a duration is 250ms, 30s, 5m)"))?;
    if wait > WAIT_LIMIT { Err("at most 24h".to_owned()) } else { Ok(wait) }
}
