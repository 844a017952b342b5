//! One end of a connection, which controls every byte, FIN and RST.

use std::{
    io::{self, Read, Write},
    mem::MaybeUninit,
    net::{IpAddr, Shutdown, SocketAddr},
    os::fd::OwnedFd,
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use super::{PATIENCE, masked};

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    socket: Socket,
    /// Bytes that were read from the socket and not yet returned.
    unread: Vec<u8>,
}

/// How the other side ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TcpEnd {
    Fin,
    Rst,
}

/// The head of a request or of a response.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) text: String,
}

impl Head {
    /// The request line or the status line.
    pub(crate) fn first_line(&self) -> &str {
        self.text.lines().next().unwrap()
    }

    /// The values of all lines of a header, in order. The name is case-sensitive.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let lines = self.text.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(found, _)| *found == name).map(|(_, value)| value.trim()).collect()
    }

    /// The only value of a header. The name is case-insensitive.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let lines = self.text.lines().skip(1).filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
        let value = values.next();
        assert!(values.next().is_none(), "{name} occurs twice in {:?}", self.text);
        value
    }
}

impl Peer {
    /// Connects over TCP.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, |_| {})
    }

    /// Connects over TCP with a small receive buffer, so that the reader is soon slow.
    pub(crate) fn connect_with_small_window(address: SocketAddr) -> Self {
        Self::connect_with(address, |socket| socket.set_recv_buffer_size(4096).unwrap())
    }

    /// Connects over TCP from another address of this host.
    pub(crate) fn connect_from(source: IpAddr, address: SocketAddr) -> Self {
        Self::connect_with(address, |socket| socket.bind(&SocketAddr::from((source, 0)).into()).unwrap())
    }

    /// Enlarges the receive buffer of a slow reader.
    pub(crate) fn widen_window(&self) {
        self.socket.set_recv_buffer_size(1 << 20).unwrap();
    }

    /// Connects over TCP with a socket that `prepare` prepares.
    pub(crate) fn connect_with(address: SocketAddr, prepare: impl FnOnce(&Socket)) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        prepare(&socket);
        socket.connect(&address.into()).unwrap();
        Self::new(socket)
    }

    pub(super) fn new(socket: Socket) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        // Unix sockets have no such option.
        let _ = socket.set_tcp_nodelay(true);
        Self { socket, unread: Vec::new() }
    }

    /// Writes all bytes.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).unwrap();
    }

    /// Writes as much as the kernel accepts now, and returns how much that was.
    pub(crate) fn send_some(&mut self, bytes: &[u8]) -> usize {
        self.socket.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while sent < bytes.len() {
            match self.socket.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.socket.set_nonblocking(false).unwrap();
        sent
    }

    /// Tries to write all bytes.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.socket.write_all(bytes.as_ref())
    }

    /// Reads exactly `count` bytes.
    pub(crate) fn receive(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            let missing = count - self.unread.len();
            if let Err(end) = self.fill(missing) {
                let start = &self.unread[..self.unread.len().min(200)];
                panic!("{end:?} after {} of {count} bytes, which begin with {start:?}", self.unread.len());
            }
        }
        self.unread.drain(..count).collect()
    }

    /// Reads exactly these bytes.
    pub(crate) fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let expected = bytes.as_ref();
        let received = self.receive(expected.len());
        if received != expected {
            let place = received.iter().zip(expected).position(|(a, b)| a != b).unwrap();
            let around = place.saturating_sub(8)..(place + 64).min(expected.len());
            let (received, expected) = (&received[around.clone()], &expected[around]);
            panic!(
                "differs at byte {place}: {:?} instead of {:?}",
                String::from_utf8_lossy(received),
                String::from_utf8_lossy(expected)
            );
        }
    }

    /// Reads the head of a message.
    pub(crate) fn receive_head(&mut self) -> Head {
        loop {
            if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let bytes: Vec<u8> = self.unread.drain(..end + 4).collect();
                return Head { text: String::from_utf8_lossy(&bytes).into_owned() };
            }
            if let Err(end) = self.fill(1) {
                panic!("{end:?} inside a head: {:?}", String::from_utf8_lossy(&self.unread));
            }
        }
    }

    /// Reads a response whose body has a Content-Length.
    pub(crate) fn receive_answer(&mut self) -> (Head, String) {
        let head = self.receive_head();
        let length = head.value("content-length").map_or(0, |length| length.parse().unwrap());
        let body = self.receive(length);
        (head, String::from_utf8(body).unwrap())
    }

    /// Reads a chunked body without trailers.
    pub(crate) fn receive_chunked(&mut self) -> String {
        let mut body = Vec::new();
        loop {
            let size = self.receive_line();
            let size = usize::from_str_radix(&size, 16).unwrap();
            body.extend(self.receive(size));
            self.expect("\r\n");
            if size == 0 {
                return String::from_utf8(body).unwrap();
            }
        }
    }

    fn receive_line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(self.receive(1));
        }
        String::from_utf8(line[..line.len() - 2].to_vec()).unwrap()
    }

    /// Reads to the end of the connection.
    pub(crate) fn receive_rest(&mut self) -> (Vec<u8>, TcpEnd) {
        loop {
            if let Err(end) = self.fill(1) {
                return (std::mem::take(&mut self.unread), end);
            }
        }
    }

    /// Reads FIN, without a byte before it.
    pub(crate) fn expect_fin(&mut self) {
        assert_eq!(self.receive_rest(), (Vec::new(), TcpEnd::Fin));
    }

    /// Reads a Close frame that closewatch made, and returns its code and reason. Only a server gets it masked.
    pub(crate) fn receive_close(&mut self, is_server: bool) -> (u16, String) {
        let header = self.receive(2);
        assert_eq!(header[0], 0x88, "a Close frame");
        assert_eq!(header[1] & 0x80 != 0, is_server, "masked for a server only");
        let mask = if is_server { self.receive(4).try_into().unwrap() } else { [0; 4] };
        let payload = masked(mask, &self.receive(usize::from(header[1] & 0x7f)));
        let (code, reason) = payload.split_at(2);
        (u16::from_be_bytes([code[0], code[1]]), String::from_utf8(reason.to_vec()).unwrap())
    }

    /// Reads RST, without a byte before it.
    pub(crate) fn expect_rst(&mut self) {
        assert_eq!(self.receive_rest(), (Vec::new(), TcpEnd::Rst));
    }

    /// The same end for another thread: one thread reads, the other one writes.
    pub(crate) fn again(&self) -> Self {
        Self { socket: self.socket.try_clone().unwrap(), unread: Vec::new() }
    }

    /// Sends FIN. The other direction stays open.
    pub(crate) fn finish(&mut self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Sends RST.
    pub(crate) fn reset(self) {
        self.socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap().as_socket().unwrap()
    }

    /// Whether no byte is readable now.
    pub(crate) fn nothing_readable(&mut self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let result = self.socket.read(&mut [0]);
        self.socket.set_nonblocking(false).unwrap();
        self.unread.is_empty() && result.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Asserts that nothing arrives for `duration`.
    pub(crate) fn expect_silence(&mut self, duration: Duration) {
        self.socket.set_read_timeout(Some(duration)).unwrap();
        let error = self.socket.peek(&mut [MaybeUninit::uninit()]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    /// Waits until a byte is readable, and leaves it in the kernel.
    #[allow(dead_code, reason = "only tests/loss uses it")]
    pub(crate) fn wait_until_readable(&self) {
        self.socket.peek(&mut [MaybeUninit::uninit()]).unwrap();
    }

    /// Reads at least one more byte, unless a signal interrupts it.
    fn fill(&mut self, wanted: usize) -> Result<(), TcpEnd> {
        let start = self.unread.len();
        self.unread.resize(start + wanted.clamp(64 << 10, 1 << 20), 0);
        let result = self.socket.read(&mut self.unread[start..]);
        self.unread.truncate(start + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => Err(TcpEnd::Fin),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(TcpEnd::Rst),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&self.unread)),
        }
    }
}

impl From<Peer> for OwnedFd {
    fn from(peer: Peer) -> Self {
        peer.socket.into()
    }
}
