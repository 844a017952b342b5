//! `closewatch demo`: the proxy in front of a built-in server, with built-in clients that come and go.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    process::ExitCode,
};

use super::{
    print_error,
    run::{failed, serve, with_runtime},
};
use crate::{
    app::{Origin, PassedSockets, Source},
    config::Overrides,
    demo,
};

/// The arguments of `closewatch demo`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct DemoArguments {
    /// The address to accept clients on.
    #[arg(long, value_name = "ADDR", env = "CLOSEWATCH_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The address of page, metrics, health and API.
    #[arg(long, value_name = "ADDR", env = "CLOSEWATCH_ADMIN", default_value = "127.0.0.1:9917")]
    admin: SocketAddr,
    /// Run only the proxy and the server, without built-in clients.
    #[arg(long)]
    no_traffic: bool,
}

/// The differences to `run`: every ending is logged, and a drain is short, because some sessions answer no Close frame.
const CONFIGURATION: Origin =
    Origin::Text { name: "the demo's configuration", text: "log: {sessions: all}\nshutdown: {timeout: 2s}\n" };

pub(super) fn main(arguments: &DemoArguments) -> ExitCode {
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    match PassedSockets::take() {
        Ok(sockets) => with_runtime(threads, run(arguments.clone(), sockets)),
        Err(error) => failed(&format!("closewatch cannot start: {error}")),
    }
}

async fn run(arguments: DemoArguments, sockets: PassedSockets) -> ExitCode {
    let server = match demo::DemoServer::bind((Ipv4Addr::LOCALHOST, 0).into()).await {
        Ok(server) => server,
        Err(error) => return failed(&format!("closewatch demo cannot start its server: {error}")),
    };
    let overrides = Overrides {
        listen: Some(arguments.listen),
        upstream: format!("ws://{}", server.local_addr()).parse().ok(),
        admin: Some(arguments.admin),
    };
    let source = Source { origin: CONFIGURATION, overrides };
    let config = match source.load() {
        Ok(config) => config,
        Err(errors) => {
            print_error(&errors);
            return ExitCode::from(2);
        }
    };
    tokio::spawn(server.run(std::future::pending()));
    let has_traffic = !arguments.no_traffic;
    serve(source, config, sockets, move |proxy| clients(proxy, has_traffic)).await
}

async fn clients(proxy: SocketAddr, has_traffic: bool) {
    if has_traffic {
        demo::clients::run(proxy, std::future::pending()).await;
    }
}
