//! The control plane: connections are taken, opening handshakes forwarded, plain HTTP passed through. At a 101 the two
//! sockets, and what was already read of them, go to the data plane.
//!
//! A `connection` begins as bytes. Where its first head is an upgrade it is the `handshake`'s; else, and where an upgrade is
//! refused, the HTTP library serves it (`serving`), until a request behind the others is an upgrade again.

mod connection;
mod connector;
mod forwarding_headers;
mod http;
mod listener;
mod proxy_protocol;
mod replay;
mod routing;
mod socket_options;
mod upgrade;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use arc_swap::ArcSwap;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use listener::Listener;

use self::routing::Routing;
use crate::{
    admission::{self, Admission, OtherDescriptors},
    config::Config,
    journal::Journal,
    metrics::{Metrics, RouteMetrics},
    relay::Relay,
};

/// What all connections of the public listeners share.
#[derive(Debug)]
pub struct Proxy {
    routing: ArcSwap<Routing>,
    admission: Admission,
    metrics: Arc<Metrics>,
    /// For requests that no route took.
    unrouted: Arc<RouteMetrics>,
    journal: Arc<Journal>,
    relay: Arc<Relay>,
    is_draining: AtomicBool,
    /// Ends connections that have nothing in flight, and the others when they have no more.
    closing: CancellationToken,
    /// Ends the waiting for the servers' answers.
    cutting: CancellationToken,
    /// Requests that were answered because of that.
    cut_requests: AtomicUsize,
    /// The listeners, and the connections that are no sessions.
    in_service: TaskTracker,
}

impl Proxy {
    /// A proxy for the routes of a configuration.
    pub fn new(config: &Config, metrics: Arc<Metrics>, journal: Arc<Journal>, relay: Arc<Relay>) -> Arc<Self> {
        Arc::new(Self {
            routing: ArcSwap::from_pointee(Routing::new(config, &metrics)),
            admission: Admission::new(admission_limits(config), Arc::clone(&metrics)),
            unrouted: metrics.route(""),
            metrics,
            journal,
            relay,
            is_draining: AtomicBool::new(false),
            closing: CancellationToken::new(),
            cutting: CancellationToken::new(),
            cut_requests: AtomicUsize::new(0),
            in_service: TaskTracker::new(),
        })
    }

    /// Takes over a new configuration for the connections, requests and sessions to come.
    pub fn reconfigure(&self, config: &Config) {
        self.admission.reconfigure(admission_limits(config));
        self.routing.store(Arc::new(Routing::new(config, &self.metrics)));
    }

    /// Takes connections until `stop`.
    pub fn listen(self: &Arc<Self>, listener: Listener, stop: CancellationToken) {
        self.in_service.spawn(listener.run(Arc::clone(self), stop));
    }

    /// From now on upgrade requests are refused, and every answer ends its connection.
    pub fn refuse_sessions(&self) {
        self.is_draining.store(true, Ordering::Release);
    }

    /// Ends connections that have nothing in flight, and waits until the others have no more. What was a handshake is a
    /// session then. Only after the listeners were stopped.
    pub async fn finish(&self) {
        self.closing.cancel();
        self.in_service.close();
        self.in_service.wait().await;
    }

    /// Answers the requests that still wait for their server's answer, with 503, and waits like [`Self::finish`].
    pub async fn cut(&self) {
        self.cutting.cancel();
        self.finish().await;
    }

    /// How many requests were cut: answered by [`Self::cut`], or still in flight after it.
    pub fn cut_requests(&self) -> usize {
        self.cut_requests.load(Ordering::Relaxed) + self.in_service.len()
    }

    /// What comes of waiting for a server's answer; nothing where the request is cut.
    async fn unless_cut<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let outcome = self.cutting.run_until_cancelled(answer).await;
        if outcome.is_none() {
            self.cut_requests.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }
}

fn admission_limits(config: &Config) -> admission::Limits {
    admission::Limits {
        connections: config.connections,
        connections_per_ip: config.connections_per_ip,
        others: OtherDescriptors {
            workers: config.workers.get(),
            client_listeners: config.listen.len(),
            admin_listeners: 1 + usize::from(config.metrics.listen.is_some()),
        },
    }
}
