//! One connection of a session: its socket, what the kernel said of it last, and what waits to be written to it.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use socket2::Socket;

use super::{
    lane::LegEnd,
    tcp::{TcpInfo, limit_backoff},
};

/// One connection. A leg that nothing waits for owns no buffer.
#[derive(Debug)]
pub(super) struct Leg {
    socket: Socket,
    /// The kernel may have something to read. Kept while nobody reads, since no new edge would come.
    pub(super) readable: bool,
    /// The kernel has seen a FIN or an RST: a short read does not mean that all was read.
    pub(super) hung_up: bool,
    /// The leg was found dead other than by reading it, which is not yet told.
    pub(super) broken: Option<Broken>,
    /// What the kernel did not take.
    pub(super) spill: Option<Box<Spill>>,
    /// The last write was short: the reader is slow.
    pub(super) was_blocked: bool,
    /// When to ask the kernel whether what was written is acknowledged. See [`Leg::liveness`].
    pub(super) check_at: Option<Instant>,
    stall: Option<Stall>,
}

/// How a leg was found dead, while what its endpoint sent before is still to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Broken {
    pub(super) end: LegEnd,
    /// When that is given up, since the other endpoint does not take it.
    pub(super) give_up_at: Option<Instant>,
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

/// Data that waits for the peer, and did not get further since.
#[derive(Debug, Clone, Copy)]
struct Stall {
    since: Instant,
    /// It is on its way, rather than held back by a closed window.
    in_flight: bool,
    /// As they were then.
    acknowledged_bytes: u64,
    retransmits: u32,
}

/// Whether data that waits for an acknowledgement means that the link is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Liveness {
    /// Nothing waits.
    Settled,
    /// Something waits.
    Waiting,
    /// The link is dead, and this is what the kernel knows of it.
    Dead(LegEnd),
}

impl Leg {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket,
            readable: false,
            hung_up: false,
            broken: None,
            spill: None,
            was_blocked: false,
            check_at: None,
            stall: None,
        }
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

    /// How the leg ended, where the kernel knows of an error. It tells that only once, and of a leg that still lives it
    /// tells what routers said of it.
    pub(super) fn take_error(&self) -> Option<LegEnd> {
        self.socket.take_error().ok().flatten().map(|error| end_of(&error))
    }

    /// Looks whether what was written gets through. To be asked again every [`look_interval`] while it does not.
    ///
    /// Data that the peer has room for must be acknowledged within `patience`. A peer whose window is closed may leave
    /// data waiting for ever, but answers the kernel's probes of the window; a `TCP_USER_TIMEOUT` would end both. What
    /// routers said of a link is no proof, so it ends nothing; but where the link is dead, it says why.
    pub(super) fn liveness(&mut self, patience: Duration, now: Instant) -> Liveness {
        let Some(info) = self.tcp_info().filter(|info| !info.all_acknowledged()) else {
            self.stall = None;
            return Liveness::Settled;
        };
        let stall = self.stall.take_if(|stall| !stall.has_moved(&info, now)).unwrap_or_else(|| Stall::new(&info, now));
        if stall.is_final(&info, patience, now) {
            return Liveness::Dead(self.take_error().unwrap_or(LegEnd::Timeout));
        }
        // A link that comes back must be noticed before the patience ends, and a dead peer with a closed window too.
        limit_backoff(self.socket.as_fd(), look_interval(patience));
        self.stall = Some(stall);
        Liveness::Waiting
    }
}

/// How often to look whether data gets through that must within `patience`.
pub(super) fn look_interval(patience: Duration) -> Duration {
    patience / 8
}

impl Stall {
    fn new(info: &TcpInfo, now: Instant) -> Self {
        Self {
            since: now,
            in_flight: info.awaits_acknowledgement(),
            acknowledged_bytes: info.acknowledged_bytes,
            retransmits: info.retransmits,
        }
    }

    /// Whether the peer has shown since that it is there.
    fn has_moved(&self, info: &TcpInfo, now: Instant) -> bool {
        if self.in_flight != info.awaits_acknowledgement() {
            return true;
        }
        if self.in_flight {
            // An acknowledgement of nothing new is no progress: what we send gets lost.
            self.acknowledged_bytes != info.acknowledged_bytes
        } else {
            info.since_last_ack < now.saturating_duration_since(self.since)
        }
    }

    /// Whether nothing that the peer could have answered was answered for the whole `patience`. A closed window is
    /// probed seldom once it has been closed for long, and one probe can get lost.
    fn is_final(&self, info: &TcpInfo, patience: Duration, now: Instant) -> bool {
        // Data that was on its way when the window closed is sent again instead of a probe.
        let probes = info.retransmits.wrapping_sub(self.retransmits).max(info.unanswered_probes.into());
        now.saturating_duration_since(self.since) >= patience && (self.in_flight || probes > 1)
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
