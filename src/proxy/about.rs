//! What is told of a session from its opening handshake.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use hyper::{HeaderMap, header};
use ipnet::IpNet;

use crate::{
    config::{ClientPrivacy, Privacy},
    journal::About,
};

/// The longest text that a peer can put into a record, in bytes: a session holds it for as long as it lives.
const MAX_TEXT: usize = 1024;

/// Gathers what records show of a session, as far as privacy lets them.
pub(super) fn about(
    privacy: &Privacy,
    client: SocketAddr,
    server: Arc<str>,
    path: &str,
    request: &HeaderMap,
    response: &HeaderMap,
) -> About {
    About {
        id: unique_id(),
        client: shown_client(privacy.client, client),
        server,
        path: privacy.path.then(|| shortened(path)),
        subprotocol: text(response, &header::SEC_WEBSOCKET_PROTOCOL),
        extensions: text(response, &header::SEC_WEBSOCKET_EXTENSIONS),
        trace_id: trace_id(request),
        hide_reasons: !privacy.reason,
    }
}

/// An id that no other session has: which process, and which of its sessions.
fn unique_id() -> String {
    static PROCESS: LazyLock<u32> = LazyLock::new(|| fastrand::u32(..));
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{:08x}-{:x}", *PROCESS, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A client's address, as much of it as may be shown.
pub(super) fn shown_client(privacy: ClientPrivacy, client: SocketAddr) -> Option<Box<str>> {
    let address = client.ip().to_canonical();
    match privacy {
        ClientPrivacy::Full => Some(SocketAddr::new(address, client.port()).to_string().into()),
        ClientPrivacy::Prefix => {
            let length = if matches!(address, IpAddr::V4(_)) { 24 } else { 48 };
            IpNet::new(address, length).ok().map(|network| network.trunc().to_string().into())
        }
        ClientPrivacy::Off => None,
    }
}

fn text(headers: &HeaderMap, name: &header::HeaderName) -> Option<Box<str>> {
    let lines: Vec<&str> = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok()).collect();
    (!lines.is_empty()).then(|| shortened(&lines.join(", ")))
}

fn shortened(text: &str) -> Box<str> {
    let end = text.floor_char_boundary(MAX_TEXT);
    text[..end].into()
}

/// The trace id of a `traceparent` header (W3C Trace Context, 3.2.2: `version-traceid-parentid-flags`).
fn trace_id(request: &HeaderMap) -> Option<Box<str>> {
    let mut parts = request.get("traceparent")?.to_str().ok()?.split('-');
    let (version, trace_id) = (parts.next()?, parts.next()?);
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_valid = version.len() == 2
        && is_hex(version)
        && trace_id.len() == 32
        && is_hex(trace_id)
        && trace_id.bytes().any(|byte| byte != b'0');
    is_valid.then(|| trace_id.into())
}
