//! Network namespaces: hosts inside this host. No packet leaves it.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    process::{Command, Stdio},
    thread,
};

/// A network namespace without a name. The kernel removes it with the last open socket in it, so no test leaves one.
pub(crate) struct Namespace {
    handle: File,
}

impl Namespace {
    pub(crate) fn new() -> io::Result<Self> {
        let handle = thread::spawn(|| {
            unshare_network()?;
            File::open("/proc/thread-self/ns/net")
        });
        Ok(Self { handle: handle.join().expect("nothing there panics")? })
    }

    /// Runs `work` inside. Its sockets and its processes stay inside.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                enter_network(&self.handle).expect("this process made the namespace");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a command inside, given as words with spaces between them, and returns its output.
    pub(crate) fn command(&self, line: &str) -> String {
        let mut words = line.split_ascii_whitespace();
        let mut command = Command::new(words.next().unwrap());
        command.args(words).stdin(Stdio::null());
        let output = self.run(move || command.output()).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A path to the namespace for other processes. It is valid while this value exists.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.handle.as_raw_fd())
    }
}

/// Gives the calling thread its own network namespace.
#[expect(unsafe_code, reason = "std has no wrapper")]
fn unshare_network() -> io::Result<()> {
    // SAFETY: no memory is touched.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })
}

/// Moves the calling thread into a network namespace.
#[expect(unsafe_code, reason = "std has no wrapper")]
fn enter_network(handle: &File) -> io::Result<()> {
    // SAFETY: no memory is touched, and the descriptor is open.
    check(unsafe { libc::setns(handle.as_raw_fd(), libc::CLONE_NEWNET) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
