//! The PROXY protocol, versions 1 and 2: the client's address, read from a load balancer in front of closewatch and sent
//! to the server.

use std::net::{IpAddr, SocketAddr};

use proxy_header::{Error, ParseConfig, Protocol, ProxiedAddress, ProxyHeader};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::config::ProxyProtocol;

/// The longest header that is read: version 2 with 1 KiB of extensions.
const MAX_HEADER: usize = 16 + 216 + 1024;

const VERSION_1: &[u8] = b"PROXY";
const VERSION_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The place of the address family and the transport in a header of version 2.
const TRANSPORT: usize = VERSION_2.len() + 1;

const PARSING: ParseConfig = ParseConfig { include_tlvs: true, allow_v1: true, allow_v2: true };

/// The two ends of a client's connection, as the client knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    /// The other end of the TCP connection: the client, or a load balancer in front of closewatch.
    pub(super) peer: SocketAddr,
    /// The address that the client connected to: closewatch's own, or that of a load balancer in front of it.
    pub(super) local: SocketAddr,
    /// The load balancer reports that the client connected to it with TLS.
    pub(super) is_tls: bool,
}

/// Why a connection is not served.
pub(super) enum Refusal {
    /// It ended before its first byte.
    Nobody,
    /// Its header is malformed, unfinished, or missing although the listener requires it.
    Malformed,
}

/// Reads the PROXY header in front of a connection, if the listener expects one. Returns the ends that the header names,
/// or else the `real` ones, and the bytes that were read behind the header.
///
/// # Errors
///
/// The connection ends, or its header is malformed or missing.
pub(super) async fn accept(
    stream: &mut TcpStream,
    real: Ends,
    mode: ProxyProtocol,
) -> Result<(Ends, Vec<u8>), Refusal> {
    let mut bytes = Vec::with_capacity(MAX_HEADER);
    loop {
        let has_ended = !matches!(stream.read_buf(&mut bytes).await, Ok(1..));
        if has_ended && bytes.is_empty() {
            return Err(Refusal::Nobody);
        }
        match parse(&bytes, real) {
            Header::Whole(ends, length) => {
                bytes.drain(..length);
                return Ok((ends, bytes));
            }
            Header::Missing if mode != ProxyProtocol::Require => return Ok((real, bytes)),
            Header::Partial if !has_ended => {}
            Header::Missing | Header::Malformed | Header::Partial => return Err(Refusal::Malformed),
        }
    }
}

/// The version 2 header that names the client to a server. Both addresses have one family there: an IPv4 address beside
/// an IPv6 one is written as IPv6 (RFC 4291, 2.5.5.2).
pub(super) fn encode(ends: Ends) -> Vec<u8> {
    let (client, local) = (canonical(ends.client), canonical(ends.local));
    let (client, local) =
        if client.is_ipv4() == local.is_ipv4() { (client, local) } else { (mapped(client), mapped(local)) };
    let mut header = Vec::with_capacity(VERSION_2.len() + 4 + 36);
    ProxyHeader::with_address(ProxiedAddress::stream(client, local))
        .encode_v2(&mut header)
        .expect("two addresses of one family fit into a header");
    header
}

/// The beginning of a connection, as a PROXY header.
#[derive(Debug, PartialEq, Eq)]
enum Header {
    /// The ends that it names and its length.
    Whole(Ends, usize),
    Partial,
    Malformed,
    /// The connection begins with something else.
    Missing,
}

fn parse(bytes: &[u8], real: Ends) -> Header {
    let begins_with = |signature: &[u8]| bytes.starts_with(&signature[..signature.len().min(bytes.len())]);
    if !begins_with(VERSION_1) && !begins_with(VERSION_2) {
        return Header::Missing;
    }
    if let Some(header) = without_unspecified_transport(bytes) {
        return parse(&header, real);
    }
    match ProxyHeader::parse(bytes, PARSING) {
        Ok((header, length)) => Header::Whole(ends_in(&header, real.peer).unwrap_or(real), length),
        // The parser waits for the rest of a line that has ended too early.
        Err(Error::BufferTooShort) if bytes.starts_with(VERSION_1) && bytes.contains(&b'\n') => Header::Malformed,
        Err(Error::BufferTooShort) if bytes.len() < MAX_HEADER => Header::Partial,
        Err(_) => Header::Malformed,
    }
}

/// A header whose transport is unspecified names no addresses, and its connection may be accepted (section 2.2), but the
/// parser refuses it if it has an address family all the same. Returns the header without the family.
fn without_unspecified_transport(bytes: &[u8]) -> Option<Vec<u8>> {
    let transport = bytes.get(TRANSPORT).filter(|_| bytes.starts_with(VERSION_2))?;
    matches!(transport, 0x10 | 0x20 | 0x30).then(|| {
        let mut header = bytes.to_vec();
        header[TRANSPORT] = 0;
        header
    })
}

/// The ends that a header names. The load balancer's own connections (its health checks) name none, UDP cannot reach a
/// TCP listener, and Unix sockets have no address that a record could show.
fn ends_in(header: &ProxyHeader<'_>, peer: SocketAddr) -> Option<Ends> {
    let address = header.proxied_address().filter(|address| address.protocol == Protocol::Stream)?;
    let is_tls = header.ssl().is_some_and(|ssl| ssl.client_ssl());
    Some(Ends { client: address.source, peer, local: address.destination, is_tls })
}

/// An IPv4 address as such, also if a socket for both families reports it as IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use proxy_header::{SslInfo, Tlv};

    use super::*;

    fn ends(client: &str, local: &str) -> Ends {
        let peer = "10.9.9.9:9".parse().unwrap();
        Ends { client: client.parse().unwrap(), peer, local: local.parse().unwrap(), is_tls: false }
    }

    fn real() -> Ends {
        ends("127.0.0.1:1", "127.0.0.1:2")
    }

    fn encoded(client: &str, local: &str) -> Vec<u8> {
        encode(ends(client, local))
    }

    #[test]
    fn addresses_of_one_family_are_written_unchanged() {
        let ports = [0x12, 0x67, 0x01, 0xbb].as_slice();
        let (client, local) = ([192, 0, 2, 7].as_slice(), [10, 0, 0, 1].as_slice());
        let ipv4 = [VERSION_2, &[0x21, 0x11, 0, 12], client, local, ports].concat();
        assert_eq!(encoded("192.0.2.7:4711", "10.0.0.1:443"), ipv4);
        // A listener for both families reports an IPv4 client like this.
        assert_eq!(encoded("[::ffff:192.0.2.7]:4711", "[::ffff:10.0.0.1]:443"), ipv4);
        assert_eq!(encoded("[::ffff:192.0.2.7]:4711", "10.0.0.1:443"), ipv4);

        let client = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7].as_slice();
        let local = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].as_slice();
        let ipv6 = [VERSION_2, &[0x21, 0x21, 0, 36], client, local, ports].concat();
        assert_eq!(encoded("[2001:db8::7]:4711", "[::1]:443"), ipv6);
    }

    #[test]
    fn ipv4_beside_ipv6_is_written_as_ipv6() {
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

    /// A load balancer may send its header in any pieces.
    #[test]
    fn every_prefix_of_a_header_is_partial() {
        let unspecified = [VERSION_2, &[0x21, 0x10, 0, 12], &[9; 12]].concat();
        for (header, expected) in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n".to_vec(), ends("192.0.2.7:4711", "10.0.0.1:443")),
            (b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n".to_vec(), ends("[2001:db8::7]:4711", "[::1]:443")),
            (b"PROXY UNKNOWN\r\n".to_vec(), real()),
            (encoded("192.0.2.7:4711", "10.0.0.1:443"), ends("192.0.2.7:4711", "10.0.0.1:443")),
            (unspecified, real()),
        ] {
            for end in 0..header.len() {
                assert_eq!(parse(&header[..end], real()), Header::Partial, "{end} of {header:?}");
            }
            let with_request = [&header, b"GET / HTTP/1.1\r\n".as_slice()].concat();
            assert_eq!(parse(&with_request, real()), Header::Whole(expected, header.len()), "{header:?}");
        }
    }

    #[test]
    fn endless_and_short_headers_are_malformed() {
        let line = format!("PROXY TCP4 {}", "1".repeat(200));
        let block = [VERSION_2, &[0x21, 0x11, 0xff, 0xff], &vec![0; MAX_HEADER]].concat();
        for header in [line.as_bytes(), &block, b"PROXY\r\n", b"PROXY TCP4 nonsense\r\n"] {
            assert_eq!(parse(header, real()), Header::Malformed);
        }
        for other in [b"POST / HTTP/1.1".as_slice(), b"\r\n\r\nGET", b"\x16\x03\x01"] {
            assert_eq!(parse(other, real()), Header::Missing, "{other:?}");
        }
    }

    #[test]
    fn ssl_extension_reports_tls() {
        for (client_ssl, expected) in [(true, true), (false, false)] {
            let address = ProxiedAddress::stream("192.0.2.7:4711".parse().unwrap(), "10.0.0.1:443".parse().unwrap());
            let tlvs = [Tlv::Authority("a".into()), Tlv::Ssl(SslInfo::new(client_ssl, false, false, 0))];
            let mut header = Vec::new();
            ProxyHeader::with_tlvs(Some(address), tlvs).encode_v2(&mut header).unwrap();
            let Header::Whole(ends, _) = parse(&header, real()) else { panic!("a whole header") };
            assert_eq!(ends.is_tls, expected);
        }
    }
}
