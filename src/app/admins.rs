//! The addresses of the admin: `admin.listen`, and `metrics.listen` where it is configured.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Sockets, StartError, start_error};
use crate::{
    admin::{self, Admin, Options, Scope},
    config::Config,
};

/// The admin's listeners.
#[derive(Debug)]
pub(super) struct Bound {
    admin: TcpListener,
    metrics: Option<TcpListener>,
}

/// The admin, which is served.
pub(super) struct Admins {
    admin: Arc<Admin>,
    stop: CancellationToken,
    servers: TaskTracker,
}

impl Bound {
    pub(super) fn new(config: &Config, sockets: &mut Sockets) -> Result<Self, StartError> {
        let metrics = config.metrics.listen.map(|address| listen("metrics", address, sockets)).transpose()?;
        Ok(Self { admin: listen("admin", *config.admin.listen, sockets)?, metrics })
    }

    /// The address of page, API and metrics, with its real port; and that of nothing but metrics and health.
    pub(super) fn addresses(&self) -> Result<(SocketAddr, Option<SocketAddr>), StartError> {
        let address = |socket: &TcpListener| socket.local_addr().map_err(start_error("the admin's address"));
        Ok((address(&self.admin)?, self.metrics.as_ref().map(address).transpose()?))
    }
}

impl Admins {
    /// Serves the admin.
    pub(super) fn serve(bound: Bound, admin: Admin) -> Self {
        let admins = Self { admin: Arc::new(admin), stop: CancellationToken::new(), servers: TaskTracker::new() };
        let bound = [(Some(bound.admin), Scope::Full), (bound.metrics, Scope::MetricsOnly)];
        for (socket, scope) in bound.into_iter().filter_map(|(socket, scope)| Some((socket?, scope))) {
            admins.servers.spawn(admin::serve(socket, Arc::clone(&admins.admin), scope, admins.stop.clone()));
        }
        admins
    }

    /// Changes who may do what, from the next request on.
    pub(super) fn reconfigure(&self, options: Options) {
        self.admin.options.store(Arc::new(options));
    }

    /// Takes no more requests. Waits for the answers that are being read, if only for a moment.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.servers.close();
        self.servers.wait().await;
    }
}

fn listen(what: &str, address: SocketAddr, sockets: &mut Sockets) -> Result<TcpListener, StartError> {
    let listen = |sockets: &mut Sockets| {
        let socket = sockets.listen(address)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket)
    };
    listen(sockets).map_err(start_error(format!("{what} {address}")))
}
