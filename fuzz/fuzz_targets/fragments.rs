//! A series of packets into the reassembly: each is preceded by its length, two bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mossnet::relay::wire::fragments::{Reassembly, split};
use mossnet::relay::wire::ip::{Header, Packet};
use std::time::{Duration, Instant};

fuzz_target!(|bytes: &[u8]| {
    let mut reassembly = Reassembly::new();
    let mut now = Instant::now();
    let mut rest = bytes;
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(behind.len());
        let (packet, following) = behind.split_at(length);
        rest = following;
        now += Duration::from_millis(length as u64);
        let Ok(packet) = Packet::parse(packet) else {
            continue;
        };
        let Some(whole) = reassembly.add(&packet, now) else {
            continue;
        };
        assert!(whole.largest >= packet.bytes().len());
        let Ok(whole) = Packet::parse(&whole.bytes) else {
            continue;
        };
        assert_eq!(whole.addresses(), packet.addresses());
        let header = Header::new(whole.addresses(), whole.protocol());
        let _ = split(&header, whole.payload(), 1280, 1);
    }
});
