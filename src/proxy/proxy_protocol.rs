//! The PROXY protocol (versions 1 and 2): who the client is, where a load balancer stands before closewatch, and what
//! the server is told of it.

use std::net::{IpAddr, SocketAddr};

use ppp::{HeaderResult, v1, v2};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::config::ProxyProtocol;

/// The longest header that is read: version 2 with a kilobyte of extensions.
const MAX_HEADER: usize = 16 + 216 + 1024;

/// Version 1 is one line.
const MAX_LINE: usize = 107;

/// The two ends of a client's connection, as the client knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    /// What the client has connected to: closewatch itself, or a load balancer before it.
    pub(super) local: SocketAddr,
}

/// Why a connection is not served.
pub(super) enum Refusal {
    /// It ended before its first byte.
    Nobody,
    /// It does not begin as it must.
    Malformed(&'static str),
}

/// Reads a PROXY header off the front of a connection, where the listener expects one. Returns the ends that it names
/// (the `real` ones where it names none) and what was read behind the header.
///
/// # Errors
///
/// Where the connection ends or is no PROXY connection although it must be.
pub(super) async fn accept(
    stream: &mut TcpStream,
    real: Ends,
    mode: ProxyProtocol,
) -> Result<(Ends, Vec<u8>), Refusal> {
    let mut bytes = Vec::with_capacity(MAX_HEADER);
    while !is_whole(&bytes) {
        let has_ended = !matches!(stream.read_buf(&mut bytes).await, Ok(1..));
        if has_ended && bytes.is_empty() {
            return Err(Refusal::Nobody);
        }
        if !may_be_header(&bytes) {
            return match mode {
                ProxyProtocol::Require => Err(Refusal::Malformed("the connection does not begin with a PROXY header")),
                ProxyProtocol::Accept | ProxyProtocol::Off => Ok((real, bytes)),
            };
        }
        if has_ended {
            return Err(Refusal::Malformed("the connection ended in its PROXY header"));
        }
    }
    let (named, length) = match HeaderResult::parse(&bytes) {
        HeaderResult::V1(Ok(header)) => (v1_ends(&header), header.header.len()),
        HeaderResult::V2(Ok(header)) => (v2_ends(&header), header.header.len()),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => {
            return Err(Refusal::Malformed("the PROXY header is malformed"));
        }
    };
    bytes.drain(..length);
    Ok((named.unwrap_or(real), bytes))
}

/// The version 2 header that tells a server who the client is. Both addresses have one family there: an IPv4 address
/// beside an IPv6 one is written as IPv6 (RFC 4291, 2.5.5.2).
pub(super) fn encode(ends: Ends) -> Vec<u8> {
    let (client, local) = (canonical(ends.client), canonical(ends.local));
    let addresses = if client.is_ipv4() == local.is_ipv4() { (client, local) } else { (mapped(client), mapped(local)) };
    v2::Builder::with_addresses(v2::Version::Two | v2::Command::Proxy, v2::Protocol::Stream, addresses)
        .build()
        // Only a header beyond 64 KiB cannot be built, and two addresses are 36 bytes.
        .unwrap_or_default()
}

/// An IPv4 address as such, also where a socket for both families tells it as IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
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

fn v1_ends(header: &v1::Header<'_>) -> Option<Ends> {
    match header.addresses {
        v1::Addresses::Tcp4(pair) => Some(Ends {
            client: (pair.source_address, pair.source_port).into(),
            local: (pair.destination_address, pair.destination_port).into(),
        }),
        v1::Addresses::Tcp6(pair) => Some(Ends {
            client: (pair.source_address, pair.source_port).into(),
            local: (pair.destination_address, pair.destination_port).into(),
        }),
        v1::Addresses::Unknown => None,
    }
}

fn v2_ends(header: &v2::Header<'_>) -> Option<Ends> {
    if header.command == v2::Command::Local {
        // The load balancer's own connection, a health check say.
        return None;
    }
    if header.protocol != v2::Protocol::Stream {
        // Nobody comes by UDP to a TCP listener. A transport that is not supported is told as good as none (section 2.2):
        // what is left are the real addresses.
        return None;
    }
    match header.addresses {
        v2::Addresses::IPv4(pair) => Some(Ends {
            client: (pair.source_address, pair.source_port).into(),
            local: (pair.destination_address, pair.destination_port).into(),
        }),
        v2::Addresses::IPv6(pair) => Some(Ends {
            client: (pair.source_address, pair.source_port).into(),
            local: (pair.destination_address, pair.destination_port).into(),
        }),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(client: &str, local: &str) -> Vec<u8> {
        encode(Ends { client: client.parse().unwrap(), local: local.parse().unwrap() })
    }

    #[test]
    fn two_addresses_of_one_family_are_written_as_they_are() {
        let signature = b"\r\n\r\n\0\r\nQUIT\n".as_slice();
        let ports = [0x12, 0x67, 0x01, 0xbb].as_slice();
        let (client, local) = ([192, 0, 2, 7].as_slice(), [10, 0, 0, 1].as_slice());
        let ipv4 = [signature, &[0x21, 0x11, 0, 12], client, local, ports].concat();
        assert_eq!(encoded("192.0.2.7:4711", "10.0.0.1:443"), ipv4);
        // As a listener for both families tells an IPv4 client.
        assert_eq!(encoded("[::ffff:192.0.2.7]:4711", "[::ffff:10.0.0.1]:443"), ipv4);
        assert_eq!(encoded("[::ffff:192.0.2.7]:4711", "10.0.0.1:443"), ipv4);

        let client = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7].as_slice();
        let local = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].as_slice();
        let ipv6 = [signature, &[0x21, 0x21, 0, 36], client, local, ports].concat();
        assert_eq!(encoded("[2001:db8::7]:4711", "[::1]:443"), ipv6);
    }

    #[test]
    fn an_ipv4_address_beside_an_ipv6_one_is_written_as_ipv6() {
        for (client, local, last) in [
            ("192.0.2.7:1", "[2001:db8::1]:443", "::ffff:192.0.2.7 2001:db8::1"),
            ("[2001:db8::7]:1", "10.0.0.1:443", "2001:db8::7 ::ffff:10.0.0.1"),
            ("[2001:db8::7]:1", "[::ffff:10.0.0.1]:443", "2001:db8::7 ::ffff:10.0.0.1"),
        ] {
            let header = encoded(client, local);
            assert_eq!(header[12..16], [0x21, 0x21, 0, 36], "{client} {local}");
            let address = |place: usize| IpAddr::from(<[u8; 16]>::try_from(&header[place..place + 16]).unwrap());
            assert_eq!(format!("{} {}", address(16), address(32)), last);
        }
    }
}
