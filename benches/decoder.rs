//! The time to read a frame and check it against every rule. Reported per frame (elements).

#![allow(missing_docs, reason = "criterion's macros make items without documentation")]

use std::hint::black_box;

use closewatch::websocket::{
    Endpoint,
    conformance::{Conformance, Extensions},
    decoder::{FrameDecoder, Item},
    frame::{Opcode, encode},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// The limit of one read.
const BUFFER: usize = 256 * 1024;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A full buffer of a client's text messages, whose payload sizes repeat in this order, and their number.
fn messages(sizes: &[usize]) -> (Vec<u8>, u64) {
    let mut buffer = Vec::with_capacity(BUFFER);
    let mut count = 0;
    for &size in sizes.iter().cycle() {
        if buffer.len() + size + 14 > BUFFER {
            break;
        }
        encode(true, Opcode::Text, Some(KEY), &vec![b'x'; size], &mut buffer);
        count += 1;
    }
    (buffer, count)
}

/// Reads whole messages, and returns sums that need all of their fields.
fn read_whole(conformance: &Conformance, mut input: &[u8]) -> (u64, u64) {
    let (mut count, mut payload) = (0, 0);
    while let Some((messages, behind)) = conformance.whole_messages(input, u64::MAX) {
        count += messages.count;
        payload += messages.payload_len * messages.count;
        input = behind;
    }
    assert!(input.is_empty(), "all messages are whole");
    (count, payload)
}

/// Reads frames one by one.
fn read_each(decoder: &mut FrameDecoder, conformance: &mut Conformance, mut input: &[u8]) -> (u64, u64) {
    let (mut count, mut payload) = (0, 0);
    while let Some(item) = decoder.decode(&mut input) {
        if let Item::Header(header) = item
            && let Some(message) = conformance.frame(&header).message
        {
            count += 1;
            payload += message.payload_len;
        }
    }
    (count, payload)
}

fn decoder(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decoder");
    let streams: [(&str, &[usize]); 4] = [
        ("run of 64 B", &[64]),
        ("no two alike", &[20, 64, 100, 37, 90, 55, 81]),
        ("mixed sizes", &[10, 64, 64, 64, 200, 64, 3, 1000]),
        ("16 KiB", &[16 * 1024]),
    ];
    for (name, sizes) in streams {
        let (buffer, count) = messages(sizes);
        group.throughput(Throughput::Elements(count));
        let mut conformance = Conformance::new(Endpoint::Client, Extensions::None);
        group.bench_function(format!("{name}, whole"), |bencher| {
            bencher.iter(|| read_whole(&conformance, black_box(&buffer)));
        });
        let mut decoder = FrameDecoder::new();
        group.bench_function(format!("{name}, one by one"), |bencher| {
            bencher.iter(|| read_each(&mut decoder, &mut conformance, black_box(&buffer)));
        });
    }
    group.finish();
}

fn single_bytes(criterion: &mut Criterion) {
    let (buffer, count) = messages(&[64]);
    let mut group = criterion.benchmark_group("decoder");
    group.throughput(Throughput::Elements(count));
    let mut decoder = FrameDecoder::new();
    let mut conformance = Conformance::new(Endpoint::Client, Extensions::None);
    group.bench_function("64 B in single bytes", |bencher| {
        bencher.iter(|| {
            let bytes = black_box(&buffer[..]).chunks(1);
            bytes.map(|byte| read_each(&mut decoder, &mut conformance, byte).0).sum::<u64>()
        });
    });
    group.finish();
}

criterion_group!(benches, decoder, single_bytes);
criterion_main!(benches);
