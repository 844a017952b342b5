//! The data plane: bytes move between the two legs of each session, and every ending is reported.
//!
//! One thread for each core, each with its own sessions. `worker` is the loop, `sessions` its schedule, a `driver` one
//! session with its two connections, a `leg` one connection behind a `transport`. The [`session`](crate::session) core,
//! which has no I/O, decides what bytes, ends and time mean.

mod accounting;
mod backlog;
mod commands;
mod driver;
mod leg;
mod liveness;
mod session_table;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod timerfd;
mod transport;
mod worker;

use std::{
    io,
    sync::{Arc, Mutex, atomic::Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};

pub use self::{
    accounting::SessionGuard,
    commands::{CloseSome, DrainPlan, NewSession},
};

use self::{
    backlog::Budget,
    commands::{CommandQueue, ThreadCommand, lock},
    worker::Worker,
};

/// The settings that hold for all sessions of the process.
#[derive(Debug, Clone, Copy)]
pub struct RelayOptions {
    /// Relay threads.
    pub workers: usize,
    /// Bytes held for slow readers in all; above, blocked directions are read in small pieces.
    pub buffer_total_bytes: u64,
    /// How long data may stay unacknowledged before its link is dead. `None`: as long as the kernel tries.
    pub dead_link_timeout: Option<Duration>,
}

/// The threads of the data plane.
#[derive(Debug)]
pub struct Relay {
    budget: Arc<Budget>,
    queues: Vec<Arc<CommandQueue>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Relay {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// If the kernel has no epoll instance or no thread to give.
    pub fn start(options: RelayOptions) -> io::Result<Self> {
        let budget = Arc::new(Budget::new(options.buffer_total_bytes));
        let mut queues = Vec::with_capacity(options.workers);
        let mut threads = Vec::with_capacity(options.workers);
        for index in 0..options.workers {
            let worker = Worker::new(index, Arc::clone(&budget), options.dead_link_timeout)?;
            queues.push(worker.commands());
            threads.push(thread::Builder::new().name(format!("relay-{index}")).spawn(move || worker.run())?);
        }
        Ok(Self { budget, queues, threads: Mutex::new(threads) })
    }

    /// Changes how many bytes may be held for slow readers in all.
    pub fn reconfigure(&self, buffer_total_bytes: u64) {
        self.budget.set_limit(buffer_total_bytes);
    }

    /// Hands a session to the thread that has the fewest.
    pub fn hand_over(&self, session: NewSession) {
        let least = self.queues.iter().min_by_key(|queue| queue.sessions.load(Ordering::Relaxed));
        if let Some(queue) = least {
            queue.sessions.fetch_add(1, Ordering::Relaxed);
            queue.push(ThreadCommand::Adopt(Box::new(session)));
        }
    }

    /// How many sessions are open, or on their way to a thread. The ends of all others are reported.
    pub fn sessions(&self) -> usize {
        self.queues.iter().map(|queue| queue.sessions.load(Ordering::Acquire)).sum()
    }

    /// Closes every session, including those still to come.
    pub fn drain(&self, plan: &DrainPlan) {
        // Each thread spreads its own sessions: the threads take turns.
        for (index, queue) in self.queues.iter().enumerate() {
            let offset = index as f64 / self.queues.len() as f64;
            queue.push(ThreadCommand::Drain(plan.clone(), offset));
        }
    }

    /// Closes some sessions of one thread, and calls `answer` with how many. The threads are numbered from 0.
    pub fn close_some(&self, worker: usize, order: CloseSome, answer: impl FnOnce(usize) + Send + 'static) {
        if let Some(queue) = self.queues.get(worker) {
            queue.push(ThreadCommand::CloseSome(order, Box::new(answer)));
        }
    }

    /// How many threads there are.
    pub fn workers(&self) -> usize {
        self.queues.len()
    }

    /// Terminates the sessions that are left, reports them, and ends the threads.
    pub fn stop(&self) {
        for queue in &self.queues {
            queue.push(ThreadCommand::Stop);
        }
        for thread in lock(&self.threads).drain(..) {
            // A thread that panicked has logged it, and its sessions were reported when they were dropped.
            let _ = thread.join();
        }
    }
}
