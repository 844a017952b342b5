//! The requests that change something. Each leaves one line in the log.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    extract::{ConnectInfo, FromRequest, Request},
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, USER_AGENT},
    },
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    CloseRequest,
    permission::{RefusedRequest, check_control},
    routes::{Endpoints, line},
};
use crate::websocket::close_code::{CloseCode, MAX_REASON};

/// The largest request body.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;

/// How long a request body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest part of a User-Agent that is logged.
const MAX_USER_AGENT_BYTES: usize = 200;

/// The action of a control request, from its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ControlAction {
    Reload,
    Drain,
    Close,
}

/// Carries out a control request, to its end even if the requester hangs up, and logs it.
pub(super) async fn answer(action: ControlAction, endpoints: Arc<Endpoints>, request: Request) -> Response {
    let work = tokio::spawn(async move {
        let requester = Requester::of(&request);
        let mut control = ControlRequest { endpoints: &endpoints, command: action.as_str().to_owned() };
        let result = control.run(action, request).await;
        requester.log(&control.command, &result);
        result.into_response()
    });
    work.await.unwrap_or_else(|error| line(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))
}

impl ControlAction {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Drain => "drain",
            Self::Close => "close",
        }
    }
}

/// The sender of a control request, as the log shows it.
struct Requester {
    address: Option<SocketAddr>,
    user_agent: String,
}

impl Requester {
    fn of(request: &Request) -> Self {
        let address = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let user_agent = request.headers().get(USER_AGENT).map_or(&b""[..], HeaderValue::as_bytes);
        let user_agent = &user_agent[..user_agent.len().min(MAX_USER_AGENT_BYTES)];
        Self {
            address: address.map(|ConnectInfo(address)| *address),
            user_agent: String::from_utf8_lossy(user_agent).into_owned(),
        }
    }

    fn log(&self, command: &str, result: &Result<Done, RefusedRequest>) {
        let client = self.address.map(|address| address.to_string()).unwrap_or_default();
        let user_agent = &self.user_agent;
        match result {
            Ok(done) => tracing::info!(client, user_agent, command, result = %done, "control request"),
            Err(RefusedRequest { status, message }) => {
                let status = status.as_u16();
                tracing::warn!(client, user_agent, command, status, error = message, "control request refused");
            }
        }
    }
}

/// A control request on its way.
struct ControlRequest<'a> {
    endpoints: &'a Endpoints,
    /// As the log shows it. A close names its arguments as soon as they are known.
    command: String,
}

impl ControlRequest<'_> {
    async fn run(&mut self, action: ControlAction, request: Request) -> Result<Done, RefusedRequest> {
        check_control(&request, &self.endpoints.admin.options.load())?;
        let body = self.endpoints.stop.run_until_cancelled(read(request)).await;
        let body =
            body.ok_or_else(|| RefusedRequest::new(StatusCode::SERVICE_UNAVAILABLE, "closewatch is shutting down"))??;
        let control = &self.endpoints.admin.control;
        match action {
            ControlAction::Drain => {
                control.drain();
                Ok(Done::Draining)
            }
            ControlAction::Reload => {
                let reloaded = control.reload().await;
                reloaded.map(|()| Done::Reloaded).map_err(|error| RefusedRequest::new(StatusCode::BAD_REQUEST, error))
            }
            ControlAction::Close => {
                let close = parse_close(&body)?;
                self.command = close.to_string();
                Ok(Done::Closed(control.close(close).await))
            }
        }
    }
}

/// The result of a control request that was carried out.
enum Done {
    Draining,
    Reloaded,
    /// This many sessions were closed.
    Closed(usize),
}

impl fmt::Display for Done {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Draining => formatter.write_str("draining"),
            Self::Reloaded => formatter.write_str("reloaded"),
            Self::Closed(count) => write!(formatter, "closed {count} sessions"),
        }
    }
}

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        match self {
            Self::Draining => line(StatusCode::ACCEPTED, "draining"),
            Self::Reloaded => line(StatusCode::OK, "reloaded"),
            Self::Closed(count) => {
                ([(CONTENT_TYPE, "application/json")], format!("{{\"closed\":{count}}}\n")).into_response()
            }
        }
    }
}

async fn read(request: Request) -> Result<Bytes, RefusedRequest> {
    match timeout(BODY_TIMEOUT, Bytes::from_request(request, &())).await {
        Ok(body) => body.map_err(|rejection| RefusedRequest::new(rejection.status(), rejection.body_text())),
        Err(_) => {
            Err(RefusedRequest::new(StatusCode::REQUEST_TIMEOUT, "timeout: the request body did not arrive in time"))
        }
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
#[serde(untagged, expecting = "count must be a whole number or \"all\"")]
enum Count {
    Sessions(usize),
    All(All),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum All {
    All,
}

fn parse_close(body: &[u8]) -> Result<CloseRequest, RefusedRequest> {
    let bad_request = |message: String| RefusedRequest::new(StatusCode::BAD_REQUEST, message);
    let body = serde_json::from_slice::<CloseBody>(body).map_err(|error| bad_request(error.to_string()))?;
    let code = u16::try_from(body.code).ok().filter(|code| CloseCode(*code).allowed_on_wire());
    let Some(code) = code else {
        return Err(bad_request(format!(
            "code {} is not allowed in a Close frame: use 1000 to 1003, 1007 to 1014 or 1016 to 4999",
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

    #[test]
    fn close_body_has_code_reason_count_and_route() {
        let full = br#"{"code": 1012, "reason": "restart", "count": 10, "route": "chat"}"#;
        let route = Some("chat".to_owned());
        let expected = CloseRequest { code: 1012, reason: "restart".to_owned(), count: Some(10), route };
        assert_eq!(expected.to_string(), "close 10 sessions of route chat with code 1012");
        assert_eq!(parse_close(full), Ok(expected));

        let all = CloseRequest { code: 4001, reason: String::new(), count: None, route: None };
        assert_eq!(all.to_string(), "close all sessions with code 4001");
        for body in [r#"{"code": 4001}"#, r#"{"code": 4001, "count": "all", "route": null}"#] {
            assert_eq!(parse_close(body.as_bytes()), Ok(all.clone()), "{body}");
        }
        let longest = format!(r#"{{"code": 1000, "reason": "{}"}}"#, "é".repeat(61));
        assert!(parse_close(longest.as_bytes()).is_ok());
    }

    #[test]
    fn bad_close_body_is_refused_with_the_reason() {
        let too_long = format!(r#"{{"code": 1000, "reason": "{}"}}"#, "é".repeat(62));
        let cases = [
            ("", "EOF"),
            ("[]", "invalid length 0"),
            ("{}", "missing field `code`"),
            (r#"{"code": 1006}"#, "code 1006 is not allowed in a Close frame"),
            (r#"{"code": 70000}"#, "code 70000 is not allowed in a Close frame"),
            (r#"{"code": "1000"}"#, "expected u64"),
            (r#"{"code": 1000, "count": -1}"#, "count must be a whole number or \"all\""),
            (r#"{"code": 1000, "count": "some"}"#, "count must be a whole number or \"all\""),
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
