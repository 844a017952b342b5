//! The routes of a configuration, each with its connector, policy and metrics.

use std::{net::IpAddr, sync::Arc, time::Duration};

use hyper::header::{self, HeaderValue};

use super::{
    client_address::{ClientAddress, is_trusted, vouched_client},
    connection::Limits,
    connector::Connector,
    forwarding_headers::{self, HeaderFields, X_FORWARDED_FOR, has, texts},
    proxy_protocol::Ends,
};
use crate::{
    config::{self, Config, Forwarded, HostHeader, OnLoss, Privacy, Probes, Timeouts},
    metrics::{Metrics, RouteMetrics},
    session::Policy,
    websocket::PerEndpoint,
};

/// The routes of one configuration, and the settings for all of them.
#[derive(Debug)]
pub(super) struct Routing {
    pub(super) routes: Vec<Arc<Route>>,
    pub(super) privacy: Privacy,
    pub(super) connection_limits: Limits,
    forwarded: Forwarded,
    host: HostHeader,
    probes: Probes,
    /// The metrics of health checks.
    probe: Option<Arc<RouteMetrics>>,
}

/// One route.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) config: config::Route,
    pub(super) handshake_timeout: Option<Duration>,
    pub(super) metrics: Arc<RouteMetrics>,
    pub(super) policy: Arc<Policy>,
    pub(super) connector: Connector,
}

impl Routing {
    pub(super) fn new(config: &Config, metrics: &Metrics) -> Self {
        let routes = config.routes().into_iter().map(|route| Arc::new(Route::new(route, config, metrics))).collect();
        Self {
            routes,
            privacy: config.privacy.clone(),
            connection_limits: Limits {
                head_timeout: *config.timeouts.request_head,
                head_bytes: *config.limits.request_head_bytes,
                keep_alive: config.timeouts.keep_alive.unwrap_or(Duration::MAX),
                body: config.timeouts.body.unwrap_or(Duration::MAX),
            },
            forwarded: config.forwarded.clone(),
            host: *config.host,
            probe: (!config.probes.user_agents.is_empty()).then(|| metrics.route("probe")),
            probes: config.probes.clone(),
        }
    }

    /// The first route that matches.
    pub(super) fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| route.config.matches(host, path))
    }

    /// Adds the forwarding headers to a request for the route's server, and sets its Host header if it is configured.
    pub(super) fn forward(&self, headers: &mut impl HeaderFields, route: &Route, ends: Ends) {
        let host = headers.values(&header::HOST).next().and_then(|host| HeaderValue::from_bytes(host).ok());
        forwarding_headers::forward(headers, &self.forwarded, ends, host.as_ref());
        if self.host == HostHeader::Upstream
            && let Ok(authority) = HeaderValue::try_from(route.config.upstream.url.host_header())
        {
            headers.set(header::HOST, authority);
        }
    }

    /// Whether a peer is trusted to name the client of its requests.
    pub(super) fn trusts(&self, ip: IpAddr) -> bool {
        is_trusted(&self.forwarded.trusted, ip)
    }

    /// The client of a request, for records and limits.
    pub(super) fn client(&self, headers: &impl HeaderFields, ends: Ends) -> ClientAddress {
        vouched_client(&self.forwarded.trusted, headers, ends.client)
    }

    /// The metrics of an upgrade request: those of its route, or of the route `probe` if it is a health check.
    pub(super) fn metrics_for(&self, route: &Route, headers: &impl HeaderFields, client: IpAddr) -> Arc<RouteMetrics> {
        match &self.probe {
            Some(probe) if self.is_health_check(headers, client) => Arc::clone(probe),
            _ => Arc::clone(&route.metrics),
        }
    }

    /// Whether the User-Agent and the address are those of a health checker. A request that a proxy forwarded is never a
    /// health check: its User-Agent is the choice of a client somewhere, and its address is the proxy's.
    fn is_health_check(&self, headers: &impl HeaderFields, client: IpAddr) -> bool {
        let user_agent = texts(headers, &header::USER_AGENT).next();
        let is_known = |agent: &str| self.probes.user_agents.iter().any(|product| begins_with_product(agent, product));
        let was_forwarded = has(headers, &header::FORWARDED) || has(headers, &X_FORWARDED_FOR);
        user_agent.is_some_and(is_known)
            && !was_forwarded
            && self.probes.from.iter().any(|source| source.contains(client))
    }
}

/// Whether a User-Agent begins with a product token (RFC 9110, 10.1.5), with or without a version.
fn begins_with_product(user_agent: &str, product: &str) -> bool {
    let is_token = |character: char| character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character);
    user_agent.strip_prefix(product).is_some_and(|rest| !rest.starts_with(is_token))
}

impl Route {
    fn new(route: config::Route, config: &Config, metrics: &Metrics) -> Self {
        let timeouts = route.timeouts.over(&config.timeouts);
        Self {
            handshake_timeout: *timeouts.handshake,
            metrics: metrics.route(&route.name),
            policy: Arc::new(policy(&route, config, &timeouts)),
            connector: Connector::new(&route.upstream, &config.keepalive),
            config: route,
        }
    }
}

fn policy(route: &config::Route, config: &Config, timeouts: &Timeouts) -> Policy {
    let limits = route.limits.over(&config.limits);
    let on_loss = |own: &Option<OnLoss>, common: &OnLoss| own.as_ref().unwrap_or(common).close_text();
    Policy {
        idle: *timeouts.idle,
        max_age: *timeouts.max_age,
        close: *timeouts.close,
        hang_up: *timeouts.hang_up,
        frame_bytes: *limits.frame_bytes,
        message_bytes: *limits.message_bytes,
        buffer_bytes: *limits.buffer_bytes,
        on_loss: PerEndpoint {
            client: on_loss(&route.on_client_loss, &config.on_client_loss),
            server: on_loss(&route.on_server_loss, &config.on_server_loss),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_checker_is_the_first_product_token() {
        for (user_agent, expected) in [
            ("kube-probe/1.30", true),
            ("kube-probe", true),
            ("kube-probe (linux)", true),
            ("kube-probes/1.30", false),
            ("kube-probe-2/1.30", false),
            ("x kube-probe/1.30", false),
            ("Mozilla/5.0 (kube-probe)", false),
            ("Kube-Probe/1.30", false),
            ("", false),
        ] {
            assert_eq!(begins_with_product(user_agent, "kube-probe"), expected, "{user_agent}");
        }
    }
}
