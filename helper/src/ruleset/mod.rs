//! The nftables ruleset of the router netns: from the list of networks to typed rules, to text, and
//! to one nfnetlink transaction. A table of its own (`guard`) holds endpoints to their addresses; its
//! sets change with every endpoint, alone. Another one (`fast`) takes frames of some networks past bridge
//! and routing.
//!
//! Invariant: the number of rules does not depend on the number of networks; what differs from
//! network to network stands in sets. Sources: nft(8), linux/netfilter/nf_tables.h, design.md
//! section 4 (the data path and its traps).

mod chains;
mod elements;
mod encode;
mod expression;
mod fast;
mod frames;
mod guard;
mod model;
mod nat;
mod podman;
mod ports;
mod table;
mod text;

pub use encode::{Batch, encode};
pub use fast::{Ends, MOST, Port, fast};
pub use guard::{Owner, guard};
pub use model::Ruleset;
pub use podman::{Forward, Isolation, Segment, podman};
pub use ports::{PORT_MARK, ports_by_bridge, ports_inside};

use crate::netlink::Explain;
use crate::netlink::Netlink;
use crate::request::{Failure, NetworkRules, UplinkKind};
use chains::Ways;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::{Elements, Set, SetId, TableFamily};
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Both address families, or IPv4 only where the kernel has no IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    /// IPv6 too.
    pub ipv6: bool,
}

/// The ruleset for these networks.
pub fn ruleset(networks: &[NetworkRules], families: Families) -> Ruleset {
    let ruleset = Ruleset {
        table: TableFamily::Inet,
        sets: sets(networks),
        maps: Vec::new(),
        chains: chains::chains(ways(networks)),
    };
    ruleset.for_families(families)
}

impl Ruleset {
    /// What is left of it for a kernel with these families.
    fn for_families(mut self, families: Families) -> Self {
        if !families.ipv6 {
            self.sets.retain(|set| !set.id.is_ipv6());
            self.maps.retain(|map| !map.id.is_ipv6());
            for chain in &mut self.chains {
                chain
                    .rules
                    .retain(|rule| !rule.iter().any(model::Clause::is_ipv6));
            }
        }
        self
    }
}

/// Replace the table of the netns of `netfilter`, in one transaction.
pub fn apply(netfilter: &mut Netlink, ruleset: &Ruleset) -> Result<(), Failure> {
    perform(netfilter, &encode(ruleset))
}

/// Take the table away from the netns of `netfilter`; absent is success.
pub fn remove(netfilter: &mut Netlink, ruleset: &Ruleset) -> Result<(), Failure> {
    perform(netfilter, &encode::removal(ruleset.table))
}

/// Change the sets of the bridge table by some endpoints, in one transaction.
pub fn change_owners(
    netfilter: &mut Netlink,
    gone: &[Owner],
    come: &[Owner],
    families: Families,
) -> Result<(), Failure> {
    let (gone, come) = (guard::owned(gone, families), guard::owned(come, families));
    perform(
        netfilter,
        &encode::change(TableFamily::Bridge, &gone, &come),
    )
}

fn perform(netfilter: &mut Netlink, batch: &Batch) -> Result<(), Failure> {
    netfilter
        .transaction(&batch.bytes, batch.acknowledged)
        .map_err(|refused| {
            let part = batch.describe(refused.sequence);
            let hint = hint(refused.errno, part);
            refused.failure(format!("nftables: {part}{hint}"))
        })
}

/// What a refusal of this part of the ruleset usually means.
fn hint(errno: Errno, part: &str) -> &'static str {
    let missing = matches!(
        errno,
        Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT
    );
    match part {
        _ if !missing || part.contains("elements") => "",
        _ if part.contains("tproxy") => {
            " (the kernel lacks nft_tproxy; as root: modprobe nft_tproxy)"
        }
        _ if part.contains("nat ip") => " (the kernel lacks nft_nat; as root: modprobe nft_nat)",
        _ if part.contains("fib daddr") => {
            " (the kernel lacks nft_fib_inet; as root: modprobe nft_fib_inet)"
        }
        _ if part.contains("masquerade") => {
            " (the kernel lacks nft_masq; as root: modprobe nft_masq)"
        }
        _ if part.contains("notrack") || part.contains("ct state") => {
            " (the kernel lacks nft_ct; as root: modprobe nft_ct)"
        }
        _ if part.contains("reject") => {
            " (the kernel lacks nft_reject_inet; as root: modprobe nft_reject_inet)"
        }
        _ => " (the kernel lacks nf_tables; as root: modprobe nf_tables)",
    }
}

/// By what these networks leave.
fn ways(networks: &[NetworkRules]) -> Ways {
    let any = |wanted: fn(UplinkKind) -> bool| {
        let open = networks.iter().filter(|network| !network.internal);
        open.map(|network| network.uplink).any(wanted)
    };
    Ways {
        tap: any(has_tap),
        kernel: any(|kind| kind == UplinkKind::Kernel),
    }
}

fn has_tap(kind: UplinkKind) -> bool {
    match kind {
        UplinkKind::Pasta | UplinkKind::Slirp => true,
        UplinkKind::Relay | UplinkKind::Kernel | UplinkKind::None => false,
    }
}

fn sets(networks: &[NetworkRules]) -> Vec<Set> {
    let bridges = |wanted: &dyn Fn(&NetworkRules) -> bool| {
        let chosen = networks.iter().filter(|network| wanted(network));
        Elements::Interfaces(chosen.map(|network| network.bridge.to_string()).collect())
    };
    let closed = |network: &NetworkRules| network.internal || network.uplink == UplinkKind::None;
    let via = |kind| move |network: &NetworkRules| !network.internal && network.uplink == kind;
    let ways = ways(networks);
    let (subnets4, subnets6) = subnets(networks);
    let (gateways4, gateways6) = gateways(networks);
    let always = [
        (SetId::Closed, bridges(&closed)),
        (SetId::Relay, bridges(&via(UplinkKind::Relay))),
        (SetId::Pasta, bridges(&via(UplinkKind::Pasta))),
        (SetId::Slirp, bridges(&via(UplinkKind::Slirp))),
        (SetId::Subnets4, Elements::Prefixes4(subnets4)),
        (SetId::Subnets6, Elements::Prefixes6(subnets6)),
        (SetId::Gateways4, Elements::Gateways4(gateways4)),
        (SetId::Gateways6, Elements::Gateways6(gateways6)),
        (SetId::LinkLocal, Elements::Prefixes6(chains::link_local())),
    ];
    let mut sets: Vec<Set> = always.map(|(id, elements)| Set { id, elements }).into();
    if ways.kernel {
        sets.push(Set {
            id: SetId::Kernel,
            elements: bridges(&via(UplinkKind::Kernel)),
        });
    }
    if ways.tap {
        let mut tracked: BTreeSet<String> = networks
            .iter()
            .filter(|network| !network.internal && has_tap(network.uplink))
            .map(|network| network.bridge.to_string())
            .collect();
        tracked.extend([chains::PASTA_TAP.to_owned(), chains::SLIRP_TAP.to_owned()]);
        sets.push(Set {
            id: SetId::Tracked,
            elements: Elements::Interfaces(tracked),
        });
    }
    sets
}

/// Prefixes of all networks, merged where they overlap or touch: an interval set takes each
/// address once.
fn subnets(networks: &[NetworkRules]) -> (Vec<Ipv4Net>, Vec<Ipv6Net>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for subnet in networks.iter().flat_map(|network| &network.subnets) {
        match subnet {
            IpNet::V4(net) => v4.push(net.trunc()),
            IpNet::V6(net) => v6.push(net.trunc()),
        }
    }
    (Ipv4Net::aggregate(&v4), Ipv6Net::aggregate(&v6))
}

type Pairs<A> = BTreeSet<(String, A)>;

fn gateways(networks: &[NetworkRules]) -> (Pairs<std::net::Ipv4Addr>, Pairs<std::net::Ipv6Addr>) {
    let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
    for network in networks {
        for gateway in &network.gateways {
            match gateway {
                IpAddr::V4(address) => v4.insert((network.bridge.to_string(), *address)),
                IpAddr::V6(address) => v6.insert((network.bridge.to_string(), *address)),
            };
        }
    }
    (v4, v6)
}

pub use chains::{
    KERNEL_LINK, KERNEL_MARK, PASTA_MARK, PASTA_TAP, RELAY_MARK, SLIRP_MARK, SLIRP_TAP, WHOLE_MARK,
};

#[cfg(test)]
mod tests;
