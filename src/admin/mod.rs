//! The admin: metrics, health, the last endings, and the few things that an operator may ask a running closewatch to do.
//!
//! It is never reachable on the public listeners, and knows the running program only through [`Admin`]'s fields.

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

/// What the admin's endpoints show and act on.
pub struct Admin {
    /// The text of `/metrics`.
    pub metrics: MetricsText,
    /// The endings told by `/api/v1/closes`.
    pub journal: Arc<Journal>,
    /// The program that is asked and told.
    pub control: Arc<dyn Control>,
    /// What may change while it runs.
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

/// Who may change something through the admin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether anybody may.
    pub control: bool,
    /// Host names that a request may be addressed to, besides IP addresses and `localhost`.
    pub hosts: Vec<String>,
}

/// Where in its life the process is. Told by `/-/ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not all addresses are served yet.
    Starting,
    /// New connections are welcome.
    Ready,
    /// Sessions are closed, or will be after a delay.
    Draining,
    /// No session is left, and none is taken.
    Drained,
}

impl Phase {
    /// Every phase, in the order of a life.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Ready, Self::Draining, Self::Drained];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Drained => "drained",
        }
    }
}

/// The running program, as the admin's endpoints see it.
pub trait Control: Send + Sync {
    /// Where in its life the program is.
    fn phase(&self) -> Phase;

    /// Begins to drain; asked again, nothing changes.
    fn drain(&self);

    /// Reloads the configuration; where that fails the old one stays, and the error is for the operator to read.
    fn reload(&self) -> BoxFuture<'_, Result<(), String>>;

    /// Closes live sessions and tells how many.
    fn close(&self, request: CloseRequest) -> BoxFuture<'_, usize>;
}

/// A wish to close live sessions with a Close frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseRequest {
    /// A code that may stand on the wire.
    pub code: u16,
    /// At most 123 bytes (RFC 6455, 5.5).
    pub reason: String,
    /// How many sessions; `None`: all.
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
