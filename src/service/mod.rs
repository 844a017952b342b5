//! A whole closewatch: listeners, control plane, data plane, admin; its life from a configuration to its end.

mod control;
mod drain;
mod listeners;
mod settings;
mod signals;

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::{
    control::{Phase, Request, State},
    drain::Pace,
    listeners::Listeners,
    signals::{Signal, Signals},
};
use crate::{
    admin::{self, Admin, Scope},
    config::{self, Config, Errors, Overrides},
    journal::Journal,
    log::{self, LogHandle},
    metrics::Metrics,
    proxy::Proxy,
    relay::Relay,
};

/// How long the last log lines may take to be written.
const LOG_FLUSH: Duration = Duration::from_secs(1);

/// Where the configuration comes from, and comes from again on a reload.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The file; `None`: `config.yaml` in the working directory where it exists.
    pub path: Option<PathBuf>,
    /// What flags and environment say.
    pub overrides: Overrides,
}

impl Source {
    /// Reads the configuration.
    pub fn load(&self) -> Result<Config, Errors> {
        config::load(self.path.as_deref(), &self.overrides)
    }
}

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
pub struct Service {
    source: Source,
    config: Config,
    parts: Arc<Parts>,
    listeners: Listeners,
    admin: Arc<Admin>,
    admin_address: SocketAddr,
    admin_stop: CancellationToken,
    requests: mpsc::UnboundedReceiver<Request>,
    signals: Signals,
    log: LogHandle,
    draining: Option<JoinHandle<()>>,
}

/// What drain and reload act on.
struct Parts {
    state: Arc<State>,
    proxy: Arc<Proxy>,
    relay: Arc<Relay>,
    metrics: Arc<Metrics>,
}

impl Service {
    /// Binds all addresses and starts all threads. Nothing is bound before the configuration holds.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses an address, a thread, a signal handler.
    pub async fn start(source: Source, config: Config) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new(settings::metrics(&config)));
        let drops = metrics.log_drops();
        let log = log::start(settings::log(&config.log), move || drops.record_dropped(), Box::new(io::stdout()))
            .map_err(start_error("the log's thread"))?;
        // A second closewatch in one process, as in tests, logs by the first one's subscriber.
        let _ = log::install(log.clone());
        let session_log = log.clone();
        let journal = Arc::new(Journal::new(admin::MOST_CLOSES).observed_by(move |record| session_log.record(record)));
        let relay = Arc::new(Relay::start(settings::relay(&config)).map_err(start_error("the relay's threads"))?);
        let proxy = Proxy::new(&config, Arc::clone(&metrics), Arc::clone(&journal), Arc::clone(&relay));
        let (sender, requests) = mpsc::unbounded_channel();
        let state = Arc::new(State::new(Arc::clone(&relay), sender));
        let listeners = Listeners::bind(&config, &proxy)?;
        let admin = Arc::new(settings::admin(&config, &metrics, journal, &state));
        let admin_stop = CancellationToken::new();
        let admin_address = serve_admin(&config, &admin, &admin_stop).await?;
        let signals = Signals::new().map_err(start_error("the signal handlers"))?;
        let parts = Arc::new(Parts { state, proxy, relay, metrics });
        Ok(Self {
            source,
            config,
            parts,
            listeners,
            admin,
            admin_address,
            admin_stop,
            requests,
            signals,
            log,
            draining: None,
        })
    }

    /// The public addresses, with their real ports.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.addresses()
    }

    /// The admin's address, with its real port.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Runs until a signal ends it.
    pub async fn run(mut self) -> End {
        self.parts.state.enter(Phase::Ready);
        let end = loop {
            tokio::select! {
                signal = self.signals.next() => match signal {
                    Signal::Terminate => break self.end(Pace::Configured).await,
                    Signal::Interrupt => break self.end(Pace::Immediate).await,
                    Signal::Hangup => drop(self.reload()),
                },
                Some(request) = self.requests.recv() => match request {
                    Request::Drain => self.begin_drain(Pace::Configured),
                    Request::Reload(answer) => drop(answer.send(self.reload())),
                },
            }
        };
        self.parts.relay.stop();
        self.admin_stop.cancel();
        self.log.flush(LOG_FLUSH);
        end
    }

    /// Drains, unless that has begun, and waits for its end; a second signal does not wait.
    async fn end(&mut self, pace: Pace) -> End {
        let linger = pace.linger(&self.config.shutdown);
        self.begin_drain(pace);
        let draining = self.draining.take();
        let ending = async {
            if let Some(draining) = draining {
                // A drain that panicked has said so; what is left is cut with the relay.
                let _ = draining.await;
            }
            tokio::time::sleep(linger).await;
        };
        tokio::select! {
            () = ending => End::Drained,
            () = self.signals.next_end() => End::Forced,
        }
    }

    fn begin_drain(&mut self, pace: Pace) {
        if self.draining.is_none() {
            self.parts.state.enter(Phase::Draining);
            let stop = self.listeners.stop_token();
            self.draining =
                Some(tokio::spawn(drain::drain(Arc::clone(&self.parts), stop, pace, self.config.shutdown.clone())));
        }
    }

    /// Reads the configuration again. A bad one changes nothing.
    fn reload(&mut self) -> Result<(), String> {
        let result = self.source.load().map_err(|errors| errors.to_string()).and_then(|config| self.apply(config));
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
        result
    }

    fn apply(&mut self, config: Config) -> Result<(), String> {
        let fixed = settings::fixed_differences(&self.config, &config);
        if !fixed.is_empty() {
            return Err(format!("{} cannot change while closewatch runs; restart it", fixed.join(", ")));
        }
        // The one step that can fail comes first, so that a reload is whole or nothing.
        self.listeners.rebind(&config, &self.parts.proxy).map_err(|error| error.to_string())?;
        self.parts.proxy.reconfigure(&config);
        self.admin.options.store(Arc::new(settings::admin_options(&config)));
        self.log.reconfigure(settings::log(&config.log));
        self.config = config;
        Ok(())
    }
}

async fn serve_admin(config: &Config, admin: &Arc<Admin>, stop: &CancellationToken) -> Result<SocketAddr, StartError> {
    let mut bound = Vec::new();
    let scopes = [(Some(config.admin.listen), Scope::Full), (config.metrics.listen, Scope::MetricsOnly)];
    for (address, scope) in scopes.into_iter().filter_map(|(address, scope)| Some((address?, scope))) {
        let what = || format!("admin {address}");
        let listener = tokio::net::TcpListener::bind(address).await.map_err(start_error(what()))?;
        bound.push(listener.local_addr().map_err(start_error(what()))?);
        tokio::spawn(admin::serve(listener, Arc::clone(admin), scope, stop.clone()));
    }
    Ok(bound[0])
}
