//! The records of ended sessions and of failed handshakes: the last ones are kept, and each new one goes to all readers.

use std::{
    collections::VecDeque,
    fmt::{self, Display, Formatter},
    sync::{Arc, Mutex, MutexGuard},
    time::SystemTime,
};

use serde::{Serialize, Serializer};
use tokio::sync::broadcast;

mod handshake;
mod instance;
mod record;
mod text;

#[cfg(test)]
pub(crate) use handshake::tests::failed_handshake;
pub use handshake::{FailedHandshake, HandshakeInfo};
pub use instance::instance;
#[cfg(test)]
pub(crate) use record::tests::record;
pub use record::{Record, SessionInfo, TcpSummary};
pub(crate) use text::OneLine;

/// Records that a reader of the stream may lag behind before it misses some. The burst of a drain must fit.
const STREAM_BACKLOG: usize = 4096;

/// Keeps the last records of each kind, and sends the new ones to its readers.
///
/// The writers are the threads of the relay and of handshakes: they never wait for a reader.
pub struct Journal {
    sessions: Kept<Record>,
    handshakes: Kept<FailedHandshake>,
    stream: broadcast::Sender<Entry>,
    observer: Option<Box<Observer>>,
}

/// A record of either kind.
#[derive(Debug, Clone)]
pub enum Entry {
    /// The end of a session.
    Session(Arc<Record>),
    /// The failure of an opening handshake.
    Handshake(Arc<FailedHandshake>),
}

type Observer = dyn Fn(&Entry) + Send + Sync;

impl Journal {
    /// A journal that keeps the last `capacity` records of each kind.
    pub fn new(capacity: usize) -> Self {
        Self {
            sessions: Kept::new(capacity),
            handshakes: Kept::new(capacity),
            stream: broadcast::Sender::new(STREAM_BACKLOG),
            observer: None,
        }
    }

    /// Also hands each record to `observer` (the log), on the thread that records: it must not block.
    #[must_use]
    pub fn observed_by(mut self, observer: impl Fn(&Entry) + Send + Sync + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Records the end of a session.
    pub fn record(&self, record: Record) {
        self.publish(Entry::Session(Arc::new(record)));
    }

    /// Records the failure of an opening handshake.
    pub fn record_handshake(&self, record: FailedHandshake) {
        self.publish(Entry::Handshake(Arc::new(record)));
    }

    /// The last ends of sessions, at most `limit` of them, newest first.
    pub fn latest(&self, limit: usize) -> Vec<Arc<Record>> {
        self.sessions.latest(limit)
    }

    /// The last failed handshakes, at most `limit` of them, newest first.
    pub fn latest_handshakes(&self, limit: usize) -> Vec<Arc<FailedHandshake>> {
        self.handshakes.latest(limit)
    }

    /// The records of both kinds from now on. A reader that is too slow gets
    /// [`RecvError::Lagged`](broadcast::error::RecvError::Lagged).
    pub fn subscribe(&self) -> broadcast::Receiver<Entry> {
        self.stream.subscribe()
    }

    fn publish(&self, entry: Entry) {
        if let Some(observer) = &self.observer {
            observer(&entry);
        }
        match &entry {
            Entry::Session(record) => self.sessions.keep(Arc::clone(record)),
            Entry::Handshake(record) => self.handshakes.keep(Arc::clone(record)),
        }
        // Fails if there is no reader.
        let _ = self.stream.send(entry);
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Journal").field("capacity", &self.sessions.capacity).finish_non_exhaustive()
    }
}

impl Entry {
    /// When it happened.
    pub fn time(&self) -> SystemTime {
        match self {
            Self::Session(record) => record.time,
            Self::Handshake(record) => record.time,
        }
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Session(record) => record.serialize(serializer),
            Self::Handshake(record) => record.serialize(serializer),
        }
    }
}

impl Display for Entry {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(record) => record.fmt(formatter),
            Self::Handshake(record) => record.fmt(formatter),
        }
    }
}

/// The last records of one kind.
struct Kept<T> {
    capacity: usize,
    records: Mutex<VecDeque<Arc<T>>>,
}

impl<T> Kept<T> {
    fn new(capacity: usize) -> Self {
        Self { capacity, records: Mutex::new(VecDeque::with_capacity(capacity)) }
    }

    fn keep(&self, record: Arc<T>) {
        let mut records = self.records();
        let forgotten = if records.len() >= self.capacity { records.pop_front() } else { None };
        records.push_back(record);
        drop(records);
        // Freed when the lock is released.
        drop(forgotten);
    }

    fn latest(&self, limit: usize) -> Vec<Arc<T>> {
        self.records().iter().rev().take(limit).cloned().collect()
    }

    fn records(&self) -> MutexGuard<'_, VecDeque<Arc<T>>> {
        self.records.lock().expect("nothing panics while the records are locked")
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::TryRecvError;

    use super::{record::tests::record, *};

    fn named(session: &str) -> Record {
        let mut record = record();
        session.clone_into(&mut record.info.id);
        record
    }

    fn sessions(records: &[Arc<Record>]) -> Vec<&str> {
        records.iter().map(|record| record.info.id.as_str()).collect()
    }

    fn session(entry: &Entry) -> &str {
        let Entry::Session(record) = entry else { panic!("{entry:?}") };
        &record.info.id
    }

    #[test]
    fn failed_handshakes_are_kept_apart_and_share_the_stream() {
        let journal = Journal::new(2);
        let mut reader = journal.subscribe();
        journal.record(named("a"));
        for route in ["x", "y", "z"] {
            journal.record_handshake(FailedHandshake { route: route.into(), ..failed_handshake() });
        }
        let routes: Vec<_> = journal.latest_handshakes(1000).iter().map(|record| record.route.clone()).collect();
        assert_eq!(routes, ["z".into(), "y".into()]);
        assert_eq!(journal.latest_handshakes(1).len(), 1);
        assert_eq!(sessions(&journal.latest(1000)), ["a"]);
        assert!(matches!(reader.try_recv(), Ok(Entry::Session(_))));
        assert!(matches!(reader.try_recv(), Ok(Entry::Handshake(_))));
    }

    #[test]
    fn latest_returns_the_newest_first() {
        let journal = Journal::new(3);
        for session in ["a", "b", "c", "d"] {
            journal.record(named(session));
        }
        assert_eq!(sessions(&journal.latest(1000)), ["d", "c", "b"]);
        assert_eq!(sessions(&journal.latest(2)), ["d", "c"]);
        assert_eq!(sessions(&journal.latest(0)), [""; 0]);
    }

    #[test]
    fn reader_gets_the_records_after_its_subscription() {
        let journal = Journal::new(10);
        journal.record(named("before"));
        let mut reader = journal.subscribe();
        journal.record(named("after"));
        assert_eq!(session(&reader.try_recv().unwrap()), "after");
        assert_eq!(reader.try_recv().unwrap_err(), TryRecvError::Empty);
    }

    #[test]
    fn slow_reader_gets_the_number_of_missed_records() {
        let journal = Journal::new(10);
        let mut reader = journal.subscribe();
        for _ in 0..STREAM_BACKLOG + 5 {
            journal.record(named("a"));
        }
        assert_eq!(reader.try_recv().unwrap_err(), TryRecvError::Lagged(5));
    }

    #[test]
    fn observer_gets_every_record() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let journal = Journal::new(1).observed_by({
            let seen = Arc::clone(&seen);
            move |entry| seen.lock().unwrap().push(session(entry).to_owned())
        });
        journal.record(named("a"));
        journal.record(named("b"));
        assert_eq!(*seen.lock().unwrap(), ["a", "b"]);
    }
}
