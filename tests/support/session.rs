//! Both ends of one session.

use closewatch::websocket::Endpoint;

use super::{Peer, Program, Server, close_from_client, close_from_server, from_client, from_server};

/// An upgrade request (the key of RFC 6455, section 1.3).
pub(crate) const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The 101 response to [`REQUEST`].
pub(crate) const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A session through closewatch. The test holds both ends.
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
        let (server, _) = server.accept_request();
        Self::switch(client, server)
    }

    /// Opens a session on connections whose request has arrived.
    pub(crate) fn switch(mut client: Peer, mut server: Peer) -> Self {
        server.send(SWITCHING);
        assert_eq!(client.receive_head().first_line(), "HTTP/1.1 101 Switching Protocols");
        Self { client, server }
    }

    /// One end.
    pub(crate) fn end(&mut self, endpoint: Endpoint) -> &mut Peer {
        match endpoint {
            Endpoint::Client => &mut self.client,
            Endpoint::Server => &mut self.server,
        }
    }

    /// One end, then the other one.
    pub(crate) fn split(self, first: Endpoint) -> (Peer, Peer) {
        match first {
            Endpoint::Client => (self.client, self.server),
            Endpoint::Server => (self.server, self.client),
        }
    }

    /// An endpoint sends bytes, which arrive unchanged.
    pub(crate) fn pass(&mut self, from: Endpoint, bytes: impl AsRef<[u8]>) {
        self.end(from).send(&bytes);
        self.end(from.other()).expect(bytes);
    }

    /// The client sends a Close frame, which arrives unchanged.
    pub(crate) fn client_closes(&mut self, code: u16, reason: &str) {
        self.pass(Endpoint::Client, close_from_client(code, reason));
    }

    /// The server sends a Close frame, which arrives unchanged.
    pub(crate) fn server_closes(&mut self, code: u16, reason: &str) {
        self.pass(Endpoint::Server, close_from_server(code, reason));
    }

    /// Both ends receive a Close frame of closewatch, answer it, and hang up.
    pub(crate) fn proxy_closes(&mut self, code: u16, reason: &str) {
        assert_eq!(self.client.receive_close(false), (code, reason.to_owned()));
        assert_eq!(self.server.receive_close(true), (code, reason.to_owned()));
        self.answer_close(code);
    }

    /// Both ends answer a Close frame of closewatch, and hang up after closewatch. Neither end gets the other's answer.
    pub(crate) fn answer_close(&mut self, code: u16) {
        self.client.send(close_from_client(code, ""));
        self.server.send(close_from_server(code, ""));
        self.client.expect_fin();
        self.server.expect_fin();
        self.client.finish();
        self.server.finish();
    }

    /// The server sends a message: closewatch has read everything that the client sent before.
    pub(crate) fn exchange_from_server(&mut self) {
        self.pass(Endpoint::Server, from_server(0x82, b"message"));
    }

    /// One message in each direction: everything that was sent before has arrived.
    pub(crate) fn exchange(&mut self) {
        self.pass(Endpoint::Client, from_client(0x81, b"question"));
        self.pass(Endpoint::Server, from_server(0x82, b"answer"));
    }
}
