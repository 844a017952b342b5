//! Connections to the server.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UnixStream},
};
use tokio_util::either::Either;

use super::proxy_protocol;
use crate::{
    config::{self, Keepalive, UpstreamAddress},
    metrics::HandshakeFailure,
};

/// Toward a server on the same host a larger send buffer saves system calls for large messages. Elsewhere the kernel
/// sizes it by the path, which a fixed size would switch off.
const LOCAL_SEND_BUFFER: usize = 256 * 1024;

/// A connection to the server, of whichever kind.
pub(super) type ServerStream = Either<TcpStream, UnixStream>;

/// Knows how to reach one upstream.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    address: Arc<UpstreamAddress>,
    timeout: Duration,
    keepalive: TcpKeepalive,
    sends_proxy_protocol: bool,
    last_peer: Arc<ArcSwap<Arc<str>>>,
}

/// Why no connection came about.
#[derive(Debug)]
pub(super) struct ConnectError {
    /// How it is counted.
    pub(super) cause: HandshakeFailure,
    /// What to tell the client and the log.
    pub(super) message: String,
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConnectError {}

impl Connector {
    pub(super) fn new(upstream: &config::Upstream, keepalive: &Keepalive) -> Self {
        Self {
            address: Arc::new(upstream.address.clone()),
            timeout: upstream.connect_timeout,
            keepalive: tcp_keepalive(keepalive),
            sends_proxy_protocol: upstream.proxy_protocol,
            last_peer: Arc::new(ArcSwap::from_pointee("".into())),
        }
    }

    /// A new connection for one client, within the configured time.
    pub(super) async fn connect(&self, client: SocketAddr, local: SocketAddr) -> Result<ServerStream, ConnectError> {
        self.connect_with(|| proxy_protocol::encode(client, local)).await
    }

    /// A new connection for whichever clients' requests come to use it.
    pub(super) async fn connect_shared(&self) -> Result<ServerStream, ConnectError> {
        self.connect_with(proxy_protocol::encode_local).await
    }

    async fn connect_with(&self, proxy_header: impl FnOnce() -> Vec<u8>) -> Result<ServerStream, ConnectError> {
        let connecting = async {
            let mut stream = match &*self.address {
                UpstreamAddress::Tcp { host, port } => Either::Left(self.tcp(host, *port).await?),
                UpstreamAddress::Unix(path) => Either::Right(unix(path).await?),
            };
            if self.sends_proxy_protocol {
                stream.write_all(&proxy_header()).await.map_err(|error| failed(&error))?;
            }
            Ok(stream)
        };
        tokio::time::timeout(self.timeout, connecting).await.unwrap_or_else(|_| {
            Err(ConnectError {
                cause: HandshakeFailure::UpstreamTimeout,
                message: format!("no connection to the upstream within {}", humantime::format_duration(self.timeout)),
            })
        })
    }

    /// The address of the server that was connected to, as records show it. Its sessions share the one text.
    pub(super) fn peer_name(&self, stream: &ServerStream) -> Arc<str> {
        let address = match (stream, &*self.address) {
            (Either::Left(tcp), UpstreamAddress::Tcp { host, port }) => {
                tcp.peer_addr().map_or_else(|_| format!("{host}:{port}"), |peer| peer.to_string())
            }
            (_, UpstreamAddress::Tcp { host, port }) => format!("{host}:{port}"),
            (_, UpstreamAddress::Unix(path)) => format!("unix:{}", path.display()),
        };
        let last = self.last_peer.load();
        if ***last == *address {
            return Arc::clone(&**last);
        }
        let name: Arc<str> = address.into();
        self.last_peer.store(Arc::new(Arc::clone(&name)));
        name
    }

    async fn tcp(&self, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let stream = TcpStream::connect((host, port)).await.map_err(|error| failed(&error))?;
        let prepared = stream.set_nodelay(true).and_then(|()| {
            let socket = SockRef::from(&stream);
            socket.set_tcp_keepalive(&self.keepalive)?;
            let is_local = stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
            if is_local { socket.set_send_buffer_size(LOCAL_SEND_BUFFER) } else { Ok(()) }
        });
        prepared.map_err(|error| failed(&error))?;
        Ok(stream)
    }
}

async fn unix(path: &Path) -> Result<UnixStream, ConnectError> {
    UnixStream::connect(path).await.map_err(|error| failed(&error))
}

fn failed(error: &io::Error) -> ConnectError {
    let cause = match error.kind() {
        io::ErrorKind::ConnectionRefused => HandshakeFailure::UpstreamRefused,
        io::ErrorKind::TimedOut => HandshakeFailure::UpstreamTimeout,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => HandshakeFailure::UpstreamReset,
        _ => HandshakeFailure::UpstreamUnreachable,
    };
    ConnectError { cause, message: format!("no connection to the upstream: {error}") }
}

/// The bare socket, for the data plane.
pub(super) fn into_socket(stream: ServerStream) -> io::Result<Socket> {
    match stream {
        Either::Left(tcp) => Ok(Socket::from(tcp.into_std()?)),
        Either::Right(unix) => Ok(Socket::from(unix.into_std()?)),
    }
}

/// TCP keepalive as configured, for either leg.
pub(super) fn tcp_keepalive(keepalive: &Keepalive) -> TcpKeepalive {
    TcpKeepalive::new().with_time(keepalive.idle).with_interval(keepalive.interval).with_retries(keepalive.probes)
}
