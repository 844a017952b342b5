//! The whole program: listeners, control plane, data plane and admin, from the start to the end of the process.

mod admin_servers;
mod control;
mod drain;
mod listeners;
mod reload;
mod settings;
mod signals;
mod socket_activation;
mod source;
mod systemd;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::mpsc;

use self::{
    admin_servers::{AdminServers, BoundAdmin},
    control::{Request, State},
    drain::{DeadlineKills, Drain},
    listeners::Listeners,
    reload::Reloads,
    signals::{Signal, Signals},
};
pub use self::{
    socket_activation::PassedSockets,
    source::{Origin, Source},
};
use crate::{
    admin::{self, ProcessPhase},
    config::Config,
    journal::{Entry, Journal},
    log::{self, LogHandle},
    metrics::Metrics,
    proxy::Proxy,
    relay::Relay,
};

/// How long the last lines of the log may take to be written.
const LOG_FLUSH: Duration = Duration::from_secs(2);

/// Why closewatch cannot start: the part that failed and its error.
#[derive(Debug)]
pub struct StartError {
    what: String,
    error: io::Error,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.error)
    }
}

impl std::error::Error for StartError {}

fn start_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    |error| StartError { what: what.into(), error }
}

/// How closewatch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It has drained.
    Drained,
    /// A second signal ended it at once.
    Forced,
}

/// A running closewatch.
pub struct App {
    config: Config,
    parts: Arc<Parts>,
    admin: AdminServers,
    admin_address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    requests: mpsc::UnboundedReceiver<Request>,
    reloads: Reloads,
    signals: Signals,
    log: LogHandle,
    drain: Option<Drain>,
}

/// The parts that drain and reload act on.
struct Parts {
    state: Arc<State>,
    listeners: Mutex<Listeners>,
    proxy: Arc<Proxy>,
    relay: Arc<Relay>,
    metrics: Arc<Metrics>,
    kills: Arc<DeadlineKills>,
}

impl Parts {
    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        // A panic leaves them consistent: each change is one step.
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl App {
    /// Binds all addresses and starts all threads. `config` is valid, so nothing is bound for an invalid one, and nothing is
    /// served before everything is bound. Call it in a runtime of tokio.
    ///
    /// # Errors
    ///
    /// If an address cannot be bound, if a thread or a signal handler cannot be had, or if a passed socket is not used.
    pub fn start(source: Source, config: Config, mut sockets: PassedSockets) -> Result<Self, StartError> {
        let signals = Signals::new().map_err(start_error("the signal handlers"))?;
        let metrics = Arc::new(Metrics::new(settings::metrics(&config)));
        let drops = metrics.log_drops();
        let log = log::start(settings::log(&config.log), move || drops.record_dropped(), Box::new(io::stdout()))
            .map_err(start_error("the log thread"))?;
        // A second app in one process, as in tests, logs through the first one.
        let _ = log::install(log.clone());
        let kills = Arc::<DeadlineKills>::default();
        let (session_log, session_kills) = (log.clone(), Arc::clone(&kills));
        let journal = Arc::new(Journal::new(admin::MOST_CLOSES).observed_by(move |entry| {
            if let Entry::Session(record) = entry {
                session_kills.observe(&record.summary.ending);
            }
            session_log.record(entry);
        }));
        let relay = Arc::new(Relay::start(settings::relay(&config)).map_err(start_error("the relay threads"))?);
        let proxy = Proxy::new(&config, Arc::clone(&metrics), Arc::clone(&journal), Arc::clone(&relay));
        let (sender, requests) = mpsc::unbounded_channel();
        let state = Arc::new(State::new(Arc::clone(&relay), sender));

        let mut listeners = Listeners::default();
        let bound = listeners.bind(&config, &mut sockets)?;
        let bound_admin = BoundAdmin::new(&config, &mut sockets)?;
        let (admin_address, metrics_address) = bound_admin.addresses()?;
        sockets.expect_all_used()?;
        listeners.run(bound, &proxy);
        let admin = settings::admin(&config, &metrics, journal, &state).map_err(start_error("the metrics thread"))?;
        let admin = AdminServers::start(bound_admin, admin).map_err(start_error("the admin thread"))?;
        let parts = Arc::new(Parts { state, listeners: Mutex::new(listeners), proxy, relay, metrics, kills });
        warn_of_unused(&config);
        let (reloads, drain) = (Reloads::new(source), None);
        Ok(Self { config, parts, admin, admin_address, metrics_address, requests, reloads, signals, log, drain })
    }

    /// The public addresses in the order of the configuration, with their real ports.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.parts.listeners().addresses()
    }

    /// The address of the admin, with its real port.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// The address of `metrics.listen`, with its real port, if it is configured.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Runs until a signal ends it.
    pub async fn run(mut self) -> Exit {
        self.parts.state.enter(ProcessPhase::Ready);
        systemd::ready();
        let signal = self.until_signal().await;
        systemd::stopping();
        let end = self.until_end(signal).await;
        self.parts.relay.stop();
        if end == Exit::Drained {
            self.admin.stop().await;
        }
        self.log.flush(LOG_FLUSH);
        end
    }

    /// Handles reloads and requests of the admin until a signal asks for the end of the process.
    async fn until_signal(&mut self) -> Signal {
        loop {
            tokio::select! {
                signal = self.signals.next() => match signal {
                    Signal::Terminate | Signal::Interrupt => return signal,
                    Signal::Hangup => self.reloads.request(None),
                },
                Some(request) = self.requests.recv() => match request {
                    Request::Drain => drop(self.drain()),
                    Request::Reload(answer) => self.reloads.request(Some(answer)),
                },
                config = self.reloads.next() => {
                    let result = config.and_then(|config| self.apply(config));
                    self.report_reload(&result);
                    self.reloads.finish(&result);
                }
            }
        }
    }

    /// Drains, unless a drain has begun before. A second signal ends the wait.
    async fn until_end(&mut self, first: Signal) -> Exit {
        let linger = if first == Signal::Interrupt { Duration::ZERO } else { *self.config.shutdown.linger };
        let drain = self.drain();
        if first == Signal::Interrupt {
            drain.skip_delays();
        }
        tokio::select! {
            () = drain.ended(linger) => Exit::Drained,
            _ = self.until_signal() => Exit::Forced,
        }
    }

    /// Begins the drain, unless it has begun before.
    fn drain(&mut self) -> Drain {
        let begin = || Drain::begin(Arc::clone(&self.parts), self.config.shutdown.clone());
        self.drain.get_or_insert_with(begin).clone()
    }

    fn report_reload(&self, result: &Result<(), String>) {
        match result {
            Ok(()) => {
                self.parts.metrics.reload_succeeded(SystemTime::now());
                tracing::info!("configuration reloaded");
            }
            Err(error) => {
                self.parts.metrics.reload_failed();
                tracing::error!(error, "reload failed; the running configuration stays");
            }
        }
    }

    /// Applies a configuration that was read again. A bad one changes nothing.
    fn apply(&mut self, config: Config) -> Result<(), String> {
        let fixed = self.config.fixed_differences(&config);
        if !fixed.is_empty() {
            return Err(format!("{} cannot change by a reload: restart closewatch", fixed.join(", ")));
        }
        // The only step that can fail comes first, so that a reload changes everything or nothing.
        let mut listeners = self.parts.listeners();
        let bound = listeners.bind(&config, &mut PassedSockets::default()).map_err(|error| error.to_string())?;
        self.parts.proxy.reconfigure(&config);
        self.parts.relay.reconfigure(*config.limits.buffer_total_bytes);
        let before = listeners.addresses();
        listeners.run(bound, &self.parts.proxy);
        report_listeners(&before, &listeners.addresses());
        drop(listeners);
        self.admin.reconfigure(settings::admin_options(&config));
        self.log.reconfigure(settings::log(&config.log));
        warn_of_unused(&config);
        self.config = config;
        Ok(())
    }
}

/// Routes without an effect are no error, but the user expects one.
fn warn_of_unused(config: &Config) {
    if config.has_unused_routes.0 {
        tracing::warn!("the routes of the file are not used: --upstream (CLOSEWATCH_UPSTREAM) takes precedence");
    }
}

fn report_listeners(before: &[SocketAddr], after: &[SocketAddr]) {
    for address in after.iter().filter(|address| !before.contains(address)) {
        tracing::info!(%address, "listening");
    }
    for address in before.iter().filter(|address| !after.contains(address)) {
        tracing::info!(%address, "no longer listening; its sessions stay");
    }
}
