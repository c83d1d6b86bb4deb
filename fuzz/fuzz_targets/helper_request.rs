//! A datagram as any caller may send it to the installed helper: nothing panics, and what is taken is
//! exactly what its meaning encodes to.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mossnet_setuid::request::{Reply, Request};

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = Request::decode(data) {
        assert_eq!(request.encode(), data);
    }
    if let Ok(reply) = Reply::decode(data) {
        assert_eq!(reply.encode(), data);
    }
});
