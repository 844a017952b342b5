//! The part of an opening handshake that records show.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use hyper::header::{self, HeaderName};
use ipnet::IpNet;

use super::{agent::family, raw_head::RequestHead};
use crate::{
    config::{ClientPrivacy, Privacy, Shown},
    journal::{HandshakeInfo, SessionInfo},
    proxy::{
        client_address::ClientAddress,
        forwarding_headers::{HeaderFields, joined, texts},
        proxy_protocol::Ends,
        routing::Routing,
    },
};

/// The longest text that a peer can put into a record, in bytes: the session holds it to its end.
const MAX_TEXT: usize = 1024;

/// Gathers what the record of a failed handshake shows, as far as `privacy` allows. There is no request if its head cannot
/// be read.
pub(crate) fn handshake_info(routing: &Routing, ends: Ends, request: Option<&RequestHead<'_>>) -> HandshakeInfo {
    let privacy = &routing.privacy;
    let client = request.map_or(ends.client.into(), |request| routing.client(&request.fields, ends));
    let path = request.and_then(RequestHead::target).filter(|_| *privacy.path == Shown::Full);
    HandshakeInfo {
        started: Instant::now(),
        client: shown_client(*privacy.client, client),
        peer: shown_client(*privacy.client, SocketAddr::into(ends.peer)),
        server: None,
        agent: request.and_then(|request| texts(&request.fields, &header::USER_AGENT).next().map(family)),
        path: path.map(|target| shortened(target.path())),
    }
}

/// Gathers what records show of a session, as far as `privacy` allows.
pub(crate) fn session_info(
    privacy: &Privacy,
    client: impl Into<ClientAddress>,
    server: Arc<str>,
    path: &str,
    trace_id: Option<Box<str>>,
    response: &impl HeaderFields,
) -> SessionInfo {
    SessionInfo {
        id: unique_id(),
        client: shown_client(*privacy.client, client.into()),
        server,
        path: (*privacy.path == Shown::Full).then(|| shortened(path)),
        subprotocol: text(response, &header::SEC_WEBSOCKET_PROTOCOL).filter(|_| *privacy.subprotocol == Shown::Full),
        extensions: text(response, &header::SEC_WEBSOCKET_EXTENSIONS),
        trace_id,
        hide_reasons: *privacy.reason == Shown::Off,
    }
}

/// An id that no other session has: the process, and the number of the session in it.
fn unique_id() -> String {
    static PROCESS: LazyLock<u32> = LazyLock::new(|| fastrand::u32(..));
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{:08x}-{:x}", *PROCESS, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The part of a client's address that may be shown.
pub(crate) fn shown_client(privacy: ClientPrivacy, client: ClientAddress) -> Option<Box<str>> {
    match privacy {
        ClientPrivacy::Full => Some(client.to_string().into()),
        ClientPrivacy::Prefix => {
            let length = if matches!(client.ip, IpAddr::V4(_)) { 24 } else { 48 };
            IpNet::new(client.ip, length).ok().map(|network| network.trunc().to_string().into())
        }
        ClientPrivacy::Off => None,
    }
}

fn text(fields: &impl HeaderFields, name: &HeaderName) -> Option<Box<str>> {
    joined(fields, name).map(|text| shortened(&text))
}

fn shortened(text: &str) -> Box<str> {
    let end = text.floor_char_boundary(MAX_TEXT);
    text[..end].into()
}

/// The trace id of a valid `traceparent` header (W3C Trace Context, 3.2.2: `version-traceid-parentid-flags`). Version 00
/// ends there, later versions may go on behind another `-`, and ff is not a version.
pub(crate) fn trace_id(request: &impl HeaderFields) -> Option<Box<str>> {
    let name = HeaderName::from_static("traceparent");
    let mut values = request.values(&name);
    let value = std::str::from_utf8(values.next()?).ok()?;
    let mut parts = value.splitn(5, '-');
    let mut field = |length| parts.next().filter(|part| part.len() == length && part.bytes().all(is_lower_hex));
    let (version, trace_id, parent_id, _flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
    let has_valid_end = version != "00" || parts.next().is_none();
    let has_ids = [trace_id, parent_id].iter().all(|id| id.bytes().any(|digit| digit != b'0'));
    let is_valid = version != "ff" && has_valid_end && has_ids && values.next().is_none();
    is_valid.then(|| trace_id.into())
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;

    #[test]
    fn privacy_hides_the_subprotocol() {
        let mut response = HeaderMap::new();
        response.append(header::SEC_WEBSOCKET_PROTOCOL, header::HeaderValue::from_static("chat.v1"));
        let shown = |shown| {
            let privacy = Privacy { subprotocol: crate::config::Setting(shown), ..Privacy::default() };
            let client = SocketAddr::from(([127, 0, 0, 1], 1));
            session_info(&privacy, client, "server".into(), "/", None, &response).subprotocol
        };
        assert_eq!(shown(Shown::Full).as_deref(), Some("chat.v1"));
        assert_eq!(shown(Shown::Off), None);
    }

    fn found(values: &[&'static str]) -> Option<Box<str>> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("traceparent", header::HeaderValue::from_static(value));
        }
        trace_id(&headers)
    }

    #[test]
    fn valid_traceparent_has_a_trace_id() {
        for value in [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes-later",
        ] {
            assert_eq!(found(&[value]).as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"), "{value}");
        }
    }

    #[test]
    fn invalid_traceparent_has_no_trace_id() {
        for value in [
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-012",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "",
        ] {
            assert_eq!(found(&[value]), None, "{value}");
        }
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(found(&[valid, valid]), None, "two headers are ambiguous");
        assert_eq!(found(&[]), None);
    }
}
