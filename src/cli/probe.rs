//! `closewatch probe`: a WebSocket client that prints the events of a browser.

use std::{process::ExitCode, time::Duration};

use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};

use super::{on_one_thread, print, print_error};
use crate::{
    authority::{Scheme, Url},
    probe::{self, CloseEvent, Message, Plan, Progress, Report},
    websocket::close_code::{CloseCode, MAX_REASON},
};

/// The longest `--wait`.
const WAIT_LIMIT: Duration = Duration::from_hours(24);

/// Headers that only the probe sets: another value would break the handshake or its framing.
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
pub(super) struct ProbeArguments {
    /// The WebSocket to open, `ws://host[:port][/path]` (`wss://` is not supported yet).
    #[arg(value_parser = parse_url)]
    url: Url,
    /// A subprotocol to offer. May be repeated, the first choice first.
    #[arg(long, value_name = "P", value_parser = parse_subprotocol)]
    subprotocol: Vec<String>,
    /// A header for the opening handshake. May be repeated. If the server agrees to a `Sec-WebSocket-Extensions` that is
    /// given here, encoded messages appear as their bytes.
    #[arg(long, value_name = "K: V", value_parser = parse_header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// A text message to send after the opening handshake. May be repeated.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    send: Vec<String>,
    /// Close with this code directly after the messages. Without it, the server may close until the wait is over; then
    /// the probe closes with 1000.
    #[arg(long, value_name = "CODE[:REASON]", value_parser = parse_close)]
    close: Option<(CloseCode, String)>,
    /// The time limit, from the connection to the server's Close frame.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_wait)]
    wait: Duration,
    /// Accept any certificate of a `wss://` server (`wss://` is not supported yet). Without effect on `ws://`.
    #[arg(long)]
    insecure: bool,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

pub(super) fn main(arguments: &ProbeArguments) -> ExitCode {
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
            print_error(&format!("error: {message}"));
            ExitCode::FAILURE
        }
    }
}

fn plan(arguments: &ProbeArguments) -> Plan {
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
        Progress::Open(agreement) => format!(
            "onopen     protocol {:?}, extensions {:?}",
            agreement.subprotocol.as_deref().unwrap_or_default(),
            agreement.extensions.as_deref().unwrap_or_default()
        ),
        Progress::Message(Message::Text(text)) => format!("onmessage  text, {} bytes: {text:?}", text.len()),
        Progress::Message(Message::Binary(bytes)) => {
            format!("onmessage  binary, {} bytes: \"{}\"", bytes.len(), bytes.escape_ascii())
        }
    }
}

fn summary(report: &Report) -> String {
    let CloseEvent { code, name, reason, clean } = &report.close;
    let close = format!("onclose    code {code} ({name}), reason {reason:?}, wasClean {clean}");
    match &report.error {
        Some(error) => format!("onerror    {error:?}\n{close}"),
        None => close,
    }
}

fn json(report: &Report) -> String {
    serde_json::to_string(report).expect("every key of a report is a string")
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
    // A subprotocol is an HTTP token (RFC 6455, 4.1), like the name of a header.
    match HeaderName::from_bytes(text.as_bytes()) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("allowed in a subprotocol: letters, digits and !#$%&'*+-.^_`|~".to_owned()),
    }
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("allowed: 'Name: value'")?;
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
        return Err(format!("{} is illegal in a Close frame", code.0));
    }
    if reason.len() > MAX_REASON {
        return Err(format!("a reason has at most {MAX_REASON} bytes"));
    }
    Ok((code, reason.to_owned()))
}

fn parse_wait(text: &str) -> Result<Duration, String> {
    let wait = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; allowed: a duration such as 250ms, 30s or 5m"))?;
    if wait > WAIT_LIMIT { Err("allowed: at most 24h".to_owned()) } else { Ok(wait) }
}
