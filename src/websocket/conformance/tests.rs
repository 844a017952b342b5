//! Each rule, with frames that keep it and frames that break it.

use super::super::decoder::{FrameDecoder, Item};
use super::Violation::{
    CloseCode as IllegalCode, CloseReasonUtf8, ControlFragmented, ControlTooLong, DataAfterClose, ExpectedContinuation,
    LengthEncoding, Masked, ReservedBits, ReservedOpcode, UnexpectedContinuation, Unmasked,
};
use super::*;

/// The headers of successive frames.
type Headers<'a> = &'a [&'a [u8]];

/// The header at the start of the bytes.
fn header(bytes: &[u8]) -> FrameHeader {
    match FrameDecoder::new().decode(&mut &bytes[..]) {
        Some(Item::Header(header)) => header,
        other => panic!("{bytes:x?} is no header: {other:?}"),
    }
}

/// The new violations of each frame of a server with these headers.
fn violations(extensions: Extensions, headers: Headers) -> Vec<Vec<Violation>> {
    let mut server = Conformance::new(Endpoint::Server, extensions);
    headers.iter().map(|bytes| server.frame(&header(bytes)).new.iter().collect()).collect()
}

fn message(kind: MessageType, payload_len: u64) -> CompletedMessage {
    CompletedMessage { kind, payload_len }
}

#[test]
fn violation_of_a_header_is_reported_once() {
    let long_ping = [0x89, 126, 0, 126];
    let top_bit = [0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0];
    let cases: [(Headers, &[&[Violation]]); 16] = [
        (&[&[0x81, 0], &[0x82, 125], &[0x88, 0], &[0x89, 125], &[0x8a, 0]], &[&[], &[], &[], &[], &[]]),
        (&[&[0x81, 0x80, 1, 2, 3, 4], &[0x81, 0x80, 1, 2, 3, 4], &[0x81, 0]], &[&[Masked], &[], &[]]),
        (&[&[0x83, 0], &[0x87, 0], &[0x8b, 0], &[0x8f, 0]], &[&[ReservedOpcode], &[], &[], &[]]),
        (&[&[0x8f, 0]], &[&[ReservedOpcode]]),
        (&[&[0x91, 0]], &[&[ReservedBits]]),
        (&[&long_ping, &long_ping], &[&[ControlTooLong], &[]]),
        (&[&[0x8b, 126, 0, 126]], &[&[ReservedOpcode, ControlTooLong]]),
        (&[&[0x09, 0], &[0x08, 0]], &[&[ControlFragmented], &[]]),
        (&[&[0x80, 0], &[0x00, 0], &[0x80, 0]], &[&[UnexpectedContinuation], &[], &[]]),
        (&[&[0x01, 0], &[0x82, 0], &[0x80, 0]], &[&[], &[ExpectedContinuation], &[UnexpectedContinuation]]),
        (&[&[0x01, 0], &[0x02, 0], &[0x80, 0]], &[&[], &[ExpectedContinuation], &[]]),
        (&[&[0x81, 126, 0, 125], &[0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]], &[&[LengthEncoding], &[]]),
        (&[&[0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]], &[&[LengthEncoding]]),
        (&[&top_bit], &[&[LengthEncoding]]),
        (&[&[0x88, 0], &[0x8a, 0], &[0x83, 0], &[0x81, 0]], &[&[], &[], &[ReservedOpcode], &[DataAfterClose]]),
        (&[&[0x01, 0], &[0x88, 0], &[0x00, 0], &[0x80, 0]], &[&[], &[], &[DataAfterClose], &[]]),
    ];
    for (headers, expected) in cases {
        assert_eq!(violations(Extensions::None, headers), expected, "{headers:x?}");
    }
}

#[test]
fn client_must_mask() {
    let mut client = Conformance::new(Endpoint::Client, Extensions::None);
    assert!(client.frame(&header(&[0x81, 0x80, 1, 2, 3, 4])).new.is_empty());
    assert_eq!(client.frame(&header(&[0x81, 0])).new, Violations::from_iter([Unmasked]));
    assert_eq!(client.frame(&header(&[0x89, 0])).new, Violations::NONE);
    assert_eq!(client.seen(), Violations::from_iter([Unmasked]));
}

#[test]
fn extensions_allow_rsv_bits() {
    let cases: [(Extensions, Headers, bool); 16] = [
        (Extensions::None, &[&[0xc1, 0]], false),
        (Extensions::PermessageDeflate, &[&[0xc1, 0]], true),
        (Extensions::PermessageDeflate, &[&[0x42, 0], &[0x80, 0]], true),
        (Extensions::PermessageDeflate, &[&[0x41, 0], &[0xc0, 0]], false),
        (Extensions::PermessageDeflate, &[&[0xa1, 0]], false),
        (Extensions::PermessageDeflate, &[&[0x91, 0]], false),
        (Extensions::PermessageDeflate, &[&[0xd1, 0]], false),
        (Extensions::PermessageDeflate, &[&[0xc3, 0]], false),
        (Extensions::PermessageDeflate, &[&[0xc9, 0]], false),
        (Extensions::PermessageDeflate, &[&[0xc8, 0]], false),
        (Extensions::Other, &[&[0x71, 0], &[0xf0, 0]], true),
        (Extensions::Other, &[&[0xf7, 0]], true),
        (Extensions::Other, &[&[0x98, 0]], false),
        (Extensions::Other, &[&[0xa9, 0]], false),
        (Extensions::Other, &[&[0xca, 0]], false),
        (Extensions::Other, &[&[0xcb, 0]], false),
    ];
    for (extensions, headers, allowed) in cases {
        let found = violations(extensions, headers).concat();
        assert_eq!(!found.contains(&ReservedBits), allowed, "{extensions:?} {headers:x?}");
    }
}

#[test]
fn extensions_are_parsed() {
    for (value, expected) in [
        (None, Extensions::None),
        (Some(""), Extensions::None),
        (Some(" , "), Extensions::None),
        (Some("permessage-deflate"), Extensions::PermessageDeflate),
        (
            Some("Permessage-Deflate; server_no_context_takeover;client_max_window_bits=15"),
            Extensions::PermessageDeflate,
        ),
        (Some("permessage-deflate-2"), Extensions::Other),
        (Some("x-webkit-deflate-frame"), Extensions::Other),
        (Some("permessage-deflate, x-mux"), Extensions::Other),
        (Some("x-mux; a=1, permessage-deflate"), Extensions::Other),
    ] {
        assert_eq!(Extensions::parse(value), expected, "{value:?}");
    }
}

#[test]
fn message_is_complete_with_its_last_header() {
    use MessageType::{Binary, Text};
    let steps: [(&[u8], Option<CompletedMessage>, u64); 12] = [
        (&[0x81, 3], Some(message(Text, 3)), 0),
        (&[0x02, 4], None, 4),
        (&[0x89, 9], None, 4),
        (&[0x83, 7], None, 4),
        (&[0x00, 5], None, 9),
        (&[0x80, 6], Some(message(Binary, 15)), 0),
        (&[0x80, 8], None, 0),
        (&[0x00, 8], None, 0),
        (&[0x01, 1], None, 1),
        (&[0x02, 2], None, 2),
        (&[0x81, 3], Some(message(Text, 3)), 0),
        (&[0x80, 4], None, 0),
    ];
    let mut server = Conformance::new(Endpoint::Server, Extensions::None);
    for (step, (bytes, completed, so_far)) in steps.into_iter().enumerate() {
        assert_eq!(server.frame(&header(bytes)).message, completed, "step {step}");
        assert_eq!(server.message_so_far(), so_far, "step {step}");
    }
}

#[test]
fn sum_of_lengths_saturates() {
    let longest = [0x01, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let mut server = Conformance::new(Endpoint::Server, Extensions::None);
    server.frame(&header(&longest));
    assert_eq!(server.frame(&header(&[0x80, 9])).message, Some(message(MessageType::Text, u64::MAX)));
}

/// Judges an unmasked Close frame of the server.
fn close(server: &mut Conformance, payload: &[u8]) -> CloseVerdict {
    let length = u8::try_from(payload.len()).expect("tests keep to control frames");
    let header = header(&[0x88, length]);
    server.frame(&header);
    server.close(&header, payload)
}

fn taken(status: CloseStatus, reason: &str) -> CloseFrame {
    CloseFrame { status, reason: reason.to_owned() }
}

#[test]
fn first_close_frame_counts_with_any_payload() {
    let sent = |code| CloseStatus::Sent(CloseCode(code));
    let cases: [(&[u8], CloseFrame, &[Violation]); 12] = [
        (&[], taken(CloseStatus::NoStatus, ""), &[]),
        (&[3], taken(CloseStatus::Malformed, ""), &[IllegalCode]),
        (b"\x03\xe8", taken(sent(1000), ""), &[]),
        (b"\x03\xf6bye", taken(sent(1014), "bye"), &[]),
        (b"\x0f\xa1", taken(sent(4001), ""), &[]),
        (b"\x00\x00", taken(sent(0), ""), &[IllegalCode]),
        (b"\x03\xee", taken(sent(1006), ""), &[IllegalCode]),
        (b"\x03\xf8", taken(sent(1016), ""), &[IllegalCode]),
        (b"\x0b\xb7", taken(sent(2999), ""), &[IllegalCode]),
        (b"\x13\x88", taken(sent(5000), ""), &[IllegalCode]),
        (b"\x03\xe8a\xff", taken(sent(1000), "a\u{fffd}"), &[CloseReasonUtf8]),
        (b"\x03\xed\xff", taken(sent(1005), "\u{fffd}"), &[IllegalCode, CloseReasonUtf8]),
    ];
    for (payload, taken, new) in cases {
        let mut server = Conformance::new(Endpoint::Server, Extensions::None);
        let new = new.iter().copied().collect();
        assert_eq!(
            close(&mut server, payload),
            CloseVerdict { new, taken: Some(taken), is_provisional: false },
            "{payload:x?}"
        );
        assert_eq!(server.seen(), new, "{payload:x?}");
    }
}

#[test]
fn only_a_well_formed_close_frame_counts_after_a_violation() {
    let (masked, rsv, fragment) = ([0x88, 0x82, 1, 2, 3, 4], [0xc8, 2], [0x08, 2]);
    let (overlong, too_long, plain) = ([0x88, 126, 0, 2], [0x88, 126, 0, 126], [0x88, 2]);
    let cases: [(&[u8], &[u8], bool); 14] = [
        (&plain, b"\x03\xe8", true),
        (&[0x88, 0], b"", true),
        (&plain, b"\x0f\xa0", true),
        (&plain, b"\x03\xf8", true),
        (&[0x88, 3], b"\x03\xe8\xff", true),
        (&[0x88, 1], b"\x03", false),
        (&plain, b"\x03\xe7", false),
        (&plain, b"\x03\xee", false),
        (&plain, b"\x13\x88", false),
        (&masked, b"\x03\xe8", false),
        (&rsv, b"\x03\xe8", false),
        (&fragment, b"\x03\xe8", false),
        (&overlong, b"\x03\xe8", false),
        (&too_long, b"", false),
    ];
    for (bytes, payload, expected) in cases {
        let mut server = Conformance::new(Endpoint::Server, Extensions::None);
        server.frame(&header(&[0x83, 0]));
        server.frame(&header(bytes));
        let taken = server.close(&header(bytes), payload).taken;
        assert_eq!(taken.is_some(), expected, "{bytes:x?} {payload:x?}");
    }
}

#[test]
fn close_frame_with_a_violation_in_its_header_does_not_count() {
    let mut server = Conformance::new(Endpoint::Server, Extensions::None);
    let fragment = header(&[0x08, 2]);
    assert_eq!(server.frame(&fragment).new, Violations::from_iter([ControlFragmented]));
    assert_eq!(server.close(&fragment, b"\x03\xe8").taken, None);
    assert_eq!(server.frame(&header(&[0x81, 0])).new, Violations::from_iter([DataAfterClose]));
    assert_eq!(close(&mut server, b"\x03\xe9").taken, Some(taken(CloseStatus::Sent(CloseCode::GOING_AWAY), "")));
}

#[test]
fn one_close_frame_counts_and_all_are_judged() {
    let mut server = Conformance::new(Endpoint::Server, Extensions::None);
    assert!(close(&mut server, b"\x03\xe8").taken.is_some());
    let second = close(&mut server, b"\x03\xee");
    assert_eq!(second, CloseVerdict { new: Violations::from_iter([IllegalCode]), taken: None, is_provisional: false });
    assert_eq!(close(&mut server, b"\x03\xee").new, Violations::NONE);
}

#[test]
fn close_frame_is_provisional_after_a_violation_that_fails_the_connection() {
    let cases: [(&[u8], bool); 4] =
        [(&[0x83, 0], true), (&[0x80, 0], true), (&[0x81, 126, 0, 0], false), (&[0x81, 0], false)];
    for (bytes, expected) in cases {
        let mut server = Conformance::new(Endpoint::Server, Extensions::None);
        server.frame(&header(bytes));
        let verdict = close(&mut server, b"\x03\xe8");
        assert_eq!((verdict.taken.is_some(), verdict.is_provisional), (true, expected), "{bytes:x?}");
    }
}
