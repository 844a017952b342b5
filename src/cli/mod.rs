//! The commands: one file each.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, builder::Resettable};

mod admin_client;
mod check;
mod demo;
mod drain;
mod explain;
mod health;
mod probe;
mod run;

/// A transparent WebSocket reverse proxy for one server: it reports to Prometheus how each connection ended.
#[derive(Debug, Parser)]
#[command(name = "closewatch", version, about, args_conflicts_with_subcommands = true, after_help = run::MORE_HELP)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<CliCommand>,
    #[command(flatten)]
    run: run::RunArguments,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Runs the proxy (the default command).
    #[command(after_help = run::MORE_HELP)]
    Run(run::RunArguments),
    /// Validates a configuration and prints it with its defaults filled in.
    Check(check::CheckArguments),
    /// Runs the proxy in front of a built-in server, with built-in clients that come and go.
    Demo(demo::DemoArguments),
    /// Opens a WebSocket as a client and prints what a browser's events would report.
    Probe(Box<probe::ProbeArguments>),
    /// Prints the meaning, the usual causes and the next steps for a Close code.
    Explain(explain::ExplainArguments),
    /// Makes a running closewatch drain, without ending it.
    Drain(drain::DrainArguments),
    /// Checks if a running closewatch is ready.
    Health(health::HealthArguments),
}

/// Runs the command that the process's arguments name.
///
/// Bad usage is reported on standard error with exit code 2, as clap does it, or 1 if a command has no other failure.
pub fn main() -> ExitCode {
    let command_line = without_empty_variables(CommandLine::command());
    let matches = command_line.try_get_matches();
    let arguments = match matches.and_then(|matches| CommandLine::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => return usage_error(&error),
    };
    match arguments.command.unwrap_or(CliCommand::Run(arguments.run)) {
        CliCommand::Run(arguments) => run::main(&arguments),
        CliCommand::Check(arguments) => check::main(&arguments),
        CliCommand::Demo(arguments) => demo::main(&arguments),
        CliCommand::Probe(arguments) => probe::main(&arguments),
        CliCommand::Explain(arguments) => explain::main(&arguments),
        CliCommand::Drain(arguments) => drain::main(&arguments),
        CliCommand::Health(arguments) => health::main(&arguments),
    }
}

/// An empty environment variable counts as unset, as in most programs.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let without = |arg: clap::Arg| match arg.get_env().and_then(env::var_os) {
        Some(value) if value.is_empty() => arg.env(Resettable::Reset),
        _ => arg,
    };
    command.mut_args(without).mut_subcommands(without_empty_variables)
}

/// Prints the error in the arguments, or the help that they ask for (`--help`).
fn usage_error(error: &clap::Error) -> ExitCode {
    // If standard error is gone, the exit code still reports the error.
    let _ = error.print();
    // Docker reserves 2 for health checks, and a preStop hook only distinguishes 0 from other codes.
    let is_yes_or_no = env::args_os().nth(1).is_some_and(|command| command == "health" || command == "drain");
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if is_yes_or_no => ExitCode::FAILURE,
        _ => ExitCode::from(2),
    }
}

/// Runs a command that uses the admin of a running closewatch. Its result goes to standard output, its error to standard
/// error.
fn report(command: impl Future<Output = Result<String, String>>) -> ExitCode {
    match on_one_thread(command).and_then(|result| result) {
        Ok(result) => {
            print(&result);
            ExitCode::SUCCESS
        }
        Err(message) => {
            print_error(&format!("error: {message}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs a future on the calling thread.
fn on_one_thread<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map(|runtime| runtime.block_on(work)).map_err(|error| format!("cannot start: {error}"))
}

/// Writes the result of a command to standard output, and returns the command's exit code.
fn write_out(what: &str, text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        // A reader such as `head` that has enough is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            print_error(&format!("error: cannot write {what}: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Prints a line on standard output. Its reader may have enough (`| head`), and the exit code still reports the result.
fn print(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Prints a line on standard error. If that is gone, the exit code still reports the result.
fn print_error(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
