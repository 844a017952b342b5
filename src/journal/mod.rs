//! What is told of each session that ended: the last ones are kept, each new one is handed to whoever reads along.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::broadcast;

mod record;
mod sentence;

#[cfg(test)]
pub(crate) use record::tests::record;
pub use record::{Record, SessionInfo, TcpSummary};
pub(crate) use sentence::OneLine;

/// Records that a reader of the stream may be behind before it loses some: the burst of a drain must fit.
const STREAM_BACKLOG: usize = 4096;

/// The last endings, and a stream of the new ones.
///
/// Writers are the relay's threads: they never wait for a reader.
pub struct Journal {
    capacity: usize,
    kept: Mutex<VecDeque<Arc<Record>>>,
    stream: broadcast::Sender<Arc<Record>>,
    observer: Option<Box<Observer>>,
}

type Observer = dyn Fn(&Arc<Record>) + Send + Sync;

impl Journal {
    /// A journal that keeps the last `capacity` records.
    pub fn new(capacity: usize) -> Self {
        let kept = Mutex::new(VecDeque::with_capacity(capacity));
        Self { capacity, kept, stream: broadcast::Sender::new(STREAM_BACKLOG), observer: None }
    }

    /// Also hands each record to `observer` (the log), on the thread that records: it must not block.
    #[must_use]
    pub fn observed_by(mut self, observer: impl Fn(&Arc<Record>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Takes note of a session's end.
    pub fn record(&self, record: Record) {
        let record = Arc::new(record);
        if let Some(observer) = &self.observer {
            observer(&record);
        }
        // Dropped here, after the lock is released.
        let _forgotten = self.keep(&record);
        // Without a reader there is nobody to tell.
        let _ = self.stream.send(record);
    }

    /// The last records, at most `limit` of them, newest first.
    pub fn latest(&self, limit: usize) -> Vec<Arc<Record>> {
        self.kept().iter().rev().take(limit).cloned().collect()
    }

    /// The records from now on. A reader that is too slow is told so by
    /// [`RecvError::Lagged`](broadcast::error::RecvError::Lagged).
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Record>> {
        self.stream.subscribe()
    }

    /// Keeps a record; returns the one that had to make room.
    fn keep(&self, record: &Arc<Record>) -> Option<Arc<Record>> {
        let mut kept = self.kept();
        let forgotten = if kept.len() >= self.capacity { kept.pop_front() } else { None };
        kept.push_back(Arc::clone(record));
        forgotten
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Arc<Record>>> {
        self.kept.lock().expect("nothing panics while the records are locked")
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Journal").field("capacity", &self.capacity).finish_non_exhaustive()
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

    #[test]
    fn the_last_records_are_kept_and_told_newest_first() {
        let journal = Journal::new(3);
        for session in ["a", "b", "c", "d"] {
            journal.record(named(session));
        }
        assert_eq!(sessions(&journal.latest(1000)), ["d", "c", "b"]);
        assert_eq!(sessions(&journal.latest(2)), ["d", "c"]);
        assert_eq!(sessions(&journal.latest(0)), [""; 0]);
    }

    #[test]
    fn a_reader_gets_what_is_recorded_after_it_came() {
        let journal = Journal::new(10);
        journal.record(named("before"));
        let mut reader = journal.subscribe();
        journal.record(named("after"));
        assert_eq!(reader.try_recv().unwrap().info.id, "after");
        assert_eq!(reader.try_recv().unwrap_err(), TryRecvError::Empty);
    }

    #[test]
    fn a_reader_that_does_not_read_loses_records_and_is_told_how_many() {
        let journal = Journal::new(10);
        let mut reader = journal.subscribe();
        for _ in 0..STREAM_BACKLOG + 5 {
            journal.record(named("a"));
        }
        assert_eq!(reader.try_recv().unwrap_err(), TryRecvError::Lagged(5));
    }

    #[test]
    fn the_observer_sees_every_record() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let journal = Journal::new(1).observed_by({
            let seen = Arc::clone(&seen);
            move |record| seen.lock().unwrap().push(Arc::clone(record))
        });
        journal.record(named("a"));
        journal.record(named("b"));
        assert_eq!(sessions(&seen.lock().unwrap()), ["a", "b"]);
    }
}
