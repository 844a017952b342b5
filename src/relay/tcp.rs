//! What the kernel knows of a TCP connection (`TCP_INFO`), which no kept crate wraps.

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

/// A TCP connection as the kernel sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TcpInfo {
    /// The smoothed round-trip time.
    pub(super) rtt: Duration,
    /// Segments sent again, in the life of the connection.
    pub(super) retransmits: u32,
    /// Segments sent and not yet acknowledged.
    pub(super) unacknowledged: u32,
    /// Bytes accepted from us and not yet sent.
    pub(super) unsent_bytes: u32,
    /// Bytes acknowledged, in the life of the connection.
    pub(super) acknowledged_bytes: u64,
    /// How many bytes the peer's window has room for. Before Linux 5.4 always 0.
    pub(super) window: u32,
    /// Probes of a closed window that were sent since the last answer.
    pub(super) unanswered_probes: u8,
    /// Since the last acknowledgement arrived.
    pub(super) since_last_ack: Duration,
}

impl TcpInfo {
    /// Asks the kernel; `None` where the socket is no TCP socket.
    pub(super) fn of(socket: BorrowedFd<'_>) -> Option<Self> {
        let raw = raw_tcp_info(socket)?;
        Some(Self {
            rtt: Duration::from_micros(raw.rtt.into()),
            retransmits: raw.total_retrans,
            unacknowledged: raw.unacked,
            unsent_bytes: raw.notsent_bytes,
            acknowledged_bytes: raw.bytes_acked,
            window: raw.snd_wnd,
            unanswered_probes: raw.probes,
            since_last_ack: Duration::from_millis(raw.last_ack_recv.into()),
        })
    }

    /// Whether the peer has acknowledged every byte that the kernel took from us.
    pub(super) fn all_acknowledged(&self) -> bool {
        self.unacknowledged == 0 && self.unsent_bytes == 0
    }

    /// Whether data is on its way that the peer has room for: if it lives, it acknowledges it.
    pub(super) fn awaits_acknowledgement(&self) -> bool {
        self.unacknowledged > 0 && self.window > 0
    }
}

/// Of Linux's `include/uapi/linux/tcp.h`. It takes 1 s to 120 s.
const TCP_RTO_MAX_MS: libc::c_int = 44;

/// Lets the kernel wait no longer than this, at least a second, between two attempts to get data through. By itself it
/// doubles the wait up to two minutes. Without effect before Linux 6.15.
#[expect(unsafe_code, reason = "an option that std and socket2 do not know")]
pub(super) fn limit_backoff(socket: BorrowedFd<'_>, limit: Duration) {
    let limit = limit.clamp(Duration::from_secs(1), Duration::from_mins(2));
    let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).to_ne_bytes();
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel reads the four bytes it is told of.
    // The result says whether the kernel has the option: without it, all goes on as it always has.
    let _ = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_RTO_MAX_MS,
            milliseconds.as_ptr().cast::<libc::c_void>(),
            4,
        )
    };
}

/// `struct tcp_info` of Linux's `include/uapi/linux/tcp.h`, as far as Linux 5.4 has it. An older kernel leaves what it
/// does not know at 0.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawTcpInfo {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    backoff: u8,
    options: u8,
    window_scales: u8,
    rate_flags: u8,
    rto: u32,
    ato: u32,
    snd_mss: u32,
    rcv_mss: u32,
    unacked: u32,
    sacked: u32,
    lost: u32,
    retrans: u32,
    fackets: u32,
    last_data_sent: u32,
    last_ack_sent: u32,
    last_data_recv: u32,
    last_ack_recv: u32,
    pmtu: u32,
    rcv_ssthresh: u32,
    rtt: u32,
    rttvar: u32,
    snd_ssthresh: u32,
    snd_cwnd: u32,
    advmss: u32,
    reordering: u32,
    rcv_rtt: u32,
    rcv_space: u32,
    total_retrans: u32,
    pacing_rate: u64,
    max_pacing_rate: u64,
    bytes_acked: u64,
    bytes_received: u64,
    segs_out: u32,
    segs_in: u32,
    notsent_bytes: u32,
    min_rtt: u32,
    data_segs_in: u32,
    data_segs_out: u32,
    delivery_rate: u64,
    busy_time: u64,
    rwnd_limited: u64,
    sndbuf_limited: u64,
    delivered: u32,
    delivered_ce: u32,
    bytes_sent: u64,
    bytes_retrans: u64,
    dsack_dups: u32,
    reord_seen: u32,
    rcv_ooopack: u32,
    snd_wnd: u32,
}

#[expect(unsafe_code, reason = "a system call that std, socket2 and mio do not wrap")]
fn raw_tcp_info(socket: BorrowedFd<'_>) -> Option<RawTcpInfo> {
    let mut info = RawTcpInfo::default();
    let mut length = libc::socklen_t::try_from(size_of::<RawTcpInfo>()).ok()?;
    // SAFETY: the descriptor is open for as long as it is borrowed. `info` is plain old data of which any bytes are a
    // value, and the kernel writes at most `length` bytes to it.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast::<libc::c_void>(),
            &raw mut length,
        )
    };
    (result == 0).then_some(info)
}
