//! A plain socket: TCP, or a Unix stream.

use std::{
    io,
    net::Shutdown,
    os::fd::{AsFd, BorrowedFd},
    task::Poll,
    time::Duration,
};

use rustix::{
    io::{Errno, retry_on_intr},
    net::{RecvFlags, SendFlags, recv, send},
};
use socket2::Socket;

use super::{
    Data, Loss, Read, ReadBuffer, ReadEnd, Ready, Transport, Written, leg_end,
    splice::{PAUSE, Pipe, SPLICED},
    tcp_info::{TcpInfo, limit_backoff},
};
use crate::session::LegEnd;

/// A socket in non-blocking mode.
#[derive(Debug)]
pub(in crate::relay) struct TcpTransport {
    socket: Socket,
    /// The kernel may have something to read. Kept while nobody reads, because no new edge would come.
    readable: bool,
    /// The kernel has seen a FIN or an RST: a short read does not mean that everything was read.
    hung_up: bool,
    /// After how many more reads of its size the pipe is tried. See [`splice`](super::splice).
    pause: u8,
    committed: usize,
}

impl AsFd for TcpTransport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl TcpTransport {
    pub(in crate::relay) fn new(socket: Socket) -> Self {
        Self { socket, readable: false, hung_up: false, pause: 1, committed: 0 }
    }

    /// Reads, through the pipe if it is time for it. Without it, `Ok(0)` is the end of the stream.
    #[inline]
    fn fill(&mut self, buffer: &mut ReadBuffer, limit: usize) -> Result<usize, Errno> {
        if self.pause == 0 {
            let count = self.fill_through_pipe(buffer, limit)?;
            if count > 0 {
                return Ok(count);
            }
        }
        let count = self.receive(&mut buffer.bytes[..limit], RecvFlags::empty())?;
        if SPLICED.contains(&count) {
            self.pause = self.pause.saturating_sub(1);
        }
        // A short read has emptied the socket, unless its end comes behind.
        self.readable = count == limit || self.hung_up;
        Ok(count)
    }

    /// Returns 0 if nothing was read, because the bytes that wait are not for the pipe.
    #[inline(never)]
    fn fill_through_pipe(&mut self, buffer: &mut ReadBuffer, limit: usize) -> Result<usize, Errno> {
        // One byte more than may pass shows that there is more.
        let limit = limit.min(SPLICED.end() + 1);
        let peeked = self.receive(&mut buffer.bytes[..limit], RecvFlags::PEEK)?;
        if peeked < *SPLICED.start() {
            self.pause = 1;
            return Ok(0);
        }
        let moved = if SPLICED.contains(&peeked) { buffer.fill_pipe(self.as_fd(), peeked) } else { 0 };
        if moved < peeked {
            self.pause_splice();
        }
        self.readable = moved < peeked || peeked == limit || self.hung_up;
        Ok(moved)
    }

    /// One `recv`, restarted if a signal interrupts it.
    #[inline]
    fn receive(&self, buffer: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
        retry_on_intr(|| recv(&self.socket, &mut *buffer, flags)).map(|(_, count)| count)
    }

    /// One `send`, restarted if a signal interrupts it. If the kernel takes nothing now, that is 0 bytes, not an error.
    #[inline]
    fn send(&self, bytes: &[u8]) -> Written {
        match retry_on_intr(|| send(&self.socket, bytes, SendFlags::NOSIGNAL)) {
            Ok(accepted) => Written { accepted, loss: None },
            Err(Errno::AGAIN) => Written::default(),
            Err(error) => Written { accepted: 0, loss: Some(io::Error::from(error).into()) },
        }
    }

    /// Writes these bytes from the pipe that holds them, and the ones that it does not give from the buffer.
    ///
    /// The second write finds errors that the kernel kept to itself, too: it moves 16 pieces at a time, and if it
    /// encounters an error behind the first of them, it returns how much it moved. Afterwards it reports every end as EPIPE.
    #[inline(never)]
    fn pour(&self, pipe: &mut Pipe, bytes: &[u8]) -> Written {
        let poured = match pipe.pour(self.as_fd()) {
            Ok(count) => count,
            Err(error) => return Written { accepted: 0, loss: Some(io::Error::from(error).into()) },
        };
        if poured == bytes.len() {
            return Written { accepted: poured, loss: None };
        }
        let Written { accepted, mut loss } = self.send(&bytes[poured..]);
        if let Some(loss) = &mut loss
            && poured > 0
            && !self.hung_up
        {
            loss.behind_fin = false;
        }
        Written { accepted: poured + accepted, loss }
    }
}

impl Transport for TcpTransport {
    #[inline]
    fn on_ready(&mut self, ready: Ready) -> Option<Loss> {
        self.readable |= ready.readable || ready.error;
        self.hung_up |= ready.hung_up || ready.error;
        // While the other endpoint does not take the bytes that were read, no read would find the error.
        if ready.error { self.take_error().map(Loss::from) } else { None }
    }

    #[inline]
    fn can_read(&self) -> bool {
        self.readable
    }

    fn has_hung_up(&self) -> bool {
        self.hung_up
    }

    #[inline]
    fn read<'b>(&mut self, buffer: &'b mut ReadBuffer, limit: usize) -> Read<'b> {
        let result = self.fill(buffer, limit);
        // An error that filling the pipe encountered is this leg's own. It comes behind the bytes that were peeked at.
        let pipe_error = buffer.take_pipe_error().map(io::Error::from);
        let (count, end) = match (result, pipe_error) {
            (Ok(count @ 1..), pipe_error) => (count, pipe_error.map(|error| ReadEnd::Lost(error.into()))),
            (Ok(_) | Err(_), Some(error)) => (0, Some(ReadEnd::Ended(leg_end(&error)))),
            (Ok(_), None) => (0, Some(ReadEnd::Ended(LegEnd::Fin))),
            (Err(Errno::AGAIN), None) => {
                self.readable = false;
                (0, None)
            }
            (Err(error), None) => (0, Some(ReadEnd::Ended(leg_end(&error.into())))),
        };
        let (bytes, pipe) = buffer.contents(count);
        Read { data: Data { bytes, pipe }, end }
    }

    #[inline]
    fn write(&mut self, data: Data<'_>) -> Written {
        let written = match data.pipe {
            Some(pipe) if pipe.holds(data.bytes) => self.pour(pipe, data.bytes),
            _ => self.send(data.bytes),
        };
        self.committed += written.accepted;
        written
    }

    fn take_committed(&mut self) -> usize {
        std::mem::take(&mut self.committed)
    }

    fn wants_write(&self) -> bool {
        false
    }

    fn flush(&mut self) -> Option<Loss> {
        None
    }

    fn finish(&mut self) -> Poll<()> {
        // A connection that is gone already needs no FIN.
        let _ = self.socket.shutdown(Shutdown::Write);
        Poll::Ready(())
    }

    fn abort(&mut self) {
        // Without effect on a Unix socket, which has no RST.
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }

    fn discard_input(&mut self, buffer: &mut ReadBuffer) {
        const ENOUGH: usize = 4 << 20;
        let mut discarded = 0;
        while discarded < ENOUGH {
            match self.receive(&mut buffer.bytes, RecvFlags::empty()) {
                Ok(count) if count > 0 => discarded += count,
                Ok(_) | Err(_) => return,
            }
        }
    }

    fn tcp_info(&self) -> Option<TcpInfo> {
        TcpInfo::of(self.as_fd())
    }

    fn take_error(&mut self) -> Option<io::Error> {
        self.socket.take_error().ok().flatten()
    }

    fn limit_backoff(&self, interval: Duration) {
        limit_backoff(self.as_fd(), interval);
    }

    fn pause_splice(&mut self) {
        self.pause = PAUSE;
    }
}
