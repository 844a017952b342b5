//! A panic in any call of a session ends that session alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use super::super::{
    accounting::SessionGuard,
    backlog::Budget,
    driver::ThreadState,
    session_table::{OpenSession, SessionTable},
    testing::SimTransport,
    transport::Ready,
};
use crate::{
    admission::{Admission, Limits, OtherDescriptors},
    journal::{HandshakeInfo, Journal, SessionInfo},
    metrics::{Metrics, MetricsOptions},
    session::{LegEnd, Policy, Session},
    websocket::{
        Endpoint::{self, Client, Server},
        PerEndpoint,
        conformance::Extensions,
    },
};

/// "Hi", as servers send it.
const TEXT: [u8; 4] = [0x81, 2, b'H', b'i'];

const READABLE: Ready = Ready { readable: true, writable: false, hung_up: false, error: false };
const WRITABLE: Ready = Ready { readable: false, writable: true, hung_up: false, error: false };

/// A thread's sessions, and everything that counts them.
struct Thread {
    sessions: SessionTable<SimTransport>,
    open: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    admission: Admission,
    journal: Arc<Journal>,
}

impl Thread {
    fn new() -> Self {
        let metrics = Arc::new(Metrics::new(MetricsOptions { workers: 1, ..MetricsOptions::default() }));
        let open = Arc::<AtomicUsize>::default();
        let others = OtherDescriptors { workers: 1, client_listeners: 1, admin_listeners: 1 };
        let limits = Limits { connections: Some(10), connections_per_ip: None, others };
        let budget = Arc::new(Budget::new(u64::MAX));
        let thread = ThreadState { now: Instant::now(), budget, backlogs: Arc::default(), dead_link_timeout: None };
        Self {
            sessions: SessionTable::new(Arc::clone(&open), thread),
            open,
            admission: Admission::new(limits, Arc::clone(&metrics)),
            metrics,
            journal: Arc::new(Journal::new(10)),
        }
    }

    /// Opens a session, and returns its connections.
    fn open(&mut self) -> PerEndpoint<SimTransport> {
        self.open.fetch_add(1, Ordering::Relaxed);
        let legs = PerEndpoint::from_fn(|_| SimTransport::new());
        let policy = Policy { buffer_bytes: usize::MAX, ..Policy::default() };
        let route = self.metrics.route("default");
        let new = OpenSession {
            transports: legs.clone(),
            session: Session::new(Arc::new(policy), Extensions::None, Instant::now(), 0),
            early: PerEndpoint::default(),
            guard: SessionGuard::new(SessionInfo::default(), Box::new(handshake()), route, Arc::clone(&self.journal)),
            permit: self.admission.admit().unwrap(),
        };
        self.sessions.insert(new, 0);
        legs
    }

    /// The value of a series.
    fn metric(&self, series: &str) -> String {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("no {series}")).rsplit(' ').next().unwrap().to_owned()
    }

    /// The server of the session with this key sends a message.
    fn send(&mut self, key: usize, legs: &PerEndpoint<SimTransport>) {
        legs.server.sim().incoming.extend(TEXT);
        self.sessions.on_event(key, Server, READABLE);
    }
}

fn handshake() -> HandshakeInfo {
    HandshakeInfo { started: Instant::now(), client: None, peer: None, server: None, agent: None, path: None }
}

/// Makes a call of this name panic in the first of two sessions. `provoke` leads to the call.
fn panic_in(endpoint: Endpoint, call: &'static str, provoke: impl FnOnce(&mut Thread, &PerEndpoint<SimTransport>)) {
    let mut thread = Thread::new();
    let (panicking, other) = (thread.open(), thread.open());
    panicking[endpoint].sim().panics_at = Some(call);
    provoke(&mut thread, &panicking);
    assert_eq!(thread.open.load(Ordering::Relaxed), 1, "{call}: the session is gone");
    assert_eq!(thread.metric(r#"websocket_sessions_active{route="default"}"#), "1", "{call}");
    assert_eq!(thread.metric("closewatch_connections_active"), "1", "{call}: its permit is returned");
    assert_eq!(thread.metric(r#"websocket_buffered_bytes{from="server",route="default"}"#), "0", "{call}");
    assert_eq!(thread.sessions.thread.backlogs.load(Ordering::Relaxed), 0, "{call}");
    let records = thread.journal.latest(10);
    assert_eq!(records.len(), 1, "{call}: it is recorded once");
    assert!(!records[0].summary.ending.is_clean(), "{call}");

    thread.send(1, &other);
    assert_eq!(other.client.sim().sent, TEXT, "{call}: the other session goes on");
}

#[test]
fn panic_in_an_event_ends_that_session_only() {
    panic_in(Client, "on_ready", |thread, _| thread.sessions.on_event(0, Client, READABLE));
}

#[test]
fn panic_in_a_read_ends_that_session_only() {
    panic_in(Server, "read", |thread, legs| thread.send(0, legs));
}

#[test]
fn panic_in_a_write_ends_that_session_only() {
    panic_in(Client, "write", |thread, legs| thread.send(0, legs));
}

#[test]
fn panic_with_a_backlog_settles_its_accounts() {
    panic_in(Client, "on_ready", |thread, legs| {
        legs.client.sim().room = 0;
        thread.send(0, legs);
        assert_eq!(thread.metric(r#"websocket_buffered_bytes{from="server",route="default"}"#), "4");
        thread.sessions.on_event(0, Client, WRITABLE);
    });
}

#[test]
fn panic_in_a_flush_ends_that_session_only() {
    panic_in(Client, "flush", |thread, legs| {
        legs.client.sim().holds = true;
        thread.send(0, legs);
        thread.sessions.on_event(0, Client, WRITABLE);
    });
}

#[test]
fn panic_in_a_fin_ends_that_session_only() {
    panic_in(Client, "finish", |thread, legs| {
        legs.server.sim().incoming_end = Some(LegEnd::Fin);
        thread.sessions.on_event(0, Server, READABLE);
    });
}

#[test]
fn panic_in_a_reset_ends_that_session_only() {
    panic_in(Client, "abort", |thread, legs| {
        legs.server.sim().incoming_end = Some(LegEnd::Reset);
        thread.sessions.on_event(0, Server, READABLE);
    });
}

/// The last calls of a session: the kernel's view of both legs, and reading the rest.
#[test]
fn panic_at_the_end_ends_that_session_only() {
    for call in ["tcp_info", "discard_input"] {
        panic_in(Client, call, |thread, legs| {
            let close = [0x88, 0];
            legs.server.sim().incoming.extend(close);
            thread.sessions.on_event(0, Server, READABLE);
            legs.client.sim().incoming.extend([0x88, 0x80, 0, 0, 0, 0]);
            thread.sessions.on_event(0, Client, READABLE);
            legs.server.sim().incoming_end = Some(LegEnd::Fin);
            thread.sessions.on_event(0, Server, READABLE);
        });
    }
}
