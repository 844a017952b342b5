//! The laboratory of one case: the network, closewatch in its middle, and sessions through it.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use serde_json::{Value, json};
use socket2::{Domain, SockRef, Socket, Type};

use crate::{
    closewatch::Closewatch,
    eventually::{SOON, eventually},
    network::{Endpoint, Network, PROXY_ADDRESS},
};

/// The keepalive that nearly every case runs with: a silent link is dead after 3 s.
const KEEPALIVE: &str = "{idle: 1s, interval: 1s, probes: 2}";

/// By when a dead link must have been told: the 3 s, and as much again for a busy machine.
pub(crate) const IN_TIME: Duration = Duration::from_secs(6);

/// Receive buffer of a reader that is to be slow, in bytes.
const SMALL_BUFFER: usize = 16 * 1024;

/// How many connections the server's kernel takes for it.
const BACKLOG: i32 = 1024;

pub(crate) struct Lab {
    pub(crate) network: Network,
    listener: TcpListener,
    closewatch: Closewatch,
}

/// A session, seen from its two ends.
pub(crate) struct Session {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
}

impl Session {
    pub(crate) fn end(&mut self, endpoint: Endpoint) -> &mut TcpStream {
        match endpoint {
            Endpoint::Client => &mut self.client,
            Endpoint::Server => &mut self.server,
        }
    }

    /// `last` is asked and answers: it has acknowledged all that was sent to it.
    pub(crate) fn talk(&mut self, last: Endpoint) {
        for from in [last.other(), last] {
            let message = message(from, b"hello");
            self.end(from).write_all(&message).unwrap();
            expect_bytes(self.end(from.other()), &message);
        }
    }

    /// One end and the other.
    pub(crate) fn split(self, endpoint: Endpoint) -> (TcpStream, TcpStream) {
        match endpoint {
            Endpoint::Client => (self.client, self.server),
            Endpoint::Server => (self.server, self.client),
        }
    }

    /// One end is reset; the other is left.
    pub(crate) fn reset(self, endpoint: Endpoint) -> TcpStream {
        let (gone, left) = self.split(endpoint);
        SockRef::from(&gone).set_linger(Some(Duration::ZERO)).unwrap();
        left
    }

    /// One end hangs up, in both directions; the other is left.
    pub(crate) fn hang_up(self, endpoint: Endpoint) -> TcpStream {
        self.split(endpoint).1
    }

    /// An endpoint gets a Close frame of closewatch's.
    pub(crate) fn expect_close_frame(&mut self, endpoint: Endpoint, code: u16, reason: &str) {
        let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
        let unmasked = frame_header(endpoint.other(), 0x88, payload.len());
        let stream = self.end(endpoint);
        let mut head = vec![0; unmasked.len()];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(head[..2], unmasked[..2]);
        let mut body = vec![0; payload.len()];
        stream.read_exact(&mut body).unwrap();
        // The server's is masked (RFC 6455, 5.3).
        for (byte, mask) in body.iter_mut().zip(head[2..].iter().cycle()) {
            *byte ^= mask;
        }
        assert_eq!(body, payload);
    }

    /// Both ends say goodbye as RFC 6455 wants it, and hang up.
    pub(crate) fn close(mut self) {
        let (goodbye, answer) = (close_frame(Endpoint::Client, 1000), close_frame(Endpoint::Server, 1000));
        self.client.write_all(&goodbye).unwrap();
        expect_bytes(&mut self.server, &goodbye);
        self.server.write_all(&answer).unwrap();
        expect_bytes(&mut self.client, &answer);
    }
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// `settings` are lines of configuration.
    pub(crate) fn with(settings: &str) -> Self {
        Self::make(KEEPALIVE, settings, BACKLOG)
    }

    pub(crate) fn with_keepalive(keepalive: &str) -> Self {
        Self::make(keepalive, "", BACKLOG)
    }

    /// `backlog`: how many connections the server's kernel takes for it, besides one.
    pub(crate) fn with_backlog(backlog: i32) -> Self {
        Self::make(KEEPALIVE, "", backlog)
    }

    fn make(keepalive: &str, settings: &str, backlog: i32) -> Self {
        let network = Network::new().unwrap();
        let listener = network.host(Endpoint::Server).run(|| listen(0, backlog));
        let server = listener.local_addr().unwrap();
        let config = format!(
            "listen: {PROXY_ADDRESS}:0\n\
             upstream: {{url: ws://{server}, connect_timeout: 1s}}\n\
             admin: {{listen: 127.0.0.1:0}}\n\
             workers: 1\n\
             keepalive: {keepalive}\n\
             {settings}\n"
        );
        let closewatch = Closewatch::start(&network.proxy, &config);
        Self { network, listener, closewatch }
    }

    /// A session after its opening handshake.
    pub(crate) fn open(&self) -> Session {
        self.open_with_buffer(None)
    }

    /// A session on which nothing is under way any more. The last to speak was `last`.
    pub(crate) fn open_and_idle(&self, last: Endpoint) -> Session {
        let mut session = self.open();
        session.talk(last);
        eventually(SOON, "all is acknowledged", || self.network.is_quiet().then_some(()));
        session
    }

    /// A session one end of which has little room for what it does not read.
    pub(crate) fn open_with_slow_reader(&self, endpoint: Endpoint) -> Session {
        self.open_with_buffer(Some(endpoint))
    }

    /// Sends an upgrade request and does not wait for the answer.
    pub(crate) fn request(&self) -> TcpStream {
        self.request_with_buffer(false)
    }

    /// The server is gone, and one that starts at the same address takes its place.
    pub(crate) fn restart_server(&mut self) {
        let port = self.listener.local_addr().unwrap().port();
        // The port is free only once the old one has let go of it.
        self.listener = TcpListener::bind("127.0.0.1:0").unwrap();
        self.listener = self.network.host(Endpoint::Server).run(|| listen(port, BACKLOG));
    }

    /// A connection to the server from somewhere else, which closewatch knows nothing of.
    pub(crate) fn connect_to_server(&self) -> TcpStream {
        let address = self.listener.local_addr().unwrap();
        self.network.host(Endpoint::Server).run(|| TcpStream::connect(address)).unwrap()
    }

    pub(crate) fn records(&self) -> Vec<Value> {
        self.closewatch.records(&self.network.proxy)
    }

    /// Waits for the end of the only session, and compares what is told of it with `expected`, key by key. Then all
    /// counts must fit.
    pub(crate) fn expect_told(&self, expected: &Value, within: Duration) -> Value {
        let records = eventually(within, "an ending is told", || Some(self.records()).filter(|all| !all.is_empty()));
        let [record] = &records[..] else { panic!("more than one ending: {records:?}") };
        expect_record(record, expected);
        self.expect_sums(1);
        record.clone()
    }

    /// At rest, the three sums hold, and each of the sessions there were is in them.
    pub(crate) fn expect_sums(&self, sessions: u32) {
        let sessions = f64::from(sessions);
        eventually(SOON, "the sums hold", || {
            let metrics = self.closewatch.metrics(&self.network.proxy);
            let sums = [
                (metrics.sum("websocket_handshakes_total", &["status=\"101\""]), sessions),
                (metrics.sum("websocket_sessions_active", &[]), 0.0),
                (metrics.sum("websocket_closes_total", &[]), sessions),
                (metrics.sum("websocket_close_events_total", &[]), 2.0 * sessions),
                (
                    metrics.sum("websocket_abnormal_closes_total", &[]),
                    metrics.sum("websocket_closes_total", &["clean=\"false\""]),
                ),
            ];
            sums.into_iter().all(|(is, should)| (is - should).abs() < 0.5).then_some(())
        });
    }

    /// What closewatch counts.
    pub(crate) fn count(&self, family: &str, labels: &[&str]) -> f64 {
        self.closewatch.metrics(&self.network.proxy).sum(family, labels)
    }

    fn open_with_buffer(&self, slow: Option<Endpoint>) -> Session {
        let buffer = (slow == Some(Endpoint::Server)).then_some(SMALL_BUFFER);
        if let Some(size) = buffer {
            // What is accepted has its listener's.
            SockRef::from(&self.listener).set_recv_buffer_size(size).unwrap();
        }
        let mut client = self.request_with_buffer(slow == Some(Endpoint::Client));
        let (mut server, _) = self.listener.accept().unwrap();
        prepare(&server);
        expect_head(&mut server);
        server.write_all(ANSWER).unwrap();
        expect_head(&mut client);
        Session { client, server }
    }

    fn request_with_buffer(&self, is_slow: bool) -> TcpStream {
        let address = self.closewatch.address;
        let mut client = self.network.host(Endpoint::Client).run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            if is_slow {
                socket.set_recv_buffer_size(SMALL_BUFFER).unwrap();
            }
            socket.connect(&address.into()).unwrap();
            TcpStream::from(socket)
        });
        prepare(&client);
        client.write_all(REQUEST).unwrap();
        client
    }
}

const REQUEST: &[u8] = b"GET /chat HTTP/1.1\r\nHost: lab\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// What is told where an endpoint was lost without a Close frame from anyone.
pub(crate) fn lost(endpoint: Endpoint, cause: &str) -> Value {
    let abnormal = json!({"code": 1006, "reason": "", "clean": false});
    json!({
        "code": 1006, "initiator": endpoint.name(), "clean": false, "cause": cause, "cause_endpoint": endpoint.name(),
        "action": null, "client_saw": abnormal, "server_saw": abnormal,
    })
}

/// What is told where the client closed with 1000 and was answered.
pub(crate) fn closed_by_client() -> Value {
    let normal = json!({"code": 1000, "reason": "", "clean": true});
    json!({
        "code": 1000, "initiator": "client", "clean": true, "cause": null, "cause_endpoint": null, "action": null,
        "client_saw": normal, "server_saw": normal,
    })
}

pub(crate) fn expect_record(record: &Value, expected: &Value) {
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&record[key], value, "{key} in {record:#}");
    }
}

/// A binary message of an endpoint; a client's is masked with the key 0.
pub(crate) fn message(from: Endpoint, payload: &[u8]) -> Vec<u8> {
    [header(from, payload.len()), payload.to_vec()].concat()
}

/// The header of a binary message.
pub(crate) fn header(from: Endpoint, length: usize) -> Vec<u8> {
    frame_header(from, 0x82, length)
}

pub(crate) fn close_frame(from: Endpoint, code: u16) -> Vec<u8> {
    [frame_header(from, 0x88, 2), code.to_be_bytes().to_vec()].concat()
}

fn frame_header(from: Endpoint, first_byte: u8, length: usize) -> Vec<u8> {
    let (mask_bit, mask): (u8, &[u8]) = if from == Endpoint::Client { (0x80, &[0; 4]) } else { (0, &[]) };
    let mut bytes = vec![first_byte];
    if length < 126 {
        bytes.push(mask_bit | u8::try_from(length).unwrap());
    } else {
        bytes.push(mask_bit | 127);
        bytes.extend((length as u64).to_be_bytes());
    }
    bytes.extend_from_slice(mask);
    bytes
}

pub(crate) fn expect_bytes(stream: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert!(bytes == expected, "other bytes than were sent");
}

/// The stream ends by RST, without another byte.
pub(crate) fn expect_reset(stream: &mut TcpStream) {
    // Unlike `read`, it goes on where a signal interrupts it.
    assert_eq!(stream.read_exact(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// The stream ends by FIN, without another byte.
pub(crate) fn expect_fin(stream: &mut TcpStream) {
    assert_eq!(stream.read_exact(&mut [0]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

/// A program that another case starts holds a copy of a listener that was just dropped, for as long as a fork takes to
/// become an exec: until then its port is not free.
fn listen(port: u16, backlog: i32) -> TcpListener {
    let address: std::net::SocketAddr = format!("{}:{port}", Endpoint::Server.address()).parse().unwrap();
    let socket = eventually(SOON, "the server's port is free", || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).and_then(|()| socket.listen(backlog)).ok().map(|()| socket)
    });
    // Also for accept(2).
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.into()
}

fn prepare(stream: &TcpStream) {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
}

/// Reads a head byte by byte, so that nothing behind it is taken.
fn expect_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
}
