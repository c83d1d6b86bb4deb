//! Kernel objects in network namespaces that another runtime made, for its network plug-in.
//!
//! Place: used by the netavark drop-in, which podman starts with every capability over its own
//! namespaces; nothing of it runs in the helper's process. The namespace that the program is in holds the
//! bridges, as the router netns does; containers' namespaces are entered for one short visit each.
//!
//! Invariant: what is there already is used if it is of the right kind, and never taken away unless it
//! bears no port any more; an attach that fails leaves no interface behind.
//!
//! Sources: netavark's documentation; design.md section 4 for the sysctls.

use crate::names::{IfName, MacAddr};
use crate::namespace::in_netns;
use crate::netlink::Explain;
use crate::netlink::{
    BridgePort, Link, LinkKind, Netlink, NewBridge, NewSub, PrefixRoute, Refused, SubKind,
    add_address, add_prefix_route, default_routes,
};
use crate::remover::Remover;
use crate::request::Failure;
use crate::router::{link_failure, ready, require_link};
use crate::ruleset::{self, Families, Ruleset};
use crate::sysctl;
use ipnet::IpNet;
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

/// Every network namespace calls its loopback so.
const LOOPBACK: &str = "lo";
/// What links have where nobody asks.
const USUAL_MTU: u32 = 1500;
/// Routes to the same place, one for each network that a container is on.
const MOST_ROUTES: usize = 128;

/// The network namespace that this program is in.
#[derive(Debug)]
pub struct Place {
    route: Netlink,
    families: Families,
    /// Once a link was removed.
    remover: Option<Remover>,
}

/// A bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Name.
    pub name: IfName,
    /// Of a new one; fixed, so that it does not change with the ports.
    pub mac: MacAddr,
    /// Bytes.
    pub mtu: u32,
    /// Its addresses; others that it has stay.
    pub addresses: Vec<IpNet>,
    /// All of its ports are in this VLAN.
    pub vlan: Option<u16>,
    /// The VRF that it belongs to, which must be there.
    pub vrf: Option<IfName>,
}

/// A container's end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Name in the container.
    pub name: IfName,
    /// MAC address.
    pub mac: MacAddr,
    /// Bytes.
    pub mtu: u32,
    /// Addresses.
    pub addresses: Vec<IpNet>,
    /// Routes, once the interface is up.
    pub routes: Vec<PrefixRoute>,
}

impl Place {
    /// The namespace that the calling thread is in.
    pub fn here() -> Result<Self, Failure> {
        let families = Families {
            ipv6: sysctl::has_ipv6(),
        };
        let route = Netlink::route().map_err(|e| Failure::kernel("open rtnetlink", e))?;
        Ok(Self {
            route,
            families,
            remover: None,
        })
    }

    /// Whether the kernel has IPv6.
    pub fn families(&self) -> Families {
        self.families
    }

    /// Have packets forwarded between links. `private`: nobody else lives in this namespace, so that
    /// bridges may be kept plain.
    pub fn forward(&self, private: bool) -> Result<(), Failure> {
        if private {
            sysctl::keep_bridges_plain();
        }
        sysctl::forward(self.families.ipv6)
    }

    /// The MTU of the link that the IPv4 default route leads to, or the usual one: fragments and
    /// losses on the way out are avoided where containers have the same.
    pub fn usual_mtu(&mut self) -> Result<u32, Failure> {
        let routes = default_routes(&mut self.route);
        let routes = routes.map_err(|e| e.failure("list the default routes"))?;
        let Some(index) = routes.iter().find_map(|route| route.link()) else {
            return Ok(USUAL_MTU);
        };
        let links = self.links()?;
        let link = links.iter().find(|link| link.index == index);
        Ok(link.map_or(USUAL_MTU, |link| link.mtu))
    }

    /// The link called `name`.
    pub fn link(&mut self, name: &IfName) -> Result<Option<Link>, Failure> {
        let link = self.route.link(name.as_str());
        link.map_err(|e| e.failure(format!("look for {name}")))
    }

    fn links(&mut self) -> Result<Vec<Link>, Failure> {
        let links = self.route.links();
        links.map_err(|e| e.failure("list the links"))
    }

    /// The link that the default route leads to.
    pub fn default_link(&mut self) -> Result<Option<Link>, Failure> {
        let routes = default_routes(&mut self.route);
        let routes = routes.map_err(|e| e.failure("list the default routes"))?;
        let index = routes.iter().find_map(|route| route.link());
        let links = self.links()?;
        Ok(links.into_iter().find(|link| Some(link.index) == index))
    }

    /// Make a bridge exist as described; whether it is new.
    pub fn bridge(&mut self, bridge: &Bridge) -> Result<bool, Failure> {
        if let Some(link) = self.link(&bridge.name)? {
            if link.kind != LinkKind::Bridge {
                return Err(Failure::exists(format!("{} is not a bridge", bridge.name)));
            }
            self.address(bridge, link.index)?;
            return Ok(false);
        }
        let new = NewBridge {
            name: &bridge.name,
            mac: Some(bridge.mac),
            mtu: bridge.mtu,
        };
        self.route.add_bridge(new).map_err(|refused| {
            link_failure(refused, &format!("create bridge {}", bridge.name), "bridge")
        })?;
        let result = self.configure_bridge(bridge);
        if result.is_err() {
            let _ = self.remove(&bridge.name);
        }
        result.map(|()| true)
    }

    fn configure_bridge(&mut self, bridge: &Bridge) -> Result<(), Failure> {
        let index = require_link(&mut self.route, bridge.name.as_str())?;
        sysctl::prepare_foreign_bridge(bridge.name.as_str());
        if let Some(vlan) = bridge.vlan {
            self.route
                .set_bridge_vlan(index, Some(vlan))
                .map_err(|e| e.failure(format!("put bridge {} into a VLAN", bridge.name)))?;
        }
        if let Some(vrf) = &bridge.vrf {
            let master = require_link(&mut self.route, vrf.as_str())?;
            self.route
                .set_port(index, master, bridge.mtu)
                .map_err(|e| e.failure(format!("put bridge {} into {vrf}", bridge.name)))?;
        }
        self.address(bridge, index)
    }

    fn address(&mut self, bridge: &Bridge, index: u32) -> Result<(), Failure> {
        for address in usable(&bridge.addresses, self.families) {
            add_address(&mut self.route, index, address).map_err(|e| {
                e.failure(format!("give bridge {} the address {address}", bridge.name))
            })?;
        }
        Ok(())
    }

    /// Join a container to a bridge by a veth pair whose end here is called `port`. One of that name is
    /// left over from a container that has lost its namespace, and goes.
    pub fn plug(
        &mut self,
        bridge: &IfName,
        port: &IfName,
        guest: &Guest,
        netns: BorrowedFd<'_>,
    ) -> Result<(), Failure> {
        let index = require_link(&mut self.route, bridge.as_str())?;
        self.remove(port)?;
        let pair = BridgePort {
            name: port,
            bridge: index,
            peer_name: &guest.name,
            peer_mac: guest.mac,
            peer_netns: netns,
            mtu: guest.mtu,
        };
        self.route.add_bridge_port(pair).map_err(|refused| {
            let what = format!("create {} in the container, on {bridge}", guest.name);
            link_failure(refused, &what, "veth")
        })?;
        let result = self.complete(port, guest, netns);
        if result.is_err() {
            let _ = self.remove(port);
        }
        result
    }

    fn complete(
        &mut self,
        port: &IfName,
        guest: &Guest,
        netns: BorrowedFd<'_>,
    ) -> Result<(), Failure> {
        if sysctl::bridges_translate() {
            // A container that calls itself by a port of the host comes back by the port it came from.
            let index = require_link(&mut self.route, port.as_str())?;
            self.route
                .let_port_turn(index)
                .map_err(|e| e.failure(format!("let {port} turn")))?;
        }
        let families = self.families;
        in_netns(netns, || configure(guest, families))?;
        ready::carrier(&mut self.route, port, ready::changes)
    }

    /// Give a container a link on the wire of `parent`.
    pub fn share(
        &mut self,
        parent: &Link,
        kind: SubKind,
        guest: &Guest,
        netns: BorrowedFd<'_>,
    ) -> Result<(), Failure> {
        let sub = NewSub {
            name: &guest.name,
            parent: parent.index,
            kind,
            mac: matches!(kind, SubKind::Macvlan(_)).then_some(guest.mac),
            mtu: Some(guest.mtu),
            netns,
        };
        let module = match kind {
            SubKind::Macvlan(_) => "macvlan",
            SubKind::Ipvlan(_) => "ipvlan",
        };
        self.route.add_sub(sub).map_err(|refused| {
            let what = format!("create {module} {} on {}", guest.name, parent.name);
            link_failure(refused, &what, module)
        })?;
        let families = self.families;
        let result = in_netns(netns, || configure(guest, families));
        if result.is_err() {
            let _ = remove_inside(&guest.name, netns);
        }
        result
    }

    /// Remove a link; already absent is success. From the main thread.
    pub fn remove(&mut self, name: &IfName) -> Result<(), Failure> {
        self.remove_by(name, Self::take_away)
    }

    fn remove_by(
        &mut self,
        name: &IfName,
        take_away: impl FnOnce(&mut Self, u32) -> Result<(), Refused>,
    ) -> Result<(), Failure> {
        let Some(link) = self.link(name)? else {
            return Ok(());
        };
        let removed = take_away(self, link.index);
        removed.map_err(|e| e.failure(format!("remove {name}")))
    }

    /// Our caller waits for our end, but not for the kernel's clearing up, which a process that outlives us
    /// sees to.
    fn take_away(&mut self, index: u32) -> Result<(), Refused> {
        let Ok(netns) = File::open("/proc/thread-self/ns/net") else {
            return self.route.remove_link(index);
        };
        if self.remover.is_none() {
            self.remover = Remover::quiet(netns.as_fd()).ok();
        }
        match &mut self.remover {
            Some(remover) => remover.remove(index, netns.as_fd()),
            None => self.route.remove_link(index),
        }
    }

    /// Remove a bridge unless somebody is on it; whether it is gone.
    pub fn remove_unused(&mut self, name: &IfName) -> Result<bool, Failure> {
        let links = self.links()?;
        let is = |link: &&Link| link.name == name.as_str();
        let Some(bridge) = links.iter().find(is) else {
            return Ok(true);
        };
        let used = links.iter().any(|link| link.master == Some(bridge.index));
        if used || bridge.kind != LinkKind::Bridge {
            return Ok(false);
        }
        let removed = self.take_away(bridge.index);
        removed.map_err(|e| e.failure(format!("remove bridge {name}")))?;
        Ok(true)
    }

    /// Replace the drop-in's table; absent: take it away.
    pub fn rules(&self, ruleset: Option<&Ruleset>) -> Result<(), Failure> {
        let mut netfilter = Netlink::netfilter()
            .map_err(|e| Failure::kernel("open nfnetlink (as root: modprobe nf_tables)", e))?;
        match ruleset {
            Some(ruleset) => ruleset::apply(&mut netfilter, ruleset),
            None => ruleset::remove(&mut netfilter, &ruleset::podman(&[], &[], self.families)),
        }
    }
}

/// Remove a link of a container; already absent is success.
pub fn remove_inside(name: &IfName, netns: BorrowedFd<'_>) -> Result<(), Failure> {
    in_netns(netns, || {
        // The thread ends before a process of its own could.
        Place::here()?.remove_by(name, |place, index| place.route.remove_link(index))
    })
}

/// The addresses that this kernel can have.
fn usable(addresses: &[IpNet], families: Families) -> impl Iterator<Item = IpNet> {
    let known = move |address: &IpNet| families.ipv6 || address.addr().is_ipv4();
    addresses.iter().copied().filter(known)
}

/// Sets a route, with the next metric that is free: the network joined first keeps its default route, and
/// IPv6 does not make one of two gateways of the two.
fn add_after_others(
    netlink: &mut Netlink,
    wanted: &PrefixRoute,
    index: u32,
) -> Result<(), Refused> {
    let mut route = wanted.clone();
    for _ in 0..MOST_ROUTES {
        match add_prefix_route(netlink, &route, index) {
            Err(refused) if refused.errno == Errno::EEXIST => {}
            other => return other,
        }
        route.metric = route.metric.map(|metric| metric.saturating_add(1));
    }
    add_prefix_route(netlink, &route, index)
}

/// Runs inside the container's network namespace.
fn configure(guest: &Guest, families: Families) -> Result<(), Failure> {
    let mut route = Netlink::route().map_err(|e| Failure::kernel("open rtnetlink", e))?;
    let up = |route: &mut Netlink, name: &str| {
        let index = require_link(route, name)?;
        let set = route.set_up(index);
        set.map_err(|e| e.failure(format!("set {name} up")))
            .map(|()| index)
    };
    up(&mut route, LOOPBACK)?;
    sysctl::prepare_guest(guest.name.as_str());
    let index = require_link(&mut route, guest.name.as_str())?;
    for address in usable(&guest.addresses, families) {
        add_address(&mut route, index, address)
            .map_err(|e| e.failure(format!("give {} the address {address}", guest.name)))?;
    }
    up(&mut route, guest.name.as_str())?;
    for wanted in &guest.routes {
        let destination = wanted.destination;
        if families.ipv6 || destination.addr().is_ipv4() {
            add_after_others(&mut route, wanted, index)
                .map_err(|e| e.failure(format!("set the route to {destination}")))?;
        }
    }
    ready::carrier(&mut route, &guest.name, ready::changes)?;
    ready::solicited(usable(&guest.addresses, families).map(|net| net.addr()));
    Ok(())
}
