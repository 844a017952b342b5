//! The kernel's view of a TCP connection (`TCP_INFO`). No kept crate wraps the call; the struct is linux-raw-sys's.

use std::{
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

use linux_raw_sys::net::tcp_info;

/// A TCP connection as the kernel sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) struct TcpInfo {
    /// The smoothed round-trip time.
    pub(in crate::relay) rtt: Duration,
    /// Segments sent again, in the life of the connection.
    pub(in crate::relay) retransmits: u32,
    /// Segments sent and not yet acknowledged.
    pub(in crate::relay) unacknowledged: u32,
    /// Bytes accepted from us and not yet sent.
    pub(in crate::relay) unsent_bytes: u32,
    /// Bytes acknowledged, in the life of the connection.
    pub(in crate::relay) acknowledged_bytes: u64,
    /// Bytes that the peer's window has room for. Always 0 before Linux 5.4.
    pub(in crate::relay) window: u32,
    /// Probes of a closed window sent since the last answer.
    pub(in crate::relay) unanswered_probes: u8,
    /// Since the last acknowledgement arrived.
    pub(in crate::relay) since_last_ack: Duration,
}

impl TcpInfo {
    /// Asks the kernel; `None` if the socket is not a TCP socket.
    pub(in crate::relay) fn of(socket: BorrowedFd<'_>) -> Option<Self> {
        let raw = raw_tcp_info(socket)?;
        Some(Self {
            rtt: Duration::from_micros(raw.tcpi_rtt.into()),
            retransmits: raw.tcpi_total_retrans,
            unacknowledged: raw.tcpi_unacked,
            unsent_bytes: raw.tcpi_notsent_bytes,
            acknowledged_bytes: raw.tcpi_bytes_acked,
            window: raw.tcpi_snd_wnd,
            unanswered_probes: raw.tcpi_probes,
            since_last_ack: Duration::from_millis(raw.tcpi_last_ack_recv.into()),
        })
    }

    /// Whether the peer has acknowledged every byte that the kernel took from us.
    pub(in crate::relay) fn all_acknowledged(&self) -> bool {
        self.unacknowledged == 0 && self.unsent_bytes == 0
    }

    /// Whether data is in flight that the peer has room for. A live peer acknowledges it.
    pub(in crate::relay) fn awaits_acknowledgement(&self) -> bool {
        self.unacknowledged > 0 && self.window > 0
    }
}

/// From Linux's `include/uapi/linux/tcp.h`, Linux 6.15. Takes 1 s to 120 s.
const TCP_RTO_MAX_MS: libc::c_int = 44;

/// Lets the kernel wait at most this long, and at least a second, between two attempts to get data through. By default it
/// doubles the wait up to two minutes. Without effect before Linux 6.15.
#[expect(unsafe_code, reason = "an option that std and socket2 do not know")]
pub(super) fn limit_backoff(socket: BorrowedFd<'_>, limit: Duration) {
    let limit = limit.clamp(Duration::from_secs(1), Duration::from_mins(2));
    let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).to_ne_bytes();
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel reads the four bytes of `milliseconds`.
    // The result says whether the kernel has the option. Without it, the kernel's own schedule holds.
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

#[expect(unsafe_code, reason = "a system call that std, socket2, rustix and mio do not wrap")]
fn raw_tcp_info(socket: BorrowedFd<'_>) -> Option<tcp_info> {
    let mut info = MaybeUninit::<tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<tcp_info>()).ok()?;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel writes at most `length` bytes to `info`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast::<libc::c_void>(),
            &raw mut length,
        )
    };
    // SAFETY: plain old data of which any bytes are a value. The fields that an older kernel does not know stay 0.
    (result == 0).then(|| unsafe { info.assume_init() })
}
