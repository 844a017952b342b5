//! The demo's clients: some twenty sessions that come and go, so that every metric moves within seconds.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::script::Script;

/// How many clients there are, each with one session at a time.
const CLIENTS: u32 = 20;
/// How many of them stay for minutes; the others for seconds.
const LONG_LIVED: u32 = 4;
/// The clients start one after the other with this distance.
const STAGGER: Duration = Duration::from_millis(150);
/// How long a client waits between two sessions, in milliseconds.
const PAUSE: std::ops::Range<u64> = 500..4000;
/// The longest wait after failures, in milliseconds.
const BACKOFF_LIMIT: u64 = 15_000;
/// How long open sessions have for their closing handshakes at the end.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Keeps clients going against the WebSocket server at an address until `shutdown` is ready; then open sessions
/// are closed with 1001, and it returns within seconds.
pub async fn run(server: SocketAddr, shutdown: impl Future<Output = ()>) {
    let stop = CancellationToken::new();
    // Its drop ends what is left, be it that patience ended or that this future was dropped.
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(come_and_go(server, number, stop.clone()));
    }
    shutdown.await;
    stop.cancel();
    let _ = timeout(STOP_PATIENCE, async { while clients.join_next().await.is_some() {} }).await;
}

/// One client: session after session, with pauses that grow while the server cannot be reached.
async fn come_and_go(server: SocketAddr, number: u32, stop: CancellationToken) {
    let mut script = if number == 0 { Script::hasty() } else { next_script(number) };
    let mut pause = STAGGER * number;
    let mut failures = 0;
    while stop.run_until_cancelled(sleep(pause)).await.is_some() {
        failures = match script.play(server, &stop).await {
            Ok(()) => 0,
            Err(_) => failures + 1,
        };
        pause = pause_after(failures);
        script = next_script(number);
    }
}

fn next_script(number: u32) -> Script {
    if number < CLIENTS - LONG_LIVED { Script::short() } else { Script::long() }
}

/// A random pause, its upper end doubled by each failure in a row, so that clients do not return all at once.
fn pause_after(failures: u32) -> Duration {
    let end = PAUSE.end.saturating_mul(1 << failures.min(8)).min(BACKOFF_LIMIT);
    Duration::from_millis(fastrand::u64(PAUSE.start..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_failures_up_to_the_limit() {
        let longest = |failures| (0..200).map(|_| pause_after(failures)).max().unwrap();
        assert!(longest(0) < Duration::from_secs(4));
        assert!(longest(3) > Duration::from_secs(4), "200 draws of up to 15 s");
        assert!(longest(u32::MAX) < Duration::from_secs(15));
    }
}
