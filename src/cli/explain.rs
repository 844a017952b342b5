//! `closewatch explain`: the table of Close codes, for the person on call.

use std::{fmt::Write as _, process::ExitCode};

use super::{print_error, write_out};
use crate::websocket::close_code::{CodeEntry, Sender, range_label};

/// The arguments of `closewatch explain`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ExplainArguments {
    /// A Close code from 0 to 4999. Without it, the command prints all codes as a table.
    #[arg(allow_negative_numbers = true)]
    code: Option<String>,
}

pub(super) fn main(arguments: &ExplainArguments) -> ExitCode {
    let explanation = match arguments.code.as_deref().map(parse_code) {
        None => table(),
        Some(Ok(code)) => explanation(code),
        Some(Err(message)) => {
            print_error(&format!("error: {message}"));
            return ExitCode::from(2);
        }
    };
    write_out("the explanation", &explanation)
}

fn parse_code(text: &str) -> Result<u16, String> {
    let code = text.parse().ok().filter(|code| *code < 5000);
    code.ok_or_else(|| format!("{text:?} is not a Close code: use a number from 0 to 4999"))
}

fn explanation(code: u16) -> String {
    let entry = CodeEntry::of(code);
    let mut text = format!("{code} {}\n\n{}\n\n", entry.name, entry.meaning);
    let range = entry.codes_label();
    if range != code.to_string() {
        line(&mut text, format_args!("Codes:        {range}"));
    }
    line(&mut text, format_args!("On the wire:  {}", yes_or_no(entry.allowed_on_wire())));
    line(&mut text, format_args!("Sent by:      {}", senders(entry.sender)));
    list(&mut text, "Usual causes", entry.causes);
    list(&mut text, "What to look at next", entry.next_steps);
    text
}

fn table() -> String {
    let mut text = String::new();
    line(&mut text, format_args!("{:<12} {:<26} {:<8} {:<10} MEANING", "CODE", "NAME", "ON WIRE", "SENT BY"));
    let mut rows: Vec<_> =
        CodeEntry::all().flat_map(|entry| entry.codes.iter().map(move |range| (range, entry))).collect();
    rows.sort_by_key(|(range, _)| *range.start());
    for (range, entry) in rows {
        let (codes, wire) = (range_label(range), yes_or_no(entry.allowed_on_wire()));
        let columns = format_args!("{codes:<12} {:<26} {wire:<8} {:<10} {}", entry.name, entry.sender, entry.meaning);
        line(&mut text, columns);
    }
    text.push_str("\n`closewatch explain CODE` prints the usual causes and what to look at next.\n");
    text
}

fn list(text: &mut String, title: &str, items: &[&str]) {
    line(text, format_args!("\n{title}:"));
    for item in items {
        line(text, format_args!("  - {item}"));
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a String takes all text");
}

const fn yes_or_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

const fn senders(sender: Sender) -> &'static str {
    match sender {
        Sender::Either => "client or server",
        Sender::Client => "client",
        Sender::Server => "server",
        Sender::Extension => "an endpoint whose agreed extension defines it",
        Sender::Nobody => "nobody: it may not be written into a Close frame",
    }
}
