//! The opening handshake by hand (RFC 6455, 4). Every client uses the key of the RFC's example (1.3), so neither side
//! needs a hash.

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// The upgrade request for the path of a route.
pub(crate) fn request(host: &str, route: u32) -> String {
    format!(
        "GET /r{route}/ HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// The answer to `head`: the upgrade, or a refusal.
pub(crate) fn answer(head: &[u8]) -> Result<String, &'static str> {
    if field(head, "sec-websocket-key").as_deref() != Some(KEY) {
        return Err("HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    }
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    ))
}

/// Whether `head` accepts the upgrade.
pub(crate) fn is_accepted(head: &[u8]) -> bool {
    head.starts_with(b"HTTP/1.1 101") && field(head, "sec-websocket-accept").as_deref() == Some(ACCEPT)
}

/// The end of the head, if it is complete.
pub(crate) fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD).map(|at| at + END_OF_HEAD.len())
}

fn field(head: &[u8], name: &str) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}
