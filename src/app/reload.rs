//! Reloads. Each reading of the configuration has a thread of its own, because a FIFO or a hung disk can block it for ever:
//! signals, drain and health do not wait for it.

use std::{collections::VecDeque, future::pending, sync::Arc, thread, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{Source, systemd};
use crate::config::Config;

/// How long a reading may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Readings that may hang at a time. Each holds a thread.
const MAX_HUNG: usize = 4;

/// The receiver of the result of a reload.
pub(super) type ReloadAnswer = oneshot::Sender<Result<(), String>>;

/// The readings of the configuration, one after the other.
pub(super) struct Reloads {
    source: Source,
    reading: Option<Reading>,
    /// Requests that came during a reading. The file may have changed since it began, so they need another one.
    waiting: VecDeque<Option<ReloadAnswer>>,
    /// Each thread that reads holds a clone.
    threads: Arc<()>,
    timeout: Duration,
}

struct Reading {
    result: oneshot::Receiver<Result<Config, String>>,
    deadline: Instant,
    answers: Vec<ReloadAnswer>,
}

impl Reloads {
    pub(super) fn new(source: Source) -> Self {
        Self { source, reading: None, waiting: VecDeque::new(), threads: Arc::default(), timeout: TIMEOUT }
    }

    /// Requests a reload. `answer` gets its result.
    pub(super) fn request(&mut self, answer: Option<ReloadAnswer>) {
        self.waiting.push_back(answer);
        if self.reading.is_none() {
            self.read();
        }
    }

    /// The next configuration that was read, or the reason why it cannot be read. [`Reloads::finish`] must follow.
    pub(super) async fn next(&mut self) -> Result<Config, String> {
        let Some(reading) = &mut self.reading else { return pending().await };
        match timeout_at(reading.deadline, &mut reading.result).await {
            Ok(result) => result.unwrap_or_else(|_| Err("no thread can read the configuration".to_owned())),
            Err(_) => Err(format!("timeout: reading the configuration takes longer than {:?}", self.timeout)),
        }
    }

    /// Reports the result of a reload to its requesters, and begins the next one if there are more requests.
    pub(super) fn finish(&mut self, result: &Result<(), String>) {
        systemd::ready();
        for answer in self.reading.take().into_iter().flat_map(|reading| reading.answers) {
            // A requester that has gone finds the result in the log.
            let _ = answer.send(result.clone());
        }
        if !self.waiting.is_empty() {
            self.read();
        }
    }

    fn read(&mut self) {
        systemd::reloading();
        let answers = self.waiting.drain(..).flatten().collect();
        let (sender, result) = oneshot::channel();
        if Arc::strong_count(&self.threads) <= MAX_HUNG {
            let (source, thread) = (self.source.clone(), Arc::clone(&self.threads));
            let read = move || {
                // The receiver has gone if the reading took too long.
                let _ = sender.send(source.load());
                drop(thread);
            };
            // If the thread cannot start, the sender is dropped with the closure, which is reported.
            let _ = thread::Builder::new().name("reload".to_owned()).spawn(read);
        } else {
            let _ = sender.send(Err(format!("{MAX_HUNG} earlier readings of the configuration still hang")));
        }
        self.reading = Some(Reading { result, deadline: Instant::now() + self.timeout, answers });
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use super::*;
    use crate::{app::Origin, config::Overrides};

    fn reloads(path: &Path, timeout: Duration) -> Reloads {
        let source = Source { origin: Origin::File(path.to_owned()), overrides: Overrides::default() };
        Reloads { timeout, ..Reloads::new(source) }
    }

    fn hang(path: &Path) {
        let _ = fs::remove_file(path);
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    fn mend(path: &Path) {
        fs::remove_file(path).unwrap();
        fs::write(path, "upstream: ws://127.0.0.1:9000\n").unwrap();
    }

    #[tokio::test]
    async fn hung_reading_fails_and_the_next_succeeds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.yaml");
        hang(&path);
        let mut reloads = reloads(&path, Duration::from_millis(50));
        let (first, second) = (oneshot::channel(), oneshot::channel());
        reloads.request(Some(first.0));
        reloads.request(Some(second.0));
        let error = reloads.next().await.unwrap_err();
        assert_eq!(error, "timeout: reading the configuration takes longer than 50ms");
        mend(&path);
        reloads.timeout = Duration::from_mins(1);
        reloads.finish(&Err(error.clone()));
        assert_eq!(first.1.await.unwrap(), Err(error));
        assert!(reloads.next().await.is_ok(), "the request that waited has its own reading");
        reloads.finish(&Ok(()));
        assert_eq!(second.1.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn hung_readings_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.yaml");
        hang(&path);
        let mut reloads = reloads(&path, Duration::ZERO);
        for _ in 0..MAX_HUNG {
            reloads.request(None);
            let error = reloads.next().await.unwrap_err();
            assert!(error.starts_with("timeout"), "{error}");
            reloads.finish(&Err(error));
        }
        reloads.timeout = Duration::from_mins(1);
        reloads.request(None);
        assert_eq!(reloads.next().await.unwrap_err(), "4 earlier readings of the configuration still hang");
    }
}
