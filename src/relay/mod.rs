//! The data plane: bytes move between the two legs of each session, and every ending is told.
//!
//! One thread a core, each with its own sessions: `worker` is the loop, a `pair` one session with its sockets, a `leg`
//! one connection. What a session does about bytes, ends and time is [`session`]'s, which has no I/O.

mod alarm;
mod lane;
mod leg;
mod pair;
pub mod policy;
pub mod session;
mod tcp;
mod ticket;
mod worker;

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mio::Waker;
use socket2::Socket;

pub use lane::{Held, LegEnd, Passage, Sent};
pub use policy::{CloseText, Policy};
pub use ticket::{About, Ticket};

use crate::{
    admission::Place,
    websocket::{PerEndpoint, conformance::Extensions},
};

/// What holds for all sessions of the process.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Data-plane threads.
    pub workers: usize,
    /// Bytes held for slow readers in all; beyond, blocked directions are read in small pieces.
    pub buffer_total_bytes: u64,
    /// How long data may stay unacknowledged before its link is dead. `None`: as long as the kernel tries.
    pub patience: Option<Duration>,
}

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
    pub ticket: Ticket,
    /// Its place among the client connections.
    pub place: Place,
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

/// The data plane's threads.
#[derive(Debug)]
pub struct Relay {
    budget: Arc<Budget>,
    inboxes: Vec<Arc<Inbox>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Relay {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// Where the kernel has no epoll instance or no thread to give.
    pub fn start(options: Options) -> io::Result<Self> {
        let budget = Arc::new(Budget { limit: AtomicU64::new(options.buffer_total_bytes), held: AtomicI64::new(0) });
        let mut inboxes = Vec::with_capacity(options.workers);
        let mut threads = Vec::with_capacity(options.workers);
        for index in 0..options.workers {
            let worker = worker::Worker::new(index, Arc::clone(&budget), options.patience)?;
            inboxes.push(worker.inbox());
            threads.push(thread::Builder::new().name(format!("relay-{index}")).spawn(move || worker.run())?);
        }
        Ok(Self { budget, inboxes, threads: Mutex::new(threads) })
    }

    /// Changes how many bytes may be held for slow readers in all.
    pub fn reconfigure(&self, buffer_total_bytes: u64) {
        self.budget.limit.store(buffer_total_bytes, Ordering::Relaxed);
    }

    /// Hands a session to the worker that has the fewest.
    pub fn hand_over(&self, session: NewSession) {
        let least = self.inboxes.iter().min_by_key(|inbox| inbox.sessions.load(Ordering::Relaxed));
        if let Some(inbox) = least {
            inbox.sessions.fetch_add(1, Ordering::Relaxed);
            inbox.push(Order::Adopt(Box::new(session)));
        }
    }

    /// How many sessions are open, or on their way to a worker. Of those that are not, the ends are told.
    pub fn sessions(&self) -> usize {
        self.inboxes.iter().map(|inbox| inbox.sessions.load(Ordering::Acquire)).sum()
    }

    /// Closes every session, also those still to come.
    pub fn drain(&self, drain: &Drain) {
        // Each worker spreads its own sessions: they take turns.
        for (index, inbox) in self.inboxes.iter().enumerate() {
            let offset = index as f64 / self.inboxes.len() as f64;
            inbox.push(Order::Drain(drain.clone(), offset));
        }
    }

    /// Closes some sessions of one worker, and answers with how many. The workers are numbered from 0.
    pub fn close_some(&self, worker: usize, order: CloseSome, answer: impl FnOnce(usize) + Send + 'static) {
        if let Some(inbox) = self.inboxes.get(worker) {
            inbox.push(Order::CloseSome(order, Box::new(answer)));
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.inboxes.len()
    }

    /// Cuts what is left, tells it, and ends the threads.
    pub fn stop(&self) {
        for inbox in &self.inboxes {
            inbox.push(Order::Stop);
        }
        for thread in lock(&self.threads).drain(..) {
            // A thread that panicked has said so, and its sessions were told as they were dropped.
            let _ = thread.join();
        }
    }
}

/// What a worker is asked to do.
enum Order {
    Adopt(Box<NewSession>),
    /// The second is how much later than the start the first session is closed, in steps from one to the next.
    Drain(Drain, f64),
    CloseSome(CloseSome, Box<dyn FnOnce(usize) + Send>),
    Stop,
}

/// A worker's post box, and how many sessions it has.
struct Inbox {
    orders: Mutex<Vec<Order>>,
    waker: Waker,
    sessions: AtomicUsize,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}

impl Inbox {
    fn push(&self, order: Order) {
        let mut orders = lock(&self.orders);
        let is_first = orders.is_empty();
        orders.push(order);
        drop(orders);
        // Whoever pushed the first one has woken the worker for all of them.
        if is_first && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a relay thread could not be woken");
        }
    }

    fn take(&self) -> Vec<Order> {
        std::mem::take(&mut *lock(&self.orders))
    }
}

/// What the whole process holds for slow readers.
#[derive(Debug)]
struct Budget {
    limit: AtomicU64,
    held: AtomicI64,
}

impl Budget {
    fn add(&self, bytes: i64) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    fn is_exceeded(&self) -> bool {
        self.held.load(Ordering::Relaxed).max(0).cast_unsigned() > self.limit.load(Ordering::Relaxed)
    }
}

/// A panic elsewhere leaves these values whole: each is changed in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
