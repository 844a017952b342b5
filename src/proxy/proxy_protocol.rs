//! The PROXY protocol (versions 1 and 2): who the client is, where a load balancer stands before closewatch, and what
//! the server is told of it.

use std::net::SocketAddr;

use ppp::{HeaderResult, v1, v2};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::config::ProxyProtocol;

/// The longest header that is read: version 2 with a kilobyte of extensions.
const MAX_HEADER: usize = 16 + 216 + 1024;

/// Version 1 is one line.
const MAX_LINE: usize = 107;

/// Why a connection is not served.
pub(super) enum Refusal {
    /// It ended before its first byte.
    Nobody,
    /// It does not begin as it must.
    Malformed(&'static str),
}

/// Reads a PROXY header off the front of a connection, where the listener expects one. Returns the client's address (the
/// connection's own where the header names none) and what was read behind the header.
///
/// # Errors
///
/// Where the connection ends or is no PROXY connection although it must be.
pub(super) async fn accept(
    stream: &mut TcpStream,
    peer: SocketAddr,
    mode: ProxyProtocol,
) -> Result<(SocketAddr, Vec<u8>), Refusal> {
    let mut bytes = Vec::with_capacity(MAX_HEADER);
    while !is_whole(&bytes) {
        let has_ended = !matches!(stream.read_buf(&mut bytes).await, Ok(1..));
        if has_ended && bytes.is_empty() {
            return Err(Refusal::Nobody);
        }
        if !may_be_header(&bytes) {
            return match mode {
                ProxyProtocol::Require => Err(Refusal::Malformed("the connection does not begin with a PROXY header")),
                ProxyProtocol::Accept | ProxyProtocol::Off => Ok((peer, bytes)),
            };
        }
        if has_ended {
            return Err(Refusal::Malformed("the connection ended in its PROXY header"));
        }
    }
    let (client, length) = match HeaderResult::parse(&bytes) {
        HeaderResult::V1(Ok(header)) => (v1_source(&header), header.header.len()),
        HeaderResult::V2(Ok(header)) => (v2_source(&header), header.header.len()),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => {
            return Err(Refusal::Malformed("the PROXY header is malformed"));
        }
    };
    bytes.drain(..length);
    Ok((client.unwrap_or(peer), bytes))
}

/// The version 2 header that tells a server who the client is.
pub(super) fn encode(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    v2::Builder::with_addresses(v2::Version::Two | v2::Command::Proxy, v2::Protocol::Stream, (client, local))
        .build()
        // Only a header beyond 64 KiB cannot be built, and two addresses are 36 bytes.
        .unwrap_or_default()
}

/// The version 2 header of a connection that closewatch makes for itself.
pub(super) fn encode_local() -> Vec<u8> {
    v2::Builder::new(v2::Version::Two | v2::Command::Local, v2::AddressFamily::Unspecified | v2::Protocol::Unspecified)
        .build()
        .unwrap_or_default()
}

fn may_be_header(bytes: &[u8]) -> bool {
    let begins = |signature: &[u8]| bytes.starts_with(&signature[..signature.len().min(bytes.len())]);
    begins(v1::PROTOCOL_PREFIX.as_bytes()) || begins(v2::PROTOCOL_PREFIX)
}

/// Whether a header is there to its end, or longer than it may be.
fn is_whole(bytes: &[u8]) -> bool {
    if bytes.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
        return bytes.len() >= MAX_LINE || bytes.windows(2).any(|end| end == b"\r\n");
    }
    // Twelve bytes of signature, version and command, family, and the length of the rest.
    let length = bytes.get(14..16).map(|length| usize::from(u16::from_be_bytes([length[0], length[1]])));
    bytes.len() >= MAX_HEADER || length.is_some_and(|length| bytes.len() >= 16 + length)
}

fn v1_source(header: &v1::Header<'_>) -> Option<SocketAddr> {
    match header.addresses {
        v1::Addresses::Tcp4(pair) => Some((pair.source_address, pair.source_port).into()),
        v1::Addresses::Tcp6(pair) => Some((pair.source_address, pair.source_port).into()),
        v1::Addresses::Unknown => None,
    }
}

fn v2_source(header: &v2::Header<'_>) -> Option<SocketAddr> {
    if header.command == v2::Command::Local {
        // The load balancer's own connection, a health check say.
        return None;
    }
    match header.addresses {
        v2::Addresses::IPv4(pair) => Some((pair.source_address, pair.source_port).into()),
        v2::Addresses::IPv6(pair) => Some((pair.source_address, pair.source_port).into()),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
    }
}
