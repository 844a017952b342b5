//! Many sessions at once: every byte is compared, and every ending is counted once.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::support::{Program, REQUEST, SWITCHING, close, from_client, from_server};

const SESSIONS: u32 = 2_000;
const AT_ONCE: usize = 100;

/// Makes a frame of its first byte and its payload.
type Write = fn(u8, &[u8]) -> Vec<u8>;

/// The way in which a session ends, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Way {
    ClientCloses,
    ServerCloses,
    ClientFin,
    ServerFin,
    ClientResets,
    ServerResets,
}

impl Way {
    fn of(number: u32) -> Self {
        use Way::*;
        [ClientCloses, ServerCloses, ClientFin, ServerFin, ClientResets, ServerResets][number as usize % 6]
    }

    /// The labels of the close, and the cause of the fault if there is one.
    fn labels(self) -> (&'static str, &'static str, Option<&'static str>) {
        match self {
            Self::ClientCloses => ("1000", "client", None),
            Self::ServerCloses => ("1012", "server", None),
            Self::ClientFin => ("1006", "client", Some("eof")),
            Self::ServerFin => ("1006", "server", Some("eof")),
            Self::ClientResets => ("1006", "client", Some("reset")),
            Self::ServerResets => ("1006", "server", Some("reset")),
        }
    }
}

/// The frames of one end of a session. Its number is the seed, so that all sessions differ.
fn conversation(number: u32, write: Write) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number.into());
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..6) {
        let length = [1, 100, 3_000, 20_000][random.usize(..4)];
        let mut payload = vec![0; length];
        random.fill(&mut payload);
        bytes.extend(write(0x82, &payload));
    }
    bytes
}

async fn send_in_pieces(to: &mut OwnedWriteHalf, bytes: &[u8], seed: u32) {
    let mut random = fastrand::Rng::with_seed(seed.into());
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(random.usize(1..=8_000).min(rest.len()));
        to.write_all(piece).await.unwrap();
        rest = behind;
    }
}

async fn expect(from: &mut OwnedReadHalf, bytes: &[u8]) {
    let mut received = vec![0; bytes.len()];
    from.read_exact(&mut received).await.unwrap();
    assert!(received == bytes);
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Sends and compares frames in both directions at once, then ends the session.
async fn talk(stream: TcpStream, number: u32, is_client: bool) {
    let (ours, theirs) = if is_client {
        (conversation(number, from_client), conversation(number, from_server))
    } else {
        (conversation(number, from_server), conversation(number, from_client))
    };
    stream.set_nodelay(true).unwrap();
    let (mut reader, mut writer) = stream.into_split();
    tokio::join!(send_in_pieces(&mut writer, &ours, number), expect(&mut reader, &theirs));
    // Both ends have received all frames when the session ends.
    let (write, goodbye): (Write, _) = if is_client { (from_client, b"c") } else { (from_server, b"s") };
    writer.write_all(&write(0x8a, goodbye)).await.unwrap();
    let read: Write = if is_client { from_server } else { from_client };
    expect(&mut reader, &read(0x8a, if is_client { b"s" } else { b"c" })).await;
    end(reader, writer, number, is_client, write).await;
}

async fn end(mut reader: OwnedReadHalf, mut writer: OwnedWriteHalf, number: u32, is_client: bool, write: Write) {
    let way = Way::of(number);
    let begins = matches!(way, Way::ClientCloses | Way::ClientFin | Way::ClientResets) == is_client;
    let code = if way == Way::ClientCloses { 1000 } else { 1012 };
    let mut rest = Vec::new();
    match way {
        Way::ClientCloses | Way::ServerCloses => {
            if begins {
                writer.write_all(&write(0x88, &close(code, "load"))).await.unwrap();
                let _ = reader.read_to_end(&mut rest).await.unwrap();
                assert!(rest.len() >= 4, "no answer to a Close frame");
            } else {
                let mut frame = vec![0; if is_client { 8 } else { 12 }];
                reader.read_exact(&mut frame).await.unwrap();
                writer.write_all(&write(0x88, &close(code, ""))).await.unwrap();
            }
        }
        Way::ClientFin | Way::ServerFin => {
            if begins {
                writer.shutdown().await.unwrap();
            }
            assert_eq!(reader.read_to_end(&mut rest).await.unwrap(), 0);
        }
        Way::ClientResets | Way::ServerResets if begins => {
            let stream = reader.reunite(writer).unwrap();
            stream.set_zero_linger().unwrap();
        }
        Way::ClientResets | Way::ServerResets => {
            let error = reader.read_to_end(&mut rest).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
}

async fn client(public: SocketAddr, number: u32) {
    let mut stream = TcpStream::connect(public).await.unwrap();
    stream.write_all(REQUEST.replace("/chat", &format!("/{number}")).as_bytes()).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    talk(stream, number, true).await;
}

async fn serve(listener: TcpListener, served: Arc<Mutex<Vec<tokio::task::JoinHandle<()>>>>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let task = tokio::spawn(async move {
            let head = read_head(&mut stream).await;
            let number = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
            stream.write_all(SWITCHING.as_bytes()).await.unwrap();
            talk(stream, number, false).await;
        });
        served.lock().unwrap().push(task);
    }
}

async fn run_all(public: SocketAddr, listener: TcpListener) {
    let served = Arc::new(Mutex::new(Vec::new()));
    let accepting = tokio::spawn(serve(listener, Arc::clone(&served)));
    let permits = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..SESSIONS {
        let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
        clients.spawn(async move {
            client(public, number).await;
            drop(permit);
        });
    }
    while let Some(result) = clients.join_next().await {
        result.unwrap();
    }
    accepting.abort();
    let served = std::mem::take(&mut *served.lock().unwrap());
    assert_eq!(served.len(), SESSIONS as usize);
    for task in served {
        task.await.unwrap();
    }
}

#[test]
fn thousands_of_sessions_pass_every_byte_and_count_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let upstream = format!("upstream: ws://{}\n", listener.local_addr().unwrap());
    let program =
        Program::start(&format!("{upstream}log: {{sessions: off}}\ntimeouts: {{close: 60s, hang_up: 60s}}\n"));
    let public = program.address();
    runtime.block_on(run_all(public, listener));

    program.wait_for("websocket_sessions_active", &[], 0.0);
    let scrape = program.scrape();
    scrape.assert_sums();
    assert_eq!(scrape.sum("websocket_handshakes_total", &[("status", "101")]), f64::from(SESSIONS));
    let mut expected: HashMap<Way, u32> = HashMap::new();
    let mut bytes = 0;
    for number in 0..SESSIONS {
        let way = Way::of(number);
        *expected.entry(way).or_default() += 1;
        let closes = matches!(way, Way::ClientCloses | Way::ServerCloses);
        bytes += conversation(number, from_client).len() + 7;
        bytes += if closes { if way == Way::ClientCloses { 12 } else { 8 } } else { 0 };
    }
    for (way, count) in expected {
        let (code, initiator, cause) = way.labels();
        if let Some(cause) = cause {
            let labels = [("endpoint", initiator), ("cause", cause)];
            assert_eq!(scrape.sum("websocket_abnormal_closes_total", &labels), f64::from(count), "{way:?}");
        } else {
            let labels = [("code", code), ("initiator", initiator), ("clean", "true")];
            assert_eq!(scrape.sum("websocket_closes_total", &labels), f64::from(count), "{way:?}");
        }
    }
    assert_eq!(scrape.sum("websocket_bytes_total", &[("from", "client")]), bytes as f64);
    assert!(scrape.nonzero("websocket_protocol_violations_total").is_empty());
}
