//! Frames of RFC 6455, section 5.2, made by hand: no code of closewatch takes part.

use closewatch::websocket::Endpoint;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame of a server. `first` is its first byte: FIN, RSV and opcode.
pub(crate) fn from_server(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, None, payload)
}

/// A masked frame of a client.
pub(crate) fn from_client(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, Some(MASK), payload)
}

/// A frame of an endpoint.
pub(crate) fn from(endpoint: Endpoint, first: u8, payload: &[u8]) -> Vec<u8> {
    match endpoint {
        Endpoint::Client => from_client(first, payload),
        Endpoint::Server => from_server(first, payload),
    }
}

/// A server's Close frame.
pub(crate) fn close_from_server(code: u16, reason: &str) -> Vec<u8> {
    from_server(0x88, &close(code, reason))
}

/// A client's Close frame.
pub(crate) fn close_from_client(code: u16, reason: &str) -> Vec<u8> {
    from_client(0x88, &close(code, reason))
}

/// An endpoint's Close frame.
pub(crate) fn close_from(endpoint: Endpoint, code: u16, reason: &str) -> Vec<u8> {
    from(endpoint, 0x88, &close(code, reason))
}

/// The payload of a Close frame (RFC 6455, section 5.5.1).
pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// A payload under a masking key (RFC 6455, section 5.3).
pub(crate) fn masked(mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
}

/// A frame with the shortest form of its length.
fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(mask_bit | length as u8),
        length @ 126..=0xffff => {
            bytes.push(mask_bit | 0x7e);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(mask_bit | 0x7f);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if let Some(mask) = mask {
        bytes.extend_from_slice(&mask);
        bytes.extend(masked(mask, payload));
    } else {
        bytes.extend_from_slice(payload);
    }
    bytes
}
