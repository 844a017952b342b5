//! Asks a running closewatch, through its admin.

use std::{fmt, io, net::IpAddr, str::FromStr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
    http::uri::Authority,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::Phase;

/// Where an admin listens if nothing else is configured.
const DEFAULT_PORT: u16 = 9917;

/// For a whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where an admin is: `http://host[:port]`, or an address as `admin.listen` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminUrl {
    host: String,
    port: u16,
}

/// An admin's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body; bytes that are no UTF-8 are replaced.
    pub body: String,
}

impl Answer {
    /// An error for people where the status is another one.
    pub fn expect(&self, status: StatusCode) -> Result<(), String> {
        if self.status == status {
            return Ok(());
        }
        Err(format!("it answers {}: {}", self.status, self.body.lines().next().unwrap_or_default()))
    }
}

impl AdminUrl {
    /// Asks for what stands at `path`.
    pub async fn get(&self, path: &str) -> io::Result<Answer> {
        self.ask(Method::GET, path).await
    }

    /// Asks for a command without arguments.
    pub async fn post(&self, path: &str) -> io::Result<Answer> {
        self.ask(Method::POST, path).await
    }

    /// Asks where in its life the process is.
    pub async fn phase(&self) -> io::Result<Phase> {
        let answer = self.get("/-/ready").await?;
        let phase = Phase::ALL.into_iter().find(|phase| phase.as_str() == answer.body.trim_end());
        phase.ok_or_else(|| io::Error::other(format!("it answers {}", answer.status)))
    }

    async fn ask(&self, method: Method, path: &str) -> io::Result<Answer> {
        let answer = timeout(ANSWER_TIMEOUT, self.ask_patiently(method, path)).await;
        answer.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
    }

    async fn ask_patiently(&self, method: Method, path: &str) -> io::Result<Answer> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.authority())
            .header(CONTENT_TYPE, "application/json")
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, self.port)).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let answer = async {
            let (head, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            Ok(Answer { status: head.status, body: String::from_utf8_lossy(&body).into_owned() })
        };
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            answer = answer.as_mut() => answer,
            // The connection ends by itself when the answer is complete, or tells the sender why there is none.
            _ = connection => answer.await,
        }
    }

    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "http://{}", self.authority())
    }
}

impl FromStr for AdminUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no admin's address: give http://HOST:PORT or HOST:PORT");
        if text.starts_with("https:") {
            return Err("an admin speaks http, not https".to_owned());
        }
        let (rest, default_port) = match text.strip_prefix("http://") {
            Some(rest) => (rest.strip_suffix('/').unwrap_or(rest), 80),
            None => (text, DEFAULT_PORT),
        };
        let authority = rest.parse::<Authority>().map_err(|_| wrong())?;
        let has_bad_port = authority.port_u16().is_none() && authority.as_str() != authority.host();
        if rest.contains('@') || authority.host().is_empty() || has_bad_port {
            return Err(wrong());
        }
        let port = authority.port_u16().unwrap_or(default_port);
        if port == 0 {
            return Err("port 0 is no port to reach an admin at: give the one that closewatch printed".to_owned());
        }
        Ok(Self { host: reachable(authority.host()), port })
    }
}

/// An address that is one to listen on only (`0.0.0.0`, `[::]`) is reached at the loopback.
fn reachable(host: &str) -> String {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match address {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => "127.0.0.1".to_owned(),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => "[::1]".to_owned(),
        _ => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_is_named_by_url_or_address() {
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
    fn what_is_no_admin_is_refused() {
        let wrong = ["", "http://", "https://127.0.0.1:9917", "ftp://x", "host:port", "host:99999", "host:0", "a b"];
        for text in wrong.iter().chain(&["http://u@h:1", "http://h:1/metrics", ":9917", "host:"]) {
            assert!(text.parse::<AdminUrl>().is_err(), "{text}");
        }
    }
}
