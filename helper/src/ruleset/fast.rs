//! The netdev table: between a container and the link to the host's network, frames pass neither bridge
//! nor routing. What a container sends to its gateway for elsewhere goes out by the link at once, what
//! comes for it goes to its port. One table look-up takes the place of a bridge, a routing decision and
//! some thirty rules: without it the extra hop costs a fifth of a rootful bridge's rate.
//!
//! Nothing depends on it: a frame that no rule is for goes the usual way, and so does everything on a
//! kernel that lacks this. Only what the usual way would let pass is sent: from the endpoint's own MAC
//! address and addresses, to the router, not to a network of ours, nor to the link alone.
//!
//! Sources: nft(8) (table family netdev, `fwd`), linux/netfilter/nf_tables.h.

use super::expression::{FIRST, NFTA_EXPR_DATA, Writer};
use super::model::{
    Base, Chain, ChainKind, Clause, Elements, EtherType, Family, Hook, Own, Priority, Rule,
    Ruleset, Set, SetId, TableFamily,
};
use super::{Families, Owner, chains, guard, subnets};
use crate::names::MacAddr;
use crate::request::NetworkRules;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_bindings::nftables::PayloadBase;
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::{finalize_nested_header, push_header, push_nested_header};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// linux/netfilter/nf_tables.h
const NFTA_FWD_SREG_DEV: u16 = 1;
/// NFT_REG32_02: the third four bytes of the first register, an interface behind a MAC address.
const THIRD: u32 = 10;

/// Most interfaces of a chain (NFT_NETDEVICE_MAX).
pub const MOST: usize = 256;

/// A container's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Name of the interface.
    pub name: String,
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

/// The table for these ports, at most [`MOST`]; `routers`: MAC addresses of their bridges; `networks`: all
/// that there are.
pub fn fast(
    ports: &[Port],
    ends: Ends,
    routers: BTreeSet<MacAddr>,
    networks: &[NetworkRules],
    families: Families,
) -> Ruleset {
    let mut chains = Vec::new();
    if !ports.is_empty() {
        chains = vec![out(ports, ends), arrive()];
    }
    let ruleset = Ruleset {
        table: TableFamily::Netdev,
        sets: sets(ports, routers, networks, families),
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

const BOTH: [(Family, EtherType); 2] =
    [(Family::V4, EtherType::Ipv4), (Family::V6, EtherType::Ipv6)];

fn out(ports: &[Port], ends: Ends) -> Chain {
    let rule = |(family, kind)| -> Rule {
        let near = match family {
            Family::V4 => SetId::Subnets4,
            Family::V6 => SetId::Subnets6,
        };
        vec![
            Clause::Ether(kind),
            Clause::EtherTo(SetId::Routers),
            Clause::Own(Own::Source(family)),
            Clause::NotDaddr(family, near),
            Clause::Readdress {
                to: ends.host,
                from: ends.router,
            },
            Clause::SendBy(ends.index),
        ]
    };
    Chain {
        name: "out",
        base: Some(base()),
        devices: ports.iter().map(|port| port.name.clone()).collect(),
        rules: BOTH.map(rule).into(),
    }
}

fn arrive() -> Chain {
    let rule = |(family, kind)| vec![Clause::Ether(kind), Clause::SendTo(family)];
    Chain {
        name: "arrive",
        base: Some(base()),
        devices: vec![chains::KERNEL_LINK.to_owned()],
        rules: BOTH.map(rule).into(),
    }
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

fn sets(
    ports: &[Port],
    routers: BTreeSet<MacAddr>,
    networks: &[NetworkRules],
    families: Families,
) -> Vec<Set> {
    // A link-local source is for the link alone.
    let routed = |address: &IpAddr| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => families.ipv6 && !address.is_unicast_link_local(),
    };
    let mut owners: Vec<Owner> = ports.iter().map(|port| port.owner.clone()).collect();
    let (mut at4, mut at6) = (BTreeMap::new(), BTreeMap::new());
    for owner in &mut owners {
        owner.addresses.retain(routed);
        for address in &owner.addresses {
            let place = (owner.mac, owner.index);
            match address {
                IpAddr::V4(address) => drop(at4.insert(*address, place)),
                IpAddr::V6(address) => drop(at6.insert(*address, place)),
            }
        }
    }
    let (subnets4, subnets6) = never_sent(networks);
    let mut sets = guard::owned(&owners, families);
    sets.retain(|set| set.id != SetId::OwnMac);
    let others = [
        (SetId::Routers, Elements::Stations(routers)),
        (SetId::Subnets4, Elements::Prefixes4(subnets4)),
        (SetId::Subnets6, Elements::Prefixes6(subnets6)),
        (SetId::At4, Elements::At4(at4)),
        (SetId::At6, Elements::At6(at6)),
    ];
    sets.extend(others.map(|(id, elements)| Set { id, elements }));
    sets
}

impl Writer<'_> {
    pub(super) fn not_daddr(&mut self, family: Family, set: SetId) {
        self.family(family);
        self.load_daddr(family, FIRST);
        self.look_up(set, true);
    }

    pub(super) fn ether_to(&mut self, set: SetId) {
        self.load_payload(PayloadBase::LinkLayerHeader, 0, 6, FIRST);
        self.look_up(set, false);
    }

    /// Both addresses stand side by side at the beginning of the frame.
    pub(super) fn readdress(&mut self, to: MacAddr, from: MacAddr) {
        let addresses = [to.octets(), from.octets()].concat();
        self.immediate(FIRST, &addresses);
        self.write_ether(addresses.len() as u32);
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

    pub(super) fn send_by(&mut self, index: u32) {
        self.immediate(FIRST, &index.to_ne_bytes());
        self.forward(FIRST);
    }

    /// The map gives both at once, into one register: the MAC address, and behind it the interface.
    pub(super) fn send_to(&mut self, family: Family) {
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
            owner: Owner {
                index,
                mac: [2, 0, 0, 0, 0, index as u8].try_into().unwrap(),
                addresses: vec![address.parse().unwrap(), "fe80::2".parse().unwrap()],
            },
        }
    }

    fn table(families: Families) -> String {
        let mac = |last: u8| MacAddr::try_from([2, 1, 0, 0, 0, last]).unwrap();
        let ends = Ends {
            index: 9,
            host: mac(1),
            router: mac(2),
        };
        let network = NetworkRules {
            bridge: "br-a".parse().unwrap(),
            subnets: vec![
                "10.4.0.0/16".parse().unwrap(),
                "fd00:4::/64".parse().unwrap(),
            ],
            gateways: Vec::new(),
            internal: false,
            uplink: UplinkKind::Kernel,
        };
        let ports = [port(5, "10.4.0.5"), port(6, "fd00:4::6")];
        let routers = [mac(3)].into();
        fast(&ports, ends, routers, &[network], families).to_string()
    }

    #[test]
    fn what_routing_would_refuse_is_not_sent() {
        let text = table(Families { ipv6: true });
        for part in [
            "devices = { ve-5, ve-6 }",
            "127.0.0.0/8",
            "10.4.0.0/16",
            "fd00:4::/64",
            "fe80::/10",
            "10.4.0.5 : 02:00:00:00:00:05 . 5",
            "fd00:4::6 : 02:00:00:00:00:06 . 6",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("fe80::2 "), "{text}");
        let ipv4 = table(Families { ipv6: false });
        assert!(!ipv4.contains("ip6") && !ipv4.contains("fd00"), "{ipv4}");
    }
}
