//! The requests that change something: who may send them, and what they say.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN},
};
use serde::Deserialize;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{CloseRequest, Control, Options, resource::Command, response, response::Body};
use crate::websocket::close_code::{CloseCode, MAX_REASON};

/// The most that a request's body may have.
const MOST_BODY_BYTES: usize = 64 * 1024;

/// For a request's body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Does what the request asks for, where it may. One that is not whole at `stop` is refused.
pub(super) async fn answer(
    command: Command,
    request: Request<Incoming>,
    options: &Options,
    control: Arc<dyn Control>,
    stop: &CancellationToken,
) -> Response<Body> {
    match obey(command, request, options, control, stop).await {
        Ok(response) => response,
        Err(Refusal { status, message }) => response::line(status, &message),
    }
}

/// An answer that says why nothing was done.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    status: StatusCode,
    message: String,
}

fn refuse(status: StatusCode, message: impl Into<String>) -> Refusal {
    Refusal { status, message: message.into() }
}

async fn obey(
    command: Command,
    request: Request<Incoming>,
    options: &Options,
    control: Arc<dyn Control>,
    stop: &CancellationToken,
) -> Result<Response<Body>, Refusal> {
    check_permission(&request, options)?;
    let body = stop.run_until_cancelled(read(request.into_body())).await;
    let body = body.ok_or_else(|| refuse(StatusCode::SERVICE_UNAVAILABLE, "closewatch is ending"))??;
    match command {
        Command::Drain => {
            control.drain();
            Ok(response::line(StatusCode::ACCEPTED, "draining"))
        }
        Command::Reload => {
            let reloaded = to_its_end(async move { control.reload().await }).await?;
            reloaded.map_err(|message| refuse(StatusCode::BAD_REQUEST, message))?;
            Ok(response::line(StatusCode::OK, "reloaded"))
        }
        Command::Close => {
            let close = parse_close(&body)?;
            let closed = to_its_end(async move { control.close(close).await }).await?;
            Ok(response::json(format!("{{\"closed\":{closed}}}\n")))
        }
    }
}

/// Runs what must not stop half-way, even where whoever asked has hung up and waits for no answer.
async fn to_its_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, Refusal> {
    let ended = tokio::spawn(work).await;
    ended.map_err(|error| refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("this failed in closewatch: {error}")))
}

/// Keeps out what a page in somebody's browser could send: by another origin, by a name rebound to this address, or as
/// a form, which needs no leave from us.
fn check_permission<B>(request: &Request<B>, options: &Options) -> Result<(), Refusal> {
    let forbidden = |message: &str| Err(refuse(StatusCode::FORBIDDEN, message));
    if !options.control {
        return forbidden("control is off: set `admin.control: true` in the configuration to allow this");
    }
    let Some(host) = host(request).filter(|host| may_be_addressed(host, options)) else {
        return forbidden(
            "the request's Host is no IP address, not localhost and not in `admin.hosts` of the configuration",
        );
    };
    let headers = request.headers();
    if headers.contains_key(ORIGIN) && !is_own(host, only(headers, &ORIGIN)) {
        return forbidden("the request comes from another origin than this admin's own");
    }
    if !is_json(only(headers, &CONTENT_TYPE)) {
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send this with Content-Type: application/json"));
    }
    Ok(())
}

/// What the request is addressed to; an absolute target wins over the Host header (RFC 9112, 3.2.2).
fn host<B>(request: &Request<B>) -> Option<&str> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => only(request.headers(), &HOST),
    }
}

fn may_be_addressed(host: &str, options: &Options) -> bool {
    let name = without_port(host);
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || options.hosts.iter().any(|allowed| name.eq_ignore_ascii_case(allowed))
}

/// The colons of an IPv6 address stand inside its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

fn is_own(host: &str, origin: Option<&str>) -> bool {
    let authority = origin.and_then(|origin| origin.strip_prefix("http://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

fn is_json(content_type: Option<&str>) -> bool {
    let essence = content_type.and_then(|content_type| content_type.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// A header's value, where it is there exactly once and readable.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    let Ok(read) = timeout(BODY_TIMEOUT, Limited::new(body, MOST_BODY_BYTES).collect()).await else {
        return Err(refuse(StatusCode::REQUEST_TIMEOUT, "the request's body did not arrive in time"));
    };
    match read {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {MOST_BODY_BYTES} bytes here")))
        }
        Err(error) => Err(refuse(StatusCode::BAD_REQUEST, format!("cannot read the request's body: {error}"))),
    }
}

/// The body of `POST /-/close`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CloseBody {
    code: u64,
    #[serde(default)]
    reason: String,
    count: Option<Count>,
    route: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "count is a whole number or \"all\"")]
enum Count {
    Sessions(usize),
    All(All),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum All {
    All,
}

fn parse_close(body: &[u8]) -> Result<CloseRequest, Refusal> {
    let bad_request = |message: String| refuse(StatusCode::BAD_REQUEST, message);
    let body = serde_json::from_slice::<CloseBody>(body).map_err(|error| bad_request(error.to_string()))?;
    let code = u16::try_from(body.code).ok().filter(|code| CloseCode(*code).allowed_on_wire());
    let Some(code) = code else {
        return Err(bad_request(format!(
            "code {} may not stand in a Close frame: 1000 to 1003, 1007 to 1014 and 1016 to 4999 may",
            body.code
        )));
    };
    if body.reason.len() > MAX_REASON {
        let length = body.reason.len();
        return Err(bad_request(format!("the reason has {length} bytes: a Close frame takes {MAX_REASON}")));
    }
    let count = match body.count {
        Some(Count::Sessions(count)) => Some(count),
        Some(Count::All(All::All)) | None => None,
    };
    Ok(CloseRequest { code, reason: body.reason, count, route: body.route })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options { control: true, hosts: vec!["admin.example.com".to_owned()] }
    }

    fn request(target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::post(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn refused(target: &str, headers: &[(&str, &str)]) -> Option<StatusCode> {
        check_permission(&request(target, headers), &options()).err().map(|refusal| refusal.status)
    }

    #[test]
    fn the_host_is_an_address_localhost_or_listed() {
        let json = ("content-type", "application/json");
        let welcome = [
            "127.0.0.1:9917",
            "10.1.2.3",
            "[::1]:9917",
            "[::1]",
            "localhost:9917",
            "LOCALHOST",
            "admin.example.com",
            "Admin.Example.com:80",
        ];
        for host in welcome {
            assert_eq!(refused("/-/drain", &[json, ("host", host)]), None, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:9917", "", "admin.example.com."]
        {
            assert_eq!(refused("/-/drain", &[json, ("host", host)]), Some(StatusCode::FORBIDDEN), "{host}");
        }
        let two = [json, ("host", "localhost"), ("host", "localhost")];
        assert_eq!(refused("/-/drain", &two), Some(StatusCode::FORBIDDEN));
        assert_eq!(refused("/-/drain", &[json]), Some(StatusCode::FORBIDDEN));
        let absolute = refused("http://evil.example/-/drain", &[json, ("host", "localhost")]);
        assert_eq!(absolute, Some(StatusCode::FORBIDDEN));
    }

    #[test]
    fn an_origin_is_the_admins_own() {
        let sent_from = |origins: &[&'static str]| {
            let mut headers = vec![("content-type", "application/json"), ("host", "localhost:9917")];
            headers.extend(origins.iter().map(|origin| ("origin", *origin)));
            refused("/-/drain", &headers)
        };
        assert_eq!(sent_from(&[]), None);
        assert_eq!(sent_from(&["http://localhost:9917"]), None);
        for origin in ["http://localhost", "http://localhost:9918", "https://localhost:9917", "null", "http://evil"] {
            assert_eq!(sent_from(&[origin]), Some(StatusCode::FORBIDDEN), "{origin}");
        }
        let two = sent_from(&["http://localhost:9917", "http://evil.example"]);
        assert_eq!(two, Some(StatusCode::FORBIDDEN));
    }

    #[test]
    fn the_content_type_is_json() {
        let sent_as = |content_type| refused("/-/drain", &[("host", "localhost"), ("content-type", content_type)]);
        for content_type in ["application/json", "Application/JSON; charset=utf-8"] {
            assert_eq!(sent_as(content_type), None, "{content_type}");
        }
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "", "text/plain; application/json"] {
            assert_eq!(sent_as(content_type), Some(StatusCode::UNSUPPORTED_MEDIA_TYPE), "{content_type}");
        }
        assert_eq!(refused("/-/drain", &[("host", "localhost")]), Some(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }

    #[test]
    fn without_leave_nothing_is_asked_further() {
        let request = request("/-/drain", &[("host", "localhost"), ("content-type", "application/json")]);
        let refusal = check_permission(&request, &Options::default()).unwrap_err();
        assert_eq!(refusal.status, StatusCode::FORBIDDEN);
        assert!(refusal.message.contains("`admin.control: true`"), "{}", refusal.message);
    }

    #[test]
    fn a_close_says_code_reason_count_and_route() {
        let full = br#"{"code": 1012, "reason": "restart", "count": 10, "route": "chat"}"#;
        let route = Some("chat".to_owned());
        let expected = CloseRequest { code: 1012, reason: "restart".to_owned(), count: Some(10), route };
        assert_eq!(parse_close(full), Ok(expected));

        let all = CloseRequest { code: 4001, reason: String::new(), count: None, route: None };
        for body in [r#"{"code": 4001}"#, r#"{"code": 4001, "count": "all", "route": null}"#] {
            assert_eq!(parse_close(body.as_bytes()), Ok(all.clone()), "{body}");
        }
        let longest = format!(r#"{{"code": 1000, "reason": "{}"}}"#, "é".repeat(61));
        assert!(parse_close(longest.as_bytes()).is_ok());
    }

    #[test]
    fn a_close_that_makes_no_sense_is_told_why() {
        let too_long = format!(r#"{{"code": 1000, "reason": "{}"}}"#, "é".repeat(62));
        let cases = [
            ("", "EOF"),
            ("[]", "invalid length 0"),
            ("{}", "missing field `code`"),
            (r#"{"code": 1006}"#, "code 1006 may not stand in a Close frame"),
            (r#"{"code": 70000}"#, "code 70000 may not stand in a Close frame"),
            (r#"{"code": "1000"}"#, "expected u64"),
            (r#"{"code": 1000, "count": -1}"#, "count is a whole number or \"all\""),
            (r#"{"code": 1000, "count": "some"}"#, "count is a whole number or \"all\""),
            (r#"{"code": 1000, "rout": "x"}"#, "unknown field `rout`"),
            (&too_long, "the reason has 124 bytes: a Close frame takes 123"),
        ];
        for (body, expected) in cases {
            let refusal = parse_close(body.as_bytes()).unwrap_err();
            assert_eq!(refusal.status, StatusCode::BAD_REQUEST, "{body}");
            assert!(refusal.message.contains(expected), "{body}: {}", refusal.message);
        }
    }
}
