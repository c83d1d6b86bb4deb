//! Prefixes for new networks.

use crate::network::Subnet;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// No prefix is left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Everything overlaps a network or a route of the host.
    #[error(
        "no free prefix is left in the address pools {}: {networks} overlap networks, {host} overlap what the host routes",
        list(pools)
    )]
    Exhausted {
        /// The pools that were looked through.
        pools: Vec<Pool>,
        /// Prefixes of them that networks have.
        networks: u64,
        /// Further prefixes of them that the host routes.
        host: u64,
    },
}

fn list(pools: &[Pool]) -> String {
    let texts: Vec<_> = pools.iter().map(|pool| pool.range.to_string()).collect();
    texts.join(", ")
}

impl PoolError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Exhausted { .. } => {
                "remove networks that are not needed, or use `--network none` or `--network host`"
            }
        }
    }
}

/// A range, cut into prefixes of one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// The range.
    pub range: IpNet,
    /// Length of each network's prefix.
    pub len: u8,
}

/// 10.89.0.0/16 in /24s; where the host routes that (a VPN that claims all of 10.0.0.0/8 is
/// common), a part of 172.16.0.0/12 or of 192.168.0.0/16.
pub fn v4_pools() -> [Pool; 3] {
    [[10, 89], [172, 30], [192, 168]].map(|[a, b]| Pool {
        range: Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), 16).into(),
        len: 24,
    })
}

/// A unique local /48 in /64s. The 40 random bits make it unlikely to meet another site's
/// (RFC 4193 §3.2).
pub fn ula_pool(global_id: [u8; 5]) -> Pool {
    let mut octets = [0u8; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&global_id);
    let range = Ipv6Net::new_assert(Ipv6Addr::from(octets), 48);
    Pool {
        range: range.into(),
        len: 64,
    }
}

/// The first prefix of the first pool that overlaps neither `networks` nor `host` prefixes. A
/// default route, also one that a VPN writes as two halves, is no obstacle.
pub fn choose_subnet(
    pools: &[Pool],
    networks: &[IpNet],
    host: &[IpNet],
) -> Result<Subnet, PoolError> {
    let mut skipped = (0, 0);
    let host: Vec<IpNet> = host
        .iter()
        .copied()
        .filter(|prefix| prefix.prefix_len() > 1)
        .collect();
    for candidate in pools.iter().copied().flat_map(candidates) {
        let overlaps = |other: &IpNet| candidate.contains(other) || other.contains(&candidate);
        if networks.iter().any(overlaps) {
            skipped.0 += 1;
        } else if host.iter().any(overlaps) {
            skipped.1 += 1;
        } else if let Ok(subnet) = Subnet::try_from(candidate) {
            return Ok(subnet);
        }
    }
    Err(PoolError::Exhausted {
        pools: pools.to_vec(),
        networks: skipped.0,
        host: skipped.1,
    })
}

fn candidates(pool: Pool) -> impl Iterator<Item = IpNet> {
    // An inverted length gives no candidates.
    pool.range.subnets(pool.len).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_free_prefix_is_chosen() {
        let choose = |n: &[&str], h: &[&str]| {
            choose_subnet(&v4_pools(), &nets(n), &nets(h))
                .unwrap()
                .to_string()
        };
        assert_eq!(choose(&[], &[]), "10.89.0.0/24");
        assert_eq!(choose(&["10.89.0.0/24"], &["0.0.0.0/0"]), "10.89.1.0/24");
        assert_eq!(choose(&[], &["10.89.0.0/17"]), "10.89.128.0/24");
        assert_eq!(
            choose(&["10.89.0.0/24"], &["10.89.1.77/32"]),
            "10.89.2.0/24"
        );
        let ula = ula_pool([1, 2, 3, 4, 5]);
        let six = choose_subnet(&[ula], &nets(&["10.0.0.0/8", "fd01:203:405::/64"]), &[]).unwrap();
        assert_eq!(six.to_string(), "fd01:203:405:1::/64");
    }

    #[test]
    fn a_vpn_that_routes_all_of_ten_leaves_the_other_pools() {
        let choose = |h: &[&str]| choose_subnet(&v4_pools(), &nets(&["10.89.0.0/24"]), &nets(h));
        let vpn = choose(&["0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8"]).unwrap();
        assert_eq!(vpn.to_string(), "172.30.0.0/24");
        let all = choose(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]);
        assert_eq!(
            all.unwrap_err().to_string(),
            "no free prefix is left in the address pools 10.89.0.0/16, 172.30.0.0/16, \
             192.168.0.0/16: 1 overlap networks, 767 overlap what the host routes"
        );
    }

    proptest! {
        #[test]
        fn networks_never_overlap(host in proptest::collection::vec((any::<u32>(), 9u8..=32), 0..6), count in 1usize..40) {
            let host: Vec<IpNet> = host.into_iter()
                .map(|(bits, len)| {
                    let near = 0x0a59_0000 | (bits & 0xffff);
                    IpNet::new(std::net::IpAddr::V4(near.into()), len.max(17)).unwrap().trunc()
                })
                .collect();
            let mut networks: Vec<IpNet> = Vec::new();
            for _ in 0..count {
                let Ok(subnet) = choose_subnet(&v4_pools()[..1], &networks, &host) else { break };
                for other in networks.iter().chain(&host) {
                    prop_assert!(!subnet.overlaps(*other));
                }
                networks.push(subnet.prefix());
            }
        }
    }
}
