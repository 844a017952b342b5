//! `closewatch check`: validates a configuration and prints it.

use std::{path::PathBuf, process::ExitCode};

use super::{print_error, write_out};
use crate::config::{self, Overrides};

/// The arguments of `closewatch check`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct CheckArguments {
    /// The configuration. By default `config.yaml` in the working directory.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
    /// Prints the JSON Schema of configurations instead.
    #[arg(long)]
    schema: bool,
}

/// Prints the configuration with its defaults filled in, or everything that is wrong with it. The flags and the
/// environment of `closewatch run` count here too, so that both judge the same configuration.
pub(super) fn main(arguments: &CheckArguments) -> ExitCode {
    if arguments.schema {
        return write_out("the schema", &format!("{:#}\n", config::schema()));
    }
    match config::check(arguments.config.as_deref(), &arguments.overrides) {
        Ok(yaml) => write_out("the configuration", &yaml),
        Err(errors) => {
            print_error(&errors);
            ExitCode::from(2)
        }
    }
}
