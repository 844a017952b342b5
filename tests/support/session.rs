//! Both ends of one session.

use super::{Peer, Program, Server, close, from_client, from_server};

/// An upgrade request (the key of RFC 6455, 1.3).
pub(crate) const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The answer to it.
pub(crate) const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A session through closewatch: its two ends in the test's hands.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Peer,
    pub(crate) server: Peer,
}

impl Session {
    pub(crate) fn open(program: &Program, server: &Server) -> Self {
        Self::open_with(program.connect(), server, REQUEST)
    }

    /// Opens a session on a connection, with a request.
    pub(crate) fn open_with(mut client: Peer, server: &Server, request: &str) -> Self {
        client.send(request);
        let (mut server, _) = server.accept_request();
        server.send(SWITCHING);
        assert_eq!(client.receive_head().first_line(), "HTTP/1.1 101 Switching Protocols");
        Self { client, server }
    }

    /// The client sends a Close frame, which arrives as it is.
    pub(crate) fn client_closes(&mut self, code: u16, reason: &str) {
        let frame = from_client(0x88, &close(code, reason));
        self.client.send(&frame);
        self.server.expect(&frame);
    }

    /// The server sends a Close frame, which arrives as it is.
    pub(crate) fn server_closes(&mut self, code: u16, reason: &str) {
        let frame = from_server(0x88, &close(code, reason));
        self.server.send(&frame);
        self.client.expect(&frame);
    }

    /// A message of the server: what the client sent before has been read.
    pub(crate) fn exchange_from_server(&mut self) {
        let message = from_server(0x82, b"message");
        self.server.send(&message);
        self.client.expect(&message);
    }

    /// A message each way: whatever was sent before has gone through.
    pub(crate) fn exchange(&mut self) {
        let (question, answer) = (from_client(0x81, b"question"), from_server(0x82, b"answer"));
        self.client.send(&question);
        self.server.expect(&question);
        self.server.send(&answer);
        self.client.expect(&answer);
    }
}
