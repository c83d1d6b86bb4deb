//! Prefixes of networks, and what is set aside in them.
//!
//! Invariant: a [`Subnet`] has its host bits clear and room for a gateway and a container.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// A prefix that cannot be a network's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// `10.89.0.1/24`.
    #[error("subnet {given} has host bits set; it would be {wanted}")]
    HostBits {
        /// As given.
        given: IpNet,
        /// Without them.
        wanted: IpNet,
    },
    /// No room for network address, gateway, one container and broadcast address.
    #[error("subnet {0} is too small; use /30 or larger for IPv4, /126 or larger for IPv6")]
    TooSmall(IpNet),
    /// Not addresses of a private segment.
    #[error("subnet {0} lies in loopback, link-local, multicast or unspecified addresses")]
    Unusable(IpNet),
}

/// A network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "IpNet", into = "IpNet")]
pub struct Subnet(IpNet);

impl Subnet {
    /// The prefix.
    pub fn prefix(self) -> IpNet {
        self.0
    }

    /// Whether any address is in both.
    pub fn overlaps(self, other: IpNet) -> bool {
        self.0.contains(&other) || other.contains(&self.0)
    }

    /// The network address (for IPv6 the subnet-router anycast address, RFC 4291 §2.6.1) or the
    /// IPv4 broadcast address.
    pub fn is_boundary(self, address: IpAddr) -> bool {
        address == self.0.network() || (address.is_ipv4() && address == self.0.broadcast())
    }
}

impl TryFrom<IpNet> for Subnet {
    type Error = SubnetError;
    fn try_from(prefix: IpNet) -> Result<Self, SubnetError> {
        let longest = if prefix.addr().is_ipv4() { 30 } else { 126 };
        if prefix.prefix_len() > longest {
            return Err(SubnetError::TooSmall(prefix));
        }
        if prefix.trunc() != prefix {
            let wanted = prefix.trunc();
            return Err(SubnetError::HostBits {
                given: prefix,
                wanted,
            });
        }
        let subnet = Self(prefix);
        const UNUSABLE: [&str; 8] = [
            "0.0.0.0/8",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/3",
            "::/16",
            // That of `host_loopback::HOST_V6`.
            "fd8d:5ead:b037::/64",
            "fe80::/10",
            "ff00::/8",
        ];
        let unusable = UNUSABLE.iter().filter_map(|text| text.parse().ok());
        if unusable.into_iter().any(|bad: IpNet| subnet.overlaps(bad)) {
            return Err(SubnetError::Unusable(prefix));
        }
        Ok(subnet)
    }
}

impl From<Subnet> for IpNet {
    fn from(subnet: Subnet) -> Self {
        subnet.0
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A prefix of a network with the router's own address in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSubnet {
    /// The prefix.
    pub subnet: Subnet,
    /// The router's address, where DNS is served.
    pub gateway: IpAddr,
    /// Endpoints that ask for no address of their own get one out of this part.
    #[serde(default)]
    pub ip_range: Option<IpNet>,
    /// Addresses that no endpoint gets, each with what it is for.
    #[serde(default)]
    pub aux_addresses: BTreeMap<IpAddr, String>,
}

impl NetworkSubnet {
    /// With the first address as the gateway.
    pub fn with_first_gateway(subnet: Subnet) -> Self {
        let gateway = match subnet.prefix().network() {
            IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) | 1).into()),
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) | 1).into()),
        };
        Self {
            subnet,
            gateway,
            ip_range: None,
            aux_addresses: BTreeMap::new(),
        }
    }

    /// Where addresses are chosen from.
    pub fn range(&self) -> IpNet {
        self.ip_range.unwrap_or(self.subnet.prefix())
    }

    /// IPv4 or not.
    pub fn is_ipv4(&self) -> bool {
        self.gateway.is_ipv4()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subnet(text: &str) -> Result<Subnet, SubnetError> {
        Subnet::try_from(text.parse::<IpNet>().unwrap())
    }

    #[test]
    fn subnets_are_checked() {
        for good in [
            "10.0.0.0/8",
            "192.168.1.0/30",
            "fd00::/64",
            "2001:db8::/126",
        ] {
            assert!(subnet(good).is_ok(), "{good}");
        }
        assert!(matches!(
            subnet("10.89.0.1/24"),
            Err(SubnetError::HostBits { .. })
        ));
        assert!(matches!(
            subnet("10.89.0.0/31"),
            Err(SubnetError::TooSmall(_))
        ));
        for bad in [
            "127.0.0.0/8",
            "169.254.0.0/24",
            "224.0.0.0/4",
            "0.0.0.0/0",
            "fe80::/64",
            "::/0",
        ] {
            assert!(
                matches!(subnet(bad), Err(SubnetError::Unusable(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_first_address_is_the_gateway() {
        let v4 = NetworkSubnet::with_first_gateway(subnet("10.89.0.0/24").unwrap());
        assert_eq!(v4.gateway.to_string(), "10.89.0.1");
        let v6 = NetworkSubnet::with_first_gateway(subnet("fd00:1::/64").unwrap());
        assert_eq!(v6.gateway.to_string(), "fd00:1::1");
    }

    proptest! {
        #[test]
        fn a_subnet_keeps_its_prefix(bits in any::<u32>(), len in 8u8..31) {
            let prefix = IpNet::new(IpAddr::V4(bits.into()), len).unwrap().trunc();
            if let Ok(subnet) = Subnet::try_from(prefix) {
                prop_assert_eq!(subnet.prefix(), prefix);
                prop_assert!(subnet.is_boundary(prefix.network()));
                prop_assert!(subnet.is_boundary(prefix.broadcast()));
                let gateway = NetworkSubnet::with_first_gateway(subnet).gateway;
                prop_assert!(prefix.contains(&gateway) && !subnet.is_boundary(gateway));
            }
        }
    }
}
