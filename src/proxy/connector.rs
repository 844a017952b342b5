//! Connects to the server.

use std::{io, net::SocketAddr, path::Path, pin::pin, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UnixStream, lookup_host},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::either::Either;

use super::{
    proxy_protocol::{self, Ends},
    socket_options,
};
use crate::{
    authority::UpstreamUrl,
    config::{self, Keepalive, ProxyHeader},
    metrics::HandshakeFailure,
};

/// A connection to the server, of either kind.
pub(super) type ServerStream = Either<TcpStream, UnixStream>;

/// Connects to one upstream.
#[derive(Debug)]
pub(super) struct Connector {
    target: Target,
    timeout: Duration,
    keepalive: TcpKeepalive,
    sends_proxy_protocol: bool,
    /// The address of a name that answered last.
    last_peer: ArcSwapOption<Peer>,
}

/// The place of the server. Records name it by its address, which is known beforehand unless it comes from a name.
#[derive(Debug)]
enum Target {
    Address(Peer),
    Name { host: String, port: u16 },
    Unix { path: Box<Path>, text: Arc<str> },
}

/// A server's address, and the text for records.
#[derive(Debug)]
struct Peer {
    address: SocketAddr,
    text: Arc<str>,
}

/// A connection that was made.
pub(super) struct Connected {
    pub(super) stream: ServerStream,
    /// The server's address, for records.
    pub(super) server: Arc<str>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct ConnectError {
    pub(super) cause: HandshakeFailure,
    /// A line for the client and the log.
    pub(super) message: String,
    /// The server's address that was tried last, for records.
    pub(super) server: Option<Arc<str>>,
}

impl Connector {
    pub(super) fn new(upstream: &config::Upstream, keepalive: &Keepalive) -> Self {
        Self {
            target: Target::new(&upstream.url),
            timeout: *upstream.connect_timeout,
            keepalive: socket_options::keepalive(keepalive),
            sends_proxy_protocol: *upstream.proxy_protocol == ProxyHeader::V2,
            last_peer: ArcSwapOption::empty(),
        }
    }

    /// Makes a connection for one client, within the configured time.
    pub(super) async fn connect(&self, ends: Ends) -> Result<Connected, ConnectError> {
        let deadline = Instant::now() + self.timeout;
        let connecting = pin!(async {
            let mut connected = self.connect_to_target(deadline).await?;
            if self.sends_proxy_protocol {
                let header = proxy_protocol::encode(ends);
                connected.stream.write_all(&header).await.map_err(|error| failed(&error))?;
            }
            Ok(connected)
        });
        let connected = timeout_at(deadline, connecting).await.unwrap_or_else(|_| Err(self.timed_out()));
        connected.map_err(|error| ConnectError { server: error.server.or_else(|| self.known_server()), ..error })
    }

    /// The server's address for records, unless it comes from a name.
    pub(super) fn known_server(&self) -> Option<Arc<str>> {
        match &self.target {
            Target::Address(Peer { text, .. }) | Target::Unix { text, .. } => Some(Arc::clone(text)),
            Target::Name { .. } => None,
        }
    }

    async fn connect_to_target(&self, deadline: Instant) -> Result<Connected, ConnectError> {
        Ok(match &self.target {
            Target::Address(peer) => Connected {
                stream: Either::Left(self.connect_tcp(peer.address).await?),
                server: Arc::clone(&peer.text),
            },
            Target::Name { host, port } => {
                let addresses = lookup_host((host.as_str(), *port)).await.map_err(|error| failed(&error))?;
                let (stream, address) = self.connect_in_turn(addresses.collect(), deadline).await?;
                Connected { stream: Either::Left(stream), server: self.remember(address) }
            }
            Target::Unix { path, text } => {
                let stream = UnixStream::connect(path).await.map_err(|error| failed(&error))?;
                Connected { stream: Either::Right(stream), server: Arc::clone(text) }
            }
        })
    }

    /// Tries the addresses of a name one after the other, first the one that answered last (RFC 8305). Each has its share
    /// of the time that is left.
    async fn connect_in_turn(
        &self,
        mut addresses: Vec<SocketAddr>,
        deadline: Instant,
    ) -> Result<(TcpStream, SocketAddr), ConnectError> {
        let last = self.last_peer.load().as_ref().map(|peer| peer.address);
        addresses.sort_by_key(|address| Some(*address) != last);
        let mut failure = None;
        for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
            let share = (deadline - Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX);
            let connected = timeout(share, self.connect_tcp(*address)).await;
            match connected.unwrap_or_else(|_| Err(self.timed_out())) {
                Ok(stream) => return Ok((stream, *address)),
                // A host without IPv6 reports an address that it cannot reach like a lack of ports.
                Err(error) if error.cause == HandshakeFailure::OutOfResources && failure.is_some() => {}
                Err(error) => failure = Some(ConnectError { server: Some(address.to_string().into()), ..error }),
            }
        }
        Err(failure.unwrap_or_else(|| failed(&io::Error::other("the name has no address"))))
    }

    async fn connect_tcp(&self, address: SocketAddr) -> Result<TcpStream, ConnectError> {
        let stream = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
        let set_options = || {
            stream.set_nodelay(true)?;
            SockRef::from(&stream).set_tcp_keepalive(&self.keepalive)?;
            socket_options::bound_send_buffer(&stream, address)
        };
        set_options().map_err(|error| failed(&error))?;
        Ok(stream)
    }

    /// Remembers the address of a name that answered, and returns its text. All sessions with one address share one text.
    fn remember(&self, address: SocketAddr) -> Arc<str> {
        if let Some(last) = &*self.last_peer.load()
            && last.address == address
        {
            return Arc::clone(&last.text);
        }
        let peer = Arc::new(Peer::new(address));
        self.last_peer.store(Some(Arc::clone(&peer)));
        Arc::clone(&peer.text)
    }

    fn timed_out(&self) -> ConnectError {
        let timeout = humantime::format_duration(self.timeout);
        let message = format!("no connection to the upstream within {timeout}");
        ConnectError { cause: HandshakeFailure::UpstreamTimeout, message, server: None }
    }
}

impl Target {
    fn new(url: &UpstreamUrl) -> Self {
        match url {
            UpstreamUrl::Tcp(url) => match url.authority.host.ip() {
                Some(ip) => Self::Address(Peer::new(SocketAddr::new(ip, url.port()))),
                None => Self::Name { host: url.authority.host.as_str().to_owned(), port: url.port() },
            },
            UpstreamUrl::Unix(path) => {
                Self::Unix { path: path.as_path().into(), text: format!("unix:{}", path.display()).into() }
            }
        }
    }
}

impl Peer {
    fn new(address: SocketAddr) -> Self {
        Self { address, text: address.to_string().into() }
    }
}

/// The bare socket, for the data plane.
pub(super) fn into_socket(stream: ServerStream) -> io::Result<Socket> {
    match stream {
        Either::Left(tcp) => Ok(Socket::from(tcp.into_std()?)),
        Either::Right(unix) => Ok(Socket::from(unix.into_std()?)),
    }
}

fn failed(error: &io::Error) -> ConnectError {
    let cause = match error.kind() {
        _ if is_out_of_resources(error) => HandshakeFailure::OutOfResources,
        // A Unix socket whose queue is full cannot be waited for.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock => HandshakeFailure::UpstreamRefused,
        io::ErrorKind::TimedOut => HandshakeFailure::UpstreamTimeout,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => HandshakeFailure::UpstreamReset,
        _ => HandshakeFailure::UpstreamUnreachable,
    };
    ConnectError { cause, message: format!("no connection to the upstream: {error}"), server: None }
}

/// Whether closewatch itself lacks file descriptors, ports or memory.
fn is_out_of_resources(error: &io::Error) -> bool {
    const LACKS: [i32; 5] = [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| LACKS.contains(&code))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use socket2::{Domain, Type};

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(600);

    fn connector() -> Connector {
        let keepalive = Keepalive::default();
        Connector {
            target: Target::Name { host: "chat.example.com".to_owned(), port: 80 },
            timeout: TIMEOUT,
            keepalive: socket_options::keepalive(&keepalive),
            sends_proxy_protocol: false,
            last_peer: ArcSwapOption::empty(),
        }
    }

    /// A listener whose queue has room for one connection.
    fn listener() -> (Socket, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, address)
    }

    fn deadline() -> Instant {
        Instant::now() + TIMEOUT
    }

    #[tokio::test]
    async fn silent_address_gives_way_to_the_next_one() {
        let (_silent, silent) = listener();
        let _first = TcpStream::connect(silent).await.unwrap();
        let (closed, refusing) = listener();
        drop(closed);
        let (_answering, answering) = listener();
        let found = connector().connect_in_turn(vec![silent, refusing, answering], deadline()).await;
        assert_eq!(found.unwrap().1, answering);
    }

    #[tokio::test]
    async fn address_that_answered_last_is_tried_first() {
        let ((_first, first), (_second, second)) = (listener(), listener());
        let connector = connector();
        connector.remember(second);
        let found = connector.connect_in_turn(vec![first, second], deadline()).await;
        assert_eq!(found.unwrap().1, second);
    }

    #[tokio::test]
    async fn last_failure_is_reported() {
        let (_silent, silent) = listener();
        let _first = TcpStream::connect(silent).await.unwrap();
        let (closed, refusing) = listener();
        drop(closed);
        for (addresses, cause) in [
            (vec![silent, refusing], HandshakeFailure::UpstreamRefused),
            (vec![refusing, silent], HandshakeFailure::UpstreamTimeout),
            (vec![], HandshakeFailure::UpstreamUnreachable),
        ] {
            let error = connector().connect_in_turn(addresses, deadline()).await.unwrap_err();
            assert_eq!(error.cause, cause, "{}", error.message);
        }
    }

    #[test]
    fn lack_of_descriptors_is_no_fault_of_the_server() {
        for (code, cause) in [
            (libc::EMFILE, HandshakeFailure::OutOfResources),
            (libc::ENFILE, HandshakeFailure::OutOfResources),
            (libc::EADDRNOTAVAIL, HandshakeFailure::OutOfResources),
            (libc::ECONNREFUSED, HandshakeFailure::UpstreamRefused),
            (libc::EAGAIN, HandshakeFailure::UpstreamRefused),
            (libc::ETIMEDOUT, HandshakeFailure::UpstreamTimeout),
            (libc::ECONNRESET, HandshakeFailure::UpstreamReset),
            (libc::ENETUNREACH, HandshakeFailure::UpstreamUnreachable),
            (libc::ENOENT, HandshakeFailure::UpstreamUnreachable),
        ] {
            let error = failed(&io::Error::from_raw_os_error(code));
            assert_eq!(error.cause, cause, "{}", error.message);
        }
    }
}
