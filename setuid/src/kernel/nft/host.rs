//! `table inet mossnet_host`: what uplinks may do in the host.
//!
//! * What comes by an uplink must come from its own subnets (or from the router's link-local address, for
//!   neighbour discovery): nobody's address is forged. Where the kernel can ([`Watch`]), only what comes by an uplink
//!   is asked for that, and not what comes for one.
//! * Uplinks do not reach each other, and nobody else reaches what is behind one, but for answers and
//!   published ports. The host itself does, by address: its packets are not forwarded.
//! * What leaves for the world is masqueraded.
//! * A published port is a mark on the caller's own socket. Only this program can set it, the kernel
//!   forgets it with the socket, and a socket that is not there leads nowhere: no rule outlives its port.
//!   What comes by an uplink goes to the socket instead: the way back would miss the host.

use super::expression::{
    self, Expression as E, Is, Meta, SOURCE, family, link, link_begins, transport, within,
};
use super::{Chain, Family, Hook, Map, Table};
use ipnet::IpNet;
use mossnet_netlink::IfName;
use std::borrow::Cow;
use std::net::SocketAddr;

/// How the names of all uplinks begin.
pub const PREFIX: &str = "mnu";

/// An uplink as the rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// The link in the host.
    pub name: IfName,
    /// What is behind it.
    pub subnets: Vec<IpNet>,
}

/// A published port as the rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Mark of the socket.
    pub mark: u32,
    /// Where it leads.
    pub target: SocketAddr,
}

/// Where the sources of what comes by uplinks are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// As a packet comes in by one of the links, all of which are there (Linux 5.10).
    Ingress,
    /// As any packet comes in, before its connection is looked for. The links may come later.
    Prerouting,
}

/// NF_INET_*, and priorities of linux/netfilter_ipv4.h.
/// NF_INET_INGRESS.
const INGRESS: Hook = Hook {
    kind: "filter",
    number: 5,
    priority: 0,
};
const RAW: Hook = Hook {
    kind: "filter",
    number: 0,
    priority: -300,
};
const DESTINATION: Hook = Hook {
    kind: "nat",
    number: 0,
    priority: -100,
};
const FORWARD: Hook = Hook {
    kind: "filter",
    number: 2,
    priority: 0,
};
const SOURCE_NAT: Hook = Hook {
    kind: "nat",
    number: 4,
    priority: 100,
};

/// Established (2) and related (4).
const ANSWERS: u32 = 6;
/// IPS_DST_NAT.
const TRANSLATED: u32 = 32;
/// RTN_LOCAL.
const LOCAL: u32 = libc::RTN_LOCAL as u32;

/// The table for these; none: no table.
pub fn host_table(uplinks: &[Uplink], published: &[Published], watch: Watch) -> Table {
    let family = Family::Inet;
    if uplinks.is_empty() {
        let (maps, chains) = (Vec::new(), Vec::new());
        return Table {
            family,
            maps,
            chains,
        };
    }
    let maps = vec![map(MAP_V4, published), map(MAP_V6, published)];
    let mut chains = match watch {
        Watch::Ingress => uplinks.iter().map(sources_of).collect(),
        Watch::Prerouting => vec![sources(uplinks)],
    };
    chains.extend([ports(), isolation(), masquerade(uplinks)]);
    Table {
        family,
        maps,
        chains,
    }
}

/// Name, number, and whether for IPv6.
type Target = (&'static str, u32, bool);
const MAP_V4: Target = ("published4", 1, false);
const MAP_V6: Target = ("published6", 2, true);

/// nft(8)'s types: an address, followed by a port, which fills four bytes.
const fn with_port(address: u32) -> u32 {
    const SERVICE: u32 = 13;
    address << 6 | SERVICE
}

fn map((name, id, ipv6): Target, published: &[Published]) -> Map {
    let data = if ipv6 {
        (with_port(8), 20)
    } else {
        (with_port(7), 8)
    };
    let of_family = published.iter().filter(|one| one.target.is_ipv6() == ipv6);
    let elements = of_family.map(|one| {
        let mut bytes = expression::octets(one.target.ip());
        bytes.extend(one.target.port().to_be_bytes());
        bytes.extend([0; 2]);
        (one.mark, bytes)
    });
    Map {
        name,
        id,
        data,
        elements: elements.collect(),
    }
}

fn rule(parts: &[&[E]]) -> Vec<E> {
    parts.concat()
}

/// What comes by this uplink comes from behind it.
fn sources_of(uplink: &Uplink) -> Chain {
    let subnets = uplink.subnets.iter();
    let mut rules: Vec<Vec<E>> = subnets
        .map(|subnet| rule(&[&within(subnet, SOURCE), &[E::Accept]]))
        .collect();
    rules.extend(otherwise());
    Chain {
        name: Cow::Owned(format!("sources_{}", uplink.name)),
        hook: INGRESS,
        device: Some(uplink.name.clone()),
        rules,
    }
}

/// What comes by an uplink comes from behind it.
fn sources(uplinks: &[Uplink]) -> Chain {
    let other = link_begins(Meta::Input, Is::Different, PREFIX);
    let mut rules = vec![rule(&[&other, &[E::Accept]])];
    for uplink in uplinks {
        let input = link(Meta::Input, Is::Equal, uplink.name.as_str());
        for subnet in &uplink.subnets {
            rules.push(rule(&[&input, &within(subnet, SOURCE), &[E::Accept]]));
        }
    }
    rules.extend(otherwise());
    Chain {
        name: "sources".into(),
        hook: RAW,
        device: None,
        rules,
    }
}

/// What comes from elsewhere is dropped, but for neighbour discovery.
fn otherwise() -> [Vec<E>; 2] {
    // fe80::/10 and no further: it is never forwarded.
    let discovery = [
        E::Payload(expression::Header::Network, SOURCE[1], 2),
        E::Mask(vec![0xff, 0xc0]),
        E::Compare(Is::Equal, vec![0xfe, 0x80]),
        E::Accept,
    ];
    let icmp = transport(libc::IPPROTO_ICMPV6);
    [rule(&[&family(true), &icmp, &discovery]), vec![E::Drop]]
}

fn ports() -> Chain {
    let outside = link_begins(Meta::Input, Is::Different, PREFIX);
    let here = [
        E::DestinationKind,
        E::Compare(Is::Equal, LOCAL.to_ne_bytes().to_vec()),
    ];
    let mut rules = Vec::new();
    for (name, id, ipv6) in [MAP_V4, MAP_V6] {
        let lead = [E::SocketMark, E::Map { name, id }, E::Translate { ipv6 }];
        for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
            let which = [family(ipv6), transport(protocol)].concat();
            rules.push(rule(&[&outside, &which, &here, &lead]));
        }
    }
    Chain {
        name: "ports".into(),
        device: None,
        hook: DESTINATION,
        rules,
    }
}

fn isolation() -> Chain {
    let input = link_begins(Meta::Input, Is::Equal, PREFIX);
    let output = link_begins(Meta::Output, Is::Equal, PREFIX);
    let any_of = |load: E, bits: u32| {
        [
            load,
            E::Mask(bits.to_ne_bytes().to_vec()),
            E::Compare(Is::Different, vec![0; 4]),
        ]
    };
    let answers = any_of(E::State, ANSWERS);
    let published = any_of(E::Status, TRANSLATED);
    // First what nearly every packet is: of a connection whose first packet the others have let pass.
    let rules = vec![
        rule(&[&answers, &[E::Accept]]),
        rule(&[&input, &output, &[E::Drop]]),
        rule(&[&output, &published, &[E::Accept]]),
        rule(&[&output, &[E::Drop]]),
    ];
    Chain {
        name: "isolation".into(),
        device: None,
        hook: FORWARD,
        rules,
    }
}

fn masquerade(uplinks: &[Uplink]) -> Chain {
    let outside = link_begins(Meta::Output, Is::Different, PREFIX);
    let subnets = uplinks.iter().flat_map(|uplink| &uplink.subnets);
    let rules = subnets.map(|subnet| rule(&[&outside, &within(subnet, SOURCE), &[E::Masquerade]]));
    Chain {
        name: "masquerade".into(),
        device: None,
        hook: SOURCE_NAT,
        rules: rules.collect(),
    }
}
