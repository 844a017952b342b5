//! The loop of one data-plane thread: readiness in, turns for the sessions that have something to do, timers.
//!
//! # Design
//!
//! Edge-triggered readiness, one `recv` for each event, into one buffer that all sessions of the thread share, and a
//! `send` straight from it to the other leg; large readings pass without that second copy (see [`intake`]). Only what
//! the kernel does not take is copied, to a spill buffer of the leg, and the sender is not read until that is gone; where
//! the reader stays slow, it is read on until the buffer is full, so that a Close frame behind is seen. So an idle session
//! owns no buffer, and a slow reader holds up nobody but its own sender. A session that has more to read than one buffer
//! goes to the end of a queue, so that a flood on one session costs the others one buffer's time and no more.
//!
//! Nearly all of the time of a small message is the kernel's, so what is left to gain is there: `recv` and `send` go
//! around libc, whose thread-cancellation points cost more than the look at the frame, and the wait has no timeout (see
//! [`Alarm`]).
//!
//! Left out: a tokio task a session (2 KiB more for each, half again the p99 under load), `io_uring` (blocked by common
//! container profiles), a table of file descriptors for each thread (it would spare a reference count at each system call,
//! and cost every session two transfers), to leave the sender of a slow reader unread for as long as anything waits (its
//! Close frame would not be seen, and the wrong endpoint blamed), to read it on at once (up to half again the cost of
//! messages of 1 MiB), and to serve the newest events first, whose bytes are still in the cache (a twelfth less for
//! messages of 16 KiB; but who closed first is told by the order in which the kernel saw it, and the p99 rises by a third).
//!
//! [`intake`]: super::intake

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token, Waker};
use slab::Slab;

use super::{
    alarm::Alarm,
    context::{Budget, Context},
    inbox::{CloseSome, Drain, Inbox, NewSession, Order},
    intake::Intake,
    pair::{self, Pair},
};

/// How often the time that bytes wait is added to the metrics while they still wait.
const BLOCKED_TICK: Duration = Duration::from_millis(500);

const EVENTS: usize = 1024;

/// The tokens of the inbox and of the alarm. Sessions have two tokens each, from 0.
const INBOX: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);

/// One data-plane thread's state.
pub(super) struct Worker {
    poll: Poll,
    inbox: Arc<Inbox>,
    /// Boxed, so that many sessions that came and went leave no large table behind.
    sessions: Slab<Box<Pair>>,
    /// Sessions with something to do, each at most once.
    runnable: VecDeque<usize>,
    timers: BTreeSet<(Instant, usize)>,
    alarm: Alarm,
    blocked_tick: Instant,
    drain: Option<Drain>,
    intake: Intake,
    context: Context,
    is_stopping: bool,
}

impl Worker {
    pub(super) fn new(index: usize, budget: Arc<Budget>, patience: Option<Duration>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), INBOX)?;
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        let now = Instant::now();
        Ok(Self {
            poll,
            inbox: Arc::new(Inbox::new(waker)),
            sessions: Slab::new(),
            runnable: VecDeque::new(),
            timers: BTreeSet::new(),
            alarm,
            blocked_tick: now,
            drain: None,
            intake: Intake::new(),
            context: Context::new(index, budget, patience),
            is_stopping: false,
        })
    }

    pub(super) fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        while !self.is_stopping {
            if let Err(error) = self.wait(&mut events) {
                // Only a bug of ours makes epoll_wait fail; to spin on it would hide it and starve the machine.
                tracing::error!(%error, "a relay thread cannot wait for its sockets and ends");
                return;
            }
            self.expire_timers();
            let queued = self.runnable.len();
            let has_orders = self.take_events(&events);
            self.run_queue(queued);
            if has_orders {
                self.take_orders();
            }
            self.tell_blocked_time();
        }
    }

    /// Waits until there is something to do.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let next = self.next_time();
        let has_work = !self.runnable.is_empty() || next.is_some_and(|next| next <= self.context.now);
        if !has_work && let Some(next) = next {
            self.alarm.set(next)?;
        }
        match self.poll.poll(events, has_work.then_some(Duration::ZERO)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            result => result?,
        }
        self.context.now = Instant::now();
        Ok(())
    }

    fn next_time(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let tick = (self.context.blocked > 0).then_some(self.blocked_tick);
        [timer, tick].into_iter().flatten().min()
    }

    /// Tells each session what the kernel says of its legs and gives it its turn, in the order in which the kernel saw
    /// it. One that stands in the queue waits for its turn there. Says whether there are orders.
    fn take_events(&mut self, events: &Events) -> bool {
        let mut has_orders = false;
        for event in events {
            match event.token() {
                INBOX => has_orders = true,
                ALARM => self.alarm.went_off(),
                token => {
                    let (key, endpoint) = pair::key(token);
                    // A session that ended in this round may still have an event in it.
                    if let Some(pair) = self.sessions.get_mut(key) {
                        pair.notice(endpoint, event, &mut self.context);
                        if !pair.is_runnable {
                            self.turn(key);
                        }
                    }
                }
            }
        }
        has_orders
    }

    fn expire_timers(&mut self) {
        while let Some((at, key)) = self.timers.first().copied()
            && at <= self.context.now
        {
            self.timers.pop_first();
            if let Some(pair) = self.sessions.get_mut(key) {
                pair.timer = None;
                pair.is_due = true;
                enqueue(&mut self.runnable, pair, key);
            }
        }
    }

    /// One turn for each session that stood in the queue before the events came. Who still has something to read goes
    /// to the end, for after the next wait.
    fn run_queue(&mut self, count: usize) {
        for _ in 0..count {
            let Some(key) = self.runnable.pop_front() else { return };
            self.turn(key);
        }
    }

    fn turn(&mut self, key: usize) {
        let Some(pair) = self.sessions.get_mut(key) else { return };
        pair.is_runnable = false;
        let (intake, context) = (&mut self.intake, &mut self.context);
        // A fault in one session must not end the others: it is told as it is dropped.
        match catch_unwind(AssertUnwindSafe(|| pair.turn(intake, context))) {
            Ok(false) => {
                if pair.has_work(context) {
                    enqueue(&mut self.runnable, pair, key);
                }
                if let Some(next) = pair.earlier_timer() {
                    schedule(&mut self.timers, pair, key, next);
                }
            }
            Ok(true) => self.part_with(key, |pair, intake, context| pair.end(intake, context)),
            Err(_) => self.bury(key),
        }
    }

    /// Drops a session whose turn panicked: its ticket tells of it. What it left in the thread's state is put right.
    fn bury(&mut self, key: usize) {
        self.part_with(key, |mut pair, intake, context| {
            pair.drop_spills(context);
            intake.empty_pipe();
        });
    }

    /// Takes a session out and ends it. It counts as open until its end is told: a drain waits for no less.
    fn part_with(&mut self, key: usize, end: impl FnOnce(Box<Pair>, &mut Intake, &mut Context)) {
        let Some(pair) = self.sessions.try_remove(key) else { return };
        if let Some(timer) = pair.timer {
            self.timers.remove(&(timer, key));
        }
        end(pair, &mut self.intake, &mut self.context);
        self.inbox.sessions.fetch_sub(1, Ordering::Release);
    }

    fn take_orders(&mut self) {
        for order in self.inbox.take() {
            match order {
                Order::Adopt(session) => self.adopt(*session),
                Order::Drain(drain, offset) => self.drain(drain, offset),
                Order::CloseSome(order, answer) => answer(self.close_some(&order)),
                Order::Stop => self.stop(),
            }
        }
    }

    fn adopt(&mut self, session: NewSession) {
        let entry = self.sessions.vacant_entry();
        let key = entry.key();
        let (registry, context) = (self.poll.registry(), &mut self.context);
        // What came right behind the handshake is read here already: as in a turn, a fault must not end the others.
        match catch_unwind(AssertUnwindSafe(|| Pair::adopt(session, key, registry, context))) {
            Ok(Ok(mut pair)) => {
                if let Some(drain) = &self.drain {
                    pair.drain(drain.start.max(self.context.now), drain.text.clone(), drain.cut_at);
                }
                entry.insert(Box::new(pair));
                self.turn(key);
                return;
            }
            Ok(Err(error)) => tracing::error!(%error, "a session's sockets could not be watched; it was dropped"),
            Err(_) => {}
        }
        self.inbox.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    fn drain(&mut self, drain: Drain, offset: f64) {
        let count = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX).max(1);
        let step = drain.spread / count;
        let first = drain.start + step.mul_f64(offset);
        for (place, (key, pair)) in (0_u32..).zip(&mut self.sessions) {
            let at = first + step * place;
            pair.drain(at, drain.text.clone(), drain.cut_at);
            enqueue(&mut self.runnable, pair, key);
        }
        self.drain = Some(drain);
    }

    fn close_some(&mut self, order: &CloseSome) -> usize {
        let wanted =
            |pair: &Pair| !pair.is_closing() && order.route.as_deref().is_none_or(|route| route == pair.route());
        let mut closed = 0;
        for (key, pair) in self.sessions.iter_mut().filter(|(_, pair)| wanted(pair)).take(order.count) {
            pair.close(order.text.clone(), self.context.now);
            enqueue(&mut self.runnable, pair, key);
            closed += 1;
        }
        closed
    }

    fn stop(&mut self) {
        self.is_stopping = true;
        let keys: Vec<usize> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.part_with(key, |mut pair, intake, context| {
                pair.cut(context.now);
                pair.end(intake, context);
            });
        }
    }

    fn tell_blocked_time(&mut self) {
        if self.context.blocked > 0 && self.blocked_tick <= self.context.now {
            self.blocked_tick = self.context.now + BLOCKED_TICK;
            for (_, pair) in &mut self.sessions {
                pair.tell_blocked_time(&self.context);
            }
        }
    }
}

/// Sees to it that the session is woken at this time, or before: one that comes too early does no harm.
fn schedule(timers: &mut BTreeSet<(Instant, usize)>, pair: &mut Pair, key: usize, next: Instant) {
    if pair.timer.is_none_or(|timer| next < timer) {
        if let Some(timer) = pair.timer.replace(next) {
            timers.remove(&(timer, key));
        }
        timers.insert((next, key));
    }
}

fn enqueue(runnable: &mut VecDeque<usize>, pair: &mut Pair, key: usize) {
    if !pair.is_runnable {
        pair.is_runnable = true;
        runnable.push_back(key);
    }
}
