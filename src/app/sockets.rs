//! Sockets that listen: those that systemd passed, and those that are bound here.
//!
//! The rule is the address: wherever the configuration names an address to listen on, a passed socket that is bound to
//! exactly this one is used instead of a new one. Neither the order nor the names of the passed sockets play a part, so
//! the configuration alone says what each address is for. The design left out, to take them by name, would have let a
//! unit and a configuration say two different things about one address.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{StartError, start_error};

/// As many connections may wait to be accepted, where the kernel's own bound (`net.core.somaxconn`) is not lower.
const BACKLOG: i32 = 4096;

/// The sockets that systemd passed and nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    passed: Vec<(SocketAddr, TcpListener)>,
}

impl Sockets {
    /// The sockets that the process was started with (`LISTEN_FDS`, see `sd_listen_fds(3)`); they can be had once.
    ///
    /// # Errors
    ///
    /// Where what was passed is no TCP socket that listens.
    pub(super) fn passed() -> Result<Self, StartError> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Ok(Self::default());
        }
        let descriptors = sd_notify::listen_fds().map_err(start_error("the sockets that systemd passed"))?;
        let passed = descriptors.map(|descriptor| {
            listener(own(descriptor)).map_err(start_error(format!("descriptor {descriptor}, passed by systemd")))
        });
        Ok(Self { passed: passed.collect::<Result<_, _>>()? })
    }

    /// A socket that listens on `address`: the passed one, or a new one.
    pub(super) fn listen(&mut self, address: SocketAddr) -> io::Result<TcpListener> {
        match self.passed.iter().position(|(passed, _)| *passed == address) {
            Some(index) => Ok(self.passed.swap_remove(index).1),
            None => bind(address),
        }
    }

    /// All passed sockets must have been taken: to one that is not, clients would connect and wait for ever.
    pub(super) fn all_taken(&self) -> Result<(), StartError> {
        match self.passed.first() {
            None => Ok(()),
            Some((address, _)) => Err(StartError {
                what: format!("the socket {address}, passed by systemd"),
                error: io::Error::other("no listen address of the configuration is exactly this"),
            }),
        }
    }
}

#[expect(unsafe_code, reason = "a descriptor that comes by its number can be owned in no other way")]
fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: systemd opened it for this very process (`LISTEN_PID` says so), and the one caller asks for each of them
    // once in the life of the process.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

fn listener(descriptor: OwnedFd) -> io::Result<(SocketAddr, TcpListener)> {
    let socket = Socket::from(descriptor);
    let is_listener = socket.is_listener()?;
    match socket.local_addr()?.as_socket() {
        Some(address) if is_listener => Ok((address, socket.into())),
        _ => Err(io::Error::other("not a TCP socket that listens")),
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
