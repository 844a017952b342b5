//! The demo's clients: about twenty sessions that come and go, so that every metric moves within seconds.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::script::Script;

/// The number of clients. Each has one session at a time.
const CLIENTS: u32 = 20;
/// The number of clients whose sessions last minutes. Those of the others last seconds.
const LONG_LIVED: u32 = 4;
/// The clients start one after the other, at this interval.
const STAGGER: Duration = Duration::from_millis(150);
/// The wait between two sessions of a client, in milliseconds.
const PAUSE: std::ops::Range<u64> = 500..4000;
/// The longest wait after failures, in milliseconds.
const BACKOFF_LIMIT: u64 = 15_000;
/// How long open sessions may take for their closing handshakes when the clients stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs clients against the WebSocket server at an address until `shutdown` is ready. Then it closes open sessions with
/// 1001 and returns within seconds.
pub async fn run(server: SocketAddr, shutdown: impl Future<Output = ()>) {
    let stop = CancellationToken::new();
    // Its drop ends the clients that are left after the timeout, or when this future is dropped.
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(run_client(server, number, stop.clone()));
    }
    shutdown.await;
    stop.cancel();
    let _ = timeout(STOP_TIMEOUT, async { while clients.join_next().await.is_some() {} }).await;
}

/// One client: session after session, with pauses that grow while the server is unreachable.
async fn run_client(server: SocketAddr, number: u32, stop: CancellationToken) {
    let mut script = if number == 0 { Script::instant() } else { next_script(number) };
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

/// A random pause, so that clients do not return all at once. Each failure in a row doubles its upper bound.
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
