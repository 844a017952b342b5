//! A second look at the heads of a client's requests, for what the HTTP parser does not tell.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The bytes that were read last from a client, and are not yet known to belong to a request that was looked at.
///
/// hyper tells nothing of a Content-Length that stood beside a Transfer-Encoding: it follows the latter, as RFC 9112,
/// 6.3 allows. That shape is how requests are smuggled past a server that decides otherwise, so it is refused, and for
/// that the head's own bytes must be seen.
#[derive(Debug, Clone)]
pub(super) struct Heads {
    bytes: Arc<Mutex<Vec<u8>>>,
    limit: usize,
}

impl Heads {
    /// `limit` is the size of the largest head in bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: Arc::default(), limit }
    }

    /// Whether the head of a request that was just parsed has both a Content-Length and a Transfer-Encoding. Forgets what
    /// came before it.
    ///
    /// Where its head begins is not known: a body before it may hold what reads like one. So every head with its method
    /// is looked at, and where none is found the answer is yes.
    pub(super) fn have_two_lengths(&self, method: &str) -> bool {
        let mut bytes = self.lock();
        let mut head = None;
        let mut first_end = None;
        let mut two_lengths = false;
        let mut position = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            position += line.len();
            let line = line.trim_ascii_end();
            if is_request_line(line, method) {
                head = Some(Lengths::default());
            } else if line.is_empty() && head.take().is_some() {
                first_end.get_or_insert(position);
            } else if let Some(lengths) = &mut head {
                two_lengths |= lengths.add(line);
            }
        }
        let Some(end) = first_end else { return true };
        bytes.drain(..end);
        two_lengths
    }

    /// Whether the bytes of a head that no parser accepted ask for a WebSocket.
    pub(super) fn mention_websocket(&self) -> bool {
        let bytes = self.lock();
        bytes.windows(b"websocket".len()).any(|window| window.eq_ignore_ascii_case(b"websocket"))
    }

    /// Takes note of bytes that the parser is about to get.
    pub(super) fn push(&self, read: &[u8]) {
        let mut bytes = self.lock();
        bytes.extend_from_slice(read);
        // A body is no head: of what is not a request's, only as much stays as hyper may have read and not parsed yet.
        let length = bytes.len();
        if length > 4 * self.limit {
            bytes.drain(..length - 2 * self.limit);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which of the two headers that tell where a body ends were seen in a head.
#[derive(Default)]
struct Lengths {
    content_length: bool,
    transfer_encoding: bool,
}

impl Lengths {
    /// Looks at one more line, and says whether both were seen.
    fn add(&mut self, line: &[u8]) -> bool {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        self.content_length |= name.eq_ignore_ascii_case(b"content-length");
        self.transfer_encoding |= name.eq_ignore_ascii_case(b"transfer-encoding");
        self.content_length && self.transfer_encoding
    }
}

fn is_request_line(line: &[u8], method: &str) -> bool {
    let target = line.strip_prefix(method.as_bytes()).and_then(|rest| rest.strip_prefix(b" "));
    target.is_some_and(|rest| rest.ends_with(b" HTTP/1.1") || rest.ends_with(b" HTTP/1.0"))
}
