//! The permission to use page, API and control. A page in a browser can send requests to this admin under a name that it has rebound
//! to the admin's address, from another origin, or as a form: these requests are refused.

use axum::{
    http::{
        HeaderMap, HeaderName, Request, StatusCode,
        header::{CONTENT_TYPE, HOST, ORIGIN},
    },
    response::{IntoResponse, Response},
};

use super::{Options, routes::line};
use crate::authority::{host_in_header, ip_of, same_host};

/// The response to a request that is not carried out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RefusedRequest {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl RefusedRequest {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    fn forbidden(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }
}

impl IntoResponse for RefusedRequest {
    fn into_response(self) -> Response {
        line(self.status, &self.message)
    }
}

/// Checks the Host rule: the request is addressed to an IP address, to `localhost` or to a name in `admin.hosts`.
pub(super) fn check_host<B>(request: &Request<B>, options: &Options) -> Result<(), RefusedRequest> {
    match host(request) {
        Some(host) if is_allowed(host, options) => Ok(()),
        _ => Err(RefusedRequest::forbidden(
            "forbidden Host: use an IP address, localhost or a name in `admin.hosts` of the configuration",
        )),
    }
}

/// Checks all rules for requests that change something.
pub(super) fn check_control<B>(request: &Request<B>, options: &Options) -> Result<(), RefusedRequest> {
    if !options.control {
        return Err(RefusedRequest::forbidden("control is off: set `admin.control: true` in the configuration"));
    }
    check_host(request, options)?;
    let headers = request.headers();
    if headers.contains_key(ORIGIN) && !is_own_origin(host(request), only(headers, &ORIGIN)) {
        return Err(RefusedRequest::forbidden(
            "forbidden Origin: the request comes from another origin than this admin",
        ));
    }
    if !is_json(only(headers, &CONTENT_TYPE)) {
        return Err(RefusedRequest::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "set Content-Type: application/json"));
    }
    Ok(())
}

/// The host of the request. An absolute target takes precedence over the Host header (RFC 9112, 3.2.2).
fn host<B>(request: &Request<B>) -> Option<&str> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => only(request.headers(), &HOST),
    }
}

fn is_allowed(host: &str, options: &Options) -> bool {
    let Some(name) = host_in_header(host) else { return false };
    let mut names = options.hosts.iter().map(String::as_str).chain(["localhost"]);
    ip_of(name).is_some() || names.any(|allowed| same_host(allowed, name))
}

fn is_own_origin(host: Option<&str>, origin: Option<&str>) -> bool {
    let authority = origin.and_then(|origin| origin.strip_prefix("http://"));
    authority.zip(host).is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host))
}

fn is_json(content_type: Option<&str>) -> bool {
    let essence = content_type.and_then(|content_type| content_type.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// The value of a header that occurs exactly once and is readable.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: (&str, &str) = ("content-type", "application/json");

    fn refused(target: &str, headers: &[(&str, &str)]) -> Option<StatusCode> {
        let options = Options { control: true, hosts: vec!["admin.example.com".to_owned()] };
        check_control(&request(target, headers), &options).err().map(|refusal| refusal.status)
    }

    fn request(target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::post(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn host_is_an_address_localhost_or_listed() {
        let allowed = [
            "127.0.0.1:9917",
            "10.1.2.3",
            "[::1]:9917",
            "[::1]",
            "localhost:9917",
            "LOCALHOST",
            "admin.example.com",
            "Admin.Example.com:80",
            "admin.example.com.",
        ];
        for host in allowed {
            assert_eq!(refused("/-/drain", &[JSON, ("host", host)]), None, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:9917", "", "[", "localhost:x"] {
            assert_eq!(refused("/-/drain", &[JSON, ("host", host)]), Some(StatusCode::FORBIDDEN), "{host}");
        }
        let two = [JSON, ("host", "localhost"), ("host", "localhost")];
        assert_eq!(refused("/-/drain", &two), Some(StatusCode::FORBIDDEN));
        assert_eq!(refused("/-/drain", &[JSON]), Some(StatusCode::FORBIDDEN));
        let absolute = refused("http://evil.example/-/drain", &[JSON, ("host", "localhost")]);
        assert_eq!(absolute, Some(StatusCode::FORBIDDEN));
    }

    #[test]
    fn origin_is_absent_or_that_of_the_admin() {
        let sent_from = |origins: &[&'static str]| {
            let mut headers = vec![JSON, ("host", "localhost:9917")];
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
    fn content_type_is_json() {
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
    fn control_is_off_by_default() {
        let request = request("/-/drain", &[("host", "localhost"), JSON]);
        let refusal = check_control(&request, &Options::default()).unwrap_err();
        assert_eq!(refusal.status, StatusCode::FORBIDDEN);
        assert!(refusal.message.contains("`admin.control: true`"), "{}", refusal.message);
    }
}
