//! The last endings, and the new ones as they happen.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    Stream,
    stream::{self, StreamExt},
};
use tokio::{
    sync::{
        OwnedSemaphorePermit,
        broadcast::{Receiver, error::RecvError},
    },
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::MOST_CLOSES;
use crate::journal::Record;

/// A stream in which nothing happens says so this often, so that a reader who has vanished is noticed.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The `limit` of a query; without one, all.
pub(super) fn limit(query: Option<&str>) -> Result<usize, String> {
    let mut pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let Some((_, limit)) = pairs.find(|(name, _)| decoded(name) == "limit") else {
        return Ok(MOST_CLOSES);
    };
    let limit = decoded(limit);
    let is_number = !limit.is_empty() && limit.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return Err(format!("limit is a whole number; what is above {MOST_CLOSES} is taken for {MOST_CLOSES}"));
    }
    // A number too large for any integer type is only one that is too large.
    Ok(limit.parse().unwrap_or(MOST_CLOSES).min(MOST_CLOSES))
}

/// Text of a query, percent-decoded as far as it decodes to ASCII (RFC 3986, 2.1): no name or number here is anything else.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(u8::is_ascii);
        let (character, rest) = byte.map_or(('%', part), |byte| (byte.into(), &part[2..]));
        decoded.push(character);
        decoded.push_str(rest);
    }
    decoded
}

/// The records as a JSON array, written one by one: slow readers share the records and hold no copies of their own.
pub(super) fn array(records: Vec<Arc<Record>>) -> impl Stream<Item = Bytes> + Send {
    let elements = records.into_iter().enumerate().map(|(index, record)| {
        let separator = if index == 0 { "" } else { ",\n" };
        Bytes::from(format!("{separator}{}", json(&record)))
    });
    let opening = std::iter::once(Bytes::from_static(b"["));
    stream::iter(opening.chain(elements).chain([Bytes::from_static(b"]\n")]))
}

/// The records that come as server-sent events, until the reader is too slow, or all are told after `stop`.
pub(super) fn events(
    records: Receiver<Arc<Record>>,
    stop: CancellationToken,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Bytes> + Send {
    let greeting = stream::iter([Bytes::from_static(b": endings from now on\n\n")]);
    let events = stream::unfold(Some((records, place)), move |state| {
        let stop = stop.clone();
        async move {
            let (mut records, place) = state?;
            let event = next_event(&mut records, &stop).await?;
            Some(match event {
                Event::Lagged(missed) => (lagged(missed), None),
                Event::Closed(record) => (format!("data: {}\n\n", json(&record)).into(), Some((records, place))),
                Event::Nothing => (Bytes::from_static(b": no ending\n\n"), Some((records, place))),
            })
        }
    });
    greeting.chain(events)
}

enum Event {
    Closed(Arc<Record>),
    /// The reader was so slow that it has lost this many records.
    Lagged(u64),
    Nothing,
}

/// What is to be told next; `None` where nothing can come any more.
async fn next_event(records: &mut Receiver<Arc<Record>>, stop: &CancellationToken) -> Option<Event> {
    tokio::select! {
        biased;
        received = records.recv() => match received {
            Ok(record) => Some(Event::Closed(record)),
            Err(RecvError::Lagged(missed)) => Some(Event::Lagged(missed)),
            Err(RecvError::Closed) => None,
        },
        () = stop.cancelled() => None,
        () = sleep(KEEPALIVE) => Some(Event::Nothing),
    }
}

fn lagged(missed: u64) -> Bytes {
    format!("event: lagged\ndata: {{\"missed\":{missed}}}\n\n").into()
}

fn json(record: &Record) -> String {
    serde_json::to_string(record).expect("every key is a string")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Journal, record};
    use tokio::sync::Semaphore;

    fn place() -> OwnedSemaphorePermit {
        Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap()
    }

    async fn text(chunks: impl Stream<Item = Bytes>) -> String {
        String::from_utf8(chunks.collect::<Vec<_>>().await.concat()).unwrap()
    }

    #[test]
    fn a_limit_is_a_number_up_to_a_thousand() {
        let cases = [
            (None, Ok(1000)),
            (Some(""), Ok(1000)),
            (Some("x=1&limit=7"), Ok(7)),
            (Some("limit=0"), Ok(0)),
            (Some("limit=1000"), Ok(1000)),
            (Some("limit=1001"), Ok(1000)),
            (Some("limit=99999999999999999999999999"), Ok(1000)),
            (Some("limit=%31"), Ok(1)),
            (Some("x=%&%6cimi%74=1%30"), Ok(10)),
        ];
        for (query, expected) in cases {
            assert_eq!(limit(query), expected, "{query:?}");
        }
        let told = "limit is a whole number; what is above 1000 is taken for 1000";
        for query in [
            "limit=",
            "limit=-1",
            "limit=+1",
            "limit=1.5",
            "limit=ten",
            "limit=1%",
            "limit=1%3",
            "limit=%+1",
            "limit=%é9",
        ] {
            assert_eq!(limit(Some(query)), Err(told.to_owned()), "{query}");
        }
    }

    #[tokio::test]
    async fn an_array_has_commas_between_its_elements() {
        assert_eq!(text(array(Vec::new())).await, "[]\n");
        let records = vec![Arc::new(record()), Arc::new(record())];
        let parsed = serde_json::from_str::<Vec<serde_json::Value>>(&text(array(records)).await).unwrap();
        assert_eq!(parsed, vec![serde_json::to_value(record()).unwrap(); 2]);
    }

    #[tokio::test]
    async fn a_reader_that_is_too_slow_is_told_so_last() {
        let journal = Journal::new(1);
        let records = journal.subscribe();
        for _ in 0..5000 {
            journal.record(record());
        }
        let told = text(events(records, CancellationToken::new(), place())).await;
        assert_eq!(told, ": endings from now on\n\nevent: lagged\ndata: {\"missed\":904}\n\n");
    }

    #[tokio::test]
    async fn a_stream_ends_when_the_admin_stops_and_all_is_told() {
        let journal = Journal::new(1);
        let stop = CancellationToken::new();
        let mut events = Box::pin(events(journal.subscribe(), stop.clone(), place()));
        journal.record(record());
        assert_eq!(events.next().await.unwrap(), ": endings from now on\n\n");
        stop.cancel();
        assert_eq!(events.next().await.unwrap(), format!("data: {}\n\n", json(&record())));
        assert_eq!(events.next().await, None);
    }
}
