//! `closewatch drain`: asks a running closewatch to close its sessions in good order, and may wait until it has.

use std::{process::ExitCode, time::Duration};

use hyper::StatusCode;
use tokio::time::{sleep, timeout};

use crate::admin::{Phase, client::AdminUrl};

/// Between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

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
    let Ok(waited) = timeout(arguments.timeout, wait_until_drained(admin)).await else {
        return Err(format!("{admin} is not drained after {}", humantime::format_duration(arguments.timeout)));
    };
    waited?;
    Ok(format!("{admin} is drained: no session is left"))
}

async fn wait_until_drained(admin: &AdminUrl) -> Result<(), String> {
    let mut failed_polls = 0;
    loop {
        match admin.phase().await {
            Ok(Phase::Drained) => return Ok(()),
            Ok(Phase::Draining) => failed_polls = 0,
            Ok(Phase::Starting | Phase::Ready) => {
                return Err(format!("{admin} does not drain any more: it was restarted"));
            }
            Err(error) => {
                failed_polls += 1;
                if failed_polls >= MOST_FAILED_POLLS {
                    return Err(format!("cannot tell whether {admin} is drained: {error}"));
                }
            }
        }
        sleep(POLL_INTERVAL).await;
    }
}
