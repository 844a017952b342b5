//! The HTTP client for the admin of a running closewatch.

use std::{fmt, io, net::IpAddr, str::FromStr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    admin::ProcessPhase,
    authority::{Authority, Scheme, Url},
};

/// The port of an address without one.
const DEFAULT_PORT: u16 = 9917;

/// How long a whole response may take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The address of an admin: `http://HOST[:PORT]`, or `HOST[:PORT]` as `admin.listen` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AdminUrl(Authority);

/// A response of an admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AdminResponse {
    status: StatusCode,
    /// Bytes that are not UTF-8 are replaced.
    body: String,
}

impl AdminResponse {
    /// Returns an error for people if the status is another one.
    pub(super) fn expect(&self, status: StatusCode) -> Result<(), String> {
        if self.status == status {
            return Ok(());
        }
        Err(format!("it answers {}: {}", self.status, self.body.lines().next().unwrap_or_default()))
    }
}

impl AdminUrl {
    /// Sends a GET.
    pub(super) async fn get(&self, path: &str) -> io::Result<AdminResponse> {
        self.request(Method::GET, path).await
    }

    /// Sends a POST without a body.
    pub(super) async fn post(&self, path: &str) -> io::Result<AdminResponse> {
        self.request(Method::POST, path).await
    }

    /// Requests the phase of the process.
    pub(super) async fn phase(&self) -> io::Result<ProcessPhase> {
        let answer = self.get("/-/ready").await?;
        let phase = ProcessPhase::ALL.into_iter().find(|phase| phase.as_str() == answer.body.trim_end());
        phase.ok_or_else(|| io::Error::other(format!("it answers {}", answer.status)))
    }

    async fn request(&self, method: Method, path: &str) -> io::Result<AdminResponse> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.0.to_string())
            .header(USER_AGENT, concat!("closewatch/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .body(Empty::new())
            .map_err(io::Error::other)?;
        let answer = timeout(RESPONSE_TIMEOUT, self.exchange(request)).await;
        answer.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "timeout: no response")))
    }

    async fn exchange(&self, request: Request<Empty<Bytes>>) -> io::Result<AdminResponse> {
        let address = (self.0.host.as_str(), self.0.port.unwrap_or(DEFAULT_PORT));
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let answer = async {
            let (head, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            Ok(AdminResponse { status: head.status, body: String::from_utf8_lossy(&body).into_owned() })
        };
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            answer = answer.as_mut() => answer,
            // The connection ends when the response is complete, or hands its error to the sender.
            _ = connection => answer.await,
        }
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "http://{}", self.0)
    }
}

impl FromStr for AdminUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = |error: &dyn fmt::Display| format!("{error} (an admin is http://HOST:PORT or HOST:PORT)");
        if !text.contains("://") {
            let authority = text.parse::<Authority>().map_err(|error| invalid(&error))?;
            return Ok(Self::with_port(authority, DEFAULT_PORT));
        }
        let url = text.parse::<Url>().map_err(|error| invalid(&error))?;
        if url.scheme != Scheme::Http || url.has_path() {
            return Err(invalid(&format!("found {text:?}")));
        }
        let port = url.port();
        Ok(Self::with_port(url.authority, port))
    }
}

impl AdminUrl {
    /// An unspecified address (`0.0.0.0`, `[::]`) is one to listen on only. The loopback reaches it.
    fn with_port(authority: Authority, port: u16) -> Self {
        let host = match authority.host.ip() {
            Some(IpAddr::V4(address)) if address.is_unspecified() => "127.0.0.1".parse().ok(),
            Some(IpAddr::V6(address)) if address.is_unspecified() => "[::1]".parse().ok(),
            _ => None,
        };
        Self(Authority { host: host.unwrap_or(authority.host), port: Some(authority.port.unwrap_or(port)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_url_parses_urls_and_addresses() {
        let cases = [
            ("http://127.0.0.1:9917", "http://127.0.0.1:9917"),
            ("http://127.0.0.1:9917/", "http://127.0.0.1:9917"),
            ("127.0.0.1:41234", "http://127.0.0.1:41234"),
            ("127.0.0.1", "http://127.0.0.1:9917"),
            ("http://admin.example.com", "http://admin.example.com:80"),
            ("localhost:9917", "http://localhost:9917"),
            ("[::1]:9917", "http://[::1]:9917"),
            ("0.0.0.0:9917", "http://127.0.0.1:9917"),
            ("[::]:9917", "http://[::1]:9917"),
        ];
        for (text, url) in cases {
            assert_eq!(text.parse::<AdminUrl>().unwrap().to_string(), url, "{text}");
        }
    }

    #[test]
    fn admin_url_refuses_other_texts() {
        let bad = ["", "http://", "https://127.0.0.1:9917", "ftp://x", "host:port", "host:99999", "host:0", "a b"];
        for text in bad.iter().chain(&["http://u@h:1", "http://h:1/metrics", ":9917", "host:"]) {
            assert!(text.parse::<AdminUrl>().is_err(), "{text}");
        }
    }
}
