//! The demo's server.

use std::{
    net::SocketAddr,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use closewatch::demo::DemoServer;
use tokio::{runtime::Builder, sync::oneshot};

/// The demo's server on a thread of its own. It stops when this is dropped.
pub(crate) struct Demo {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Demo {
    pub(crate) fn start() -> Self {
        let (bound, address) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = DemoServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
                bound.send(server.local_addr()).unwrap();
                server.run(async { drop(stopped.await) }).await;
            });
        });
        let address = address.recv().unwrap();
        Self { address, stop, thread }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Asks the server to stop. The returned thread ends with the server.
    pub(crate) fn stop(self) -> JoinHandle<()> {
        self.stop.send(()).unwrap();
        self.thread
    }
}
