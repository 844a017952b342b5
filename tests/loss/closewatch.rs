//! A running closewatch, and what it tells.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::namespace::Namespace;

/// The program, in the middle host. Killed when dropped.
pub(crate) struct Closewatch {
    process: Child,
    /// Where clients find it.
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    said: Arc<Mutex<String>>,
    _directory: TempDir,
}

impl Closewatch {
    pub(crate) fn start(host: &Namespace, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.yaml");
        fs::write(&path, config).unwrap();
        let program = env::var_os("CLOSEWATCH_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_closewatch").into());
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = host.run(move || command.spawn()).unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap());
        let address = address_behind("listening on ws://", &mut lines);
        let admin = address_behind("admin on http://", &mut lines);
        let said = Arc::default();
        listen(lines, Arc::clone(&said));
        Self { process, address, admin, said, _directory: directory }
    }

    /// The records of the sessions that have ended, newest first.
    pub(crate) fn records(&self, host: &Namespace) -> Vec<Value> {
        serde_json::from_str(&self.get(host, "/api/v1/closes?limit=1000")).unwrap()
    }

    pub(crate) fn metrics(&self, host: &Namespace) -> Metrics {
        Metrics { text: self.get(host, "/metrics") }
    }

    fn get(&self, host: &Namespace, path: &str) -> String {
        let mut connection = host.run(|| TcpStream::connect(self.admin)).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(connection, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200 "), "{path}: {head}");
        body.to_owned()
    }
}

impl Drop for Closewatch {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        if thread::panicking() {
            eprintln!("closewatch said:\n{}", self.said.lock().unwrap());
        }
    }
}

/// A scrape.
pub(crate) struct Metrics {
    text: String,
}

impl Metrics {
    /// The sum of a family's series that have all of these labels, each as it is written: `code="1006"`.
    pub(crate) fn sum(&self, family: &str, labels: &[&str]) -> f64 {
        let series = self.text.lines().filter_map(|line| {
            let rest = line.strip_prefix(family)?;
            let (written, value) = rest.rsplit_once(' ')?;
            let fits = written.is_empty() || written.starts_with('{');
            (fits && labels.iter().all(|label| written.contains(label))).then(|| value.parse::<f64>().unwrap())
        });
        series.sum()
    }
}

fn address_behind(words: &str, lines: &mut BufReader<ChildStderr>) -> SocketAddr {
    let mut said = String::new();
    while lines.read_line(&mut said).unwrap() > 0 {
        let last = said.lines().last().unwrap_or_default();
        if let Some((_, address)) = last.split_once(words) {
            return address.parse().unwrap();
        }
    }
    panic!("closewatch did not start:\n{said}");
}

/// Takes what it says, so that it never waits for a reader.
fn listen(mut lines: BufReader<ChildStderr>, said: Arc<Mutex<String>>) {
    thread::spawn(move || {
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
            said.lock().unwrap().push_str(&line);
            line.clear();
        }
    });
}
