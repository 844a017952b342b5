//! The conditions of a container: process 1, a read-only file system, a user without rights.
//!
//! Needs root, and `unshare` and `setpriv` (util-linux). Without them the test prints a message and does not run. If
//! `CI` or `CLOSEWATCH_REQUIRE_ALL` is set, it fails.

use std::{
    env,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    process::Command,
};

use crate::support::{Program, Server, Session, eventually};

/// Makes everything read-only, becomes the user and group nobody without capabilities, and runs the program.
const CONTAINER: &str = r#"
    mount -o remount,bind,ro / && ! touch /written 2>/dev/null && cd / &&
    exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
"#;

#[test]
fn process_1_runs_without_rights_on_a_read_only_file_system() {
    if let Some(missing) = missing() {
        let is_required = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        assert!(!["CI", "CLOSEWATCH_REQUIRE_ALL"].into_iter().any(is_required), "NOT RUN: {missing}");
        eprintln!("\nNOT RUN: the test as process 1: {missing}\n");
        return;
    }
    let server = Server::start();
    // A directory that the user nobody can read.
    let directory = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let program = directory.path().join("closewatch");
    fs::copy(env!("CARGO_BIN_EXE_closewatch"), &program).unwrap();
    let mut container = Command::new("unshare");
    container.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "sh", "-c", CONTAINER, "sh"]);
    container.arg(&program).args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    container.args(["--upstream", &format!("ws://{}", server.address())]);
    let mut program = Program::start_by(&mut container, "");
    program.set_process(child_of(program.process()));

    let status = fs::read_to_string(format!("/proc/{}/status", program.process())).unwrap();
    for line in ["Uid:\t65534\t65534\t65534\t65534", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"] {
        assert!(status.contains(line), "{line:?} in {status}");
    }
    let processes = status.lines().find(|line| line.starts_with("NSpid:")).unwrap();
    assert!(processes.ends_with("\t1"), "{processes}");

    let mut session = Session::open(&program, &server);
    session.exchange();
    program.signal("HUP");
    program.wait_for_log("configuration reloaded", 1);
    program.signal("TERM");
    session.proxy_closes(1001, "");
    assert_eq!(program.ended().code, Some(0));
}

/// The reason that the test cannot run here.
fn missing() -> Option<String> {
    let mut trial = Command::new("unshare");
    trial.args(["--pid", "--fork", "--mount", "sh", "-c", CONTAINER, "sh", "true"]);
    match trial.output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

fn child_of(process: u32) -> u32 {
    let children = format!("/proc/{process}/task/{process}/children");
    eventually(children.clone(), || fs::read_to_string(&children).unwrap().trim().parse().ok())
}
