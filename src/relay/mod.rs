//! The data plane: bytes move between the two legs of each session, and every ending is told.
//!
//! One thread a core, each with its own sessions: `worker` is the loop, a `pair` one session with its sockets, a `leg`
//! one connection. What a session does about bytes, ends and time is [`session`]'s, which has no I/O.

mod accounting;
mod alarm;
mod context;
mod inbox;
mod intake;
mod lane;
mod leg;
mod pair;
pub mod policy;
pub mod session;
mod tcp;
mod worker;

use std::{
    io,
    sync::{Arc, Mutex, atomic::Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};

pub use accounting::SessionGuard;
pub use inbox::{CloseSome, Drain, NewSession};
pub use lane::{Held, LegEnd, Passage};
pub use policy::Policy;

use self::{
    context::Budget,
    inbox::{Inbox, Order, lock},
    worker::Worker,
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
        let budget = Arc::new(Budget::new(options.buffer_total_bytes));
        let mut inboxes = Vec::with_capacity(options.workers);
        let mut threads = Vec::with_capacity(options.workers);
        for index in 0..options.workers {
            let worker = Worker::new(index, Arc::clone(&budget), options.patience)?;
            inboxes.push(worker.inbox());
            threads.push(thread::Builder::new().name(format!("relay-{index}")).spawn(move || worker.run())?);
        }
        Ok(Self { budget, inboxes, threads: Mutex::new(threads) })
    }

    /// Changes how many bytes may be held for slow readers in all.
    pub fn reconfigure(&self, buffer_total_bytes: u64) {
        self.budget.set_limit(buffer_total_bytes);
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
