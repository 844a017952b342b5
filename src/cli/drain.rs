//! `closewatch drain`: asks a running closewatch to close its sessions in good order, and may wait until it has.

use std::{process::ExitCode, time::Duration};

use hyper::StatusCode;
use tokio::time::{sleep, timeout};

use crate::admin::client::AdminUrl;

/// Between two looks at the sessions that are left.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Looks that may fail in a row: an overloaded machine is no reason to let a pod end under its sessions.
const MOST_FAILED_POLLS: u32 = 5;

/// The arguments of `closewatch drain`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Arguments {
    /// The admin of the closewatch to drain; it must run with `admin.control: true`.
    #[arg(long, value_name = "URL", env = "CLOSEWATCH_ADMIN", default_value = "http://127.0.0.1:9917")]
    admin: AdminUrl,
    /// Waits until no session is left.
    #[arg(long)]
    wait: bool,
    /// The longest wait.
    #[arg(long, value_name = "DURATION", default_value = "10m", requires = "wait", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    super::ask(drain(arguments))
}

async fn drain(arguments: &Arguments) -> Result<String, String> {
    let admin = &arguments.admin;
    let answer = admin.post("/-/drain").await.map_err(|error| format!("cannot reach {admin}: {error}"))?;
    answer.expect(StatusCode::ACCEPTED).map_err(|message| format!("{admin} does not drain: {message}"))?;
    if !arguments.wait {
        return Ok(format!("{admin} drains"));
    }
    let Ok(waited) = timeout(arguments.timeout, wait_until_empty(admin)).await else {
        return Err(format!("{admin} still has sessions after {}", humantime::format_duration(arguments.timeout)));
    };
    waited?;
    Ok(format!("{admin} is drained: no session is left"))
}

async fn wait_until_empty(admin: &AdminUrl) -> Result<(), String> {
    let mut failed_polls = 0;
    loop {
        match active_sessions(admin).await {
            Ok(0) => return Ok(()),
            Ok(_) => failed_polls = 0,
            Err(message) => {
                failed_polls += 1;
                if failed_polls >= MOST_FAILED_POLLS {
                    return Err(format!("cannot tell how many sessions {admin} has left: {message}"));
                }
            }
        }
        sleep(POLL_INTERVAL).await;
    }
}

async fn active_sessions(admin: &AdminUrl) -> Result<u64, String> {
    let answer = admin.get("/metrics").await.map_err(|error| error.to_string())?;
    answer.expect(StatusCode::OK)?;
    sum_active_sessions(&answer.body).ok_or_else(|| "its metrics have no websocket_sessions_active".to_owned())
}

/// The sum over all routes; `None` where the exposition has no such family.
fn sum_active_sessions(exposition: &str) -> Option<u64> {
    let samples = exposition.lines().filter_map(|line| {
        let rest = line.strip_prefix("websocket_sessions_active")?;
        let is_family = rest.starts_with(['{', ' ']);
        rest.rsplit(' ').next()?.parse::<u64>().ok().filter(|_| is_family)
    });
    samples.fold(None, |sum, sessions| Some(sum.unwrap_or(0) + sessions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_summed_over_routes() {
        let exposition = concat!(
            "# TYPE websocket_sessions_active gauge\n",
            "websocket_sessions_active{route=\"a b} 7\"} 2\n",
            "websocket_sessions_active{route=\"default\"} 40\n",
            "websocket_sessions_active_other{route=\"default\"} 100\n",
            "websocket_handshakes_in_progress{route=\"default\"} 100\n",
        );
        assert_eq!(sum_active_sessions(exposition), Some(42));
        assert_eq!(sum_active_sessions("websocket_sessions_active 0\n"), Some(0));
        assert_eq!(sum_active_sessions("something_else 0\n"), None);
    }
}
