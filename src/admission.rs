//! How many client connections there are, in all and of each address, and how many there may be.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::metrics::{ActiveConnection, Metrics, RejectReason};

/// Descriptors that are not connections: listeners, epoll instances, pipes, the log, scrapes, resolver sockets.
/// Where few files may be open, a quarter of those.
const RESERVED_DESCRIPTORS: u64 = 256;

/// How many client connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In all; `None`: as many as the limit of open files allows.
    pub connections: Option<usize>,
    /// Of each address; `None`: no such limit.
    pub connections_per_ip: Option<usize>,
}

/// Counts connections against the limits.
#[derive(Debug)]
pub struct Admission {
    metrics: Arc<Metrics>,
    limit: AtomicUsize,
    limit_per_ip: AtomicUsize,
    taken: Arc<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: AtomicUsize,
    by_ip: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place, from its accept to its end. Dropping it makes room for another.
#[derive(Debug)]
pub struct ConnectionPermit {
    _active: ActiveConnection,
    taken: Arc<Taken>,
    /// Where addresses are counted.
    ip: Option<IpAddr>,
}

impl Admission {
    /// Nobody has a place yet.
    pub fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        let (limit, limit_per_ip) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
        let admission = Self { metrics, limit, limit_per_ip, taken: Arc::default() };
        admission.reconfigure(limits);
        admission
    }

    /// Takes over other limits, for the connections to come.
    pub fn reconfigure(&self, limits: Limits) {
        // Raised also for a number that was chosen: it would be out of reach else.
        let open_files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
        let limit = limits.connections.unwrap_or_else(|| connections_within(open_files));
        self.limit.store(limit, Ordering::Relaxed);
        self.limit_per_ip.store(limits.connections_per_ip.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Counts an accepted connection, and gives it a place if there is one. It is to be closed at once if not.
    pub fn admit(&self) -> Option<ConnectionPermit> {
        let active = self.metrics.connection_accepted();
        // Taken first and then judged: a place that is refused gives itself back.
        let taken = self.taken.all.fetch_add(1, Ordering::Relaxed);
        let place = ConnectionPermit { _active: active, taken: Arc::clone(&self.taken), ip: None };
        self.judge(taken < self.limit.load(Ordering::Relaxed)).then_some(place)
    }

    /// Counts a connection with those of its client's address, once that is known, and says whether it may stay.
    #[must_use = "a connection that may not stay is to be closed at once"]
    pub fn admit_client(&self, place: &mut ConnectionPermit, ip: IpAddr) -> bool {
        let limit_per_ip = self.limit_per_ip.load(Ordering::Relaxed);
        if limit_per_ip == usize::MAX {
            return true;
        }
        let ip = ip.to_canonical();
        place.ip = Some(ip);
        self.judge(self.taken.add(ip) < limit_per_ip)
    }

    fn judge(&self, has_room: bool) -> bool {
        if !has_room {
            self.metrics.connection_rejected(RejectReason::Limit);
        }
        has_room
    }
}

impl Taken {
    /// Counts one more connection of an address, and says how many there were.
    fn add(&self, ip: IpAddr) -> usize {
        let mut by_ip = self.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_ip.entry(ip).or_insert(0);
        *count += 1;
        *count - 1
    }

    fn remove(&self, ip: IpAddr) {
        let mut by_ip = self.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_ip.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                by_ip.remove(&ip);
            }
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.taken.all.fetch_sub(1, Ordering::Relaxed);
        if let Some(ip) = self.ip {
            self.taken.remove(ip);
        }
    }
}

/// Two descriptors a session, of what the process may open.
fn connections_within(open_files: u64) -> usize {
    let reserved = RESERVED_DESCRIPTORS.min(open_files / 4);
    usize::try_from((open_files - reserved) / 2).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_what_is_not_put_aside() {
        let cases = [(0, 1), (64, 24), (256, 96), (266, 100), (1023, 384), (1024, 384), (1026, 385), (65536, 32640)];
        for (open_files, connections) in cases {
            assert_eq!(connections_within(open_files), connections, "{open_files}");
        }
    }
}
