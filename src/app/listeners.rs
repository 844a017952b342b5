//! The public listeners. A reload can add and remove some.

use std::{net::SocketAddr, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::{PassedSockets, StartError, start_error};
use crate::{
    config::Config,
    proxy::{Listener, Proxy},
};

/// The running listeners.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    running: Vec<Bound>,
    /// Ends the accept loops of all running listeners.
    stop: CancellationToken,
    is_closed: bool,
}

/// A public address of a configuration and its socket.
#[derive(Debug)]
pub(super) struct Bound {
    /// As in the configuration: port 0 stays 0.
    address: SocketAddr,
    listener: Listener,
}

impl Listeners {
    /// Binds the listeners of a configuration. Running ones keep their sockets. If one cannot be bound, the new ones are
    /// closed again. After [`Listeners::close`] there are none.
    pub(super) fn bind(&self, config: &Config, sockets: &mut PassedSockets) -> Result<Vec<Bound>, StartError> {
        if self.is_closed {
            return Ok(Vec::new());
        }
        let mut running: Vec<&Bound> = self.running.iter().collect();
        let bound = config.listen.iter().map(|listen| {
            let address = *listen.address;
            let listener = match running.iter().position(|bound| bound.address == address) {
                Some(index) => running.remove(index).listener.expecting(*listen.proxy_protocol),
                None => sockets
                    .listen(address)
                    .and_then(|socket| Listener::new(socket, *listen.proxy_protocol, &config.keepalive))
                    .map_err(start_error(format!("listen {address}")))?,
            };
            Ok(Bound { address, listener })
        });
        bound.collect()
    }

    /// Accepts connections on these listeners only. Accepted connections stay.
    pub(super) fn run(&mut self, listeners: Vec<Bound>, proxy: &Arc<Proxy>) {
        let stop = CancellationToken::new();
        for bound in &listeners {
            proxy.listen(bound.listener.clone(), stop.clone());
        }
        // A listener that ends accepts the connections that wait on its socket, unless it sees a clone of itself.
        self.running = listeners;
        std::mem::replace(&mut self.stop, stop).cancel();
    }

    /// Closes all listeners for good.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.running.clear();
        self.stop.cancel();
    }

    /// The addresses in the order of the configuration, with their real ports.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.running.iter().map(|bound| bound.listener.address()).collect()
    }
}
