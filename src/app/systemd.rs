//! Notifications to systemd (`Type=notify`, `Type=notify-reload`). Without `NOTIFY_SOCKET` they do nothing.

use sd_notify::NotifyState;

/// Reports that all addresses are bound and served, or that a reload has ended.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Reports that the configuration is read again. [`ready`] must follow in any case.
pub(super) fn reloading() {
    // systemd accepts a reload only with the time of its beginning.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, now]);
    }
}

/// Reports that the process drains and will end.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}
