//! Endpoints: veth pairs between a bridge and a sandbox, and the default routes of sandboxes.
//!
//! Invariant: what an endpoint may send from is known before its interface is up; an attach that fails
//! leaves no interface, record or overflow bridge behind.

use super::ready;
use super::rush::Inside;
use super::segment::{Endpoint, MOST_ENDPOINTS, MOST_OVERFLOWS, Place};
use super::shape::turnaround;
use super::{Router, link_failure, require_link, usable};
use crate::names::{IfName, MacAddr};
use crate::namespace::in_netns;
use crate::netlink::Explain;
use crate::netlink::{
    BridgePort, LinkKind, Netlink, Route, add_address, add_route, default_routes, remove_route,
};
use crate::request::{DefaultRoute, EndpointSpec, Failure};
use crate::ruleset::Families;
use crate::sysctl;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

impl Router {
    /// Join a sandbox to a bridge.
    pub fn attach(&mut self, spec: &EndpointSpec, sandbox: BorrowedFd<'_>) -> Result<(), Failure> {
        let place = self.place_for(spec)?;
        let result = self.attach_at(spec, place, sandbox);
        if result.is_err() {
            let _ = self.drop_empty_overflows(&spec.bridge);
        }
        self.renew_fast_path();
        result
    }

    /// A bridge of the segment with a free port; made where it is missing.
    fn place_for(&mut self, spec: &EndpointSpec) -> Result<Place, Failure> {
        let absent = || Failure::not_found(format!("bridge {} does not exist", spec.bridge));
        let segment = self.segments.get(&spec.bridge).ok_or_else(absent)?;
        if let Some(place) = segment.vacancy().filter(|place| segment.has(*place)) {
            return Ok(place);
        }
        // Before it grows: some endpoints may have gone unseen.
        let links = self.links()?;
        self.prune(&links)?;
        let segment = self.segments.get(&spec.bridge).ok_or_else(absent)?;
        let place = segment.vacancy().ok_or_else(|| {
            let most = MOST_ENDPOINTS * (1 + usize::from(MOST_OVERFLOWS));
            Failure::invalid(format!(
                "bridge {} has {most} endpoints, the most it can",
                spec.bridge
            ))
        })?;
        if let Some(number) = place.filter(|_| !segment.has(place)) {
            self.make_overflow(&spec.bridge, number)?;
        }
        Ok(place)
    }

    fn attach_at(
        &mut self,
        spec: &EndpointSpec,
        place: Place,
        sandbox: BorrowedFd<'_>,
    ) -> Result<(), Failure> {
        let name = Self::bridge_at(&spec.bridge, place)?;
        let bridge = self.route.link(name.as_str());
        let bridge = bridge
            .map_err(|e| e.failure(format!("look for {name}")))?
            .filter(|link| link.kind == LinkKind::Bridge)
            .ok_or_else(|| Failure::not_found(format!("bridge {name} does not exist")))?;
        let port = BridgePort {
            name: &spec.router_ifname,
            bridge: bridge.index,
            peer_name: &spec.ifname,
            peer_mac: spec.mac,
            peer_netns: sandbox,
            mtu: spec.mtu,
        };
        self.route.add_bridge_port(port).map_err(|refused| {
            let what = format!(
                "create veth {} on bridge {name} with {} in sandbox {}",
                spec.router_ifname,
                spec.ifname,
                spec.sandbox.short()
            );
            link_failure(refused, &what, "veth")
        })?;
        let result = self.complete(spec, place, sandbox);
        if result.is_err() {
            let _ = self.detach(&spec.router_ifname);
        }
        result
    }

    /// What is left to do once the veth pair is there: its router side is a port, the other down.
    fn complete(
        &mut self,
        spec: &EndpointSpec,
        place: Place,
        sandbox: BorrowedFd<'_>,
    ) -> Result<(), Failure> {
        let index = require_link(&mut self.route, spec.router_ifname.as_str())?;
        let endpoint = Endpoint {
            bridge: spec.bridge.clone(),
            place,
            index,
            mac: spec.mac,
            addresses: own_addresses(spec, self.families),
            turnaround: spec
                .bandwidth
                .outward
                .and_then(|_| turnaround(&spec.router_ifname)),
            inside: Inside {
                sandbox: spec.sandbox.clone(),
                ifname: spec.ifname.clone(),
            },
        };
        let moves = self.segments.moves(&endpoint);
        let before = self
            .segments
            .insert(spec.router_ifname.clone(), endpoint.clone());
        if self
            .segments
            .get(&spec.bridge)
            .is_some_and(|segment| !segment.icc)
        {
            self.route
                .isolate_port(index, true)
                .map_err(|e| e.failure(format!("isolate {}", spec.router_ifname)))?;
        }
        let before: Vec<Endpoint> = before.into_iter().collect();
        self.guard
            .change(&mut self.netfilter, &before, &[endpoint], &self.segments)?;
        self.shape(spec, index)?;
        let families = self.families;
        in_netns(sandbox, || configure_endpoint(spec, families, moves))?;
        self.wait_until_carried(spec, place)
    }

    /// The router's side: the port, its bridge, and the main bridge, which has had no carrier before its
    /// first endpoint.
    fn wait_until_carried(&mut self, spec: &EndpointSpec, place: Place) -> Result<(), Failure> {
        let netns = self.netns.as_fd();
        let near = Self::bridge_at(&spec.bridge, place)?;
        for name in [&spec.router_ifname, &near, &spec.bridge] {
            let changes = || in_netns(netns, ready::changes);
            ready::carrier(&mut self.route, name, changes)?;
        }
        Ok(())
    }

    /// Remove an endpoint, and the overflow bridge that it was the last one on; already absent is
    /// success.
    pub fn detach(&mut self, name: &IfName) -> Result<(), Failure> {
        self.remove_link(name)?;
        let Some(gone) = self.segments.take(name) else {
            return Ok(());
        };
        if let Some(turnaround) = &gone.turnaround {
            self.remove_link(turnaround)?;
        }
        if gone.place.is_some() {
            self.drop_empty_overflows(&gone.bridge)?;
        }
        self.renew_fast_path();
        self.guard
            .change(&mut self.netfilter, &[gone], &[], &self.segments)
    }

    /// Make the default routes of a sandbox exactly these.
    pub fn default_routes(
        &self,
        routes: &[DefaultRoute],
        sandbox: BorrowedFd<'_>,
    ) -> Result<(), Failure> {
        let families = self.families;
        in_netns(sandbox, || set_default_routes(routes, families))
    }
}

/// What an endpoint may send from: its addresses, and the link-local one that the kernel makes.
fn own_addresses(spec: &EndpointSpec, families: Families) -> Vec<IpAddr> {
    let link_local = families.ipv6.then(|| link_local_of(spec.mac).into());
    let given = usable(&spec.addresses, families).map(|net| net.addr());
    given.chain(link_local).collect()
}

/// fe80::/64 with the modified EUI-64 of a MAC address (RFC 4291, appendix A).
fn link_local_of(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.octets().map(u16::from);
    let words = [(a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f];
    let [first, second, third, fourth] = words;
    Ipv6Addr::new(0xfe80, 0, 0, 0, first, second, third, fourth)
}

/// Runs inside the sandbox's network namespace. An address that `moves` is announced, or its neighbours
/// would talk to the old MAC address for a minute; others are not: each announcement reaches every
/// endpoint of the network.
fn configure_endpoint(spec: &EndpointSpec, families: Families, moves: bool) -> Result<(), Failure> {
    let mut route = Netlink::route().map_err(|e| Failure::kernel("open rtnetlink", e))?;
    let index = require_link(&mut route, spec.ifname.as_str())?;
    if moves {
        sysctl::announce(spec.ifname.as_str());
    }
    for address in usable(&spec.addresses, families) {
        add_address(&mut route, index, address)
            .map_err(|e| e.failure(format!("give {} the address {address}", spec.ifname)))?;
    }
    route
        .set_up(index)
        .map_err(|e| e.failure(format!("set {} up", spec.ifname)))?;
    let gateways = spec.default_routes.iter().copied();
    for gateway in gateways.filter(|gateway| families.ipv6 || gateway.is_ipv4()) {
        set_default_route(&mut route, gateway, index)?;
    }
    ready::carrier(&mut route, &spec.ifname, ready::changes)?;
    ready::solicited(usable(&spec.addresses, families).map(|net| net.addr()));
    Ok(())
}

fn set_default_route(route: &mut Netlink, gateway: IpAddr, index: u32) -> Result<(), Failure> {
    let via = Route::Via {
        gateway,
        index,
        table: libc::RT_TABLE_MAIN.into(),
    };
    add_route(route, via).map_err(|e| e.failure(format!("set the default route via {gateway}")))
}

/// Runs inside the sandbox's network namespace. The new routes take the place of old ones before
/// others go, so that a family that keeps a route is never without one.
fn set_default_routes(routes: &[DefaultRoute], families: Families) -> Result<(), Failure> {
    let mut netlink = Netlink::route().map_err(|e| Failure::kernel("open rtnetlink", e))?;
    let mut wanted = Vec::new();
    for route in routes
        .iter()
        .filter(|r| families.ipv6 || r.gateway.is_ipv4())
    {
        let index = require_link(&mut netlink, route.ifname.as_str())?;
        wanted.push((route.gateway, index));
    }
    for (gateway, index) in &wanted {
        set_default_route(&mut netlink, *gateway, *index)?;
    }
    let present =
        default_routes(&mut netlink).map_err(|e| e.failure("list the sandbox's default routes"))?;
    for found in present.iter().filter(|found| {
        !wanted
            .iter()
            .any(|(gateway, index)| found.is(*gateway, *index))
    }) {
        remove_route(&mut netlink, found)
            .map_err(|e| e.failure("remove a default route of the sandbox"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_are_those_of_the_kernel() {
        let mac = "02:42:0a:59:00:02".parse().unwrap();
        let expected: Ipv6Addr = "fe80::42:aff:fe59:2".parse().unwrap();
        assert_eq!(link_local_of(mac), expected);
    }
}
