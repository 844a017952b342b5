//! `closewatch explain` (to come).

use std::process::ExitCode;

/// The arguments of `closewatch explain`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn main(_arguments: &Arguments) -> ExitCode {
    ExitCode::FAILURE
}
