//! `closewatch health`: the health check of an image without a shell.

use std::process::ExitCode;

use hyper::StatusCode;

use super::admin_client::AdminUrl;

/// The arguments of `closewatch health`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct HealthArguments {
    /// The admin of the running closewatch.
    #[arg(long, value_name = "URL", env = "CLOSEWATCH_ADMIN", default_value = "http://127.0.0.1:9917")]
    admin: AdminUrl,
}

pub(super) fn main(arguments: &HealthArguments) -> ExitCode {
    super::report(health(&arguments.admin))
}

async fn health(admin: &AdminUrl) -> Result<String, String> {
    let answer = admin.get("/-/ready").await.map_err(|error| format!("cannot reach {admin}: {error}"))?;
    answer.expect(StatusCode::OK).map_err(|message| format!("{admin} is not ready: {message}"))?;
    Ok(format!("{admin} is ready"))
}
