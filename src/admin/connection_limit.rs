//! Caps admin connections, and the memory that slow readers hold. When all places are taken, the connection that has been
//! quiet the longest is closed to make room for the next one.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// The limits of one listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionLimits {
    /// Open connections. It is larger than `streams`, so that a connection without a stream can always be closed.
    pub(super) connections: usize,
    /// The texts of `/metrics` whose readers have not read them to the end, counted once for each reader.
    pub(super) unread_bytes: usize,
    /// Readers of the stream.
    pub(super) streams: usize,
}

/// The open connections of a listener.
pub(super) struct ConnectionLimit {
    permits: Arc<Semaphore>,
    open: Arc<OpenConnections>,
}

struct OpenConnections {
    limits: ConnectionLimits,
    connections: Mutex<Vec<Weak<AdminConnection>>>,
    /// Orders the progress of all connections.
    clock: AtomicU64,
}

/// An open connection. Its place is free when it is dropped.
pub(super) struct AdminConnection {
    open: Arc<OpenConnections>,
    /// When bytes passed last, by the common clock.
    last_progress: AtomicU64,
    has_requested: AtomicBool,
    /// Whether the response in flight is a stream without an end.
    is_stream: AtomicBool,
    /// The size of the text that the response in flight holds.
    unread_bytes: AtomicUsize,
    eviction: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// A response that counts against a limit until it is dropped.
pub(super) struct LimitedResponse(Arc<AdminConnection>);

impl ConnectionLimit {
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        let open = OpenConnections { limits, connections: Mutex::default(), clock: AtomicU64::new(0) };
        Self { permits: Arc::new(Semaphore::new(limits.connections)), open: Arc::new(open) }
    }

    /// Admits one more connection as soon as there is a place.
    pub(super) async fn admit(&self) -> Arc<AdminConnection> {
        if self.permits.available_permits() == 0 {
            self.evict_quietest();
        }
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        let connection = Arc::new(AdminConnection {
            open: Arc::clone(&self.open),
            last_progress: AtomicU64::new(self.open.tick()),
            has_requested: AtomicBool::new(false),
            is_stream: AtomicBool::new(false),
            unread_bytes: AtomicUsize::new(0),
            eviction: CancellationToken::new(),
            _permit: permit,
        });
        let mut connections = self.open.connections();
        connections.retain(|connection| connection.strong_count() > 0);
        connections.push(Arc::downgrade(&connection));
        connection
    }

    /// Closes the connection that has been quiet the longest. Streams stay: they are quiet as long as nothing ends.
    pub(super) fn evict_quietest(&self) -> bool {
        evict_quietest(&self.open.that(|connection| !connection.is_stream()))
    }
}

impl OpenConnections {
    fn connections(&self) -> MutexGuard<'_, Vec<Weak<AdminConnection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// The connections that stay and for which this is true.
    fn that(&self, is_wanted: impl Fn(&AdminConnection) -> bool) -> Vec<Arc<AdminConnection>> {
        let connections = self.connections();
        let connections = connections.iter().filter_map(Weak::upgrade);
        connections.filter(|connection| !connection.eviction.is_cancelled() && is_wanted(connection)).collect()
    }
}

/// Closes one of the connections; `false` if there is none.
fn evict_quietest(connections: &[Arc<AdminConnection>]) -> bool {
    let quietest = connections.iter().min_by_key(|connection| connection.last_progress.load(Ordering::Relaxed));
    quietest.inspect(|connection| connection.eviction.cancel()).is_some()
}

impl AdminConnection {
    /// Records that bytes were read or written.
    pub(super) fn on_progress(&self) {
        self.last_progress.store(self.open.tick(), Ordering::Relaxed);
    }

    /// Records that a whole request head has arrived.
    pub(super) fn on_request(&self) {
        self.has_requested.store(true, Ordering::Relaxed);
    }

    /// Whether a whole request head has ever arrived.
    pub(super) fn has_requested(&self) -> bool {
        self.has_requested.load(Ordering::Relaxed)
    }

    /// Waits until the connection has to make room.
    pub(super) fn evicted(&self) -> WaitForCancellationFuture<'_> {
        self.eviction.cancelled()
    }

    /// Begins a response to `/metrics`. While too many bytes wait for their readers, the quietest reader is closed.
    pub(super) fn begin_scrape(self: &Arc<Self>, bytes: usize) -> LimitedResponse {
        loop {
            let readers = self.open.that(|connection| connection.unread_bytes() > 0);
            let unread: usize = readers.iter().map(|connection| connection.unread_bytes()).sum();
            if unread + bytes <= self.open.limits.unread_bytes || !evict_quietest(&readers) {
                break;
            }
        }
        self.unread_bytes.store(bytes, Ordering::Relaxed);
        LimitedResponse(Arc::clone(self))
    }

    /// Begins a stream, unless there are too many.
    pub(super) fn begin_stream(self: &Arc<Self>) -> Option<LimitedResponse> {
        let streams = self.open.that(Self::is_stream).len();
        if streams >= self.open.limits.streams {
            return None;
        }
        self.is_stream.store(true, Ordering::Relaxed);
        Some(LimitedResponse(Arc::clone(self)))
    }

    fn is_stream(&self) -> bool {
        self.is_stream.load(Ordering::Relaxed)
    }

    fn unread_bytes(&self) -> usize {
        self.unread_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for LimitedResponse {
    fn drop(&mut self) {
        self.0.is_stream.store(false, Ordering::Relaxed);
        self.0.unread_bytes.store(0, Ordering::Relaxed);
    }
}
