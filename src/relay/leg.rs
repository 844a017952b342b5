//! One connection of a session: its socket, what the kernel said of it last, and what waits to be written to it.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use socket2::Socket;

use super::{lane::LegEnd, tcp::TcpInfo};

/// One connection. A leg that nothing waits for owns no buffer.
#[derive(Debug)]
pub(super) struct Leg {
    socket: Socket,
    /// The kernel may have something to read. Kept while nobody reads, since no new edge would come.
    pub(super) readable: bool,
    /// The kernel has seen a FIN or an RST: a short read does not mean that all was read.
    pub(super) hung_up: bool,
    /// How a write found the leg dead, until its reading side is drained and its end told.
    pub(super) broken: Option<LegEnd>,
    /// What the kernel did not take.
    pub(super) spill: Option<Box<Spill>>,
    /// The last write was short: the reader is slow.
    pub(super) was_blocked: bool,
    /// When to ask the kernel whether what was written is acknowledged. See [`Leg::liveness`].
    pub(super) check_at: Option<Instant>,
}

/// Bytes that wait for a slow reader.
#[derive(Debug)]
pub(super) struct Spill {
    bytes: Vec<u8>,
    written: usize,
    /// Since when they wait, as far as it was told to the metrics.
    pub(super) since: Instant,
}

impl Spill {
    pub(super) fn new(bytes: &[u8], now: Instant) -> Self {
        Self { bytes: bytes.to_vec(), written: 0, since: now }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn advance(&mut self, written: usize) {
        self.written += written;
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.written..]
    }
}

/// Whether data that waits for an acknowledgement means that the link is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Liveness {
    /// Nothing waits.
    Settled,
    /// Something waits, but the peer was heard of: ask again after this time.
    Waiting(Duration),
    /// Nothing was heard for the whole time.
    Dead,
}

impl Leg {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, readable: false, hung_up: false, broken: None, spill: None, was_blocked: false, check_at: None }
    }

    /// One `recv`, restarted where a signal interrupts it.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| (&self.socket).read(buffer))
    }

    /// One `send`, restarted where a signal interrupts it. What is not taken at once is 0 bytes, not an error.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match uninterrupted(|| (&self.socket).write(bytes)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    /// Sends FIN. A leg that is already gone needs none.
    pub(super) fn finish(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Makes the close of the socket send RST.
    pub(super) fn reset_on_close(&self) {
        // Without effect on a Unix socket, which has no RST.
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }

    /// Reads what is left, so that closing the socket does not make the kernel send RST to a healthy peer.
    pub(super) fn drain(&self, buffer: &mut [u8]) {
        const ENOUGH: usize = 4 << 20;
        let mut drained = 0;
        while drained < ENOUGH {
            match self.read(buffer) {
                Ok(count) if count > 0 => drained += count,
                Ok(_) | Err(_) => return,
            }
        }
    }

    pub(super) fn tcp_info(&self) -> Option<TcpInfo> {
        TcpInfo::of(self.socket.as_fd())
    }

    /// Judges the link after data was written `patience` ago or earlier.
    ///
    /// Retransmissions go unanswered when the link is dead, but a live peer whose window is closed answers the probes
    /// of it; `TCP_USER_TIMEOUT` would kill both.
    pub(super) fn liveness(&self, patience: Duration) -> Liveness {
        let Some(info) = self.tcp_info() else { return Liveness::Settled };
        if info.all_acknowledged() {
            return Liveness::Settled;
        }
        let unanswered = info.unacknowledged > 0 || info.unanswered_probes > 1;
        match patience.checked_sub(info.since_last_ack) {
            None | Some(Duration::ZERO) if unanswered => Liveness::Dead,
            None | Some(Duration::ZERO) => Liveness::Waiting(patience / 8),
            Some(rest) => Liveness::Waiting(rest),
        }
    }
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// How a leg ended, by the error that a read or a write of it met.
pub(super) fn end_of(error: &io::Error) -> LegEnd {
    match error.kind() {
        io::ErrorKind::TimedOut => LegEnd::Timeout,
        // Also what an ICMP message said: the kernel keeps that, and where nothing better is heard before its own
        // timeout it tells it in place of the timeout. A refusal is "port unreachable" then, never an RST.
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::PermissionDenied => LegEnd::Unreachable,
        // An RST after the peer's FIN is EPIPE; any other error leaves as little of the connection.
        _ => LegEnd::Reset,
    }
}
