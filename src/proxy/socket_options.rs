//! What is set on the TCP connections of both legs.

use std::{io, net::SocketAddr};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::config::Keepalive;

/// How much the kernel takes for a peer on the same host before it has read (the kernel doubles it, for its own records).
///
/// By itself the kernel takes up to 4 MiB, and what has waited that long has left the processor's caches before anybody
/// copies it: with messages of 1 MiB this bound saves closewatch a third of its time. Smaller, messages of 16 KiB
/// cost more; larger, the gain is less. To peers elsewhere the kernel sizes the buffer by the path, which a fixed size
/// would switch off: so much a round trip is little across a continent.
const LOCAL_SEND_BUFFER: usize = 128 * 1024;

/// TCP keepalive as configured, for either leg.
pub(super) fn keepalive(keepalive: &Keepalive) -> TcpKeepalive {
    TcpKeepalive::new().with_time(keepalive.idle).with_interval(keepalive.interval).with_retries(keepalive.probes)
}

/// Bounds what waits in the kernel for a peer on the same host.
pub(super) fn bound_send_buffer(stream: &TcpStream, peer: SocketAddr) -> io::Result<()> {
    if peer.ip().to_canonical().is_loopback() {
        SockRef::from(stream).set_send_buffer_size(LOCAL_SEND_BUFFER)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_waits_for_a_local_peer_is_bounded() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for (peer, is_bounded) in [
            ("127.0.0.1:9", true),
            ("127.8.8.8:9", true),
            ("[::1]:9", true),
            ("[::ffff:127.0.0.1]:9", true),
            ("192.0.2.1:9", false),
            ("[2001:db8::1]:9", false),
        ] {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let before = SockRef::from(&stream).send_buffer_size().unwrap();
            bound_send_buffer(&stream, peer.parse().unwrap()).unwrap();
            let expected = if is_bounded { 2 * LOCAL_SEND_BUFFER } else { before };
            assert_eq!(SockRef::from(&stream).send_buffer_size().unwrap(), expected, "{peer}");
            assert_ne!(before, 2 * LOCAL_SEND_BUFFER);
        }
    }
}
