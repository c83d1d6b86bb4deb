//! What a container sends to the name server.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mossnet::relay::dns::message::{ClientQuery, Rejection, is_truncated};

fuzz_target!(|bytes: &[u8]| {
    match ClientQuery::parse(bytes) {
        Ok(query) => {
            let _ = (
                query.name(),
                query.spelt_name(),
                query.record_type(),
                query.cache_key("br-0"),
            );
            let forwarded = query.forwarded(7);
            assert!(ClientQuery::parse(&forwarded).is_ok());
            let mut answer = query.answer(Default::default(), &[]);
            query.adopt(&mut answer);
            let short = query.fit(&answer, 12);
            assert!(short.len() <= 12 || is_truncated(&short));
        }
        Err(Rejection::Answer(answer)) => assert!(answer.len() >= 12),
        Err(Rejection::Drop) => {}
    }
});
