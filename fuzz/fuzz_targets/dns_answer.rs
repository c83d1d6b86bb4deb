//! What a resolver, or somebody in its name, answers. The first byte is the length of the query.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mossnet::relay::dns::message::{ClientQuery, age, lifetime};

fuzz_target!(|bytes: &[u8]| {
    let Some((length, rest)) = bytes.split_first() else {
        return;
    };
    let (query, answer) = rest.split_at(usize::from(*length).min(rest.len()));
    let mut older = answer.to_vec();
    age(&mut older, 1);
    if let (Some(before), Some(after)) = (lifetime(answer), lifetime(&older)) {
        assert!(after <= before && before - after <= 1);
    }
    if let Ok(query) = ClientQuery::parse(query) {
        let _ = query.matches(answer, 7);
        query.adopt(&mut older);
        let _ = query.fit(&older, 512);
    }
});
