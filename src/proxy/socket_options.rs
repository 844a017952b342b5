//! Socket options of the TCP connections of both legs.

use std::{io, net::SocketAddr};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::config::Keepalive;

/// How much the kernel accepts for a peer on the same host before that peer reads. The kernel doubles it, for its own
/// records.
///
/// Without this bound the kernel accepts up to 4 MiB, and these bytes have left the processor's caches before anybody
/// copies them: with messages of 1 MiB the bound saves closewatch a third of its time. With a smaller bound, messages of
/// 16 KiB cost more; with a larger one, the gain is smaller. For peers elsewhere the kernel sizes the buffer by the path,
/// and a fixed size would switch that off: so much for each round trip is little across a continent.
const LOCAL_SEND_BUFFER: usize = 128 * 1024;

/// TCP keepalive as configured, for either leg.
pub(super) fn keepalive(keepalive: &Keepalive) -> TcpKeepalive {
    TcpKeepalive::new().with_time(*keepalive.idle).with_interval(*keepalive.interval).with_retries(*keepalive.probes)
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
    async fn send_buffer_is_bounded_for_local_peers_only() {
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
