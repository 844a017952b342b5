//! `closewatch run`: the proxy.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, process::ExitCode};

use super::print_error;
use crate::{
    app::{App, Exit, Origin, PassedSockets, Source},
    config::{Config, Overrides},
};

/// The help text after the arguments.
pub(super) const MORE_HELP: &str = "\
SIGTERM drains and ends closewatch, SIGINT does so without the configured delays, and a second signal ends it at once. SIGHUP \
reloads the configuration.

closewatch notifies systemd (Type=notify-reload or notify) of readiness, reloads and the end. If systemd passes a socket, the \
configuration must have exactly its address, for clients or for the admin.";

/// The arguments of `closewatch run`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct RunArguments {
    /// The configuration. By default `config.yaml` in the working directory, if it exists.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

pub(super) fn main(arguments: &RunArguments) -> ExitCode {
    let source = Source {
        origin: arguments.config.clone().map_or(Origin::DefaultFile, Origin::File),
        overrides: arguments.overrides.clone(),
    };
    match source.load() {
        Ok(config) => match PassedSockets::take() {
            Ok(sockets) => {
                with_runtime(config.worker_count(), serve(source, config, sockets, |_| std::future::ready(())))
            }
            Err(error) => failed(&format!("closewatch cannot start: {error}")),
        },
        Err(errors) => {
            print_error(&errors);
            ExitCode::from(2)
        }
    }
}

/// Runs a command on the threads of the control plane. The data plane has as many of its own.
pub(super) fn with_runtime(threads: NonZeroUsize, command: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().worker_threads(threads.get()).enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(command);
            // The end of the process does not wait for name lookups, which can hang.
            runtime.shutdown_background();
            code
        }
        Err(error) => failed(&format!("closewatch cannot start its threads: {error}")),
    }
}

/// Runs closewatch until a signal ends it. `companion` runs beside it, and gets the first public address.
pub(super) async fn serve<F>(
    source: Source,
    config: Config,
    sockets: PassedSockets,
    companion: impl FnOnce(SocketAddr) -> F,
) -> ExitCode
where
    F: Future<Output = ()> + Send + 'static,
{
    let app = match App::start(source, config, sockets) {
        Ok(app) => app,
        Err(error) => return failed(&format!("closewatch cannot start: {error}")),
    };
    let addresses = app.addresses();
    for address in &addresses {
        print_error(&format!("listening on ws://{address}"));
    }
    print_error(&format!("admin on http://{}", app.admin_address()));
    if let Some(address) = app.metrics_address() {
        print_error(&format!("metrics on http://{address}"));
    }
    let companion = tokio::spawn(companion(addresses[0]));
    let end = app.run().await;
    companion.abort();
    match end {
        Exit::Drained => ExitCode::SUCCESS,
        Exit::Forced => ExitCode::FAILURE,
    }
}

/// Prints the reason of a failure, and returns its exit code.
pub(super) fn failed(line: &str) -> ExitCode {
    print_error(line);
    ExitCode::FAILURE
}
