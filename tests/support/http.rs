//! Requests to the admin and to the metrics listener.

use std::net::SocketAddr;

use super::PATIENCE;

/// An HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    read(agent().get(url(address, path)).call())
}

/// Posts JSON.
pub(crate) fn post(address: SocketAddr, path: &str, body: &str) -> Answer {
    read(agent().post(url(address, path)).header("Content-Type", "application/json").send(body))
}

fn read(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = response.unwrap();
    Answer { status: response.status().as_u16(), body: response.body_mut().read_to_string().unwrap() }
}

/// Each request has its own connection, as each scrape of a test is the first one of its kind.
fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
    config.timeout_global(Some(PATIENCE)).build().into()
}

fn url(address: SocketAddr, path: &str) -> String {
    format!("http://{address}{path}")
}
