//! A public listener: accepts connections, as many as the limits allow.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{
    Proxy,
    connection::{self, Accepted, Limits},
    proxy_protocol::{self, Ends, Refusal},
    socket_options,
};
use crate::{
    accept_backoff::AcceptBackoff,
    config::{Keepalive, ProxyProtocol},
    metrics::RejectReason,
};

/// The most connections that are still accepted when a listener closes.
const MAX_WAITING: usize = 4096;

/// A bound public address. Its clones share one socket, which the last of them closes.
#[derive(Debug, Clone)]
pub struct Listener {
    tcp: Arc<TcpListener>,
    address: SocketAddr,
    proxy_protocol: ProxyProtocol,
}

impl Listener {
    /// A listener on a socket that listens.
    ///
    /// # Errors
    ///
    /// The kernel refuses a socket option.
    pub fn new(
        socket: std::net::TcpListener,
        proxy_protocol: ProxyProtocol,
        keepalive: &Keepalive,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let options = SockRef::from(&socket);
        // Accepted connections inherit these options without a system call of their own.
        options.set_tcp_nodelay(true)?;
        options.set_tcp_keepalive(&socket_options::keepalive(keepalive))?;
        let address = socket.local_addr()?;
        let tcp = Arc::new(TcpListener::from_std(socket)?);
        Ok(Self { tcp, address, proxy_protocol })
    }

    /// The same socket, for connections that begin with another header.
    #[must_use]
    pub fn expecting(&self, proxy_protocol: ProxyProtocol) -> Self {
        Self { proxy_protocol, ..self.clone() }
    }

    /// The bound address, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts connections until `stop`.
    pub(super) async fn run(self, proxy: Arc<Proxy>, stop: CancellationToken) {
        let mut backoff = AcceptBackoff::default();
        loop {
            tokio::select! {
                // First, because a reload may have put a clone with another mode in its place.
                biased;
                () = stop.cancelled() => break,
                accepted = self.tcp.accept() => match accepted {
                    Ok((stream, client)) => self.serve(&proxy, stream, client),
                    Err(error) if concerns_one_connection(&error) => {}
                    Err(error) => backoff.pause(&error, self.address).await,
                }
            }
        }
        // A clone accepts the connections that wait.
        if Arc::strong_count(&self.tcp) == 1 {
            self.accept_waiting(&proxy);
        }
    }

    /// Accepts the connections that wait: closing the socket would reset them.
    fn accept_waiting(&self, proxy: &Arc<Proxy>) {
        // Asks the kernel: the runtime may not know of all of them yet.
        let socket = SockRef::from(&*self.tcp);
        let waiting = (0..MAX_WAITING).map_while(|_| socket.accept().ok());
        for (stream, client) in waiting {
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream.into()));
            if let (Ok(stream), Some(client)) = (stream, client.as_socket()) {
                self.serve(proxy, stream, client);
            }
        }
    }

    fn serve(&self, proxy: &Arc<Proxy>, stream: TcpStream, client: SocketAddr) {
        let Some(mut permit) = proxy.admission.admit() else { return proxy.log_rejected(client, RejectReason::Limit) };
        let ends = Ends { client, peer: client, local: local(&stream, self.address), is_tls: false };
        let is_client_known = self.proxy_protocol == ProxyProtocol::Off;
        if is_client_known && !proxy.admit_client(&mut permit, ends) {
            return proxy.log_rejected(client, RejectReason::Limit);
        }
        // If the socket refuses, the client has gone, and the next read reports it.
        let _ = socket_options::bound_send_buffer(&stream, client);
        let in_service = proxy.in_service.token();
        let accepted = Accepted { stream, early: BytesMut::new(), ends, permit, in_service };
        let (mode, limits) = (self.proxy_protocol, proxy.routing.load().connection_limits);
        let proxy = Arc::clone(proxy);
        tokio::spawn(async move {
            if let Some(accepted) = read_proxy_header(&proxy, accepted, mode, limits).await {
                connection::serve(proxy, accepted, limits).await;
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
    let reading = proxy_protocol::accept(&mut accepted.stream, accepted.ends, mode);
    let timeout = limits.head_timeout.unwrap_or(Duration::MAX);
    match tokio::time::timeout(timeout, reading).await {
        Ok(Ok((ends, early))) => {
            if proxy.admit_client(&mut accepted.permit, ends) {
                return Some(Accepted { early: early.as_slice().into(), ends, ..accepted });
            }
            proxy.log_rejected(ends.client, RejectReason::Limit);
        }
        Ok(Err(Refusal::Nobody)) => {}
        Ok(Err(Refusal::Malformed)) => proxy.reject(accepted.ends.client, RejectReason::ProxyProtocol),
        Err(_) => proxy.reject(accepted.ends.client, RejectReason::Timeout),
    }
    None
}

/// The address that the client connected to.
fn local(stream: &TcpStream, bound: SocketAddr) -> SocketAddr {
    if bound.ip().is_unspecified() { stream.local_addr().unwrap_or(bound) } else { bound }
}

/// Errors that `accept` reports of the connection that it would have returned.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
