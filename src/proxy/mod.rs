//! The control plane: connections are taken, opening handshakes forwarded, plain HTTP passed through. At a 101 the two
//! sockets, and what was already read of them, go to the data plane.

mod about;
mod connection;
mod handshake;
mod headers;
mod http;
mod listener;
mod proxy_protocol;
mod request;
mod response;
mod routing;
mod stream;
mod upstream;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use listener::Listener;

use self::routing::Routing;
use crate::{
    admission::Admission,
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
    /// Ends keep-alive connections once what they have in flight is done.
    closing: CancellationToken,
    connections: TaskTracker,
}

impl Proxy {
    /// A proxy for the routes of a configuration.
    pub fn new(config: &Config, metrics: Arc<Metrics>, journal: Arc<Journal>, relay: Arc<Relay>) -> Arc<Self> {
        Arc::new(Self {
            routing: ArcSwap::from_pointee(Routing::new(config, &metrics)),
            admission: Admission::new(config, Arc::clone(&metrics)),
            unrouted: metrics.route(""),
            metrics,
            journal,
            relay,
            is_draining: AtomicBool::new(false),
            closing: CancellationToken::new(),
            connections: TaskTracker::new(),
        })
    }

    /// Takes over a new configuration for the connections, requests and sessions to come.
    pub fn reconfigure(&self, config: &Config) {
        self.admission.reconfigure(config);
        self.routing.store(Arc::new(Routing::new(config, &self.metrics)));
    }

    /// From now on upgrade requests are refused, and connections end when what they have in flight is done.
    pub fn refuse_sessions(&self) {
        self.is_draining.store(true, Ordering::Release);
        self.closing.cancel();
        self.connections.close();
    }

    /// Waits until every connection that is not a session has ended. Only after [`Proxy::refuse_sessions`].
    pub async fn connections_ended(&self) {
        self.connections.wait().await;
    }

    fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }
}
