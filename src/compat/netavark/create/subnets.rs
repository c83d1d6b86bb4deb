//! Subnets: which are taken, and which is the next one that is not. Pure.
//!
//! Prefixes are nested or apart, never otherwise; so a sorted list without the nested ones answers every
//! question by one look, however long it is.

use super::super::refusal::CreateRefusal;
use super::Pool;
use crate::compat::digest::digest;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest prefix of a pool's subnets: two addresses besides those of the network and of everybody.
const SMALLEST: u8 = 30;
/// How many IPv6 subnets are tried; of 2^56, one is taken already.
const TRIES: u32 = 1000;

/// Prefixes that are taken, as first and last addresses in order; IPv4 is before IPv6.
#[derive(Debug, Clone)]
pub struct Occupied(Vec<(IpAddr, IpAddr)>);

impl Occupied {
    /// Of these.
    pub fn of(subnets: &[IpNet]) -> Self {
        let ends = |subnet: &IpNet| (subnet.network(), subnet.broadcast());
        let mut all: Vec<(IpAddr, IpAddr)> = subnets.iter().map(ends).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        all.dedup_by(|inner, outer| inner.0 <= outer.1);
        Self(all)
    }

    /// Whether one of them shares an address with `subnet`.
    pub fn overlaps(&self, subnet: &IpNet) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < subnet.network());
        let next = self.0.get(at);
        next.is_some_and(|(first, _)| *first <= subnet.broadcast())
    }

    /// The first prefix of that length in `base` that is free.
    fn gap(&self, base: Ipv4Net, size: u8) -> Option<Ipv4Net> {
        let number = |address: Ipv4Addr| u64::from(u32::from(address));
        let step = 1_u64 << (32 - size);
        let mut at = number(base.network());
        for taken in &self.0 {
            let (IpAddr::V4(first), IpAddr::V4(last)) = taken else {
                break;
            };
            if at + step <= number(*first) {
                break;
            }
            if number(*last) >= at {
                at = (number(*last) + 1).next_multiple_of(step);
            }
        }
        let fits = at + step <= number(base.broadcast()) + 1;
        let address = u32::try_from(at).ok().filter(|_| fits)?;
        Ipv4Net::new(address.into(), size).ok()
    }
}

/// The first subnet of the pools that is free, or the very first one.
pub fn free_v4(pools: &[Pool], occupied: &Occupied, check: bool) -> Result<IpNet, CreateRefusal> {
    let nothing = Occupied(Vec::new());
    let occupied = if check { occupied } else { &nothing };
    for Pool { base, size } in pools {
        let IpNet::V4(v4) = base.trunc() else {
            continue;
        };
        if !(v4.prefix_len().max(1)..=SMALLEST).contains(size) {
            let (base, size) = (*base, *size);
            return Err(CreateRefusal::Pool { base, size });
        }
        if let Some(subnet) = occupied.gap(v4, *size) {
            return Ok(subnet.into());
        }
    }
    let bases = pools.iter().map(|pool| pool.base.to_string());
    let bases: Vec<String> = bases.collect();
    Err(CreateRefusal::PoolsFull(bases.join(", ")))
}

/// A unique local /64 (RFC 4193) that follows from the network's id, which is random.
pub fn free_v6(id: &str, occupied: &Occupied) -> Result<IpNet, CreateRefusal> {
    let candidate = |attempt: u32| {
        let [_, random @ ..] = digest(&[id, &attempt.to_string()]).to_be_bytes();
        let mut octets = [0; 16];
        octets[0] = 0xfd;
        octets[1..8].copy_from_slice(&random);
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(octets), 64))
    };
    let mut all = (0..TRIES).map(candidate);
    let free = all.find(|subnet| !occupied.overlaps(subnet));
    free.ok_or_else(|| CreateRefusal::PoolsFull("fd00::/8".to_owned()))
}

/// That no two share an address.
pub fn apart(subnets: impl Iterator<Item = IpNet>) -> Result<(), CreateRefusal> {
    let mut all: Vec<IpNet> = subnets.collect();
    all.sort_by_key(|subnet| (subnet.network(), subnet.prefix_len()));
    let pairs = all.iter().zip(all.iter().skip(1));
    for (outer, inner) in pairs {
        if outer.contains(inner) {
            return Err(CreateRefusal::Overlap(*outer, *inner));
        }
    }
    Ok(())
}

/// The bridge's address, if nobody says another.
pub fn first_address(subnet: &IpNet) -> Result<IpAddr, CreateRefusal> {
    match subnet {
        IpNet::V4(v4) if v4.prefix_len() <= SMALLEST => {
            Ok(Ipv4Addr::from(u32::from(v4.network()) + 1).into())
        }
        IpNet::V6(v6) if v6.prefix_len() < 128 => {
            Ok(Ipv6Addr::from(u128::from(v6.network()) + 1).into())
        }
        IpNet::V4(_) | IpNet::V6(_) => Err(CreateRefusal::NoRoom(*subnet)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn pool(base: &str, size: u8) -> Pool {
        let base = base.parse().unwrap();
        Pool { base, size }
    }

    fn free(pools: &[Pool], used: &[&str]) -> Result<String, String> {
        let free = free_v4(pools, &Occupied::of(&nets(used)), true);
        free.map(|n| n.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_next_free_subnet() {
        let pools = [pool("10.89.0.0/16", 24), pool("10.90.0.0/15", 20)];
        for (used, next) in [
            (&[] as &[&str], "10.89.0.0/24"),
            (&["fd00::/8", "10.88.0.0/16"], "10.89.0.0/24"),
            (&["10.89.0.0/24", "10.89.2.0/24"], "10.89.1.0/24"),
            (&["10.89.0.128/25", "10.89.1.7/32"], "10.89.2.0/24"),
            (&["10.89.0.0/17", "10.89.3.0/24"], "10.89.128.0/24"),
            (&["10.89.0.0/16"], "10.90.0.0/20"),
            (&["10.89.0.0/16", "10.90.0.0/24"], "10.90.16.0/20"),
        ] {
            assert_eq!(free(&pools, used).as_deref(), Ok(next), "{used:?}");
        }
        let full = free(&pools, &["10.0.0.0/8"]).unwrap_err();
        assert!(full.contains("10.89.0.0/16, 10.90.0.0/15"), "{full}");
        let ends = [pool("255.255.255.0/24", 30)];
        let last = ["255.255.255.0/25", "255.255.255.128/26"];
        assert_eq!(free(&ends, &last).as_deref(), Ok("255.255.255.192/30"));
        assert!(free(&ends, &["255.255.255.0/24"]).is_err());
        for size in [0, 15, 31, 33, 255] {
            let refused = free(&[pool("10.89.0.0/16", size)], &[]).unwrap_err();
            assert!(refused.contains("10.89.0.0/16"), "{refused}");
        }
        assert!(free(&[], &[]).is_err());
        assert!(free(&[pool("fd00::/48", 64)], &[]).is_err());
    }

    #[test]
    fn gateways_are_the_first_addresses() {
        let first = |text: &str| first_address(&text.parse().unwrap()).map(|a| a.to_string());
        assert_eq!(first("10.1.2.0/30").unwrap(), "10.1.2.1");
        assert_eq!(first("fd00:1::/127").unwrap(), "fd00:1::1");
        for none in ["10.1.2.0/31", "10.1.2.3/32", "fd00::1/128"] {
            assert!(first(none).unwrap_err().to_string().contains(none));
        }
    }

    fn any_net() -> impl Strategy<Value = IpNet> {
        let v4 = (0_u32..64, 26_u8..=32).prop_map(|(host, length)| {
            IpNet::new(Ipv4Addr::from(0x0a59_0000 | host).into(), length)
        });
        let v6 = (0_u128..64, 122_u8..=128).prop_map(|(host, length)| {
            IpNet::new(Ipv6Addr::from((0xfd << 120) | host).into(), length)
        });
        prop_oneof![v4, v6].prop_map(|net| net.unwrap().trunc())
    }

    fn share(a: &IpNet, b: &IpNet) -> bool {
        a.contains(b) || b.contains(a)
    }

    proptest! {
        #[test]
        fn as_by_looking_at_each(used in prop::collection::vec(any_net(), 0..8), one in any_net()) {
            let occupied = Occupied::of(&used);
            prop_assert_eq!(occupied.overlaps(&one), used.iter().any(|net| share(net, &one)));
            let mut pairs = used.iter().enumerate();
            let clash = pairs.any(|(at, a)| used[..at].iter().any(|b| share(a, b)));
            prop_assert_eq!(apart(used.iter().copied()).is_err(), clash);
            let pools = [pool("10.89.0.0/26", 29)];
            let all = "10.89.0.0/26".parse::<Ipv4Net>().unwrap().subnets(29).unwrap();
            let mut free = all.map(IpNet::V4).filter(|net| !used.iter().any(|u| share(net, u)));
            prop_assert_eq!(free_v4(&pools, &occupied, true).ok(), free.next());
            let six = free_v6("77", &occupied).unwrap();
            prop_assert!(!used.iter().any(|net| share(net, &six)));
        }
    }
}
