//! The last endings, and the new ones as server-sent events.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::header::CONTENT_TYPE,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{
    Stream,
    stream::{self, StreamExt},
};
use serde::Serialize;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::MOST_CLOSES;
use crate::journal::Entry;

/// The `limit` of a query. The default is the maximum.
pub(super) fn limit(query: &[(String, String)]) -> Result<usize, String> {
    let Some((_, limit)) = query.iter().find(|(name, _)| name == "limit") else {
        return Ok(MOST_CLOSES);
    };
    let is_number = !limit.is_empty() && limit.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return Err(format!("limit must be a whole number (at most {MOST_CLOSES} records are kept)"));
    }
    // Parsing fails only if the number exceeds every integer type.
    Ok(limit.parse().unwrap_or(MOST_CLOSES).min(MOST_CLOSES))
}

/// The records as a JSON array. Each is rendered when its turn comes, so slow readers share the records.
pub(super) fn list<T: Serialize + Send + Sync + 'static>(records: Vec<Arc<T>>) -> Response {
    let elements = records.into_iter().enumerate().map(|(index, record)| {
        let separator = if index == 0 { "" } else { ",\n" };
        Bytes::from(format!("{separator}{}", json(&*record)))
    });
    let opening = std::iter::once(Bytes::from_static(b"["));
    let chunks = opening.chain(elements).chain([Bytes::from_static(b"]\n")]);
    let body = Body::from_stream(stream::iter(chunks.map(Ok::<_, Infallible>)));
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// New records as server-sent events (WHATWG HTML, 9.2). The stream ends when its reader lags behind, and after `stop`.
/// `limited` is dropped with it.
pub(super) fn stream(
    records: Receiver<Entry>,
    stop: CancellationToken,
    limited: impl Send + 'static,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let greeting = stream::iter([Event::default().comment("endings from now on")]);
    let events = stream::unfold(Some((records, limited)), move |state| {
        let stop = stop.clone();
        async move {
            let (mut records, limited) = state?;
            match next_record(&mut records, &stop).await? {
                Ok(entry) => Some((event(&entry), Some((records, limited)))),
                Err(Lagged(missed)) => Some((lagged(missed), None)),
            }
        }
    });
    // The comment every 15 s makes the kernel notice a reader that has vanished.
    Sse::new(greeting.chain(events).map(Ok)).keep_alive(KeepAlive::new().text("no ending"))
}

/// The reader was so slow that it has missed this many records.
struct Lagged(u64);

/// The next record, or `None` if no record can come any more.
async fn next_record(records: &mut Receiver<Entry>, stop: &CancellationToken) -> Option<Result<Entry, Lagged>> {
    tokio::select! {
        // Records that are already there are sent before the stream ends.
        biased;
        received = records.recv() => match received {
            Ok(record) => Some(Ok(record)),
            Err(RecvError::Lagged(missed)) => Some(Err(Lagged(missed))),
            Err(RecvError::Closed) => None,
        },
        () = stop.cancelled() => None,
    }
}

/// The end of a session has no type of its own: it is a plain message.
fn event(entry: &Entry) -> Event {
    let event = match entry {
        Entry::Session(_) => Event::default(),
        Entry::Handshake(_) => Event::default().event("handshake_failed"),
    };
    event.data(json(entry))
}

fn lagged(missed: u64) -> Event {
    Event::default().event("lagged").data(format!("{{\"missed\":{missed}}}"))
}

fn json(record: &impl Serialize) -> String {
    serde_json::to_string(record).expect("every key is a string")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Journal, record};
    use axum::body::{HttpBody, to_bytes};
    use std::future::poll_fn;
    use std::pin::Pin;

    async fn text(response: impl IntoResponse) -> String {
        let body = to_bytes(response.into_response().into_body(), usize::MAX).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn limit_is_a_number_up_to_a_thousand() {
        let limit_of = |value: &str| limit(&[("x".to_owned(), "2".to_owned()), ("limit".to_owned(), value.to_owned())]);
        assert_eq!(limit(&[]), Ok(1000));
        for (value, expected) in [("7", 7), ("0", 0), ("1000", 1000), ("1001", 1000), (&"9".repeat(30), 1000)] {
            assert_eq!(limit_of(value), Ok(expected), "{value}");
        }
        for value in ["", "-1", "+1", "1.5", "ten", "1%", "é"] {
            let message = "limit must be a whole number (at most 1000 records are kept)";
            assert_eq!(limit_of(value), Err(message.to_owned()), "{value}");
        }
    }

    #[tokio::test]
    async fn list_is_a_json_array() {
        assert_eq!(text(list::<Entry>(Vec::new())).await, "[]\n");
        let records = vec![Arc::new(record()), Arc::new(record())];
        let parsed = serde_json::from_str::<Vec<serde_json::Value>>(&text(list(records)).await).unwrap();
        assert_eq!(parsed, vec![serde_json::to_value(record()).unwrap(); 2]);
    }

    #[tokio::test]
    async fn slow_reader_receives_the_number_missed_last() {
        let journal = Journal::new(1);
        let records = journal.subscribe();
        for _ in 0..5000 {
            journal.record(record());
        }
        let events = text(stream(records, CancellationToken::new(), ())).await;
        assert_eq!(events, ": endings from now on\n\nevent: lagged\ndata: {\"missed\":904}\n\n");
    }

    #[tokio::test]
    async fn stop_ends_the_stream_after_the_last_record() {
        let journal = Journal::new(1);
        let stop = CancellationToken::new();
        let response = stream(journal.subscribe(), stop.clone(), ()).into_response();
        journal.record(record());
        let mut body = response.into_body();
        let first = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), ": endings from now on\n\n");
        stop.cancel();
        assert_eq!(to_bytes(body, usize::MAX).await.unwrap(), format!("data: {}\n\n", json(&record())));
    }
}
