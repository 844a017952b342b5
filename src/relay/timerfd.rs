//! The timer that wakes a relay thread.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use mio::{Interest, Registry, Token, unix::SourceFd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// A timer in the thread's epoll instance. With a timeout for each wait instead, the kernel would arm and disarm a timer
/// for each message. This timer is touched only if a deadline comes before the one it is set to.
#[derive(Debug)]
pub(super) struct TimerFd {
    fd: OwnedFd,
    set_to: Option<Instant>,
}

impl TimerFd {
    /// A timer that is not set, and that the registry's `Poll` reports with `token`.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { fd, set_to: None })
    }

    /// Makes sure that the timer expires at this time or before.
    pub(super) fn set(&mut self, at: Instant) -> io::Result<()> {
        if self.set_to.is_none_or(|set_to| at < set_to) {
            // A time of zero would disarm it.
            let wait = at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
            let it_value = Timespec::try_from(wait).map_err(io::Error::other)?;
            let once = Itimerspec { it_interval: Timespec::default(), it_value };
            timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
            self.set_to = Some(at);
        }
        Ok(())
    }

    /// The timer expired: it is not set any more. It need not be read, because setting it again makes a new edge.
    pub(super) fn expired(&mut self) {
        self.set_to = None;
    }
}
