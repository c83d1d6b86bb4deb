//! The netdev table: between a container and the link to the host's network, frames pass neither bridge
//! nor routing. What a container sends to its gateway for elsewhere goes out by the link at once, what
//! comes for it goes to its port. A few comparisons take the place of a bridge, a routing decision and
//! some thirty rules: without it the extra hop costs a fifth of a rootful bridge's rate.
//!
//! Each port has a chain of its own, so that what its frames must begin with is one constant, fetched and
//! compared at once; sets for all ports took three look-ups and four fetches for each frame.
//!
//! Nothing depends on it: a frame that no rule is for goes the usual way, and so does everything on a
//! kernel that lacks this. Only what the usual way would let pass is sent: from the endpoint's own MAC
//! address and addresses, to the router, not to a network of ours, nor to the link alone.
//!
//! Sources: nft(8) (table family netdev, `fwd`), linux/netfilter/nf_tables.h.

use super::expression::{FIRST, NFTA_EXPR_DATA, Writer};
use super::model::{
    Base, Chain, ChainKind, Clause, Elements, EtherType, Family, Hook, Priority, Rule, Ruleset,
    Set, SetId, TableFamily,
};
use super::{Families, Owner, chains, subnets};
use crate::names::MacAddr;
use crate::request::NetworkRules;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_bindings::nftables::{CmpOps, MetaKeys, PayloadBase};
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::{finalize_nested_header, push_header, push_nested_header};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// linux/netfilter/nf_tables.h
const NFTA_FWD_SREG_DEV: u16 = 1;
/// NFT_REG32_02: the third four bytes of the first register, an interface behind a MAC address.
const THIRD: u32 = 10;

/// Most ports: the table is made anew as a whole whenever one comes or goes.
pub const MOST: usize = 256;

/// Most addresses of one family that are compared one after the other to find a port; the look-up in a map costs as much
/// as four.
const FEW_PORTS: usize = 4;

/// Most IPv4 prefixes that are compared one after the other; more of them are a set, whose look-up costs as much as
/// ten. IPv6 addresses are too long for the comparisons that the kernel is quick at.
const FEW: usize = 8;

/// A match or a statement of this table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The whole Ethernet header is this. A tagged frame has something else where the type stands.
    Head {
        /// Destination.
        to: MacAddr,
        /// Source.
        from: MacAddr,
        /// Type.
        kind: EtherType,
    },
    /// The type of the frame as the kernel has it, which looks past a VLAN tag.
    Protocol(EtherType),
    /// Source of an IP packet.
    From(IpAddr),
    /// Destination of an IP packet.
    To(IpAddr),
    /// Destination not in this prefix.
    NotTo(Ipv4Net),
    /// Destination in none of the prefixes of this family's set.
    Outside(Family),
    /// Give the frame this destination and this source.
    Readdress {
        /// Destination.
        to: MacAddr,
        /// Source.
        from: MacAddr,
    },
    /// Give the frame this destination.
    Deliver(MacAddr),
    /// Send it out of the interface with this index.
    SendBy(u32),
    /// Send it to the MAC address and out of the interface that a map has for its destination.
    SendTo(Family),
}

impl Step {
    /// Makes sense with IPv6 only.
    pub fn is_ipv6(self) -> bool {
        match self {
            Self::Head { kind, .. } | Self::Protocol(kind) => kind == EtherType::Ipv6,
            Self::From(address) | Self::To(address) => address.is_ipv6(),
            Self::Outside(family) | Self::SendTo(family) => family == Family::V6,
            Self::NotTo(_) | Self::Readdress { .. } | Self::Deliver(_) | Self::SendBy(_) => false,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head { to, from, kind } => {
                write!(f, "ether daddr {to} ether saddr {from} ether type {kind}")
            }
            Self::Protocol(kind) => write!(f, "meta protocol {kind}"),
            Self::From(IpAddr::V4(address)) => write!(f, "ip saddr {address}"),
            Self::From(IpAddr::V6(address)) => write!(f, "ip6 saddr {address}"),
            Self::To(IpAddr::V4(address)) => write!(f, "ip daddr {address}"),
            Self::To(IpAddr::V6(address)) => write!(f, "ip6 daddr {address}"),
            Self::NotTo(prefix) => write!(f, "ip daddr != {prefix}"),
            Self::Outside(Family::V4) => f.write_str("ip daddr != @subnets4"),
            Self::Outside(Family::V6) => f.write_str("ip6 daddr != @subnets6"),
            Self::Readdress { to, from } => {
                write!(f, "ether daddr set {to} ether saddr set {from}")
            }
            Self::Deliver(to) => write!(f, "ether daddr set {to}"),
            Self::SendBy(index) => write!(f, "fwd to {index}"),
            Self::SendTo(Family::V4) => f.write_str("fwd to ip daddr map @at4"),
            Self::SendTo(Family::V6) => f.write_str("fwd to ip6 daddr map @at6"),
        }
    }
}

/// A container's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Name of the interface.
    pub name: String,
    /// MAC address of its bridge.
    pub router: MacAddr,
    /// Whose it is.
    pub owner: Owner,
}

/// The link to the host's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Interface of the router's end.
    pub index: u32,
    /// MAC address of the host's end.
    pub host: MacAddr,
    /// MAC address of the router's end.
    pub router: MacAddr,
}

/// The table for these ports, at most [`MOST`]; `networks`: all that there are.
pub fn fast(ports: &[Port], ends: Ends, networks: &[NetworkRules], families: Families) -> Ruleset {
    let (near4, near6) = never_sent(networks);
    let outside = |from: &IpAddr| match from {
        IpAddr::V4(_) if near4.len() <= FEW => near4.iter().copied().map(Step::NotTo).collect(),
        IpAddr::V4(_) => vec![Step::Outside(Family::V4)],
        IpAddr::V6(_) => vec![Step::Outside(Family::V6)],
    };
    let chains = ports.iter().map(|port| out(port, ends, &outside));
    let mut chains: Vec<Chain> = chains.collect();
    let (at4, at6) = places(ports);
    if !ports.is_empty() {
        chains.push(arrive(&at4, &at6));
    }
    let sets = [
        (SetId::Subnets4, Elements::Prefixes4(near4)),
        (SetId::Subnets6, Elements::Prefixes6(near6)),
        (SetId::At4, Elements::At4(at4)),
        (SetId::At6, Elements::At6(at6)),
    ];
    let ruleset = Ruleset {
        table: TableFamily::Netdev,
        sets: sets.map(|(id, elements)| Set { id, elements }).into(),
        maps: Vec::new(),
        chains,
    };
    ruleset.for_families(families)
}

fn base() -> Base {
    Base {
        kind: ChainKind::Filter,
        hook: Hook::Ingress,
        priority: Priority::Filter,
        drop: false,
    }
}

/// IPv4 first, which most packets are. A link-local source is for the link alone.
fn routed(port: &Port) -> Vec<IpAddr> {
    let is_routed = |address: &IpAddr| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    };
    let all = port.owner.addresses.iter().copied();
    let mut addresses: Vec<IpAddr> = all.filter(is_routed).collect();
    addresses.sort_unstable();
    addresses
}

/// `outside`: goes to none of our networks, nor where routing would refuse; of packets from this address.
fn out(port: &Port, ends: Ends, outside: &dyn Fn(&IpAddr) -> Vec<Step>) -> Chain {
    let rule = |from: IpAddr| -> Rule {
        let head = Step::Head {
            to: port.router,
            from: port.owner.mac,
            kind: match from {
                IpAddr::V4(_) => EtherType::Ipv4,
                IpAddr::V6(_) => EtherType::Ipv6,
            },
        };
        let readdress = Step::Readdress {
            to: ends.host,
            from: ends.router,
        };
        let mut steps = vec![head, Step::From(from)];
        steps.extend(outside(&from));
        steps.extend([readdress, Step::SendBy(ends.index)]);
        steps.into_iter().map(Clause::Fast).collect()
    };
    Chain {
        name: format!("out_{}", port.name).into(),
        base: Some(base()),
        devices: vec![port.name.clone()],
        rules: routed(port).into_iter().map(rule).collect(),
    }
}

/// Where what comes for an address goes: the MAC address, and the interface.
type Place = (MacAddr, u32);

fn places(ports: &[Port]) -> (BTreeMap<Ipv4Addr, Place>, BTreeMap<Ipv6Addr, Place>) {
    let (mut at4, mut at6) = (BTreeMap::new(), BTreeMap::new());
    for port in ports {
        let place = (port.owner.mac, port.owner.index);
        for address in routed(port) {
            match address {
                IpAddr::V4(address) => drop(at4.insert(address, place)),
                IpAddr::V6(address) => drop(at6.insert(address, place)),
            }
        }
    }
    (at4, at6)
}

/// What the host sends bears no VLAN tag.
fn arrive(at4: &BTreeMap<Ipv4Addr, Place>, at6: &BTreeMap<Ipv6Addr, Place>) -> Chain {
    let v4 = deliver(Family::V4, EtherType::Ipv4, at4);
    let v6 = deliver(Family::V6, EtherType::Ipv6, at6);
    Chain {
        name: "arrive".into(),
        base: Some(base()),
        devices: vec![chains::KERNEL_LINK.to_owned()],
        rules: v4.into_iter().chain(v6).collect(),
    }
}

/// Each address to its port.
fn deliver<A>(family: Family, kind: EtherType, places: &BTreeMap<A, Place>) -> Vec<Rule>
where
    A: Copy + Into<IpAddr>,
{
    let fast = |steps: Vec<Step>| steps.into_iter().map(Clause::Fast).collect();
    if places.len() > FEW_PORTS {
        return vec![fast(vec![Step::Protocol(kind), Step::SendTo(family)])];
    }
    let rule = |(address, (mac, index)): (&A, &Place)| {
        fast(vec![
            Step::Protocol(kind),
            Step::To((*address).into()),
            Step::Deliver(*mac),
            Step::SendBy(*index),
        ])
    };
    places.iter().map(rule).collect()
}

/// Networks of ours, and what routing would not let pass: this host, loopback, multicast and what is
/// reserved, the router's link to the relay; of IPv6 link-local addresses too.
const NEVER: [&str; 8] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.77.0/24",
    "224.0.0.0/3",
    "::/127",
    "::ffff:0:0/96",
    "fe80::/10",
    "ff00::/8",
];

fn never_sent(networks: &[NetworkRules]) -> (Vec<Ipv4Net>, Vec<Ipv6Net>) {
    let (mut v4, mut v6) = subnets(networks);
    for prefix in NEVER.iter().filter_map(|text| text.parse().ok()) {
        match prefix {
            IpNet::V4(prefix) => v4.push(prefix),
            IpNet::V6(prefix) => v6.push(prefix),
        }
    }
    (Ipv4Net::aggregate(&v4), Ipv6Net::aggregate(&v6))
}

impl Writer<'_> {
    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Head { to, from, kind } => self.head(to, from, kind),
            Step::Protocol(kind) => self.ether_protocol(kind),
            Step::From(address) => self.address(address, Self::load_saddr),
            Step::To(address) => self.address(address, Self::load_daddr),
            Step::NotTo(prefix) => self.not_to(prefix),
            Step::Outside(family) => self.outside(family),
            // Both addresses stand side by side at the beginning of the frame.
            Step::Readdress { to, from } => self.begin_with(&[to.octets(), from.octets()].concat()),
            Step::Deliver(to) => self.begin_with(&to.octets()),
            Step::SendBy(index) => self.send_by(index),
            Step::SendTo(family) => self.send_to(family),
        }
    }

    fn outside(&mut self, family: Family) {
        self.family(family);
        self.load_daddr(family, FIRST);
        let set = match family {
            Family::V4 => SetId::Subnets4,
            Family::V6 => SetId::Subnets6,
        };
        self.look_up(set, true);
    }

    fn not_to(&mut self, prefix: Ipv4Net) {
        self.family(Family::V4);
        self.load_daddr(Family::V4, FIRST);
        self.mask(&prefix.netmask().octets());
        self.compare(CmpOps::Neq, &prefix.network().octets());
    }

    fn head(&mut self, to: MacAddr, from: MacAddr, kind: EtherType) {
        self.family = kind.family();
        let addresses = [to.octets(), from.octets()].concat();
        let head = [&addresses[..], &kind.number().to_be_bytes()].concat();
        self.load_payload(PayloadBase::LinkLayerHeader, 0, head.len() as u32, FIRST);
        self.compare(CmpOps::Eq, &head);
    }

    fn address(&mut self, address: IpAddr, load: fn(&mut Self, Family, u32)) {
        let (family, octets) = match address {
            IpAddr::V4(address) => (Family::V4, address.octets().to_vec()),
            IpAddr::V6(address) => (Family::V6, address.octets().to_vec()),
        };
        self.family(family);
        load(self, family, FIRST);
        self.compare(CmpOps::Eq, &octets);
    }

    /// What the kernel took the frame for, which is at hand; of the header it would have to be fetched.
    fn ether_protocol(&mut self, kind: EtherType) {
        self.family = kind.family();
        self.load_meta(MetaKeys::Protocol);
        self.compare(CmpOps::Eq, &kind.number().to_be_bytes());
    }

    fn begin_with(&mut self, bytes: &[u8]) {
        self.immediate(FIRST, bytes);
        self.write_ether(bytes.len() as u32);
    }

    fn write_ether(&mut self, length: u32) {
        self.element(|expression| {
            expression
                .nested_data_payload()
                .push_base(PayloadBase::LinkLayerHeader as u32)
                .push_offset(0)
                .push_len(length)
                .push_sreg(FIRST)
                .end_nested();
        });
    }

    fn send_by(&mut self, index: u32) {
        self.immediate(FIRST, &index.to_ne_bytes());
        self.forward(FIRST);
    }

    /// The map gives both at once, into one register: the MAC address, and behind it the interface.
    fn send_to(&mut self, family: Family) {
        self.family(family);
        self.load_daddr(family, FIRST);
        let map = match family {
            Family::V4 => SetId::At4,
            Family::V6 => SetId::At6,
        };
        self.look_up_named(map.name(), Some(FIRST), 0);
        self.write_ether(6);
        self.forward(THIRD);
    }

    /// Send by the interface in a register. `netlink_bindings` 0.3 lacks this expression.
    fn forward(&mut self, register: u32) {
        self.element(|expression| {
            let mut expression = expression.push_name(c"fwd");
            let bytes = expression.as_vec_mut();
            let data = push_nested_header(bytes, NFTA_EXPR_DATA);
            push_header(bytes, NFTA_FWD_SREG_DEV, 4);
            bytes.extend_from_slice(&register.to_be_bytes());
            finalize_nested_header(bytes, data);
            expression.end_nested().end_nested();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::UplinkKind;

    fn port(index: u32, address: &str) -> Port {
        Port {
            name: format!("ve-{index}"),
            router: [2, 1, 0, 0, 0, 3].try_into().unwrap(),
            owner: Owner {
                index,
                mac: [2, 0, 0, 0, 0, index as u8].try_into().unwrap(),
                addresses: vec![address.parse().unwrap(), "fe80::2".parse().unwrap()],
            },
        }
    }

    fn table(families: Families, more: u8) -> String {
        table_of(&[port(5, "10.4.0.5"), port(6, "fd00:4::6")], families, more)
    }

    fn table_of(ports: &[Port], families: Families, more: u8) -> String {
        let mac = |last: u8| MacAddr::try_from([2, 1, 0, 0, 0, last]).unwrap();
        let ends = Ends {
            index: 9,
            host: mac(1),
            router: mac(2),
        };
        let own = ["10.4.0.0/16", "fd00:4::/64"].map(str::to_owned);
        let others = (0..more).map(|number| format!("10.{}.0.0/16", 6 + 2 * number));
        let subnets = own.into_iter().chain(others);
        let network = NetworkRules {
            bridge: "br-a".parse().unwrap(),
            subnets: subnets.map(|text| text.parse().unwrap()).collect(),
            gateways: Vec::new(),
            internal: false,
            uplink: UplinkKind::Kernel,
        };
        fast(ports, ends, &[network], families).to_string()
    }

    #[test]
    fn what_routing_would_refuse_is_not_sent() {
        let text = table(Families { ipv6: true }, 0);
        for part in [
            "devices = { ve-5 }",
            "ether daddr 02:01:00:00:00:03 ether saddr 02:00:00:00:00:05 ether type ip ip saddr 10.4.0.5",
            "devices = { ve-6 }",
            "ether saddr 02:00:00:00:00:06 ether type ip6 ip6 saddr fd00:4::6",
            "127.0.0.0/8",
            "10.4.0.0/16",
            "fd00:4::/64",
            "fe80::/10",
            "meta protocol ip ip daddr 10.4.0.5 ether daddr set 02:00:00:00:00:05 fwd to 5",
            "meta protocol ip6 ip6 daddr fd00:4::6 ether daddr set 02:00:00:00:00:06 fwd to 6",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("fe80::2 "), "{text}");
        let ipv4 = table(Families { ipv6: false }, 0);
        assert!(!ipv4.contains("ip6") && !ipv4.contains("fd00"), "{ipv4}");
    }

    #[test]
    fn few_ports_are_compared_and_many_are_a_map() {
        let ports = |count| -> Vec<Port> {
            let ports = (1..=count).map(|number| port(number, &format!("10.4.0.{number}")));
            ports.collect()
        };
        let most = FEW_PORTS as u32;
        let few = table_of(&ports(most), Families { ipv6: true }, 0);
        assert!(
            few.contains("ip daddr 10.4.0.4 ether daddr set 02:00:00:00:00:04 fwd to 4"),
            "{few}"
        );
        assert!(!few.contains("map @at4"), "{few}");
        let many = table_of(&ports(most + 1), Families { ipv6: true }, 0);
        assert!(many.contains("fwd to ip daddr map @at4"), "{many}");
        assert!(many.contains("10.4.0.5 : 02:00:00:00:00:05 . 5"), "{many}");
        assert!(!many.contains("ip daddr 10.4.0.5"), "{many}");
    }

    #[test]
    fn few_destinations_are_compared_and_many_are_a_set() {
        let few = table(Families { ipv6: false }, 3);
        assert!(few.contains("ip daddr != 10.10.0.0/16"), "{few}");
        assert!(!few.contains("!= @subnets4"), "{few}");
        let many = table(Families { ipv6: false }, 4);
        assert!(many.contains("ip daddr != @subnets4"), "{many}");
        assert!(!many.contains("ip daddr != 1"), "{many}");
    }
}
