//! What may be asked of `mossnet-helper`, and what it answers. Shared with the daemon.
//!
//! Invariant: a request is data of fixed, bounded size; whatever stands for power (network namespaces,
//! sockets) comes beside it as file descriptors, never as a path, a pid or a number of one. How both
//! travel: `wire`; how a program asks: `client`.

use ipnet::IpNet;
use mossnet_netlink::{IfName, MacAddr};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;

/// Most subnets of one uplink, and most addresses of one bridge port.
pub const MAX_PREFIXES: usize = 64;

/// Most sockets of one [`Publish`]; more ports take more requests.
pub const MAX_PUBLISHED: usize = 128;

/// A request. The descriptors that go with it stand beside each, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// What the caller may do, and what it has. No descriptor.
    Query,
    /// A veth pair between two network namespaces of the caller. Two descriptors: the namespaces.
    Veth(Veth),
    /// The caller's namespace becomes a port of a host bridge. One descriptor: the namespace.
    Bridge(Bridge),
    /// A way from the caller's router netns through the host. One descriptor: the router netns.
    Uplink(Uplink),
    /// Ports of the host lead to containers behind an uplink. One descriptor for each target: the
    /// caller's own listening (TCP) or bound (UDP) socket, which proves that the port is the caller's.
    Publish(Publish),
    /// A listening socket at a low port. No descriptor; the answer brings one.
    Bind(Bind),
    /// Remove something that the helper made for the caller. No descriptor.
    Release(Made),
    /// Collect what dead owners left. No descriptor.
    Gc,
}

impl Request {
    /// How many descriptors it comes with.
    pub fn descriptors(&self) -> usize {
        match self {
            Self::Query | Self::Bind(_) | Self::Release(_) | Self::Gc => 0,
            Self::Bridge(_) | Self::Uplink(_) => 1,
            Self::Veth(_) => 2,
            Self::Publish(publish) => publish.targets.len(),
        }
    }
}

/// A veth pair between two namespaces of the caller; both ends are left down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Veth {
    /// Name of the end in the first namespace; it must be free there.
    pub first: IfName,
    /// Name of the end in the second one.
    pub second: IfName,
    /// Both ends, bytes: 1,280 to 65,535.
    pub mtu: u16,
}

/// A port of a host bridge. The bridge's MTU holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// The host bridge, as the grant names it.
    pub bridge: IfName,
    /// Name of the end in the caller's namespace; it must be free there. It is left down, with the MAC
    /// address that the answer tells and may not be changed: another one's frames are dropped.
    pub inside: IfName,
    /// The addresses that may be used there, full length (/32, /128), at most [`MAX_PREFIXES`]. The
    /// link-local IPv6 address that follows from the MAC address comes without asking.
    pub addresses: Vec<IpNet>,
}

/// An uplink. Asked for again with the same namespace, the one that is there gets these subnets
/// instead of those it had, and the answer is the same: adding a network is asking again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Name of the end in the router netns; it must be free there. It is left down.
    pub inside: IfName,
    /// Both ends, bytes: 1,280 to 65,535.
    pub mtu: u16,
    /// Subnets behind it, without host bits, at most [`MAX_PREFIXES`], each within a granted one and not
    /// on any route of the host. At least one.
    pub subnets: Vec<IpNet>,
}

/// Ports of the host that lead to containers by DNAT: the container sees the client's own address.
///
/// For as long as the socket is open, in whatever process, connections that come from elsewhere go
/// straight to `target`; those of the host itself arrive at the socket as before. When its last
/// descriptor is closed, the port leads nowhere: nothing needs to be released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The uplink.
    pub uplink: Made,
    /// Container addresses, one for each socket, of its address family, within the uplink's subnets. A
    /// socket that leads somewhere already leads there instead.
    pub targets: Vec<SocketAddr>,
}

/// A socket at a granted port of the host. A TCP socket listens; both kinds are non-blocking,
/// close-on-exec, and IPv6 ones are IPv6 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind {
    /// Which kind.
    pub protocol: Protocol,
    /// An address of the host, or the unspecified one, and the port, which must be granted.
    pub address: SocketAddr,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A link that the helper made: both must fit, and it must have been made for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Interface index of the end that the helper keeps account of: in the host for a bridge port and
    /// an uplink, in the first namespace for a veth pair.
    pub index: u32,
    /// Its name.
    pub name: IfName,
}

/// What the helper answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To [`Request::Query`].
    Grants(Grants),
    /// To [`Request::Veth`].
    Veth {
        /// The end in the first namespace.
        first: Made,
        /// Index of the end in the second one, where its name is the one asked for.
        second: u32,
    },
    /// To [`Request::Bridge`].
    Bridge {
        /// The end in the host: the port.
        host: Made,
        /// Address that the end in the caller's namespace has, and must keep.
        mac: MacAddr,
        /// Bytes, as the bridge.
        mtu: u16,
    },
    /// To [`Request::Uplink`].
    Uplink(UplinkMade),
    /// To [`Request::Bind`]; one descriptor comes with it.
    Bound,
    /// To [`Request::Publish`], [`Request::Release`] and [`Request::Gc`].
    Done,
    /// Not granted, over quota, too often, not the caller's, malformed: one answer for all of them. The
    /// reason is in the system's log.
    Denied,
    /// Granted, and nevertheless not done. Nothing was changed.
    Unavailable(Unavailable),
}

/// An uplink, and what the owner of the router netns sets up at its own end: the link up, the
/// addresses, a permanent neighbour and a default route through it, for each family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkMade {
    /// The end in the host.
    pub host: Made,
    /// Its MAC address: the neighbour of both [`HOST_V4`] and [`HOST_V6`].
    pub host_mac: MacAddr,
    /// MAC address that the router's end has and must keep.
    pub router_mac: MacAddr,
}

/// Address of the host's end of every uplink, as a host address; the router's default gateway.
pub const HOST_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 79, 1);

/// What the router's end of an uplink is to be called in IPv4: the host's routes lead through it.
pub const ROUTER_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 79, 2);

/// The same as [`HOST_V4`] for IPv6.
pub const HOST_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x79, 1);

/// The same as [`ROUTER_V4`] for IPv6.
pub const ROUTER_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x79, 2);

/// Why something granted was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// A requested subnet overlaps a route or address of the host, or another live uplink.
    #[error("a subnet is in use on the host; see 'ip route', or choose another one")]
    SubnetInUse,
    /// The name or the address is taken.
    #[error("the name or address is in use already")]
    InUse,
    /// The host does not forward IPv4.
    #[error("the host does not forward IPv4; as root: sysctl -w net.ipv4.ip_forward=1")]
    Forwarding4,
    /// The host does not forward IPv6.
    #[error(
        "the host does not forward IPv6; as root: sysctl -w net.ipv6.conf.all.forwarding=1 (an interface that learns its route from router advertisements wants accept_ra=2 first)"
    )]
    Forwarding6,
    /// What was named is not there: the bridge, the address to bind.
    #[error("no such bridge or address on this host")]
    Absent,
    /// The kernel lacks a feature.
    #[error("the kernel lacks veth, bridge or nf_tables support; the system's log says which")]
    Kernel,
    /// Another request holds the record for too long.
    #[error("the helper is busy; try again")]
    Busy,
}

/// What a caller may do and has, for `mossnet doctor`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Granted verbs.
    pub verbs: Vec<Verb>,
    /// Bridges that may be joined.
    pub bridges: Vec<IfName>,
    /// Subnets that uplinks may have.
    pub subnets: Vec<IpNet>,
    /// Ports that may be bound.
    pub ports: Vec<PortRange>,
    /// Most links at a time, and how many there are.
    pub interfaces: Used,
    /// Most low ports at a time, and how many there are.
    pub bound: Used,
    /// Most published ports at a time, and how many there are.
    pub published: Used,
    /// Requests in a minute.
    pub requests_per_minute: u32,
    /// The host forwards IPv4.
    pub forwards4: bool,
    /// The host forwards IPv6.
    pub forwards6: bool,
}

/// A quota and what is used of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// The quota.
    pub most: u32,
    /// Used now.
    pub now: u32,
}

/// What a grant is about. `release`, `gc` and `query` need none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// [`Request::Veth`].
    Veth,
    /// [`Request::Bridge`].
    Bridge,
    /// [`Request::Uplink`] and [`Request::Publish`].
    Uplink,
    /// [`Request::Bind`].
    Bind,
}

/// Ports of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// Protocol.
    pub protocol: Protocol,
    /// First port.
    pub first: NonZeroU16,
    /// Last port, not below the first.
    pub last: NonZeroU16,
}

/// As grants.toml has it: `80/tcp`, `8000-8010/udp`.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        match self.first == self.last {
            true => write!(f, "{}/{protocol}", self.first),
            false => write!(f, "{}-{}/{protocol}", self.first, self.last),
        }
    }
}
