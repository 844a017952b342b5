//! File descriptors in reserve: the admin accepts health checks although the process has too many open files.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::io::{DupFlags, dup3, fcntl_dupfd_cloexec};
use tokio::sync::Notify;

/// Connections that a listener can accept at a time without another free descriptor.
const SPARES: usize = 4;

/// Spare descriptors. To close one makes room for one `accept(2)`.
pub(super) struct DescriptorReserve {
    /// The file that all spares refer to: `/dev/null`.
    file: Option<File>,
    spares: Mutex<Vec<OwnedFd>>,
    reclaimed: Notify,
}

impl DescriptorReserve {
    /// A full reserve, if that many descriptors are free.
    pub(super) fn new() -> Self {
        let file = File::open("/dev/null").ok();
        let reserve = Self { file, spares: Mutex::default(), reclaimed: Notify::new() };
        reserve.refill();
        reserve
    }

    /// Takes free descriptors until the reserve is full.
    pub(super) fn refill(&self) {
        let mut spares = self.spares();
        while spares.len() < SPARES
            && let Some(Ok(spare)) = self.file.as_ref().map(|file| fcntl_dupfd_cloexec(file, 0))
        {
            spares.push(spare);
        }
    }

    /// Closes a spare; `false` if there is none.
    pub(super) fn release(&self) -> bool {
        self.spares().pop().is_some()
    }

    /// Closes a connection. If the reserve is not full, its descriptor becomes a spare in the same system call: if it were
    /// closed first, a connection to a public listener could take it.
    pub(super) fn reclaim(&self, mut connection: OwnedFd) {
        let mut spares = self.spares();
        if spares.len() < SPARES
            && let Some(file) = &self.file
            && dup3(file.as_fd(), &mut connection, DupFlags::CLOEXEC).is_ok()
        {
            spares.push(connection);
            self.reclaimed.notify_one();
        }
    }

    /// Waits until a connection is reclaimed.
    pub(super) async fn reclaimed(&self) {
        self.reclaimed.notified().await;
    }

    fn spares(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn closed_connection_becomes_a_spare() {
        let reserve = DescriptorReserve::new();
        assert_eq!([(); SPARES].map(|()| reserve.release()), [true; SPARES]);
        assert!(!reserve.release());
        let (connection, mut peer) = UnixStream::pair().unwrap();
        reserve.reclaim(connection.into());
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "the connection is closed");
        assert!(reserve.release());
        assert!(!reserve.release());
        reserve.refill();
        assert_eq!(reserve.spares().len(), SPARES);
    }
}
