//! The bridge table: what an endpoint sends must come from its own MAC and addresses. Frames are
//! looked at where they enter a bridge by an endpoint's port, and nowhere else: a trunk carries
//! what was looked at already, and the router is trusted.
//!
//! Dropped besides: router advertisements and redirects, answers of DHCP servers, VLAN tags, and what
//! is neither IP nor ARP. Multicast listener reports too: snooping is off, so nobody needs them, and
//! each would be flooded to every endpoint. In neighbour discovery a link-local address counts as the
//! endpoint's own where it is the one that the kernel makes of the MAC address; elsewhere any
//! link-local source passes. An ICMP error must be about what was sent to its sender, or anybody could
//! end other people's conversations with one.
//!
//! And segments of framed flows ([`crate::framed`]): they have been taken at the port, by a tap of the
//! relay, and the kernel would answer them with RST.
//!
//! Sources: RFC 792, RFC 826, RFC 4443 section 3, RFC 4861 section 4 (messages and options), RFC 5227 (ARP probes), RFC 6980,
//! RFC 7323 (timestamps).

use super::model::{
    Base, Chain, ChainKind, Clause, Elements, EtherType, Family, Hook, Own, Priority, Protocol,
    Rule, Ruleset, Set, SetId, TableFamily,
};
use super::{Families, chains};
use crate::names::MacAddr;
use std::net::IpAddr;

/// Endpoints' ports.
const PORTS: &str = "ve-";
/// Ports of DHCP servers, for IPv4 and IPv6.
const DHCP_SERVERS: [u16; 2] = [67, 547];

/// Types 130 to 137 are listener discovery (130 to 132) and neighbour discovery; 143 is a listener
/// report, version 2.
const FIRST_CHECKED: u8 = 130;
const SOLICIT: u8 = 135;
const ADVERTISE: u8 = 136;
const LAST_CHECKED: u8 = 137;
const LISTENER_REPORT: u8 = 143;
/// Errors: destination unreachable, source quench, redirect; time exceeded, parameter problem.
const ERRORS4: [(u8, u8); 2] = [(3, 5), (11, 12)];
/// Destination unreachable, packet too big, time exceeded, parameter problem.
const ERRORS6: (u8, u8) = (1, 4);
/// Payload lengths of neighbour solicitations and advertisements, without and with one link-layer
/// address option; and the kinds of that option.
const WITHOUT_OPTION: u16 = 24;
const WITH_OPTION: u16 = 32;
const SOURCE_OPTION: u8 = 1;
const TARGET_OPTION: u8 = 2;

/// An endpoint as the sets know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Interface index of its port.
    pub index: u32,
    /// Its MAC address.
    pub mac: MacAddr,
    /// All addresses that it may send from, the kernel's link-local one included.
    pub addresses: Vec<IpAddr>,
}

/// The bridge table for these endpoints.
pub fn guard(owners: &[Owner], families: Families) -> Ruleset {
    let mut sets = owned(owners, families);
    sets.push(Set {
        id: SetId::Servers,
        elements: Elements::Ports(DHCP_SERVERS.into()),
    });
    let link_local = chains::link_local().into_iter().take(1).collect();
    sets.push(Set {
        id: SetId::LinkLocal,
        elements: Elements::Prefixes6(link_local),
    });
    let ruleset = Ruleset {
        table: TableFamily::Bridge,
        sets,
        maps: Vec::new(),
        chains: vec![neighbours(), errors(), enter()],
    };
    ruleset.for_families(families)
}

/// The sets that follow the endpoints, with the elements of these.
pub fn owned(owners: &[Owner], families: Families) -> Vec<Set> {
    let macs = owners
        .iter()
        .map(|owner| (owner.index, owner.mac))
        .collect();
    let (mut own4, mut own6) = (
        std::collections::BTreeSet::new(),
        std::collections::BTreeSet::new(),
    );
    for owner in owners {
        for address in &owner.addresses {
            match address {
                IpAddr::V4(address) => {
                    own4.insert((owner.index, owner.mac, *address));
                }
                IpAddr::V6(address) => {
                    own6.insert((owner.index, owner.mac, *address));
                }
            }
        }
    }
    let mut sets = vec![
        Set {
            id: SetId::OwnMac,
            elements: Elements::Macs(macs),
        },
        Set {
            id: SetId::Own4,
            elements: Elements::Own4(own4),
        },
    ];
    if families.ipv6 {
        sets.push(Set {
            id: SetId::Own6,
            elements: Elements::Own6(own6),
        });
    }
    sets
}

/// Frames that enter a bridge. The common ones first: one look-up lets them pass.
fn enter() -> Chain {
    let own = |family| Clause::Own(Own::Source(family));
    let ipv4 = Clause::Ether(EtherType::Ipv4);
    let ipv6 = Clause::Ether(EtherType::Ipv6);
    let neighbours = |first, last| {
        vec![
            ipv6,
            Clause::Icmpv6(first, last),
            Clause::Goto("neighbours"),
        ]
    };
    let error4 = |(first, last)| vec![ipv4, Clause::Icmp(first, last), Clause::Goto("errors")];
    let (first, last) = ERRORS6;
    let rules = vec![
        vec![
            Clause::L4(Protocol::Udp),
            Clause::UdpFrom(SetId::Servers),
            Clause::IifStarts(PORTS),
            Clause::Drop,
        ],
        vec![
            Clause::NotL4(Protocol::Icmp),
            ipv4,
            own(Family::V4),
            Clause::Accept,
        ],
        vec![
            Clause::NotL4(Protocol::Icmpv6),
            ipv6,
            own(Family::V6),
            Clause::Accept,
        ],
        vec![Clause::IifStartsNot(PORTS), Clause::Accept],
        vec![Clause::ForeignMac, Clause::Drop],
        neighbours(FIRST_CHECKED, LAST_CHECKED),
        neighbours(LISTENER_REPORT, LISTENER_REPORT),
        error4(ERRORS4[0]),
        error4(ERRORS4[1]),
        vec![ipv4, own(Family::V4), Clause::Accept],
        vec![ipv6, Clause::Icmpv6(first, last), Clause::Goto("errors")],
        vec![ipv6, own(Family::V6), Clause::Accept],
        vec![
            ipv6,
            Clause::Saddr(Family::V6, SetId::LinkLocal),
            Clause::Accept,
        ],
    ];
    Chain {
        name: "enter".into(),
        base: Some(Base {
            kind: ChainKind::Filter,
            hook: Hook::Prerouting,
            priority: Priority::BridgeFilter,
            drop: true,
        }),
        devices: Vec::new(),
        rules: framed().into_iter().chain(rules).chain(arp()).collect(),
    }
}

/// Segments of framed flows. Protocol and port last: hardly a packet gets that far.
fn framed() -> [Rule; 2] {
    [Clause::Framed, Clause::FramedAnswer].map(|clause| {
        vec![
            clause,
            Clause::L4(Protocol::Tcp),
            Clause::IifStarts(PORTS),
            Clause::Drop,
        ]
    })
}

/// Who speaks ARP speaks of itself.
fn arp() -> [Rule; 2] {
    let arp = Clause::Ether(EtherType::Arp);
    let probe = vec![
        arp,
        Clause::NoSource(Family::V4),
        Clause::Own(Own::ArpMac),
        Clause::Accept,
    ];
    [
        vec![arp, Clause::Own(Own::ArpSender), Clause::Accept],
        probe,
    ]
}

/// ICMP errors, of both versions.
fn errors() -> Chain {
    let own = |kind, family| {
        let quoted = Clause::Own(Own::Quoted(family));
        let source = Clause::Own(Own::Source(family));
        vec![Clause::Ether(kind), source, quoted, Clause::Accept]
    };
    Chain {
        name: "errors".into(),
        base: None,
        devices: Vec::new(),
        rules: vec![
            own(EtherType::Ipv4, Family::V4),
            own(EtherType::Ipv6, Family::V6),
            vec![Clause::Drop],
        ],
    }
}

/// Neighbour discovery: source, target and link-layer address are the sender's own.
fn neighbours() -> Chain {
    let source = Clause::Own(Own::Source(Family::V6));
    let target = Clause::Own(Own::Target);
    let with_option = |option| {
        [
            Clause::Length(WITH_OPTION),
            Clause::NeighbourOption(option),
            Clause::Own(Own::OptionMac),
            Clause::Accept,
        ]
    };
    let without = [Clause::Length(WITHOUT_OPTION), Clause::Accept];
    let solicit = Clause::Icmpv6(SOLICIT, SOLICIT);
    let advertise = Clause::Icmpv6(ADVERTISE, ADVERTISE);
    let rule = |head: &[Clause], tail: &[Clause]| -> Rule { [head, tail].concat() };
    let rules = vec![
        // Duplicate address detection asks for one's own address.
        rule(
            &[solicit, Clause::NoSource(Family::V6), target],
            &[Clause::Accept],
        ),
        rule(&[solicit, source], &with_option(SOURCE_OPTION)),
        rule(&[solicit, source], &without),
        rule(&[advertise, source, target], &with_option(TARGET_OPTION)),
        rule(&[advertise, source, target], &without),
        vec![Clause::Drop],
    ];
    Chain {
        name: "neighbours".into(),
        base: None,
        devices: Vec::new(),
        rules,
    }
}
