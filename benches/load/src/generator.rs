//! The load generator: opens sessions, keeps them busy, closes them, and counts.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll, Token};
use slab::Slab;

use crate::frame::{self, Shape};
use crate::latency::Latencies;
use crate::session::{Identity, Session, Step};

/// The limit of one read or one write.
const SCRATCH: usize = 256 * 1024;
/// Concurrent opening handshakes, well below the backlog of any listener.
const OPENING_AT_ONCE: u64 = 64;
/// Without any event for so long, something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// All sessions, and the current command.
pub(crate) struct Generator {
    address: SocketAddr,
    routes: u32,
    close_codes: Vec<u16>,
    poll: Poll,
    sessions: Slab<Session>,
    shapes: Vec<Load>,
    task: Task,
    scratch: Vec<u8>,
    /// Messages without a reply yet.
    outstanding: u64,
    /// Durations from connect to the end, for the sessions of the last churn.
    lifetimes: Latencies,
    totals: Totals,
}

/// A shape, and the counts of its sessions.
struct Load {
    shape: Shape,
    sessions: u64,
    /// Since the start of the generator.
    messages: u64,
    /// Of the current run.
    run_messages: u64,
    latencies: Latencies,
}

#[derive(Clone, Copy)]
enum Task {
    /// A session sends one message.
    Open,
    /// A session sends another message after each reply, until this time.
    Run {
        until: Instant,
    },
    /// A session sends one message and closes.
    Churn,
    Close,
}

#[derive(Default)]
struct Totals {
    started: u64,
    upgraded: u64,
    closed: BTreeMap<u16, u64>,
}

impl Totals {
    fn all_closed(&self) -> u64 {
        self.closed.values().sum()
    }
}

impl Generator {
    pub(crate) fn new(address: SocketAddr, routes: u32, close_codes: Vec<u16>) -> io::Result<Self> {
        Ok(Self {
            address,
            routes,
            close_codes,
            poll: Poll::new()?,
            sessions: Slab::new(),
            shapes: Vec::new(),
            task: Task::Open,
            scratch: vec![0; SCRATCH],
            outstanding: 0,
            lifetimes: Latencies::new(),
            totals: Totals::default(),
        })
    }

    /// Opens `count` sessions and exchanges one message on each.
    pub(crate) fn open(&mut self, count: u64, size: usize, in_flight: u64) -> Result<String, String> {
        let shape = self.shape(size, in_flight);
        self.task = Task::Open;
        let begun = Instant::now();
        let target = self.totals.started + count;
        while self.totals.upgraded < target || self.outstanding > 0 {
            let opening = self.totals.started - self.totals.upgraded;
            for _ in 0..(OPENING_AT_ONCE - opening).min(target - self.totals.started) {
                self.start(shape)?;
            }
            self.turn()?;
        }
        self.shapes[shape].sessions += count;
        Ok(self.report(begun, ""))
    }

    /// Keeps every session busy for a time, then waits for the last reply.
    pub(crate) fn run(&mut self, milliseconds: u64) -> Result<String, String> {
        for load in &mut self.shapes {
            load.run_messages = 0;
            load.latencies = Latencies::new();
        }
        let begun = Instant::now();
        self.task = Task::Run { until: begun + Duration::from_millis(milliseconds) };
        let indices: Vec<usize> = self.sessions.iter().map(|(index, _)| index).collect();
        for index in indices {
            let in_flight = self.shapes[self.sessions[index].shape].shape.in_flight;
            self.allow(index, in_flight, Instant::now()).map_err(|error| error.to_string())?;
        }
        while self.outstanding > 0 {
            self.turn()?;
        }
        Ok(self.report(begun, &self.run_results()))
    }

    /// Opens, uses and closes sessions for a time, `width` at once, then waits for the end of the last one.
    pub(crate) fn churn(&mut self, width: usize, milliseconds: u64) -> Result<String, String> {
        let shape = self.shapes.len().checked_sub(1).ok_or("open a session first: it sets the shape")?;
        self.task = Task::Churn;
        self.lifetimes = Latencies::new();
        let begun = Instant::now();
        let duration = Duration::from_millis(milliseconds);
        let resting = self.sessions.len();
        let closed_before = self.totals.all_closed();
        while begun.elapsed() < duration || self.sessions.len() > resting {
            let width = if begun.elapsed() < duration { resting + width } else { 0 };
            for _ in self.sessions.len()..width {
                self.start(shape)?;
            }
            self.turn()?;
        }
        let churned = self.totals.all_closed() - closed_before;
        let [p50, p99] = [0.5, 0.99].map(|share| self.lifetimes.quantile(share));
        Ok(self.report(begun, &format!("\"churned\":{churned},\"p50_us\":{p50},\"p99_us\":{p99},")))
    }

    /// The closing handshake on every session.
    pub(crate) fn close(&mut self) -> Result<String, String> {
        self.task = Task::Close;
        let begun = Instant::now();
        for (_, session) in &mut self.sessions {
            session.close().map_err(|error| error.to_string())?;
        }
        while !self.sessions.is_empty() {
            self.turn()?;
        }
        Ok(self.report(begun, ""))
    }

    fn shape(&mut self, size: usize, in_flight: u64) -> usize {
        let known = self.shapes.iter().position(|load| load.shape.size == size && load.shape.in_flight == in_flight);
        known.unwrap_or_else(|| {
            let shape = Shape::new(size, in_flight);
            self.shapes.push(Load { shape, sessions: 0, messages: 0, run_messages: 0, latencies: Latencies::new() });
            self.shapes.len() - 1
        })
    }

    fn start(&mut self, shape: usize) -> Result<(), String> {
        let number = u32::try_from(self.totals.started).map_err(|_| "too many sessions")?;
        self.totals.started += 1;
        let turn = (number / self.routes) as usize;
        let close_code = self.close_codes[turn % self.close_codes.len()];
        let identity = Identity { number, route: number % self.routes, close_code, shape };
        let entry = self.sessions.vacant_entry();
        let session = Session::connect(self.address, &identity, Token(entry.key()), self.poll.registry());
        entry.insert(session.map_err(|error| format!("connecting session {number}: {error}"))?);
        Ok(())
    }

    /// Waits for events and handles them.
    fn turn(&mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        match self.poll.poll(&mut events, Some(PATIENCE)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            outcome => outcome.map_err(|error| error.to_string())?,
        }
        if events.is_empty() {
            return Err(format!("no event for {PATIENCE:?}; {} messages are in flight", self.outstanding));
        }
        events.iter().try_for_each(|event| self.handle(event)).map_err(|error| error.to_string())
    }

    fn handle(&mut self, event: &Event) -> io::Result<()> {
        let Token(index) = event.token();
        let Some(session) = self.sessions.get_mut(index) else { return Ok(()) };
        let shape = &mut self.shapes[session.shape].shape;
        match session.ready(event, self.poll.registry(), shape, &mut self.scratch)? {
            Step::None => Ok(()),
            Step::Upgraded => {
                self.totals.upgraded += 1;
                self.allow(index, 1, Instant::now())
            }
            Step::Replies(count) => self.replies(index, count),
            Step::Closed => {
                *self.totals.closed.entry(session.close_code).or_default() += 1;
                self.lifetimes.record(session.born.elapsed());
                self.sessions.remove(index);
                Ok(())
            }
        }
    }

    fn replies(&mut self, index: usize, count: u64) -> io::Result<()> {
        let now = Instant::now();
        let session = &mut self.sessions[index];
        let load = &mut self.shapes[session.shape];
        for _ in 0..count {
            let allowed_at = session.take_allowed_at().expect("a reply answers a message that was allowed");
            load.latencies.record(now - allowed_at);
        }
        load.messages += count;
        load.run_messages += count;
        self.outstanding -= count;
        match self.task {
            Task::Run { until } if now < until => self.allow(index, count, now),
            Task::Churn => session.close(),
            Task::Run { .. } | Task::Open | Task::Close => Ok(()),
        }
    }

    fn allow(&mut self, index: usize, count: u64, now: Instant) -> io::Result<()> {
        self.outstanding += count;
        let session = &mut self.sessions[index];
        let shape = &mut self.shapes[session.shape].shape;
        session.allow(count, now, shape, &mut self.scratch)
    }

    fn run_results(&self) -> String {
        let mut text = String::from("\"results\":[");
        for (index, load) in self.shapes.iter().enumerate() {
            let Load { shape, sessions, run_messages, latencies, .. } = load;
            let comma = if index > 0 { "," } else { "" };
            let quantiles = [0.5, 0.99, 0.999].map(|share| latencies.quantile(share));
            let [p50, p99, p999] = quantiles;
            let _ = write!(
                text,
                "{comma}{{\"size\":{},\"in_flight\":{},\"sessions\":{sessions},\"messages\":{run_messages},\
                 \"p50_us\":{p50},\"p99_us\":{p99},\"p999_us\":{p999}}}",
                shape.size, shape.in_flight
            );
        }
        text + "],"
    }

    /// The figures of the command, and the exact counts since the start of the generator.
    fn report(&self, begun: Instant, results: &str) -> String {
        let closed = self.totals.all_closed();
        let sum = |amount: fn(&Shape) -> u64| -> u64 {
            self.shapes.iter().map(|load| load.messages * amount(&load.shape)).sum()
        };
        let codes: Vec<String> = self.totals.closed.iter().map(|(code, count)| format!("\"{code}\":{count}")).collect();
        format!(
            "{{\"seconds\":{:.6},{results}\"totals\":{{\"sessions\":{},\"active\":{},\"messages\":{},\
             \"payload_bytes\":{},\"client_bytes\":{},\"server_bytes\":{},\"closes\":{{{}}}}}}}",
            begun.elapsed().as_secs_f64(),
            self.totals.upgraded,
            self.sessions.len(),
            sum(|_| 1),
            sum(|shape| shape.size as u64),
            sum(|shape| shape.request.length()) + closed * frame::CLOSE_REQUEST_LENGTH,
            sum(|shape| shape.reply.length()) + closed * frame::CLOSE_REPLY_LENGTH,
            codes.join(",")
        )
    }
}
