//! Gives the program its revision and compiler, for `closewatch_build_info`. A value that cannot be determined is `unknown`.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CLOSEWATCH_REVISION");
    let revision = env::var("CLOSEWATCH_REVISION").ok().or_else(checked_out_revision);
    let compiler = env::var("RUSTC").ok().and_then(|rustc| first_line(&rustc, &["--version"]));
    println!("cargo::rustc-env=CLOSEWATCH_REVISION={}", revision.as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=CLOSEWATCH_RUSTC={}", compiler.as_deref().unwrap_or("unknown"));
}

/// The commit of this working copy. `None` in a published crate, also inside the repository of another project.
fn checked_out_revision() -> Option<String> {
    if !Path::new(".git").exists() {
        return None;
    }
    // Every commit and checkout writes this file. HEAD itself does not change when its branch moves.
    if let Some(log) = first_line("git", &["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
    first_line("git", &["rev-parse", "HEAD"])
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}
