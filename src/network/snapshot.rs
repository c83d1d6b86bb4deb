//! The relay's view of the world: an immutable snapshot, made by the daemon, kept by the helper,
//! taken up whole by the relay.
//!
//! Travels as JSON. It names everything that the relay may need to know of the networks and of the
//! host's resolver configuration, since the relay has no file system to read it from.

use crate::ports::{HostLoopback, Publish};
use ipnet::IpNet;
use mossnet_helper::IfName;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Everything the relay serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Counts up with every change; for logs.
    pub generation: u64,
    /// Every network with a bridge.
    pub networks: Vec<NetworkView>,
    /// Where the host resolves names.
    pub resolver: ResolverView,
    /// Addresses of each sandbox with endpoints on several networks, in the order of its endpoints:
    /// whichever of their gateways it asks, it hears the names of them all.
    #[serde(default)]
    pub multihomed: Vec<Vec<IpAddr>>,
    /// Published ports. Each needs a listening socket, handed over before the snapshot; sockets that
    /// no publish names are closed.
    #[serde(default)]
    pub publishes: Vec<PublishView>,
    /// Sandboxes to which the host's loopback is open; to all others it is closed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_loopback: Vec<HostLoopbackView>,
    /// Addresses that stand for others, for every sandbox: the netns of another runtime knows the host so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stand_ins: Vec<StandIn>,
    /// By what traffic leaves the host; where nothing is said, as its routes have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exits: Vec<ExitView>,
    /// What is not carried for anybody.
    #[serde(default, skip_serializing_if = "Withheld::is_nothing")]
    pub withheld: Withheld,
    /// Sandboxes with resolvers of their own, instead of their network's or the host's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own_resolvers: Vec<OwnResolvers>,
}

/// An address that leads to another one: of the host's, its loopback included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandIn {
    /// What sandboxes send to.
    pub address: IpAddr,
    /// Where that arrives.
    pub leads_to: IpAddr,
}

/// By what one family leaves the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitView {
    /// IPv6 rather than IPv4.
    pub ipv6: bool,
    /// From this address of the host's.
    pub address: Option<IpAddr>,
    /// By this interface of the host's.
    pub interface: Option<String>,
}

/// Protocols that do not leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withheld {
    /// Connections.
    pub tcp: bool,
    /// Datagrams.
    pub udp: bool,
    /// Echo.
    pub icmp: bool,
}

impl Withheld {
    /// Everything is carried.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// A sandbox with resolvers of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnResolvers {
    /// Its addresses.
    pub clients: Vec<IpAddr>,
    /// Whom to ask for it, in order.
    pub servers: Vec<IpAddr>,
}

/// A sandbox that may reach the host's loopback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostLoopbackView {
    /// Its name, for logs.
    pub sandbox: String,
    /// How far.
    pub open: HostLoopback,
    /// From which of its addresses.
    pub sources: Vec<IpAddr>,
    /// The others, from which it may ask for the host's names all the same.
    pub others: Vec<IpAddr>,
}

/// A published port, or a range of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishView {
    /// Name of the sandbox, for logs and counters.
    pub sandbox: String,
    /// Which host ports lead to which container ports. Its source policy must be `gateway` where
    /// the sandbox's default route is not by the targets' network: its answers to strangers would
    /// leave by another one.
    pub publish: Publish,
    /// Addresses of the sandbox's endpoint: the first of each family counts.
    pub targets: Vec<IpAddr>,
    /// The sockets towards the sandbox are in its own network namespace: no bridge is between.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inside: bool,
    /// Who is refused at the target of its own family is led to the other one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub either_family: bool,
}

/// One network, as the relay sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkView {
    /// Network name, for logs.
    pub name: String,
    /// Its bridge in the router netns.
    pub bridge: IfName,
    /// Its prefixes.
    pub subnets: Vec<IpNet>,
    /// The router's own addresses on it, where DNS is served.
    pub gateways: Vec<IpAddr>,
    /// Nothing leaves, and DNS is not forwarded.
    pub internal: bool,
    /// Resolvers set for this network instead of the host's.
    pub dns: Vec<IpAddr>,
    /// Names and aliases of the endpoints, those by which an address is known (PTR) before others
    /// that it has. Empty on the default `bridge` and where the network's DNS is disabled: there
    /// questions are only passed on.
    pub names: Vec<NameRecord>,
}

/// A name (or alias) of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameRecord {
    /// Lower-case, without a final dot.
    pub name: String,
    /// IPv4 and IPv6 addresses of the endpoint.
    pub addresses: Vec<IpAddr>,
}

/// What the host's resolv.conf says (resolv.conf(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolverView {
    /// `nameserver` lines in order. Loopback ones work: the relay's host side is in the host netns.
    pub nameservers: Vec<IpAddr>,
    /// `search` domains.
    pub search: Vec<String>,
}
