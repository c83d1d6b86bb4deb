//! Words for the ports of pasta: whatever they are, they are taken or refused, and no port leads to two.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mossnet::compat::pasta::spec::Ports;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut ports = Ports::default();
    for word in text.split(' ') {
        let _ = ports.add(word);
    }
    if let Ports::Listed(all) | Ports::Open(all) = ports {
        for listed in all {
            let counts = listed.runs().into_iter().map(|(range, _)| range.count());
            assert_eq!(counts.sum::<usize>(), listed.ports.len());
        }
    }
});
