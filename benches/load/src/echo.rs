//! The echo server: every frame goes back without its mask. A Close frame also goes back, and then the server hangs up
//! first (RFC 6455, 7.1.1).

use std::io::{self, ErrorKind, Read, Write};

use mio::event::{Event, Source};
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

use crate::{frame, handshake};

/// The limit of one read. The other connections come before the next one.
const BUFFER: usize = 256 * 1024;
const LISTENER: Token = Token(usize::MAX);

/// Listens on `HOST:PORT` or `unix:PATH` and serves until the process is killed.
pub(crate) fn serve(address: &str) -> io::Result<()> {
    if let Some(path) = address.strip_prefix("unix:") {
        let listener = UnixListener::bind(path)?;
        println!("listening on {address}");
        return run(listener);
    }
    let address = address.parse().map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    run(listener)
}

trait Listener: Source {
    type Stream: Read + Write + Source;
    fn accept(&self) -> io::Result<Self::Stream>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = TcpListener::accept(self)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    fn accept(&self) -> io::Result<UnixStream> {
        UnixListener::accept(self).map(|(stream, _)| stream)
    }
}

fn run<L: Listener>(mut listener: L) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut connections: Slab<Connection<L::Stream>> = Slab::new();
    let mut buffer = vec![0; BUFFER];
    let mut output = Vec::with_capacity(BUFFER);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, poll.registry(), &mut connections)?;
                continue;
            }
            let Token(index) = event.token();
            let Some(connection) = connections.get_mut(index) else { continue };
            if !connection.ready(event, poll.registry(), &mut buffer, &mut output) {
                connections.remove(index);
            }
        }
    }
}

fn accept<L: Listener>(
    listener: &L,
    registry: &Registry,
    connections: &mut Slab<Connection<L::Stream>>,
) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok(mut stream) => {
                let entry = connections.vacant_entry();
                registry.register(&mut stream, Token(entry.key()), Interest::READABLE | Interest::WRITABLE)?;
                entry.insert(Connection::new(stream));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // The connection ended before accept.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}

struct Connection<S> {
    stream: S,
    phase: Phase,
    /// The beginning of an incomplete head or frame header.
    partial: Vec<u8>,
    /// Bytes that the socket did not accept. Reading stops until they are sent.
    unsent: Vec<u8>,
    payload_left: usize,
    /// The mask, rotated so that its first byte applies to the next payload byte.
    key: [u8; 4],
    hung_up: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Upgrading,
    Open,
    /// The current frame is a Close frame.
    Closing,
    /// No more answers; the connection ends when `unsent` is empty.
    Finished,
}

impl<S: Read + Write + Source> Connection<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            phase: Phase::Upgrading,
            partial: Vec::new(),
            unsent: Vec::new(),
            payload_left: 0,
            key: [0; 4],
            hung_up: false,
        }
    }

    /// Reads and answers all available bytes; `false` if the connection ended.
    fn ready(&mut self, event: &Event, registry: &Registry, buffer: &mut [u8], output: &mut Vec<u8>) -> bool {
        self.hung_up |= event.is_read_closed();
        match self.exchange(event.token(), registry, buffer, output) {
            Ok(()) => true,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }

    /// Always returns an error: `WouldBlock` to wait for the next event, any other to end the connection.
    fn exchange(
        &mut self,
        token: Token,
        registry: &Registry,
        buffer: &mut [u8],
        output: &mut Vec<u8>,
    ) -> io::Result<()> {
        self.flush()?;
        loop {
            let read = self.stream.read(buffer)?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            output.clear();
            self.answer(&mut buffer[..read], output).map_err(io::Error::other)?;
            self.send(output)?;
            if read == buffer.len() {
                // More bytes may wait: ask for another event, so that other connections come first.
                return registry.reregister(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE);
            }
            if !self.hung_up {
                return Ok(());
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let unsent = std::mem::take(&mut self.unsent);
        self.send(&unsent)
    }

    fn send(&mut self, mut output: &[u8]) -> io::Result<()> {
        while !output.is_empty() {
            match self.stream.write(output) {
                Ok(written) => output = &output[written..],
                Err(error) => {
                    self.unsent = output.to_vec();
                    return Err(error);
                }
            }
        }
        if self.phase == Phase::Finished { Err(ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    fn answer(&mut self, input: &mut [u8], output: &mut Vec<u8>) -> Result<(), &'static str> {
        let mut whole = std::mem::take(&mut self.partial);
        let input = if whole.is_empty() {
            input
        } else {
            whole.extend_from_slice(input);
            &mut whole
        };
        if self.phase == Phase::Upgrading { self.upgrade(input, output) } else { self.echo(input, output) }
    }

    fn upgrade(&mut self, input: &mut [u8], output: &mut Vec<u8>) -> Result<(), &'static str> {
        let Some(length) = handshake::head_length(input) else {
            self.partial = input.to_vec();
            return Ok(());
        };
        let (head, rest) = input.split_at_mut(length);
        match handshake::answer(head) {
            Ok(accepted) => {
                output.extend(accepted.bytes());
                self.phase = Phase::Open;
            }
            Err(refusal) => {
                output.extend(refusal.bytes());
                self.phase = Phase::Finished;
            }
        }
        self.echo(rest, output)
    }

    fn echo(&mut self, mut input: &mut [u8], output: &mut Vec<u8>) -> Result<(), &'static str> {
        while self.phase != Phase::Finished {
            let (payload, rest) = input.split_at_mut(self.payload_left.min(input.len()));
            frame::mask(payload, self.key);
            output.extend_from_slice(payload);
            self.key.rotate_left(payload.len() % 4);
            self.payload_left -= payload.len();
            if self.payload_left > 0 {
                break;
            }
            if self.phase == Phase::Closing {
                self.phase = Phase::Finished;
                break;
            }
            let Some(header) = frame::read_header(rest)? else {
                self.partial = rest.to_vec();
                break;
            };
            frame::write_header(output, header.first, header.payload_length, None);
            if frame::is_close(header.first) {
                self.phase = Phase::Closing;
            }
            self.key = header.key;
            self.payload_left = header.payload_length;
            input = &mut rest[header.length..];
        }
        Ok(())
    }
}
