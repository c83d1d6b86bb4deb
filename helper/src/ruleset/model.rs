//! What a ruleset consists of. Only what mossnet uses: each clause has one meaning, one text, one
//! encoding.

use super::fast::Step;
use super::nat::{Map, Nat};
use super::ports::Answer;
pub use super::table::TableFamily;
use crate::names::MacAddr;
use ipnet::{Ipv4Net, Ipv6Net};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A whole table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// Whose packets it sees.
    pub table: TableFamily,
    /// Sets, before the chains that look them up.
    pub sets: Vec<Set>,
    /// Maps, likewise.
    pub maps: Vec<Map>,
    /// Chains; those gone to before those that go there.
    pub chains: Vec<Chain>,
}

/// A named set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Which.
    pub id: SetId,
    /// What it holds.
    pub elements: Elements,
}

/// The sets there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetId {
    /// Bridges without a way out.
    Closed,
    /// Bridges whose traffic the relay carries.
    Relay,
    /// Bridges whose traffic pasta carries.
    Pasta,
    /// Bridges whose traffic slirp4netns carries.
    Slirp,
    /// Bridges whose traffic the host's kernel carries.
    Kernel,
    /// Where IPv4 addresses are: the endpoint's MAC address and port.
    At4,
    /// The same for IPv6 addresses.
    At6,
    /// Interfaces whose traffic is translated by the kernel, and so tracked.
    Tracked,
    /// IPv4 prefixes of all networks.
    Subnets4,
    /// IPv6 prefixes of all networks.
    Subnets6,
    /// Each bridge with the router's own IPv4 addresses on it.
    Gateways4,
    /// Each bridge with the router's own IPv6 addresses on it.
    Gateways6,
    /// IPv6 link-local and multicast destinations.
    LinkLocal,
    /// Each port of a bridge with the MAC address of its endpoint.
    OwnMac,
    /// The same with each IPv4 address of the endpoint.
    Own4,
    /// The same with each IPv6 address.
    Own6,
    /// UDP ports that DHCP servers answer from.
    Servers,
    /// Every bridge of the netavark drop-in.
    Bridges,
    /// Those that do not reach each other.
    Isolated,
    /// Those that reach no other bridge at all.
    Strict,
    /// 127.0.0.0/8.
    Loopback,
}

impl SetId {
    /// Name in the kernel.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Relay => "relay",
            Self::Pasta => "pasta",
            Self::Slirp => "slirp",
            Self::Kernel => "kernel",
            Self::At4 => "at4",
            Self::At6 => "at6",
            Self::Tracked => "tracked",
            Self::Subnets4 => "subnets4",
            Self::Subnets6 => "subnets6",
            Self::Gateways4 => "gateways4",
            Self::Gateways6 => "gateways6",
            Self::LinkLocal => "link_local",
            Self::OwnMac => "own_mac",
            Self::Own4 => "own4",
            Self::Own6 => "own6",
            Self::Servers => "servers",
            Self::Bridges => "bridges",
            Self::Isolated => "isolated",
            Self::Strict => "strict",
            Self::Loopback => "loopback",
        }
    }

    /// Holds IPv6 addresses.
    pub fn is_ipv6(self) -> bool {
        matches!(
            self,
            Self::Subnets6 | Self::Gateways6 | Self::LinkLocal | Self::Own6 | Self::At6
        )
    }
}

/// The elements of a set, which also say its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Elements {
    /// `ifname`.
    Interfaces(BTreeSet<String>),
    /// `ipv4_addr`, intervals.
    Prefixes4(Vec<Ipv4Net>),
    /// `ipv6_addr`, intervals.
    Prefixes6(Vec<Ipv6Net>),
    /// `ifname . ipv4_addr`.
    Gateways4(BTreeSet<(String, Ipv4Addr)>),
    /// `ifname . ipv6_addr`.
    Gateways6(BTreeSet<(String, Ipv6Addr)>),
    /// `iface_index . ether_addr`. By index: names are four times as long to hash for every frame.
    Macs(BTreeSet<(u32, MacAddr)>),
    /// `iface_index . ether_addr . ipv4_addr`.
    Own4(BTreeSet<(u32, MacAddr, Ipv4Addr)>),
    /// `iface_index . ether_addr . ipv6_addr`.
    Own6(BTreeSet<(u32, MacAddr, Ipv6Addr)>),
    /// `inet_service`.
    Ports(BTreeSet<u16>),
    /// A map: `ipv4_addr : ether_addr . iface_index`.
    At4(BTreeMap<Ipv4Addr, (MacAddr, u32)>),
    /// A map: `ipv6_addr : ether_addr . iface_index`.
    At6(BTreeMap<Ipv6Addr, (MacAddr, u32)>),
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Name.
    pub name: Cow<'static, str>,
    /// Where it is called from; absent: by [`Clause::Goto`] only.
    pub base: Option<Base>,
    /// Interfaces that it hangs at, with [`Hook::Ingress`].
    pub devices: Vec<String>,
    /// In order.
    pub rules: Vec<Rule>,
}

/// Where a base chain hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// What its rules do.
    pub kind: ChainKind,
    /// Hook.
    pub hook: Hook,
    /// Priority among the chains of that hook.
    pub priority: Priority,
    /// What happens to a packet at the end of the chain: dropped, else accepted.
    pub drop: bool,
}

/// What rules of a base chain do with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Match and mark them.
    Filter,
    /// Translate their addresses.
    Nat,
    /// The same as filters, and have them routed anew by a new mark.
    Route,
}

/// Netfilter hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// After routing.
    Postrouting,
    /// As a frame comes in.
    Ingress,
}

/// Named priorities, nft(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Before connection tracking.
    Raw,
    /// Where marks are set.
    Mangle,
    /// Destination address translation.
    Dstnat,
    /// Where packets are filtered.
    Filter,
    /// Source address translation.
    Srcnat,
    /// Where a bridge filters.
    BridgeFilter,
}

/// Clauses from left to right.
pub type Rule = Vec<Clause>;

/// An address family within the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A match or a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clause {
    /// Came in on this interface.
    Iif(&'static str),
    /// Came in on an interface whose name starts so.
    IifStarts(&'static str),
    /// Came in on another interface.
    IifStartsNot(&'static str),
    /// Came in on one of these.
    IifIn(SetId),
    /// Came in on none of these.
    IifNotIn(SetId),
    /// The Ethernet type of the frame; a VLAN tag is a type of its own.
    Ether(EtherType),
    /// Port, source MAC address and source address in a set of the endpoints' own (or of MAC
    /// addresses alone).
    Own(Own),
    /// Port and source MAC address not in the set of the endpoints' own.
    ForeignMac,
    /// Source in a set of prefixes.
    Saddr(Family, SetId),
    /// The unspecified source: `::`, or ARP's `0.0.0.0`.
    NoSource(Family),
    /// ICMP types from one to another.
    Icmp(u8, u8),
    /// ICMPv6 types from one to another.
    Icmpv6(u8, u8),
    /// Payload length of an IPv6 packet.
    Length(u16),
    /// The first option of neighbour discovery is of this kind, 8 bytes long.
    NeighbourOption(u8),
    /// UDP source port in a set.
    UdpFrom(SetId),
    /// Bears what a segment of a framed flow bears ([`crate::framed`]), if it is TCP.
    Framed,
    /// The same of a segment that answers the SYN of such a flow, where the option comes later.
    FramedAnswer,
    /// Another transport protocol.
    NotL4(Protocol),
    /// Goes out of this interface.
    Oif(&'static str),
    /// Goes out of one of these.
    OifIn(SetId),
    /// Transport protocol.
    L4(Protocol),
    /// A TCP segment that opens a connection (or one that does not).
    TcpOpens(bool),
    /// Not addressed to this host at link level: broadcast, multicast.
    NotForHost,
    /// Destination in a set of prefixes.
    Daddr(Family, SetId),
    /// Interface and destination in a set of pairs.
    IifDaddr(Family, SetId),
    /// TTL or hop limit below.
    HopsBelow(Family, u8),
    /// An IPv4 packet that no router may fragment.
    DontFragment,
    /// Carries this mark.
    Mark(u32),
    /// Belongs to a connection seen before.
    Reply,
    /// Give it this mark.
    SetMark(u32),
    /// Hand it to the transparent listener on loopback, port 7000.
    Tproxy(Family),
    /// Go on in another chain, for good.
    Goto(&'static str),
    /// Let it pass.
    Accept,
    /// Lose it.
    Drop,
    /// Refuse it: ICMP administratively prohibited.
    Reject,
    /// Translate the source address to that of the outgoing interface.
    Masquerade,
    /// Keep connection tracking off it.
    Untracked,
    /// Address translation in all its parts.
    Nat(Nat),
    /// What the ports of one container take.
    Answer(Answer),
    /// What the fast path asks and does.
    Fast(Step),
}

impl Clause {
    /// Makes sense with IPv6 only.
    pub fn is_ipv6(&self) -> bool {
        match self {
            Self::Daddr(family, _)
            | Self::IifDaddr(family, _)
            | Self::HopsBelow(family, _)
            | Self::Saddr(family, _)
            | Self::NoSource(family)
            | Self::Tproxy(family) => *family == Family::V6,
            Self::L4(protocol) | Self::NotL4(protocol) => *protocol == Protocol::Icmpv6,
            Self::Ether(kind) => *kind == EtherType::Ipv6,
            Self::Fast(step) => step.is_ipv6(),
            Self::Own(own) => own.is_ipv6(),
            Self::Nat(nat) => nat.is_ipv6(),
            Self::Answer(answer) => answer.is_ipv6(),
            Self::Icmpv6(..) | Self::Length(_) | Self::NeighbourOption(_) => true,
            Self::Iif(_)
            | Self::IifStarts(_)
            | Self::IifStartsNot(_)
            | Self::IifIn(_)
            | Self::IifNotIn(_)
            | Self::ForeignMac
            | Self::Icmp(..)
            | Self::UdpFrom(_)
            | Self::Framed
            | Self::FramedAnswer
            | Self::Oif(_)
            | Self::OifIn(_)
            | Self::TcpOpens(_)
            | Self::NotForHost
            | Self::DontFragment
            | Self::Mark(_)
            | Self::Reply
            | Self::SetMark(_)
            | Self::Goto(_)
            | Self::Accept
            | Self::Drop
            | Self::Reject
            | Self::Masquerade
            | Self::Untracked => false,
        }
    }
}

/// Types of Ethernet frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtherType {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// ARP.
    Arp,
}

impl EtherType {
    /// As the header has it (ETH_P_*).
    pub fn number(self) -> u16 {
        let number = match self {
            Self::Ipv4 => libc::ETH_P_IP,
            Self::Ipv6 => libc::ETH_P_IPV6,
            Self::Arp => libc::ETH_P_ARP,
        };
        number as u16
    }

    /// The family of packets in such frames.
    pub fn family(self) -> Option<Family> {
        match self {
            Self::Ipv4 => Some(Family::V4),
            Self::Ipv6 => Some(Family::V6),
            Self::Arp => None,
        }
    }
}

/// What a frame claims for its sender, to be looked up together with the port that it came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// Source MAC and source address of an IP packet.
    Source(Family),
    /// Sender's MAC and address in ARP.
    ArpSender,
    /// Sender's MAC in ARP.
    ArpMac,
    /// Source MAC, and the target address of neighbour discovery.
    Target,
    /// The link-layer address in the first option of neighbour discovery.
    OptionMac,
    /// Source MAC, and the destination of the packet that an ICMP error is about.
    Quoted(Family),
}

impl Own {
    /// The set to look it up in.
    pub fn set(self) -> SetId {
        match self {
            Self::Source(Family::V4) | Self::Quoted(Family::V4) | Self::ArpSender => SetId::Own4,
            Self::Source(Family::V6) | Self::Quoted(Family::V6) | Self::Target => SetId::Own6,
            Self::ArpMac | Self::OptionMac => SetId::OwnMac,
        }
    }

    fn is_ipv6(self) -> bool {
        match self {
            Self::Source(family) | Self::Quoted(family) => family == Family::V6,
            Self::Target | Self::OptionMac => true,
            Self::ArpSender | Self::ArpMac => false,
        }
    }
}

/// Transport protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
    /// ICMPv6.
    Icmpv6,
}

/// Two NOPs, then kind and length of the timestamp option of TCP (RFC 7323, appendix A).
pub const TIMESTAMP_HEAD: u32 = 0x0101_080a;

/// Kind and length of that option alone.
pub const TIMESTAMP_KIND: u16 = 0x080a;

/// Flags of a segment that answers a SYN.
pub const SYN_AND_ACK: u8 = 0x12;

/// Kind and length (8 bytes, in units of 8) of an option of neighbour discovery.
pub fn option_head(kind: u8) -> u16 {
    u16::from(kind) << 8 | 1
}

impl Protocol {
    /// As IP headers carry it.
    pub fn number(self) -> u8 {
        let number = match self {
            Self::Tcp => libc::IPPROTO_TCP,
            Self::Udp => libc::IPPROTO_UDP,
            Self::Icmp => libc::IPPROTO_ICMP,
            Self::Icmpv6 => libc::IPPROTO_ICMPV6,
        };
        number as u8
    }
}

impl Family {
    /// NFPROTO_IPV4 or NFPROTO_IPV6.
    pub fn number(self) -> u8 {
        match self {
            Self::V4 => libc::NFPROTO_IPV4 as u8,
            Self::V6 => libc::NFPROTO_IPV6 as u8,
        }
    }
}
