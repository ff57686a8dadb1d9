//! `src/fuzzing` says what it asks.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tilekeep::fuzzing::run("cache_control", data));
