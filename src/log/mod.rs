//! The log: the endings of sessions and what the program itself has to say, one line each.
//!
//! One thread writes. What it cannot write in time is dropped and counted: nothing ever waits for the log, least of
//! all the relay.

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

mod line;
mod operational;
mod writer;

use self::{line::Line, writer::LineWriter};
pub use operational::{install, subscriber};

/// Lines that may wait for the writer: all sessions of a process with the usual limit of open files (20,000) may end at
/// the same moment, when their server dies or a drain cuts them.
const QUEUE_CAPACITY: usize = 16 * 1024;

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How a line looks.
    pub format: Format,
    /// The least severe level of the program's own lines. It does not touch the sessions.
    pub level: Level,
    /// Which sessions' ends are logged.
    pub sessions: Sessions,
    /// Lines in a second, for sessions, failed handshakes and the program's own lines each. Lines beyond are dropped.
    pub max_per_second: u32,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A sentence.
    Text,
    /// A JSON object.
    Json,
}

/// Which sessions' ends are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sessions {
    /// Every one.
    All,
    /// Those that were not clean.
    Abnormal,
    /// None.
    Off,
}

impl Sessions {
    fn include(self, entry: &Entry) -> bool {
        match (self, entry) {
            (Self::Off, _) => false,
            (Self::All, _) | (Self::Abnormal, Entry::Handshake(_)) => true,
            (Self::Abnormal, Entry::Session(record)) => !record.summary.ending.is_clean(),
        }
    }
}

/// Starts the writer's thread, which lives as long as the process. `on_drop` is called once for each line lost.
pub fn start(
    settings: Settings,
    on_drop: impl Fn() + Send + Sync + 'static,
    writer: Box<dyn Write + Send>,
) -> io::Result<LogHandle> {
    let log = Arc::new(Log {
        settings: ArcSwap::from_pointee(settings),
        queue: Mutex::new(Queue::new()),
        queued: Condvar::new(),
        written: Condvar::new(),
        on_drop: Box::new(on_drop),
    });
    let handle = LogHandle(Arc::clone(&log));
    thread::Builder::new().name("log".to_owned()).spawn(move || log.write_forever(LineWriter::new(writer)))?;
    Ok(handle)
}

/// The way to the log, for any thread; its clones are the same log.
#[derive(Clone)]
pub struct LogHandle(Arc<Log>);

impl LogHandle {
    /// Logs the end of a session or a failed handshake, if the settings include it.
    pub fn record(&self, entry: &Entry) {
        if self.0.settings.load().sessions.include(entry) {
            self.0.push(Line::Entry(entry.clone()));
        }
    }

    /// Changes what is logged, and how, from the next line written.
    pub fn reconfigure(&self, settings: Settings) {
        self.0.settings.store(Arc::new(settings));
        // The level of each place that logs was asked once and remembered.
        tracing::callsite::rebuild_interest_cache();
    }

    /// Waits until all lines so far are written, `timeout` at most; tells whether they are.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.0.wait_until_written(timeout)
    }
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("LogHandle").field(&self.0.settings.load()).finish()
    }
}

const NO_PANIC: &str = "nothing panics while the queue is locked";

struct Log {
    settings: ArcSwap<Settings>,
    queue: Mutex<Queue>,
    /// The writer waits here for lines.
    queued: Condvar,
    /// [`LogHandle::flush`] waits here for the writer.
    written: Condvar,
    on_drop: Box<dyn Fn() + Send + Sync>,
}

impl Log {
    fn push(&self, line: Line) {
        let max_per_second = self.settings.load().max_per_second;
        let accepted = self.queue().push(line, Instant::now(), max_per_second);
        if accepted {
            self.queued.notify_one();
        } else {
            (self.on_drop)();
        }
    }

    fn write_forever(&self, mut writer: LineWriter) {
        loop {
            let lines = self.take_lines();
            let format = self.settings.load().format;
            for line in lines {
                if writer.write(&line.render(format)).is_err() {
                    (self.on_drop)();
                }
            }
            self.queue().writing = false;
            self.written.notify_all();
        }
    }

    fn take_lines(&self) -> VecDeque<Line> {
        let queue = self.queued.wait_while(self.queue(), |queue| queue.lines.is_empty());
        let mut queue = queue.expect(NO_PANIC);
        queue.writing = true;
        std::mem::take(&mut queue.lines)
    }

    fn wait_until_written(&self, timeout: Duration) -> bool {
        let waited = self.written.wait_timeout_while(self.queue(), timeout, |queue| !queue.is_idle());
        !waited.expect(NO_PANIC).1.timed_out()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect(NO_PANIC)
    }
}

struct Queue {
    lines: VecDeque<Line>,
    /// The writer has taken lines and is not done with them.
    writing: bool,
    /// When the current second began.
    second: Instant,
    accepted_in_second: Accepted,
}

/// Lines that were accepted: a flood of one kind leaves the others their budget.
#[derive(Default)]
struct Accepted {
    sessions: u32,
    handshakes: u32,
    operational: u32,
}

impl Accepted {
    fn of(&mut self, line: &Line) -> &mut u32 {
        match line {
            Line::Entry(Entry::Session(_)) => &mut self.sessions,
            Line::Entry(Entry::Handshake(_)) => &mut self.handshakes,
            Line::Operational(_) => &mut self.operational,
        }
    }
}

impl Queue {
    fn new() -> Self {
        Self { lines: VecDeque::new(), writing: false, second: Instant::now(), accepted_in_second: Accepted::default() }
    }

    /// Takes a line in, unless the queue is full or this second had its share.
    fn push(&mut self, line: Line, now: Instant, max_per_second: u32) -> bool {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.accepted_in_second = Accepted::default();
        }
        let accepted_in_second = self.accepted_in_second.of(&line);
        let accepted = self.lines.len() < QUEUE_CAPACITY && *accepted_in_second < max_per_second;
        if accepted {
            *accepted_in_second += 1;
            self.lines.push_back(line);
        }
        accepted
    }

    fn is_idle(&self) -> bool {
        self.lines.is_empty() && !self.writing
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    };

    use super::*;
    use crate::{
        journal::{failed_handshake, record},
        session::Summary,
    };

    /// Far longer than anything here takes.
    pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

    pub(crate) const SETTINGS: Settings =
        Settings { format: Format::Json, level: Level::INFO, sessions: Sessions::All, max_per_second: 1_000_000 };

    /// What was written, for a test to look at.
    #[derive(Clone, Default)]
    pub(crate) struct Written(Arc<Mutex<Vec<u8>>>);

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

    /// A log that writes to memory and never drops.
    pub(crate) fn log(settings: Settings) -> (LogHandle, Written) {
        let written = Written::default();
        let handle = start(settings, || panic!("a line was dropped"), Box::new(written.clone())).unwrap();
        (handle, written)
    }

    fn counting(settings: Settings, writer: impl Write + Send + 'static) -> (LogHandle, Arc<AtomicUsize>) {
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

    fn handshake() -> Entry {
        Entry::Handshake(Arc::new(failed_handshake()))
    }

    fn abnormal() -> Entry {
        let mut record = record();
        record.summary = Summary::lost();
        Entry::Session(Arc::new(record))
    }

    #[test]
    fn the_sessions_that_are_wanted_are_logged() {
        for (sessions, expected) in [(Sessions::All, 3), (Sessions::Abnormal, 2), (Sessions::Off, 0)] {
            let (log, written) = log(Settings { sessions, ..SETTINGS });
            log.record(&clean());
            log.record(&abnormal());
            log.record(&handshake());
            assert!(log.flush(PATIENCE));
            assert_eq!(written.lines().len(), expected, "{sessions:?}");
        }
    }

    #[test]
    fn settings_change_while_it_runs() {
        let (log, written) = log(Settings { sessions: Sessions::Off, ..SETTINGS });
        log.record(&clean());
        log.reconfigure(Settings { format: Format::Text, ..SETTINGS });
        log.record(&clean());
        assert!(log.flush(PATIENCE));
        assert_eq!(written.lines(), [format!("2025-11-20T00:53:20.250Z {}", record())]);
    }

    #[test]
    fn what_is_beyond_the_rate_is_dropped_and_counted() {
        let mut queue = Queue::new();
        let start = queue.second;
        let mut push = |after| queue.push(Line::Entry(clean()), start + Duration::from_millis(after), 2);
        assert_eq!([push(0), push(0), push(999)], [true, true, false]);
        assert_eq!([push(1000), push(1500), push(1999)], [true, true, false]);

        let (log, drops) = counting(Settings { max_per_second: 0, ..SETTINGS }, Written::default());
        log.record(&clean());
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn flood_of_one_kind_leaves_the_others_their_lines() {
        let mut queue = Queue::new();
        let start = queue.second;
        let mut push = |line| queue.push(line, start, 1);
        assert_eq!([push(Line::Entry(handshake())), push(Line::Entry(handshake()))], [true, false]);
        assert_eq!([push(Line::Entry(clean())), push(Line::Entry(clean()))], [true, false]);
    }

    /// Says that it was called, then waits to be released.
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
    fn a_blocked_writer_holds_nobody_up() {
        let ((called, was_called), (release, released)) = (channel(), channel());
        let written = Written::default();
        let (log, drops) = counting(SETTINGS, Blocking { called, release: released, written: written.clone() });
        log.record(&clean());
        was_called.recv().unwrap();

        for _ in 0..QUEUE_CAPACITY + 7 {
            log.record(&clean());
        }
        assert_eq!(drops.load(Ordering::SeqCst), 7);
        assert!(!log.flush(Duration::ZERO));

        drop(release);
        assert!(log.flush(PATIENCE));
        assert_eq!(written.lines().len(), QUEUE_CAPACITY + 1);
    }

    #[test]
    fn a_line_that_failed_is_counted() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let (log, drops) = counting(SETTINGS, writer);
        log.record(&clean());
        assert!(log.flush(PATIENCE));
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    }
}
