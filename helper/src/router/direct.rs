//! A router that serves one namespace, which has an address of the *host's* network and the host's own
//! gateway: the pasta drop-in.
//!
//! There is no bridge. The namespace believes itself in the host's network, whose every address is behind
//! this router, so that nobody could answer its questions for neighbours, IPv6's least of all. So it asks
//! none: both ends of the pair have one MAC address and IFF_NOARP, and each frame that the namespace sends,
//! to whomever, is for this router. The ruleset tells the end here by its name, which begins as bridges' do.
//!
//! Invariant: nothing is left of the pair where a step fails.
//!
//! Sources: arp(7), net/ipv6/ndisc.c (ndisc_constructor), ip-link(8).

use super::{Router, ready, require_link, usable};
use crate::names::{IfName, MacAddr};
use crate::namespace::in_netns;
use crate::netlink::{
    Explain, Netlink, PrefixRoute, Route, RouteKind, Wire, add_address, add_prefix_route, add_route,
};
use crate::request::Failure;
use crate::router::link_failure;
use crate::ruleset::Families;
use crate::sysctl;
use ipnet::IpNet;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// Every network namespace calls its loopback so.
const LOOPBACK: &str = "lo";

/// What the one namespace is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Direct {
    /// The end here; `br-` and more.
    pub router_ifname: IfName,
    /// The end there.
    pub ifname: IfName,
    /// Of both ends.
    pub mac: MacAddr,
    /// Bytes.
    pub mtu: u32,
    /// Its addresses, with the prefixes that it takes for its own network.
    pub addresses: Vec<IpNet>,
    /// Its default routes: at most one for each family.
    pub gateways: Vec<IpAddr>,
    /// Prefixes of everything, for families without such a neighbour.
    pub linked: Vec<IpNet>,
    /// Addresses that this router answers at.
    pub own: Vec<IpAddr>,
}

impl Router {
    /// Join the namespace to this router.
    pub fn join(&mut self, spec: &Direct, netns: BorrowedFd<'_>) -> Result<(), Failure> {
        let wire = Wire {
            name: &spec.router_ifname,
            peer_name: &spec.ifname,
            mac: spec.mac,
            peer_netns: netns,
            mtu: spec.mtu,
        };
        self.route.add_wire(wire).map_err(|refused| {
            let what = format!("create {} in the network namespace", spec.ifname);
            link_failure(refused, &what, "veth")
        })?;
        let result = self.complete_wire(spec, netns);
        if result.is_err() {
            let _ = self.remove_link(&spec.router_ifname);
        }
        result
    }

    fn complete_wire(&mut self, spec: &Direct, netns: BorrowedFd<'_>) -> Result<(), Failure> {
        let (name, families) = (spec.router_ifname.as_str(), self.families);
        let index = require_link(&mut self.route, name)?;
        if families.ipv6 {
            in_netns(self.netns.as_fd(), || sysctl::set_ipv6(name, true))?;
        }
        let own: Vec<IpNet> = spec.own.iter().copied().map(IpNet::from).collect();
        for address in usable(&own, families) {
            add_address(&mut self.route, index, address)
                .map_err(|e| e.failure(format!("give {name} the address {address}")))?;
        }
        for address in usable(&spec.addresses, families) {
            let route = PrefixRoute {
                destination: address.addr().into(),
                kind: RouteKind::Link,
                metric: None,
            };
            add_prefix_route(&mut self.route, &route, index)
                .map_err(|e| e.failure(format!("set the route to {address}")))?;
        }
        in_netns(netns, || configure(spec, families))?;
        let router = self.netns.as_fd();
        let changes = || in_netns(router, ready::changes);
        ready::carrier(&mut self.route, &spec.router_ifname, changes)
    }
}

/// Runs inside the namespace.
fn configure(spec: &Direct, families: Families) -> Result<(), Failure> {
    let mut route = Netlink::route().map_err(|e| Failure::kernel("open rtnetlink", e))?;
    let lo = require_link(&mut route, LOOPBACK)?;
    route.set_up(lo).map_err(|e| e.failure("set lo up"))?;
    let name = spec.ifname.as_str();
    sysctl::prepare_guest(name);
    let index = require_link(&mut route, name)?;
    for address in usable(&spec.addresses, families) {
        add_address(&mut route, index, address)
            .map_err(|e| e.failure(format!("give {name} the address {address}")))?;
    }
    route
        .set_up_without_arp(index)
        .map_err(|e| e.failure(format!("set {name} up")))?;
    let known = |gateway: &IpAddr| families.ipv6 || gateway.is_ipv4();
    for gateway in spec.gateways.iter().copied().filter(known) {
        let via = Route::Via {
            gateway,
            index,
            table: libc::RT_TABLE_MAIN.into(),
        };
        add_route(&mut route, via)
            .map_err(|e| e.failure(format!("set the default route via {gateway}")))?;
    }
    for everything in usable(&spec.linked, families) {
        let out = PrefixRoute {
            destination: everything,
            kind: RouteKind::Link,
            metric: None,
        };
        add_prefix_route(&mut route, &out, index)
            .map_err(|e| e.failure(format!("set the default route by {name}")))?;
    }
    ready::carrier(&mut route, &spec.ifname, ready::changes)
}
