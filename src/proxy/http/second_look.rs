//! A second look at the heads of a client's requests, for what the HTTP parser does not tell.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The bytes that were read last from a client, and are not yet known to belong to a request that was looked at.
///
/// hyper tells nothing of a Content-Length that stood beside a Transfer-Encoding: it follows the latter, as RFC 9112,
/// 6.3 allows. That shape is how requests are smuggled past a server that decides otherwise, so it is refused, and for
/// that the head's own bytes must be seen.
#[derive(Debug, Clone)]
pub(crate) struct Heads {
    bytes: Arc<Mutex<Vec<u8>>>,
    limit: usize,
}

impl Heads {
    /// `limit` is the size of the largest head in bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { bytes: Arc::default(), limit }
    }

    /// Whether the head of a request that was just parsed has both a Content-Length and a Transfer-Encoding. Forgets what
    /// came before it.
    ///
    /// Where its head begins is not known: a body before it may hold what reads like one. So every head with its method
    /// is looked at, and where none is found the answer is yes.
    pub(crate) fn have_two_lengths(&self, method: &str) -> bool {
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

    /// The head of a GET request was parsed that needs no second look: forgets it, and what came before it.
    pub(crate) fn forget_get(&self) {
        self.have_two_lengths("GET");
    }

    /// The head of the GET request that was parsed last, which has so many header lines: it ends so many bytes before the
    /// end of what was read. Nothing where there is none that fits.
    ///
    /// Where it begins, only the number of its lines tells: what stands before it may look like the beginning of a head,
    /// and what stands in it too. Of two equal lengths the parser tells one, so with them there is none that fits.
    pub(crate) fn last(&self, header_lines: usize, unread: usize) -> Option<Vec<u8>> {
        let bytes = self.lock();
        let head = &bytes[..bytes.len().checked_sub(unread)?];
        let lines = |bytes| <[u8]>::split_inclusive(bytes, |byte| *byte == b'\n');
        // The header lines and the empty one.
        let length: usize = lines(head).rev().take(header_lines + 1).map(<[u8]>::len).sum();
        let (before, fields) = head.split_at(head.len() - length);
        if lines(fields).filter(|line| has_name(line, b"content-length")).count() > 1 {
            return None;
        }
        let first_line = lines(before).next_back()?;
        let mut words = first_line.trim_ascii_end().rsplitn(3, |byte| *byte == b' ');
        let (_version, target, method) = (words.next()?, words.next()?, words.next()?);
        // A body that came before may end on this line.
        let is_get = method.ends_with(b"GET");
        let start = method.len().checked_sub(b"GET".len()).filter(|_| is_get && !target.is_empty())?;
        Some([&first_line[start..], fields].concat())
    }

    /// Whether the bytes of a head that no parser accepted ask for a WebSocket.
    pub(crate) fn mention_websocket(&self) -> bool {
        let bytes = self.lock();
        bytes.windows(b"websocket".len()).any(|window| window.eq_ignore_ascii_case(b"websocket"))
    }

    /// Takes note of bytes that the parser is about to get.
    pub(crate) fn push(&self, read: &[u8]) {
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
        self.content_length |= has_name(line, b"content-length");
        self.transfer_encoding |= has_name(line, b"transfer-encoding");
        self.content_length && self.transfer_encoding
    }
}

fn has_name(line: &[u8], name: &[u8]) -> bool {
    line.split(|byte| *byte == b':').next().is_some_and(|found| found.eq_ignore_ascii_case(name))
}

fn is_request_line(line: &[u8], method: &str) -> bool {
    let target = line.strip_prefix(method.as_bytes()).and_then(|rest| rest.strip_prefix(b" "));
    target.is_some_and(|rest| rest.ends_with(b" HTTP/1.1") || rest.ends_with(b" HTTP/1.0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";

    fn last(read: &str, header_lines: usize, unread: usize) -> Option<String> {
        let heads = Heads::new(1024);
        heads.push(read.as_bytes());
        heads.last(header_lines, unread).map(|head| String::from_utf8(head).expect("these tests use text"))
    }

    #[test]
    fn the_last_head_is_found_whatever_stands_around_it() {
        for before in ["", "a=b&c=d", "a\r\n\r\nb ", "GET /other HTTP/1.1\r\nHost: b\r\n\r\n", "X: GET "] {
            for behind in ["", "\u{1}\u{2}\r\n\r\n", HEAD] {
                assert_eq!(last(&format!("{before}{HEAD}{behind}"), 2, behind.len()).as_deref(), Some(HEAD));
            }
        }
    }

    /// A request line inside a header would cut off the headers before it, which a load balancer may have put there.
    #[test]
    fn a_header_that_looks_like_the_first_line_is_not_taken_for_it() {
        let head = "GET /chat HTTP/1.1\r\nX-Role: guest\r\nX: GET /chat HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(last(head, 3, 0).as_deref(), Some(head));
    }

    #[test]
    fn what_does_not_fit_is_none() {
        assert_eq!(last(HEAD, 3, 0), None, "fewer lines than that");
        assert_eq!(last(HEAD, 1, 0), None, "its first line is another");
        assert_eq!(last(HEAD, 2, HEAD.len() + 1), None, "more unread than was read");
        let equal_lengths =
            "GET /chat HTTP/1.1\r\nX: GET /admin HTTP/1.1\r\nContent-Length: 0\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(last(equal_lengths, 2, 0), None, "the parser told one line less");
    }
}
