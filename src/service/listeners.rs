//! The public listeners, which come and go with the configuration.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::{StartError, start_error};
use crate::{
    config::{Config, Listen},
    proxy::{Listener, Proxy},
};

/// The listeners that run.
pub(super) struct Listeners {
    running: HashMap<SocketAddr, Running>,
    stop: CancellationToken,
}

struct Running {
    listen: Listen,
    bound: SocketAddr,
    stop: CancellationToken,
}

impl Listeners {
    /// Binds and runs all listeners of a configuration.
    pub(super) fn bind(config: &Config, proxy: &Arc<Proxy>) -> Result<Self, StartError> {
        let mut listeners = Self { running: HashMap::new(), stop: CancellationToken::new() };
        listeners.rebind(config, proxy)?;
        Ok(listeners)
    }

    /// Binds what is new, and ends what is no longer configured. Where an address is refused, nothing changes.
    pub(super) fn rebind(&mut self, config: &Config, proxy: &Arc<Proxy>) -> Result<(), StartError> {
        let is_running = |listen: &Listen| self.running.get(&listen.address).is_some_and(|it| it.listen == *listen);
        let new: Vec<&Listen> = config.listen.iter().filter(|listen| !is_running(listen)).collect();
        let mut bound = Vec::with_capacity(new.len());
        for listen in new {
            let listener = Listener::bind(listen, config).map_err(start_error(format!("listen {}", listen.address)))?;
            bound.push((listen.clone(), listener));
        }
        self.running.retain(|_, running| {
            let stays = config.listen.contains(&running.listen);
            if !stays {
                running.stop.cancel();
            }
            stays
        });
        for (listen, listener) in bound {
            let stop = self.stop.child_token();
            let running = Running { bound: listener.address(), stop: stop.clone(), listen };
            self.running.insert(running.listen.address, running);
            tokio::spawn(listener.run(Arc::clone(proxy), stop));
        }
        Ok(())
    }

    /// The addresses, with their real ports.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.running.values().map(|running| running.bound).collect()
    }

    /// Ends all of them.
    pub(super) fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }
}
