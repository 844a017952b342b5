//! `closewatch run`: the proxy.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, process::ExitCode};

use super::print_error;
use crate::{
    app::{App, End, Origin, PassedSockets, Source},
    config::{Config, Overrides},
};

/// What there is to know besides the arguments.
pub(super) const MORE_HELP: &str = "\
SIGTERM drains and ends, SIGINT without the configured pauses; a second one ends at once. SIGHUP reloads the configuration.

Under systemd (Type=notify-reload or notify) readiness, reloads and the end are told. A socket that systemd passes is used \
wherever the configuration names exactly its address, for clients or for the admin; one that is named nowhere is an error.";

/// The arguments of `closewatch run`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Arguments {
    /// The configuration. By default `config.yaml` in the working directory, if it exists.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
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

/// Runs a command on the threads of the opening handshakes: as many as the data plane has of its own.
pub(super) fn with_runtime(threads: NonZeroUsize, command: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().worker_threads(threads.get()).enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(command);
            // The lookup of a server's name may hang for long: the end of the process does not wait for it.
            runtime.shutdown_background();
            code
        }
        Err(error) => failed(&format!("closewatch cannot start its threads: {error}")),
    }
}

/// Runs a closewatch, and beside it what `companion` makes of its public address, until a signal ends it.
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
        End::Drained => ExitCode::SUCCESS,
        End::Forced => ExitCode::FAILURE,
    }
}

/// Tells why a command cannot go on.
pub(super) fn failed(line: &str) -> ExitCode {
    print_error(line);
    ExitCode::FAILURE
}
