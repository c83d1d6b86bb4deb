//! The router netns: it holds every bridge, the uplink pair `up0`/`up1` that leads to the relay's
//! gate, and the ruleset between them.
//!
//! Invariant: links are made after the sysctls that they copy, and the ruleset is there before
//! the first bridge. A request that fails leaves nothing of itself behind.
//!
//! Sources: design.md section 4.

use crate::names::{IfName, MacAddr};
use crate::namespace::{in_netns, in_thread};
use crate::netlink::{
    BridgePort, LinkKind, Netlink, Refused, Route, add_address, add_neighbour, add_route, add_rule,
    addresses, remove_address,
};
use crate::request::{BridgeSpec, DefaultRoute, EndpointSpec, Failure, FailureKind, NetworkRules};
use crate::ruleset::{self, Families, PASTA_MARK, RELAY_MARK, SLIRP_MARK};
use crate::sysctl;
use ipnet::IpNet;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Every network namespace calls its loopback so.
const LOOPBACK: &str = "lo";
/// The router's end of the uplink pair, and the relay's.
const UP0: &str = "up0";
const UP1: &str = "up1";
const UP0_MAC: [u8; 6] = [0x02, 0x6d, 0x6f, 0x73, 0x73, 0x00];
const UP1_MAC: [u8; 6] = [0x02, 0x6d, 0x6f, 0x73, 0x73, 0x01];
/// The largest that a veth takes: containers' segments pass unsplit.
const UP_MTU: u32 = 65535;
/// Where everything without a nearer route goes; nobody has these addresses, the gate answers.
const GATE_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 1);
const GATE_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);
const UP0_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 2);
const UP0_PREFIX: u8 = 30;

/// Routing tables by mark: to transparent sockets, and out by external uplinks.
const TABLES: [(u32, u32); 3] = [(RELAY_MARK, 100), (PASTA_MARK, 102), (SLIRP_MARK, 103)];
const RELAY_TABLE: u32 = 100;

/// The routing table for packets with this mark.
pub fn table_of(mark: u32) -> u32 {
    TABLES
        .iter()
        .find(|(of, _)| *of == mark)
        .map_or(RELAY_TABLE, |(_, table)| *table)
}

/// The router netns, with sockets that speak to its kernel objects.
#[derive(Debug)]
pub struct Router {
    netns: OwnedFd,
    route: Netlink,
    netfilter: Netlink,
    families: Families,
}

/// What a router holds, for the inventory.
pub struct Holdings {
    /// Bridges.
    pub bridges: Vec<IfName>,
    /// Router sides of endpoints, each with its bridge.
    pub endpoints: Vec<(IfName, Option<IfName>)>,
}

impl Router {
    /// Make the router netns, with the address families that the kernel has.
    pub fn create() -> Result<Self, Failure> {
        Self::create_for(Families {
            ipv6: sysctl::has_ipv6(),
        })
    }

    fn create_for(families: Families) -> Result<Self, Failure> {
        let (netns, route, netfilter) = in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
                crate::namespace::refused("create the router's network namespace", errno.into())
            })?;
            let netns = File::open("/proc/thread-self/ns/net")
                .map_err(|e| Failure::kernel("open the router's network namespace", e))?;
            sysctl::prepare_router(families.ipv6)?;
            let route = Netlink::route().map_err(|e| Failure::kernel("open rtnetlink", e))?;
            let netfilter = Netlink::netfilter()
                .map_err(|e| Failure::kernel("open nfnetlink (as root: modprobe nf_tables)", e))?;
            Ok((OwnedFd::from(netns), route, netfilter))
        })?;
        let mut router = Self {
            netns,
            route,
            netfilter,
            families,
        };
        router.ruleset(&[])?;
        router.set_up_uplink()?;
        Ok(router)
    }

    /// The network namespace itself.
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// Whether the kernel has IPv6.
    pub fn families(&self) -> Families {
        self.families
    }

    fn set_up_uplink(&mut self) -> Result<(), Failure> {
        let name = |name: &str| {
            name.parse::<IfName>()
                .map_err(|e| Failure::invalid(e.to_string()))
        };
        let mac =
            |mac: [u8; 6]| MacAddr::try_from(mac).map_err(|e| Failure::invalid(e.to_string()));
        let (up0_mac, up1_mac) = (mac(UP0_MAC)?, mac(UP1_MAC)?);
        let route = &mut self.route;
        let lo = require_link(route, LOOPBACK)?;
        route.set_up(lo).map_err(|e| e.failure("set lo up"))?;
        route
            .add_veth_pair((&name(UP0)?, up0_mac), (&name(UP1)?, up1_mac), UP_MTU)
            .map_err(|refused| link_failure(refused, "create the uplink pair", "veth"))?;
        let up0 = require_link(route, UP0)?;
        for end in [up0, require_link(route, UP1)?] {
            route
                .set_up(end)
                .map_err(|e| e.failure("set the uplink pair up"))?;
        }
        let address = IpNet::new(UP0_V4.into(), UP0_PREFIX);
        let address = address.map_err(|e| Failure::invalid(e.to_string()))?;
        add_address(route, up0, address).map_err(|e| e.failure("give up0 its address"))?;
        let gates: &[IpAddr] = match self.families.ipv6 {
            true => &[IpAddr::V4(GATE_V4), IpAddr::V6(GATE_V6)],
            false => &[IpAddr::V4(GATE_V4)],
        };
        let main = libc::RT_TABLE_MAIN.into();
        for gateway in gates.iter().copied() {
            let ipv6 = gateway.is_ipv6();
            add_neighbour(route, up0, gateway, up1_mac)
                .map_err(|e| e.failure(format!("make {gateway} a neighbour")))?;
            add_route(
                route,
                Route::Via {
                    gateway,
                    index: up0,
                    table: main,
                },
            )
            .map_err(|e| e.failure(format!("route everything via {gateway}")))?;
            add_route(
                route,
                Route::Local {
                    ipv6,
                    index: lo,
                    table: RELAY_TABLE,
                },
            )
            .map_err(|e| e.failure("route marked packets to transparent sockets"))?;
            for (mark, table) in TABLES {
                add_rule(route, ipv6, mark, table)
                    .map_err(|e| e.failure(format!("add a policy rule for mark {mark}")))?;
            }
        }
        Ok(())
    }

    /// Make a bridge exist as described.
    pub fn bridge(&mut self, spec: &BridgeSpec) -> Result<(), Failure> {
        let existing = self.route.link(spec.name.as_str());
        match existing.map_err(|e| e.failure(format!("look for {}", spec.name)))? {
            Some(link) if link.kind == LinkKind::Bridge => self.configure_bridge(spec, link.index),
            Some(_) => Err(Failure::exists(format!("{} is not a bridge", spec.name))),
            None => {
                self.route
                    .add_bridge(&spec.name, spec.mac, spec.mtu)
                    .map_err(|refused| {
                        link_failure(refused, &format!("create bridge {}", spec.name), "bridge")
                    })?;
                let index = require_link(&mut self.route, spec.name.as_str());
                let result = index.and_then(|index| self.configure_bridge(spec, index));
                if result.is_err() {
                    let _ = self.route.remove_link(spec.name.as_str());
                }
                result
            }
        }
    }

    /// MAC address, MTU and exactly these addresses.
    fn configure_bridge(&mut self, spec: &BridgeSpec, index: u32) -> Result<(), Failure> {
        let route = &mut self.route;
        let wanted: Vec<IpNet> = usable(&spec.addresses, self.families).collect();
        route
            .change_link(index, spec.mac, spec.mtu)
            .map_err(|e| e.failure(format!("configure bridge {}", spec.name)))?;
        // Removed first: the kernel takes all later addresses of a prefix away with its first one.
        let present = addresses(route, index);
        let present = present.map_err(|e| e.failure(format!("list addresses of {}", spec.name)))?;
        for address in present.iter().filter(|address| !wanted.contains(address)) {
            remove_address(route, index, *address)
                .map_err(|e| e.failure(format!("take {address} from {}", spec.name)))?;
        }
        for address in &wanted {
            add_address(route, index, *address)
                .map_err(|e| e.failure(format!("give {} the address {address}", spec.name)))?;
        }
        in_netns(self.netns.as_fd(), || {
            sysctl::keep_bridges_plain();
            Ok(())
        })
    }

    /// Remove a link of ours; already absent is success.
    pub fn remove_link(&mut self, name: &IfName) -> Result<(), Failure> {
        self.route
            .remove_link(name.as_str())
            .map_err(|e| e.failure(format!("remove {name}")))
    }

    /// Replace the ruleset.
    pub fn ruleset(&mut self, networks: &[NetworkRules]) -> Result<(), Failure> {
        ruleset::apply(
            &mut self.netfilter,
            &ruleset::ruleset(networks, self.families),
        )
    }

    /// Join a sandbox to a bridge.
    pub fn attach(&mut self, spec: &EndpointSpec, sandbox: BorrowedFd<'_>) -> Result<(), Failure> {
        let bridge = self.route.link(spec.bridge.as_str());
        let bridge = bridge
            .map_err(|e| e.failure(format!("look for {}", spec.bridge)))?
            .filter(|link| link.kind == LinkKind::Bridge)
            .ok_or_else(|| Failure::not_found(format!("bridge {} does not exist", spec.bridge)))?;
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
                "create veth {} on bridge {} with {} in sandbox {}",
                spec.router_ifname,
                spec.bridge,
                spec.ifname,
                spec.sandbox.short()
            );
            link_failure(refused, &what, "veth")
        })?;
        let families = self.families;
        let result = in_netns(sandbox, || configure_endpoint(spec, families));
        if result.is_err() {
            let _ = self.route.remove_link(spec.router_ifname.as_str());
        }
        result
    }

    /// Whether endpoints are held to their own addresses.
    pub fn is_guarded(&self) -> bool {
        false
    }

    /// Make the default routes of a sandbox exactly these.
    pub fn default_routes(
        &self,
        routes: &[DefaultRoute],
        sandbox: BorrowedFd<'_>,
    ) -> Result<(), Failure> {
        let _ = (routes, sandbox);
        Err(Failure::invalid("not yet"))
    }

    /// Bridges and endpoints.
    pub fn holdings(&mut self) -> Result<Holdings, Failure> {
        let links = self
            .route
            .links()
            .map_err(|e| e.failure("list the links of the router"))?;
        let name_of = |index| {
            let master = links.iter().find(|link| Some(link.index) == index);
            master.and_then(|link| link.name.parse::<IfName>().ok())
        };
        let named = |kind: LinkKind, prefix: &'static str| {
            links
                .iter()
                .filter(move |link| link.kind == kind && link.name.starts_with(prefix))
                .filter_map(|link| Some((link.name.parse::<IfName>().ok()?, link.master)))
        };
        Ok(Holdings {
            bridges: named(LinkKind::Bridge, BRIDGE_PREFIX)
                .map(|(name, _)| name)
                .collect(),
            endpoints: named(LinkKind::Veth, ENDPOINT_PREFIX)
                .map(|(name, master)| (name, name_of(master)))
                .collect(),
        })
    }
}

/// What bridges are called, and the ruleset matches.
pub const BRIDGE_PREFIX: &str = "br-";
/// What router sides of endpoints are called.
pub const ENDPOINT_PREFIX: &str = "ve-";

/// The addresses that this kernel can have.
fn usable(addresses: &[IpNet], families: Families) -> impl Iterator<Item = IpNet> {
    addresses
        .iter()
        .copied()
        .filter(move |address| families.ipv6 || address.addr().is_ipv4())
}

/// Runs inside the sandbox's network namespace.
fn configure_endpoint(spec: &EndpointSpec, families: Families) -> Result<(), Failure> {
    let mut route = Netlink::route().map_err(|e| Failure::kernel("open rtnetlink", e))?;
    let index = require_link(&mut route, spec.ifname.as_str())?;
    for address in usable(&spec.addresses, families) {
        add_address(&mut route, index, address)
            .map_err(|e| e.failure(format!("give {} the address {address}", spec.ifname)))?;
    }
    route
        .set_up(index)
        .map_err(|e| e.failure(format!("set {} up", spec.ifname)))?;
    let gateways = spec.default_routes.iter().copied();
    for gateway in gateways.filter(|gateway| families.ipv6 || gateway.is_ipv4()) {
        let route_via = Route::Via {
            gateway,
            index,
            table: libc::RT_TABLE_MAIN.into(),
        };
        add_route(&mut route, route_via)
            .map_err(|e| e.failure(format!("set the default route via {gateway}")))?;
    }
    Ok(())
}

fn require_link(route: &mut Netlink, name: &str) -> Result<u32, Failure> {
    let link = route
        .link(name)
        .map_err(|e| e.failure(format!("look for {name}")))?;
    let link = link.ok_or_else(|| Failure::not_found(format!("{name} does not exist")))?;
    Ok(link.index)
}

/// A refusal to make a link: taken already, or of a kind that the kernel lacks.
fn link_failure(refused: Refused, what: &str, module: &str) -> Failure {
    match refused.errno {
        Errno::EEXIST => refused.failure(what).of_kind(FailureKind::Exists),
        Errno::EOPNOTSUPP => refused.failure(format!(
            "{what} (the kernel lacks {module}; as root: modprobe {module})"
        )),
        _ => refused.failure(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn without_ipv6_the_rest_works() {
        let exe = std::env::current_exe().unwrap();
        let mut child = Command::new("unshare");
        child.args(["--user", "--map-root-user"]).arg(exe);
        child.args(["--exact", "router::tests::without_ipv6", "--ignored"]);
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}{words}"
        );
    }

    #[test]
    #[ignore = "runs inside a namespace, started by the test above"]
    fn without_ipv6() {
        let mut router = Router::create_for(Families { ipv6: false }).unwrap();
        let spec = BridgeSpec {
            name: "br-a".parse().unwrap(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            mtu: 1500,
            addresses: vec![
                "10.0.0.1/24".parse().unwrap(),
                "fd00::1/64".parse().unwrap(),
            ],
            icc: true,
            vlan: None,
        };
        router.bridge(&spec).unwrap();
        router.bridge(&spec).unwrap();
        let index = require_link(&mut router.route, "br-a").unwrap();
        let found = addresses(&mut router.route, index).unwrap();
        assert_eq!(found, ["10.0.0.1/24".parse().unwrap()]);
        let sandbox = in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Ok(OwnedFd::from(
                File::open("/proc/thread-self/ns/net").unwrap(),
            ))
        })
        .unwrap();
        let endpoint = EndpointSpec {
            sandbox: crate::SandboxId::from([1; 32]),
            bridge: spec.name,
            router_ifname: "ve-a".parse().unwrap(),
            ifname: "eth0".parse().unwrap(),
            mac: "02:00:00:00:00:02".parse().unwrap(),
            mtu: 1500,
            addresses: vec![
                "10.0.0.2/24".parse().unwrap(),
                "fd00::2/64".parse().unwrap(),
            ],
            default_routes: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        };
        router.attach(&endpoint, sandbox.as_fd()).unwrap();
        let again = router.attach(&endpoint, sandbox.as_fd()).unwrap_err();
        assert_eq!(again.kind, FailureKind::Exists, "{again}");
        let holdings = router.holdings().unwrap();
        assert_eq!(holdings.endpoints.len(), 1);
        assert_eq!(holdings.bridges.len(), 1);
    }
}
