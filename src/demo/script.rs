//! What one of the demo's clients does in one session.

use std::{io, iter::repeat_n, net::SocketAddr, ops::Range, time::Duration};

use futures_util::{SinkExt, StreamExt};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

/// How long a client waits for the server to end a session, or to answer its Close frame.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// Sizes of messages in bytes: most are small, some are not.
const SIZES: [usize; 8] = [12, 20, 60, 150, 400, 1500, 20_000, 300_000];

/// How a session begins, how long it talks, and how it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    path: &'static str,
    /// How many messages are exchanged before the end.
    exchanges: Range<u32>,
    /// The wait before each of them, in milliseconds.
    pauses: Range<u64>,
    ending: Ending,
}

/// How a client lets a session end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It closes with a code and a reason.
    Close(u16, &'static str),
    /// It closes with an empty Close frame.
    CloseWithoutCode,
    /// It makes the server end the session, by this command.
    Ask(&'static str),
    /// It closes with 1000 after it has asked the server not to answer.
    CloseUnanswered,
    /// It sends RST.
    Abort,
    /// It sends FIN without a Close frame.
    Vanish,
    /// The upgrade is refused.
    Refusal,
}

/// The endings of short sessions with their paths; each is as frequent as its weight says.
const ENDINGS: [(usize, &str, Ending); 23] = [
    (14, "/chat", Ending::Close(1000, "done")),
    (8, "/chat", Ending::Close(1001, "")),
    (5, "/feed", Ending::CloseWithoutCode),
    (3, "/chat", Ending::Close(4001, "signed out")),
    (1, "/game", Ending::Close(4100, "match left")),
    (1, "/game", Ending::Close(3008, "no answer in time")),
    (1, "/feed", Ending::Close(1007, "text that is no UTF-8")),
    (9, "/feed", Ending::Ask("close 1000 end of stream")),
    (5, "/feed", Ending::Ask("close 1001 server going away")),
    (4, "/chat", Ending::Ask("close 1008 token expired")),
    (2, "/chat", Ending::Ask("close 1009 message too big")),
    (4, "/chat", Ending::Ask("close 1011 unexpected condition")),
    (4, "/feed", Ending::Ask("close 1012 service restart")),
    (3, "/feed", Ending::Ask("close 1013 try again later")),
    (2, "/game", Ending::Ask("close 4003 kicked")),
    (1, "/game", Ending::Ask("close")),
    (3, "/game", Ending::Ask("abort")),
    (3, "/feed", Ending::Ask("vanish")),
    (1, "/game", Ending::CloseUnanswered),
    (3, "/game", Ending::Abort),
    (3, "/chat", Ending::Vanish),
    (3, "/status/401", Ending::Refusal),
    (1, "/status/503", Ending::Refusal),
];

impl Script {
    /// A session of a second or a few, with an ending at random.
    pub(super) fn short() -> Self {
        let deck = ENDINGS.iter().flat_map(|(weight, path, ending)| repeat_n((path, ending), *weight));
        let (path, ending) = fastrand::choice(deck.collect::<Vec<_>>()).expect("there are endings");
        Self { path, exchanges: 1..8, pauses: 20..700, ending: *ending }
    }

    /// A session of some minutes.
    pub(super) fn long() -> Self {
        Self { path: "/feed", exchanges: 20..120, pauses: 1000..5000, ending: Ending::Close(1000, "done") }
    }

    /// A session that is over at once.
    pub(super) fn hasty() -> Self {
        Self { path: "/chat", exchanges: 1..2, pauses: 0..1, ending: Ending::Close(1000, "done") }
    }

    /// Plays one session against the server. An error means that it did not go as planned: the server is away,
    /// refuses, or has ended the session. When `stop` is cancelled the session is closed with 1001.
    pub(super) async fn play(&self, server: SocketAddr, stop: &CancellationToken) -> Result<(), Error> {
        let mut socket = match (self.ending, stop.run_until_cancelled(self.open(server)).await) {
            (_, None) | (Ending::Refusal, Some(Err(Error::Http(_)))) => return Ok(()),
            (_, Some(opened)) => opened?,
        };
        match stop.run_until_cancelled(self.talk(&mut socket)).await {
            Some(Ok(())) => self.ending.perform(socket).await,
            Some(Err(error)) => {
                read_to_end(&mut socket).await;
                Err(error)
            }
            None => Ending::Close(1001, "").perform(socket).await,
        }
    }

    async fn open(&self, server: SocketAddr) -> Result<WebSocketStream<TcpStream>, Error> {
        let stream = TcpStream::connect(server).await?;
        let (socket, _) = client_async(format!("ws://{server}{}", self.path), stream).await?;
        Ok(socket)
    }

    async fn talk(&self, socket: &mut WebSocketStream<TcpStream>) -> Result<(), Error> {
        for _ in 0..fastrand::u32(self.exchanges.clone()) {
            idle(socket, Duration::from_millis(fastrand::u64(self.pauses.clone()))).await?;
            socket.send(random_message()).await?;
            answer(socket).await?;
        }
        Ok(())
    }
}

impl Ending {
    async fn perform(self, mut socket: WebSocketStream<TcpStream>) -> Result<(), Error> {
        match self {
            Self::Close(code, reason) => close(&mut socket, Some((code, reason))).await?,
            // A refusal gets here where the upgrade was not refused.
            Self::CloseWithoutCode | Self::Refusal => close(&mut socket, None).await?,
            Self::CloseUnanswered => {
                socket.send("silent".into()).await?;
                close(&mut socket, Some((1000, "done"))).await?;
            }
            Self::Ask(command) => socket.send(command.into()).await?,
            Self::Abort => {
                socket.get_mut().set_zero_linger()?;
                return Ok(());
            }
            Self::Vanish => socket.get_mut().shutdown().await?,
        }
        read_to_end(&mut socket).await;
        Ok(())
    }
}

async fn close(socket: &mut WebSocketStream<TcpStream>, status: Option<(u16, &'static str)>) -> Result<(), Error> {
    let frame = status.map(|(code, reason)| CloseFrame { code: CloseCode::from(code), reason: reason.into() });
    socket.close(frame).await
}

/// Reads on for a while, which is also what answers Pings.
async fn idle(socket: &mut WebSocketStream<TcpStream>, duration: Duration) -> Result<(), Error> {
    let reading = async {
        loop {
            next(socket).await?;
        }
    };
    timeout(duration, reading).await.unwrap_or(Ok(()))
}

/// Waits for what the server says to a message: its echo, a Pong, or the Ping that was asked for.
async fn answer(socket: &mut WebSocketStream<TcpStream>) -> Result<Message, Error> {
    timeout(END_PATIENCE, next(socket)).await.unwrap_or_else(|elapsed| Err(io::Error::from(elapsed).into()))
}

/// The next message; an error once the session is ending or over.
async fn next(socket: &mut WebSocketStream<TcpStream>) -> Result<Message, Error> {
    match socket.next().await {
        Some(Ok(Message::Close(_))) | None => Err(Error::ConnectionClosed),
        Some(message) => message,
    }
}

/// Reads until the session is over; then the socket can be dropped without an RST.
async fn read_to_end(socket: &mut WebSocketStream<TcpStream>) {
    // A server that does not end the session in time is left.
    let _ = timeout(END_PATIENCE, async { while let Some(Ok(_)) = socket.next().await {} }).await;
}

fn random_message() -> Message {
    let size = fastrand::choice(SIZES).expect("there are sizes");
    match fastrand::u8(..10) {
        0 => Message::Ping(Vec::from(fastrand::u64(..).to_be_bytes()).into()),
        1 => Message::Text("ping".into()),
        2 | 3 => Message::Binary(vec![0; size].into()),
        _ => Message::Text("x".repeat(size).into()),
    }
}
