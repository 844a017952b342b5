//! The admin: metrics, health, the last endings, and control of a running closewatch.
//!
//! It is not reachable on the public listeners, and it reaches the running program only through the fields of [`Admin`].

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;

use crate::journal::Journal;

mod closes;
mod codes;
mod connection_limit;
mod control;
mod descriptor_reserve;
mod metrics_text;
mod permission;
mod routes;
mod server;

pub use metrics_text::MetricsText;
pub use server::serve;

/// The most records that `GET /api/v1/closes` gives, and so the most that a [`Journal`] needs to keep.
pub const MOST_CLOSES: usize = 1000;

/// The parts of the program that the admin's endpoints use.
pub struct Admin {
    /// The text of `/metrics`.
    pub metrics: MetricsText,
    /// The records of `/api/v1/closes`.
    pub journal: Arc<Journal>,
    /// The program that control requests act on.
    pub control: Arc<dyn Control>,
    /// The permissions, which a reload can change.
    pub options: ArcSwap<Options>,
}

/// Which endpoints a listener has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    Full,
    /// Metrics and health: `metrics.listen`, for scrapers outside.
    MetricsOnly,
}

/// The permissions for page, API and control.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether control requests are allowed.
    pub control: bool,
    /// Host names that a request may be addressed to, besides IP addresses and `localhost`.
    pub hosts: Vec<String>,
}

/// The phase of the process, as `/-/ready` reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessPhase {
    /// Not all listeners are served yet.
    Starting,
    /// New connections are accepted.
    Ready,
    /// Sessions are being closed, or will be after the delay.
    Draining,
    /// No session is left, and none is accepted.
    Drained,
}

impl ProcessPhase {
    /// All phases in their order.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Ready, Self::Draining, Self::Drained];

    /// The body of `/-/ready`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Drained => "drained",
        }
    }
}

/// The running program, as the admin's endpoints use it.
pub trait Control: Send + Sync {
    /// The phase of the process.
    fn phase(&self) -> ProcessPhase;

    /// Begins to drain. A second call changes nothing.
    fn drain(&self);

    /// Reloads the configuration. If that fails, the running one stays, and the error is for the operator.
    fn reload(&self) -> BoxFuture<'_, Result<(), String>>;

    /// Closes open sessions, and returns their number.
    fn close(&self, request: CloseRequest) -> BoxFuture<'_, usize>;
}

/// A request to close open sessions with a Close frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseRequest {
    /// A code that is allowed on the wire.
    pub code: u16,
    /// At most 123 bytes (RFC 6455, 5.5).
    pub reason: String,
    /// The number of sessions, or `None` for all.
    pub count: Option<usize>,
    /// Only sessions of this route.
    pub route: Option<String>,
}

impl fmt::Display for CloseRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            Some(count) => write!(formatter, "close {count} sessions")?,
            None => formatter.write_str("close all sessions")?,
        }
        if let Some(route) = &self.route {
            write!(formatter, " of route {route}")?;
        }
        write!(formatter, " with code {}", self.code)
    }
}
