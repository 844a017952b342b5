//! A running closewatch, its configuration, its admin, and what it says.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, Peer, REQUEST, Scrape, Server, Session, eventually};

/// What every configuration here begins with.
const BASE: &str = "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0, control: true}\n";

/// Every ending as a JSON line.
pub(crate) const LOG_ALL: &str = "log: {format: json, sessions: all, max_per_second: 1000000}\n";

/// A closewatch in a process of its own. Whatever becomes of the test, it is ended.
#[derive(Debug)]
pub(crate) struct Closewatch {
    child: Child,
    process: u32,
    directory: TempDir,
    /// Standard output and standard error.
    log: Lines,
    said: Lines,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None`: by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) log: Vec<String>,
    pub(crate) said: Vec<String>,
}

/// An answer of the admin's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Closewatch {
    /// Starts it before a server, with `config` besides.
    pub(crate) fn before(server: &Server, config: &str) -> Self {
        Self::start(&format!("{BASE}{}{config}", server.upstream()))
    }

    /// Starts it with a whole configuration.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_by(
            Command::new(env!("CARGO_BIN_EXE_closewatch")).args(["run", "--config", "closewatch.yaml"]),
            config,
        )
    }

    /// Starts it by a command of the test's own, in a directory of its own with `config` as `closewatch.yaml`.
    pub(crate) fn start_by(command: &mut Command, config: &str) -> Self {
        let started = Self::try_start_by(command, config);
        started.admin();
        started
    }

    /// The same, where it may not come to serve anybody.
    pub(crate) fn try_start_by(command: &mut Command, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("closewatch.yaml"), config).unwrap();
        command.current_dir(directory.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Lines::gather(child.stdout.take().unwrap());
        let said = Lines::gather(child.stderr.take().unwrap());
        Self { process: child.id(), child, directory, log, said }
    }

    /// Where its files are.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Changes the configuration's file.
    pub(crate) fn configure(&self, config: &str) {
        fs::write(self.file("closewatch.yaml"), config).unwrap();
    }

    /// Changes the configuration's file and has it reloaded.
    pub(crate) fn reload(&self, config: &str) -> Answer {
        self.configure(config);
        self.post("/-/reload", "")
    }

    /// The first address for clients.
    pub(crate) fn address(&self) -> SocketAddr {
        self.said.address("listening on ws://")
    }

    /// All addresses for clients that were there at the start.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let lines = self.said.all();
        lines.iter().filter_map(|line| line.strip_prefix("listening on ws://")?.parse().ok()).collect()
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.said.address("admin on http://")
    }

    pub(crate) fn metrics_address(&self) -> SocketAddr {
        self.said.address("metrics on http://")
    }

    pub(crate) fn connect(&self) -> Peer {
        Peer::connect(self.address())
    }

    /// Opens a session.
    pub(crate) fn session(&self, server: &Server) -> Session {
        Session::open_with(self.connect(), server, REQUEST)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        ask(self.admin(), &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"))
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n");
        ask(self.admin(), &format!("{head}Content-Length: {length}\r\n\r\n{body}"))
    }

    /// Waits until `/-/ready` tells this phase.
    pub(crate) fn wait_for_phase(&self, phase: &str) {
        eventually(phase, || (self.get("/-/ready").body.trim() == phase).then_some(()));
    }

    pub(crate) fn scrape(&self) -> Scrape {
        Scrape::new(self.get("/metrics").body)
    }

    /// Waits until the samples of a metric that have all these labels add up to this.
    pub(crate) fn wait_for(&self, metric: &str, labels: &[(&str, &str)], wanted: f64) {
        eventually(format!("{metric}{labels:?} = {wanted}"), || {
            ((self.scrape().sum(metric, labels) - wanted).abs() < f64::EPSILON).then_some(())
        });
    }

    /// The records of this many endings, oldest first, once all are there.
    pub(crate) fn records(&self, count: usize) -> Vec<Value> {
        eventually(format!("{count} records"), || {
            let mut records: Vec<Value> = serde_json::from_str(&self.get("/api/v1/closes").body).unwrap();
            records.reverse();
            assert!(records.len() <= count, "{records:#?}");
            (records.len() == count).then_some(records)
        })
    }

    /// Waits until its log has so many lines that contain this.
    pub(crate) fn wait_for_log(&self, part: &str, count: usize) {
        eventually(format!("{count} lines with {part:?}"), || {
            (self.log.all().iter().filter(|line| line.contains(part)).count() >= count).then_some(())
        });
    }

    /// Signals are for this process instead of the one that was started.
    pub(crate) fn is_process(&mut self, process: u32) {
        self.process = process;
    }

    pub(crate) fn process(&self) -> u32 {
        self.process
    }

    /// Sends a signal: `TERM`, `INT`, `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.process.to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Sends SIGTERM, and waits until nobody is listening for clients any more: the drain is past its delay.
    pub(crate) fn drain(&self) {
        self.signal("TERM");
        wait_until_closed(self.address());
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Ended {
        let status = eventually("the end of the process", || self.child.try_wait().unwrap());
        Ended { code: status.code(), log: self.log.read_to_end(), said: self.said.read_to_end() }
    }

    /// Waits for its end after a drain, and returns the records that it logged.
    pub(crate) fn drained(self) -> Vec<Value> {
        let ended = self.ended();
        assert_eq!(ended.code, Some(0), "{ended:#?}");
        ended.records()
    }
}

impl Ended {
    /// The records in the log, oldest first.
    pub(crate) fn records(&self) -> Vec<Value> {
        let lines = self.log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event"] == "session_closed").collect()
    }
}

impl Drop for Closewatch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("closewatch logged {:#?}\nand said {:#?}", self.log.all(), self.said.all());
        }
    }
}

/// Runs a command of closewatch's to its end: its exit code, standard output and standard error.
pub(crate) fn command(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_closewatch"))
        .env_remove("CLOSEWATCH_ADMIN")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// What a process writes, line by line.
#[derive(Debug)]
struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    fn gather(from: impl Read + Send + 'static) -> Self {
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let gathered = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n') {
                gathered.lock().unwrap().push(String::from_utf8(line.unwrap()).unwrap());
            }
        });
        Self { lines, reader: Some(reader) }
    }

    fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn read_to_end(&mut self) -> Vec<String> {
        self.reader.take().unwrap().join().unwrap();
        self.all()
    }

    /// The address in the first line that begins so.
    fn address(&self, beginning: &str) -> SocketAddr {
        eventually(beginning, || self.all().iter().find_map(|line| line.strip_prefix(beginning)?.parse().ok()))
    }
}

pub(crate) fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, body: body.to_owned() }
}

/// Waits until nobody listens on an address.
pub(crate) fn wait_until_closed(address: SocketAddr) {
    eventually(format!("{address} is closed"), || TcpStream::connect(address).is_err().then_some(()));
}
