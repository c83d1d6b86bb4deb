//! Networks, endpoints and sandboxes, as they are stored and shown.
//!
//! Invariant: a [`Subnet`] has its host bits clear and room for a gateway and a container; what is
//! stored carries the version of its shape in the store (`state`), so fields are added with
//! `#[serde(default)]` and never change their meaning.

use super::names::{NetworkName, SandboxName};
use ipnet::IpNet;
use mossnet_helper::request::UplinkKind;
use mossnet_helper::{IfName, MacAddr, SandboxId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// Bytes. What the world outside mostly has; segmentation offload makes larger ones pointless.
pub const DEFAULT_MTU: u32 = 1500;

/// The network that sandboxes get when they ask for none.
pub const DEFAULT_NETWORK: &str = "bridge";

/// Milliseconds since 1970 UTC; models never read a clock.
pub type Millis = u64;

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
        const UNUSABLE: [&str; 7] = [
            "0.0.0.0/8",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/3",
            "::/16",
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSubnet {
    /// The prefix.
    pub subnet: Subnet,
    /// The router's address, where DNS is served.
    pub gateway: IpAddr,
}

impl NetworkSubnet {
    /// With the first address as the gateway.
    pub fn with_first_gateway(subnet: Subnet) -> Self {
        let gateway = match subnet.prefix().network() {
            IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) | 1).into()),
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) | 1).into()),
        };
        Self { subnet, gateway }
    }
}

/// How a network is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// A bridge in the router netns.
    Bridge,
}

/// A user-defined L2 segment, or the default one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Identity.
    pub id: SandboxId,
    /// Name, unique.
    pub name: NetworkName,
    /// How it is made.
    pub driver: Driver,
    /// Interface in the router netns: `br-` and twelve digits of the id.
    pub bridge: IfName,
    /// MAC address of the bridge.
    pub mac: MacAddr,
    /// At most one per address family.
    pub subnets: Vec<NetworkSubnet>,
    /// Bytes.
    pub mtu: u32,
    /// Without a way out.
    pub internal: bool,
    /// How traffic leaves.
    pub uplink: UplinkKind,
    /// Resolvers instead of the host's.
    pub dns: Vec<IpAddr>,
    /// Free for the user.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created: Millis,
}

impl Network {
    /// The router's addresses.
    pub fn gateways(&self) -> Vec<IpAddr> {
        self.subnets.iter().map(|s| s.gateway).collect()
    }

    /// Its prefixes.
    pub fn prefixes(&self) -> Vec<IpNet> {
        self.subnets.iter().map(|s| s.subnet.prefix()).collect()
    }

    /// Whether endpoints find one another by name; the default network has no name service, as in
    /// Docker.
    pub fn serves_names(&self) -> bool {
        self.name.as_str() != DEFAULT_NETWORK
    }
}

/// What joins one sandbox to one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Identity.
    pub id: SandboxId,
    /// The network's identity.
    pub network: SandboxId,
    /// Its name, which cannot change.
    pub network_name: NetworkName,
    /// The bridge.
    pub bridge: IfName,
    /// Interface in the sandbox.
    pub ifname: IfName,
    /// Router side of the pair.
    pub router_ifname: IfName,
    /// MAC address in the sandbox.
    pub mac: MacAddr,
    /// Bytes.
    pub mtu: u32,
    /// Addresses with prefix lengths, one per family of the network.
    pub addresses: Vec<IpNet>,
    /// Default gateways.
    pub gateways: Vec<IpAddr>,
    /// Names besides the sandbox's own.
    pub aliases: Vec<String>,
}

/// `--network`, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkModeRecord {
    /// On this network.
    Network(NetworkName),
    /// Loopback only.
    None,
    /// The host's netns.
    Host,
    /// Another sandbox's netns, `/etc/hosts` and `/etc/resolv.conf`.
    Container {
        /// Whose.
        id: SandboxId,
        /// Its name then.
        name: SandboxName,
    },
}

impl fmt::Display for NetworkModeRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(name) => name.fmt(f),
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container { name, .. } => write!(f, "container:{name}"),
        }
    }
}

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxPhase {
    /// Recorded; perhaps not yet made, not started.
    Created,
    /// Its first process runs.
    Running {
        /// Since.
        started: Millis,
        /// Process id in the host's pid namespace.
        pid: u32,
    },
    /// Its first process ended, and its endpoints are gone.
    Exited {
        /// When it had started, if it had.
        started: Option<Millis>,
        /// When.
        finished: Millis,
        /// As a shell reports it.
        code: i32,
    },
}

/// A container's namespaces and what runs in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Identity.
    pub id: SandboxId,
    /// Name, unique.
    pub name: SandboxName,
    /// The user chose the name, so its addresses are remembered by it.
    pub name_chosen: bool,
    /// UTS host name.
    pub hostname: String,
    /// Command and arguments.
    pub command: Vec<String>,
    /// Whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub workdir: Option<PathBuf>,
    /// Root directory where not the caller's.
    pub rootfs: Option<PathBuf>,
    /// Bounding set.
    pub capabilities: Vec<String>,
    /// Has a terminal.
    pub tty: bool,
    /// Output goes to the log.
    pub detached: bool,
    /// Removed when it ends.
    pub auto_remove: bool,
    /// Its netns.
    pub mode: NetworkModeRecord,
    /// In order of attachment; empty once it has exited.
    pub endpoints: Vec<Endpoint>,
    /// When it was recorded.
    pub created: Millis,
    /// Where it is in its life.
    pub phase: SandboxPhase,
}

impl Sandbox {
    /// Runs, or is about to.
    pub fn is_live(&self) -> bool {
        match self.phase {
            SandboxPhase::Created | SandboxPhase::Running { .. } => true,
            SandboxPhase::Exited { .. } => false,
        }
    }

    /// Marks the end of its first process; a second end changes nothing.
    pub fn exit(&mut self, finished: Millis, code: i32) {
        let started = match self.phase {
            SandboxPhase::Created => None,
            SandboxPhase::Running { started, .. } => Some(started),
            SandboxPhase::Exited { .. } => return,
        };
        self.phase = SandboxPhase::Exited {
            started,
            finished,
            code,
        };
        self.endpoints.clear();
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

/// Sample values for the tests of this and the neighbouring modules.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;
    use crate::network::names::{bridge_name, mac_for, router_ifname};

    pub(crate) fn network(name: &str, id: u8, prefix: &str) -> Network {
        let id = SandboxId::from([id; 32]);
        let subnet = Subnet::try_from(prefix.parse::<IpNet>().unwrap()).unwrap();
        let subnet = NetworkSubnet::with_first_gateway(subnet);
        Network {
            bridge: bridge_name(&id).unwrap(),
            id,
            name: name.parse().unwrap(),
            driver: Driver::Bridge,
            mac: mac_for(subnet.gateway).unwrap(),
            subnets: vec![subnet],
            mtu: DEFAULT_MTU,
            internal: false,
            uplink: UplinkKind::Relay,
            dns: Vec::new(),
            labels: BTreeMap::new(),
            created: 1,
        }
    }

    pub(crate) fn sandbox(name: &str, id: u8, network: &Network, address: &str) -> Sandbox {
        let address: IpNet = address.parse().unwrap();
        let endpoint_id = SandboxId::from([id ^ 0x80; 32]);
        let id = SandboxId::from([id; 32]);
        let endpoint = Endpoint {
            router_ifname: router_ifname(&endpoint_id).unwrap(),
            id: endpoint_id,
            network: network.id.clone(),
            network_name: network.name.clone(),
            bridge: network.bridge.clone(),
            ifname: "eth0".parse().unwrap(),
            mac: mac_for(address.addr()).unwrap(),
            mtu: network.mtu,
            addresses: vec![address],
            gateways: network.gateways(),
            aliases: Vec::new(),
        };
        Sandbox {
            hostname: id.short().to_owned(),
            id,
            name: name.parse().unwrap(),
            name_chosen: true,
            command: vec!["true".into()],
            env: Vec::new(),
            workdir: None,
            rootfs: None,
            capabilities: Vec::new(),
            tty: false,
            detached: true,
            auto_remove: false,
            mode: NetworkModeRecord::Network(network.name.clone()),
            endpoints: vec![endpoint],
            created: 1,
            phase: SandboxPhase::Created,
        }
    }
}
