//! A session keeps its invariants in any order of events.
#![no_main]

use closewatch::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fuzzing::driver(bytes));
