//! What podman, or whoever takes its place, writes to netavark's standard input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mossnet::compat::netavark::rehearse;

fuzz_target!(|bytes: &[u8]| {
    if let Err(words) = rehearse(bytes) {
        assert!(!words.is_empty());
    }
});
