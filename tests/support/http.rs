//! Requests to the admin and to the metrics listener.

use std::net::SocketAddr;

use serde_json::Value;
use ureq::http::{HeaderMap, Request};

use super::{PATIENCE, Peer};

/// An HTTP response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn status_and_body(&self) -> (u16, &str) {
        (self.status, &self.body)
    }

    /// The value of a header. The name is case-insensitive.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    request("GET", address, path, &[], "")
}

/// Posts JSON.
pub(crate) fn post(address: SocketAddr, path: &str, body: &str) -> Answer {
    request("POST", address, path, &[("Content-Type", "application/json")], body)
}

/// Sends a request on a connection of its own.
pub(crate) fn request(method: &str, address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
    let agent = ureq::Agent::from(config.timeout_global(Some(PATIENCE)).build());
    let response = match method {
        "POST" => agent.run(request.body(body).unwrap()),
        _ => agent.run(request.body(()).unwrap()),
    };
    let (head, mut body) = response.unwrap().into_parts();
    Answer { status: head.status.as_u16(), headers: head.headers, body: body.read_to_string().unwrap() }
}

/// A reader of `/api/v1/closes/stream`.
#[derive(Debug)]
pub(crate) struct CloseStream {
    pub(crate) connection: Peer,
}

impl CloseStream {
    /// Opens the stream, unless the admin has too many readers.
    pub(crate) fn open(admin: SocketAddr) -> Option<Self> {
        let mut connection = Peer::connect(admin);
        // With HTTP/1.0, the body comes without chunks.
        connection.send("GET /api/v1/closes/stream HTTP/1.0\r\nHost: localhost\r\n\r\n");
        let head = connection.receive_head();
        if head.first_line() == "HTTP/1.0 503 Service Unavailable" {
            return None;
        }
        assert_eq!(head.value("content-type"), Some("text/event-stream"));
        connection.expect(": endings from now on\n\n");
        Some(Self { connection })
    }

    /// The next record.
    pub(crate) fn next_record(&mut self) -> Value {
        self.connection.expect("data: ");
        let mut line = Vec::new();
        while !line.ends_with(b"\n\n") {
            line.extend(self.connection.receive(1));
        }
        serde_json::from_slice(&line).unwrap()
    }
}
