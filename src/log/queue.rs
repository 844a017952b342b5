//! The lines that wait for the writer, and the count of those that were dropped.

use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime},
};

use super::line::LogLine;
use crate::journal::Entry;

/// The lines that can wait. All sessions of a process with the usual open-file limit (20,000) can end at the same moment,
/// because their server dies or a drain kills them.
pub(super) const CAPACITY: usize = 16 * 1024;

/// The unit of the budgets, and the longest delay of a report of dropped lines.
const SECOND: Duration = Duration::from_secs(1);

/// The lines that wait for the writer.
#[derive(Default)]
pub(super) struct Queue {
    lines: VecDeque<LogLine>,
    sessions: LineBudget,
    handshakes: LineBudget,
    operational: LineBudget,
    /// Lines that were dropped and not reported yet.
    dropped: u64,
    report_at: Option<Instant>,
    is_flushing: bool,
    is_writing: bool,
}

impl Queue {
    /// Accepts a line, unless the queue is full or the budget of its kind is exhausted for this second.
    pub(super) fn push(&mut self, line: LogLine, now: Instant, max_per_second: u32) -> bool {
        let budget = match line {
            LogLine::Entry(Entry::Session(_)) => &mut self.sessions,
            LogLine::Entry(Entry::Handshake(_)) => &mut self.handshakes,
            LogLine::Operational(_) | LogLine::Dropped { .. } => &mut self.operational,
        };
        let is_accepted = self.lines.len() < CAPACITY && budget.take(now, max_per_second);
        if is_accepted {
            self.lines.push_back(line);
        } else {
            self.add_dropped(1, now);
        }
        is_accepted
    }

    /// Counts dropped lines for the next report.
    pub(super) fn add_dropped(&mut self, count: u64, now: Instant) {
        self.dropped += count;
        self.report_at.get_or_insert(now + SECOND);
    }

    /// Takes the lines to write, and a report of dropped lines if one is due. The writer must call
    /// [`Queue::written`] after them.
    pub(super) fn take(&mut self, now: Instant) -> Option<VecDeque<LogLine>> {
        let is_report_due = self.is_flushing || self.report_at.is_some_and(|at| at <= now);
        self.is_flushing = false;
        if is_report_due && self.dropped > 0 {
            let count = std::mem::take(&mut self.dropped);
            self.report_at = None;
            self.lines.push_back(LogLine::Dropped { time: SystemTime::now(), count });
        }
        self.is_writing = !self.lines.is_empty();
        self.is_writing.then(|| std::mem::take(&mut self.lines))
    }

    /// Records that the lines of the last [`Queue::take`] are written.
    pub(super) fn written(&mut self) {
        self.is_writing = false;
    }

    /// The number of lines that were dropped and not reported yet.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// When the next report of dropped lines is due.
    pub(super) fn report_at(&self) -> Option<Instant> {
        self.report_at
    }

    /// Makes the writer report dropped lines at once.
    pub(super) fn flush(&mut self) {
        self.is_flushing = true;
    }

    /// Whether the writer has nothing to do, apart from a report that is not due.
    pub(super) fn is_idle(&self) -> bool {
        self.lines.is_empty() && !self.is_writing && !self.is_flushing
    }
}

/// The lines of a kind in the current second.
#[derive(Default)]
struct LineBudget {
    second: Option<Instant>,
    used: u32,
}

impl LineBudget {
    fn take(&mut self, now: Instant, max_per_second: u32) -> bool {
        if self.second.is_none_or(|second| now.duration_since(second) >= SECOND) {
            *self = Self { second: Some(now), used: 0 };
        }
        let has_room = self.used < max_per_second;
        self.used += u32::from(has_room);
        has_room
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{journal::record, log::line::Event};

    fn session() -> LogLine {
        LogLine::Entry(Entry::Session(Arc::new(record())))
    }

    fn operational() -> LogLine {
        LogLine::Operational(Event::new(tracing::Level::INFO, "a message"))
    }

    /// The counts of the reports in a batch, and the number of its other lines.
    fn reports(lines: Option<VecDeque<LogLine>>) -> (Vec<u64>, usize) {
        let mut counts = Vec::new();
        let mut others = 0;
        for line in lines.into_iter().flatten() {
            match line {
                LogLine::Dropped { count, .. } => counts.push(count),
                _ => others += 1,
            }
        }
        (counts, others)
    }

    #[test]
    fn each_kind_has_its_own_budget() {
        let mut queue = Queue::default();
        let start = Instant::now();
        let mut push = |line, after| queue.push(line, start + Duration::from_millis(after), 2);
        assert_eq!([push(session(), 0), push(session(), 0), push(session(), 999)], [true, true, false]);
        assert_eq!([push(operational(), 999), push(operational(), 999), push(operational(), 999)], [true, true, false]);
        assert_eq!([push(session(), 1000), push(session(), 1500), push(session(), 1999)], [true, true, false]);
    }

    #[test]
    fn dropped_lines_are_reported_within_a_second() {
        let mut queue = Queue::default();
        let start = Instant::now();
        for _ in 0..4 {
            queue.push(session(), start, 1);
        }
        assert_eq!(queue.report_at(), Some(start + SECOND));
        assert_eq!(reports(queue.take(start)), (vec![], 1));
        assert!(queue.take(start).is_none());
        assert_eq!(reports(queue.take(start + SECOND)), (vec![3], 0));
        assert_eq!(queue.report_at(), None);
        assert!(queue.take(start + SECOND).is_none());
    }

    #[test]
    fn flush_reports_dropped_lines_at_once() {
        let mut queue = Queue::default();
        queue.push(session(), Instant::now(), 0);
        assert!(queue.is_idle());
        queue.flush();
        assert!(!queue.is_idle());
        assert_eq!(reports(queue.take(Instant::now())), (vec![1], 0));
        assert!(!queue.is_idle());
        queue.written();
        assert!(queue.is_idle());
        queue.flush();
        assert!(queue.take(Instant::now()).is_none());
        assert!(queue.is_idle());
    }
}
