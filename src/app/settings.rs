//! The settings of each part, made from the configuration.

use std::{io, sync::Arc};

use arc_swap::ArcSwap;

use super::control::State;
use crate::{
    admin::{self, Admin, MetricsText},
    config::{Config, Log, LogFormat, LogSessions},
    journal::Journal,
    log,
    metrics::{self, Metrics},
    relay,
    websocket::close_code::CodeEntry,
};

pub(super) fn metrics(config: &Config) -> metrics::MetricsOptions {
    metrics::MetricsOptions {
        codes: config.metrics.codes.iter().map(|code| code.0).collect(),
        max_custom_codes: *config.metrics.max_custom_codes,
        buckets: config.metrics.buckets.clone(),
        workers: config.worker_count().get(),
        registered_codes: registered_codes(),
    }
}

pub(super) fn relay(config: &Config) -> relay::RelayOptions {
    let keepalive = &config.keepalive;
    relay::RelayOptions {
        workers: config.worker_count().get(),
        buffer_total_bytes: *config.limits.buffer_total_bytes,
        dead_link_timeout: Some(*keepalive.idle + *keepalive.interval * *keepalive.probes),
    }
}

pub(super) fn log(config: &Log) -> log::LogSettings {
    log::LogSettings {
        format: match *config.format {
            LogFormat::Text => log::LineFormat::Text,
            LogFormat::Json => log::LineFormat::Json,
        },
        level: <&str>::from(*config.level).parse().expect("the words are those of tracing"),
        sessions: match *config.sessions {
            LogSessions::All => log::SessionFilter::All,
            LogSessions::Abnormal => log::SessionFilter::Abnormal,
            LogSessions::Off => log::SessionFilter::Off,
        },
        max_per_second: *config.max_per_second,
    }
}

pub(super) fn admin(
    config: &Config,
    metrics: &Arc<Metrics>,
    journal: Arc<Journal>,
    state: &Arc<State>,
) -> io::Result<Admin> {
    let metrics = Arc::clone(metrics);
    Ok(Admin {
        metrics: MetricsText::start(Metrics::CONTENT_TYPE, move || metrics.render())?,
        journal,
        control: Arc::clone(state) as Arc<dyn admin::Control>,
        options: ArcSwap::from_pointee(admin_options(config)),
    })
}

pub(super) fn admin_options(config: &Config) -> admin::Options {
    admin::Options {
        control: config.admin.control.0,
        hosts: config.admin.hosts.iter().map(ToString::to_string).collect(),
    }
}

/// Every code that IANA has registered alone, with its name.
fn registered_codes() -> Vec<(u16, &'static str)> {
    CodeEntry::all().filter_map(|entry| Some((entry.single_code()?, entry.name))).collect()
}
