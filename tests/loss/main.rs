//! Real losses of links: the client, closewatch and the server have one host each. The hosts are network namespaces
//! with cables between them.
//!
//! Needs root, `ip` (iproute2) and `nft` (nftables). Without them the cases do not run, and a message says so. If `CI`
//! is `true` or `CLOSEWATCH_REQUIRE_ALL` is `1`, they fail. `CLOSEWATCH_BIN` names another program to test.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::cast_possible_truncation, reason = "frames made here are shorter than 4 GiB")]
#![expect(clippy::float_cmp, reason = "samples that are compared are whole numbers")]

#[allow(dead_code, unused_imports, reason = "tests/it uses the rest")]
#[path = "../support/mod.rs"]
mod support;

mod lab;
mod links;
mod namespace;
mod network;
mod peers;
mod readers;

use std::{env, process::Command};

use libtest_mimic::{Arguments, Conclusion, Trial};

use namespace::Namespace;

/// The number of cases at once. They wait most of the time.
const AT_ONCE: usize = 32;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    run(&arguments).exit();
}

fn run(arguments: &Arguments) -> Conclusion {
    let cases: Vec<Trial> = [links::cases(), readers::cases(), peers::cases()].into_iter().flatten().collect();
    let cases = match missing() {
        None => cases,
        Some(missing) if is_required() => cases.into_iter().map(|case| failing(case.name(), &missing)).collect(),
        Some(missing) => {
            eprintln!("\nNOT RUN: tests/loss, {} cases with real loss: {missing}\n", cases.len());
            Vec::new()
        }
    };
    libtest_mimic::run(arguments, cases)
}

/// The reason that the cases cannot run here.
fn missing() -> Option<String> {
    if let Err(error) = Namespace::new() {
        return Some(format!("no network namespace can be made (root can): {error}"));
    }
    let is_there = |command: &str| Command::new(command).arg("-V").output().is_ok();
    ["ip", "nft"].into_iter().find(|command| !is_there(command)).map(|command| format!("{command} is not installed"))
}

fn is_required() -> bool {
    [("CI", "true"), ("CLOSEWATCH_REQUIRE_ALL", "1")]
        .into_iter()
        .any(|(name, value)| env::var(name).is_ok_and(|is| is == value))
}

/// One case. It fails if it panics.
fn case(name: String, run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        run();
        Ok(())
    })
}

fn failing(name: &str, missing: &str) -> Trial {
    let message = format!("NOT RUN: {missing}");
    Trial::test(name, move || Err(message.into()))
}
