//! What the service manager is told (`Type=notify`, `Type=notify-reload`). Without one nobody is told.

use sd_notify::NotifyState;

/// All addresses are bound and served.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read again. [`ready`] must follow, whatever comes of it.
pub(super) fn reloading() {
    // systemd takes a reload for its own only with the time of its beginning.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// The process drains and will end.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager could not be notified");
    }
}
