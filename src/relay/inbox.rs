//! What a worker is asked to do, and how that reaches its thread.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use mio::Waker;
use socket2::Socket;

use super::{accounting::SessionGuard, policy::Policy};
use crate::{
    admission::ConnectionPermit,
    websocket::{PerEndpoint, close_code::CloseText, conformance::Extensions},
};

/// A session whose opening handshake is over, on its way to a worker.
#[derive(Debug)]
pub struct NewSession {
    /// Both connections.
    pub sockets: PerEndpoint<Socket>,
    /// What each endpoint sent right behind its part of the handshake.
    pub early: PerEndpoint<Vec<u8>>,
    /// What the route demands.
    pub policy: Arc<Policy>,
    /// The agreed extensions.
    pub extensions: Extensions,
    /// When the 101 was sent.
    pub opened: Instant,
    /// Its place in the counts.
    pub ticket: SessionGuard,
    /// Its place among the client connections.
    pub place: ConnectionPermit,
}

/// Closes all sessions with the same Close frame.
#[derive(Debug, Clone)]
pub struct Drain {
    /// The Close frame.
    pub text: CloseText,
    /// When it begins.
    pub start: Instant,
    /// Over how long the Close frames are spread.
    pub spread: Duration,
    /// When what is left is cut.
    pub cut_at: Instant,
}

/// Which sessions an operator wants closed, and how.
#[derive(Debug, Clone)]
pub struct CloseSome {
    /// The Close frame.
    pub text: CloseText,
    /// Only sessions of this route.
    pub route: Option<String>,
    /// At most so many.
    pub count: usize,
}

/// What a worker is asked to do.
pub(super) enum Order {
    Adopt(Box<NewSession>),
    /// The second is how much later than the start the first session is closed, in steps from one to the next.
    Drain(Drain, f64),
    CloseSome(CloseSome, Box<dyn FnOnce(usize) + Send>),
    Stop,
}

/// A worker's post box, and how many sessions it has.
pub(super) struct Inbox {
    orders: Mutex<Vec<Order>>,
    waker: Waker,
    pub(super) sessions: AtomicUsize,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}

impl Inbox {
    pub(super) fn new(waker: Waker) -> Self {
        Self { orders: Mutex::default(), waker, sessions: AtomicUsize::new(0) }
    }

    pub(super) fn push(&self, order: Order) {
        let mut orders = lock(&self.orders);
        let is_first = orders.is_empty();
        orders.push(order);
        drop(orders);
        // Whoever pushed the first one has woken the worker for all of them.
        if is_first && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a relay thread could not be woken");
        }
    }

    pub(super) fn take(&self) -> Vec<Order> {
        std::mem::take(&mut *lock(&self.orders))
    }
}

/// A panic elsewhere leaves these values whole: each is changed in one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
