//! Connections to the server.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, ToSocketAddrs, UnixStream},
};
use tokio_util::either::Either;

use super::{
    proxy_protocol::{self, Ends},
    socket_options,
};
use crate::{
    config::{self, Keepalive, UpstreamAddress},
    metrics::HandshakeFailure,
};

/// A connection to the server, of whichever kind.
pub(super) type ServerStream = Either<TcpStream, UnixStream>;

/// Knows how to reach one upstream.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    target: Target,
    timeout: Duration,
    keepalive: TcpKeepalive,
    sends_proxy_protocol: bool,
    /// Where a name led to last.
    last_peer: Arc<ArcSwapOption<Peer>>,
}

/// Where the server is. What records call it is known beforehand, but for a name, which may lead anywhere.
#[derive(Debug, Clone)]
enum Target {
    Address { address: SocketAddr, name: Arc<str> },
    Name { host: Arc<str>, port: u16 },
    Unix { path: Arc<Path>, name: Arc<str> },
}

impl Target {
    fn new(address: &UpstreamAddress) -> Self {
        match address {
            UpstreamAddress::Tcp { host, port } => match host.trim_matches(['[', ']']).parse::<IpAddr>() {
                Ok(ip) => {
                    let address = SocketAddr::new(ip, *port);
                    Self::Address { address, name: address.to_string().into() }
                }
                Err(_) => Self::Name { host: host.as_str().into(), port: *port },
            },
            UpstreamAddress::Unix(path) => {
                Self::Unix { path: path.as_path().into(), name: format!("unix:{}", path.display()).into() }
            }
        }
    }
}

/// A server's address and what records call it.
#[derive(Debug)]
struct Peer {
    address: SocketAddr,
    name: Arc<str>,
}

/// A connection that was made.
pub(super) struct Connected {
    pub(super) stream: ServerStream,
    /// What records call the server.
    pub(super) server: Arc<str>,
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
            target: Target::new(&upstream.address),
            timeout: upstream.connect_timeout,
            keepalive: socket_options::keepalive(keepalive),
            sends_proxy_protocol: upstream.proxy_protocol,
            last_peer: Arc::default(),
        }
    }

    /// A new connection for one client, within the configured time.
    pub(super) async fn connect(&self, ends: Ends) -> Result<Connected, ConnectError> {
        let connecting = pin!(async {
            let mut connected = self.connect_to_target().await?;
            if self.sends_proxy_protocol {
                let header = proxy_protocol::encode(ends);
                connected.stream.write_all(&header).await.map_err(|error| failed(&error))?;
            }
            Ok(connected)
        });
        self.in_time(connecting).await
    }

    /// A new connection for whichever clients' requests come to use it. Only where [`Self::speaks_for_one`] says no.
    pub(super) async fn connect_shared(&self) -> Result<Connected, ConnectError> {
        self.in_time(pin!(self.connect_to_target())).await
    }

    /// Whether the server is told the client of each connection, which then has the requests of no other.
    pub(super) fn speaks_for_one(&self) -> bool {
        self.sends_proxy_protocol
    }

    async fn in_time(
        &self,
        connecting: impl Future<Output = Result<Connected, ConnectError>>,
    ) -> Result<Connected, ConnectError> {
        tokio::time::timeout(self.timeout, connecting).await.unwrap_or_else(|_| {
            Err(ConnectError {
                cause: HandshakeFailure::UpstreamTimeout,
                message: format!("no connection to the upstream within {}", humantime::format_duration(self.timeout)),
            })
        })
    }

    async fn connect_to_target(&self) -> Result<Connected, ConnectError> {
        Ok(match &self.target {
            Target::Address { address, name } => {
                let (stream, _) = self.tcp(*address, Some(*address)).await?;
                Connected { stream: Either::Left(stream), server: Arc::clone(name) }
            }
            Target::Name { host, port } => {
                let (stream, peer) = self.tcp((&**host, *port), None).await?;
                Connected { stream: Either::Left(stream), server: self.name_of(peer) }
            }
            Target::Unix { path, name } => {
                Connected { stream: Either::Right(unix(path).await?), server: Arc::clone(name) }
            }
        })
    }

    async fn tcp(
        &self,
        address: impl ToSocketAddrs,
        known: Option<SocketAddr>,
    ) -> Result<(TcpStream, SocketAddr), ConnectError> {
        let stream = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
        let prepared = || {
            let peer = known.map_or_else(|| stream.peer_addr(), Ok)?;
            stream.set_nodelay(true)?;
            SockRef::from(&stream).set_tcp_keepalive(&self.keepalive)?;
            socket_options::bound_send_buffer(&stream, peer)?;
            Ok(peer)
        };
        let peer = prepared().map_err(|error| failed(&error))?;
        Ok((stream, peer))
    }

    /// How records show a server that a name led to. All sessions that it led to the same address share the one text.
    fn name_of(&self, peer: SocketAddr) -> Arc<str> {
        if let Some(last) = &*self.last_peer.load()
            && last.address == peer
        {
            return Arc::clone(&last.name);
        }
        let name: Arc<str> = peer.to_string().into();
        self.last_peer.store(Some(Arc::new(Peer { address: peer, name: Arc::clone(&name) })));
        name
    }
}

async fn unix(path: &Path) -> Result<UnixStream, ConnectError> {
    UnixStream::connect(path).await.map_err(|error| failed(&error))
}

fn failed(error: &io::Error) -> ConnectError {
    let cause = match error.kind() {
        // A Unix socket whose queue is full does not let one wait.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock => HandshakeFailure::UpstreamRefused,
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
