//! What podman may write to the rootlessport drop-in: it is taken or refused, in one line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mossnet::compat::rootlessport::input::Config;

fuzz_target!(|data: &[u8]| match Config::parse(data) {
    Ok(config) => {
        for publish in &config.publishes {
            for port in publish.host_ports().iter() {
                assert!(publish.leads_to(port).is_some());
            }
        }
        assert!(!config.container.contains('/') || !config.on_networks);
    }
    Err(refusal) => assert!(!refusal.to_string().contains('\n')),
});
