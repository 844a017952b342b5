//! Any bytes are frames, for any split into reads.
#![no_main]

use closewatch::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fuzzing::decoder(bytes));
