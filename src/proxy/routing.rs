//! Which route a request takes, and what is known of each route beforehand.

use std::{net::IpAddr, sync::Arc};

use hyper::header::{self, HeaderValue};

use super::{
    connector::Connector,
    forwarding_headers::{self, HeaderFields},
    http::{pool::Pool, validate::Limits},
    proxy_protocol::Ends,
};
use crate::{
    config::{self, Config, Forwarded, HostHeader, Privacy, Probes},
    metrics::{Metrics, RouteMetrics},
    relay::Policy,
    websocket::PerEndpoint,
};

/// The routes of one configuration, and what holds for all of them.
#[derive(Debug)]
pub(super) struct Routing {
    pub(super) routes: Vec<Arc<Route>>,
    pub(super) privacy: Privacy,
    pub(super) connection_limits: Limits,
    forwarded: Forwarded,
    host: HostHeader,
    probes: Probes,
    /// What sessions of probes are told as.
    probe: Option<Arc<RouteMetrics>>,
}

/// One route.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) config: config::Route,
    pub(super) metrics: Arc<RouteMetrics>,
    pub(super) policy: Arc<Policy>,
    pub(super) connector: Connector,
    pub(super) pool: Pool,
}

impl Routing {
    pub(super) fn new(config: &Config, metrics: &Metrics) -> Self {
        let routes = config.routes.iter().map(|route| Arc::new(Route::new(route, config, metrics))).collect();
        Self {
            routes,
            privacy: config.privacy.clone(),
            connection_limits: Limits {
                head_timeout: config.request_head_timeout,
                head_bytes: config.request_head_bytes,
            },
            forwarded: config.forwarded.clone(),
            host: config.host,
            probe: (!config.probes.user_agents.is_empty()).then(|| metrics.route("probe")),
            probes: config.probes.clone(),
        }
    }

    /// The first route that matches.
    pub(super) fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| route.config.matches(host, path))
    }

    /// Tells the route's server in a request's headers for whom it is.
    pub(super) fn forward(&self, headers: &mut impl HeaderFields, route: &Route, ends: Ends) {
        let host = headers.values(&header::HOST).next().and_then(|host| HeaderValue::from_bytes(host).ok());
        forwarding_headers::forward(headers, &self.forwarded, ends, host.as_ref());
        if self.host == HostHeader::Upstream
            && let Ok(authority) = HeaderValue::try_from(&route.config.upstream.authority)
        {
            headers.set(header::HOST, authority);
        }
    }

    /// Whose counts a request goes to: its route's, or the probes', where it is one by its user agent and its address.
    pub(super) fn metrics_for(&self, route: &Route, user_agent: Option<&str>, client: IpAddr) -> Arc<RouteMetrics> {
        let named = |agent: &str| self.probes.user_agents.iter().any(|probe| agent.contains(probe.as_str()));
        let is_probe = user_agent.is_some_and(named) && self.probes.from.iter().any(|source| source.contains(client));
        match &self.probe {
            Some(probe) if is_probe => Arc::clone(probe),
            _ => Arc::clone(&route.metrics),
        }
    }
}

impl Route {
    fn new(route: &config::Route, config: &Config, metrics: &Metrics) -> Self {
        let connector = Connector::new(&route.upstream, &config.keepalive);
        Self {
            config: route.clone(),
            metrics: metrics.route(&route.name),
            policy: Arc::new(policy(route)),
            pool: Pool::new(connector.clone()),
            connector,
        }
    }
}

fn policy(route: &config::Route) -> Policy {
    Policy {
        idle: route.timeouts.idle,
        max_age: route.timeouts.max_age,
        close: route.timeouts.close,
        hang_up: route.timeouts.hang_up,
        frame_bytes: route.limits.frame_bytes,
        message_bytes: route.limits.message_bytes,
        buffer_bytes: route.limits.buffer_bytes,
        on_loss: PerEndpoint { client: route.on_client_loss.clone(), server: route.on_server_loss.clone() },
    }
}
