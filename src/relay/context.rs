//! What the sessions of a thread share, and the budget that all threads share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// What the sessions of a thread share.
pub(super) struct Context {
    /// The worker's number.
    pub(super) index: usize,
    /// When the last wait ended: one reading of the clock for all that became ready together.
    pub(super) now: Instant,
    pub(super) budget: Arc<Budget>,
    /// How long data may stay unacknowledged.
    pub(super) patience: Option<Duration>,
    /// How many legs have a spill.
    pub(super) blocked: usize,
    random: fastrand::Rng,
}

impl Context {
    pub(super) fn new(index: usize, budget: Arc<Budget>, patience: Option<Duration>) -> Self {
        let (now, random) = (Instant::now(), fastrand::Rng::new());
        Self { index, now, budget, patience, blocked: 0, random }
    }

    pub(super) fn random(&mut self) -> u64 {
        self.random.u64(..)
    }
}

/// What the whole process holds for slow readers.
#[derive(Debug)]
pub(super) struct Budget {
    limit: AtomicU64,
    held: AtomicI64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit: AtomicU64::new(limit), held: AtomicI64::new(0) }
    }

    pub(super) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub(super) fn add(&self, bytes: i64) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn is_exceeded(&self) -> bool {
        self.held.load(Ordering::Relaxed).max(0).cast_unsigned() > self.limit.load(Ordering::Relaxed)
    }
}
