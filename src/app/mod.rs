//! A whole closewatch: listeners, control plane, data plane, admin; its life from a configuration to its end.

mod admins;
mod control;
mod drain;
mod listeners;
mod settings;
mod signals;
mod sockets;
mod source;
mod systemd;

use std::{
    fmt, io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::mpsc;

pub use self::source::{Origin, Source};
use self::{
    admins::Admins,
    control::{Request, State},
    drain::{Cuts, Drain},
    listeners::Listeners,
    signals::{Signal, Signals},
    sockets::Sockets,
};
use crate::{
    admin::{self, Phase},
    config::Config,
    journal::Journal,
    log::{self, LogHandle},
    metrics::Metrics,
    proxy::Proxy,
    relay::Relay,
};

/// How long the last log lines may take to be written.
const LOG_FLUSH: Duration = Duration::from_secs(2);

/// Why a closewatch could not start: what, and where.
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

/// How a closewatch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// After a drain.
    Drained,
    /// By a second signal, at once.
    Forced,
}

/// A running closewatch.
pub struct App {
    source: Source,
    config: Config,
    parts: Arc<Parts>,
    admins: Admins,
    admin_address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    requests: mpsc::UnboundedReceiver<Request>,
    signals: Signals,
    log: LogHandle,
    drain: Option<Drain>,
}

/// What drain and reload act on.
struct Parts {
    state: Arc<State>,
    listeners: Mutex<Listeners>,
    proxy: Arc<Proxy>,
    relay: Arc<Relay>,
    metrics: Arc<Metrics>,
    cuts: Arc<Cuts>,
}

impl Parts {
    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        // A panic leaves them whole: each change is one step.
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl App {
    /// Binds all addresses and starts all threads. Nothing is bound before the configuration holds, and nobody is served
    /// before all is bound. Within a runtime of tokio's.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses an address, a thread, a signal handler, or systemd passed a socket without use.
    pub fn start(source: Source, config: Config) -> Result<Self, StartError> {
        let signals = Signals::new().map_err(start_error("the signal handlers"))?;
        let mut sockets = Sockets::passed()?;
        let metrics = Arc::new(Metrics::new(settings::metrics(&config)));
        let drops = metrics.log_drops();
        let log = log::start(settings::log(&config.log), move || drops.record_dropped(), Box::new(io::stdout()))
            .map_err(start_error("the log's thread"))?;
        // A second closewatch in one process, as in tests, logs by the first one's subscriber.
        let _ = log::install(log.clone());
        let cuts = Arc::<Cuts>::default();
        let (session_log, session_cuts) = (log.clone(), Arc::clone(&cuts));
        let journal = Arc::new(Journal::new(admin::MOST_CLOSES).observed_by(move |record| {
            session_cuts.observe(&record.summary.ending);
            session_log.record(record);
        }));
        let relay = Arc::new(Relay::start(settings::relay(&config)).map_err(start_error("the relay's threads"))?);
        let proxy = Proxy::new(&config, Arc::clone(&metrics), Arc::clone(&journal), Arc::clone(&relay));
        let (sender, requests) = mpsc::unbounded_channel();
        let state = Arc::new(State::new(Arc::clone(&relay), sender));

        let mut listeners = Listeners::default();
        let bound = listeners.bind(&config, &mut sockets)?;
        let bound_admin = admins::Bound::new(&config, &mut sockets)?;
        let (admin_address, metrics_address) = bound_admin.addresses()?;
        sockets.all_taken()?;
        listeners.run(bound, &proxy);
        let admin = settings::admin(&config, &metrics, journal, &state).map_err(start_error("the metrics thread"))?;
        let admins = Admins::serve(bound_admin, admin);
        let parts = Arc::new(Parts { state, listeners: Mutex::new(listeners), proxy, relay, metrics, cuts });
        warn_of_unused(&config);
        let drain = None;
        Ok(Self { source, config, parts, admins, admin_address, metrics_address, requests, signals, log, drain })
    }

    /// The public addresses in the order of the configuration, with their real ports.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.parts.listeners().addresses()
    }

    /// The admin's address, with its real port.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// The second address for metrics, with its real port, where it is configured.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Runs until a signal ends it.
    pub async fn run(mut self) -> End {
        self.parts.state.enter(Phase::Ready);
        systemd::ready();
        let signal = self.until_signal().await;
        systemd::stopping();
        let end = self.until_end(signal).await;
        self.parts.relay.stop();
        if end == End::Drained {
            self.admins.stop().await;
        }
        self.log.flush(LOG_FLUSH);
        end
    }

    /// Does what is asked until a signal says that the process is to end.
    async fn until_signal(&mut self) -> Signal {
        loop {
            tokio::select! {
                signal = self.signals.next() => match signal {
                    Signal::Terminate | Signal::Interrupt => return signal,
                    Signal::Hangup => drop(self.reload()),
                },
                Some(request) = self.requests.recv() => self.obey(request),
            }
        }
    }

    /// Drains, unless that was begun before, and does what is asked meanwhile. A second signal does not wait.
    async fn until_end(&mut self, first: Signal) -> End {
        let linger = if first == Signal::Interrupt { Duration::ZERO } else { *self.config.shutdown.linger };
        let drain = self.drain();
        if first == Signal::Interrupt {
            drain.hurry();
        }
        let mut ended = pin!(drain.ended(linger));
        loop {
            tokio::select! {
                () = &mut ended => return End::Drained,
                signal = self.signals.next() => match signal {
                    Signal::Terminate | Signal::Interrupt => return End::Forced,
                    Signal::Hangup => drop(self.reload()),
                },
                Some(request) = self.requests.recv() => self.obey(request),
            }
        }
    }

    fn obey(&mut self, request: Request) {
        match request {
            Request::Drain => drop(self.drain()),
            // Who asked may have gone; the log has the answer too.
            Request::Reload(answer) => drop(answer.send(self.reload())),
        }
    }

    /// The drain: there is only one.
    fn drain(&mut self) -> Drain {
        let begin = || Drain::begin(Arc::clone(&self.parts), self.config.shutdown.clone());
        self.drain.get_or_insert_with(begin).clone()
    }

    /// Reads the configuration again. A bad one changes nothing.
    fn reload(&mut self) -> Result<(), String> {
        systemd::reloading();
        let result = self.source.load().and_then(|config| self.apply(config));
        match &result {
            Ok(()) => {
                self.parts.metrics.reload_succeeded(SystemTime::now());
                tracing::info!("the configuration was reloaded");
            }
            Err(error) => {
                self.parts.metrics.reload_failed();
                tracing::error!(error, "the configuration was not reloaded; the running one stays");
            }
        }
        systemd::ready();
        result
    }

    fn apply(&mut self, config: Config) -> Result<(), String> {
        let fixed = self.config.fixed_differences(&config);
        if !fixed.is_empty() {
            return Err(format!("{} cannot change while closewatch runs; restart it", fixed.join(", ")));
        }
        // The one step that can fail comes first, so that a reload is whole or nothing.
        let mut listeners = self.parts.listeners();
        let bound = listeners.bind(&config, &mut Sockets::default()).map_err(|error| error.to_string())?;
        self.parts.proxy.reconfigure(&config);
        self.parts.relay.reconfigure(*config.limits.buffer_total_bytes);
        let before = listeners.addresses();
        listeners.run(bound, &self.parts.proxy);
        tell_changes(&before, &listeners.addresses());
        drop(listeners);
        self.admins.reconfigure(settings::admin_options(&config));
        self.log.reconfigure(settings::log(&config.log));
        warn_of_unused(&config);
        self.config = config;
        Ok(())
    }
}

/// What a file says in vain is no error, but somebody has written it.
fn warn_of_unused(config: &Config) {
    if config.has_unused_routes.0 {
        tracing::warn!("the routes of the file are not used: --upstream (CLOSEWATCH_UPSTREAM) takes their place");
    }
}

fn tell_changes(before: &[SocketAddr], after: &[SocketAddr]) {
    for address in after.iter().filter(|address| !before.contains(address)) {
        tracing::info!(%address, "listening");
    }
    for address in before.iter().filter(|address| !after.contains(address)) {
        tracing::info!(%address, "no longer listening; the sessions from there go on");
    }
}
