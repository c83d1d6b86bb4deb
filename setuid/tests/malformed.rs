//! Requests, answers and grants as nobody writes them: valid ones with bytes changed, cut, doubled and
//! mixed. Nothing panics, and a datagram that is taken is exactly what its meaning encodes to.
//!
//! The short run is part of every test run; the long one makes ten million cases of each:
//! `cargo test --release -p mossnet-setuid --test malformed -- --ignored --nocapture`. The same
//! properties are cargo-fuzz targets: fuzz/fuzz_targets/helper_{request,policy}.rs.

// Nothing but tests here, though clippy cannot know.
#![allow(clippy::expect_used)]

use mossnet_setuid::accounts::Accounts;
use mossnet_setuid::policy::Policy;
use mossnet_setuid::request::{
    Bind, Bridge, Made, Protocol, Publish, Reply, Request, Unavailable, Uplink, Veth,
};

const SHORT: u32 = 50_000;
const LONG: u32 = 10_000_000;

/// xorshift64*: the same cases every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit.max(1)
    }
}

/// A few changes to one of the seeds.
fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            2 => bytes.insert(at, random.next() as u8),
            3 => bytes.truncate(at),
            4 if !bytes.is_empty() => drop(bytes.remove(at)),
            5 => {
                let other = &seeds[random.below(seeds.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.below(other.len())..]);
            }
            _ => {
                let end = at + random.below(bytes.len() - at);
                let part = bytes[at..end].to_vec();
                bytes.extend(part);
            }
        }
    }
    bytes
}

fn requests() -> Vec<Vec<u8>> {
    let name = |text: &str| text.parse().expect("a name");
    let prefix = |text: &str| text.parse().expect("a prefix");
    let address = |text: &str| text.parse().expect("an address");
    let made = || Made {
        index: 9,
        name: name("mnu00000a"),
    };
    let all = [
        Request::Query,
        Request::Gc,
        Request::Release(made()),
        Request::Veth(Veth {
            first: name("a"),
            second: name("bb"),
            mtu: 1500,
        }),
        Request::Bridge(Bridge {
            bridge: name("br0"),
            inside: name("eth0"),
            addresses: vec![prefix("10.0.0.1/32"), prefix("fd00::1/128")],
        }),
        Request::Uplink(Uplink {
            inside: name("host0"),
            mtu: 65535,
            subnets: vec![prefix("10.89.0.0/24"), prefix("fd00::/64")],
        }),
        Request::Publish(Publish {
            uplink: made(),
            targets: vec![address("10.89.0.2:80"), address("[fd00::2]:53")],
        }),
        Request::Bind(Bind {
            protocol: Protocol::Udp,
            address: address("[::]:53"),
        }),
    ];
    all.iter().map(Request::encode).collect()
}

fn replies() -> Vec<Vec<u8>> {
    let made = Made {
        index: 9,
        name: "a0".parse().expect("a name"),
    };
    let mut all = vec![
        Reply::Denied.encode(),
        Reply::Unavailable(Unavailable::Busy).encode(),
        Reply::Veth {
            first: made,
            second: 7,
        }
        .encode(),
        Reply::Grants(mossnet_setuid::request::Grants::default()).encode(),
    ];
    all.extend(requests());
    all
}

const GRANTS: &str = r#"
[[grant]]
user = "alice"
verbs = ["veth", "bridge", "uplink", "bind"]
bridges = [{ name = "br0", addresses = ["192.168.7.0/28"] }]
subnets = ["10.89.0.0/16", "fd00:89::/48"]
ports = ["80/tcp", "8000-8010/udp"]
quota = { interfaces = 3, ports = 3, published-ports = 4, requests-per-minute = 60 }
"#;

fn try_datagrams(count: u32) {
    let mut random = Random(0x6d6f_7373);
    let (requests, replies) = (requests(), replies());
    let mut taken = 0u32;
    for _ in 0..count {
        let bytes = mutate(&mut random, &requests);
        if let Ok(request) = Request::decode(&bytes) {
            assert_eq!(request.encode(), bytes);
            taken += 1;
        }
        let bytes = mutate(&mut random, &replies);
        if let Ok(reply) = Reply::decode(&bytes) {
            assert_eq!(reply.encode(), bytes);
        }
    }
    println!("{count} requests and answers, {taken} requests taken");
    assert!(
        taken > count / 100,
        "the mutations are not all too wild: {taken}"
    );
}

fn try_policies(count: u32) {
    let mut random = Random(0x6e65_7421);
    let seeds = [
        GRANTS.as_bytes().to_vec(),
        b"[[grant]]\nuser = 1\nverbs = [\"veth\"]\n".to_vec(),
    ];
    let accounts = Accounts::parse("alice:x:1000:1000::/:\n", "net:x:5:alice\n");
    let mut taken = 0u32;
    for _ in 0..count {
        let bytes = mutate(&mut random, &seeds);
        let text = String::from_utf8_lossy(&bytes);
        let mut policy = Policy::default();
        taken += u32::from(policy.add("grants.toml", &text, &accounts).is_ok());
    }
    println!("{count} policies, {taken} taken");
    assert!(taken > 0 && taken < count, "{taken}");
}

#[test]
fn malformed_datagrams_are_refused() {
    try_datagrams(SHORT);
}

#[test]
fn malformed_policies_are_refused() {
    try_policies(SHORT / 10);
}

#[test]
#[ignore = "takes minutes: ten million cases, in a release build"]
fn ten_million_datagrams() {
    try_datagrams(LONG);
}

#[test]
#[ignore = "takes minutes: ten million cases, in a release build"]
fn ten_million_policies() {
    try_policies(LONG);
}
