//! Requests and answers of the API about networks. What is shown of a network has Docker's shape
//! (`docker network inspect`), with our own facts beside it.

use super::port_types::{HostLoopback, PortsPublish};
use super::types::Uplink;
use ipnet::IpNet;
use mossnet_helper::bandwidth::Bandwidth;
use mossnet_helper::{MacAddr, SandboxId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// `POST /v1/networks`: make a network. Lists are as the flags were given; each gateway, range and
/// auxiliary address belongs to the subnet that holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkCreate {
    /// Name, unique.
    pub name: String,
    /// Absent: `bridge`, the only one.
    #[serde(default)]
    pub driver: Option<String>,
    /// At most one for each address family. None of a family that is wanted: the next free one.
    #[serde(default)]
    pub subnets: Vec<IpNet>,
    /// Absent: the first address of the subnet.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// Endpoints get addresses out of this part of the subnet only.
    #[serde(default)]
    pub ip_ranges: Vec<IpNet>,
    /// Addresses that no endpoint gets, by name.
    #[serde(default)]
    pub aux_addresses: Vec<(String, IpAddr)>,
    /// With an IPv6 subnet, were it one of our own choice.
    #[serde(default)]
    pub ipv6: bool,
    /// Without a way out.
    #[serde(default)]
    pub internal: bool,
    /// Free for the user.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `-o key=value`: `mtu`, `isolate`, `icc`, `mode`, `vlan`, `host_loopback`, `host_ports`, and
    /// Docker's and podman's names.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Resolvers instead of the host's.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Without a name service.
    #[serde(default)]
    pub disable_dns: bool,
    /// How traffic leaves; absent: the relay.
    #[serde(default)]
    pub uplink: Option<Uplink>,
}

/// One `--network`, or the body of a connect: how a sandbox joins a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkAttach {
    /// Name, id, or an unambiguous beginning of an id, 4 digits at least.
    pub network: String,
    /// Fixed IPv4 address.
    #[serde(default)]
    pub ip: Option<Ipv4Addr>,
    /// Fixed IPv6 address.
    #[serde(default)]
    pub ip6: Option<Ipv6Addr>,
    /// Fixed MAC address.
    #[serde(default)]
    pub mac_address: Option<MacAddr>,
    /// Further names on this network.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Name of the interface in the sandbox; absent: the first free `ethN`.
    #[serde(default)]
    pub interface_name: Option<String>,
    /// The default route goes through the network with the highest; among equals, through the one
    /// joined first.
    #[serde(default)]
    pub gw_priority: i32,
    /// How fast it may be, seen from the sandbox.
    #[serde(default, skip_serializing_if = "Bandwidth::is_unlimited")]
    pub bandwidth: Bandwidth,
}

/// `--link SANDBOX[:ALIAS]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The sandbox that is to be known by name.
    pub sandbox: String,
    /// A further name for it.
    #[serde(default)]
    pub alias: Option<String>,
}

/// A link of a sandbox, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LinkInfo {
    /// Name of the sandbox that is linked to.
    pub name: String,
    /// A further name for it.
    pub alias: Option<String>,
}

/// `POST /v1/netns`: make a sandbox without a process: a network namespace with endpoints, for a
/// runtime that brings its own processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetnsCreate {
    /// Absent: made up.
    #[serde(default)]
    pub name: Option<String>,
    /// A further name on its networks, and its own in `/etc/hosts`; absent: the short id.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Networks, in order; empty: the default `bridge`. A lone `none`: loopback only.
    #[serde(default)]
    pub networks: Vec<NetworkAttach>,
    /// Sandboxes that it shall know by name.
    #[serde(default)]
    pub links: Vec<Link>,
    /// How far the host's loopback is open to it: `all`, or ports as `5432,8000-8010,53/udp`.
    #[serde(default)]
    pub host_loopback: Option<HostLoopback>,
}

/// Over the stdio socket, with one descriptor: make another runtime's network namespace a sandbox without a
/// process. Only a removal ends it, or the end of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetnsAdopt {
    /// As of one that is made.
    pub netns: NetnsCreate,
    /// Ports on the host.
    #[serde(default)]
    pub publish: PortsPublish,
    /// Removed when this process ends, in the host's pid namespace.
    #[serde(default)]
    pub ends_with: Option<u32>,
}

/// Answer to the creation of a network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsCreated {
    /// Full id.
    pub id: SandboxId,
    /// Leads to the namespace while it lives: `/proc/<helper>/fd/<n>`.
    pub path: PathBuf,
    /// Things that are degraded, one line each.
    pub warnings: Vec<String>,
}

/// `POST /v1/networks/{network}/connect`. `attach.network` is that of the path, and may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConnect {
    /// Which sandbox.
    pub sandbox: String,
    /// How it joins.
    #[serde(flatten)]
    pub attach: ConnectOptions,
}

/// What `network connect` can say besides network and sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectOptions {
    /// Fixed IPv4 address.
    #[serde(default)]
    pub ip: Option<Ipv4Addr>,
    /// Fixed IPv6 address.
    #[serde(default)]
    pub ip6: Option<Ipv6Addr>,
    /// Fixed MAC address.
    #[serde(default)]
    pub mac_address: Option<MacAddr>,
    /// Further names on this network.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Sandboxes that it shall know by name.
    #[serde(default)]
    pub links: Vec<Link>,
    /// Name of the interface in the sandbox.
    #[serde(default)]
    pub interface_name: Option<String>,
    /// See [`NetworkAttach::gw_priority`].
    #[serde(default)]
    pub gw_priority: i32,
    /// See [`NetworkAttach::bandwidth`].
    #[serde(default, skip_serializing_if = "Bandwidth::is_unlimited")]
    pub bandwidth: Bandwidth,
}

/// `POST /v1/networks/{network}/disconnect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkDisconnect {
    /// Which sandbox.
    pub sandbox: String,
    /// Also where the kernel does not take its endpoint down in order. Not being connected is an error all
    /// the same.
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/networks/prune`: remove every network that nobody uses, predefined ones aside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkPrune {
    /// Only those that match all of these: `until`, `label`, `label!` (as `docker network prune`).
    #[serde(default)]
    pub filters: Vec<(String, String)>,
}

/// Answer to a prune.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pruned {
    /// Names of the networks that were removed.
    pub networks_deleted: Vec<String>,
}

/// One network: an element of `GET /v1/networks`, and `GET /v1/networks/{network}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkInfo {
    /// Name.
    pub name: String,
    /// Full id.
    pub id: SandboxId,
    /// RFC 3339, UTC; of a predefined one without a record, 1970.
    pub created: String,
    /// Always `local`.
    pub scope: String,
    /// `bridge`, `host` or `null`.
    pub driver: String,
    /// Has an IPv4 subnet.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    /// Has an IPv6 subnet.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Its prefixes.
    #[serde(rename = "IPAM")]
    pub ipam: IpamInfo,
    /// Without a way out.
    pub internal: bool,
    /// As Docker shows it; always false or empty, as are the next three.
    pub attachable: bool,
    /// See [`Self::attachable`].
    pub ingress: bool,
    /// See [`Self::attachable`].
    pub config_from: ConfigFrom,
    /// See [`Self::attachable`].
    pub config_only: bool,
    /// Live endpoints, by the full id of their sandbox.
    pub containers: BTreeMap<SandboxId, ContainerInfo>,
    /// As given at creation, under our own names.
    pub options: BTreeMap<String, String>,
    /// Free for the user.
    pub labels: BTreeMap<String, String>,
    /// Interface in the router netns.
    pub bridge: Option<String>,
    /// How traffic leaves.
    pub uplink: Uplink,
    /// Bytes.
    pub mtu: Option<u32>,
    /// Endpoints find one another by name.
    pub dns_enabled: bool,
    /// Resolvers instead of the host's.
    pub dns: Vec<IpAddr>,
    /// Addresses remembered for sandboxes that do not run.
    pub leases: Vec<LeaseInfo>,
}

/// Docker's network that another has its configuration from; there are none here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConfigFrom {
    /// Always empty.
    pub network: String,
}

/// Prefixes of a network, as Docker shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct IpamInfo {
    /// Always `default`.
    pub driver: String,
    /// Always empty.
    pub options: BTreeMap<String, String>,
    /// One for each address family.
    pub config: Vec<IpamConfig>,
}

/// One prefix of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct IpamConfig {
    /// The prefix.
    pub subnet: IpNet,
    /// Endpoints get addresses out of this part only.
    #[serde(rename = "IPRange", default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<IpNet>,
    /// The router's address.
    pub gateway: IpAddr,
    /// Addresses that no endpoint gets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub auxiliary_addresses: BTreeMap<String, IpAddr>,
}

/// One endpoint, as Docker shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerInfo {
    /// Name of the sandbox.
    pub name: String,
    /// Endpoint id.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: SandboxId,
    /// MAC address in the sandbox.
    pub mac_address: MacAddr,
    /// With prefix length; empty without one.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// With prefix length; empty without one.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

/// An address that is kept for a sandbox of this name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LeaseInfo {
    /// Name of the sandbox.
    pub name: String,
    /// Without prefix length.
    pub addresses: Vec<IpAddr>,
    /// RFC 3339, UTC.
    pub granted: String,
}
