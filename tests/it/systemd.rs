//! Notifications to systemd, and sockets from systemd. The test plays systemd.

use std::{
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::{Command, Stdio},
};

use crate::support::{Outcome, PATIENCE, Peer, Program, REQUEST, Server, Session, command, shell};

/// The socket for notifications.
struct Manager {
    socket: UnixDatagram,
    _directory: tempfile::TempDir,
}

impl Manager {
    fn new() -> (Self, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        (Self { socket, _directory: directory }, path)
    }

    fn notification(&self) -> String {
        let mut bytes = [0; 1024];
        let count = self.socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }
}

fn config(server: &Server, listen: &str) -> String {
    format!("listen: \"{listen}\"\n{}", server.upstream())
}

fn run() -> Command {
    let mut command = command();
    command.args(["run", "--config", "closewatch.yaml"]);
    command
}

/// closewatch with a socket as its descriptor 3.
fn with_socket(socket: impl Into<OwnedFd>) -> Command {
    let mut shell = shell("exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1;");
    shell.stdin(Stdio::from(socket.into()));
    shell
}

fn failure(message: &str) -> Outcome {
    Outcome { code: Some(1), stdout: String::new(), stderr: format!("closewatch cannot start: {message}\n") }
}

#[test]
fn manager_is_notified_of_readiness_reloads_and_the_end() {
    let server = Server::start();
    let (manager, path) = Manager::new();
    let program = Program::start_by(run().env("NOTIFY_SOCKET", path), &config(&server, "127.0.0.1:0"));
    assert_eq!(manager.notification(), "READY=1\n");
    for config in [config(&server, "127.0.0.1:0"), "nonsense".to_owned()] {
        program.configure(&config);
        program.signal("HUP");
        let reloading = manager.notification();
        let since_boot = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim_end();
        assert!(since_boot.parse::<u64>().unwrap() > 0, "{reloading}");
        assert_eq!(manager.notification(), "READY=1\n");
    }
    program.signal("TERM");
    assert_eq!(manager.notification(), "STOPPING=1\n");
    assert_eq!(program.ended().code, Some(0));
}

#[test]
fn absent_manager_does_not_end_the_process() {
    let server = Server::start();
    let program = Program::start_by(run().env("NOTIFY_SOCKET", "/nowhere"), &config(&server, "127.0.0.1:0"));
    Session::open(&program, &server).exchange();
    program.wait_for_log("cannot notify systemd", 1);
}

#[test]
fn passed_socket_serves_its_address() {
    let server = Server::start();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let config = config(&server, &address.to_string());
    let program = Program::start_by(&mut with_socket(socket.try_clone().unwrap()), &config);
    assert_eq!(program.address(), address);
    Session::open(&program, &server).exchange();
    // The socket stays while the configuration names it. systemd has its own copy.
    assert_eq!(program.reload(&config).status, 200);
    Session::open(&program, &server).exchange();
    program.signal("TERM");
    assert_eq!(program.ended().code, Some(0));
    // The next process serves a client that connects now.
    let waiting = Peer::connect(address);
    let next = Program::start_by(&mut with_socket(socket), &config);
    Session::open_with(waiting, &server, REQUEST).exchange();
    drop(next);
}

#[test]
fn unused_passed_socket_is_an_error() {
    let server = Server::start();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let outcome = Program::fail_to_start_by(&mut with_socket(socket), &config(&server, "127.0.0.1:0"));
    let message = format!("socket activation: {address}: no listen address of the configuration is exactly this");
    assert_eq!(outcome, failure(&message));
}

#[test]
fn passed_socket_that_does_not_listen_is_an_error() {
    let server = Server::start();
    let connected = std::net::TcpStream::connect(server.address()).unwrap();
    let outcome = Program::fail_to_start_by(&mut with_socket(connected), &config(&server, "127.0.0.1:0"));
    assert_eq!(outcome, failure("socket activation: file descriptor 3: not a listening TCP socket"));
}

/// The next numbers would be descriptors of a runtime, which must not be closed.
#[test]
fn listen_fds_beyond_the_passed_sockets_is_an_error() {
    let server = Server::start();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = config(&server, &socket.local_addr().unwrap().to_string());
    for count in ["2", "20", "4294967000"] {
        let mut shell = shell(&format!("exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS={count};"));
        shell.stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
        let outcome = Program::fail_to_start_by(&mut shell, &config);
        assert_eq!(outcome, failure("socket activation: LISTEN_FDS: Bad file descriptor (os error 9)"));
    }
}

#[test]
fn sockets_for_another_process_are_ignored() {
    let server = Server::start();
    let mut run = run();
    run.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    let program = Program::start_by(&mut run, &config(&server, "127.0.0.1:0"));
    Session::open(&program, &server).exchange();
}
