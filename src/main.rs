//! The `closewatch` program: arguments to a command, a command to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    closewatch::cli::main()
}
