//! What a ruleset consists of. Only what mossnet uses: each clause has one meaning, one text, one
//! encoding.

use ipnet::{Ipv4Net, Ipv6Net};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Name of the one table, family inet.
pub const TABLE: &str = "mossnet";

/// A whole table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// Sets, before the chains that look them up.
    pub sets: Vec<Set>,
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
}

impl SetId {
    /// Name in the kernel.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Relay => "relay",
            Self::Pasta => "pasta",
            Self::Slirp => "slirp",
            Self::Tracked => "tracked",
            Self::Subnets4 => "subnets4",
            Self::Subnets6 => "subnets6",
            Self::Gateways4 => "gateways4",
            Self::Gateways6 => "gateways6",
            Self::LinkLocal => "link_local",
        }
    }

    /// Holds IPv6 addresses.
    pub fn is_ipv6(self) -> bool {
        matches!(self, Self::Subnets6 | Self::Gateways6 | Self::LinkLocal)
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
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Name.
    pub name: &'static str,
    /// Where it is called from; absent: by [`Clause::Goto`] only.
    pub base: Option<Base>,
    /// In order.
    pub rules: Vec<Rule>,
}

/// Where a base chain hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Translates addresses rather than filters.
    pub nat: bool,
    /// Hook.
    pub hook: Hook,
    /// Priority among the chains of that hook.
    pub priority: Priority,
    /// What happens to a packet at the end of the chain: dropped, else accepted.
    pub drop: bool,
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
}

/// Named priorities, nft(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Before connection tracking.
    Raw,
    /// Where marks are set.
    Mangle,
    /// Where packets are filtered.
    Filter,
    /// Source address translation.
    Srcnat,
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
}

impl Clause {
    /// Makes sense with IPv6 only.
    pub fn is_ipv6(&self) -> bool {
        match self {
            Self::Daddr(family, _)
            | Self::IifDaddr(family, _)
            | Self::HopsBelow(family, _)
            | Self::Tproxy(family) => *family == Family::V6,
            Self::L4(protocol) => *protocol == Protocol::Icmpv6,
            Self::Iif(_)
            | Self::IifStarts(_)
            | Self::IifStartsNot(_)
            | Self::IifIn(_)
            | Self::IifNotIn(_)
            | Self::Oif(_)
            | Self::OifIn(_)
            | Self::TcpOpens(_)
            | Self::NotForHost
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

/// Transport protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMPv6.
    Icmpv6,
}
