//! Caps the open client connections, in all and for each client address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::metrics::{ActiveConnection, Metrics, RejectReason};

/// Descriptors of a client connection: its socket, and one for the server. A lookup of the server's name needs its
/// descriptors only before the server's socket exists.
const DESCRIPTORS_PER_CONNECTION: usize = 2;
/// Descriptors of a relay thread: epoll, its waker, its timer, and both ends of its pipe.
const DESCRIPTORS_PER_WORKER: usize = 5;
/// Descriptors of a listener of the admin, besides its connections: its socket and its reserve.
const DESCRIPTORS_PER_ADMIN_LISTENER: usize = 6;
/// Descriptors that a process at rest has besides listeners and workers (15 were measured), and those that are open for
/// a moment: a file of the configuration, files below /proc for a scrape, a notification to systemd, a connection that is
/// accepted only to be closed.
const OTHER_DESCRIPTORS: usize = 28;
/// The admin serves no more connections on one listener.
const MAX_ADMIN_CONNECTIONS: usize = 128;
/// If few files may be open, a listener of the admin gets one in so many.
const ADMIN_SHARE: usize = 16;

/// How many client connections may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In all; `None`: as many as the limit of open files allows.
    pub connections: Option<usize>,
    /// For each address; `None`: no such limit.
    pub connections_per_ip: Option<usize>,
    /// The other users of file descriptors.
    pub others: OtherDescriptors,
}

/// The users of file descriptors besides client connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherDescriptors {
    /// Relay threads.
    pub workers: usize,
    /// Sockets that listen for clients.
    pub client_listeners: usize,
    /// Sockets that listen for admin connections.
    pub admin_listeners: usize,
}

/// Counts client connections against the limits.
#[derive(Debug)]
pub struct Admission {
    metrics: Arc<Metrics>,
    limit: AtomicUsize,
    limit_per_ip: AtomicUsize,
    open: Arc<AtomicUsize>,
    open_by_ip: Arc<OpenByIp>,
}

/// A client connection's permit to be open, from its accept to its end. Dropping it makes room for another one.
#[derive(Debug)]
pub struct ConnectionPermit {
    _active: ActiveConnection,
    _open: Open,
    address: Option<AddressPermit>,
}

/// One of the open connections.
#[derive(Debug)]
struct Open(Arc<AtomicUsize>);

/// One of the open connections of an address.
#[derive(Debug)]
struct AddressPermit {
    open_by_ip: Arc<OpenByIp>,
    ip: IpAddr,
}

#[derive(Debug, Default)]
struct OpenByIp(Mutex<HashMap<IpAddr, usize>>);

/// The limit of open files, with the soft limit raised to the hard limit.
///
/// The usual soft limit of 1024 is meant for programs that use select(2), which closewatch does not.
pub fn open_file_limit() -> usize {
    // If the limit cannot be raised or read, the usual soft limit is the best guess.
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// How many connections a listener of the admin may have.
pub fn admin_connections(open_files: usize) -> usize {
    (open_files / ADMIN_SHARE).clamp(1, MAX_ADMIN_CONNECTIONS)
}

impl Admission {
    /// No connection is open yet.
    pub fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        let admission = Self {
            metrics,
            limit: AtomicUsize::new(0),
            limit_per_ip: AtomicUsize::new(usize::MAX),
            open: Arc::default(),
            open_by_ip: Arc::default(),
        };
        admission.reconfigure(limits);
        admission
    }

    /// Replaces the limits for new connections. The open ones stay.
    pub fn reconfigure(&self, limits: Limits) {
        // Read in any case, because reading raises the soft limit.
        let open_files = open_file_limit();
        let possible = limits.others.connections_within(open_files);
        if let Some(connections) = limits.connections.filter(|connections| *connections > possible) {
            tracing::warn!(connections, possible, open_files, "limits.connections needs more files than may be open");
        }
        self.limit.store(limits.connections.unwrap_or(possible), Ordering::Relaxed);
        self.limit_per_ip.store(limits.connections_per_ip.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Counts an accepted connection. Without a permit it must be closed at once.
    pub fn admit(&self) -> Option<ConnectionPermit> {
        let active = self.metrics.connection_accepted();
        // Counted before it is judged: a permit that is dropped right away takes its count back.
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let permit = ConnectionPermit { _active: active, _open: Open(Arc::clone(&self.open)), address: None };
        self.judge(open < self.limit.load(Ordering::Relaxed)).then_some(permit)
    }

    /// Counts a connection for its client's address once that is known, instead of an address that was counted before.
    #[must_use = "a connection above the limit must be closed at once"]
    pub fn admit_client(&self, permit: &mut ConnectionPermit, ip: IpAddr) -> bool {
        let limit_per_ip = self.limit_per_ip.load(Ordering::Relaxed);
        if limit_per_ip == usize::MAX {
            return true;
        }
        drop(permit.address.take());
        let (address, open) = AddressPermit::new(&self.open_by_ip, ip.to_canonical());
        permit.address = Some(address);
        self.judge(open <= limit_per_ip)
    }

    fn judge(&self, has_room: bool) -> bool {
        if !has_room {
            self.metrics.connection_rejected(RejectReason::Limit);
        }
        has_room
    }
}

impl OtherDescriptors {
    fn connections_within(self, open_files: usize) -> usize {
        let reserved = OTHER_DESCRIPTORS
            + self.workers * DESCRIPTORS_PER_WORKER
            + self.client_listeners
            + self.admin_listeners * (DESCRIPTORS_PER_ADMIN_LISTENER + admin_connections(open_files));
        (open_files.saturating_sub(reserved) / DESCRIPTORS_PER_CONNECTION).max(1)
    }
}

impl AddressPermit {
    /// Counts one more connection of an address, and returns the new count.
    fn new(open_by_ip: &Arc<OpenByIp>, ip: IpAddr) -> (Self, usize) {
        let mut counts = open_by_ip.counts();
        let count = counts.entry(ip).or_insert(0);
        *count += 1;
        (Self { open_by_ip: Arc::clone(open_by_ip), ip }, *count)
    }
}

impl OpenByIp {
    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // A panic cannot leave them half changed: each change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut counts = self.open_by_ip.counts();
        if let Some(count) = counts.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::MetricsOptions;

    const OTHERS: OtherDescriptors = OtherDescriptors { workers: 2, client_listeners: 1, admin_listeners: 1 };

    fn admission(connections: usize, connections_per_ip: Option<usize>) -> Admission {
        let limits = Limits { connections: Some(connections), connections_per_ip, others: OTHERS };
        let options = MetricsOptions { workers: 1, ..MetricsOptions::default() };
        Admission::new(limits, Arc::new(Metrics::new(options)))
    }

    #[test]
    fn connections_get_what_other_users_leave() {
        let two_admins = OtherDescriptors { admin_listeners: 2, ..OTHERS };
        let many_workers = OtherDescriptors { workers: 64, ..OTHERS };
        for (others, open_files, connections) in [
            (OTHERS, 0, 1),
            (OTHERS, 64, 7),
            (OTHERS, 256, 97),
            (two_admins, 256, 86),
            (many_workers, 256, 1),
            (OTHERS, 1024, 457),
            (many_workers, 1024, 302),
            (OTHERS, 65_536, 32_681),
        ] {
            assert_eq!(others.connections_within(open_files), connections, "{others:?} {open_files}");
        }
    }

    #[test]
    fn dropped_permit_makes_room() {
        let admission = admission(2, None);
        let permits = [admission.admit(), admission.admit()];
        assert!(permits.iter().all(Option::is_some));
        assert!(admission.admit().is_none());
        drop(permits);
        assert!(admission.admit().is_some());
    }

    #[test]
    fn addresses_are_counted_one_by_one() {
        let admission = admission(100, Some(1));
        let [here, there] = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])];
        let mut permits: Vec<_> = (0..3).filter_map(|_| admission.admit()).collect();
        assert!(admission.admit_client(&mut permits[0], here));
        assert!(!admission.admit_client(&mut permits[1], "::ffff:127.0.0.1".parse().unwrap()));
        assert!(admission.admit_client(&mut permits[1], there), "the address that was counted before is forgotten");
        permits.clear();
        let mut permit = admission.admit().unwrap();
        assert!(admission.admit_client(&mut permit, here));
        assert_eq!(admission.open_by_ip.counts().len(), 1);
    }
}
