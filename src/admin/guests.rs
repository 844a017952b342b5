//! Who is connected to the admin. There are so many places, and whoever comes gets one: those who ask nothing give theirs.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// The connections that are served.
#[derive(Debug)]
pub(super) struct Guests {
    places: Arc<Semaphore>,
    /// Oldest first.
    present: Vec<Weak<Guest>>,
    stop: CancellationToken,
}

/// A connection that is served. Its place is free again when it is dropped.
#[derive(Debug)]
pub(super) struct Guest {
    _place: OwnedSemaphorePermit,
    has_asked: AtomicBool,
    leave: CancellationToken,
}

impl Guests {
    /// Nobody is there, and `places` may be. At `stop`, all are to leave.
    pub(super) fn new(places: usize, stop: CancellationToken) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), present: Vec::new(), stop }
    }

    /// One more, once there is a place for it.
    pub(super) async fn welcome(&mut self) -> Arc<Guest> {
        self.present.retain(|guest| guest.strong_count() > 0);
        if self.places.available_permits() == 0 {
            self.make_room();
        }
        let place = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
        let guest =
            Arc::new(Guest { _place: place, has_asked: AtomicBool::new(false), leave: self.stop.child_token() });
        self.present.push(Arc::downgrade(&guest));
        guest
    }

    /// Sends away the oldest who has asked nothing yet. Those who came before and have asked leave too, each as soon as it
    /// is answered: which of them only keep their connection is not known here.
    fn make_room(&self) {
        for guest in self.present.iter().filter_map(Weak::upgrade) {
            guest.leave.cancel();
            if !guest.has_asked() {
                break;
            }
        }
    }
}

impl Guest {
    /// It has sent the whole head of a request.
    pub(super) fn asks(&self) {
        self.has_asked.store(true, Ordering::Relaxed);
    }

    /// Whether it has ever done so.
    pub(super) fn has_asked(&self) -> bool {
        self.has_asked.load(Ordering::Relaxed)
    }

    /// Waits until it is to leave.
    pub(super) fn is_to_leave(&self) -> WaitForCancellationFuture<'_> {
        self.leave.cancelled()
    }
}
