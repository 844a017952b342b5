//! WebSocket frames by hand (RFC 6455, 5.2): headers, masks, and the messages of a session.

/// Opcode byte of a whole binary message.
const BINARY: u8 = 0x82;
/// Opcode byte of a Close frame.
const CLOSE: u8 = 0x88;
const MASKED: u8 = 0x80;
/// Length values for a length in the next two or eight bytes.
const TWO_BYTES: u8 = 126;
const EIGHT_BYTES: u8 = 127;
/// One key for every frame. A proxy must pass any key on unchanged.
const KEY: [u8; 4] = [0x9d, 0x1f, 0x62, 0xe4];

/// Bytes at the start of each payload that make it unique.
const STAMP: usize = 8;

/// The messages of a session: binary, of one size, with a number in flight at once.
///
/// Both directions of a session are known streams: the position determines the bytes. A reply is checked without
/// parsing, and a half-sent frame needs no storage.
pub(crate) struct Shape {
    pub(crate) size: usize,
    pub(crate) in_flight: u64,
    pub(crate) request: Template,
    pub(crate) reply: Template,
}

impl Shape {
    pub(crate) fn new(size: usize, in_flight: u64) -> Self {
        let payload = noise(size.max(STAMP));
        let mut masked = payload.clone();
        mask(&mut masked, KEY);
        Self {
            size: payload.len(),
            in_flight,
            request: Template::new(&masked, Some(KEY)),
            reply: Template::new(&payload, None),
        }
    }
}

/// A complete frame whose payload begins with a stamp, filled in on use.
pub(crate) struct Template {
    bytes: Vec<u8>,
    stamp_at: usize,
    key: u64,
}

impl Template {
    fn new(payload: &[u8], key: Option<[u8; 4]>) -> Self {
        let [a, b, c, d] = key.unwrap_or_default();
        let mut bytes = Vec::new();
        write_header(&mut bytes, BINARY, payload.len(), key);
        let stamp_at = bytes.len();
        bytes.extend_from_slice(payload);
        Self { bytes, stamp_at, key: u64::from_be_bytes([a, b, c, d, a, b, c, d]) }
    }

    /// Length of the frame, header included.
    pub(crate) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The frame with `stamp`.
    pub(crate) fn stamped(&mut self, stamp: u64) -> &[u8] {
        let stamp = (stamp ^ self.key).to_be_bytes();
        self.bytes[self.stamp_at..self.stamp_at + STAMP].copy_from_slice(&stamp);
        &self.bytes
    }
}

/// Length of a Close frame with a code and no reason, as a client sends it.
pub(crate) const CLOSE_REQUEST_LENGTH: u64 = 8;
/// Length of the echo server's answer.
pub(crate) const CLOSE_REPLY_LENGTH: u64 = 4;

/// The Close frame with `code` of a client.
pub(crate) fn close_request(code: u16) -> [u8; 8] {
    let [high, low] = code.to_be_bytes();
    let [a, b, c, d] = KEY;
    [CLOSE, MASKED | 2, a, b, c, d, high ^ a, low ^ b]
}

/// The Close frame with `code` of the echo server.
pub(crate) fn close_reply(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [CLOSE, 2, high, low]
}

/// Whether this is the first byte of a Close frame.
pub(crate) fn is_close(first: u8) -> bool {
    first == CLOSE
}

/// Writes a frame's header, with the shortest form of its length.
pub(crate) fn write_header(output: &mut Vec<u8>, first: u8, length: usize, key: Option<[u8; 4]>) {
    let masked = if key.is_some() { MASKED } else { 0 };
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..=125), _) => output.extend([first, masked | short]),
        (_, Ok(medium)) => {
            output.extend([first, masked | TWO_BYTES]);
            output.extend(medium.to_be_bytes());
        }
        _ => {
            output.extend([first, masked | EIGHT_BYTES]);
            output.extend((length as u64).to_be_bytes());
        }
    }
    output.extend(key.iter().flatten());
}

/// The header of a masked frame.
pub(crate) struct Header {
    pub(crate) first: u8,
    pub(crate) payload_length: usize,
    pub(crate) key: [u8; 4],
    /// The length of the header.
    pub(crate) length: usize,
}

/// Reads the header of a client's frame from the start of `bytes`; `None` if it is incomplete.
///
/// # Errors
/// The frame is not masked.
pub(crate) fn read_header(bytes: &[u8]) -> Result<Option<Header>, &'static str> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if second & MASKED == 0 {
        return Err("a client's frame without a mask");
    }
    let extended = match second & !MASKED {
        TWO_BYTES => 2,
        EIGHT_BYTES => 8,
        _ => 0,
    };
    let Some((length_bytes, rest)) = rest.split_at_checked(extended) else { return Ok(None) };
    let Some(&key) = rest.first_chunk::<4>() else { return Ok(None) };
    let payload_length = match length_bytes {
        [] => usize::from(second & !MASKED),
        _ => length_bytes.iter().fold(0, |length, &byte| (length << 8) | usize::from(byte)),
    };
    Ok(Some(Header { first: *first, payload_length, key, length: 2 + extended + 4 }))
}

/// Applies or removes a mask. Its first byte applies to the first of `bytes`.
pub(crate) fn mask(bytes: &mut [u8], [a, b, c, d]: [u8; 4]) {
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        let mut value = [0; 8];
        value.copy_from_slice(word);
        word.copy_from_slice(&(u64::from_ne_bytes(value) ^ wide).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip([a, b, c, d].into_iter().cycle()) {
        *byte ^= key;
    }
}

/// Bytes without a period (xorshift64), so that a lost or repeated part is visible.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_ne_bytes()
    });
    words.flatten().take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(length: usize, key: Option<[u8; 4]>) -> Vec<u8> {
        let mut header = Vec::new();
        write_header(&mut header, BINARY, length, key);
        header
    }

    #[test]
    fn lengths_take_their_shortest_form() {
        assert_eq!(header(125, None), [0x82, 125]);
        assert_eq!(header(126, None), [0x82, 126, 0, 126]);
        assert_eq!(header(65536, None), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_header_is_read_as_it_was_written_and_not_before_it_is_whole() {
        for length in [0, 125, 126, 65535, 65536] {
            let written = header(length, Some([1, 2, 3, 4]));
            let read = read_header(&written).unwrap().unwrap();
            assert_eq!((read.first, read.payload_length, read.key), (BINARY, length, [1, 2, 3, 4]));
            assert_eq!(read.length, written.len());
            assert!(read_header(&written[..written.len() - 1]).unwrap().is_none());
        }
    }

    #[test]
    fn an_unmasked_request_is_refused() {
        assert!(read_header(&[0x82, 0]).is_err());
    }

    #[test]
    fn request_and_reply_carry_the_same_payload() {
        let mut shape = Shape::new(64, 1);
        let mut request = shape.request.stamped(7)[6..].to_vec();
        mask(&mut request, KEY);
        assert_eq!(request, shape.reply.stamped(7)[2..]);
        assert_ne!(request, shape.reply.stamped(8)[2..]);
    }
}
