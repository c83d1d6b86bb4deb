//! Prefixes for new networks.

use crate::network::Subnet;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// No prefix is left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Everything overlaps a network or a route of the host.
    #[error(
        "no free prefix is left in the address pool {}: {networks} overlap networks, {host} overlap what the host routes",
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
    /// Not a prefix with room for a network.
    #[error("address pool '{0}' is not an IPv4 prefix of /24 or shorter")]
    Malformed(String),
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
                "name another range, as in MOSSNET_POOL=172.30.0.0/16, or remove networks that are not needed"
            }
            Self::Malformed(_) => "write it as in MOSSNET_POOL=172.30.0.0/16,192.168.0.0/16",
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

/// Where IPv4 networks come from unless the user says otherwise: 10.89.0.0/16 in /24s.
pub fn v4_pool() -> Pool {
    let range = Ipv4Net::new_assert(Ipv4Addr::new(10, 89, 0, 0), 16);
    Pool {
        range: range.into(),
        len: 24,
    }
}

/// Reads IPv4 pools as a user writes them: prefixes with commas in between, cut into /24s.
pub fn parse_v4_pools(text: &str) -> Result<Vec<Pool>, PoolError> {
    let pool = |word: &str| {
        let malformed = || PoolError::Malformed(word.to_owned());
        let range: Ipv4Net = word.parse().map_err(|_| malformed())?;
        let (range, len) = (IpNet::from(range), 24);
        if range.prefix_len() > len || Subnet::try_from(range).is_err() {
            return Err(malformed());
        }
        Ok(Pool { range, len })
    };
    text.split(',').map(|word| pool(word.trim())).collect()
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

/// A prefix that is in use already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Overlap {
    /// By a network.
    #[error("subnet {subnet} overlaps network '{name}' ({prefix})")]
    Network {
        /// As given.
        subnet: Subnet,
        /// The network.
        name: String,
        /// Its prefix.
        prefix: IpNet,
    },
    /// By the host.
    #[error("subnet {subnet} overlaps {prefix}, which the host routes")]
    Host {
        /// As given.
        subnet: Subnet,
        /// The route.
        prefix: IpNet,
    },
}

impl Overlap {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Network { .. } => {
                "choose another --subnet, leave it out for the next free one, or remove that network"
            }
            Self::Host { .. } => "choose another --subnet, or leave it out for the next free one",
        }
    }
}

/// Refuses a prefix that overlaps one of `networks`, each with its name, or of what the host routes.
pub fn check_free<'a>(
    subnet: Subnet,
    networks: impl IntoIterator<Item = (&'a str, IpNet)>,
    host: &[IpNet],
) -> Result<(), Overlap> {
    for (name, prefix) in networks {
        if subnet.overlaps(prefix) {
            let name = name.to_owned();
            return Err(Overlap::Network {
                subnet,
                name,
                prefix,
            });
        }
    }
    let obstacle = |prefix: &&IpNet| !is_default_route(prefix) && subnet.overlaps(**prefix);
    match host.iter().find(obstacle) {
        Some(prefix) => Err(Overlap::Host {
            subnet,
            prefix: *prefix,
        }),
        None => Ok(()),
    }
}

/// Also one that a VPN writes as two halves.
fn is_default_route(prefix: &IpNet) -> bool {
    prefix.prefix_len() <= 1
}

/// The first prefix of the first pool that overlaps neither `networks` nor `host` prefixes. A
/// default route is no obstacle.
pub fn choose_subnet(
    pools: &[Pool],
    networks: &[IpNet],
    host: &[IpNet],
) -> Result<Subnet, PoolError> {
    let mut skipped = (0, 0);
    let host: Vec<IpNet> = host
        .iter()
        .copied()
        .filter(|prefix| !is_default_route(prefix))
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
    fn an_overlap_names_the_other() {
        let subnet = |text: &str| Subnet::try_from(text.parse::<IpNet>().unwrap()).unwrap();
        let networks = [("bridge", "10.89.0.0/24".parse().unwrap())];
        let host = nets(&["0.0.0.0/1", "192.168.1.0/24"]);
        let refused = |text: &str| {
            check_free(subnet(text), networks, &host)
                .unwrap_err()
                .to_string()
        };
        assert!(check_free(subnet("10.90.0.0/24"), networks, &host).is_ok());
        assert_eq!(
            refused("10.88.0.0/14"),
            "subnet 10.88.0.0/14 overlaps network 'bridge' (10.89.0.0/24)"
        );
        assert_eq!(
            refused("192.168.0.0/16"),
            "subnet 192.168.0.0/16 overlaps 192.168.1.0/24, which the host routes"
        );
    }

    #[test]
    fn the_first_free_prefix_is_chosen() {
        let choose = |n: &[&str], h: &[&str]| {
            choose_subnet(&[v4_pool()], &nets(n), &nets(h))
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
    fn a_vpn_that_routes_all_of_ten_is_no_obstacle_to_other_pools() {
        let choose = |pools: &[Pool]| {
            let vpn = nets(&["0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8"]);
            choose_subnet(pools, &nets(&["10.89.0.0/24"]), &vpn)
        };
        let pools = parse_v4_pools("10.89.0.0/16, 172.30.0.0/16").unwrap();
        assert_eq!(choose(&pools).unwrap().to_string(), "172.30.0.0/24");
        assert_eq!(
            choose(&[v4_pool()]).unwrap_err().to_string(),
            "no free prefix is left in the address pool 10.89.0.0/16: 1 overlap networks, 255 \
             overlap what the host routes"
        );
    }

    #[test]
    fn pools_are_prefixes_with_room() {
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/25",
            "10.0.0.1/16",
            "224.0.0.0/8",
            "fd00::/16",
            "x",
        ] {
            let error = parse_v4_pools(bad).unwrap_err();
            assert!(matches!(error, PoolError::Malformed(_)), "{bad}");
        }
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
                let Ok(subnet) = choose_subnet(&[v4_pool()], &networks, &host) else { break };
                for other in networks.iter().chain(&host) {
                    prop_assert!(!subnet.overlaps(*other));
                }
                networks.push(subnet.prefix());
            }
        }
    }
}
