//! The buffer that a relay thread reads into: one for all of its sessions.

use std::os::fd::BorrowedFd;

use super::splice::Pipe;

/// A thread's read buffer, and the pipe through which large reads pass. Nothing stays from one read to the next, so an
/// idle session owns no buffer.
#[derive(Debug)]
pub(in crate::relay) struct ReadBuffer {
    pub(in crate::relay) bytes: Box<[u8]>,
    /// Made when it is needed first: most sidecars never see a large read.
    pipe: Option<Pipe>,
}

impl ReadBuffer {
    /// Large messages pass in few system calls.
    pub(in crate::relay) const SIZE: usize = 256 * 1024;

    pub(in crate::relay) fn new() -> Self {
        Self { bytes: vec![0; Self::SIZE].into_boxed_slice(), pipe: None }
    }

    /// Moves `count` bytes, which were peeked at, from a socket to the pipe. Returns how many it could move; 0 if the kernel
    /// does not do that with this socket.
    pub(super) fn fill_pipe(&mut self, socket: BorrowedFd<'_>, count: usize) -> usize {
        if self.pipe.is_none() {
            self.pipe = Pipe::new().ok();
        }
        self.pipe.as_mut().map_or(0, |pipe| pipe.fill(socket, count))
    }

    /// The bytes of this read, and the pipe if it holds any of them or knows of an error.
    pub(super) fn contents(&mut self, count: usize) -> (&[u8], Option<&mut Pipe>) {
        (&self.bytes[..count], self.pipe.as_mut().filter(|pipe| !pipe.is_idle()))
    }

    /// The error of the connection that filling the pipe encountered.
    pub(super) fn take_pipe_error(&mut self) -> Option<rustix::io::Errno> {
        self.pipe.as_mut()?.take_error()
    }

    /// Closes the pipe if its bytes went another way, and returns whether that is so.
    pub(in crate::relay) fn empty_pipe(&mut self) -> bool {
        self.pipe.take_if(|pipe| !pipe.is_idle()).is_some()
    }

    #[cfg(test)]
    pub(super) fn has_pipe(&self) -> bool {
        self.pipe.is_some()
    }

    #[cfg(test)]
    pub(super) fn set_pipe(&mut self, pipe: Pipe) {
        self.pipe = Some(pipe);
    }
}
