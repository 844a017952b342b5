//! Bytes that wait for slow readers, and their accounts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};

use crate::{metrics::Traffic, websocket::Endpoint};

/// How long a reader must have been slow before its sender is read on, as far as there is room.
///
/// The sender's Close frame may come there, and it must be seen in time. But nearly every reader takes the rest at once:
/// reading on for those would copy most of a large message once more.
const READ_ON_AFTER: Duration = Duration::from_millis(500);

/// The bytes that the process holds for slow readers, over all threads.
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

    pub(super) fn is_exceeded(&self) -> bool {
        self.held.load(Ordering::Relaxed).max(0).cast_unsigned() > self.limit.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: i64) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Where the bytes of a backlog are counted: in the process's budget, in the thread's number of backlogs, and in the
/// traffic of the endpoint that sent them.
#[derive(Debug, Clone)]
pub(super) struct Accounts {
    pub(super) budget: Arc<Budget>,
    /// How many backlogs the thread has.
    pub(super) backlogs: Arc<AtomicUsize>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) sender: Endpoint,
}

/// The bytes of one sender that wait for a slow reader. However it is dropped, its accounts are settled.
#[derive(Debug)]
pub(super) struct Backlog {
    bytes: BytesMut,
    accounts: Accounts,
    /// Until when the waiting time is counted.
    counted_until: Instant,
    /// Until when the sender is not read.
    read_on_at: Option<Instant>,
}

impl Backlog {
    pub(super) fn new(bytes: &[u8], accounts: Accounts, now: Instant) -> Self {
        accounts.backlogs.fetch_add(1, Ordering::Relaxed);
        let read_on_at = Some(now + READ_ON_AFTER);
        let mut backlog = Self { bytes: BytesMut::new(), accounts, counted_until: now, read_on_at };
        backlog.push(bytes);
        backlog
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.count(signed(bytes.len()));
    }

    /// The connection accepted `count` bytes.
    pub(super) fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.count(-signed(count));
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Counts the time that the bytes have waited so far.
    pub(super) fn count_wait(&mut self, now: Instant) {
        let waited = now.saturating_duration_since(self.counted_until);
        self.counted_until = now;
        self.accounts.traffic[self.accounts.sender].write_blocked(waited);
    }

    /// The time from which on the sender is read again; `None` if that has passed.
    pub(super) fn read_on_at(&self) -> Option<Instant> {
        self.read_on_at
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.read_on_at.take_if(|at| *at <= now);
    }

    fn count(&self, bytes: i64) {
        self.accounts.budget.add(bytes);
        self.accounts.traffic[self.accounts.sender].buffered(bytes);
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.count(-signed(self.bytes.len()));
        self.accounts.backlogs.fetch_sub(1, Ordering::Relaxed);
    }
}

/// No buffer comes near the bound.
fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            budget: Arc::new(Budget::new(5)),
            backlogs: Arc::default(),
            traffic: Arc::new(Traffic::alone()),
            sender: Endpoint::Client,
        }
    }

    #[test]
    fn backlog_settles_its_accounts_when_dropped() {
        let accounts = accounts();
        let mut backlog = Backlog::new(b"hello", accounts.clone(), Instant::now());
        assert_eq!(accounts.backlogs.load(Ordering::Relaxed), 1);
        assert!(!accounts.budget.is_exceeded());
        backlog.push(b" world");
        backlog.advance(2);
        assert!(accounts.budget.is_exceeded());
        assert_eq!(backlog.as_slice(), b"llo world");
        assert_eq!(accounts.traffic[Endpoint::Client].bytes_buffered(), 9);
        drop(backlog);
        assert_eq!(accounts.backlogs.load(Ordering::Relaxed), 0);
        assert_eq!(accounts.budget.held.load(Ordering::Relaxed), 0);
        assert_eq!(accounts.traffic[Endpoint::Client].bytes_buffered(), 0);
    }

    #[test]
    fn sender_is_read_on_when_the_reader_stays_slow() {
        let now = Instant::now();
        let mut backlog = Backlog::new(b"hello", accounts(), now);
        backlog.handle_timeout(now);
        assert_eq!(backlog.read_on_at(), Some(now + READ_ON_AFTER));
        backlog.handle_timeout(now + READ_ON_AFTER);
        assert_eq!(backlog.read_on_at(), None);
    }
}
