//! The PROXY protocol (versions 1 and 2): who the client is, where a load balancer stands before closewatch, and what
//! the server is told of it.

use std::net::SocketAddr;

use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::config::ProxyProtocol;

/// The longest header that is read: version 2 with a kilobyte of extensions.
const MAX_HEADER: usize = 16 + 216 + 1024;

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
) -> Result<(SocketAddr, Vec<u8>), &'static str> {
    if mode == ProxyProtocol::Off {
        return Ok((peer, Vec::new()));
    }
    let mut bytes = Vec::with_capacity(MAX_HEADER);
    loop {
        let count = stream.read_buf(&mut bytes).await.map_err(|_| "the connection failed in its PROXY header")?;
        if !may_be_header(&bytes) {
            return match mode {
                ProxyProtocol::Require => Err("the connection does not begin with a PROXY header"),
                ProxyProtocol::Accept | ProxyProtocol::Off => Ok((peer, bytes)),
            };
        }
        let header = HeaderResult::parse(&bytes);
        if header.is_incomplete() && count > 0 && bytes.len() < MAX_HEADER {
            continue;
        }
        let (client, length) = match header {
            HeaderResult::V1(Ok(header)) => (v1_source(&header), header.header.len()),
            HeaderResult::V2(Ok(header)) => (v2_source(&header), header.header.len()),
            HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => return Err("the PROXY header is malformed"),
        };
        bytes.drain(..length);
        return Ok((client.unwrap_or(peer), bytes));
    }
}

/// The version 2 header that tells a server who the client is.
pub(super) fn encode(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    v2::Builder::with_addresses(v2::Version::Two | v2::Command::Proxy, v2::Protocol::Stream, (client, local))
        .build()
        // Only a header beyond 64 KiB cannot be built, and two addresses are 36 bytes.
        .unwrap_or_default()
}

fn may_be_header(bytes: &[u8]) -> bool {
    let begins = |signature: &[u8]| bytes.starts_with(&signature[..signature.len().min(bytes.len())]);
    begins(v1::PROTOCOL_PREFIX.as_bytes()) || begins(v2::PROTOCOL_PREFIX)
}

fn v1_source(header: &v1::Header<'_>) -> Option<SocketAddr> {
    match header.addresses {
        v1::Addresses::Tcp4(pair) => Some((pair.source_address, pair.source_port).into()),
        v1::Addresses::Tcp6(pair) => Some((pair.source_address, pair.source_port).into()),
        v1::Addresses::Unknown => None,
    }
}

fn v2_source(header: &v2::Header<'_>) -> Option<SocketAddr> {
    match header.addresses {
        v2::Addresses::IPv4(pair) => Some((pair.source_address, pair.source_port).into()),
        v2::Addresses::IPv6(pair) => Some((pair.source_address, pair.source_port).into()),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
    }
}
