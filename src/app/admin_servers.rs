//! The admin's listeners: `admin.listen`, and `metrics.listen` if it is configured. One thread of their own serves them, so
//! that opening handshakes and scrapes do not delay each other, nor health.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, mpsc},
    thread,
};

use tokio::runtime::Builder;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{PassedSockets, StartError, start_error};
use crate::{
    admin::{self, Admin, Options, Scope},
    admission::{admin_connections, open_file_limit},
    config::Config,
};

/// The admin's listeners before they are served.
#[derive(Debug)]
pub(super) struct BoundAdmin {
    admin: TcpListener,
    metrics: Option<TcpListener>,
}

/// The servers of the admin.
pub(super) struct AdminServers {
    admin: Arc<Admin>,
    stop: CancellationToken,
    /// Empty when the thread has ended.
    thread: TaskTracker,
}

impl BoundAdmin {
    pub(super) fn new(config: &Config, sockets: &mut PassedSockets) -> Result<Self, StartError> {
        let metrics = config.metrics.listen.map(|address| listen("metrics", address, sockets)).transpose()?;
        Ok(Self { admin: listen("admin", *config.admin.listen, sockets)?, metrics })
    }

    /// The address of page, API and metrics, and that of metrics and health alone, with their real ports.
    pub(super) fn addresses(&self) -> Result<(SocketAddr, Option<SocketAddr>), StartError> {
        let address = |socket: &TcpListener| socket.local_addr().map_err(start_error("the admin's address"));
        Ok((address(&self.admin)?, self.metrics.as_ref().map(address).transpose()?))
    }
}

impl AdminServers {
    /// Starts the thread that serves the admin.
    pub(super) fn start(bound: BoundAdmin, admin: Admin) -> io::Result<Self> {
        let servers = Self { admin: Arc::new(admin), stop: CancellationToken::new(), thread: TaskTracker::new() };
        let (admin, stop, running) = (Arc::clone(&servers.admin), servers.stop.clone(), servers.thread.token());
        let (sender, started) = mpsc::sync_channel(1);
        let run = move || {
            run(bound, &admin, &stop, &sender);
            drop(running);
        };
        thread::Builder::new().name("admin".to_owned()).spawn(run)?;
        started.recv().unwrap_or_else(|_| Err(io::Error::other("its thread has panicked")))?;
        Ok(servers)
    }

    /// Changes the permissions, from the next request on.
    pub(super) fn reconfigure(&self, options: Options) {
        self.admin.options.store(Arc::new(options));
    }

    /// Closes the listeners, and waits a moment for the responses in flight.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.thread.close();
        self.thread.wait().await;
    }
}

fn listen(what: &str, address: SocketAddr, sockets: &mut PassedSockets) -> Result<TcpListener, StartError> {
    let socket = sockets.listen(address).and_then(|socket| {
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    socket.map_err(start_error(format!("{what} {address}")))
}

/// Runs the servers on this thread until `stop`. `started` gets the result of the preparation.
fn run(bound: BoundAdmin, admin: &Arc<Admin>, stop: &CancellationToken, started: &mpsc::SyncSender<io::Result<()>>) {
    let servers = TaskTracker::new();
    let prepared = Builder::new_current_thread().enable_all().build().and_then(|runtime| {
        let _context = runtime.enter();
        let connections = admin_connections(open_file_limit());
        let listeners = [(Some(bound.admin), Scope::Full), (bound.metrics, Scope::MetricsOnly)];
        for (listener, scope) in listeners.into_iter().filter_map(|(listener, scope)| Some((listener?, scope))) {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            servers.spawn(admin::serve(listener, Arc::clone(admin), connections, scope, stop.clone()));
        }
        Ok(runtime)
    });
    servers.close();
    let runtime = prepared.map(|runtime| {
        let _ = started.send(Ok(()));
        runtime.block_on(servers.wait());
    });
    if let Err(error) = runtime {
        let _ = started.send(Err(error));
    }
}
