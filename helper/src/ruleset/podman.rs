//! The ruleset of the netavark drop-in, for a netns of podman: rootless podman's own, or the host's.
//!
//! Containers go out masqueraded, ports of the host lead to containers, networks are kept apart where
//! they ask for it. What netavark's own rules do, with one difference: between two networks of ours the
//! sources stay what they are. Traffic within a bridge is never touched.
//!
//! Invariant: everything else in that netns is left alone: an accept here does not outvote another
//! table, and only our bridges are named. Sources: netavark's documentation, nft(8).

use super::Families;
use super::model::{
    Base, Chain, ChainKind, Clause, Elements, Family, Hook, Priority, Rule, Ruleset, Set, SetId,
    TableFamily,
};
use super::nat::{Map, MapId, Nat, Part};
use crate::names::IfName;
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const BOTH: [Family; 2] = [Family::V4, Family::V6];
const PORTS: &str = "ports";

/// One network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its bridge.
    pub bridge: IfName,
    /// Nothing leaves it.
    pub internal: bool,
    /// Which others it reaches.
    pub isolation: Isolation,
    /// Addresses that its traffic bears outside, one of each family at most.
    pub outbound: Vec<IpAddr>,
}

/// Which other networks one reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// All.
    None,
    /// Those that are not isolated themselves.
    Isolated,
    /// None.
    Strict,
}

/// One port of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Of one address of the host; absent: of all.
    pub host_addr: Option<IpAddr>,
    /// Number of the transport protocol.
    pub protocol: u8,
    /// Port.
    pub host_port: u16,
    /// Address and port of the container, of the same family as `host_addr`.
    pub target: SocketAddr,
}

/// The ruleset for these networks and ports. Of several who want a port, the first has it.
pub fn podman(segments: &[Segment], forwards: &[Forward], families: Families) -> Ruleset {
    let ruleset = Ruleset {
        table: TableFamily::Podman,
        sets: sets(segments),
        maps: maps(segments, forwards),
        chains: vec![
            chain(PORTS, None, ports()),
            chain("prerouting", nat(Hook::Prerouting), vec![to_ports()]),
            chain("output", nat(Hook::Output), vec![to_ports()]),
            chain("postrouting", nat(Hook::Postrouting), postrouting()),
            chain("forward", filter(), forward()),
        ],
    };
    ruleset.for_families(families)
}

fn chain(name: &'static str, base: Option<Base>, rules: Vec<Rule>) -> Chain {
    Chain {
        name: name.into(),
        base,
        devices: Vec::new(),
        rules,
    }
}

fn nat(hook: Hook) -> Option<Base> {
    let priority = match hook {
        Hook::Postrouting => Priority::Srcnat,
        Hook::Prerouting | Hook::Input | Hook::Forward | Hook::Output | Hook::Ingress => {
            Priority::Dstnat
        }
    };
    Some(Base {
        kind: ChainKind::Nat,
        hook,
        priority,
        drop: false,
    })
}

fn filter() -> Option<Base> {
    Some(Base {
        kind: ChainKind::Filter,
        hook: Hook::Forward,
        priority: Priority::Filter,
        drop: false,
    })
}

fn to_ports() -> Rule {
    vec![Clause::Nat(Nat::ToThisHost), Clause::Goto(PORTS)]
}

/// Ports of one address before those of all.
fn ports() -> Vec<Rule> {
    let rules = |family| [Nat::PortAt(family), Nat::Port(family)];
    let rules = BOTH.into_iter().flat_map(rules);
    rules.map(|nat| vec![Clause::Nat(nat)]).collect()
}

fn postrouting() -> Vec<Rule> {
    vec![
        // A container that reaches itself, or a neighbour, by a port of the host, and this host itself: the
        // answer must come back this way.
        vec![
            Clause::Nat(Nat::LeavesAsItCame),
            Clause::Nat(Nat::Translated),
            Clause::Masquerade,
        ],
        // So must the answer to the host's own loopback.
        vec![
            Clause::Nat(Nat::FromLoopback),
            Clause::OifIn(SetId::Bridges),
            Clause::Masquerade,
        ],
        vec![Clause::OifIn(SetId::Bridges), Clause::Accept],
        vec![
            Clause::IifIn(SetId::Bridges),
            Clause::NotForHost,
            Clause::Accept,
        ],
        vec![Clause::Nat(Nat::Source(Family::V4))],
        vec![Clause::Nat(Nat::Source(Family::V6))],
        vec![Clause::IifIn(SetId::Bridges), Clause::Masquerade],
    ]
}

fn forward() -> Vec<Rule> {
    let between = |from, to| vec![Clause::IifIn(from), Clause::OifIn(to), Clause::Drop];
    vec![
        vec![Clause::Nat(Nat::LeavesAsItCame), Clause::Accept],
        vec![Clause::IifIn(SetId::Closed), Clause::Drop],
        vec![Clause::OifIn(SetId::Closed), Clause::Drop],
        between(SetId::Strict, SetId::Bridges),
        between(SetId::Bridges, SetId::Strict),
        between(SetId::Isolated, SetId::Isolated),
    ]
}

fn sets(segments: &[Segment]) -> Vec<Set> {
    let bridges = |id, wanted: &dyn Fn(&Segment) -> bool| {
        let chosen = segments.iter().filter(|segment| wanted(segment));
        let names = chosen.map(|segment| segment.bridge.to_string()).collect();
        Set {
            id,
            elements: Elements::Interfaces(names),
        }
    };
    let loopback = Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8).into_iter();
    vec![
        bridges(SetId::Bridges, &|_| true),
        bridges(SetId::Closed, &|segment| segment.internal),
        bridges(SetId::Isolated, &|segment| {
            segment.isolation != Isolation::None
        }),
        bridges(SetId::Strict, &|segment| {
            segment.isolation == Isolation::Strict
        }),
        Set {
            id: SetId::Loopback,
            elements: Elements::Prefixes4(loopback.collect()),
        },
    ]
}

fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

fn maps(segments: &[Segment], forwards: &[Forward]) -> Vec<Map> {
    let bridges: BTreeSet<&IfName> = segments.iter().map(|segment| &segment.bridge).collect();
    let interface = |name: &IfName| Part::Interface(name.to_string());
    // From nowhere come packets of this host, and in br_netfilter's view those that stay on a bridge.
    let nowhere = Part::Interface(String::new());
    let loops = bridges.into_iter().flat_map(|name| {
        let origins = [interface(name), nowhere.clone()];
        origins.map(|origin| (vec![origin, interface(name)], Vec::new()))
    });
    let mut maps = vec![Map {
        id: MapId::Loops,
        entries: loops.collect(),
    }];
    for family in BOTH {
        let of_family = |forward: &&Forward| family_of(forward.target.ip()) == family;
        let (mut at, mut anywhere) = (BTreeMap::new(), BTreeMap::new());
        for forward in forwards.iter().filter(of_family) {
            let mut key = vec![
                Part::Protocol(forward.protocol),
                Part::Port(forward.host_port),
            ];
            let target = &forward.target;
            let value = vec![Part::Address(target.ip()), Part::Port(target.port())];
            match forward
                .host_addr
                .filter(|address| !address.is_unspecified())
            {
                Some(address) => {
                    key.insert(0, Part::Address(address));
                    at.entry(key).or_insert(value);
                }
                None => {
                    anywhere.entry(key).or_insert(value);
                }
            }
        }
        let mut sources = BTreeMap::new();
        for segment in segments {
            let outbound = segment.outbound.iter();
            for address in outbound.filter(|address| family_of(**address) == family) {
                let key = vec![interface(&segment.bridge)];
                sources.entry(key).or_insert(vec![Part::Address(*address)]);
            }
        }
        let entries = |map: BTreeMap<_, _>| map.into_iter().collect();
        maps.extend([
            Map {
                id: MapId::PortsAt(family),
                entries: entries(at),
            },
            Map {
                id: MapId::Ports(family),
                entries: entries(anywhere),
            },
            Map {
                id: MapId::Sources(family),
                entries: entries(sources),
            },
        ]);
    }
    maps
}
