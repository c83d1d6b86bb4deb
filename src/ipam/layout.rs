//! What a user asks of a new network's prefixes: subnets, gateways, ranges, addresses set aside.
//!
//! Invariant: what comes out of [`Layout::arrange`] is whole: each gateway in its subnet and none of
//! its boundaries, each range and auxiliary address inside, nothing for two purposes.

use crate::network::subnet::SubnetError;
use crate::network::{NetworkSubnet, Subnet};
use ipnet::IpNet;
use std::net::IpAddr;

/// A wish that cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Not a prefix for a network.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// One network, two prefixes of a family.
    #[error("subnets {first} and {second} are both {family}; a network has one of each family")]
    Family {
        /// As given.
        first: IpNet,
        /// As given.
        second: IpNet,
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// In none of the subnets.
    #[error("{what} {value} lies outside {}", subnet_list(subnets))]
    Stray {
        /// `gateway`, `ip range`, `auxiliary address 'x'`.
        what: String,
        /// As given.
        value: String,
        /// Subnets that were given.
        subnets: Vec<IpNet>,
    },
    /// A second one for one subnet.
    #[error("{what} {value} is a second one for subnet {subnet}")]
    Second {
        /// `gateway` or `ip range`.
        what: &'static str,
        /// As given.
        value: String,
        /// The subnet.
        subnet: Subnet,
    },
    /// The network or broadcast address.
    #[error("{what} {address} is the {role} of {subnet}")]
    Boundary {
        /// `gateway`, `auxiliary address 'x'`.
        what: String,
        /// As given.
        address: IpAddr,
        /// What it is.
        role: &'static str,
        /// The subnet.
        subnet: Subnet,
    },
    /// A range is a prefix.
    #[error("ip range {given} has host bits set; it would be {}", given.trunc())]
    HostBits {
        /// As given.
        given: IpNet,
    },
    /// An address for two purposes.
    #[error("auxiliary address '{name}' {address} is the {other} already")]
    Taken {
        /// Its name.
        name: String,
        /// As given.
        address: IpAddr,
        /// `gateway`, `auxiliary address 'x'`.
        other: String,
    },
    /// One name, two addresses.
    #[error("auxiliary address '{0}' is given twice")]
    AuxTwice(String),
}

impl LayoutError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Subnet(_) => "give --subnet a prefix such as 192.168.7.0/24 or fd00:7::/64",
            Self::Family { .. } => "give one IPv4 and one IPv6 --subnet",
            Self::Stray { .. } => "choose one inside, or give its --subnet, too",
            Self::Second { .. } | Self::AuxTwice(_) => "leave one of them out",
            Self::Boundary { .. } | Self::Taken { .. } => "choose another address",
            Self::HostBits { .. } => "write it as a prefix",
        }
    }
}

fn subnet_list(subnets: &[IpNet]) -> String {
    let texts: Vec<_> = subnets.iter().map(IpNet::to_string).collect();
    match &texts[..] {
        [] => "every subnet, as none was given".to_owned(),
        [one] => format!("the subnet {one}"),
        several => format!("the subnets {}", several.join(", ")),
    }
}

/// As the flags were given.
#[derive(Debug, Clone, Copy, Default)]
pub struct Layout<'a> {
    /// `--subnet`.
    pub subnets: &'a [IpNet],
    /// `--gateway`.
    pub gateways: &'a [IpAddr],
    /// `--ip-range`.
    pub ip_ranges: &'a [IpNet],
    /// `--aux-address`.
    pub aux_addresses: &'a [(String, IpAddr)],
}

impl Layout<'_> {
    /// The subnets that were given, at most one of each family, with all that belongs to them.
    pub fn arrange(&self) -> Result<Vec<NetworkSubnet>, LayoutError> {
        let mut arranged: Vec<NetworkSubnet> = Vec::new();
        for prefix in self.subnets {
            let subnet = NetworkSubnet::with_first_gateway(Subnet::try_from(*prefix)?);
            let same = arranged.iter().find(|on| on.is_ipv4() == subnet.is_ipv4());
            if let Some(same) = same {
                return Err(LayoutError::Family {
                    first: same.subnet.prefix(),
                    second: *prefix,
                    family: if subnet.is_ipv4() { "IPv4" } else { "IPv6" },
                });
            }
            arranged.push(subnet);
        }
        self.set_gateways(&mut arranged)?;
        self.set_ranges(&mut arranged)?;
        self.set_aside(&mut arranged)?;
        Ok(arranged)
    }

    fn set_gateways(&self, arranged: &mut [NetworkSubnet]) -> Result<(), LayoutError> {
        let mut done: Vec<Subnet> = Vec::new();
        for gateway in self.gateways {
            let within = |on: &NetworkSubnet| on.subnet.prefix().contains(gateway);
            let on = self.home(arranged, within, || {
                ("gateway".to_owned(), gateway.to_string())
            })?;
            if done.contains(&on.subnet) {
                return Err(LayoutError::Second {
                    what: "gateway",
                    value: gateway.to_string(),
                    subnet: on.subnet,
                });
            }
            check_boundary(on.subnet, *gateway, || "gateway".to_owned())?;
            on.gateway = *gateway;
            done.push(on.subnet);
        }
        Ok(())
    }

    fn set_ranges(&self, arranged: &mut [NetworkSubnet]) -> Result<(), LayoutError> {
        for range in self.ip_ranges {
            let within = |on: &NetworkSubnet| on.subnet.prefix().contains(range);
            let on = self.home(arranged, within, || {
                ("ip range".to_owned(), range.to_string())
            })?;
            if range.trunc() != *range {
                return Err(LayoutError::HostBits { given: *range });
            }
            if on.ip_range.is_some() {
                return Err(LayoutError::Second {
                    what: "ip range",
                    value: range.to_string(),
                    subnet: on.subnet,
                });
            }
            on.ip_range = Some(*range);
        }
        Ok(())
    }

    fn set_aside(&self, arranged: &mut [NetworkSubnet]) -> Result<(), LayoutError> {
        for (index, (name, address)) in self.aux_addresses.iter().enumerate() {
            let what = || format!("auxiliary address '{}'", name.escape_debug());
            if self.aux_addresses[..index]
                .iter()
                .any(|(had, _)| had == name)
            {
                return Err(LayoutError::AuxTwice(name.clone()));
            }
            let within = |on: &NetworkSubnet| on.subnet.prefix().contains(address);
            let on = self.home(arranged, within, || (what(), address.to_string()))?;
            check_boundary(on.subnet, *address, what)?;
            let taken = |other| LayoutError::Taken {
                name: name.clone(),
                address: *address,
                other,
            };
            if *address == on.gateway {
                return Err(taken("gateway".to_owned()));
            }
            if let Some(other) = on.aux_addresses.get(address) {
                return Err(taken(format!("auxiliary address '{other}'")));
            }
            on.aux_addresses.insert(*address, name.clone());
        }
        Ok(())
    }

    /// The subnet that something lies in.
    fn home<'a>(
        &self,
        arranged: &'a mut [NetworkSubnet],
        within: impl Fn(&NetworkSubnet) -> bool,
        shown: impl Fn() -> (String, String),
    ) -> Result<&'a mut NetworkSubnet, LayoutError> {
        let found = arranged.iter_mut().find(|on| within(on));
        found.ok_or_else(|| {
            let (what, value) = shown();
            let subnets = self.subnets.to_vec();
            LayoutError::Stray {
                what,
                value,
                subnets,
            }
        })
    }
}

fn check_boundary(
    subnet: Subnet,
    address: IpAddr,
    what: impl Fn() -> String,
) -> Result<(), LayoutError> {
    if !subnet.is_boundary(address) {
        return Ok(());
    }
    let first = address == subnet.prefix().network();
    Err(LayoutError::Boundary {
        what: what(),
        address,
        role: if first {
            "network address"
        } else {
            "broadcast address"
        },
        subnet,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn arrange(
        subnets: &[&str],
        gateways: &[&str],
        ranges: &[&str],
        aux: &[(&str, &str)],
    ) -> Result<Vec<NetworkSubnet>, String> {
        let gateways: Vec<IpAddr> = gateways.iter().map(|text| text.parse().unwrap()).collect();
        let aux: Vec<_> = aux
            .iter()
            .map(|(name, text)| ((*name).to_owned(), text.parse().unwrap()))
            .collect();
        let layout = Layout {
            subnets: &nets(subnets),
            gateways: &gateways,
            ip_ranges: &nets(ranges),
            aux_addresses: &aux,
        };
        layout.arrange().map_err(|error| {
            assert!(!error.hint().is_empty());
            error.to_string()
        })
    }

    #[test]
    fn each_thing_goes_to_the_subnet_that_holds_it() {
        let arranged = arrange(
            &["192.168.0.0/16", "fd00:7::/64"],
            &["fd00:7::9", "192.168.3.1"],
            &["192.168.128.0/17"],
            &[("printer", "192.168.0.5"), ("scanner", "fd00:7::5")],
        )
        .unwrap();
        assert_eq!(arranged[0].gateway.to_string(), "192.168.3.1");
        assert_eq!(arranged[0].range().to_string(), "192.168.128.0/17");
        assert_eq!(arranged[0].aux_addresses.len(), 1);
        assert_eq!(arranged[1].gateway.to_string(), "fd00:7::9");
        assert_eq!(arranged[1].range().to_string(), "fd00:7::/64");
        assert!(arrange(&[], &[], &[], &[]).unwrap().is_empty());
    }

    type Texts = &'static [&'static str];
    type Case = (Texts, Texts, Texts, &'static [(&'static str, &'static str)]);

    const WRONG: [(Case, &str); 14] = [
        (
            (&["10.9.0.1/24"], &[], &[], &[]),
            "has host bits set; it would be 10.9.0.0/24",
        ),
        ((&["10.9.0.0/31"], &[], &[], &[]), "too small"),
        ((&["127.0.0.0/8"], &[], &[], &[]), "loopback"),
        (
            (&["10.9.0.0/24", "10.8.0.0/24"], &[], &[], &[]),
            "are both IPv4",
        ),
        (
            (&["10.9.0.0/24"], &["10.8.0.1"], &[], &[]),
            "gateway 10.8.0.1 lies outside the subnet 10.9.0.0/24",
        ),
        (
            (&[], &["10.8.0.1"], &[], &[]),
            "gateway 10.8.0.1 lies outside every subnet, as none was given",
        ),
        (
            (&["10.9.0.0/24"], &["10.9.0.0"], &[], &[]),
            "gateway 10.9.0.0 is the network address",
        ),
        (
            (&["10.9.0.0/24"], &["10.9.0.255"], &[], &[]),
            "is the broadcast address of 10.9.0.0/24",
        ),
        (
            (&["10.9.0.0/24"], &["10.9.0.1", "10.9.0.2"], &[], &[]),
            "gateway 10.9.0.2 is a second one",
        ),
        (
            (&["10.9.0.0/24"], &[], &["10.8.0.0/16"], &[]),
            "ip range 10.8.0.0/16 lies outside",
        ),
        (
            (&["10.9.0.0/24"], &[], &["10.9.0.1/25"], &[]),
            "ip range 10.9.0.1/25 has host bits set",
        ),
        (
            (&["10.9.0.0/24"], &[], &[], &[("a", "10.9.0.1")]),
            "auxiliary address 'a' 10.9.0.1 is the gateway already",
        ),
        (
            (
                &["10.9.0.0/24"],
                &[],
                &[],
                &[("a", "10.9.0.2"), ("b", "10.9.0.2")],
            ),
            "is the auxiliary address 'a' already",
        ),
        (
            (
                &["10.9.0.0/24"],
                &[],
                &[],
                &[("a", "10.9.0.2"), ("a", "10.9.0.3")],
            ),
            "'a' is given twice",
        ),
    ];

    #[test]
    fn what_cannot_be_is_said_in_one_line() {
        for ((subnets, gateways, ranges, aux), part) in WRONG {
            let error = arrange(subnets, gateways, ranges, aux).unwrap_err();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains('\n'));
        }
    }
}
