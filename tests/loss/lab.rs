//! The laboratory of one case: the network, closewatch in the middle, and sessions through it.

use std::{io, net::SocketAddr, time::Duration};

use closewatch::websocket::Endpoint;
use serde_json::{Value, json};

use crate::{
    network::{Network, PROXY_ADDRESS, address},
    support::{Peer, Program, REQUEST, Server, Session, assert_record, eventually, eventually_within, get},
};

/// The keepalive of nearly every case: a silent link is dead after 3 s.
const KEEPALIVE: &str = "{idle: 1s, interval: 1s, probes: 2}";

/// A dead link must be reported within five times those 3 s.
pub(crate) const IN_TIME: Duration = Duration::from_secs(15);

/// The receive buffer of a slow reader, in bytes.
const SMALL_BUFFER: usize = 16 * 1024;

/// The number of connections that the server's kernel queues.
const BACKLOG: i32 = 1024;

pub(crate) struct Lab {
    pub(crate) network: Network,
    server: Server,
    program: Program,
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

    /// The server's kernel queues one connection more than `backlog`.
    pub(crate) fn with_backlog(backlog: i32) -> Self {
        Self::make(KEEPALIVE, "", backlog)
    }

    fn make(keepalive: &str, settings: &str, backlog: i32) -> Self {
        let network = Network::new().unwrap();
        let server = listen(&network, 0, backlog).unwrap();
        let config = format!(
            "listen: {PROXY_ADDRESS}:0\n\
             upstream: {{url: ws://{}, connect_timeout: 1s}}\n\
             workers: 1\n\
             keepalive: {keepalive}\n\
             {settings}\n",
            server.address()
        );
        let program = network.proxy.run(|| Program::start(&config));
        Self { network, server, program }
    }

    /// A session after its opening handshake.
    pub(crate) fn open(&self) -> Session {
        Session::open_with(self.connect(), &self.server, REQUEST)
    }

    /// A session with all data acknowledged. `last` was the last to send.
    pub(crate) fn open_and_idle(&self, last: Endpoint) -> Session {
        let mut session = self.open();
        talk(&mut session, last);
        eventually("all is acknowledged", || self.network.is_quiet().then_some(()));
        session
    }

    /// A session. One endpoint has a small receive buffer.
    pub(crate) fn open_with_slow_reader(&self, endpoint: Endpoint) -> Session {
        let client = match endpoint {
            Endpoint::Client => self.connect_with_receive_buffer(Some(SMALL_BUFFER)),
            Endpoint::Server => {
                self.server.set_receive_buffer(SMALL_BUFFER);
                self.connect()
            }
        };
        Session::open_with(client, &self.server, REQUEST)
    }

    /// Sends an upgrade request and does not wait for the response.
    pub(crate) fn request(&self) -> Peer {
        let mut client = self.connect();
        client.send(REQUEST);
        client
    }

    /// Replaces the server by another one at the same address.
    pub(crate) fn restart_server(&mut self) {
        let port = self.server.address().port();
        // The port is free only after the old server is closed.
        self.server = Server::start();
        // A program that another case starts holds a copy of the old listener for the time between its fork and its exec.
        self.server = eventually("the port is free", || listen(&self.network, port, BACKLOG).ok());
    }

    /// Connects to the server without closewatch.
    pub(crate) fn connect_to_server(&self) -> Peer {
        let address = self.server.address();
        self.network.host(Endpoint::Server).run(|| Peer::connect(address))
    }

    /// The records so far, the newest first.
    pub(crate) fn records(&self) -> Vec<Value> {
        let admin = self.program.admin();
        let answer = self.network.proxy.run(|| get(admin, "/api/v1/closes?limit=1000"));
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Waits for the end of the only session, and compares its record with `expected`, key by key. The sums of the
    /// metrics hold then.
    pub(crate) fn expect_record(&self, expected: &Value, within: Duration) -> Value {
        let records = eventually_within(within, "a record", || Some(self.records()).filter(|all| !all.is_empty()));
        let [record] = &records[..] else { panic!("more than one record: {records:?}") };
        assert_record(record, expected);
        self.expect_closed(1);
        record.clone()
    }

    /// Waits until `sessions` sessions have been opened and closed. The sums of the metrics hold then.
    pub(crate) fn expect_closed(&self, sessions: u32) {
        let scrape = self.network.proxy.run(|| {
            self.program.wait_for("websocket_closes_total", &[], sessions.into());
            self.program.wait_for("websocket_sessions_active", &[], 0.0);
            self.program.scrape()
        });
        assert_eq!(scrape.sum("websocket_handshakes_total", &[("status", "101")]), f64::from(sessions));
        scrape.assert_sums();
    }

    /// The sum of the samples of a metric that have all these labels.
    pub(crate) fn sum(&self, metric: &str, labels: &[(&str, &str)]) -> f64 {
        self.network.proxy.run(|| self.program.scrape()).sum(metric, labels)
    }

    fn connect(&self) -> Peer {
        self.connect_with_receive_buffer(None)
    }

    fn connect_with_receive_buffer(&self, size: Option<usize>) -> Peer {
        let address = self.program.address();
        self.network.host(Endpoint::Client).run(|| {
            Peer::connect_with(address, |socket| {
                if let Some(size) = size {
                    socket.set_recv_buffer_size(size).unwrap();
                }
            })
        })
    }
}

fn listen(network: &Network, port: u16, backlog: i32) -> io::Result<Server> {
    let address = SocketAddr::from((address(Endpoint::Server), port));
    network.host(Endpoint::Server).run(|| Server::on_tcp(address, backlog))
}

/// One message in each direction. `last` receives one and sends one: it has acknowledged everything.
pub(crate) fn talk(session: &mut Session, last: Endpoint) {
    for from in [last.other(), last] {
        session.pass(from, message(from, b"hello"));
    }
}

/// A binary message of an endpoint.
pub(crate) fn message(from: Endpoint, payload: &[u8]) -> Vec<u8> {
    crate::support::from(from, 0x82, payload)
}

/// Both ends complete the closing handshake and hang up.
pub(crate) fn close(mut session: Session) {
    session.client_closes(1000, "");
    session.server_closes(1000, "");
}

/// The record of a session whose endpoint was lost without a Close frame.
pub(crate) fn lost(endpoint: Endpoint, cause: &str) -> Value {
    let abnormal = json!({"code": 1006, "reason": "", "clean": false});
    json!({
        "code": 1006, "initiator": endpoint.as_str(), "clean": false, "cause": cause, "cause_endpoint": endpoint.as_str(),
        "action": null, "client_saw": abnormal, "server_saw": abnormal,
    })
}

/// The record of a session that the client closed with 1000 and the server answered.
pub(crate) fn closed_by_client() -> Value {
    let normal = json!({"code": 1000, "reason": "", "clean": true});
    json!({
        "code": 1000, "initiator": "client", "clean": true, "cause": null, "cause_endpoint": null, "action": null,
        "client_saw": normal, "server_saw": normal,
    })
}
