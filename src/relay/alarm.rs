//! What wakes a worker for its next timer.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use mio::{Interest, Registry, Token, unix::SourceFd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// A timer in the worker's epoll instance. The other way, a timeout for each wait, makes the kernel arm a timer and
/// disarm it for each message; this one is touched only where a time is to be kept that comes before the one it is set
/// to.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: OwnedFd,
    set_to: Option<Instant>,
}

impl Alarm {
    /// An alarm that is not set, and that the registry's `Poll` reports by `token`.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { timer, set_to: None })
    }

    /// Sees to it that it goes off at this time, or before.
    pub(super) fn set(&mut self, at: Instant) -> io::Result<()> {
        if self.set_to.is_none_or(|set_to| at < set_to) {
            // A time of zero would disarm it.
            let wait = at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
            let it_value = Timespec::try_from(wait).map_err(io::Error::other)?;
            let once = Itimerspec { it_interval: Timespec::default(), it_value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
            self.set_to = Some(at);
        }
        Ok(())
    }

    /// It went off: it is not set any more. (It need not be read: setting it again makes a new edge.)
    pub(super) fn went_off(&mut self) {
        self.set_to = None;
    }
}
