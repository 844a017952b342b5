//! closewatch as a process.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{Answer, Peer, Scrape, Server, eventually, get, post};

/// The configuration that logs each record as a line of JSON.
pub(crate) const LOG_ALL: &str = "log: {format: json, sessions: all, max_per_second: 1000000}\n";

const FILE: &str = "closewatch.yaml";

/// The lines of standard error that announce an address, up to the address.
const LISTENING: &str = "listening on ws://";
const ADMIN: &str = "admin on http://";
const METRICS: &str = "metrics on http://";

/// A running closewatch. It is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    process: u32,
    directory: TempDir,
    stdout: Lines,
    stderr: Lines,
}

/// A closewatch that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` if a signal killed it.
    pub(crate) code: Option<i32>,
    pub(crate) log: Vec<String>,
}

/// A command of closewatch that has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// `None` if a signal killed it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs closewatch with these arguments until it ends.
pub(crate) fn run(arguments: &[&str]) -> Outcome {
    Outcome::of(command().args(arguments))
}

/// closewatch without arguments. `CLOSEWATCH_BIN` names another build of it.
pub(crate) fn command() -> Command {
    let mut command = Command::new(binary());
    for name in ["CLOSEWATCH_LISTEN", "CLOSEWATCH_UPSTREAM", "CLOSEWATCH_ADMIN"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

fn binary() -> OsString {
    env::var_os("CLOSEWATCH_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_closewatch").into())
}

impl Outcome {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Program {
    /// Starts closewatch in front of a server. `config` has more lines of configuration.
    pub(crate) fn before(server: &Server, config: &str) -> Self {
        Self::start(&format!("{}{config}", server.upstream()))
    }

    /// Starts closewatch with a configuration, which [`complete`] completes.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_by(command().args(["run", "--config", FILE]), config)
    }

    /// Starts closewatch in a shell after these commands.
    pub(crate) fn start_after(commands: &str, config: &str) -> Self {
        Self::start_by(&mut shell(commands), config)
    }

    /// Starts closewatch by a command. The command runs in its own directory, where [`FILE`] is the configuration.
    pub(crate) fn start_by(command: &mut Command, config: &str) -> Self {
        let program = Self::spawn(command, config);
        program.admin();
        program
    }

    /// Runs a command that does not start closewatch.
    pub(crate) fn fail_to_start_by(command: &mut Command, config: &str) -> Outcome {
        let directory = directory_with(config);
        Outcome::of(command.current_dir(directory.path()))
    }

    fn spawn(command: &mut Command, config: &str) -> Self {
        let directory = directory_with(config);
        command.current_dir(directory.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = Lines::gather(child.stdout.take().unwrap());
        let stderr = Lines::gather(child.stderr.take().unwrap());
        Self { process: child.id(), child, directory, stdout, stderr }
    }

    /// A file in the directory that closewatch runs in.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes another configuration to the file.
    pub(crate) fn configure(&self, config: &str) {
        fs::write(self.file(FILE), complete(config)).unwrap();
    }

    /// Writes another configuration to the file and reloads it.
    pub(crate) fn reload(&self, config: &str) -> Answer {
        self.configure(config);
        self.post("/-/reload", "")
    }

    /// The first address for clients.
    pub(crate) fn address(&self) -> SocketAddr {
        self.stderr.address(LISTENING)
    }

    /// All addresses for clients that were announced at the start.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let lines = self.stderr.all();
        lines.iter().filter_map(|line| line.strip_prefix(LISTENING)?.parse().ok()).collect()
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.stderr.address(ADMIN)
    }

    pub(crate) fn metrics_address(&self) -> SocketAddr {
        self.stderr.address(METRICS)
    }

    /// Connects a client.
    pub(crate) fn connect(&self) -> Peer {
        Peer::connect(self.address())
    }

    /// Sends a GET request to the admin.
    pub(crate) fn get(&self, path: &str) -> Answer {
        get(self.admin(), path)
    }

    /// Posts JSON to the admin.
    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        post(self.admin(), path, body)
    }

    /// Waits until `/-/ready` reports this phase.
    pub(crate) fn wait_for_phase(&self, phase: &str) {
        eventually(phase, || (self.get("/-/ready").body.trim() == phase).then_some(()));
    }

    pub(crate) fn scrape(&self) -> Scrape {
        Scrape::new(&self.get("/metrics").body)
    }

    /// Waits until the samples of a metric that have all these labels add up to `value`.
    pub(crate) fn wait_for(&self, metric: &str, labels: &[(&str, &str)], value: f64) {
        eventually(format!("{metric}{labels:?} = {value}"), || {
            (self.scrape().sum(metric, labels) == value).then_some(())
        });
    }

    /// Waits until the samples of a metric that have all these labels add up to `value` or more.
    pub(crate) fn wait_for_at_least(&self, metric: &str, labels: &[(&str, &str)], value: f64) {
        eventually(format!("{metric}{labels:?} >= {value}"), || {
            (self.scrape().sum(metric, labels) >= value).then_some(())
        });
    }

    /// Waits for exactly this many records, and returns them, the oldest first. The sums of the metrics hold then.
    pub(crate) fn records(&self, count: usize) -> Vec<Value> {
        let mut records = eventually(format!("{count} records"), || {
            let records: Vec<Value> = serde_json::from_str(&self.get("/api/v1/closes?limit=1000").body).unwrap();
            assert!(records.len() <= count, "{records:#?}");
            (records.len() == count).then_some(records)
        });
        records.reverse();
        self.scrape().assert_sums();
        records
    }

    /// The only record.
    pub(crate) fn record(&self) -> Value {
        self.records(1).remove(0)
    }

    /// The lines of the log so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.stdout.all()
    }

    /// Waits until at least `count` lines of the log contain `part`.
    pub(crate) fn wait_for_log(&self, part: &str, count: usize) {
        eventually(format!("{count} lines with {part:?}"), || {
            (self.log().iter().filter(|line| line.contains(part)).count() >= count).then_some(())
        });
    }

    /// The process that gets the signals.
    pub(crate) fn process(&self) -> u32 {
        self.process
    }

    /// Sends signals to this process instead of the one that was started.
    pub(crate) fn set_process(&mut self, process: u32) {
        self.process = process;
    }

    /// Sends a signal: `TERM`, `INT`, `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.process.to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Sends SIGTERM, and waits until the listener is closed: the delay of the drain has passed.
    pub(crate) fn drain(&self) {
        self.signal("TERM");
        wait_until_closed(self.address());
    }

    /// Waits until the process ends.
    pub(crate) fn ended(mut self) -> Ended {
        let status = eventually("the end of the process", || self.child.try_wait().unwrap());
        let mut stderr = self.stderr.read_to_end();
        stderr.retain(|line| ![LISTENING, ADMIN, METRICS].iter().any(|start| line.starts_with(start)));
        assert_eq!(stderr, [""; 0], "standard error has only addresses");
        Ended { code: status.code(), log: self.stdout.read_to_end() }
    }

    /// Ends the process by SIGTERM, as an orchestrator does.
    pub(crate) fn terminated(self) -> Ended {
        self.signal("TERM");
        self.ended()
    }

    /// Waits until the process ends after a drain, and returns the records in its log.
    pub(crate) fn drained(self) -> Vec<Value> {
        let ended = self.ended();
        assert_eq!(ended.code, Some(0), "{ended:#?}");
        ended.records()
    }
}

impl Ended {
    /// The records in the log, the oldest first. All lines of the log are JSON.
    pub(crate) fn records(&self) -> Vec<Value> {
        let lines = self.log.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"] == "session_closed").collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("standard output: {:#?}\nstandard error: {:#?}", self.stdout.all(), self.stderr.all());
        }
    }
}

/// Waits until an address refuses connections.
pub(crate) fn wait_until_closed(address: SocketAddr) {
    eventually(format!("{address} is closed"), || TcpStream::connect(address).is_err().then_some(()));
}

/// A shell that runs `commands` and then becomes closewatch.
pub(crate) fn shell(commands: &str) -> Command {
    let mut shell = Command::new("sh");
    let script = format!("{commands} exec \"$0\" run --config {FILE}");
    shell.args(["-c", &script]).arg(binary());
    shell
}

fn directory_with(config: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(FILE), complete(config)).unwrap();
    directory
}

/// Adds a listener and an admin on ports of the kernel's choice, unless the configuration has its own.
fn complete(config: &str) -> String {
    let has = |key: &str| config.lines().any(|line| line.starts_with(key));
    let listen = if has("listen:") { "" } else { "listen: 127.0.0.1:0\n" };
    let admin = if has("admin:") { "" } else { "admin: {listen: 127.0.0.1:0, control: true}\n" };
    [listen, admin, config].concat()
}

/// The lines that a process writes.
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

    /// Waits for the first line with this start, and returns the address behind it.
    fn address(&self, start: &str) -> SocketAddr {
        eventually(start, || {
            let is_over = self.reader.as_ref().unwrap().is_finished();
            let lines = self.all();
            let address = lines.iter().find_map(|line| line.strip_prefix(start)?.parse().ok());
            assert!(address.is_some() || !is_over, "the process ended before {start:?}: {lines:#?}");
            address
        })
    }
}
