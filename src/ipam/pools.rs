//! Prefixes for new networks.

use crate::network::Subnet;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// No prefix is left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Everything overlaps a network or a route of the host.
    #[error(
        "no free /{len} is left in the address pool {range}: {networks} overlap networks, {host} overlap what the host routes"
    )]
    Exhausted {
        /// The pool.
        range: IpNet,
        /// Length of the prefixes it is cut into.
        len: u8,
        /// Prefixes of it that networks have.
        networks: u64,
        /// Further prefixes of it that the host routes.
        host: u64,
    },
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

/// 10.89.0.0/16 in /24s.
pub fn v4_pool() -> Pool {
    let range = Ipv4Net::new_assert(Ipv4Addr::new(10, 89, 0, 0), 16);
    Pool {
        range: range.into(),
        len: 24,
    }
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

/// The first prefix of the pool that overlaps neither `networks` nor `host` prefixes. A default
/// route (/0) is no obstacle.
pub fn choose_subnet(pool: Pool, networks: &[IpNet], host: &[IpNet]) -> Result<Subnet, PoolError> {
    let mut skipped = (0, 0);
    for candidate in candidates(pool) {
        let overlaps = |other: &IpNet| {
            other.prefix_len() > 0 && (candidate.contains(other) || other.contains(&candidate))
        };
        if networks.iter().any(overlaps) {
            skipped.0 += 1;
        } else if host.iter().any(overlaps) {
            skipped.1 += 1;
        } else if let Ok(subnet) = Subnet::try_from(candidate) {
            return Ok(subnet);
        }
    }
    Err(PoolError::Exhausted {
        range: pool.range,
        len: pool.len,
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
            choose_subnet(v4_pool(), &nets(n), &nets(h))
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
        let six = choose_subnet(ula, &nets(&["10.0.0.0/8", "fd01:203:405::/64"]), &[]).unwrap();
        assert_eq!(six.to_string(), "fd01:203:405:1::/64");
    }

    #[test]
    fn a_vpn_that_routes_everything_is_named() {
        let error = choose_subnet(v4_pool(), &nets(&["10.89.0.0/24"]), &nets(&["10.0.0.0/8"]));
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("1 overlap networks, 255 overlap what the host routes"),
            "{error}"
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
                let Ok(subnet) = choose_subnet(v4_pool(), &networks, &host) else { break };
                for other in networks.iter().chain(&host) {
                    prop_assert!(!subnet.overlaps(*other));
                }
                networks.push(subnet.prefix());
            }
        }
    }
}
