//! A transport without a socket, which does only what a test tells it to.

use std::{
    cell::{RefCell, RefMut},
    io, mem,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use super::super::transport::{Data, Loss, Read, ReadBuffer, ReadEnd, Ready, TcpInfo, Transport, Written};
use crate::session::LegEnd;

/// A simulated connection. The test keeps a clone.
#[derive(Debug, Clone)]
pub(crate) struct SimTransport(Rc<RefCell<Sim>>);

/// One simulated connection, as its endpoint sees it.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a switch for each way in which a connection can be odd")]
pub(crate) struct Sim {
    /// Bytes that the endpoint has sent and closewatch has not read, and how its stream ends behind them.
    pub(crate) incoming: Vec<u8>,
    pub(crate) incoming_end: Option<LegEnd>,
    /// Bytes that closewatch has read.
    pub(crate) consumed: Vec<u8>,
    /// An event said that there is something to read.
    readable: bool,
    /// The most that one read returns.
    pub(crate) read_size: usize,
    /// Bytes that left closewatch's process.
    pub(crate) sent: Vec<u8>,
    /// Bytes that the transport accepted and holds back, as a TLS library holds a record.
    pub(crate) held: Vec<u8>,
    /// How many bytes the connection takes now.
    pub(crate) room: usize,
    /// Accepted bytes leave the process only when the transport is flushed.
    pub(crate) holds: bool,
    /// The endpoint acknowledges nothing.
    pub(crate) is_silent: bool,
    /// The next byte that leaves the process meets an RST.
    pub(crate) is_dead: bool,
    /// The end of our stream cannot be sent at the first attempt.
    pub(crate) blocks_finish: bool,
    /// A read returns the last bytes and the end together.
    pub(crate) joins_end: bool,
    /// The loss that the next event with an error reports.
    pub(crate) loss_event: Option<LegEnd>,
    /// Panics in the call of this name.
    pub(crate) panics_at: Option<&'static str>,
    /// The endpoint or the network ended the connection, other than by FIN.
    pub(crate) is_lost: bool,
    pub(crate) fate: Fate,
    committed: usize,
}

/// What closewatch made of a connection.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    #[default]
    Open,
    /// closewatch sent FIN.
    Finished,
    /// closewatch sent RST.
    Reset,
}

impl SimTransport {
    pub(crate) fn new() -> Self {
        Self(Rc::new(RefCell::new(Sim { read_size: usize::MAX, room: usize::MAX, ..Sim::default() })))
    }

    pub(crate) fn sim(&self) -> RefMut<'_, Sim> {
        self.0.borrow_mut()
    }

    /// The state for one call of the driver.
    fn call(&self, name: &str) -> RefMut<'_, Sim> {
        let sim = self.sim();
        let panics = sim.panics_at == Some(name);
        drop(sim);
        assert!(!panics, "the test asks for a panic");
        self.sim()
    }
}

impl Sim {
    /// Bytes leave the process, unless that finds the connection dead.
    fn commit(&mut self, bytes: &[u8]) -> Option<Loss> {
        if !bytes.is_empty() && mem::take(&mut self.is_dead) {
            self.is_lost = true;
            return Some(Loss { end: LegEnd::Reset, behind_fin: false });
        }
        self.sent.extend_from_slice(bytes);
        self.committed += bytes.len();
        None
    }
}

impl Transport for SimTransport {
    fn on_ready(&mut self, ready: Ready) -> Option<Loss> {
        let mut sim = self.call("on_ready");
        sim.readable |= ready.readable;
        let end = sim.loss_event.take_if(|_| ready.error)?;
        Some(Loss { end, behind_fin: sim.incoming_end == Some(LegEnd::Fin) })
    }

    fn can_read(&self) -> bool {
        self.sim().readable
    }

    fn has_hung_up(&self) -> bool {
        self.sim().incoming_end.is_some()
    }

    fn read<'b>(&mut self, buffer: &'b mut ReadBuffer, limit: usize) -> Read<'b> {
        let mut sim = self.call("read");
        let count = limit.min(sim.read_size).min(sim.incoming.len());
        let bytes: Vec<u8> = sim.incoming.drain(..count).collect();
        sim.consumed.extend_from_slice(&bytes);
        buffer.bytes[..count].copy_from_slice(&bytes);
        let is_last = sim.incoming.is_empty() && (count == 0 || sim.joins_end);
        let end = if is_last { sim.incoming_end.take() } else { None };
        sim.readable = !sim.incoming.is_empty() || sim.incoming_end.is_some();
        Read { data: buffer.bytes[..count].into(), end: end.map(ReadEnd::Ended) }
    }

    fn write(&mut self, data: Data<'_>) -> Written {
        let mut sim = self.call("write");
        assert_eq!(sim.fate, Fate::Open, "a write behind the end of our stream");
        let accepted = sim.room.min(data.bytes.len());
        if sim.room != usize::MAX {
            sim.room -= accepted;
        }
        let bytes = &data.bytes[..accepted];
        if sim.holds {
            sim.held.extend_from_slice(bytes);
            return Written { accepted, loss: None };
        }
        match sim.commit(bytes) {
            Some(loss) => Written { accepted: 0, loss: Some(loss) },
            None => Written { accepted, loss: None },
        }
    }

    fn take_committed(&mut self) -> usize {
        mem::take(&mut self.sim().committed)
    }

    fn wants_write(&self) -> bool {
        !self.sim().held.is_empty()
    }

    fn flush(&mut self) -> Option<Loss> {
        let mut sim = self.call("flush");
        let held = mem::take(&mut sim.held);
        sim.commit(&held)
    }

    fn finish(&mut self) -> Poll<()> {
        let mut sim = self.call("finish");
        if mem::take(&mut sim.blocks_finish) {
            return Poll::Pending;
        }
        sim.fate = Fate::Finished;
        Poll::Ready(())
    }

    fn abort(&mut self) {
        self.call("abort").fate = Fate::Reset;
    }

    fn discard_input(&mut self, _: &mut ReadBuffer) {
        self.call("discard_input").incoming.clear();
    }

    fn tcp_info(&self) -> Option<TcpInfo> {
        self.call("tcp_info").is_silent.then_some(TcpInfo {
            rtt: Duration::ZERO,
            retransmits: 0,
            unacknowledged: 1,
            unsent_bytes: 0,
            acknowledged_bytes: 0,
            window: 1,
            unanswered_probes: 0,
            since_last_ack: Duration::ZERO,
        })
    }

    fn take_error(&mut self) -> Option<io::Error> {
        None
    }

    fn limit_backoff(&self, _: Duration) {}
}
