//! The sessions of one relay thread: which of them has something to do, and when.
//!
//! A session that has more to read than one buffer goes to the end of a queue, so a flood on one session costs the others
//! one buffer's time and no more. A panic in any call of a session ends that session alone.

use std::{
    collections::{BTreeSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use slab::Slab;

use super::{
    accounting::SessionGuard,
    commands::{CloseSome, DrainPlan},
    driver::{Driver, ThreadState},
    transport::{ReadBuffer, Ready, Transport},
};
use crate::{
    admission::ConnectionPermit,
    session::Session,
    websocket::{Endpoint, PerEndpoint, closing_handshake::Action},
};

/// How often the time that bytes wait is added to the metrics while they wait.
const WAIT_COUNT_INTERVAL: Duration = Duration::from_millis(500);

/// The sessions of one thread.
#[derive(Debug)]
pub(super) struct SessionTable<T> {
    /// Boxed, so that many sessions that came and went leave no large table behind.
    slots: Slab<Box<Slot<T>>>,
    /// Sessions with something to do, each at most once.
    runnable: VecDeque<usize>,
    timers: BTreeSet<(Instant, usize)>,
    /// How many sessions are open, or on their way to this thread.
    open: Arc<AtomicUsize>,
    drain: Option<DrainPlan>,
    waits_counted_at: Instant,
    buffer: ReadBuffer,
    pub(super) thread: ThreadState,
}

/// A session whose 101 was sent, with its connections.
#[derive(Debug)]
pub(super) struct OpenSession<T> {
    pub(super) transports: PerEndpoint<T>,
    pub(super) session: Session,
    /// Bytes that each endpoint sent directly after its part of the handshake.
    pub(super) early: PerEndpoint<Vec<u8>>,
    pub(super) guard: SessionGuard,
    pub(super) permit: ConnectionPermit,
}

/// A session and its place in the thread's schedule.
#[derive(Debug)]
struct Slot<T> {
    driver: Driver<T>,
    /// Its place in the timers.
    timer: Option<Instant>,
    /// That time has come.
    is_due: bool,
    /// It is in the queue.
    is_runnable: bool,
    guard: SessionGuard,
    _permit: ConnectionPermit,
}

impl<T: Transport> Slot<T> {
    /// Runs the deadlines if one is due, and reads at most once from each leg.
    #[inline]
    fn poll(&mut self, buffer: &mut ReadBuffer, thread: &ThreadState) {
        self.is_runnable = false;
        if std::mem::take(&mut self.is_due) {
            self.driver.on_deadline(thread);
        }
        self.driver.poll_once(buffer, thread);
    }
}

impl<T: Transport> SessionTable<T> {
    pub(super) fn new(open: Arc<AtomicUsize>, thread: ThreadState) -> Self {
        Self {
            slots: Slab::new(),
            runnable: VecDeque::new(),
            timers: BTreeSet::new(),
            open,
            drain: None,
            waits_counted_at: thread.now,
            buffer: ReadBuffer::new(),
            thread,
        }
    }

    /// The key that the next session gets.
    pub(super) fn vacant_key(&self) -> usize {
        self.slots.vacant_key()
    }

    /// Takes a session over.
    pub(super) fn insert(&mut self, new: OpenSession<T>, worker: usize) {
        let OpenSession { transports, session, early, mut guard, permit } = new;
        guard.open();
        let traffic = guard.traffic(worker);
        let driver = Driver::new(transports, session, traffic);
        let slot = Slot { driver, timer: None, is_due: false, is_runnable: false, guard, _permit: permit };
        let key = self.slots.insert(Box::new(slot));
        let drain = self.drain.as_ref().map(|plan| plan.scheduled_at(plan.start.max(self.thread.now)));
        self.run(key, |slot, buffer, thread| {
            if let Some(drain) = drain {
                slot.driver.schedule_drain(drain);
            }
            for from in Endpoint::BOTH {
                slot.driver.on_early_data(from, &early[from], thread);
            }
            slot.poll(buffer, thread);
        });
    }

    /// A session on its way to this thread never arrives.
    pub(super) fn forget_arriving(&self) {
        self.open.fetch_sub(1, Ordering::Release);
    }

    /// The kernel reported an event of a leg. If the session is in the queue, it reads when its turn comes.
    #[inline]
    pub(super) fn on_event(&mut self, key: usize, endpoint: Endpoint, ready: Ready) {
        self.run(key, |slot, buffer, thread| {
            slot.driver.on_event(endpoint, ready, thread);
            if !slot.is_runnable {
                slot.poll(buffer, thread);
            }
        });
    }

    /// How many sessions are in the queue.
    pub(super) fn queued(&self) -> usize {
        self.runnable.len()
    }

    /// Polls the first `count` sessions of the queue. A session that still has something to read goes to the end.
    pub(super) fn run_queue(&mut self, count: usize) {
        for _ in 0..count {
            let Some(key) = self.runnable.pop_front() else { return };
            self.run(key, Slot::poll);
        }
    }

    /// Puts the sessions whose time has come into the queue.
    pub(super) fn expire_timers(&mut self) {
        while let Some((at, key)) = self.timers.first().copied()
            && at <= self.thread.now
        {
            self.timers.pop_first();
            if let Some(slot) = self.slots.get_mut(key) {
                slot.timer = None;
                slot.is_due = true;
                enqueue(&mut self.runnable, slot, key);
            }
        }
    }

    /// When something is to be done without an event.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let count = self.has_backlogs().then(|| self.waits_counted_at + WAIT_COUNT_INTERVAL);
        [timer, count].into_iter().flatten().min()
    }

    /// Closes every session, spread over the plan's time, and the ones still to come. `offset` is this thread's share of a
    /// step, so that the threads take turns.
    pub(super) fn drain(&mut self, plan: DrainPlan, offset: f64) {
        let open = self.slots.iter().filter(|(_, slot)| !slot.driver.is_closing()).count();
        let step = plan.spread / u32::try_from(open).unwrap_or(u32::MAX).max(1);
        let mut turn = plan.start + step.mul_f64(offset);
        for (key, slot) in &mut self.slots {
            // A session that is closing gets no Close frame, only the deadline. Its turn would be a gap between others.
            let is_closing = slot.driver.is_closing();
            slot.driver.schedule_drain(plan.scheduled_at(if is_closing { plan.start } else { turn }));
            if !is_closing {
                turn += step;
            }
            enqueue(&mut self.runnable, slot, key);
        }
        self.drain = Some(plan);
    }

    /// Closes some sessions, and returns how many.
    pub(super) fn close_some(&mut self, order: &CloseSome) -> usize {
        let is_wanted = |slot: &Slot<T>| {
            !slot.driver.is_closing() && order.route.as_deref().is_none_or(|route| route == slot.guard.route())
        };
        let keys: Vec<usize> =
            self.slots.iter().filter(|(_, slot)| is_wanted(slot)).map(|(key, _)| key).take(order.count).collect();
        for key in &keys {
            self.run(*key, |slot, _, thread| slot.driver.close(Action::Control, order.text.clone(), thread));
        }
        keys.len()
    }

    /// Terminates every session.
    pub(super) fn cut_all(&mut self) {
        let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.run(key, |slot, _, thread| slot.driver.cut(Action::Drain, thread));
        }
    }

    /// Counts, now and then, the time for which bytes have waited.
    pub(super) fn count_waits(&mut self) {
        let now = self.thread.now;
        if self.has_backlogs() && self.waits_counted_at + WAIT_COUNT_INTERVAL <= now {
            self.waits_counted_at = now;
            for (_, slot) in &mut self.slots {
                slot.driver.count_waits(now);
            }
        }
    }

    fn has_backlogs(&self) -> bool {
        self.thread.backlogs.load(Ordering::Relaxed) > 0
    }

    /// Every call of a session goes through here. Afterwards the session is finished if it is over, else scheduled.
    #[inline]
    fn run(&mut self, key: usize, call: impl FnOnce(&mut Slot<T>, &mut ReadBuffer, &ThreadState)) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        match catch_unwind(AssertUnwindSafe(|| call(slot, &mut self.buffer, &self.thread))) {
            Ok(()) if !slot.driver.is_over() => {
                if slot.driver.has_work(&self.thread) {
                    enqueue(&mut self.runnable, slot, key);
                }
                set_timer(&mut self.timers, slot, key);
            }
            Ok(()) => self.remove(key, |slot, buffer, thread| slot.guard.close(slot.driver.finish(buffer, thread))),
            // The guard of a session that is dropped reports it as terminated.
            Err(_) => self.remove(key, |slot, _, _| drop(slot)),
        }
    }

    /// Takes a session out and ends it. It counts as open until its end is reported: a drain waits for no less.
    #[cold]
    fn remove(&mut self, key: usize, end: impl FnOnce(Slot<T>, &mut ReadBuffer, &ThreadState)) {
        let Some(slot) = self.slots.try_remove(key) else { return };
        if let Some(timer) = slot.timer {
            self.timers.remove(&(timer, key));
        }
        let ended = catch_unwind(AssertUnwindSafe(|| end(*slot, &mut self.buffer, &self.thread)));
        if ended.is_err() {
            tracing::error!("a session panicked while it ended");
        }
        self.buffer.empty_pipe();
        self.open.fetch_sub(1, Ordering::Release);
    }
}

/// A timer that comes too early does no harm, so a later deadline leaves it as it is.
#[inline]
fn set_timer<T: Transport>(timers: &mut BTreeSet<(Instant, usize)>, slot: &mut Slot<T>, key: usize) {
    let next = if slot.timer.is_none() { slot.driver.deadline() } else { slot.driver.earlier_deadline() };
    let Some(next) = next.filter(|next| slot.timer.is_none_or(|timer| *next < timer)) else { return };
    if let Some(timer) = slot.timer.replace(next) {
        timers.remove(&(timer, key));
    }
    timers.insert((next, key));
}

fn enqueue<T>(runnable: &mut VecDeque<usize>, slot: &mut Slot<T>, key: usize) {
    if !slot.is_runnable {
        slot.is_runnable = true;
        runnable.push_back(key);
    }
}
