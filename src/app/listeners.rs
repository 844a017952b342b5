//! The public listeners, which come and go with the configuration.

use std::{net::SocketAddr, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::{Sockets, StartError, start_error};
use crate::{
    config::Config,
    proxy::{Listener, Proxy},
};

/// The listeners that run.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    running: Vec<Bound>,
    /// Ends the accepting of connections on all that run.
    stop: CancellationToken,
    is_closed: bool,
}

/// A public address of a configuration and its socket.
#[derive(Debug)]
pub(super) struct Bound {
    /// As configured: port 0 stays 0.
    address: SocketAddr,
    listener: Listener,
}

impl Listeners {
    /// The listeners of a configuration. Those that run already keep their sockets; the others are new, and closed again
    /// where one of them cannot be had. Once all were closed for a drain there are none.
    pub(super) fn bind(&self, config: &Config, sockets: &mut Sockets) -> Result<Vec<Bound>, StartError> {
        if self.is_closed {
            return Ok(Vec::new());
        }
        let mut running: Vec<&Bound> = self.running.iter().collect();
        let bound = config.listen.iter().map(|listen| {
            let address = *listen.address;
            let listener = match running.iter().position(|bound| bound.address == address) {
                Some(place) => running.remove(place).listener.expecting(*listen.proxy_protocol),
                None => sockets
                    .listen(address)
                    .and_then(|socket| Listener::new(socket, *listen.proxy_protocol, &config.keepalive))
                    .map_err(start_error(format!("listen {address}")))?,
            };
            Ok(Bound { address, listener })
        });
        bound.collect()
    }

    /// Takes connections on these listeners, and no more on the others. The connections that were taken stay.
    pub(super) fn run(&mut self, listeners: Vec<Bound>, proxy: &Arc<Proxy>) {
        let stop = CancellationToken::new();
        for bound in &listeners {
            proxy.listen(bound.listener.clone(), stop.clone());
        }
        std::mem::replace(&mut self.stop, stop).cancel();
        self.running = listeners;
    }

    /// Closes all of them, for good.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.stop.cancel();
        self.running.clear();
    }

    /// The addresses in the order of the configuration, with their real ports.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.running.iter().map(|bound| bound.listener.address()).collect()
    }
}
