//! The log, which delays no session.

use std::{
    fs::{File, OpenOptions},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::support::{LOG_ALL, Program, Server, Session};

fn start_after(commands: &str, server: &Server) -> Program {
    Program::start_after(commands, &format!("{}{LOG_ALL}", server.upstream()))
}

/// Opens sessions that end without a Close frame, one after the other.
fn lose_sessions(count: usize, program: &Program, server: &Server) {
    for _ in 0..count {
        Session::open(program, server).exchange();
    }
    program.records(count);
}

/// Each line fails, as on a full disk.
#[test]
fn failed_log_lines_are_counted_and_delay_no_session() {
    let server = Server::start();
    let program = start_after("exec >/dev/full;", &server);
    lose_sessions(20, &program, &server);
    program.wait_for("closewatch_log_records_dropped_total", &[], 20.0);
    assert_eq!(program.terminated().code, Some(0));
}

/// The reader of the log has stopped. A pipe holds 64 KiB, and a record has more than half a KiB.
#[test]
fn unread_log_delays_no_session() {
    const SESSIONS: usize = 200;
    let server = Server::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let program = start_after(&format!("mkfifo {0} && exec 1<>{0} &&", path.display()), &server);
    let pipe = open_pipe(&path);
    let mut bystander = Session::open(&program, &server);
    lose_sessions(SESSIONS, &program, &server);
    bystander.exchange();
    assert!(lines_in(pipe) < SESSIONS, "the log was blocked");
    drop(bystander);
    assert_eq!(program.terminated().code, Some(0));
}

/// Opens a pipe for reading and writing, which waits for no other process.
fn open_pipe(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
}

/// The number of lines that one read returns.
fn lines_in(mut pipe: File) -> usize {
    let mut bytes = vec![0; 64 << 10];
    let count = pipe.read(&mut bytes).unwrap();
    bytes[..count].split(|byte| *byte == b'\n').count()
}

#[test]
fn log_lines_above_the_rate_are_dropped_and_counted() {
    const SESSIONS: usize = 50;
    let server = Server::start();
    let program = Program::before(&server, "log: {sessions: all, max_per_second: 1}\n");
    lose_sessions(SESSIONS, &program, &server);
    let dropped = program.scrape().sum("closewatch_log_records_dropped_total", &[]);
    assert!(dropped >= 1.0);
    let log = program.terminated().log;
    let written = log.iter().filter(|line| line.contains(" session ")).count();
    assert_eq!(written as f64 + dropped, SESSIONS as f64, "{log:#?}");
}
