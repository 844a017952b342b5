//! Commands to a relay thread, and the queue through which they reach it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use mio::Waker;
use socket2::Socket;

use super::{accounting::SessionGuard, driver::ScheduledDrain};
use crate::{
    admission::ConnectionPermit,
    session::Policy,
    websocket::{PerEndpoint, close_code::CloseText, conformance::Extensions},
};

/// A session whose opening handshake is complete, on its way to a relay thread.
#[derive(Debug)]
pub struct NewSession {
    /// Both connections.
    pub sockets: PerEndpoint<Socket>,
    /// Bytes that each endpoint sent directly after its part of the handshake.
    pub early: PerEndpoint<Vec<u8>>,
    /// The timers and limits of the route.
    pub policy: Arc<Policy>,
    /// The negotiated extensions.
    pub extensions: Extensions,
    /// When the 101 was sent.
    pub opened: Instant,
    /// Counts the session and records its end.
    pub guard: SessionGuard,
    /// The permit of the client connection.
    pub permit: ConnectionPermit,
}

/// Closes all sessions with the same Close frame.
#[derive(Debug, Clone)]
pub struct DrainPlan {
    /// The Close frame.
    pub text: CloseText,
    /// When it begins.
    pub start: Instant,
    /// The time over which the Close frames are spread.
    pub spread: Duration,
    /// When the sessions that are left are terminated.
    pub cut_at: Instant,
}

impl DrainPlan {
    /// The drain of the session that is closed at this time.
    pub(super) fn scheduled_at(&self, at: Instant) -> ScheduledDrain {
        ScheduledDrain { at, text: self.text.clone(), cut_at: self.cut_at }
    }
}

/// Closes some sessions because an operator asked for it.
#[derive(Debug, Clone)]
pub struct CloseSome {
    /// The Close frame.
    pub text: CloseText,
    /// Only sessions of this route.
    pub route: Option<String>,
    /// At most this many.
    pub count: usize,
}

/// A command to a relay thread.
pub(super) enum ThreadCommand {
    Adopt(Box<NewSession>),
    /// The number is how much later than the start the first session is closed, as a part of the step between two.
    Drain(DrainPlan, f64),
    CloseSome(CloseSome, Box<dyn FnOnce(usize) + Send>),
    Stop,
}

/// The commands that wait for a relay thread, and how many sessions it has.
pub(super) struct CommandQueue {
    commands: Mutex<Vec<ThreadCommand>>,
    waker: Waker,
    /// Sessions that are open, or on their way to the thread.
    pub(super) sessions: Arc<AtomicUsize>,
}

impl fmt::Debug for CommandQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandQueue").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}

impl CommandQueue {
    pub(super) fn new(waker: Waker) -> Self {
        Self { commands: Mutex::default(), waker, sessions: Arc::default() }
    }

    pub(super) fn push(&self, command: ThreadCommand) {
        let mut commands = lock(&self.commands);
        let is_first = commands.is_empty();
        commands.push(command);
        drop(commands);
        // The first command has woken the thread for the others.
        if is_first && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake a relay thread");
        }
    }

    pub(super) fn take(&self) -> Vec<ThreadCommand> {
        std::mem::take(&mut *lock(&self.commands))
    }
}

/// A panic elsewhere leaves these values whole: each changes in one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
