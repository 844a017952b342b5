//! The control plane: it accepts connections, forwards opening handshakes, and passes plain HTTP. At a 101 the two
//! sockets, and the bytes that were already read of them, go to the data plane.
//!
//! - A `listener` accepts a connection, and reads its PROXY header (`proxy_protocol`).
//! - The `connection` reads the heads of its requests (`request_reader`). An upgrade goes to `upgrade`, any other request to `http`.
//! - `client_address` finds the client behind trusted peers.
//! - `routing` finds the route of a request, and its `connector` connects to the server.
//! - `forwarding_headers` changes the headers in either case, `socket_options` the sockets.

mod client_address;
mod connection;
mod connector;
mod forwarding_headers;
mod http;
mod listener;
mod proxy_protocol;
mod request_reader;
mod routing;
mod socket_options;
mod upgrade;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use listener::Listener;

use self::{
    client_address::ClientAddress, proxy_protocol::Ends, routing::Routing, upgrade::session_info::shown_client,
};
use crate::{
    admission::{self, Admission, ConnectionPermit, OtherDescriptors},
    config::Config,
    journal::Journal,
    metrics::{Metrics, RejectReason, RouteMetrics},
    relay::Relay,
};

/// The state that all connections of the public listeners share.
#[derive(Debug)]
pub struct Proxy {
    routing: ArcSwap<Routing>,
    admission: Admission,
    metrics: Arc<Metrics>,
    /// Counts requests without a route.
    unrouted: Arc<RouteMetrics>,
    journal: Arc<Journal>,
    relay: Arc<Relay>,
    is_draining: AtomicBool,
    /// Ends connections that have nothing in flight, and the others as soon as they have nothing in flight.
    closing: CancellationToken,
    /// Ends the wait for servers' answers.
    cutting: CancellationToken,
    /// Requests that were answered for that reason.
    cut_requests: AtomicUsize,
    /// The listeners, and the connections that are not sessions.
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

    /// Uses another configuration for new connections, requests and sessions.
    pub fn reconfigure(&self, config: &Config) {
        self.admission.reconfigure(admission_limits(config));
        self.routing.store(Arc::new(Routing::new(config, &self.metrics)));
    }

    /// Accepts connections until `stop`.
    pub fn listen(self: &Arc<Self>, listener: Listener, stop: CancellationToken) {
        self.in_service.spawn(listener.run(Arc::clone(self), stop));
    }

    /// Refuses upgrade requests from now on, and ends each connection after its next response.
    pub fn refuse_sessions(&self) {
        self.is_draining.store(true, Ordering::Release);
    }

    /// Ends connections that have nothing in flight, and waits until the others have finished. A handshake has become a
    /// session by then. Call it when the listeners have stopped.
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

    /// The number of requests that were cut: answered by [`Self::cut`], or still in flight after it.
    pub fn cut_requests(&self) -> usize {
        self.cut_requests.load(Ordering::Relaxed) + self.in_service.len()
    }

    /// Waits for a server's answer. Returns nothing if the request is cut.
    async fn unless_cut<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let outcome = self.cutting.run_until_cancelled(answer).await;
        if outcome.is_none() {
            self.cut_requests.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    /// Counts a connection for its client's address. Behind a trusted peer, only the request names the client.
    fn admit_client(&self, permit: &mut ConnectionPermit, ends: Ends) -> bool {
        let ip = ends.client.ip();
        self.routing.load().trusts(ip) || self.admission.admit_client(permit, ip)
    }

    /// Counts a connection that brought no request.
    fn reject(&self, client: SocketAddr, reason: RejectReason) {
        self.metrics.connection_rejected(reason);
        self.log_rejected(client, reason);
    }

    fn log_rejected(&self, client: impl Into<ClientAddress>, reason: RejectReason) {
        let client = shown_client(*self.routing.load().privacy.client, client.into());
        tracing::debug!(client = client.as_deref(), reason = reason.as_str(), "connection rejected");
    }

    fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }
}

fn admission_limits(config: &Config) -> admission::Limits {
    admission::Limits {
        connections: *config.limits.connections,
        connections_per_ip: *config.limits.connections_per_ip,
        others: OtherDescriptors {
            workers: config.worker_count().get(),
            client_listeners: config.listen.len(),
            admin_listeners: 1 + usize::from(config.metrics.listen.is_some()),
        },
    }
}
