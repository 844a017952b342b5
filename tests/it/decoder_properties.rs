//! Properties of the frame decoder and of `Conformance` for any bytes in any pieces.

use std::io::Cursor;

use closewatch::websocket::{
    Endpoint,
    conformance::{CompletedMessage, Conformance, Extensions, Violations, WholeMessages},
    decoder::{FrameDecoder, Item},
    frame::{FrameHeader, MessageType, Opcode, encode, unmask},
};
use proptest::{collection::vec, prelude::*, sample::select};
use tokio_tungstenite::tungstenite::protocol::frame::{FrameHeader as OracleHeader, coding::OpCode};

/// Everything that a decoder returns for a stream. The pieces of a control payload are joined.
#[derive(Debug, PartialEq, Eq)]
struct Reading {
    headers: Vec<FrameHeader>,
    /// Of each Close, Ping and Pong with a payload: the index of its header, the bytes, whether they are complete.
    control_payloads: Vec<(usize, Vec<u8>, bool)>,
    partial_header: Vec<u8>,
    payload_remaining: u64,
    at_boundary: bool,
    lost: bool,
}

impl Reading {
    fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut decoder = FrameDecoder::new();
        let mut headers = Vec::new();
        let mut control_payloads: Vec<(usize, Vec<u8>, bool)> = Vec::new();
        for mut input in pieces {
            while let Some(item) = decoder.decode(&mut input) {
                match item {
                    Item::Header(header) => headers.push(header),
                    Item::ControlPayload { header, offset, bytes, last } => {
                        assert!(!bytes.is_empty());
                        assert_eq!(headers.last(), Some(&header));
                        if offset == 0 {
                            control_payloads.push((headers.len(), Vec::new(), false));
                        }
                        let (_, payload, complete) = control_payloads.last_mut().expect("a piece at 0 comes first");
                        assert_eq!((payload.len(), *complete), (usize::from(offset), false));
                        payload.extend(bytes);
                        *complete = last;
                    }
                }
            }
            assert!(input.is_empty(), "without an item all input is consumed");
        }
        Self {
            headers,
            control_payloads,
            partial_header: decoder.partial_header().to_vec(),
            payload_remaining: decoder.payload_remaining(),
            at_boundary: decoder.at_boundary(),
            lost: decoder.is_lost(),
        }
    }
}

/// A frame that a test writes, legal or not.
#[derive(Debug, Clone)]
struct Written {
    first_byte: u8,
    mask: Option<[u8; 4]>,
    /// How many forms longer than necessary its length is written.
    longer_form: u8,
    payload: Vec<u8>,
}

impl Written {
    fn write(&self, out: &mut Vec<u8>) {
        let mask_bit = if self.mask.is_some() { 0x80 } else { 0 };
        let length = self.payload.len();
        let shortest = u8::from(length >= 126);
        out.push(self.first_byte);
        match (shortest + self.longer_form, u8::try_from(length), u16::try_from(length)) {
            (0, Ok(length), _) => out.push(mask_bit + length),
            (1, _, Ok(length)) => {
                out.push(mask_bit + 126);
                out.extend(length.to_be_bytes());
            }
            _ => {
                out.push(mask_bit + 127);
                out.extend((length as u64).to_be_bytes());
            }
        }
        out.extend(self.mask.into_iter().flatten());
        out.extend(&self.payload);
    }

    fn has_payload_items(&self) -> bool {
        matches!(self.first_byte % 16, 8..=10) && matches!(self.payload.len(), 1..=125)
    }
}

fn any_mask() -> impl Strategy<Value = Option<[u8; 4]>> {
    prop_oneof![Just(None), any::<[u8; 4]>().prop_map(Some)]
}

/// Mostly small text and binary messages, some of them repeated, and sometimes any other frame.
fn any_frames() -> impl Strategy<Value = Vec<Written>> {
    let first_byte = prop_oneof![4 => select(vec![0x81, 0x82, 0xc1]), 1 => any::<u8>()];
    let length = prop_oneof![8 => 0..8_usize, 2 => 120..130_usize, 1 => 0..700_usize];
    let longer_form = prop_oneof![9 => Just(0), 1 => 0..3_u8];
    let frame = (first_byte, any_mask(), longer_form, length.prop_flat_map(|length| vec(any::<u8>(), length)))
        .prop_map(|(first_byte, mask, longer_form, payload)| Written { first_byte, mask, longer_form, payload });
    let times = prop_oneof![2 => Just(1), 1 => 1..9_usize];
    vec((frame, times), 0..12)
        .prop_map(|runs| runs.into_iter().flat_map(|(frame, times)| std::iter::repeat_n(frame, times)).collect())
}

fn written(frames: &[Written]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        frame.write(&mut bytes);
    }
    bytes
}

/// Frames that are cut off anywhere.
fn cut_frames() -> impl Strategy<Value = Vec<u8>> {
    (any_frames(), 0..20_usize).prop_map(|(frames, cut)| {
        let mut bytes = written(&frames);
        bytes.truncate(bytes.len().saturating_sub(cut));
        bytes
    })
}

/// Frames, and sometimes other bytes.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let noise = || vec(any::<u8>(), 0..200);
    let frames_then_noise = (cut_frames(), noise()).prop_map(|(frames, noise)| [frames, noise].concat());
    prop_oneof![4 => cut_frames(), 1 => noise(), 1 => frames_then_noise]
}

/// The lengths of pieces, which repeat. Many have one byte.
fn any_split() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![Just(1), 1..5_usize, 1..300_usize], 1..8)
}

fn pieces<'a>(mut bytes: &'a [u8], split: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for &length in split.iter().cycle() {
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
        if bytes.is_empty() {
            break;
        }
    }
    pieces
}

/// The results of `Conformance` for a stream.
#[derive(Debug, PartialEq, Eq)]
struct Judgement {
    breaches: Violations,
    /// The number of violations reported as new.
    new: usize,
    /// The kinds and sizes of all messages.
    messages: Vec<(MessageType, u64)>,
    message_so_far: u64,
}

impl Judgement {
    /// Judges each frame alone. With `takes_whole`, judges series of whole messages together if possible.
    fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, mut judge: Conformance, takes_whole: bool) -> Self {
        let mut decoder = FrameDecoder::new();
        let (mut new, mut messages) = (0, Vec::new());
        for mut input in pieces {
            loop {
                decoder.skip_payload(&mut input);
                while takes_whole
                    && decoder.at_boundary()
                    && let Some((WholeMessages { kind, payload_len, count }, behind)) =
                        judge.whole_messages(input, u64::MAX)
                {
                    messages.extend((0..count).map(|_| (kind, payload_len)));
                    input = behind;
                }
                match decoder.decode(&mut input) {
                    Some(Item::Header(header)) => {
                        let verdict = judge.frame(&header);
                        new += verdict.new.iter().count();
                        if let Some(CompletedMessage { kind, payload_len }) = verdict.message {
                            messages.push((kind, payload_len));
                        }
                    }
                    Some(Item::ControlPayload { .. }) => {}
                    None => break,
                }
            }
        }
        Self { breaches: judge.seen(), new, messages, message_so_far: judge.message_so_far() }
    }
}

fn oracle_opcode(opcode: OpCode) -> Opcode {
    match u8::from(opcode) {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        _ => Opcode::Reserved,
    }
}

proptest! {
    #[test]
    fn split_input_decodes_the_same(stream in any_stream(), split in any_split()) {
        let whole = Reading::of([&stream[..]]);
        prop_assert_eq!(&whole, &Reading::of(pieces(&stream, &split)));
        prop_assert_eq!(&whole, &Reading::of(stream.chunks(1)));
    }

    #[test]
    fn decoder_reads_frames_as_written(frames in any_frames(), split in any_split()) {
        let stream = written(&frames);
        let reading = Reading::of(pieces(&stream, &split));
        prop_assert!(reading.at_boundary && !reading.lost);
        prop_assert_eq!(reading.headers.len(), frames.len());
        for (header, frame) in reading.headers.iter().zip(&frames) {
            let first_byte = u8::from(header.fin) << 7 | header.rsv << 4;
            prop_assert_eq!(first_byte, frame.first_byte & 0xf0);
            prop_assert_eq!(header.control, frame.first_byte & 8 != 0);
            prop_assert_eq!(header.mask, frame.mask);
            prop_assert_eq!(header.payload_len, frame.payload.len() as u64);
            prop_assert_eq!(header.minimal, frame.longer_form == 0);
        }
        let payloads: Vec<_> = (1..).zip(&frames)
            .filter(|(_, frame)| frame.has_payload_items())
            .map(|(number, frame)| (number, frame.payload.clone(), true))
            .collect();
        prop_assert_eq!(reading.control_payloads, payloads);
    }

    #[test]
    fn headers_and_payloads_add_up_to_the_input(stream in any_stream(), split in any_split()) {
        let reading = Reading::of(pieces(&stream, &split));
        prop_assume!(!reading.lost);
        let announced: u128 = reading.headers.iter()
            .map(|header| u128::from(header.header_len) + u128::from(header.payload_len))
            .sum();
        let read = announced - u128::from(reading.payload_remaining) + reading.partial_header.len() as u128;
        prop_assert_eq!(read, stream.len() as u128);
        let inside = reading.payload_remaining > 0 || !reading.partial_header.is_empty();
        prop_assert_eq!(reading.at_boundary, !inside);
    }

    #[test]
    fn tungstenite_reads_the_same_header(
        first_bytes in any::<[u8; 2]>(),
        length in prop_oneof![Just(0), 120..130_u64, 65530..65540_u64, any::<u64>()],
        tail in vec(any::<u8>(), 0..16),
    ) {
        let length = match first_bytes[1] & 0x7f {
            126 => length.to_be_bytes()[6..].to_vec(),
            127 => length.to_be_bytes().to_vec(),
            _ => Vec::new(),
        };
        let bytes = [&first_bytes[..], &length, &tail].concat();
        let mut input = &bytes[..];
        let item = FrameDecoder::new().decode(&mut input);
        let mut cursor = Cursor::new(&bytes);
        match OracleHeader::parse(&mut cursor) {
            Ok(Some((oracle, payload_len))) => {
                let Some(Item::Header(header)) = item else { panic!("no header, but {item:?}") };
                let rsv = u8::from(oracle.rsv1) << 2 | u8::from(oracle.rsv2) << 1 | u8::from(oracle.rsv3);
                prop_assert_eq!((header.fin, header.rsv), (oracle.is_final, rsv));
                prop_assert_eq!(header.opcode, oracle_opcode(oracle.opcode));
                prop_assert_eq!((header.mask, header.payload_len), (oracle.mask, payload_len));
                prop_assert_eq!(u64::from(header.header_len), cursor.position());
                prop_assert_eq!((bytes.len() - input.len()) as u64, cursor.position());
            }
            Ok(None) => prop_assert_eq!(item, None),
            Err(_) => {
                let reserved = matches!(item, Some(Item::Header(header)) if header.opcode == Opcode::Reserved);
                prop_assert!(reserved);
            }
        }
    }

    #[test]
    fn whole_messages_have_the_violations_of_their_frames(
        stream in any_stream(),
        split in any_split(),
        sender in select(&Endpoint::BOTH),
        extensions in select(vec![Extensions::None, Extensions::PermessageDeflate, Extensions::Other]),
    ) {
        let judge = Conformance::new(sender, extensions);
        let singly = Judgement::of([&stream[..]], judge.clone(), false);
        prop_assert_eq!(singly.new, singly.breaches.iter().count());
        prop_assert_eq!(&singly, &Judgement::of([&stream[..]], judge.clone(), true));
        prop_assert_eq!(&singly, &Judgement::of(pieces(&stream, &split), judge, true));
    }

    #[test]
    fn close_payload_gives_a_status_or_a_violation(
        first in any::<[u8; 2]>(),
        payload in vec(any::<u8>(), 0..126),
        sender in select(&Endpoint::BOTH),
    ) {
        let bytes = [&first[..], &[0; 12]].concat();
        let Some(Item::Header(header)) = FrameDecoder::new().decode(&mut &bytes[..]) else {
            panic!("14 bytes hold any header")
        };
        let mut judge = Conformance::new(sender, Extensions::None);
        judge.frame(&header);
        let clean = judge.seen().is_empty();
        let verdict = judge.close(&header, &payload);
        prop_assert!(verdict.taken.is_some() || !clean);
        prop_assert_eq!(judge.close(&header, &payload).new, Violations::NONE);
    }

    #[test]
    fn encoded_frames_are_whole_and_conform(mask in any::<Option<[u8; 4]>>(), payload in vec(any::<u8>(), 0..300)) {
        let mut bytes = Vec::new();
        encode(true, Opcode::Binary, mask, &payload, &mut bytes);
        let reading = Reading::of([&bytes[..]]);
        prop_assert!(reading.at_boundary);
        let sender = if mask.is_some() { Endpoint::Client } else { Endpoint::Server };
        let verdict = Conformance::new(sender, Extensions::None).frame(&reading.headers[0]);
        prop_assert!(verdict.new.is_empty());
        let mut sent = bytes.split_off(usize::from(reading.headers[0].header_len));
        unmask(&mut sent, mask.unwrap_or_default(), 0);
        prop_assert_eq!(sent, payload);
    }
}
