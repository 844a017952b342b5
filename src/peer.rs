//! A WebSocket endpoint for the probe and for the demo's server. It writes its users' frames without a change, and
//! returns received frames without a change. It is never on the data path.
//!
//! Only the frame layer of tungstenite serves here: its connections answer Close frames by themselves, and turn a Close
//! code that they do not know into 1002. So the users of this module answer Pings and Close frames themselves.

use std::{
    io::{self, Cursor},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::protocol::{
    Role,
    frame::{
        Frame, FrameHeader,
        coding::{Control, Data, OpCode},
    },
};

use crate::websocket::{
    close_code::{CloseCode, CloseFrame, CloseStatus, MAX_REASON},
    frame::MessageType,
};

/// The largest message that is read, in bytes. A larger one fails the connection with 1009.
pub(crate) const MAX_MESSAGE: usize = 64 << 20;

const READ_SIZE: usize = 16 << 10;
const MAX_CONTROL_PAYLOAD: u64 = 125;

/// One end of an upgraded connection.
#[derive(Debug)]
pub(crate) struct PeerConnection<S> {
    stream: S,
    role: Role,
    /// Bytes that were read, and are not yet part of a returned frame.
    received: BytesMut,
    /// The fragments so far of an incomplete message.
    fragments: Option<(MessageType, Vec<u8>)>,
    /// Whether data frames may have RSV bits, because an extension was agreed. Its meaning is unknown here.
    allows_reserved_bits: bool,
}

/// An action of the other endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PeerEvent {
    /// It sent a message.
    Message(Message),
    /// It sent a Ping with this payload, which the Pong must repeat.
    Ping(Bytes),
    /// It sent a Pong.
    Pong,
    /// It sent a Close frame. Bytes behind it have no meaning.
    Close(CloseFrame),
}

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// UTF-8 text.
    Text(String),
    /// Bytes. Also a message in the form that an agreed extension gave it.
    Binary(Vec<u8>),
}

/// The reason why nothing more can be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// FIN without a Close frame.
    Ended,
    /// The connection broke.
    Broken(io::Error),
    /// The other endpoint violated the protocol: fail the connection with this code (RFC 6455, 7.1.7).
    Violation { code: u16, message: String },
}

impl<S: AsyncRead + AsyncWrite + Unpin> PeerConnection<S> {
    /// Takes over a connection after its opening handshake, with the bytes that were read behind the head.
    pub(crate) fn new(stream: S, role: Role, already_read: &[u8]) -> Self {
        Self { stream, role, received: already_read.into(), fragments: None, allows_reserved_bits: false }
    }

    /// Allows RSV bits in data frames, for an agreed extension.
    pub(crate) fn allow_reserved_bits(&mut self) {
        self.allows_reserved_bits = true;
    }

    /// Waits for the next action of the other endpoint. Nothing is lost if the future is dropped.
    pub(crate) async fn next_event(&mut self) -> Result<PeerEvent, ReadError> {
        loop {
            while let Some((header, payload)) = self.take_frame()? {
                if let Some(event) = self.event(&header, payload)? {
                    return Ok(event);
                }
            }
            self.received.reserve(READ_SIZE);
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(ReadError::Ended);
            }
        }
    }

    /// Sends a message in one frame.
    pub(crate) async fn send(&mut self, message: Message) -> io::Result<()> {
        match message {
            Message::Text(text) => self.write(OpCode::Data(Data::Text), text.into()).await,
            Message::Binary(bytes) => self.write(OpCode::Data(Data::Binary), bytes.into()).await,
        }
    }

    /// Sends a Ping. Its payload has at most 125 bytes.
    pub(crate) async fn ping(&mut self, payload: impl Into<Bytes>) -> io::Result<()> {
        self.write(OpCode::Control(Control::Ping), payload.into()).await
    }

    /// Answers a Ping.
    pub(crate) async fn pong(&mut self, payload: Bytes) -> io::Result<()> {
        self.write(OpCode::Control(Control::Pong), payload).await
    }

    /// Sends a Close frame with exactly this code, legal or not. A reason that is too long is cut between two characters.
    pub(crate) async fn close(&mut self, frame: &CloseFrame) -> io::Result<()> {
        let mut payload = Vec::new();
        if let CloseStatus::Sent(CloseCode(code)) = frame.status {
            payload.extend_from_slice(&code.to_be_bytes());
            payload.extend_from_slice(&frame.reason.as_bytes()[..frame.reason.floor_char_boundary(MAX_REASON)]);
        }
        self.write(OpCode::Control(Control::Close), payload.into()).await
    }

    /// Sends FIN, then reads until the other endpoint sends FIN too or the time is over: a socket that is closed with
    /// unread data sends RST.
    pub(crate) async fn hang_up(mut self, limit: Duration) {
        if self.stream.shutdown().await.is_ok() {
            // The connection is closed in any case. An error means that it is over already.
            let _ = tokio::time::timeout(limit, self.discard()).await;
        }
    }

    /// Reads and drops everything until the other endpoint hangs up.
    pub(crate) async fn discard(&mut self) {
        self.received = BytesMut::new();
        let _ = tokio::io::copy(&mut self.stream, &mut tokio::io::sink()).await;
    }

    async fn write(&mut self, opcode: OpCode, payload: Bytes) -> io::Result<()> {
        // The masking key protects proxies from scripts (RFC 6455, 10.3). Here the user is the only author of the
        // payload, so the key needs no cryptographic strength.
        let mask = matches!(self.role, Role::Client).then(|| fastrand::u32(..).to_ne_bytes());
        let header = FrameHeader { opcode, mask, ..FrameHeader::default() };
        let mut bytes = Vec::with_capacity(header.len(payload.len() as u64) + payload.len());
        Frame::from_payload(header, payload).format(&mut bytes).map_err(io::Error::other)?;
        self.stream.write_all(&bytes).await
    }

    /// Takes the next frame off the received bytes, with its payload unmasked. `None` if it is incomplete.
    fn take_frame(&mut self) -> Result<Option<(FrameHeader, BytesMut)>, ReadError> {
        let mut cursor = Cursor::new(&self.received[..]);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|error| violation(1002, error.to_string()))?;
        let Some((header, length)) = parsed else { return Ok(None) };
        let start = usize::try_from(cursor.position()).expect("a header has at most 14 bytes");
        self.check_header(&header, length)?;
        let end = start + usize::try_from(length).expect("at most MAX_MESSAGE");
        if self.received.len() < end {
            self.received.reserve(end - self.received.len());
            return Ok(None);
        }
        let mut payload = self.received.split_to(end).split_off(start);
        for (byte, key) in payload.iter_mut().zip(header.mask.iter().flatten().cycle()) {
            *byte ^= key;
        }
        Ok(Some((header, payload)))
    }

    fn check_header(&self, header: &FrameHeader, length: u64) -> Result<(), ReadError> {
        let is_control = matches!(header.opcode, OpCode::Control(_));
        if header.mask.is_some() != matches!(self.role, Role::Server) {
            return Err(violation(1002, "a frame with the wrong masking"));
        }
        if has_reserved_bits(header) && (is_control || !self.allows_reserved_bits) {
            return Err(violation(1002, "a frame with a reserved bit set"));
        }
        if is_control && (!header.is_final || length > MAX_CONTROL_PAYLOAD) {
            return Err(violation(1002, "a control frame that is fragmented or too long"));
        }
        let fragments = self.fragments.as_ref().map_or(0, |(_, bytes)| bytes.len() as u64);
        if length.saturating_add(fragments) > MAX_MESSAGE as u64 {
            return Err(violation(1009, format!("a message of more than {MAX_MESSAGE} bytes")));
        }
        Ok(())
    }

    fn event(&mut self, header: &FrameHeader, payload: BytesMut) -> Result<Option<PeerEvent>, ReadError> {
        match header.opcode {
            OpCode::Control(Control::Close) => parse_close(&payload).map(PeerEvent::Close).map(Some),
            OpCode::Control(Control::Ping) => Ok(Some(PeerEvent::Ping(payload.freeze()))),
            OpCode::Control(_) => Ok(Some(PeerEvent::Pong)),
            OpCode::Data(data) => self.data_frame(header, data, &payload),
        }
    }

    fn data_frame(&mut self, header: &FrameHeader, data: Data, payload: &[u8]) -> Result<Option<PeerEvent>, ReadError> {
        let (message_type, mut bytes) = match (self.fragments.take(), data) {
            (Some(begun), Data::Continue) => begun,
            (None, Data::Continue) => return Err(violation(1002, "a continuation without a message")),
            (Some(_), _) => return Err(violation(1002, "a message inside a fragmented message")),
            (None, Data::Text) if !has_reserved_bits(header) => (MessageType::Text, Vec::new()),
            (None, _) => (MessageType::Binary, Vec::new()),
        };
        bytes.extend_from_slice(payload);
        if header.is_final {
            return parse_message(message_type, bytes).map(PeerEvent::Message).map(Some);
        }
        self.fragments = Some((message_type, bytes));
        Ok(None)
    }
}

impl PeerConnection<TcpStream> {
    /// Ends the connection with RST.
    pub(crate) fn abort(self) {
        // If the option cannot be set, the connection is over already, and closing it is enough.
        let _ = self.stream.set_zero_linger();
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// A Close frame with a code.
pub(crate) fn close_frame(code: CloseCode, reason: impl Into<String>) -> CloseFrame {
    CloseFrame { status: CloseStatus::Sent(code), reason: reason.into() }
}

/// A Close frame without a code.
pub(crate) fn empty_close_frame() -> CloseFrame {
    CloseFrame { status: CloseStatus::NoStatus, reason: String::new() }
}

fn parse_close(payload: &[u8]) -> Result<CloseFrame, ReadError> {
    match payload {
        [] => Ok(empty_close_frame()),
        [_] => Err(violation(1002, "a Close frame with a payload of one byte")),
        [high, low, reason @ ..] => {
            let code = CloseCode(u16::from_be_bytes([*high, *low]));
            if !code.allowed_on_wire() {
                return Err(violation(
                    1002,
                    format!("a Close frame with code {}, which is illegal on the wire", code.0),
                ));
            }
            let reason = str::from_utf8(reason).map_err(|_| violation(1007, "a Close reason that is not UTF-8"))?;
            Ok(close_frame(code, reason))
        }
    }
}

fn parse_message(message_type: MessageType, bytes: Vec<u8>) -> Result<Message, ReadError> {
    match message_type {
        MessageType::Binary => Ok(Message::Binary(bytes)),
        MessageType::Text => {
            String::from_utf8(bytes).map(Message::Text).map_err(|_| violation(1007, "a text message that is not UTF-8"))
        }
    }
}

fn has_reserved_bits(header: &FrameHeader) -> bool {
    header.rsv1 || header.rsv2 || header.rsv3
}

fn violation(code: u16, message: impl Into<String>) -> ReadError {
    ReadError::Violation { code, message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events that a client reads from these bytes, and the first error.
    async fn read_by_client(bytes: &[u8]) -> (Vec<PeerEvent>, ReadError) {
        let mut connection = PeerConnection::new(tokio::io::join(bytes, tokio::io::sink()), Role::Client, &[]);
        let mut events = Vec::new();
        loop {
            match connection.next_event().await {
                Ok(event) => events.push(event),
                Err(error) => return (events, error),
            }
        }
    }

    async fn violation_in(bytes: &[u8]) -> Option<u16> {
        match read_by_client(bytes).await.1 {
            ReadError::Violation { code, .. } => Some(code),
            ReadError::Ended | ReadError::Broken(_) => None,
        }
    }

    #[tokio::test]
    async fn fragments_become_one_message_around_a_ping() {
        let bytes = b"\x01\x02He\x89\x01!\x80\x01y\x82\x02\x00\xff\x8a\x00";
        let (events, end) = read_by_client(bytes).await;
        let expected = [
            PeerEvent::Ping(Bytes::from_static(b"!")),
            PeerEvent::Message(Message::Text("Hey".into())),
            PeerEvent::Message(Message::Binary(vec![0, 255])),
            PeerEvent::Pong,
        ];
        assert_eq!(events, expected);
        assert!(matches!(end, ReadError::Ended));
    }

    #[tokio::test]
    async fn close_frames_are_read_as_they_came() {
        for (bytes, expected) in [
            (&b"\x88\x00"[..], empty_close_frame()),
            (b"\x88\x02\x03\xf6", close_frame(CloseCode(1014), "")),
            (b"\x88\x05\x0f\xa1bye", close_frame(CloseCode(4001), "bye")),
        ] {
            assert_eq!(read_by_client(bytes).await.0, [PeerEvent::Close(expected)]);
        }
    }

    #[tokio::test]
    async fn violations_fail_the_connection() {
        assert_eq!(violation_in(b"\x83\x00").await, Some(1002), "reserved opcode");
        assert_eq!(violation_in(b"\xc1\x00").await, Some(1002), "RSV1");
        assert_eq!(violation_in(b"\x81\x80\0\0\0\0").await, Some(1002), "masked by a server");
        assert_eq!(violation_in(b"\x09\x00").await, Some(1002), "fragmented Ping");
        assert_eq!(violation_in(b"\x89\x7e\x00\x7e").await, Some(1002), "long Ping");
        assert_eq!(violation_in(b"\x80\x00").await, Some(1002), "continuation of nothing");
        assert_eq!(violation_in(b"\x01\x00\x81\x00").await, Some(1002), "message in a message");
        assert_eq!(violation_in(b"\x81\x01\xff").await, Some(1007), "text that is not UTF-8");
        assert_eq!(violation_in(b"\x88\x01\x03").await, Some(1002), "half a code");
        assert_eq!(violation_in(b"\x88\x02\x03\xee").await, Some(1002), "1006 on the wire");
        assert_eq!(violation_in(b"\x88\x03\x03\xe8\xff").await, Some(1007), "reason that is not UTF-8");
        assert_eq!(violation_in(b"\x82\x7f\xff\0\0\0\0\0\0\0").await, Some(1009), "2^63 and more bytes");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_to_the_end(bytes: Vec<u8>) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (events, _) = runtime.block_on(read_by_client(&bytes));
            proptest::prop_assert!(2 * events.len() <= bytes.len());
        }
    }

    #[tokio::test]
    async fn encoded_message_is_binary() {
        let mut connection =
            PeerConnection::new(tokio::io::join(&b"\xc1\x02\x4a\x05"[..], tokio::io::sink()), Role::Client, &[]);
        connection.allow_reserved_bits();
        let event = connection.next_event().await.unwrap();
        assert_eq!(event, PeerEvent::Message(Message::Binary(vec![0x4a, 0x05])));
    }

    #[tokio::test]
    async fn close_writes_any_code_and_cuts_long_reason() {
        let mut written = Vec::new();
        let mut connection = PeerConnection::new(tokio::io::join(&b""[..], &mut written), Role::Server, &[]);
        connection.close(&close_frame(CloseCode::ABNORMAL, "x".repeat(122) + "\u{e9}")).await.unwrap();
        let mut expected = b"\x88\x7c\x03\xee".to_vec();
        expected.extend([b'x'; 122]);
        assert_eq!(written, expected);
    }

    #[tokio::test]
    async fn server_reads_masked_message() {
        let (client, server) = tokio::io::duplex(64);
        let mut client = PeerConnection::new(client, Role::Client, &[]);
        let mut server = PeerConnection::new(server, Role::Server, &[]);
        client.send(Message::Text("masked".into())).await.unwrap();
        assert_eq!(server.next_event().await.unwrap(), PeerEvent::Message(Message::Text("masked".into())));
    }
}
