//! Readiness told to systemd, and sockets that come from it. Here the test plays systemd.

use std::{
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::{Command, Stdio},
};

use crate::{
    support::closewatch::Closewatch,
    support::{PATIENCE, Server},
};

/// Where a service manager is told.
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

    fn is_told(&self) -> String {
        let mut bytes = [0; 1024];
        let count = self.socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }
}

fn config(server: &Server, listen: &str) -> String {
    format!("listen: \"{listen}\"\nadmin: {{listen: 127.0.0.1:0, control: true}}\n{}", server.upstream())
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_closewatch"));
    command.args(["run", "--config", "closewatch.yaml"]);
    command
}

/// Starts closewatch with a socket as its descriptor 3.
fn with_socket(socket: &TcpListener, config: &str) -> Closewatch {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" run --config closewatch.yaml 3<&0 </dev/null"#]);
    shell.arg(env!("CARGO_BIN_EXE_closewatch"));
    shell.stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
    Closewatch::try_start_by(&mut shell, config)
}

#[test]
fn the_manager_is_told_of_readiness_reloads_and_the_end() {
    let server = Server::start();
    let (manager, path) = Manager::new();
    let closewatch = Closewatch::start_by(program().env("NOTIFY_SOCKET", path), &config(&server, "127.0.0.1:0"));
    assert_eq!(manager.is_told(), "READY=1\n");
    for config in [config(&server, "127.0.0.1:0"), "nonsense".to_owned()] {
        closewatch.configure(&config);
        closewatch.signal("HUP");
        let reloading = manager.is_told();
        let since_boot = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim_end();
        assert!(since_boot.parse::<u64>().unwrap() > 0, "{reloading}");
        assert_eq!(manager.is_told(), "READY=1\n");
    }
    closewatch.signal("TERM");
    assert_eq!(manager.is_told(), "STOPPING=1\n");
    assert_eq!(closewatch.ended().code, Some(0));
}

#[test]
fn a_manager_that_has_gone_is_no_reason_to_end() {
    let server = Server::start();
    let mut program = program();
    let closewatch = Closewatch::start_by(program.env("NOTIFY_SOCKET", "/nowhere"), &config(&server, "127.0.0.1:0"));
    closewatch.session(&server).exchange();
    closewatch.wait_for_log("the service manager could not be notified", 1);
}

#[test]
fn a_socket_that_is_passed_is_used_for_its_address() {
    let server = Server::start();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let closewatch = with_socket(&socket, &config(&server, &address.to_string()));
    assert_eq!(closewatch.address(), address);
    closewatch.session(&server).exchange();
    // It stays while the configuration names it, and once it does not, systemd's own copy is all there is.
    assert_eq!(closewatch.reload(&config(&server, &address.to_string())).status, 200);
    closewatch.session(&server).exchange();
    closewatch.signal("TERM");
    assert_eq!(closewatch.ended().code, Some(0));
    // Whoever connects now is served by the next start.
    let waiting = crate::support::Peer::connect(address);
    let next = with_socket(&socket, &config(&server, &address.to_string()));
    crate::support::Session::open_with(waiting, &server, crate::support::REQUEST).exchange();
    drop(next);
}

#[test]
fn a_socket_without_use_is_told() {
    let server = Server::start();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let ended = with_socket(&socket, &config(&server, "127.0.0.1:0")).ended();
    let line = format!(
        "closewatch cannot start: the socket {address}, passed by systemd: no listen address of the configuration is \
         exactly this"
    );
    assert_eq!((ended.code, ended.said), (Some(1), vec![line]));
}

#[test]
fn what_does_not_listen_is_told() {
    let server = Server::start();
    let connected = std::net::TcpStream::connect(server.address()).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" run --config closewatch.yaml 3<&0 </dev/null"#]);
    shell.arg(env!("CARGO_BIN_EXE_closewatch")).stdin(Stdio::from(OwnedFd::from(connected)));
    let ended = Closewatch::try_start_by(&mut shell, &config(&server, "127.0.0.1:0")).ended();
    let line = "closewatch cannot start: descriptor 3, passed by systemd: not a TCP socket that listens";
    assert_eq!((ended.code, ended.said), (Some(1), vec![line.to_owned()]));
}

#[test]
fn sockets_that_were_passed_to_another_process_are_left_alone() {
    let server = Server::start();
    let mut program = program();
    program.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    let closewatch = Closewatch::start_by(&mut program, &config(&server, "127.0.0.1:0"));
    closewatch.session(&server).exchange();
}
