//! The client of one WebSocket session. It checks every byte.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::frame::{self, Shape};
use crate::handshake;

const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// A session. After the opening handshake both directions are known streams, so a position is enough for each.
pub(crate) struct Session {
    stream: TcpStream,
    token: Token,
    /// The index of its shape in the generator.
    pub(crate) shape: usize,
    pub(crate) close_code: u16,
    pub(crate) born: Instant,
    number: u32,
    phase: Phase,
    request: String,
    head: Vec<u8>,
    /// The number of messages that may be sent.
    allowed: u64,
    sent: u64,
    received: u64,
    /// The time at which each message in flight was allowed, the oldest first.
    allowed_at: VecDeque<Instant>,
}

#[derive(PartialEq)]
enum Phase {
    Connecting,
    Upgrading,
    Open,
    Closing,
}

/// The result of an event.
#[derive(PartialEq)]
pub(crate) enum Step {
    /// No complete message.
    None,
    Upgraded,
    /// This number of complete messages returned.
    Replies(u64),
    /// The closing handshake is complete and the connection has ended by FIN.
    Closed,
}

/// The identity of a session.
pub(crate) struct Identity {
    pub(crate) number: u32,
    pub(crate) route: u32,
    pub(crate) close_code: u16,
    pub(crate) shape: usize,
}

impl Session {
    pub(crate) fn connect(
        address: SocketAddr,
        identity: &Identity,
        token: Token,
        registry: &Registry,
    ) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        registry.register(&mut stream, token, INTEREST)?;
        Ok(Self {
            stream,
            token,
            shape: identity.shape,
            close_code: identity.close_code,
            born: Instant::now(),
            number: identity.number,
            phase: Phase::Connecting,
            request: handshake::request(&address.to_string(), identity.route),
            head: Vec::new(),
            allowed: 0,
            sent: 0,
            received: 0,
            allowed_at: VecDeque::new(),
        })
    }

    /// Allows `count` more messages, and sends as much as the socket accepts.
    pub(crate) fn allow(&mut self, count: u64, now: Instant, shape: &mut Shape, scratch: &mut [u8]) -> io::Result<()> {
        self.allowed += count;
        self.allowed_at.extend((0..count).map(|_| now));
        self.send(shape, scratch)
    }

    /// Removes and returns the time at which the oldest message in flight was allowed; once for each reply.
    pub(crate) fn take_allowed_at(&mut self) -> Option<Instant> {
        self.allowed_at.pop_front()
    }

    /// Begins the closing handshake. No message may be in flight.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.phase = Phase::Closing;
        self.stream.write_all(&frame::close_request(self.close_code))
    }

    /// Handles an event.
    pub(crate) fn ready(
        &mut self,
        event: &Event,
        registry: &Registry,
        shape: &mut Shape,
        scratch: &mut [u8],
    ) -> io::Result<Step> {
        if event.is_writable() {
            match self.phase {
                Phase::Connecting => self.ask_for_upgrade()?,
                Phase::Open => self.send(shape, scratch)?,
                Phase::Upgrading | Phase::Closing => {}
            }
        }
        if !event.is_readable() || self.phase == Phase::Connecting {
            return Ok(Step::None);
        }
        let replies_before = self.received / shape.reply.length();
        let upgrading = self.phase == Phase::Upgrading;
        let ended = self.receive(event.is_read_closed(), registry, shape, scratch)?;
        let replies = (self.received / shape.reply.length()).min(self.allowed) - replies_before.min(self.allowed);
        Ok(match self.phase {
            Phase::Closing if ended => Step::Closed,
            Phase::Open if upgrading => Step::Upgraded,
            Phase::Open if replies > 0 => Step::Replies(replies),
            _ => Step::None,
        })
    }

    fn ask_for_upgrade(&mut self) -> io::Result<()> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        self.phase = Phase::Upgrading;
        self.stream.write_all(self.request.as_bytes())
    }

    /// Writes the stream from its position on, up to the allowed messages.
    fn send(&mut self, shape: &mut Shape, scratch: &mut [u8]) -> io::Result<()> {
        let end = self.allowed * shape.request.length();
        while self.sent < end {
            let filled = self.render(shape, scratch, end);
            match self.stream.write(&scratch[..filled]) {
                Ok(written) => self.sent += written as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn render(&self, shape: &mut Shape, scratch: &mut [u8], end: u64) -> usize {
        let mut filled = 0;
        while filled < scratch.len() && self.sent + (filled as u64) < end {
            let frame = self.rest_of_frame(self.sent + filled as u64, &mut shape.request);
            let length = frame.len().min(scratch.len() - filled);
            scratch[filled..filled + length].copy_from_slice(&frame[..length]);
            filled += length;
        }
        filled
    }

    /// The rest of the frame at `position` of the stream.
    fn rest_of_frame<'a>(&self, position: u64, template: &'a mut frame::Template) -> &'a [u8] {
        let stamp = (u64::from(self.number) << 32) | (position / template.length());
        let offset = position % template.length();
        &template.stamped(stamp)[usize::try_from(offset).expect("a frame fits into memory")..]
    }

    /// Reads and checks; returns whether the connection ended properly.
    fn receive(
        &mut self,
        hung_up: bool,
        registry: &Registry,
        shape: &mut Shape,
        scratch: &mut [u8],
    ) -> io::Result<bool> {
        loop {
            let read = match self.stream.read(scratch) {
                Ok(0) => return self.end(shape),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            self.take(&scratch[..read], shape)?;
            if read == scratch.len() {
                // More bytes may wait: ask for another event, so that other sessions come first.
                registry.reregister(&mut self.stream, self.token, INTEREST)?;
                return Ok(false);
            }
            if !hung_up {
                return Ok(false);
            }
        }
    }

    fn end(&self, shape: &Shape) -> io::Result<bool> {
        let whole = self.allowed * shape.reply.length() + frame::CLOSE_REPLY_LENGTH;
        if self.phase == Phase::Closing && self.received == whole {
            return Ok(true);
        }
        Err(io::Error::new(ErrorKind::UnexpectedEof, format!("session {} ended by the peer", self.number)))
    }

    fn take(&mut self, bytes: &[u8], shape: &mut Shape) -> io::Result<()> {
        if self.phase != Phase::Upgrading {
            return self.check(bytes, shape);
        }
        self.head.extend_from_slice(bytes);
        let Some(length) = handshake::head_length(&self.head) else { return Ok(()) };
        let head = std::mem::take(&mut self.head);
        if !handshake::is_accepted(&head) {
            return Err(io::Error::other(format!("no upgrade: {}", String::from_utf8_lossy(&head))));
        }
        self.phase = Phase::Open;
        self.check(&head[length..], shape)
    }

    /// Compares received bytes with those expected at this position.
    fn check(&mut self, mut bytes: &[u8], shape: &mut Shape) -> io::Result<()> {
        let replies_end = self.allowed * shape.reply.length();
        let close_reply = frame::close_reply(self.close_code);
        while !bytes.is_empty() {
            let expected = if self.received < replies_end {
                self.rest_of_frame(self.received, &mut shape.reply)
            } else if self.phase == Phase::Closing {
                let offset = usize::try_from(self.received - replies_end).unwrap_or(usize::MAX);
                close_reply.get(offset..).unwrap_or_default()
            } else {
                &[]
            };
            let length = expected.len().min(bytes.len());
            if length == 0 || bytes[..length] != expected[..length] {
                let what = format!("session {}: wrong bytes at position {}", self.number, self.received);
                return Err(io::Error::new(ErrorKind::InvalidData, what));
            }
            self.received += length as u64;
            bytes = &bytes[length..];
        }
        Ok(())
    }
}
