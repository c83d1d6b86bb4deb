//! Acts: one request, checked, performed with exactly the capabilities of its class.
//!
//! Invariant: a request that fails leaves nothing of itself behind; removals of what is absent
//! succeed. Everything here runs on the main thread.

use crate::names::{IfName, SandboxId};
use crate::namespace::IdMapping;
use crate::privilege::{Class, with};
use crate::relay::{Relay, Rush};
use crate::request::{
    BridgeSpec, DefaultRoute, EndpointSpec, Event, ExitStatus, Failure, FailureKind, Inventory,
    NetworkRules, PROTOCOL_VERSION, ProcessInfo, ProcessState, Reply, Request, SandboxNetns,
    SandboxSpec, UplinkKind,
};
use crate::router::{BRIDGE_PREFIX, ENDPOINT_PREFIX, Inside, Router};
use crate::rush::Followed;
use crate::sandbox::{Sandboxes, adopt};
use crate::sealed::Sealed;
use crate::unsent;
use crate::uplink::Uplinks;
use ipnet::IpNet;
use nix::unistd::Pid;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

/// Bytes: the least that IPv4 and IPv6 ask for, the most that a veth takes.
const SMALLEST_MTU: u32 = 68;
const SMALLEST_MTU_V6: u32 = 1280;
const LARGEST_MTU: u32 = 65535;
/// 0 and 4095 are reserved (IEEE 802.1Q).
const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;
/// More addresses on one interface, or networks in all, are a mistake.
const MOST_ADDRESSES: usize = 256;
const MOST_NETWORKS: usize = 4096;

/// Everything that the helper holds.
#[derive(Debug)]
pub struct Helper {
    mapped_ids: u32,
    router: Router,
    sandboxes: Sandboxes,
    relay: Relay,
    uplinks: Uplinks,
    rushes: Followed<(IfName, Inside)>,
    /// Which version of the endpoints the relay has been told last.
    told: Option<u64>,
}

impl Helper {
    /// With a router netns; `relay` is the program that becomes the relay.
    pub fn new(mapping: IdMapping, relay: PathBuf) -> Result<Self, Failure> {
        let mut router = with(Class::Visit, Router::create)?;
        router.start_remover();
        let netns = router.netns().try_clone_to_owned();
        let netns = netns.map_err(|e| Failure::kernel("duplicate the router netns", e))?;
        Ok(Self {
            mapped_ids: mapping.count(),
            router,
            sandboxes: Sandboxes::new(mapping),
            relay: Relay::new(relay, netns),
            uplinks: Uplinks::default(),
            rushes: Followed::default(),
            told: None,
        })
    }

    /// The relay, for the event loop.
    pub fn relay(&mut self) -> &mut Relay {
        &mut self.relay
    }

    /// Do what the relay has said of rushes.
    pub fn follow_rushes(&mut self) {
        let said = self.relay.take_rushes();
        self.follow(said);
    }

    /// Tell the relay where endpoints are, if that may have changed and it has time; cheap where not.
    pub fn tell_endpoints(&mut self) {
        if self.relay.takes_endpoints() {
            self.renew_endpoints();
        }
    }

    fn renew_endpoints(&mut self) {
        let version = self.router.endpoints_version();
        if self.told.replace(version) != Some(version) {
            self.relay.set_endpoints(self.router.endpoint_places());
        }
    }

    fn follow(&mut self, said: Vec<Rush>) {
        let (router, sandboxes) = (&self.router, &self.sandboxes);
        let switch = |(port, inside): &(IfName, Inside), begins| {
            let netns = sandboxes.netns(&inside.sandbox)?;
            with(Class::Visit, || {
                router.rush(port, (&inside.ifname, netns), begins)
            })
        };
        self.rushes
            .follow(said, |address| router.rushing(address), switch);
    }

    /// Whether anything runs, or waits to, that the daemon asked for.
    pub fn is_busy(&self) -> bool {
        let ended = |info: &ProcessInfo| matches!(info.state, ProcessState::Exited(_));
        !self.sandboxes.list().iter().all(ended)
    }

    /// Perform one request. `Shutdown` is the event loop's business.
    pub fn perform(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<Reply, Failure> {
        let done = |result: Result<(), Failure>| result.map(|()| Reply::Done);
        match request {
            Request::Hello { version } => self.hello(version),
            Request::Inventory => with(Class::Network, || self.inventory()),
            Request::Bridge(spec) => {
                check_bridge(&spec)?;
                done(with(Class::Visit, || self.router.bridge(&spec)))
            }
            Request::RemoveBridge { name } => {
                check_prefix(&name, BRIDGE_PREFIX)?;
                done(with(Class::Network, || self.router.remove_bridge(&name)))
            }
            Request::Ruleset { networks } => {
                check_networks(&networks)?;
                done(with(Class::Network, || self.router.ruleset(&networks)))
            }
            Request::CreateSandbox(spec) => with(Class::Sandbox, || self.create(*spec, fds)),
            Request::DefaultRoutes { sandbox, routes } => {
                done(self.default_routes(&sandbox, &routes))
            }
            Request::Attach(spec) => done(self.attach(&spec)),
            Request::Detach { router_ifname } => {
                check_prefix(&router_ifname, ENDPOINT_PREFIX)?;
                done(with(Class::Network, || self.router.detach(&router_ifname)))
            }
            Request::StartSandbox { id } => done(with(Class::None, || self.sandboxes.start(&id))),
            Request::Exec(spec) => {
                let stdio = three(fds)?;
                let pid = with(Class::Sandbox, || self.sandboxes.exec(*spec, stdio))?;
                Ok(Reply::Created { pid })
            }
            Request::Signal { id, signal } => {
                done(with(Class::None, || self.sandboxes.signal(&id, signal)))
            }
            Request::Unsent { id } => self.unsent(&id),
            Request::Forget { id } => {
                done(with(Class::None, || match self.sandboxes.forget(&id) {
                    Err(failure) if failure.kind == FailureKind::NotFound => Ok(()),
                    other => other,
                }))
            }
            Request::RelaySnapshot { listeners } => done(self.load(listeners, fds)),
            Request::Listeners { keys } => done(self.relay.keep(keys, fds)),
            Request::Counters { sandbox } => {
                let ports = self.relay.counters(&sandbox)?;
                Ok(Reply::Counters { ports })
            }
            Request::StartUplink(spec) => done(with(Class::Visit, || {
                self.uplinks.start(&spec, &mut self.router)
            })),
            Request::KernelUplink(link) => done(with(Class::Visit, || self.router.lead_out(&link))),
            Request::StopUplink {
                kind: UplinkKind::Kernel,
            } => done(with(Class::Network, || self.router.remove_kernel_link())),
            Request::StopUplink { kind } => {
                self.uplinks.stop(kind);
                Ok(Reply::Done)
            }
            Request::Shutdown => Ok(Reply::Done),
        }
    }

    fn load(&mut self, listeners: Vec<String>, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        let [snapshot] = <[OwnedFd; 1]>::try_from(fds)
            .map_err(|_| Failure::invalid("a snapshot comes in one descriptor"))?;
        // It may be the first one of this relay, which needs them before.
        self.renew_endpoints();
        self.relay.load(Sealed::check(snapshot)?, listeners)
    }

    fn attach(&mut self, spec: &EndpointSpec) -> Result<(), Failure> {
        check_endpoint(spec)?;
        let netns = self.sandboxes.netns(&spec.sandbox)?;
        with(Class::Visit, || self.router.attach(spec, netns))
    }

    fn default_routes(&mut self, id: &SandboxId, routes: &[DefaultRoute]) -> Result<(), Failure> {
        check_one_per_family(routes.iter().map(|route| route.gateway))?;
        let netns = self.sandboxes.netns(id)?;
        with(Class::Visit, || self.router.default_routes(routes, netns))
    }

    fn create(&mut self, spec: SandboxSpec, fds: Vec<OwnedFd>) -> Result<Reply, Failure> {
        if spec.process.is_none() && spec.netns == SandboxNetns::Given {
            let netns_fd = self.adopt(&spec, fds)?;
            return Ok(Reply::Bare { netns_fd });
        }
        if spec.process.is_none() {
            let netns_fd = self.sandboxes.create_bare(&spec)?;
            return Ok(Reply::Bare { netns_fd });
        }
        let pid = self.sandboxes.create(spec, three(fds)?)?;
        Ok(Reply::Created { pid })
    }

    fn adopt(&mut self, spec: &SandboxSpec, fds: Vec<OwnedFd>) -> Result<i32, Failure> {
        let [netns] = <[OwnedFd; 1]>::try_from(fds)
            .map_err(|_| Failure::invalid("a network namespace comes in one descriptor"))?;
        if adopt::same(netns.as_fd(), self.router.netns()) {
            return Err(Failure::invalid(
                "the router's network namespace is no container's",
            ));
        }
        with(Class::Visit, || self.sandboxes.adopt(spec, netns))
    }

    fn hello(&self, version: u32) -> Result<Reply, Failure> {
        if version != PROTOCOL_VERSION {
            return Err(Failure::invalid(format!(
                "the helper speaks version {PROTOCOL_VERSION} of its protocol, the daemon {version}; stop all sandboxes to replace the helper"
            )));
        }
        let pid = std::process::id();
        Ok(Reply::Hello {
            version: PROTOCOL_VERSION,
            pid,
            mapped_ids: self.mapped_ids,
            anti_spoofing: self.router.is_guarded(),
            router_netns_fd: self.router.netns().as_raw_fd(),
        })
    }

    fn unsent(&self, id: &SandboxId) -> Result<Reply, Failure> {
        let sockets = match self.sandboxes.last_netns(id) {
            Some(netns) => {
                let inhabited = self.sandboxes.live_in(netns);
                with(Class::Visit, || unsent::count(netns, inhabited))?
            }
            None => 0,
        };
        Ok(Reply::Unsent { sockets })
    }

    fn inventory(&mut self) -> Result<Reply, Failure> {
        let holdings = self.router.holdings()?;
        let mut uplinks = self.uplinks.running();
        if self.router.has_kernel_link()? {
            uplinks.push(UplinkKind::Kernel);
        }
        Ok(Reply::Inventory(Box::new(Inventory {
            processes: self.sandboxes.list(),
            bridges: holdings.bridges,
            endpoints: holdings.endpoints,
            relay_pid: self.relay.pid().map(|pid| pid.as_raw().unsigned_abs()),
            uplinks,
            listeners: self.relay.listeners(),
        })))
    }

    /// Whose child has ended, if the daemon must know.
    pub fn exited(&mut self, pid: Pid, status: ExitStatus, now: Instant) -> Option<Event> {
        if let Some(id) = self.sandboxes.exited(pid, status) {
            return Some(Event::Exited { id, status });
        }
        if self.relay.exited(pid, status, now) {
            self.follow(self.rushes.over());
            return None;
        }
        let kind = self.uplinks.exited(pid)?;
        Some(Event::UplinkExited { kind, status })
    }

    /// End everything.
    pub fn shut_down(&mut self) {
        for process in self.sandboxes.list() {
            let _ = with(Class::None, || self.sandboxes.forget(&process.id));
        }
        self.relay.stop();
        self.router.stop_remover();
        for kind in self.uplinks.running() {
            self.uplinks.stop(kind);
        }
    }
}

fn three(fds: Vec<OwnedFd>) -> Result<[OwnedFd; 3], Failure> {
    <[OwnedFd; 3]>::try_from(fds).map_err(|fds| {
        Failure::invalid(format!(
            "stdin, stdout and stderr must come along, not {} descriptors",
            fds.len()
        ))
    })
}

fn check_prefix(name: &IfName, prefix: &str) -> Result<(), Failure> {
    let rest = name.as_str().strip_prefix(prefix);
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match rest {
        Some(rest) if !rest.is_empty() && rest.bytes().all(legal) => Ok(()),
        _ => Err(Failure::invalid(format!(
            "interface name '{name}' must be '{prefix}' with letters and digits after it"
        ))),
    }
}

fn check_mtu(mtu: u32, addresses: &[IpNet]) -> Result<(), Failure> {
    let ipv6 = addresses.iter().any(|address| address.addr().is_ipv6());
    let smallest = if ipv6 { SMALLEST_MTU_V6 } else { SMALLEST_MTU };
    if !(smallest..=LARGEST_MTU).contains(&mtu) {
        return Err(Failure::invalid(format!(
            "MTU {mtu} must be {smallest} to {LARGEST_MTU} bytes"
        )));
    }
    if addresses.len() > MOST_ADDRESSES {
        return Err(Failure::invalid(format!(
            "more than {MOST_ADDRESSES} addresses"
        )));
    }
    let unusable = addresses.iter().find(|net| {
        let address = net.addr();
        let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
        broadcast || address.is_multicast() || address.is_unspecified() || address.is_loopback()
    });
    match unusable {
        Some(net) => Err(Failure::invalid(format!(
            "{net} cannot be the address of an interface"
        ))),
        None => Ok(()),
    }
}

fn check_bridge(spec: &BridgeSpec) -> Result<(), Failure> {
    check_prefix(&spec.name, BRIDGE_PREFIX)?;
    if spec.vlan.is_some_and(|vlan| !VLANS.contains(&vlan)) {
        return Err(Failure::invalid("a VLAN id must be 1 to 4094"));
    }
    check_mtu(spec.mtu, &spec.addresses)
}

fn check_endpoint(spec: &EndpointSpec) -> Result<(), Failure> {
    check_prefix(&spec.bridge, BRIDGE_PREFIX)?;
    check_prefix(&spec.router_ifname, ENDPOINT_PREFIX)?;
    if spec.ifname.as_str() == "lo" {
        return Err(Failure::invalid("an endpoint cannot be called 'lo'"));
    }
    check_one_per_family(spec.default_routes.iter().copied())?;
    check_mtu(spec.mtu, &spec.addresses)
}

fn check_one_per_family(gateways: impl Iterator<Item = IpAddr> + Clone) -> Result<(), Failure> {
    let of = |ipv6: bool| gateways.clone().filter(|via| via.is_ipv6() == ipv6).count();
    if of(true) > 1 || of(false) > 1 {
        return Err(Failure::invalid(
            "more than one default route for an address family",
        ));
    }
    Ok(())
}

fn check_networks(networks: &[NetworkRules]) -> Result<(), Failure> {
    if networks.len() > MOST_NETWORKS {
        return Err(Failure::invalid(format!(
            "more than {MOST_NETWORKS} networks"
        )));
    }
    networks
        .iter()
        .try_for_each(|network| check_prefix(&network.bridge, BRIDGE_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(name: &str, mtu: u32, address: &str) -> BridgeSpec {
        BridgeSpec {
            name: name.parse().unwrap(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            mtu,
            addresses: vec![address.parse().unwrap()],
            icc: true,
            vlan: None,
        }
    }

    #[test]
    fn bridges_are_checked() {
        assert!(check_bridge(&bridge("br-0123456789ab", 1500, "10.0.0.1/24")).is_ok());
        for bad in [
            bridge("up0", 1500, "10.0.0.1/24"),
            bridge("br-", 1500, "10.0.0.1/24"),
            bridge("br-*", 1500, "10.0.0.1/24"),
            bridge("br-\"x", 1500, "10.0.0.1/24"),
            bridge("br-a", 67, "10.0.0.1/24"),
            bridge("br-a", 65536, "10.0.0.1/24"),
            bridge("br-a", 1279, "fd00::1/64"),
            bridge("br-a", 1500, "224.0.0.1/24"),
            bridge("br-a", 1500, "127.0.0.1/8"),
            bridge("br-a", 1500, "::/64"),
        ] {
            let failure = check_bridge(&bad).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Invalid, "{failure}");
        }
    }

    #[test]
    fn endpoints_are_checked() {
        let good = EndpointSpec {
            sandbox: crate::SandboxId::from([1; 32]),
            bridge: "br-a".parse().unwrap(),
            router_ifname: "ve-a".parse().unwrap(),
            ifname: "eth0".parse().unwrap(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            mtu: 1500,
            addresses: vec!["10.0.0.2/24".parse().unwrap()],
            default_routes: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            bandwidth: crate::bandwidth::Bandwidth::default(),
        };
        assert!(check_endpoint(&good).is_ok());
        let bad = [
            EndpointSpec {
                bridge: "eth0".parse().unwrap(),
                ..good.clone()
            },
            EndpointSpec {
                router_ifname: "up0".parse().unwrap(),
                ..good.clone()
            },
            EndpointSpec {
                ifname: "lo".parse().unwrap(),
                ..good.clone()
            },
            EndpointSpec {
                default_routes: vec!["10.0.0.1".parse().unwrap(); 2],
                ..good.clone()
            },
        ];
        for spec in bad {
            assert!(check_endpoint(&spec).is_err(), "{spec:?}");
        }
    }
}
