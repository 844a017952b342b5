//! The log: one line for each ending of a session and for each event of the program itself.
//!
//! One thread renders and writes. No other thread waits for it: if it falls behind, lines are dropped and counted.
//! Crates that exist were left out for this reason (`docs/decisions/0020-own-log-writer.md`).

use std::{
    collections::VecDeque,
    fmt,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tracing::Level;

use crate::journal::Entry;

mod layer;
mod line;
mod queue;
mod writer;

use self::{line::LogLine, queue::Queue, writer::LineWriter};
pub use layer::{install, subscriber};

/// The settings of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// The format of a line.
    pub format: LineFormat,
    /// The least severe level of the program's own lines. It does not apply to sessions.
    pub level: Level,
    /// The sessions whose endings are logged.
    pub sessions: SessionFilter,
    /// The maximum of lines in a second, for sessions, for failed handshakes, and for the program's own lines each.
    pub max_per_second: u32,
}

/// The format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFormat {
    /// A sentence.
    Text,
    /// A JSON object.
    Json,
}

/// The sessions whose endings are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionFilter {
    /// All sessions.
    All,
    /// Sessions that were not clean.
    Abnormal,
    /// None.
    Off,
}

impl SessionFilter {
    fn includes(self, entry: &Entry) -> bool {
        match (self, entry) {
            (Self::Off, _) => false,
            (Self::All, _) | (Self::Abnormal, Entry::Handshake(_)) => true,
            (Self::Abnormal, Entry::Session(record)) => !record.summary.ending.is_clean(),
        }
    }
}

/// Starts the thread of the log, which lives as long as the process. `on_drop` is called once for each dropped line.
pub fn start(
    settings: LogSettings,
    on_drop: impl Fn() + Send + Sync + 'static,
    writer: Box<dyn Write + Send>,
) -> io::Result<LogHandle> {
    let log = Arc::new(SharedLog {
        settings: ArcSwap::from_pointee(settings),
        queue: Mutex::default(),
        pushed: Condvar::new(),
        written: Condvar::new(),
        on_drop: Box::new(on_drop),
    });
    let handle = LogHandle(Arc::clone(&log));
    thread::Builder::new().name("log".to_owned()).spawn(move || log.write_forever(LineWriter::new(writer)))?;
    Ok(handle)
}

/// The log, for any thread. Its clones are the same log.
#[derive(Clone)]
pub struct LogHandle(Arc<SharedLog>);

impl LogHandle {
    /// Logs the ending of a session or a failed handshake, if the settings include it.
    pub fn record(&self, entry: &Entry) {
        if self.0.settings.load().sessions.includes(entry) {
            self.0.push(LogLine::Entry(entry.clone()));
        }
    }

    /// Changes the settings, from the next line on.
    pub fn reconfigure(&self, settings: LogSettings) {
        self.0.settings.store(Arc::new(settings));
        // tracing remembers for each call site whether its level is enabled.
        tracing::callsite::rebuild_interest_cache();
    }

    /// Waits until all lines so far are written, at most for `timeout`, and returns whether they are.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.0.flush(timeout)
    }
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("LogHandle").field(&self.0.settings.load()).finish()
    }
}

const NO_PANIC: &str = "nothing panics while the queue is locked";

struct SharedLog {
    settings: ArcSwap<LogSettings>,
    queue: Mutex<Queue>,
    /// Wakes the writer.
    pushed: Condvar,
    /// Wakes [`LogHandle::flush`].
    written: Condvar,
    on_drop: Box<dyn Fn() + Send + Sync>,
}

impl SharedLog {
    fn push(&self, line: LogLine) {
        let max_per_second = self.settings.load().max_per_second;
        let mut queue = self.queue();
        let is_accepted = queue.push(line, Instant::now(), max_per_second);
        // The first dropped line wakes the writer, too, which then waits until the report is due.
        let wakes_writer = is_accepted || queue.dropped() == 1;
        drop(queue);
        if wakes_writer {
            self.pushed.notify_one();
        }
        if !is_accepted {
            (self.on_drop)();
        }
    }

    fn write_forever(&self, mut writer: LineWriter) {
        loop {
            let lines = self.take();
            let format = self.settings.load().format;
            let dropped = lines.iter().filter_map(|line| {
                let result = writer.write(&line.render(format));
                result.is_err().then(|| self.on_failed_write(line))
            });
            let dropped: u64 = dropped.sum();
            let mut queue = self.queue();
            if dropped > 0 {
                queue.add_dropped(dropped, Instant::now());
            }
            queue.written();
            self.written.notify_all();
        }
    }

    /// Counts a line that was not written, and returns the number of dropped lines to report.
    fn on_failed_write(&self, line: &LogLine) -> u64 {
        if let LogLine::Dropped { count, .. } = line {
            return *count;
        }
        (self.on_drop)();
        1
    }

    /// Waits for lines.
    fn take(&self) -> VecDeque<LogLine> {
        let mut queue = self.queue();
        loop {
            let now = Instant::now();
            if let Some(lines) = queue.take(now) {
                return lines;
            }
            self.written.notify_all();
            queue = match queue.report_at() {
                None => self.pushed.wait(queue).expect(NO_PANIC),
                Some(at) => self.pushed.wait_timeout(queue, at - now).expect(NO_PANIC).0,
            };
        }
    }

    fn flush(&self, timeout: Duration) -> bool {
        let mut queue = self.queue();
        queue.flush();
        self.pushed.notify_one();
        let waited = self.written.wait_timeout_while(queue, timeout, |queue| !queue.is_idle());
        !waited.expect(NO_PANIC).1.timed_out()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect(NO_PANIC)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    };

    use super::*;
    use crate::{journal::record, session::Summary};

    /// Longer than anything here takes.
    pub(super) const PATIENCE: Duration = Duration::from_mins(1);

    pub(super) const SETTINGS: LogSettings = LogSettings {
        format: LineFormat::Json,
        level: Level::INFO,
        sessions: SessionFilter::All,
        max_per_second: 1_000_000,
    };

    /// A writer into memory.
    #[derive(Clone, Default)]
    pub(super) struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        pub(crate) fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A log that writes into memory and never drops a line.
    pub(super) fn log(settings: LogSettings) -> (LogHandle, Written) {
        let written = Written::default();
        let handle = start(settings, || panic!("a line was dropped"), Box::new(written.clone())).unwrap();
        (handle, written)
    }

    fn counting(settings: LogSettings, writer: impl Write + Send + 'static) -> (LogHandle, Arc<AtomicUsize>) {
        let drops = Arc::new(AtomicUsize::new(0));
        let on_drop = {
            let drops = Arc::clone(&drops);
            move || {
                drops.fetch_add(1, Ordering::SeqCst);
            }
        };
        (start(settings, on_drop, Box::new(writer)).unwrap(), drops)
    }

    fn clean() -> Entry {
        Entry::Session(Arc::new(record()))
    }

    fn abnormal() -> Entry {
        let mut record = record();
        record.summary = Summary::lost();
        Entry::Session(Arc::new(record))
    }

    #[test]
    fn filter_selects_sessions() {
        for (sessions, expected) in [(SessionFilter::All, 2), (SessionFilter::Abnormal, 1), (SessionFilter::Off, 0)] {
            let (log, written) = log(LogSettings { sessions, ..SETTINGS });
            log.record(&clean());
            log.record(&abnormal());
            assert!(log.flush(PATIENCE));
            assert_eq!(written.lines().len(), expected, "{sessions:?}");
        }
    }

    #[test]
    fn reconfigure_changes_filter_and_format() {
        let (log, written) = log(LogSettings { sessions: SessionFilter::Off, ..SETTINGS });
        log.record(&clean());
        log.reconfigure(LogSettings { format: LineFormat::Text, ..SETTINGS });
        log.record(&clean());
        assert!(log.flush(PATIENCE));
        assert_eq!(written.lines(), [format!("2025-11-20T00:53:20.250Z {}", record())]);
    }

    #[test]
    fn dropped_lines_are_counted_and_reported() {
        let written = Written::default();
        let (log, drops) = counting(LogSettings { max_per_second: 2, ..SETTINGS }, written.clone());
        for _ in 0..5 {
            log.record(&clean());
        }
        // The writer wakes up by itself.
        while written.lines().len() < 3 {
            thread::yield_now();
        }
        assert_eq!(drops.load(Ordering::SeqCst), 3);
        let report = serde_json::from_str::<serde_json::Value>(&written.lines()[2]).unwrap();
        assert_eq!((&report["event"], &report["count"]), (&"dropped".into(), &3.into()));
    }

    /// Reports each call, then waits for its release.
    struct Blocking {
        called: Sender<()>,
        release: Receiver<()>,
        written: Written,
    }

    impl Write for Blocking {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.called.send(());
            let _ = self.release.recv();
            self.written.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn blocked_writer_delays_no_other_thread() {
        let ((called, was_called), (release, released)) = (channel(), channel());
        let written = Written::default();
        let (log, drops) = counting(SETTINGS, Blocking { called, release: released, written: written.clone() });
        log.record(&clean());
        was_called.recv().unwrap();

        for _ in 0..queue::CAPACITY + 7 {
            log.record(&clean());
        }
        assert_eq!(drops.load(Ordering::SeqCst), 7);
        assert!(!log.flush(Duration::ZERO));

        drop(release);
        assert!(log.flush(PATIENCE));
        let lines = written.lines();
        assert_eq!(lines.len(), queue::CAPACITY + 2);
        assert!(lines.last().unwrap().contains("\"event\":\"dropped\",\"count\":7"), "{:?}", lines.last());
    }

    #[test]
    fn failed_lines_are_counted() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let (log, drops) = counting(SETTINGS, writer);
        log.record(&clean());
        assert!(log.flush(PATIENCE));
        assert!(log.flush(PATIENCE), "the report fails, too");
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    }
}
