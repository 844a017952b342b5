//! One connection of a session: its socket, what the kernel said of it last, and what waits to be written to it.

use std::{
    io,
    net::Shutdown,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use rustix::{
    io::{Errno, retry_on_intr},
    net::{RecvFlags, SendFlags, recv, send},
};
use socket2::Socket;

use super::{
    intake::{FOR_PIPE, Intake, PAUSE, Pipe},
    lane::LegEnd,
    tcp::{TcpInfo, limit_backoff},
};

/// One connection. A leg that nothing waits for owns no buffer.
///
/// One line of the processor's cache: with many sessions, to fetch their state is most of what closewatch itself adds.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Leg {
    socket: Socket,
    /// The kernel may have something to read. Kept while nobody reads, since no new edge would come.
    pub(super) readable: bool,
    /// The kernel has seen a FIN or an RST: a short read does not mean that all was read.
    pub(super) hung_up: bool,
    /// The last write was short: the reader is slow.
    pub(super) was_blocked: bool,
    /// After how many more readings of its size the pipe is tried. See [`intake`](super::intake).
    pause: u8,
    /// What the kernel did not take.
    pub(super) spill: Option<Box<Spill>>,
    /// When to ask the kernel whether what was written is acknowledged. See [`Leg::liveness`].
    pub(super) check_at: Option<Instant>,
    /// The leg was found dead other than by reading it, which is not yet told.
    pub(super) broken: Option<Broken>,
    stall: Option<Box<Stall>>,
}

const _: () = assert!(size_of::<Leg>() == 64);

/// How a leg was found dead, while what its endpoint sent before is still to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Broken {
    pub(super) end: LegEnd,
    /// A FIN came before, and stands behind what is unread.
    pub(super) behind_fin: bool,
    /// When that is given up, since the other endpoint does not take it.
    pub(super) give_up_at: Option<Instant>,
}

/// Bytes that wait for a slow reader.
#[derive(Debug)]
pub(super) struct Spill {
    bytes: BytesMut,
    /// Since when they wait, as far as it was told to the metrics.
    pub(super) since: Instant,
    /// Until when their sender is not read. See [`READ_ON_AFTER`].
    pub(super) read_on_at: Option<Instant>,
}

/// How long a reader must have been slow before what its sender sends meanwhile is read, as far as there is room.
///
/// A Close frame may stand there, and it is to be seen in time. But nearly every reader takes the rest at once: to read on
/// for those would be to copy most of a large message once more.
const READ_ON_AFTER: Duration = Duration::from_millis(500);

impl Spill {
    pub(super) fn new(bytes: &[u8], now: Instant) -> Self {
        Self { bytes: bytes.into(), since: now, read_on_at: Some(now + READ_ON_AFTER) }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn advance(&mut self, written: usize) {
        self.bytes.advance(written);
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes
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
#[derive(Debug)]
pub(super) enum Liveness {
    /// Nothing waits.
    Settled,
    /// Something waits.
    Waiting,
    /// The link is dead, and this is what the kernel knows of it.
    Dead(io::Error),
}

impl AsFd for Leg {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
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
            pause: 1,
            check_at: None,
            stall: None,
        }
    }

    /// Reads once, up to `limit` bytes: into the intake's buffer, and where they are many into its pipe as well.
    pub(super) fn read(&mut self, intake: &mut Intake, limit: usize) -> io::Result<usize> {
        if self.pause == 0 {
            let count = self.read_through_pipe(intake, limit)?;
            if count > 0 {
                return Ok(count);
            }
        }
        let result = self.receive(&mut intake.bytes[..limit], RecvFlags::empty());
        if !matches!(result, Ok(1..)) {
            // With no byte before it, what the pipe met is the end; and of the next leg that is read it must not be told.
            return Ok(intake.take_error().map_or(result, Err)?);
        }
        let count = result?;
        if FOR_PIPE.contains(&count) {
            self.pause = self.pause.saturating_sub(1);
        }
        // A short read has emptied the socket, unless its end stands behind.
        self.readable = count == limit || self.hung_up;
        Ok(count)
    }

    /// 0 where nothing was read, since it is not for the pipe.
    #[inline(never)]
    fn read_through_pipe(&mut self, intake: &mut Intake, limit: usize) -> io::Result<usize> {
        // One more than may pass tells that there is more.
        let limit = limit.min(FOR_PIPE.end() + 1);
        let peeked = self.receive(&mut intake.bytes[..limit], RecvFlags::PEEK)?;
        if peeked < *FOR_PIPE.start() {
            self.pause = 1;
            return Ok(0);
        }
        let moved = if FOR_PIPE.contains(&peeked) { intake.fill_pipe(self.as_fd(), peeked) } else { 0 };
        if moved < peeked {
            self.pause_pipe();
        }
        self.readable = moved < peeked || peeked == limit || self.hung_up;
        Ok(moved)
    }

    /// Reads without the pipe for a while: it did not pay.
    pub(super) fn pause_pipe(&mut self) {
        self.pause = PAUSE;
    }

    /// One `recv`, restarted where a signal interrupts it.
    fn receive(&self, buffer: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
        retry_on_intr(|| recv(&self.socket, &mut *buffer, flags)).map(|(_, count)| count)
    }

    /// One `send`, restarted where a signal interrupts it. What is not taken at once is 0 bytes, not an error.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match retry_on_intr(|| send(&self.socket, bytes, SendFlags::NOSIGNAL)) {
            Err(Errno::AGAIN) => Ok(0),
            result => Ok(result?),
        }
    }

    /// Writes these bytes, which the pipe holds, and where it does not give them all, the rest of them as ever.
    ///
    /// That finds an error which the kernel kept to itself, too: it moves 16 pieces at a time, and of one that it met
    /// behind the first it says only how much it had moved. What is told afterwards is EPIPE, the same for every end.
    pub(super) fn pour(&self, pipe: &mut Pipe, bytes: &[u8]) -> (io::Result<usize>, Option<io::Error>) {
        let poured = match pipe.pour(self.as_fd()) {
            Ok(count) => count,
            Err(error) => return (Err(error.into()), None),
        };
        if poured == bytes.len() {
            return (Ok(poured), None);
        }
        match self.write(&bytes[poured..]) {
            Ok(count) => (Ok(poured + count), None),
            Err(error) if poured == 0 => (Err(error), None),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && !self.hung_up => {
                (Ok(poured), Some(io::ErrorKind::ConnectionReset.into()))
            }
            Err(error) => (Ok(poured), Some(error)),
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
            match self.receive(buffer, RecvFlags::empty()) {
                Ok(count) if count > 0 => drained += count,
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Until when the sender of what waits for this leg is not read.
    pub(super) fn read_on_at(&self) -> Option<Instant> {
        self.spill.as_ref().and_then(|spill| spill.read_on_at)
    }

    pub(super) fn tcp_info(&self) -> Option<TcpInfo> {
        TcpInfo::of(self.as_fd())
    }

    /// The error that the kernel knows of. It tells that only once, and of a leg that still lives it tells what routers
    /// said of it.
    pub(super) fn take_error(&self) -> Option<io::Error> {
        self.socket.take_error().ok().flatten()
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
        let stall = Stall::at(self.stall.as_deref().copied(), &info, now);
        if stall.is_final(&info, patience, now) {
            return Liveness::Dead(self.take_error().unwrap_or_else(|| io::ErrorKind::TimedOut.into()));
        }
        // A link that comes back must be noticed before the patience ends, and a dead peer with a closed window too.
        limit_backoff(self.as_fd(), look_interval(patience));
        self.stall = Some(Box::new(stall));
        Liveness::Waiting
    }
}

/// How often to look whether data gets through that must within `patience`.
pub(super) fn look_interval(patience: Duration) -> Duration {
    patience / 8
}

impl Stall {
    /// The stall of a link on which something waits: the one that was, or a new one where the link moved since.
    fn at(before: Option<Self>, info: &TcpInfo, now: Instant) -> Self {
        before.filter(|stall| !stall.has_moved(info, now)).unwrap_or(Self {
            since: now,
            in_flight: info.awaits_acknowledgement(),
            acknowledged_bytes: info.acknowledged_bytes,
            retransmits: info.retransmits,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(80);

    /// A connection on which all was acknowledged just now.
    const SETTLED: TcpInfo = TcpInfo {
        rtt: Duration::from_millis(1),
        retransmits: 0,
        unacknowledged: 0,
        unsent_bytes: 0,
        acknowledged_bytes: 1000,
        window: 65_536,
        unanswered_probes: 0,
        since_last_ack: Duration::ZERO,
    };

    /// Data is on its way, and the last acknowledgement came `silence` seconds ago.
    fn in_flight(silence: u64) -> TcpInfo {
        TcpInfo { unacknowledged: 1, since_last_ack: Duration::from_secs(silence), ..SETTLED }
    }

    /// The window is closed, `probes` went unanswered, and the last acknowledgement came `silence` seconds ago.
    fn closed(probes: u8, silence: u64) -> TcpInfo {
        TcpInfo {
            unsent_bytes: 5000,
            window: 0,
            unanswered_probes: probes,
            since_last_ack: Duration::from_secs(silence),
            ..SETTLED
        }
    }

    /// Looks every 10 s for an hour at what is so after so many seconds. Says after how many the link is given up.
    fn given_up_after(info_after: impl Fn(u64) -> TcpInfo) -> Option<u64> {
        let start = Instant::now();
        let mut stall: Option<Stall> = None;
        (0..3600).step_by(10).find(|&seconds| {
            let (info, now) = (info_after(seconds), start + Duration::from_secs(seconds));
            let current = stall.insert(Stall::at(stall, &info, now));
            current.is_final(&info, PATIENCE, now)
        })
    }

    #[test]
    fn data_that_nobody_acknowledges_is_given_up_after_the_patience() {
        assert_eq!(given_up_after(in_flight), Some(80));
        assert_eq!(given_up_after(|seconds| in_flight(seconds + 500)), Some(80));
    }

    /// The peer's own packets arrive and acknowledge what they did before: what we send gets lost.
    #[test]
    fn acknowledgements_of_nothing_new_are_no_progress() {
        assert_eq!(given_up_after(|_| in_flight(0)), Some(80));
    }

    /// Each message is acknowledged, but whenever one looks the next one is on its way.
    #[test]
    fn a_link_with_progress_lives() {
        let progress = |seconds: u64| TcpInfo { acknowledged_bytes: seconds / 70, ..in_flight(seconds % 70) };
        assert_eq!(given_up_after(progress), None);
    }

    #[test]
    fn traffic_that_stops_in_the_middle_is_given_up_a_patience_later() {
        let until_300 =
            |seconds: u64| TcpInfo { acknowledged_bytes: seconds.min(300), ..in_flight(seconds.saturating_sub(300)) };
        assert_eq!(given_up_after(until_300), Some(380));
    }

    /// Two minutes is the longest time that the kernel leaves between two probes.
    #[test]
    fn a_closed_window_whose_probes_are_answered_lives() {
        assert_eq!(given_up_after(|seconds| closed(0, seconds % 120)), None);
    }

    #[test]
    fn one_lost_probe_of_a_closed_window_is_no_death() {
        let one_lost = |seconds: u64| closed(u8::from(seconds % 240 >= 120), seconds % 240);
        assert_eq!(given_up_after(one_lost), None);
    }

    #[test]
    fn a_closed_window_that_answers_no_probes_is_given_up() {
        let seldom = |seconds: u64| closed(u8::try_from(seconds / 120).unwrap(), seconds);
        assert_eq!(given_up_after(seldom), Some(240));
        let often = |seconds: u64| closed(u8::try_from(seconds / 10).unwrap(), seconds);
        assert_eq!(given_up_after(often), Some(80));
    }

    /// Then the kernel sends that data again, seldom, and each time the peer says that its window is closed.
    #[test]
    fn a_window_that_closed_over_data_on_its_way_lives_while_it_answers() {
        let shrunk = |seconds: u64, silence: u64| TcpInfo {
            unacknowledged: 3,
            retransmits: u32::try_from(seconds / 120).unwrap(),
            ..closed(0, silence)
        };
        assert_eq!(given_up_after(|seconds| shrunk(seconds, seconds % 120)), None);
        assert_eq!(given_up_after(|seconds| shrunk(seconds, seconds)), Some(240));
    }

    /// What is sent then is new, however long the window was closed and silent.
    #[test]
    fn a_window_that_opens_gives_data_its_whole_patience() {
        let opens = |seconds: u64| if seconds < 110 { closed(0, seconds) } else { in_flight(seconds - 110) };
        assert_eq!(given_up_after(opens), Some(190));
    }

    #[test]
    fn errors_are_told_as_how_the_leg_ended() {
        for (error, end) in [
            (libc::ECONNRESET, LegEnd::Reset),
            (libc::EPIPE, LegEnd::Reset),
            (libc::ETIMEDOUT, LegEnd::Timeout),
            (libc::EHOSTUNREACH, LegEnd::Unreachable),
            (libc::ENETUNREACH, LegEnd::Unreachable),
            (libc::ENETDOWN, LegEnd::Unreachable),
            (libc::ECONNREFUSED, LegEnd::Unreachable),
            (libc::EACCES, LegEnd::Unreachable),
        ] {
            assert_eq!(end_of(&io::Error::from_raw_os_error(error)), end, "{error}");
        }
    }
}
