//! Listening sockets: those that systemd passes, and new ones.
//!
//! The address decides. If a passed socket is bound to exactly an address of the configuration, it is used instead of a new
//! one. Order and names of the passed sockets have no meaning: names would let a unit and a configuration contradict each
//! other about one address.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{StartError, start_error};

/// The length of the accept queue, unless the kernel's own bound (`net.core.somaxconn`) is lower.
const BACKLOG: i32 = 4096;

/// Sockets that systemd passed and that are not used yet.
#[derive(Debug, Default)]
pub struct PassedSockets(Vec<(SocketAddr, TcpListener)>);

impl PassedSockets {
    /// Takes the sockets that the process was started with (`LISTEN_FDS`, see `sd_listen_fds(3)`), once in its life.
    ///
    /// Call it before any thread or runtime starts. If `LISTEN_FDS` is larger than the number of passed descriptors, the
    /// next numbers may be descriptors of a runtime, which would be closed with the error.
    ///
    /// # Errors
    ///
    /// If a descriptor is not open, or not a listening TCP socket.
    pub fn take() -> Result<Self, StartError> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Ok(Self::default());
        }
        let passed = sd_notify::listen_fds().map_err(start_error("socket activation: LISTEN_FDS"))?;
        let sockets = passed.map(|descriptor| {
            let error = start_error(format!("socket activation: file descriptor {descriptor}"));
            listening_socket(own(descriptor)).map_err(error)
        });
        Ok(Self(sockets.collect::<Result<_, _>>()?))
    }

    /// A socket that listens on `address`: the passed one or a new one.
    pub(super) fn listen(&mut self, address: SocketAddr) -> io::Result<TcpListener> {
        match self.0.iter().position(|(passed, _)| *passed == address) {
            Some(index) => Ok(self.0.swap_remove(index).1),
            None => bind(address),
        }
    }

    /// Fails if a passed socket is not used: clients would connect to it and wait for ever.
    pub(super) fn expect_all_used(&self) -> Result<(), StartError> {
        match self.0.first() {
            None => Ok(()),
            Some((address, _)) => Err(StartError {
                what: format!("socket activation: {address}"),
                error: io::Error::other("no listen address of the configuration is exactly this"),
            }),
        }
    }
}

#[expect(unsafe_code, reason = "a descriptor that comes as a number can be owned in no other way")]
fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: systemd opened it for this process (`LISTEN_PID`), `listen_fds` has checked that it is open, and the one
    // caller passes each number once in the life of the process, before anything else can have opened it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

fn listening_socket(descriptor: OwnedFd) -> io::Result<(SocketAddr, TcpListener)> {
    let socket = Socket::from(descriptor);
    let is_listener = socket.is_listener()?;
    match socket.local_addr()?.as_socket() {
        Some(address) if is_listener => Ok((address, socket.into())),
        _ => Err(io::Error::other("not a listening TCP socket")),
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
