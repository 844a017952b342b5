//! The loop of one relay thread: readiness in, calls of the sessions that have something to do, timers.
//!
//! Readiness is edge-triggered. There is one `recv` for each event, into one buffer that all sessions of the thread share,
//! and a `send` from it to the other leg. Nearly all of the time of a small message is the kernel's, so the wait has no
//! timeout (see [`TimerFd`]).

use std::{
    io,
    os::fd::AsRawFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, Waker, event::Event, unix::SourceFd};

use super::{
    backlog::Budget,
    commands::{CommandQueue, NewSession, ThreadCommand},
    driver::ThreadState,
    session_table::{OpenSession, SessionTable},
    timerfd::TimerFd,
    transport::{Ready, TcpTransport},
};
use crate::{
    session::Session,
    websocket::{Endpoint, PerEndpoint},
};

const EVENTS: usize = 1024;

/// The tokens of the command queue and of the timer. Sessions have two tokens each, from 0.
const COMMANDS: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

/// The state of one relay thread.
pub(super) struct Worker {
    index: usize,
    poll: Poll,
    commands: Arc<CommandQueue>,
    timer: TimerFd,
    random: fastrand::Rng,
    sessions: SessionTable<TcpTransport>,
    is_stopping: bool,
}

impl Worker {
    pub(super) fn new(index: usize, budget: Arc<Budget>, dead_link_timeout: Option<Duration>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), COMMANDS)?;
        let timer = TimerFd::new(poll.registry(), TIMER)?;
        let commands = Arc::new(CommandQueue::new(waker));
        let thread = ThreadState { now: Instant::now(), budget, backlogs: Arc::default(), dead_link_timeout };
        let sessions = SessionTable::new(Arc::clone(&commands.sessions), thread);
        Ok(Self { index, poll, commands, timer, random: fastrand::Rng::new(), sessions, is_stopping: false })
    }

    pub(super) fn commands(&self) -> Arc<CommandQueue> {
        Arc::clone(&self.commands)
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        while !self.is_stopping {
            if let Err(error) = self.wait(&mut events) {
                // Only a bug of ours makes epoll_wait fail. Retrying would hide it and starve the machine.
                tracing::error!(%error, "a relay thread cannot wait for its sockets and stops");
                return;
            }
            self.sessions.expire_timers();
            let queued = self.sessions.queued();
            let has_commands = self.take_events(&events);
            self.sessions.run_queue(queued);
            if has_commands {
                self.run_commands();
            }
            self.sessions.count_waits();
        }
    }

    /// Waits until there is something to do.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let next = self.sessions.next_time();
        let has_work = self.sessions.queued() > 0 || next.is_some_and(|next| next <= self.sessions.thread.now);
        if !has_work && let Some(next) = next {
            self.timer.set(next)?;
        }
        match self.poll.poll(events, has_work.then_some(Duration::ZERO)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            result => result?,
        }
        self.sessions.thread.now = Instant::now();
        Ok(())
    }

    /// Reports the events to their sessions, in the order in which the kernel saw them. Returns whether there are commands.
    fn take_events(&mut self, events: &Events) -> bool {
        let mut has_commands = false;
        for event in events {
            match event.token() {
                COMMANDS => has_commands = true,
                TIMER => self.timer.expired(),
                token => {
                    let (key, endpoint) = leg_of(token);
                    self.sessions.on_event(key, endpoint, ready(event));
                }
            }
        }
        has_commands
    }

    fn run_commands(&mut self) {
        for command in self.commands.take() {
            match command {
                ThreadCommand::Adopt(new) => self.adopt(*new),
                ThreadCommand::Drain(plan, offset) => self.sessions.drain(plan, offset),
                ThreadCommand::CloseSome(order, answer) => answer(self.sessions.close_some(&order)),
                ThreadCommand::Stop => {
                    self.is_stopping = true;
                    self.sessions.cut_all();
                }
            }
        }
    }

    fn adopt(&mut self, new: NewSession) {
        // A panic must not end the other sessions: the session's guard reports it when it is dropped.
        let adopted = catch_unwind(AssertUnwindSafe(|| self.try_adopt(new)));
        match adopted {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::error!(%error, "cannot watch the sockets of a session; the session is dropped"),
            Err(_) => tracing::error!("a session panicked while it was opened"),
        }
        self.sessions.forget_arriving();
    }

    fn try_adopt(&mut self, new: NewSession) -> io::Result<()> {
        let NewSession { sockets, early, policy, extensions, opened, guard, permit } = new;
        let key = self.sessions.vacant_key();
        for endpoint in Endpoint::BOTH {
            let fd = sockets[endpoint].as_raw_fd();
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut SourceFd(&fd), token(key, endpoint), interest)?;
        }
        let PerEndpoint { client, server } = sockets;
        let transports = PerEndpoint { client: TcpTransport::new(client), server: TcpTransport::new(server) };
        let session = Session::new(policy, extensions, opened, self.random.u64(..));
        self.sessions.insert(OpenSession { transports, session, early, guard, permit }, self.index);
        Ok(())
    }
}

/// The two tokens of a session are adjacent.
fn token(key: usize, endpoint: Endpoint) -> Token {
    Token(key * 2 + usize::from(endpoint == Endpoint::Server))
}

/// The session and the leg of a token.
fn leg_of(Token(token): Token) -> (usize, Endpoint) {
    (token / 2, if token % 2 == 0 { Endpoint::Client } else { Endpoint::Server })
}

fn ready(event: &Event) -> Ready {
    Ready {
        readable: event.is_readable(),
        writable: event.is_writable(),
        hung_up: event.is_read_closed(),
        error: event.is_error(),
    }
}
