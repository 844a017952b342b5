//! `closewatch drain`: makes a running closewatch close its sessions, and waits for the end of the drain if asked to.

use std::{process::ExitCode, time::Duration};

use hyper::StatusCode;
use tokio::time::{sleep, timeout};

use super::admin_client::AdminUrl;
use crate::admin::ProcessPhase;

/// The time between two polls.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Polls that may fail in a row. An overloaded machine is no reason to end a pod under its sessions.
const MAX_FAILED_POLLS: u32 = 5;

/// The arguments of `closewatch drain`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct DrainArguments {
    /// The admin of the running closewatch, which needs `admin.control: true`.
    #[arg(long, value_name = "URL", env = "CLOSEWATCH_ADMIN", default_value = "http://127.0.0.1:9917")]
    admin: AdminUrl,
    /// Waits until no session is left.
    #[arg(long)]
    wait: bool,
    /// The longest wait.
    #[arg(long, value_name = "DURATION", default_value = "10m", requires = "wait", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(super) fn main(arguments: &DrainArguments) -> ExitCode {
    super::report(drain(arguments))
}

async fn drain(arguments: &DrainArguments) -> Result<String, String> {
    let admin = &arguments.admin;
    let answer = admin.post("/-/drain").await.map_err(|error| format!("cannot reach {admin}: {error}"))?;
    answer.expect(StatusCode::ACCEPTED).map_err(|message| format!("{admin} does not drain: {message}"))?;
    if !arguments.wait {
        return Ok(format!("{admin} drains"));
    }
    let Ok(drained) = timeout(arguments.timeout, wait_until_drained(admin)).await else {
        let waited = humantime::format_duration(arguments.timeout);
        return Err(format!("timeout: {admin} is not drained after {waited}"));
    };
    drained?;
    Ok(format!("{admin} is drained: no session is left"))
}

async fn wait_until_drained(admin: &AdminUrl) -> Result<(), String> {
    let mut failed_polls = 0;
    loop {
        match admin.phase().await {
            Ok(ProcessPhase::Drained) => return Ok(()),
            Ok(ProcessPhase::Draining) => failed_polls = 0,
            Ok(ProcessPhase::Starting | ProcessPhase::Ready) => {
                return Err(format!("{admin} does not drain any more: it was restarted"));
            }
            Err(error) => {
                failed_polls += 1;
                if failed_polls >= MAX_FAILED_POLLS {
                    return Err(format!("cannot find out whether {admin} is drained: {error}"));
                }
            }
        }
        sleep(POLL_INTERVAL).await;
    }
}
