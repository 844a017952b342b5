//! The server behind closewatch: the test accepts each connection.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{PATIENCE, Peer, peer::Head};

const LOCALHOST: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Server {
    socket: Socket,
}

impl Server {
    /// Listens on a TCP port of the kernel's choice.
    pub(crate) fn start() -> Self {
        Self::on_tcp(LOCALHOST, 128).unwrap()
    }

    /// Listens with small receive buffers, so that each connection is soon a slow reader.
    pub(crate) fn with_small_window() -> Self {
        let server = Self::start();
        server.set_receive_buffer(4096);
        server
    }

    /// Listens on a TCP address, with a queue for one connection more than `backlog`.
    pub(crate) fn on_tcp(address: SocketAddr, backlog: i32) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        Self::listen(socket, &address.into(), backlog)
    }

    /// Listens with a queue that one connection fills. The test never accepts it.
    pub(crate) fn full() -> (Self, Peer) {
        let server = Self::on_tcp(LOCALHOST, 0).unwrap();
        let first = Peer::connect(server.address());
        (server, first)
    }

    /// Listens on a Unix socket with a queue that one connection fills.
    pub(crate) fn full_on_unix(path: &Path) -> (Self, Peer) {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let address = SockAddr::unix(path).unwrap();
        let server = Self::listen(socket, &address, 0).unwrap();
        let first = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        first.connect(&address).unwrap();
        (server, Peer::new(first))
    }

    /// Listens on a Unix socket.
    pub(crate) fn on_unix(path: &Path) -> Self {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        Self::listen(socket, &SockAddr::unix(path).unwrap(), 128).unwrap()
    }

    fn listen(socket: Socket, address: &SockAddr, backlog: i32) -> io::Result<Self> {
        socket.bind(address)?;
        socket.listen(backlog)?;
        // On Linux, the receive timeout applies to accept(2), too.
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket })
    }

    /// Sets the size of the receive buffers of later connections, in bytes.
    pub(crate) fn set_receive_buffer(&self, size: usize) {
        self.socket.set_recv_buffer_size(size).unwrap();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap().as_socket().unwrap()
    }

    /// The line of a configuration that makes this server the upstream.
    pub(crate) fn upstream(&self) -> String {
        format!("upstream: ws://{}\n", self.address())
    }

    /// The next connection.
    pub(crate) fn accept(&self) -> Peer {
        loop {
            match self.socket.accept() {
                // A signal for another thread of the test.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                accepted => return Peer::new(accepted.unwrap().0),
            }
        }
    }

    /// The next connection and the head of its first request.
    pub(crate) fn accept_request(&self) -> (Peer, Head) {
        let mut connection = self.accept();
        let head = connection.receive_head();
        (connection, head)
    }
}
