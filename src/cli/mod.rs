//! The commands: one file each.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, builder::Resettable};

mod check;
mod demo;
mod drain;
mod explain;
mod health;
mod probe;
mod run;

/// Watches how WebSocket connections end: a transparent reverse proxy for one service, with Prometheus metrics.
#[derive(Debug, Parser)]
#[command(name = "closewatch", version, about, args_conflicts_with_subcommands = true, after_help = run::MORE_HELP)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::Arguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the proxy (the default command).
    #[command(after_help = run::MORE_HELP)]
    Run(run::Arguments),
    /// Validates a configuration and prints it with its defaults filled in.
    Check(check::Arguments),
    /// Runs the proxy before a built-in server, with built-in clients that come and go.
    Demo(demo::Arguments),
    /// Opens a WebSocket as a client and prints what a browser's events would report.
    Probe(Box<probe::Arguments>),
    /// Tells the meaning, the usual causes and what to look at next for a Close code.
    Explain(explain::Arguments),
    /// Asks a running closewatch to drain without ending.
    Drain(drain::Arguments),
    /// Asks a running closewatch whether it is ready.
    Health(health::Arguments),
}

/// Runs the command that the process's arguments name.
///
/// Bad usage is told on standard error and ends with 2, as clap does it, or with 1 where a command has no other answer.
pub fn main() -> ExitCode {
    let command_line = without_empty_variables(CommandLine::command());
    let matches = command_line.try_get_matches();
    let arguments = match matches.and_then(|matches| CommandLine::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    match arguments.command.unwrap_or(Command::Run(arguments.run)) {
        Command::Run(arguments) => run::main(&arguments),
        Command::Check(arguments) => check::main(&arguments),
        Command::Demo(arguments) => demo::main(&arguments),
        Command::Probe(arguments) => probe::main(&arguments),
        Command::Explain(arguments) => explain::main(&arguments),
        Command::Drain(arguments) => drain::main(&arguments),
        Command::Health(arguments) => health::main(&arguments),
    }
}

/// An environment variable that is empty counts as one that is not set, as most programs have it.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let without = |arg: clap::Arg| match arg.get_env().and_then(env::var_os) {
        Some(value) if value.is_empty() => arg.env(Resettable::Reset),
        _ => arg,
    };
    command.mut_args(without).mut_subcommands(without_empty_variables)
}

/// Tells what is wrong with the arguments, or what was asked about them (`--help`).
fn refuse(error: &clap::Error) -> ExitCode {
    // Where standard error is gone, the exit code still tells.
    let _ = error.print();
    // Docker reserves 2 for health checks; whoever drains asks for yes or no as well.
    let is_yes_or_no = env::args_os().nth(1).is_some_and(|command| command == "health" || command == "drain");
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if is_yes_or_no => ExitCode::FAILURE,
        _ => ExitCode::from(2),
    }
}

/// Runs a command that asks a running closewatch something: what it has to say goes to standard output, or as an error
/// to standard error.
fn ask(question: impl Future<Output = Result<String, String>>) -> ExitCode {
    match on_one_thread(question).and_then(|answer| answer) {
        Ok(answer) => {
            print(&answer);
            ExitCode::SUCCESS
        }
        Err(message) => {
            say(&format!("error: {message}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs what needs no more than the thread it is called on.
fn on_one_thread<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map(|runtime| runtime.block_on(work)).map_err(|error| format!("cannot start: {error}"))
}

/// Writes what a command was asked for to standard output: its exit code.
fn write_out(what: &str, text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        // A reader such as `head` that has seen enough is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say(&format!("error: cannot write {what}: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Prints on standard output, and a line break behind it. Its reader may have seen enough (`| head`); the exit code
/// still tells.
fn print(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Says a line on standard error. Where that is gone, the exit code still tells.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
