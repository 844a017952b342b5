//! `closewatch check`: is this configuration sound, and what does it amount to?

use std::{env, path::PathBuf, process::ExitCode};

use super::{say, write_out};
use crate::config::{self, Overrides};

/// The arguments of `closewatch check`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Arguments {
    /// The configuration; without it `config.yaml` in the working directory.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Prints the configuration with its defaults filled in, or everything that is wrong with it. What the environment
/// sets for `closewatch run` counts here too, so that both judge the same configuration.
pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let overrides = Overrides {
        listen: variable("CLOSEWATCH_LISTEN"),
        upstream: variable("CLOSEWATCH_UPSTREAM"),
        admin: variable("CLOSEWATCH_ADMIN"),
    };
    match config::check(arguments.config.as_deref(), &overrides) {
        Ok(yaml) => write_out("the configuration", &yaml),
        Err(errors) => {
            say(&errors.to_string());
            ExitCode::from(2)
        }
    }
}
