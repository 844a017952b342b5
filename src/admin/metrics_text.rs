//! The text of `/metrics`. One thread renders it and all scrapes share it: they neither block the threads that serve
//! connections nor take more than a small share of a core.

use std::{
    convert::Infallible,
    io,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderValue,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use futures_util::stream;
use tokio::sync::oneshot;

use super::connection_limit::LimitedResponse;

/// A scrape may return a text that is up to 1 s old. The rest is for its way to the scraper.
const MAX_AGE: Duration = Duration::from_millis(900);

/// Rendering takes one part in so many of a core's time.
const SHARE_OF_CORE: u32 = 5;

/// How far rendering may run ahead of its share: a few scrapes in a row each get a new text.
const BURST: Duration = Duration::from_secs(1);

/// The size of the pieces in which a text is sent.
const PIECE_BYTES: usize = 16 * 1024;

/// Gives out the text of `/metrics`.
pub struct MetricsText {
    requests: mpsc::Sender<oneshot::Sender<Bytes>>,
    content_type: &'static str,
}

impl MetricsText {
    /// Starts the thread that calls `render`. It ends when this is dropped.
    ///
    /// # Errors
    ///
    /// If the thread cannot start.
    pub fn start(content_type: &'static str, render: impl Fn() -> Vec<u8> + Send + 'static) -> io::Result<Self> {
        let (requests, received) = mpsc::channel();
        thread::Builder::new().name("metrics".to_owned()).spawn(move || answer_all(&received, render))?;
        Ok(Self { requests, content_type })
    }

    pub(super) fn content_type(&self) -> &'static str {
        self.content_type
    }

    /// The current text, or `None` if its thread has panicked.
    pub(super) async fn current(&self) -> Option<Bytes> {
        let (sender, text) = oneshot::channel();
        self.requests.send(sender).ok()?;
        text.await.ok()
    }
}

/// A text as a response. It goes out in pieces, so that `limited` lives until nearly all of it has been sent.
pub(super) fn respond(text: Bytes, content_type: &'static str, limited: LimitedResponse) -> Response {
    let length = HeaderValue::from(text.len());
    let pieces = stream::unfold((text, limited), |(mut rest, limited)| async move {
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        (!piece.is_empty()).then_some((Ok::<_, Infallible>(piece), (rest, limited)))
    });
    let headers = [(CONTENT_TYPE, HeaderValue::from_static(content_type)), (CONTENT_LENGTH, length)];
    (headers, Body::from_stream(pieces)).into_response()
}

fn answer_all(requests: &mpsc::Receiver<oneshot::Sender<Bytes>>, render: impl Fn() -> Vec<u8>) {
    let mut cache = Cache::new(render);
    while let Ok(first) = requests.recv() {
        // All of them are older than the text if it is rendered now.
        let waiting: Vec<_> = std::iter::once(first).chain(requests.try_iter()).collect();
        let text = cache.text();
        for request in waiting {
            // A scraper that has gone needs no text.
            let _ = request.send(text.clone());
        }
    }
}

/// The last text, and when the next one may be rendered.
struct Cache<R> {
    render: R,
    text: Bytes,
    rendered: Option<Instant>,
    /// The end of the time in which the past renderings have their share of a core.
    paid_until: Instant,
}

impl<R: Fn() -> Vec<u8>> Cache<R> {
    fn new(render: R) -> Self {
        Self { render, text: Bytes::new(), rendered: None, paid_until: Instant::now() }
    }

    fn text(&mut self) -> Bytes {
        let now = Instant::now();
        if self.may_render(now) {
            self.text = (self.render)().into();
            self.charge(now, now.elapsed());
        }
        self.text.clone()
    }

    fn may_render(&self, now: Instant) -> bool {
        let is_fresh = self.rendered.is_some_and(|rendered| now < rendered + MAX_AGE);
        !is_fresh || self.paid_until <= now + BURST
    }

    fn charge(&mut self, now: Instant, cost: Duration) {
        self.rendered = Some(now);
        self.paid_until = self.paid_until.max(now) + cost * SHARE_OF_CORE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renderings_take_their_share_of_a_core() {
        let mut cache = Cache::new(Vec::new);
        let start = cache.paid_until;
        let mut renderings = Vec::new();
        for millisecond in 0..10_000 {
            let now = start + Duration::from_millis(millisecond);
            if cache.may_render(now) {
                cache.charge(now, Duration::from_millis(10));
                renderings.push(millisecond);
            }
        }
        // 10 ms of each 50 ms, and the burst of 1 s: 21 texts at once.
        assert_eq!(renderings[..21], (0..21).collect::<Vec<_>>());
        assert_eq!(renderings[21..24], [50, 100, 150]);
        assert_eq!(renderings.len(), 21 + 199);
    }

    #[test]
    fn text_is_never_older_than_its_maximum_age() {
        let mut cache = Cache::new(Vec::new);
        let start = cache.paid_until;
        let mut renderings = Vec::new();
        for millisecond in 0..5000 {
            let now = start + Duration::from_millis(millisecond);
            if cache.may_render(now) {
                // Far more than the share.
                cache.charge(now, Duration::from_secs(1));
                renderings.push(millisecond);
            }
        }
        assert_eq!(renderings, [0, 900, 1800, 2700, 3600, 4500]);
    }
}
