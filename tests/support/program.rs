//! The program itself, as a process of its own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, Peer, Scrape, Server, eventually};

/// A running closewatch. Whatever becomes of the test, it is ended.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    public: SocketAddr,
    admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    log_reader: Option<JoinHandle<()>>,
    stderr: BufReader<ChildStderr>,
    _directory: TempDir,
}

/// How it ended, and all it wrote to its log.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) log: Vec<String>,
}

impl Program {
    /// Starts it before a server, with `config` besides.
    pub(crate) fn before(server: &Server, config: &str) -> Self {
        Self::start(&format!("{}{config}", server.upstream()))
    }

    /// Starts it with a configuration, on ports of its own.
    pub(crate) fn start(config: &str) -> Self {
        Self::launch(Command::new(env!("CARGO_BIN_EXE_closewatch")), config)
    }

    /// The same, in what a shell has become by these commands.
    pub(crate) fn start_after(commands: &str, config: &str) -> Self {
        let mut shell = Command::new("sh");
        let script = format!("{commands} && exec \"$0\" \"$@\"");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_closewatch")]);
        Self::launch(shell, config)
    }

    /// Starts it by a command to which only its arguments are missing.
    fn launch(mut command: Command, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.yaml");
        let listen = if config.contains("listen:") { "" } else { "listen: 127.0.0.1:0\n" };
        std::fs::write(&file, format!("{listen}admin: {{listen: 127.0.0.1:0}}\n{config}")).unwrap();
        let mut child = command
            .args(["run", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::default();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let log_reader = Some(gather(stdout, Arc::clone(&log)));
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let public = announced(&mut stderr, "listening on ws://");
        let admin = announced(&mut stderr, "admin on http://");
        Self { child, public, admin, log, log_reader, stderr, _directory: directory }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.public
    }

    /// A client's connection.
    pub(crate) fn connect(&self) -> Peer {
        Peer::connect(self.public)
    }

    pub(crate) fn scrape(&self) -> Scrape {
        Scrape::new(self.get("/metrics"))
    }

    /// Waits until the samples of a metric that have all these labels add up to this.
    pub(crate) fn wait_for(&self, metric: &str, labels: &[(&str, &str)], wanted: f64) {
        eventually(format!("{metric}{labels:?} = {wanted}"), || {
            ((self.scrape().sum(metric, labels) - wanted).abs() < f64::EPSILON).then_some(())
        });
    }

    /// Waits until the samples of a metric that have all these labels add up to this or more.
    pub(crate) fn wait_for_at_least(&self, metric: &str, labels: &[(&str, &str)], wanted: f64) {
        eventually(format!("{metric}{labels:?} >= {wanted}"), || {
            (self.scrape().sum(metric, labels) >= wanted).then_some(())
        });
    }

    /// The records of this many endings, oldest first, once all are there. Whatever else ends, the sums hold then.
    pub(crate) fn records(&self, count: usize) -> Vec<Value> {
        let records = eventually(format!("{count} records"), || {
            let mut records: Vec<Value> = serde_json::from_str(&self.get("/api/v1/closes?limit=1000")).unwrap();
            records.reverse();
            (records.len() >= count).then_some(records)
        });
        assert_eq!(records.len(), count);
        self.scrape().assert_sums();
        records
    }

    /// The record of the only ending.
    pub(crate) fn record(&self) -> Value {
        self.records(1).remove(0)
    }

    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Of 1.0, so that the body comes as it is.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// The lines of its log so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// How many descriptors it can still open where it may have so many. What it inherited may lie beyond them.
    pub(crate) fn free_descriptors(&self, limit: usize) -> usize {
        let is_free = |number: &usize| std::fs::read_link(format!("/proc/{}/fd/{number}", self.child.id())).is_err();
        (0..limit).filter(is_free).count()
    }

    /// What its descriptors are, by the kernel's names for it.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = String> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        // One may be closed meanwhile.
        entries.filter_map(|entry| Some(std::fs::read_link(entry.ok()?.path()).ok()?.to_string_lossy().into_owned()))
    }

    /// The CPU time that it has used so far, all its threads together.
    pub(crate) fn cpu_time(&self) -> Duration {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the name, which may hold anything: the 12th field is the user's part, the 13th the system's (proc(5)).
        let fields = status.rsplit_once(") ").unwrap().1.split(' ');
        let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(10 * ticks)
    }

    /// Sends a signal: `TERM`, `INT`, `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Ended {
        let status = eventually("the end of the process", || self.child.try_wait().unwrap());
        self.log_reader.take().unwrap().join().unwrap();
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "closewatch said more on standard error");
        Ended { status, log: self.log() }
    }

    /// Ends it as an orchestrator does.
    pub(crate) fn terminated(self) -> Ended {
        self.signal("TERM");
        self.ended()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let mut said = String::new();
            let _ = self.stderr.read_to_string(&mut said);
            eprintln!("closewatch logged {:#?}\nand said {said:?}", self.log());
        }
    }
}

fn gather(stdout: impl BufRead + Send + 'static, log: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in stdout.split(b'\n') {
            log.lock().unwrap().push(String::from_utf8(line.unwrap()).unwrap());
        }
    })
}

fn announced(stderr: &mut BufReader<ChildStderr>, what: &str) -> SocketAddr {
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let address = line.trim_end().strip_prefix(what).unwrap_or_else(|| panic!("{line:?} instead of {what:?}"));
    address.parse().unwrap()
}
