//! One ordered byte stream to an endpoint, as the driver sees it.

mod read_buffer;
mod splice;
mod tcp;
mod tcp_info;

use std::{io, task::Poll, time::Duration};

pub(super) use self::{read_buffer::ReadBuffer, splice::Pipe, tcp::TcpTransport, tcp_info::TcpInfo};

use crate::session::LegEnd;

/// A connection that never blocks and reports readiness in edges: it must be read until it has nothing left, or
/// remembered as readable.
pub(super) trait Transport {
    /// The kernel reported an event. Returns a loss if the event, rather than a read, carries it.
    fn on_ready(&mut self, ready: Ready) -> Option<Loss>;

    /// Whether a read may return something: bytes in the socket, or decrypted ones.
    fn can_read(&self) -> bool;

    /// Whether the peer has hung up: nothing more will come after the bytes that wait.
    fn has_hung_up(&self) -> bool;

    /// Reads once, at most `limit` bytes.
    fn read<'b>(&mut self, buffer: &'b mut ReadBuffer, limit: usize) -> Read<'b>;

    /// Hands bytes over. The bytes that are not accepted at once are the caller's to keep.
    fn write(&mut self, data: Data<'_>) -> Written;

    /// How many of the accepted bytes have left the process since the last call. "Delivered" is judged by these.
    fn take_committed(&mut self) -> usize;

    /// Whether accepted bytes have not left the process, so that the transport waits until the socket is writable.
    fn wants_write(&self) -> bool;

    /// The socket is writable again: sends accepted bytes that have not left the process.
    fn flush(&mut self) -> Option<Loss>;

    /// Sends the end of our stream. If `Pending`, call again when the socket is writable.
    fn finish(&mut self) -> Poll<()>;

    /// Makes the close of the connection send RST. Bytes that the kernel still holds are discarded.
    fn abort(&mut self);

    /// Reads and drops bytes that wait, so that closing the connection does not make the kernel answer them with RST.
    fn discard_input(&mut self, buffer: &mut ReadBuffer);

    /// What the kernel knows of the connection; `None` if it is not TCP.
    fn tcp_info(&self) -> Option<TcpInfo>;

    /// The error that the kernel knows of. It reports each error only once; of a live link, errors are the ones that
    /// routers reported.
    fn take_error(&mut self) -> Option<io::Error>;

    /// Asks the kernel to try at least this often to get unacknowledged data through.
    fn limit_backoff(&self, interval: Duration);

    /// Do not pass large reads on without a copy for a while: it did not pay.
    fn pause_splice(&mut self) {}

    /// Whether the peer has acknowledged everything, or nobody can know.
    fn is_settled(&self) -> bool {
        !self.wants_write() && self.tcp_info().is_none_or(|info| info.all_acknowledged())
    }
}

/// One event of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the bits of one epoll event, in any combination")]
pub(super) struct Ready {
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// FIN or RST.
    pub(super) hung_up: bool,
    pub(super) error: bool,
}

/// Bytes to write, which may also be in the pipe.
pub(super) struct Data<'a> {
    pub(super) bytes: &'a [u8],
    /// Holds the same bytes, if there is one: from there they are passed on without a copy.
    pub(super) pipe: Option<&'a mut Pipe>,
}

impl<'a> From<&'a [u8]> for Data<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { bytes, pipe: None }
    }
}

/// One read.
pub(super) struct Read<'b> {
    /// Empty if nothing was there.
    pub(super) data: Data<'b>,
    /// What the read learned of the connection besides.
    pub(super) end: Option<ReadEnd>,
}

/// The end of a connection, as a read learns of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadEnd {
    /// Every byte before it has been read.
    Ended(LegEnd),
    /// More bytes may be left to read before it.
    Lost(Loss),
}

/// One write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) accepted: usize,
    /// The write, or a part of it, encountered the loss of the connection.
    pub(super) loss: Option<Loss>,
}

/// A connection was found dead other than by reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) end: LegEnd,
    /// The endpoint sent FIN before, behind the bytes that are still unread.
    pub(super) behind_fin: bool,
}

impl Loss {
    /// Data stays unacknowledged.
    pub(super) const TIMEOUT: Self = Self { end: LegEnd::Timeout, behind_fin: false };
}

impl From<io::Error> for Loss {
    fn from(error: io::Error) -> Self {
        Self { end: leg_end(&error), behind_fin: error.kind() == io::ErrorKind::BrokenPipe }
    }
}

/// How a leg ended, by the error of a read or a write.
fn leg_end(error: &io::Error) -> LegEnd {
    match error.kind() {
        io::ErrorKind::TimedOut => LegEnd::Timeout,
        // Includes ICMP messages: the kernel keeps one, and reports it in place of its own timeout if nothing better
        // comes. A refusal means "port unreachable" then, never an RST.
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::PermissionDenied => LegEnd::Unreachable,
        // An RST after the peer's FIN is EPIPE; any other error leaves as little of the connection.
        _ => LegEnd::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_reported_as_how_the_leg_ended() {
        for (error, end) in [
            (libc::ECONNRESET, LegEnd::Reset),
            (libc::EPIPE, LegEnd::Reset),
            (libc::ETIMEDOUT, LegEnd::Timeout),
            (libc::EHOSTUNREACH, LegEnd::Unreachable),
            (libc::ENETUNREACH, LegEnd::Unreachable),
            (libc::ENETDOWN, LegEnd::Unreachable),
            (libc::ECONNREFUSED, LegEnd::Unreachable),
            (libc::EACCES, LegEnd::Unreachable),
        ] {
            assert_eq!(leg_end(&io::Error::from_raw_os_error(error)), end, "{error}");
        }
    }
}
