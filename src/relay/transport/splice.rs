//! Large reads pass through a pipe: one copy, to look at, instead of two.
//!
//! The bytes that closewatch looks at must be copied out of the kernel, but need not be copied back. If much waits in a
//! socket, `recv` with `MSG_PEEK` copies it to the buffer and leaves it there, and two calls of splice(2) move it, page by
//! page, into the pipe and on to the other socket. Nothing stays in the pipe from one read to the next: if not all of it
//! passes, or the reader takes only a part, the rest goes on from the buffer, and the pipe is closed.
//!
//! A connection is peeked at after one large read, and left alone for [`PAUSE`] large reads if that was of no use: much
//! more waits, the pipe had no room for all of it, or not all of it went out. If splice(2) is forbidden, or impossible with
//! this kind of socket, everything passes through the buffer.
//!
//! A sender on the same host that sends pages of a file, or gives its own pages away (sendfile(2), vmsplice(2)), can
//! change bytes after closewatch looked at them and before they pass.

use std::{
    io,
    ops::RangeInclusive,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::{Errno, retry_on_intr},
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};

/// The sizes of reads that pass through the pipe. With fewer bytes, pieces of less than a KiB could fill it, and each
/// may hold a page, and below 32 KiB the gain is small. With more, a congestion control that paces (BBR) arms a timer for
/// each segment but the first few: copying is then the cheaper way to pass the time.
pub(super) const SPLICED: RangeInclusive<usize> = 64 * 1024..=144 * 1024;

/// The pipe's size: it has room for as many pieces as this takes pages. The pieces of a socket begin and end inside pages.
const PIPE_SIZE: usize = 256 * 1024;

/// For how many reads of its size a connection is left alone if the pipe was of no use.
pub(super) const PAUSE: u8 = 64;

/// A pipe between two sockets.
#[derive(Debug)]
pub(in crate::relay) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    filled: usize,
    /// The error of the connection that filling it encountered. The kernel reports it only once, and may still have bytes
    /// that came before it.
    error: Option<Errno>,
}

impl Pipe {
    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused to a user with very many pipes: the default size would be too small.
        fcntl_setpipe_size(&writer, PIPE_SIZE)?;
        Ok(Self { reader, writer, filled: 0, error: None })
    }

    /// Whether it is empty, and knows of no error.
    pub(super) fn is_idle(&self) -> bool {
        self.filled == 0 && self.error.is_none()
    }

    /// Whether it holds all of these bytes.
    pub(super) fn holds(&self, bytes: &[u8]) -> bool {
        self.filled == bytes.len()
    }

    pub(super) fn take_error(&mut self) -> Option<Errno> {
        self.error.take()
    }

    pub(super) fn fill(&mut self, socket: BorrowedFd<'_>, count: usize) -> usize {
        match move_pages(socket, self.writer.as_fd(), count) {
            Ok(moved) => self.filled = moved,
            Err(error) => self.error = Some(error).filter(|error| is_of_connection(*error)),
        }
        self.filled
    }

    /// Moves its content to a socket. Returns how many bytes the socket took; 0 if the kernel does not do that with this
    /// socket, or not now.
    pub(super) fn pour(&mut self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        let count = match move_pages(self.reader.as_fd(), socket, self.filled) {
            Err(error) if !is_of_connection(error) => 0,
            result => result?,
        };
        self.filled -= count;
        Ok(count)
    }
}

/// Whether an error is one of the connection, rather than a refusal of splice(2).
fn is_of_connection(error: Errno) -> bool {
    matches!(
        error,
        Errno::CONNRESET
            | Errno::PIPE
            | Errno::TIMEDOUT
            | Errno::CONNABORTED
            | Errno::CONNREFUSED
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::NETDOWN
    )
}

fn move_pages(from: BorrowedFd<'_>, to: BorrowedFd<'_>, count: usize) -> Result<usize, Errno> {
    retry_on_intr(|| splice(from, None, to, None, count, SpliceFlags::NONBLOCK))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write},
        net::{TcpListener, TcpStream},
        os::unix::net::UnixStream,
        thread,
        time::Duration,
    };

    use rustix::net::{RecvFlags, recv};
    use socket2::{SockRef, Socket};

    use super::*;
    use crate::{
        relay::transport::{Loss, Read, ReadBuffer, ReadEnd, Ready, TcpTransport, Transport},
        session::LegEnd,
    };

    /// A read that is for the pipe.
    const SIZE: usize = 100_000;

    /// A connection, and its peer. The window has room for what is sent at once.
    fn connection() -> (TcpTransport, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        SockRef::from(&listener).set_recv_buffer_size(1 << 20).unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_nodelay(true).unwrap();
        (transport(listener.accept().unwrap().0.into()), peer)
    }

    fn unix_connection() -> (TcpTransport, UnixStream) {
        let (ours, peer) = UnixStream::pair().unwrap();
        (transport(OwnedFd::from(ours).into()), peer)
    }

    fn transport(socket: Socket) -> TcpTransport {
        socket.set_nonblocking(true).unwrap();
        TcpTransport::new(socket)
    }

    fn bytes(seed: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        bytes
    }

    /// Waits until this much can be read at once.
    fn wait_for(connection: &TcpTransport, count: usize) {
        let mut buffer = vec![0; count];
        while recv(connection, &mut buffer[..], RecvFlags::PEEK).map_or(0, |(_, there)| there) < count {
            thread::yield_now();
        }
    }

    /// Sends so much to a connection, and waits until it is there.
    fn send(connection: &TcpTransport, peer: &mut impl Write, count: usize) -> Vec<u8> {
        let sent = bytes(count as u64, count);
        peer.write_all(&sent).unwrap();
        wait_for(connection, count);
        sent
    }

    /// Reads once: how many bytes, and whether any of them are in the pipe.
    fn read(connection: &mut TcpTransport, buffer: &mut ReadBuffer) -> (usize, bool) {
        let Read { data, end } = connection.read(buffer, ReadBuffer::SIZE);
        assert_eq!(end, None);
        (data.bytes.len(), data.pipe.is_some())
    }

    /// Sends so much, and reads once.
    fn send_and_read(
        connection: &mut TcpTransport,
        peer: &mut impl Write,
        buffer: &mut ReadBuffer,
        count: usize,
    ) -> (usize, bool) {
        send(connection, peer, count);
        read(connection, buffer)
    }

    /// A connection that is peeked at next.
    fn warm_connection(buffer: &mut ReadBuffer) -> (TcpTransport, TcpStream) {
        let (mut connection, mut peer) = connection();
        assert_eq!(send_and_read(&mut connection, &mut peer, buffer, SIZE), (SIZE, false));
        assert!(!buffer.has_pipe(), "one large read alone does not use the pipe");
        (connection, peer)
    }

    fn receive(peer: &mut impl io::Read, count: usize) -> Vec<u8> {
        let mut received = vec![0; count];
        peer.read_exact(&mut received).unwrap();
        received
    }

    /// Passes eight reads on. Returns how many bytes went through the pipe.
    fn pass_on(
        from: &mut TcpTransport,
        sender: &mut impl Write,
        to: &mut TcpTransport,
        receiver: &mut impl io::Read,
    ) -> usize {
        let mut buffer = ReadBuffer::new();
        let mut through_pipe = 0;
        for _ in 0..8 {
            let sent = send(from, sender, SIZE);
            let Read { data, .. } = from.read(&mut buffer, ReadBuffer::SIZE);
            let count = data.bytes.len();
            assert!(data.bytes == &sent[..count]);
            through_pipe += data.pipe.as_ref().map_or(0, |pipe| pipe.filled);
            assert_eq!(to.write(data).accepted, count);
            assert!(receive(receiver, count) == sent[..count]);
            while from.can_read() && !from.read(&mut buffer, ReadBuffer::SIZE).data.bytes.is_empty() {}
            buffer.empty_pipe();
        }
        through_pipe
    }

    #[test]
    fn large_reads_pass_through_the_pipe() {
        let ((mut from, mut sender), (mut to, mut receiver)) = (connection(), connection());
        assert_eq!(pass_on(&mut from, &mut sender, &mut to, &mut receiver), 7 * SIZE);
        assert_eq!(to.take_committed(), 8 * SIZE);
    }

    #[test]
    fn unix_sockets_use_the_pipe_too() {
        let ((mut from, mut sender), (mut to, mut receiver)) = (connection(), unix_connection());
        assert_eq!(pass_on(&mut from, &mut sender, &mut to, &mut receiver), 7 * SIZE);
        let ((mut from, mut sender), (mut to, mut receiver)) = (unix_connection(), connection());
        assert!(pass_on(&mut from, &mut sender, &mut to, &mut receiver) > 0);
    }

    #[test]
    fn reads_of_other_sizes_are_copied() {
        let buffer = &mut ReadBuffer::new();
        let (mut connection, mut peer) = warm_connection(buffer);
        for count in [1, SPLICED.start() - 1] {
            assert_eq!(send_and_read(&mut connection, &mut peer, buffer, count), (count, false));
            assert!(!buffer.has_pipe());
        }
        for (count, is_spliced) in [(*SPLICED.start(), false), (*SPLICED.start(), true), (*SPLICED.end(), true)] {
            assert_eq!(send_and_read(&mut connection, &mut peer, buffer, count), (count, is_spliced));
            buffer.empty_pipe();
        }
        let above = SPLICED.end() + 1;
        assert_eq!(send_and_read(&mut connection, &mut peer, buffer, above), (above, false));
        for _ in 0..PAUSE {
            assert_eq!(send_and_read(&mut connection, &mut peer, buffer, SIZE), (SIZE, false));
            assert!(!buffer.has_pipe(), "a connection at which too much waited is left alone for a while");
        }
        assert_eq!(send_and_read(&mut connection, &mut peer, buffer, SIZE), (SIZE, true));
    }

    /// Sends each piece as a segment of its own, and none next to another in memory.
    fn send_in_pieces(peer: &mut TcpStream, bytes: &[u8], size: usize) {
        let (_other, mut elsewhere) = connection();
        for piece in bytes.chunks(size) {
            peer.write_all(piece).unwrap();
            elsewhere.write_all(&[0]).unwrap();
        }
    }

    #[test]
    fn bytes_beyond_the_pipe_are_read_later() {
        let buffer = &mut ReadBuffer::new();
        let (mut connection, mut peer) = warm_connection(buffer);
        let sent = bytes(1, SIZE);
        send_in_pieces(&mut peer, &sent, 50);
        wait_for(&connection, SIZE);
        let data = connection.read(buffer, ReadBuffer::SIZE).data;
        let count = data.bytes.len();
        assert!(count < SIZE, "{count}");
        assert_eq!(data.pipe.unwrap().filled, count);
        assert!(data.bytes == &sent[..count]);
        assert!(connection.can_read());
        buffer.empty_pipe();
        assert!(connection.read(buffer, ReadBuffer::SIZE).data.bytes == &sent[count..]);
        assert!(!buffer.has_pipe() && !connection.can_read());
    }

    #[test]
    fn slow_reader_remainder_is_in_the_buffer() {
        let buffer = &mut ReadBuffer::new();
        let ((mut from, mut sender), (mut to, mut receiver)) = (warm_connection(buffer), connection());
        let mut passed = Vec::new();
        loop {
            let sent = send(&from, &mut sender, SIZE);
            let data = from.read(buffer, ReadBuffer::SIZE).data;
            assert!(data.bytes == sent && data.pipe.is_some());
            let written = to.write(data);
            assert_eq!(written.loss, None);
            passed.extend_from_slice(&sent[..written.accepted]);
            assert_eq!(buffer.empty_pipe(), written.accepted < SIZE);
            if written.accepted < SIZE {
                break;
            }
        }
        assert!(!buffer.has_pipe(), "the rest left the pipe");
        drop(to);
        let mut arrived = Vec::new();
        receiver.read_to_end(&mut arrived).unwrap();
        assert!(arrived == passed);
    }

    /// The kernel pours 16 pieces at a time. The first ones draw an RST, because nobody is there.
    #[test]
    fn error_behind_the_first_pieces_is_reported() {
        for has_hung_up in [true, false] {
            let buffer = &mut ReadBuffer::new();
            let ((mut from, mut sender), (mut to, receiver)) = (warm_connection(buffer), connection());
            send_in_pieces(&mut sender, &bytes(1, SIZE), 2000);
            wait_for(&from, SIZE);
            drop(receiver);
            to.on_ready(Ready { hung_up: has_hung_up, ..Ready::default() });
            let data = from.read(buffer, ReadBuffer::SIZE).data;
            assert!(data.bytes.len() == SIZE && data.pipe.is_some());
            let written = to.write(data);
            assert!((1..SIZE).contains(&written.accepted));
            assert_eq!(written.loss, Some(Loss { end: LegEnd::Reset, behind_fin: has_hung_up }));
        }
    }

    /// Peeking sees the bytes behind an urgent byte, but splice(2) does not move them.
    #[test]
    fn error_of_filling_the_pipe_is_kept() {
        let buffer = &mut ReadBuffer::new();
        let (mut from, mut sender) = warm_connection(buffer);
        SockRef::from(&sender).send_out_of_band(&[1]).unwrap();
        sender.write_all(&bytes(1, SIZE)).unwrap();
        wait_for(&from, SIZE);
        SockRef::from(&sender).set_linger(Some(Duration::ZERO)).unwrap();
        drop(sender);
        let Read { data, end } = from.read(buffer, ReadBuffer::SIZE);
        assert_eq!(data.bytes.len(), SIZE);
        assert_eq!(end, Some(ReadEnd::Lost(Loss { end: LegEnd::Reset, behind_fin: false })));
    }

    #[test]
    fn error_of_the_pipe_ends_no_other_leg() {
        let buffer = &mut ReadBuffer::new();
        buffer.set_pipe(Pipe { error: Some(Errno::CONNRESET), ..Pipe::new().unwrap() });
        let (mut at_its_end, peer) = connection();
        drop(peer);
        assert_eq!(end_of(&mut at_its_end, buffer), LegEnd::Reset);
        let (mut other, mut sender) = connection();
        assert_eq!(send_and_read(&mut other, &mut sender, buffer, SIZE), (SIZE, false));
    }

    /// Reads until the connection has ended.
    fn end_of(connection: &mut TcpTransport, buffer: &mut ReadBuffer) -> LegEnd {
        loop {
            match connection.read(buffer, ReadBuffer::SIZE).end {
                Some(ReadEnd::Ended(end)) => return end,
                Some(ReadEnd::Lost(loss)) => panic!("{loss:?}"),
                None => thread::yield_now(),
            }
        }
    }

    #[test]
    fn end_found_while_peeking_is_reported() {
        let buffer = &mut ReadBuffer::new();
        let (mut connection, _peer) = warm_connection(buffer);
        assert_eq!(read(&mut connection, buffer), (0, false));
        assert!(!connection.can_read());

        let (mut connection, peer) = warm_connection(buffer);
        Socket::from(peer).set_linger(Some(Duration::ZERO)).unwrap();
        assert_eq!(end_of(&mut connection, buffer), LegEnd::Reset);

        let (mut connection, peer) = warm_connection(buffer);
        drop(peer);
        assert_eq!(end_of(&mut connection, buffer), LegEnd::Fin);
    }
}
