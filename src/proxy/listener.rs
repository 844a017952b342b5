//! A public listener: takes connections, as many as are allowed.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{
    Proxy,
    connection::{self, Limits},
    proxy_protocol,
    upstream::tcp_keepalive,
};
use crate::{
    admission::Place,
    config::{Config, Listen, ProxyProtocol},
    metrics::RejectReason,
};

/// As many connections may wait to be accepted, where the kernel's own bound (`net.core.somaxconn`) is not lower.
const BACKLOG: i32 = 4096;

/// After an accept that failed for want of descriptors or memory: long enough not to spin, short enough to recover.
const PAUSE: Duration = Duration::from_millis(100);

/// A bound public address.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    proxy_protocol: ProxyProtocol,
    limits: Limits,
}

/// A connection that was taken.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    /// What was read of it behind a PROXY header.
    pub(super) early: Vec<u8>,
    pub(super) client: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) place: Place,
}

impl Listener {
    /// Binds an address of the configuration.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the address.
    pub fn bind(listen: &Listen, config: &Config) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(listen.address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        // What is set here holds for every connection that is accepted, and costs it no system call.
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&tcp_keepalive(&config.keepalive))?;
        socket.bind(&listen.address.into())?;
        socket.listen(BACKLOG)?;
        let tcp = TcpListener::from_std(socket.into())?;
        Ok(Self {
            address: tcp.local_addr()?,
            tcp,
            proxy_protocol: listen.proxy_protocol,
            limits: Limits { head_timeout: config.request_head_timeout, head_bytes: config.request_head_bytes },
        })
    }

    /// The bound address, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes connections until `stop`.
    pub async fn run(self, proxy: Arc<Proxy>, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.tcp.accept() => accepted,
            };
            match accepted {
                Ok((stream, client)) => self.take(&proxy, stream, client),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "connections cannot be accepted; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn take(&self, proxy: &Arc<Proxy>, stream: TcpStream, client: SocketAddr) {
        let Some(place) = proxy.admission.admit(client.ip()) else { return };
        let (mode, limits) = (self.proxy_protocol, self.limits);
        let accepted = Accepted { local: local(&stream, self.address), stream, early: Vec::new(), client, place };
        let proxy_of_task = Arc::clone(proxy);
        proxy.connections.spawn(async move {
            if let Some(accepted) = read_proxy_header(&proxy_of_task, accepted, mode, limits).await {
                connection::serve(proxy_of_task, accepted, limits).await;
            }
        });
    }
}

async fn read_proxy_header(
    proxy: &Proxy,
    mut accepted: Accepted,
    mode: ProxyProtocol,
    limits: Limits,
) -> Option<Accepted> {
    if mode == ProxyProtocol::Off {
        return Some(accepted);
    }
    let reading = proxy_protocol::accept(&mut accepted.stream, accepted.client, mode);
    let timeout = limits.head_timeout.unwrap_or(Duration::MAX);
    match tokio::time::timeout(timeout, reading).await {
        Ok(Ok((client, early))) => Some(Accepted { early, client, ..accepted }),
        Ok(Err(error)) => {
            tracing::debug!(peer = %accepted.client, error, "a connection was refused");
            proxy.metrics.connection_rejected(RejectReason::ProxyProtocol);
            None
        }
        Err(_) => {
            proxy.metrics.connection_rejected(RejectReason::Timeout);
            None
        }
    }
}

/// The address that the client connected to.
fn local(stream: &TcpStream, bound: SocketAddr) -> SocketAddr {
    if bound.ip().is_unspecified() { stream.local_addr().unwrap_or(bound) } else { bound }
}

/// Errors that `accept` reports of the connection it would have returned.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
