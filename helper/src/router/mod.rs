//! The router netns: it holds every bridge, the uplink pair `up0`/`up1` that leads to the relay's
//! gate, and the ruleset between them.
//!
//! * `gate`: the uplink pair, and the routes that lead to it.
//! * `bridge`: bridges, and what extends them beyond the ports that one has.
//! * `endpoint`: veth pairs to sandboxes, and the sandboxes' default routes.
//! * `direct`: a single endpoint without a bridge, for a router that serves one namespace.
//! * `guard`: endpoints are held to their own addresses.
//! * `framed`: where endpoints are, for the relay's framed flows.
//! * `fast`: a short cut to that link. `kernel`: the link to the host's network, where there is one.
//! * `shape`: endpoints are held to a bandwidth. `rush`: what they send too fast is taken by a thread.
//! * `segment`: which endpoint is where. It lives as long as the router netns itself, so that it needs
//!   no reading in.
//!
//! Invariant: links are made after the sysctls that they copy, and the ruleset is there before
//! the first bridge. A request that fails leaves nothing of itself behind.
//!
//! Sources: design.md section 4.

mod bridge;
mod direct;
mod endpoint;
mod fast;
mod framed;
mod gate;
mod guard;
mod kernel;
pub(crate) mod ready;
mod rush;
mod segment;
mod shape;

pub use direct::Direct;
pub use gate::table_of;
pub use rush::Inside;
pub use segment::main_bridge;
pub use shape::{Port, hold, turnaround};

use crate::names::IfName;
use crate::namespace::in_thread;
use crate::netlink::Explain;
use crate::netlink::{Link, LinkKind, Netlink, Refused};
use crate::remover::Remover;
use crate::request::{Failure, FailureKind, NetworkRules};
use crate::ruleset::{self, Families};
use crate::sysctl;
use fast::FastPath;
use framed::FramedNetworks;
use guard::Guard;
use ipnet::IpNet;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use segment::Segments;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The router netns, with sockets that speak to its kernel objects.
#[derive(Debug)]
pub struct Router {
    netns: OwnedFd,
    route: Netlink,
    netfilter: Netlink,
    families: Families,
    segments: Segments,
    guard: Guard,
    remover: Remover,
    fast: FastPath,
    framed: FramedNetworks,
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
        let (netns, route, mut netfilter, remover) = in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
                crate::namespace::refused("create the router's network namespace", errno.into())
            })?;
            let netns = File::open("/proc/thread-self/ns/net")
                .map_err(|e| Failure::kernel("open the router's network namespace", e))?;
            sysctl::prepare_router(families.ipv6)?;
            let route = Netlink::route().map_err(|e| Failure::kernel("open rtnetlink", e))?;
            let netfilter = Netlink::netfilter()
                .map_err(|e| Failure::kernel("open nfnetlink (as root: modprobe nf_tables)", e))?;
            let remover = Remover::new().map_err(|e| Failure::kernel("open rtnetlink", e))?;
            Ok((OwnedFd::from(netns), route, netfilter, remover))
        })?;
        let guard = Guard::install(&mut netfilter, families);
        let mut router = Self {
            netns,
            route,
            netfilter,
            families,
            segments: Segments::default(),
            guard,
            remover,
            fast: FastPath::default(),
            framed: FramedNetworks::default(),
        };
        router.ruleset(&[])?;
        router.set_up_uplink()?;
        Ok(router)
    }

    /// Have links removed by a process of its own; without one it takes longer. From the main thread.
    pub fn start_remover(&mut self) {
        if let Err(error) = self.remover.start(self.netns.as_fd()) {
            eprintln!("helper: start the remover of links: {error}");
        }
    }

    /// Let that process end.
    pub fn stop_remover(&mut self) {
        self.remover.stop();
    }

    /// The network namespace itself.
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// Whether the kernel has IPv6.
    pub fn families(&self) -> Families {
        self.families
    }

    /// Whether endpoints are held to their own addresses.
    pub fn is_guarded(&self) -> bool {
        self.guard.is_active()
    }

    /// Replace the ruleset.
    pub fn ruleset(&mut self, networks: &[NetworkRules]) -> Result<(), Failure> {
        let wanted = ruleset::ruleset(networks, self.families);
        ruleset::apply(&mut self.netfilter, &wanted)?;
        self.fast.set_networks(networks);
        self.framed.set_networks(networks);
        self.renew_fast_path();
        Ok(())
    }

    /// Bridges and endpoints. Takes note of endpoints that went with their sandbox.
    pub fn holdings(&mut self) -> Result<Holdings, Failure> {
        let links = self.links()?;
        self.prune(&links)?;
        let is_bridge = |link: &&Link| link.kind == LinkKind::Bridge;
        let bridges: BTreeMap<u32, IfName> = links
            .iter()
            .filter(is_bridge)
            .filter_map(|link| Some((link.index, main_bridge(&link.name)?)))
            .collect();
        let bridge_of = |index: Option<u32>| bridges.get(&index?).cloned();
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
                .map(|(name, master)| (name, bridge_of(master)))
                .collect(),
        })
    }

    fn links(&mut self) -> Result<Vec<Link>, Failure> {
        let links = self.route.links();
        links.map_err(|e| e.failure("list the links of the router"))
    }

    /// Remove a link; already absent is success.
    fn remove_link(&mut self, name: &IfName) -> Result<(), Failure> {
        let failed = |refused: Refused| refused.failure(format!("remove {name}"));
        match self.route.link(name.as_str()).map_err(failed)? {
            Some(link) => {
                let removed = self.remover.remove(link.index, self.netns.as_fd());
                removed.map_err(failed)
            }
            None => Ok(()),
        }
    }

    /// Take note of endpoints that are not among `links` any more: their sandbox has ended, or has
    /// deleted them.
    fn prune(&mut self, links: &[Link]) -> Result<(), Failure> {
        let present: BTreeSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
        let gone = self.segments.retain(&present);
        if gone.is_empty() {
            return Ok(());
        }
        for turnaround in gone
            .iter()
            .filter_map(|endpoint| endpoint.turnaround.as_ref())
        {
            self.remove_link(turnaround)?;
        }
        let bridges: Vec<IfName> = self.segments.bridges().cloned().collect();
        for bridge in &bridges {
            self.drop_empty_overflows(bridge)?;
        }
        self.renew_fast_path();
        self.guard
            .change(&mut self.netfilter, &gone, &[], &self.segments)
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

pub(crate) fn require_link(route: &mut Netlink, name: &str) -> Result<u32, Failure> {
    let link = route
        .link(name)
        .map_err(|e| e.failure(format!("look for {name}")))?;
    let link = link.ok_or_else(|| Failure::not_found(format!("{name} does not exist")))?;
    Ok(link.index)
}

/// A refusal to make a link: taken already, or of a kind that the kernel lacks.
pub(crate) fn link_failure(refused: Refused, what: &str, module: &str) -> Failure {
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
    use crate::netlink::addresses;
    use crate::request::{BridgeSpec, EndpointSpec};
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
            bandwidth: crate::bandwidth::Bandwidth::default(),
        };
        router.attach(&endpoint, sandbox.as_fd()).unwrap();
        let again = router.attach(&endpoint, sandbox.as_fd()).unwrap_err();
        assert_eq!(again.kind, FailureKind::Exists, "{again}");
        let holdings = router.holdings().unwrap();
        assert_eq!(holdings.endpoints.len(), 1);
        assert_eq!(holdings.bridges.len(), 1);
    }
}
