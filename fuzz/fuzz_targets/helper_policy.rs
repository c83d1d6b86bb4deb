//! A file of grants: whatever it holds, it is taken or refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mossnet_setuid::accounts::Accounts;
use mossnet_setuid::policy::Policy;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let accounts = Accounts::parse(&text, &text);
    let mut policy = Policy::default();
    let _ = policy.add("grants.toml", &text, &accounts);
});
