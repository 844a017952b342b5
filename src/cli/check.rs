//! `closewatch check` (to come).

use std::process::ExitCode;

/// The arguments of `closewatch check`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn main(_arguments: &Arguments) -> ExitCode {
    ExitCode::FAILURE
}
