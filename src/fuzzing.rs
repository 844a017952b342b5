//! The functions that the fuzz targets call: they take any bytes, and panic if a property does not hold. `cargo test` calls
//! them, too.

use crate::{
    relay::testing::{Kind, scenario::Scenario},
    websocket::{
        decoder::{FrameDecoder, Item},
        frame::FrameHeader,
    },
};

/// Reads a stream at once, and in pieces of the size in its first byte: the frames are the same, and every byte is in one.
pub fn decoder(bytes: &[u8]) {
    let Some((piece, stream)) = bytes.split_first() else { return };
    let whole = DecodedFrames::of([stream]);
    assert_eq!(whole, DecodedFrames::of(stream.chunks(usize::from(*piece).max(1))));
    if !whole.is_lost {
        let frames = whole.headers.iter().map(|header| u128::from(header.header_len) + u128::from(header.payload_len));
        let unread = u128::from(whole.payload_remaining);
        assert_eq!(frames.sum::<u128>() + whole.partial_header.len() as u128, stream.len() as u128 + unread);
    }
}

/// Runs the scenario that the bytes describe over the driver: with whole reads and small ones, and over both kinds of
/// connections.
pub fn driver(bytes: &[u8]) {
    let scenario = Scenario::decode(bytes);
    scenario.run(usize::MAX, Kind::Plain);
    scenario.run(usize::MAX, Kind::Buffered);
    scenario.run(1, Kind::Plain);
    let scenario = scenario.with_ready_endpoints();
    let (whole, pieces) = (scenario.run(usize::MAX, Kind::Plain), scenario.run(1, Kind::Plain));
    assert_eq!(pieces.summary.ending, whole.summary.ending);
}

/// Everything that a decoder reports about a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct DecodedFrames {
    headers: Vec<FrameHeader>,
    control_payloads: Vec<u8>,
    partial_header: Vec<u8>,
    payload_remaining: u64,
    is_lost: bool,
}

impl DecodedFrames {
    fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut decoder = FrameDecoder::new();
        let mut frames = Self::default();
        for mut piece in pieces {
            while let Some(item) = decoder.decode(&mut piece) {
                match item {
                    Item::Header(header) => frames.headers.push(header),
                    Item::ControlPayload { bytes, .. } => frames.control_payloads.extend_from_slice(bytes),
                }
            }
            assert!(piece.is_empty(), "without an item, all input is consumed");
        }
        frames.partial_header = decoder.partial_header().to_vec();
        frames.payload_remaining = decoder.payload_remaining();
        frames.is_lost = decoder.is_lost();
        frames
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn seeds_of_the_fuzz_targets_hold() {
        for seed in seeds("decoder") {
            decoder(&seed);
        }
        for seed in seeds("driver") {
            driver(&seed);
        }
    }

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        fs::read_dir(seeds).unwrap().map(|seed| fs::read(seed.unwrap().path()).unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn any_bytes_are_a_scenario(bytes in vec(any::<u8>(), 0..200)) {
            driver(&bytes);
        }

        #[test]
        fn any_bytes_are_frames(bytes in vec(any::<u8>(), 0..200)) {
            decoder(&bytes);
        }
    }
}
