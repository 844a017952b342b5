//! Any bytes are frames, however they are cut.
#![no_main]

use closewatch::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fuzzing::decoder(bytes));
