//! The table of opening handshakes: each path of a request, from its first byte to the client's answer.

use super::{
    super::answer::{MAX_HEAD, MAX_INFORMATIONAL},
    *,
};
use crate::proxy::{
    http::validate::{RequestKind, classify, has_lost_headers},
    request_reader::RequestReader,
};

const REQUEST: &str = "GET /chat?a HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
const REFUSED: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno";
const FRAME: &str = "\u{1}\u{2}";
const LIMIT: usize = 2000;

/// An event after the request.
enum Event<'a> {
    Connected,
    /// There is no connection, for this cause.
    NoConnection(HandshakeFailure),
    Answer(&'a str),
    ServerEnded,
    Switched,
    TimedOut,
    ClientEnded,
    Cut,
}
use Event::{Answer as From, ClientEnded, Connected, Cut, NoConnection, ServerEnded, Switched, TimedOut};

/// The heads that are sent, and the end.
fn trace(request: &str, is_draining: bool, events: &[Event<'_>]) -> String {
    let mut bytes = BytesMut::from(request.as_bytes());
    let head = match RequestReader::new(LIMIT).read(&mut bytes) {
        Ok(None) => return "waits for the request".to_owned(),
        Ok(Some(length)) => bytes.split_to(length),
        Err(unreadable) => return format!("{} {}", unreadable.refusal().0.as_u16(), unreadable.reason().as_str()),
    };
    let Parsed::Whole(request, _) = RequestHead::parse(&head) else { panic!("the reader has found it") };
    let has_body = match classify(&request) {
        Ok(RequestKind::Upgrade { has_body }) => has_body,
        Ok(RequestKind::Plain(_)) if has_lost_headers(&request) => return "plain, headers_lost".to_owned(),
        Ok(RequestKind::Plain(_)) => return "plain".to_owned(),
        Err(_) => return "400 bad_request".to_owned(),
    };
    let find = |host: &str, path: &str| (host == "a.example" && path != "/unknown").then_some(());
    let target = match admit(&request, has_body, is_draining, find) {
        Ok(((), target)) => target,
        Err((_, failure)) => return ended(HandshakeVerdict::Fail(failure)),
    };
    let request = ForwardedRequest::new(request, &target, |_| {});
    let (handshake, action) = Handshake::start(request);
    let early = if bytes.is_empty() { "" } else { "; early bytes of the client" };
    run(handshake, action, events) + early
}

fn run(mut handshake: Handshake, first: HandshakeStep, events: &[Event<'_>]) -> String {
    let (mut steps, mut action, mut answer) = (Vec::new(), first, BytesMut::new());
    for event in events {
        steps.extend(performed(&action));
        assert!(!matches!(action, HandshakeStep::End(_)), "events behind the end, after {steps:?}");
        action = match event {
            Connected => handshake.connected(),
            NoConnection(cause) => handshake.connect_failed(Failure::new(*cause, "")),
            From(bytes) => {
                answer.extend_from_slice(bytes.as_bytes());
                handshake.received(&mut answer)
            }
            ServerEnded => handshake.server_ended(),
            Switched => handshake.switched(),
            TimedOut => handshake.timed_out(Duration::from_secs(30)),
            ClientEnded => handshake.client_ended(),
            Cut => handshake.cut(),
        };
    }
    match action {
        HandshakeStep::End(verdict) => steps.push(ended(verdict)),
        action => {
            steps.extend(performed(&action));
            steps.push("waits".to_owned());
        }
    }
    steps.join("; ")
}

/// The part of an action that an endpoint sees.
fn performed(action: &HandshakeStep) -> Option<String> {
    let first_line = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_owned();
    match action {
        HandshakeStep::Connect | HandshakeStep::Read | HandshakeStep::End(_) => None,
        HandshakeStep::Ask(head) => Some(format!("server gets {}", first_line(head))),
        HandshakeStep::Switch(head) => Some(format!("client gets {}", first_line(head))),
    }
}

fn ended(verdict: HandshakeVerdict) -> String {
    match verdict {
        HandshakeVerdict::Session(switching) if switching.early.is_empty() => format!("session at {}", switching.path),
        HandshakeVerdict::Session(switching) => format!("session at {}, early bytes of the server", switching.path),
        HandshakeVerdict::Reject { lines } => format!("the server's response with {lines} header lines, rejected"),
        HandshakeVerdict::Fail(failure) => failure.to_string(),
        HandshakeVerdict::ClientGone => "client_gone".to_owned(),
    }
}

fn assert_traces(rows: &[(&str, String, &[Event<'_>], &str)]) {
    for (name, request, events, expected) in rows {
        assert_eq!(trace(request, false, events), *expected, "{name}");
    }
}

fn with(headers: &str) -> String {
    REQUEST.replace("\r\n\r\n", &format!("\r\n{headers}\r\n\r\n"))
}

fn without(header: &str) -> String {
    let lines = REQUEST.split_inclusive("\r\n").filter(|line| !line.starts_with(header));
    lines.collect()
}

const ASKED: &str = "server gets GET /chat?a HTTP/1.1";

fn asked(rest: &str) -> String {
    format!("{ASKED}; {rest}")
}

#[test]
fn requests_take_their_path_before_a_server_is_asked() {
    assert_traces(&[
        ("an upgrade", REQUEST.to_owned(), &[], "waits"),
        ("half a request", REQUEST[..40].to_owned(), &[], "waits for the request"),
        ("empty lines before", format!("\r\n\r\n{REQUEST}"), &[Connected], &asked("waits")),
        ("frames behind", format!("{REQUEST}{FRAME}"), &[], "waits; early bytes of the client"),
        ("an empty body", with("Content-Length: 0"), &[], "waits"),
        ("a body", with("Content-Length: 1") + "a", &[], "400 bad_request"),
        ("a body in chunks", with("Transfer-Encoding: chunked"), &[], "400 bad_request"),
        ("two lengths", with("Content-Length: 0\r\nContent-Length: 0"), &[], "400 bad_request"),
        ("both lengths", with("Content-Length: 0\r\nTransfer-Encoding: chunked"), &[], "400 bad_request"),
        ("no Host", without("Host"), &[], "400 bad_request"),
        ("two Hosts", with("Host: a.example"), &[], "400 bad_request"),
        ("a Host that is none", REQUEST.replace("a.example", "a b"), &[], "400 bad_request"),
        ("a target that is none", REQUEST.replace("/chat?a", "chat"), &[], "400 bad_request"),
        ("another host", REQUEST.replace("a.example", "b.example"), &[], "404 no_route"),
        ("another path", REQUEST.replace("/chat", "/unknown"), &[], "404 no_route"),
        ("no key", without("Sec-WebSocket-Key"), &[Connected], &asked("waits")),
        ("no version", without("Sec-WebSocket-Version"), &[Connected], &asked("waits")),
        ("no Upgrade", without("Upgrade"), &[], "plain, headers_lost"),
        ("no Connection", without("Connection"), &[], "plain, headers_lost"),
        ("HTTP/1.0", REQUEST.replace("HTTP/1.1", "HTTP/1.0"), &[], "plain, headers_lost"),
        ("HTTP/2 over HTTP/1.1", REQUEST.replace("websocket", "h2c"), &[], "plain, headers_lost"),
        ("another method", REQUEST.replace("GET", "POST"), &[], "plain"),
        ("a plain request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), &[], "plain"),
        ("another protocol", "SSH-2.0-OpenSSH\r\n".to_owned(), &[], "400 malformed"),
        ("TLS", "\u{16}\u{3}\u{1}".to_owned(), &[], "400 tls_on_plain"),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\n".to_owned(), &[], "400 http2_on_plain"),
        ("a large head", with(&format!("X: {}", "x".repeat(LIMIT))), &[], "431 head_too_large"),
        ("a long target", REQUEST.replace("chat", &"x".repeat(LIMIT)), &[], "414 head_too_large"),
    ]);
    assert_eq!(trace(REQUEST, true, &[]), "503 draining");
    assert_eq!(trace(&REQUEST.replace("/chat", "/unknown"), true, &[]), "404 no_route");
}

#[test]
fn target_reaches_the_server_as_it_came() {
    for (target, expected) in [
        ("/ws?filter={\"room\":1}", "/ws?filter={\"room\":1}"),
        ("//a/%7e?<`>", "//a/%7e?<`>"),
        ("http://a.example?q", "/?q"),
        ("ws://a.example/b", "/b"),
    ] {
        let request = REQUEST.replace("/chat?a", target).replace("Host: a.example", "Host: b.example");
        let request = if target.starts_with('/') { request.replace("b.example", "a.example") } else { request };
        assert_eq!(trace(&request, false, &[Connected]), format!("server gets GET {expected} HTTP/1.1; waits"));
    }
}

#[test]
fn answers_of_the_server_take_their_path() {
    let session = asked("client gets HTTP/1.1 101 Switching Protocols; session at /chat");
    let rejected = asked("the server's response with 1 header lines, rejected");
    let invalid = asked("502 upstream_invalid");
    let flood = "HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_INFORMATIONAL + 1);
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_HEAD));
    let early = format!("{SWITCHING}{FRAME}");
    let of = |headers: &str| SWITCHING.replace("\r\n\r\n", &format!("\r\n{headers}\r\n\r\n"));
    let rows: &[(&str, &[Event<'_>], &str)] = &[
        ("a 101", &[From(SWITCHING), Switched], &session),
        ("in pieces", &[From(&SWITCHING[..9]), From(&SWITCHING[9..]), Switched], &session),
        ("behind 1xx", &[From(HINTS), From(SWITCHING), Switched], &session),
        ("with frames", &[From(&early), Switched], &format!("{session}, early bytes of the server")),
        ("a refusal", &[From(REFUSED)], &rejected),
        ("a refusal behind 1xx", &[From(HINTS), From(REFUSED)], &rejected),
        ("half an answer", &[From("HTTP/1.1 401 Un")], &asked("waits")),
        ("1xx only", &[From(HINTS)], &asked("waits")),
        ("no HTTP", &[From("220 mail.example.com\r\n")], &invalid),
        ("1xx without end", &[From(&flood)], &invalid),
        ("a head without end", &[From(&endless)], &invalid),
        ("another protocol", &[From(&SWITCHING.replace("WebSocket", "h2c"))], &invalid),
        ("no Connection", &[From(&SWITCHING.replace("Connection", "X"))], &invalid),
        ("another Accept", &[From(&SWITCHING.replace("s3p", "S3p"))], &invalid),
        ("no Accept", &[From(&SWITCHING.replace("Sec-WebSocket-Accept", "X"))], &invalid),
        ("a subprotocol", &[From(&of("Sec-WebSocket-Protocol: a"))], &invalid),
        ("an extension", &[From(&of("Sec-WebSocket-Extensions: a"))], &invalid),
        ("no answer", &[ServerEnded], &asked("502 upstream_reset")),
        ("an end in the answer", &[From(&SWITCHING[..30]), ServerEnded], &asked("502 upstream_reset")),
        ("an end behind 1xx", &[From(HINTS), ServerEnded], &asked("502 upstream_reset")),
        ("silence", &[TimedOut], &asked("504 upstream_timeout")),
        ("silence behind 1xx", &[From(HINTS), TimedOut], &asked("504 upstream_timeout")),
    ];
    for (name, events, expected) in rows {
        let mut handshake = start();
        let first = handshake.connected();
        assert_eq!(run(handshake, first, events), **expected, "{name}");
    }
}

#[test]
fn handshake_may_end_in_every_phase() {
    let refused = NoConnection(HandshakeFailure::UpstreamRefused);
    let switching = || vec![Connected, From(SWITCHING)];
    let and = |mut events: Vec<Event<'static>>, last| {
        events.push(last);
        events
    };
    let sent = asked("client gets HTTP/1.1 101 Switching Protocols; client_gone");
    for (events, expected) in [
        (vec![refused], "502 upstream_refused"),
        (vec![NoConnection(HandshakeFailure::UpstreamUnreachable)], "502 upstream_unreachable"),
        (vec![NoConnection(HandshakeFailure::UpstreamTimeout)], "504 upstream_timeout"),
        (vec![NoConnection(HandshakeFailure::UpstreamTls)], "502 upstream_tls"),
        (vec![NoConnection(HandshakeFailure::UpstreamReset)], "502 upstream_reset"),
        (vec![NoConnection(HandshakeFailure::OutOfResources)], "503 out_of_resources"),
        (vec![ClientEnded], "client_gone"),
        (vec![Connected, ClientEnded], &asked("client_gone")),
        (vec![Connected, From(HINTS), ClientEnded], &asked("client_gone")),
        (and(switching(), ClientEnded), &sent),
        (and(switching(), TimedOut), &sent),
        (vec![Cut], "503 draining"),
        (vec![Connected, Cut], &asked("503 draining")),
    ] {
        assert_eq!(run(start(), HandshakeStep::Connect, &events), expected);
    }
}

fn start() -> Handshake {
    let Parsed::Whole(request, _) = RequestHead::parse(REQUEST.as_bytes()) else { panic!("a whole request") };
    let target = request.target().unwrap();
    Handshake::start(ForwardedRequest::new(request, &target, |_| {})).0
}
