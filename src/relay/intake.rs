//! Where a thread reads to: a buffer in which bytes are looked at, and a pipe through which many of them pass.
//!
//! # Design
//!
//! What is looked at must be copied out of the kernel; what is passed on need not be copied back. Where much waits in a
//! socket, `recv` with `MSG_PEEK` copies it to the buffer and leaves it there, and two calls of splice(2) move it, page by
//! page, into the pipe and on to the other socket: two system calls more, one copy less. Nothing stays in the pipe from
//! one reading to the next: where not all of it passes, or the reader takes a part only, the rest goes on from the buffer,
//! as ever, and the pipe is thrown away.
//!
//! It pays where a reading is large, and the pages are well filled. A connection is peeked at once a reading was large,
//! and left alone for [`PAUSE`] such readings where that was of no use: much more waits, the pipe had not room for all, or
//! not all went out of it. The pipe's room (64 pieces, where a page has 4 KiB) bounds what a sender can make the kernel
//! keep: one byte may hold a page, or several.
//!
//! Where splice(2) is forbidden, or not to be had for this kind of socket, all goes by the buffer. A sender on the same
//! host that sends pages of a file, or gives its own away (sendfile(2), vmsplice(2)), can change what passes after it was
//! looked at.
//!
//! Left out: to move without a look what a header has announced (four system calls a frame, which at 16 KiB should cost
//! about as much as the copies); to duplicate the pipe by tee(2) and read nothing but headers (two for each frame); a pipe smaller than
//! a reading, filled and emptied several times (twice the time, under BBR); a pipe for each session, which
//! could wait for a slow reader (two descriptors more for each).

use std::{
    io,
    ops::RangeInclusive,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::{Errno, retry_on_intr},
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};

/// How many bytes go through the pipe. With fewer, pieces of less than a KiB could fill it, each of which may hold a page,
/// and from 32 KiB downward little is gained. Of more, a congestion control that spreads what it sends
/// (BBR) arms a timer for each segment but the first few: then copying them is the cheaper way to pass the time.
pub(super) const FOR_PIPE: RangeInclusive<usize> = 64 * 1024..=144 * 1024;

/// The pipe's size: it has room for as many pieces as this takes pages. What a socket holds begins and ends within pages.
const PIPE: usize = 256 * 1024;

/// For how many readings of its size the pipe is left alone where it was of no use.
pub(super) const PAUSE: u8 = 64;

/// Where readings go. Nothing stays from one to the next.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) bytes: Box<[u8]>,
    /// Made when it is needed first: most sidecars never see a large reading.
    pipe: Option<Pipe>,
}

impl Intake {
    /// Large messages pass in few system calls.
    pub(super) const SIZE: usize = 256 * 1024;

    pub(super) fn new() -> Self {
        Self { bytes: vec![0; Self::SIZE].into_boxed_slice(), pipe: None }
    }

    /// Moves `count` bytes, which were peeked at, from a socket to the pipe. Says how many it could, 0 included.
    pub(super) fn fill_pipe(&mut self, socket: BorrowedFd<'_>, count: usize) -> usize {
        if self.pipe.is_none() {
            self.pipe = Pipe::new().ok();
        }
        self.pipe.as_mut().map_or(0, |pipe| pipe.fill(socket, count))
    }

    /// What was just read, and the pipe where that has to do with it.
    pub(super) fn contents(&mut self, count: usize) -> (&[u8], Option<&mut Pipe>) {
        (&self.bytes[..count], self.pipe.as_mut().filter(|pipe| !pipe.is_idle()))
    }

    /// What filling the pipe told of the connection.
    pub(super) fn take_error(&mut self) -> Option<Errno> {
        self.pipe.as_mut()?.take_error()
    }

    /// Parts with a pipe whose bytes went another way.
    pub(super) fn empty_pipe(&mut self) {
        self.pipe.take_if(|pipe| !pipe.is_idle());
    }
}

#[derive(Debug)]
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    filled: usize,
    /// What filling it told of the connection. The kernel tells that once only, and may have bytes that came before.
    error: Option<Errno>,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused to a user who has very many pipes: the usual size would not do.
        fcntl_setpipe_size(&writer, PIPE)?;
        Ok(Self { reader, writer, filled: 0, error: None })
    }

    /// Nothing is in it, and it knows of no error.
    pub(super) fn is_idle(&self) -> bool {
        self.filled == 0 && self.error.is_none()
    }

    /// Whether it holds these bytes, all of them.
    pub(super) fn holds(&self, bytes: &[u8]) -> bool {
        self.filled == bytes.len()
    }

    pub(super) fn take_error(&mut self) -> Option<Errno> {
        self.error.take()
    }

    fn fill(&mut self, socket: BorrowedFd<'_>, count: usize) -> usize {
        match move_pages(socket, self.writer.as_fd(), count) {
            Ok(moved) => self.filled = moved,
            Err(error) => self.error = Some(error).filter(|error| is_of_connection(*error)),
        }
        self.filled
    }

    /// Moves what it holds to a socket. Says how much of it that took, or 0 where the kernel does not do that with this
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

/// Whether an error tells of a connection, rather than that splice(2) is not to be had.
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
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        os::unix::net::UnixStream,
        thread,
        time::Duration,
    };

    use rustix::net::{RecvFlags, recv};
    use socket2::{SockRef, Socket};

    use super::*;
    use crate::relay::leg::Leg;

    /// One that is for the pipe.
    const SIZE: usize = 100_000;

    /// A leg, and its peer. The window has room for what is sent at once.
    fn leg() -> (Leg, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        SockRef::from(&listener).set_recv_buffer_size(1 << 20).unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_nodelay(true).unwrap();
        (leg_of(listener.accept().unwrap().0.into()), peer)
    }

    fn unix_leg() -> (Leg, UnixStream) {
        let (ours, peer) = UnixStream::pair().unwrap();
        (leg_of(OwnedFd::from(ours).into()), peer)
    }

    fn leg_of(socket: Socket) -> Leg {
        socket.set_nonblocking(true).unwrap();
        Leg::new(socket)
    }

    fn bytes(seed: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        bytes
    }

    /// Waits until this much can be read at once.
    fn wait_for(leg: &Leg, count: usize) {
        let mut buffer = vec![0; count];
        while recv(leg, &mut buffer[..], RecvFlags::PEEK).map_or(0, |(_, there)| there) < count {
            thread::yield_now();
        }
    }

    /// Sends so much to a leg, and reads once.
    fn read(leg: &mut Leg, peer: &mut impl Write, intake: &mut Intake, count: usize) -> (usize, Vec<u8>) {
        let sent = bytes(count as u64, count);
        peer.write_all(&sent).unwrap();
        wait_for(leg, count);
        (leg.read(intake, Intake::SIZE).unwrap(), sent)
    }

    /// A leg that is to be peeked at next.
    fn warm_leg(intake: &mut Intake) -> (Leg, TcpStream) {
        let (mut leg, mut peer) = leg();
        assert_eq!(read(&mut leg, &mut peer, intake, SIZE).0, SIZE);
        assert!(intake.pipe.is_none(), "one large reading alone does not use the pipe");
        (leg, peer)
    }

    fn receive(peer: &mut impl Read, count: usize) -> Vec<u8> {
        let mut received = vec![0; count];
        peer.read_exact(&mut received).unwrap();
        received
    }

    /// Passes on eight readings. Says how much went through the pipe.
    fn pass_on(from: &mut Leg, sender: &mut impl Write, to: &Leg, receiver: &mut impl Read) -> usize {
        let mut intake = Intake::new();
        let mut through_pipe = 0;
        for _ in 0..8 {
            let (count, sent) = read(from, sender, &mut intake, SIZE);
            let (bytes, pipe) = intake.contents(count);
            assert!(bytes == &sent[..count]);
            through_pipe += pipe.as_ref().map_or(0, |pipe| pipe.filled);
            let taken = pipe.map_or_else(|| to.write(bytes), |pipe| to.pour(pipe, bytes).0);
            assert_eq!(taken.unwrap(), count);
            assert!(receive(receiver, count) == sent[..count]);
            while count < SIZE && from.read(&mut intake, Intake::SIZE).is_ok_and(|count| count > 0) {}
            intake.empty_pipe();
        }
        through_pipe
    }

    #[test]
    fn large_readings_pass_through_the_pipe() {
        let ((mut from, mut sender), (to, mut receiver)) = (leg(), leg());
        assert_eq!(pass_on(&mut from, &mut sender, &to, &mut receiver), 7 * SIZE);
    }

    #[test]
    fn from_and_to_unix_sockets_they_pass_too() {
        let ((mut from, mut sender), (to, mut receiver)) = (leg(), unix_leg());
        assert_eq!(pass_on(&mut from, &mut sender, &to, &mut receiver), 7 * SIZE);
        let ((mut from, mut sender), (to, mut receiver)) = (unix_leg(), leg());
        assert!(pass_on(&mut from, &mut sender, &to, &mut receiver) > 0);
    }

    #[test]
    fn readings_of_other_sizes_are_copied() {
        let intake = &mut Intake::new();
        let (mut leg, mut peer) = warm_leg(intake);
        for count in [1, FOR_PIPE.start() - 1] {
            assert_eq!(read(&mut leg, &mut peer, intake, count).0, count);
            assert!(intake.pipe.is_none());
        }
        for (count, is_for_pipe) in [(*FOR_PIPE.start(), false), (*FOR_PIPE.start(), true), (*FOR_PIPE.end(), true)] {
            assert_eq!(read(&mut leg, &mut peer, intake, count).0, count);
            assert_eq!(intake.contents(count).1.is_some(), is_for_pipe, "{count}");
            intake.empty_pipe();
        }
        assert_eq!(read(&mut leg, &mut peer, intake, FOR_PIPE.end() + 1).0, FOR_PIPE.end() + 1);
        for _ in 0..PAUSE {
            assert_eq!(read(&mut leg, &mut peer, intake, SIZE).0, SIZE);
            assert!(intake.pipe.is_none(), "a leg at which too much waited is left alone for a while");
        }
        assert_eq!(read(&mut leg, &mut peer, intake, SIZE).0, SIZE);
        assert!(intake.pipe.is_some());
    }

    /// Each a segment of its own, and none next to the other in memory.
    fn send_in_pieces(peer: &mut TcpStream, bytes: &[u8], size: usize) {
        let (_other, mut elsewhere) = leg();
        for piece in bytes.chunks(size) {
            peer.write_all(piece).unwrap();
            elsewhere.write_all(&[0]).unwrap();
        }
    }

    #[test]
    fn what_the_pipe_has_no_room_for_is_read_later() {
        let intake = &mut Intake::new();
        let (mut leg, mut peer) = warm_leg(intake);
        let sent = bytes(1, SIZE);
        send_in_pieces(&mut peer, &sent, 50);
        wait_for(&leg, SIZE);
        let count = leg.read(intake, Intake::SIZE).unwrap();
        assert!(count < SIZE && leg.readable, "{count}");
        assert_eq!(intake.contents(count).1.unwrap().filled, count);
        assert!(intake.bytes[..count] == sent[..count]);
        intake.empty_pipe();
        assert_eq!(leg.read(intake, Intake::SIZE).unwrap(), SIZE - count);
        assert!(intake.bytes[..SIZE - count] == sent[count..]);
        assert!(intake.pipe.is_none() && !leg.readable);
    }

    #[test]
    fn of_what_a_slow_reader_does_not_take_the_rest_is_in_the_buffer() {
        let intake = &mut Intake::new();
        let ((mut from, mut sender), (to, mut receiver)) = (warm_leg(intake), leg());
        let mut passed = Vec::new();
        loop {
            let (count, sent) = read(&mut from, &mut sender, intake, SIZE);
            let (bytes, pipe) = intake.contents(count);
            assert!(bytes == sent);
            let (taken, error) = to.pour(pipe.unwrap(), bytes);
            let taken = taken.unwrap();
            assert!(error.is_none());
            passed.extend_from_slice(&sent[..taken]);
            intake.empty_pipe();
            if taken < count {
                break;
            }
        }
        assert!(intake.pipe.is_none(), "what was not taken left the pipe");
        drop(to);
        let mut arrived = Vec::new();
        receiver.read_to_end(&mut arrived).unwrap();
        assert!(arrived == passed);
    }

    /// The kernel pours 16 pieces at a time. The first draw an RST, as nobody is there.
    #[test]
    fn an_error_behind_the_first_pieces_is_told_behind_what_went_out() {
        for (sent_fin, kind) in [(true, io::ErrorKind::BrokenPipe), (false, io::ErrorKind::ConnectionReset)] {
            let intake = &mut Intake::new();
            let ((mut from, mut sender), (mut to, receiver)) = (warm_leg(intake), leg());
            send_in_pieces(&mut sender, &bytes(1, SIZE), 2000);
            wait_for(&from, SIZE);
            drop(receiver);
            to.hung_up = sent_fin;
            assert_eq!(from.read(intake, Intake::SIZE).unwrap(), SIZE);
            let (bytes, pipe) = intake.contents(SIZE);
            let (taken, error) = to.pour(pipe.unwrap(), bytes);
            assert!((1..SIZE).contains(&taken.unwrap()));
            assert_eq!(error.unwrap().kind(), kind);
        }
    }

    /// An urgent byte is peeked beyond, but not moved.
    #[test]
    fn an_error_that_filling_the_pipe_met_is_kept() {
        let intake = &mut Intake::new();
        let (mut from, mut sender) = warm_leg(intake);
        SockRef::from(&sender).send_out_of_band(&[1]).unwrap();
        sender.write_all(&bytes(1, SIZE)).unwrap();
        wait_for(&from, SIZE);
        SockRef::from(&sender).set_linger(Some(Duration::ZERO)).unwrap();
        drop(sender);
        assert_eq!(from.read(intake, Intake::SIZE).unwrap(), SIZE);
        assert_eq!(intake.contents(SIZE).1.unwrap().take_error(), Some(Errno::CONNRESET));
    }

    #[test]
    fn an_error_of_the_pipe_is_no_other_legs() {
        let intake = &mut Intake::new();
        intake.pipe = Some(Pipe { error: Some(Errno::CONNRESET), ..Pipe::new().unwrap() });
        let (mut at_its_end, peer) = leg();
        drop(peer);
        assert_eq!(at_its_end.read(intake, Intake::SIZE).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let (mut other, mut sender) = leg();
        assert_eq!(read(&mut other, &mut sender, intake, SIZE).0, SIZE);
        assert!(intake.contents(SIZE).1.is_none());
    }

    /// Reads until the leg has ended.
    fn end_of(leg: &mut Leg, intake: &mut Intake) -> io::Result<usize> {
        loop {
            match leg.read(intake, Intake::SIZE) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
                end => return end,
            }
        }
    }

    #[test]
    fn an_end_found_while_peeking_is_told_as_it_was() {
        let intake = &mut Intake::new();
        let (mut leg, _peer) = warm_leg(intake);
        assert_eq!(leg.read(intake, Intake::SIZE).unwrap_err().kind(), io::ErrorKind::WouldBlock);

        let (mut leg, peer) = warm_leg(intake);
        Socket::from(peer).set_linger(Some(Duration::ZERO)).unwrap();
        assert_eq!(end_of(&mut leg, intake).unwrap_err().kind(), io::ErrorKind::ConnectionReset);

        let (mut leg, peer) = warm_leg(intake);
        drop(peer);
        assert_eq!(end_of(&mut leg, intake).unwrap(), 0);
    }
}
