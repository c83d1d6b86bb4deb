//! What a resolver, or somebody in its name, answers. The first byte is the length of the query.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mossnet::relay::dns::message::{ClientQuery, age, lifetime};

fuzz_target!(|bytes: &[u8]| {
    let Some((length, rest)) = bytes.split_first() else {
        return;
    };
    let (query, answer) = rest.split_at(usize::from(*length).min(rest.len()));
    if let Some(lifetime) = lifetime(answer) {
        let mut older = answer.to_vec();
        age(&mut older, &lifetime, 1);
        assert_eq!(older.len(), answer.len());
    }
    if let Ok(query) = ClientQuery::parse(query) {
        let _ = query.matches(answer, 7);
        let adopted = query.adopt(answer.to_vec());
        assert_eq!(adopted.len(), answer.len());
        let _ = query.fit(adopted, 512);
    }
});
