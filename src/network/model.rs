//! Networks and endpoints, as they are stored and shown.
//!
//! Invariant: what is stored carries the version of its shape in the store (`state`), so fields are
//! added with `#[serde(default)]` and never change their meaning.

use super::names::NetworkName;
use super::subnet::NetworkSubnet;
use crate::ports::HostLoopback;
use ipnet::IpNet;
use mossnet_helper::bandwidth::Bandwidth;
use mossnet_helper::request::UplinkKind;
use mossnet_helper::{IfName, MacAddr, SandboxId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Bytes. What the world outside mostly has; segmentation offload makes larger ones pointless.
pub const DEFAULT_MTU: u32 = 1500;

/// The network that sandboxes get when they ask for none.
pub const DEFAULT_NETWORK: &str = "bridge";

/// Names that no network of a user's can have: Docker's predefined ones, and words of `--network`.
pub const RESERVED_NETWORKS: [&str; 5] = [DEFAULT_NETWORK, "host", "none", "default", "container"];

/// Milliseconds since 1970 UTC; models never read a clock.
pub type Millis = u64;

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
    /// Without a name service.
    #[serde(default)]
    pub disable_dns: bool,
    /// Endpoints reach one another.
    #[serde(default = "yes")]
    pub icc: bool,
    /// VLAN that its frames are in.
    #[serde(default)]
    pub vlan: Option<u16>,
    /// The bridge has no IPv4 address.
    #[serde(default)]
    pub inhibit_ipv4: bool,
    /// Interfaces in sandboxes are named so, with a number behind; else `eth`.
    #[serde(default)]
    pub ifname_prefix: Option<String>,
    /// How far the host's loopback is open to whoever is on it.
    #[serde(default)]
    pub host_loopback: Option<HostLoopback>,
    /// Every option that was given, as it is shown.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

fn yes() -> bool {
    true
}

impl Network {
    /// Whether it is the one that is always there.
    pub fn is_default(&self) -> bool {
        self.name.as_str() == DEFAULT_NETWORK
    }

    /// The router's addresses.
    pub fn gateways(&self) -> Vec<IpAddr> {
        self.routed().map(|s| s.gateway).collect()
    }

    /// The subnets in which the router has its address.
    pub fn routed(&self) -> impl Iterator<Item = &NetworkSubnet> {
        let inhibited = self.inhibit_ipv4;
        self.subnets
            .iter()
            .filter(move |on| !(inhibited && on.is_ipv4()))
    }

    /// Its prefixes.
    pub fn prefixes(&self) -> Vec<IpNet> {
        self.subnets.iter().map(|s| s.subnet.prefix()).collect()
    }

    /// Whether endpoints find one another by name; the default network has no name service, as in
    /// Docker.
    pub fn serves_names(&self) -> bool {
        !self.is_default() && !self.disable_dns
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
    /// The router's addresses on the network.
    pub gateways: Vec<IpAddr>,
    /// Names besides the sandbox's own.
    pub aliases: Vec<String>,
    /// The default route goes through the highest.
    #[serde(default)]
    pub gw_priority: i32,
    /// The network has no way out, and so gives no default route.
    #[serde(default)]
    pub internal: bool,
    /// The network has a name service.
    #[serde(default)]
    pub named: bool,
    /// How fast it may be.
    #[serde(default)]
    pub bandwidth: Bandwidth,
}

/// How a sandbox is to join a network, whenever it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network's identity.
    pub network: SandboxId,
    /// Its name.
    pub network_name: NetworkName,
    /// Fixed addresses, at most one per family.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Fixed MAC address.
    #[serde(default)]
    pub mac: Option<MacAddr>,
    /// Names besides the sandbox's own.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Fixed name of the interface in the sandbox.
    #[serde(default)]
    pub ifname: Option<IfName>,
    /// The default route goes through the highest.
    #[serde(default)]
    pub gw_priority: i32,
    /// How fast it may be.
    #[serde(default)]
    pub bandwidth: Bandwidth,
    /// What it had when the sandbox ran last.
    #[serde(default)]
    pub last: Vec<IpAddr>,
}

/// Sample values for the tests of this and the neighbouring modules.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;
    use crate::network::Subnet;
    use crate::network::names::{bridge_name, mac_for, router_ifname};
    use crate::network::sandbox::{NetworkModeRecord, Sandbox, SandboxPhase};

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
            disable_dns: false,
            icc: true,
            vlan: None,
            inhibit_ipv4: false,
            ifname_prefix: None,
            host_loopback: None,
            options: BTreeMap::new(),
        }
    }

    /// An endpoint called `ethN`.
    pub(crate) fn endpoint(id: u8, network: &Network, address: &str, number: u32) -> Endpoint {
        let address: IpNet = address.parse().unwrap();
        let endpoint_id = SandboxId::from([id; 32]);
        Endpoint {
            router_ifname: router_ifname(&endpoint_id).unwrap(),
            id: endpoint_id,
            network: network.id.clone(),
            network_name: network.name.clone(),
            bridge: network.bridge.clone(),
            ifname: format!("eth{number}").parse().unwrap(),
            mac: mac_for(address.addr()).unwrap(),
            mtu: network.mtu,
            addresses: vec![address],
            gateways: network.gateways(),
            aliases: Vec::new(),
            gw_priority: 0,
            internal: network.internal,
            named: network.serves_names(),
            bandwidth: Bandwidth::default(),
        }
    }

    /// How it joins without a wish.
    pub(crate) fn attachment(network: &Network) -> Attachment {
        Attachment {
            network: network.id.clone(),
            network_name: network.name.clone(),
            addresses: Vec::new(),
            mac: None,
            aliases: Vec::new(),
            ifname: None,
            gw_priority: 0,
            bandwidth: Bandwidth::default(),
            last: Vec::new(),
        }
    }

    pub(crate) fn sandbox(name: &str, id: u8, network: &Network, address: &str) -> Sandbox {
        let endpoint = endpoint(id ^ 0x80, network, address, 0);
        let id = SandboxId::from([id; 32]);
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
            interactive: false,
            tty: false,
            detached: true,
            auto_remove: false,
            mode: NetworkModeRecord::Network(network.name.clone()),
            attachments: vec![attachment(network)],
            endpoints: vec![endpoint],
            links: Vec::new(),
            publishes: Vec::new(),
            host_loopback: None,
            dns: Vec::new(),
            dns_search: Vec::new(),
            add_host: Vec::new(),
            bare: false,
            adopted: None,
            former: None,
            created: 1,
            phase: SandboxPhase::Created,
        }
    }
}
