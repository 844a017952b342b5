//! A session keeps its promises, whatever happens to it.
#![no_main]

use closewatch::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fuzzing::session(bytes));
