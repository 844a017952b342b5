//! The course of one session of one of the demo's clients.

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

/// How long a client waits for the server to end a session, or to answer a Close frame.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// Sizes of messages in bytes. Most are small.
const SIZES: [usize; 8] = [12, 20, 60, 150, 400, 1500, 20_000, 300_000];

/// How a session begins, how many messages it exchanges, and how it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    path: &'static str,
    /// The number of messages that are exchanged before the end.
    exchanges: Range<u32>,
    /// The wait before each of them, in milliseconds.
    pauses: Range<u64>,
    ending: ScriptEnding,
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScriptEnding {
    /// The client closes with a code and a reason.
    Close(u16, &'static str),
    /// The client closes with an empty Close frame.
    CloseWithoutCode,
    /// This command makes the server end the session.
    Ask(&'static str),
    /// The client closes with 1000, after it has asked the server not to answer.
    CloseUnanswered,
    /// The client sends RST.
    Abort,
    /// The client sends FIN without a Close frame.
    Vanish,
    /// The server refuses the upgrade.
    Refusal,
}

/// The endings of short sessions, each with its weight and its path.
const ENDINGS: [(usize, &str, ScriptEnding); 23] = [
    (14, "/chat", ScriptEnding::Close(1000, "done")),
    (8, "/chat", ScriptEnding::Close(1001, "")),
    (5, "/feed", ScriptEnding::CloseWithoutCode),
    (3, "/chat", ScriptEnding::Close(4001, "signed out")),
    (1, "/game", ScriptEnding::Close(4100, "match left")),
    (1, "/game", ScriptEnding::Close(3008, "no answer in time")),
    (1, "/feed", ScriptEnding::Close(1007, "text that is not UTF-8")),
    (9, "/feed", ScriptEnding::Ask("close 1000 end of stream")),
    (5, "/feed", ScriptEnding::Ask("close 1001 server going away")),
    (4, "/chat", ScriptEnding::Ask("close 1008 token expired")),
    (2, "/chat", ScriptEnding::Ask("close 1009 message too big")),
    (4, "/chat", ScriptEnding::Ask("close 1011 unexpected condition")),
    (4, "/feed", ScriptEnding::Ask("close 1012 service restart")),
    (3, "/feed", ScriptEnding::Ask("close 1013 try again later")),
    (2, "/game", ScriptEnding::Ask("close 4003 kicked")),
    (1, "/game", ScriptEnding::Ask("close")),
    (3, "/game", ScriptEnding::Ask("abort")),
    (3, "/feed", ScriptEnding::Ask("vanish")),
    (1, "/game", ScriptEnding::CloseUnanswered),
    (3, "/game", ScriptEnding::Abort),
    (3, "/chat", ScriptEnding::Vanish),
    (3, "/status/401", ScriptEnding::Refusal),
    (1, "/status/503", ScriptEnding::Refusal),
];

impl Script {
    /// A session of a few seconds with a random ending.
    pub(super) fn short() -> Self {
        let deck = ENDINGS.iter().flat_map(|(weight, path, ending)| repeat_n((path, ending), *weight));
        let (path, ending) = fastrand::choice(deck.collect::<Vec<_>>()).expect("there are endings");
        Self { path, exchanges: 1..8, pauses: 20..700, ending: *ending }
    }

    /// A session of some minutes.
    pub(super) fn long() -> Self {
        Self { path: "/feed", exchanges: 20..120, pauses: 1000..5000, ending: ScriptEnding::Close(1000, "done") }
    }

    /// A session that ends at once.
    pub(super) fn instant() -> Self {
        Self { path: "/chat", exchanges: 1..2, pauses: 0..1, ending: ScriptEnding::Close(1000, "done") }
    }

    /// Runs one session against the server. An error means that it did not go as planned: the server is unreachable,
    /// refuses, or ended the session. If `stop` is cancelled, the session is closed with 1001.
    pub(super) async fn play(&self, server: SocketAddr, stop: &CancellationToken) -> Result<(), Error> {
        let mut socket = match (self.ending, stop.run_until_cancelled(self.open(server)).await) {
            (_, None) | (ScriptEnding::Refusal, Some(Err(Error::Http(_)))) => return Ok(()),
            (_, Some(opened)) => opened?,
        };
        match stop.run_until_cancelled(self.talk(&mut socket)).await {
            Some(Ok(())) => self.ending.perform(socket).await,
            Some(Err(error)) => {
                read_to_end(&mut socket).await;
                Err(error)
            }
            None => ScriptEnding::Close(1001, "").perform(socket).await,
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

impl ScriptEnding {
    async fn perform(self, mut socket: WebSocketStream<TcpStream>) -> Result<(), Error> {
        match self {
            Self::Close(code, reason) => close(&mut socket, Some((code, reason))).await?,
            // A refusal gets here if the server accepted the upgrade.
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

/// Reads for a while. Reading also answers Pings.
async fn idle(socket: &mut WebSocketStream<TcpStream>, duration: Duration) -> Result<(), Error> {
    let reading = async {
        loop {
            next(socket).await?;
        }
    };
    timeout(duration, reading).await.unwrap_or(Ok(()))
}

/// Waits for the server's answer to a message: its echo, a Pong, or the Ping that was asked for.
async fn answer(socket: &mut WebSocketStream<TcpStream>) -> Result<Message, Error> {
    timeout(END_TIMEOUT, next(socket)).await.unwrap_or_else(|elapsed| Err(io::Error::from(elapsed).into()))
}

/// The next message. An error if the session is closing or over.
async fn next(socket: &mut WebSocketStream<TcpStream>) -> Result<Message, Error> {
    match socket.next().await {
        Some(Ok(Message::Close(_))) | None => Err(Error::ConnectionClosed),
        Some(message) => message,
    }
}

/// Reads until the session is over. Then the socket can be dropped without RST.
async fn read_to_end(socket: &mut WebSocketStream<TcpStream>) {
    // If the server does not end the session in time, the client leaves.
    let _ = timeout(END_TIMEOUT, async { while let Some(Ok(_)) = socket.next().await {} }).await;
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
