//! External uplinks: an installed pasta or slirp4netns, run inside our user namespace, that makes a
//! tap device in the router netns. Traffic of the networks that use it is marked by the ruleset,
//! routed by a table of its own, and masqueraded to the tap's address.
//!
//! Invariant: no more than one of each kind runs, and it ends with the helper. Names stay ours:
//! containers ask the gateway, so neither forwards DNS or maps the host's loopback.
//!
//! Sources: pasta(1), slirp4netns(1).

use crate::namespace::in_netns;
use crate::netlink::Explain;
use crate::netlink::{Link, Netlink, Route, add_address, add_route};
use crate::request::{Failure, UplinkKind, UplinkSpec};
use crate::router::{Router, table_of};
use crate::ruleset::{PASTA_MARK, PASTA_TAP, SLIRP_MARK, SLIRP_TAP};
use crate::sys::child::bind_to_parent;
use crate::sys::process::pidfd_open;
use crate::sysctl;
use ipnet::IpNet;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the program may take to make its tap device.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a killed program may take to end, milliseconds.
const END_TIMEOUT: u16 = 2000;
/// How often to see whether it has given up meanwhile.
const LOOK: Duration = Duration::from_millis(100);
/// Where the program finds the router netns: on stdin. It closes all other descriptors, and pasta
/// gives its capabilities up before it opens the path, so that it may not look at ours.
const NETNS: &str = "/proc/self/fd/0";
/// The largest that both take.
const MTU: u32 = 65520;

/// The external uplinks that run.
#[derive(Debug, Default)]
pub struct Uplinks {
    running: BTreeMap<UplinkKind, Pid>,
}

/// What is particular to a program.
struct Dialect {
    name: &'static str,
    mark: u32,
    tap: &'static str,
    addresses: Vec<IpNet>,
    gateways: Vec<IpAddr>,
}

impl Dialect {
    fn of(kind: UplinkKind) -> Result<Self, Failure> {
        let net = |address: IpAddr, length| {
            IpNet::new(address, length).map_err(|e| Failure::invalid(e.to_string()))
        };
        match kind {
            UplinkKind::Pasta => Ok(Self {
                name: "pasta",
                mark: PASTA_MARK,
                tap: PASTA_TAP,
                addresses: vec![
                    net(Ipv4Addr::new(169, 254, 78, 2).into(), 30)?,
                    net(
                        Ipv6Addr::new(0xfd77, 0x6d6f, 0x7373, 0x78, 0, 0, 0, 2).into(),
                        64,
                    )?,
                ],
                gateways: vec![
                    Ipv4Addr::new(169, 254, 78, 1).into(),
                    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(),
                ],
            }),
            UplinkKind::Slirp => Ok(Self {
                name: "slirp4netns",
                mark: SLIRP_MARK,
                tap: SLIRP_TAP,
                addresses: vec![
                    net(Ipv4Addr::new(10, 0, 2, 100).into(), 24)?,
                    net(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100).into(), 64)?,
                ],
                gateways: vec![
                    Ipv4Addr::new(10, 0, 2, 2).into(),
                    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).into(),
                ],
            }),
            UplinkKind::Relay | UplinkKind::Kernel | UplinkKind::None => Err(Failure::invalid(
                "only pasta and slirp are external uplinks",
            )),
        }
    }

    /// Command line.
    fn arguments(&self) -> Vec<String> {
        let mtu = MTU.to_string();
        let words: Vec<&str> = if self.mark == PASTA_MARK {
            let no_ports = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"];
            let quiet = [
                "--foreground",
                "--quiet",
                "--no-dhcp",
                "--no-dhcpv6",
                "--no-ra",
            ];
            let place = [
                "--netns-only",
                "--no-netns-quit",
                "--netns",
                NETNS,
                "--ns-ifname",
                self.tap,
            ];
            let closed = [
                "--no-map-gw",
                "--mtu",
                &mtu,
                "-a",
                "169.254.78.2",
                "-n",
                "30",
            ];
            let gateway = ["-g", "169.254.78.1"];
            [&quiet[..], &place, &closed, &gateway, &no_ports].concat()
        } else {
            let closed = ["--disable-host-loopback", "--disable-dns", "--enable-ipv6"];
            [
                &closed[..],
                &["--mtu", &mtu, "--netns-type=path", NETNS, self.tap],
            ]
            .concat()
        };
        words.into_iter().map(str::to_owned).collect()
    }
}

impl Uplinks {
    /// Those that run.
    pub fn running(&self) -> Vec<UplinkKind> {
        self.running.keys().copied().collect()
    }

    /// Start one, and lead its networks out through it. Running already is success.
    pub fn start(&mut self, spec: &UplinkSpec, router: &mut Router) -> Result<(), Failure> {
        let dialect = Dialect::of(spec.kind)?;
        if self.running.contains_key(&spec.kind) {
            return Ok(());
        }
        if !spec.program.is_absolute() {
            let what = format!("the path of {} must be absolute", dialect.name);
            return Err(Failure::invalid(what));
        }
        let mut changes = in_netns(router.netns(), || {
            Netlink::link_changes().map_err(|e| Failure::kernel("open rtnetlink", e))
        })?;
        let failed = |e| Failure::kernel(format!("start {}", spec.program.display()), e);
        let netns = router.netns().try_clone_to_owned().map_err(failed)?;
        let mut command = Command::new(&spec.program);
        command
            .args(dialect.arguments())
            .stdin(netns)
            .stdout(Stdio::null());
        command.env_clear();
        bind_to_parent(&mut command, Vec::new());
        let child = command.spawn().map_err(failed)?;
        let pid = Pid::from_raw(child.id().cast_signed());
        self.running.insert(spec.kind, pid);
        let result = wait_for_tap(&mut changes, &dialect, pid)
            .and_then(|tap| lead_out(router, &mut changes, &dialect, &tap));
        if result.is_err() {
            self.stop(spec.kind);
        }
        result
    }

    /// Stop one; not running is success. Its tap device and routes go with it, before another one
    /// can be started.
    pub fn stop(&mut self, kind: UplinkKind) {
        let Some(pid) = self.running.remove(&kind) else {
            return;
        };
        // It is our child and has not been waited for, so the id is still its own.
        let _ = kill(pid, Signal::SIGKILL);
        if let Ok(pidfd) = pidfd_open(pid) {
            let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::from(END_TIMEOUT));
        }
    }

    /// Note the end of a child; which one it was, unless it was stopped.
    pub fn exited(&mut self, pid: Pid) -> Option<UplinkKind> {
        let kind = self
            .running
            .iter()
            .find(|(_, running)| **running == pid)
            .map(|(kind, _)| *kind)?;
        self.running.remove(&kind);
        Some(kind)
    }
}

fn wait_for_tap(changes: &mut Netlink, dialect: &Dialect, pid: Pid) -> Result<Link, Failure> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let look = (Instant::now() + LOOK).min(deadline);
        let tap = changes.wait_link(dialect.tap, look, |_| true);
        if let Some(link) = tap.map_err(|e| e.failure(format!("wait for {}", dialect.tap)))? {
            return Ok(link);
        }
        if has_ended(pid) {
            let what = format!("{} ended at once; see helper.log", dialect.name);
            return Err(Failure::kernel(what, Errno::ECHILD));
        }
    }
    let what = format!("{} made no tap device within {PATIENCE:?}", dialect.name);
    Err(Failure::kernel(what, Errno::ETIMEDOUT))
}

/// Whether a child has ended, without taking note of it: that is up to the event loop.
fn has_ended(pid: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    !matches!(waitid(Id::Pid(pid), flags), Ok(WaitStatus::StillAlive))
}

/// Addresses and a default route in the uplink's own table.
fn lead_out(
    router: &Router,
    route: &mut Netlink,
    dialect: &Dialect,
    tap: &Link,
) -> Result<(), Failure> {
    let families = router.families();
    if families.ipv6 {
        in_netns(router.netns(), || sysctl::set_ipv6(dialect.tap, true))?;
    }
    let usable = |address: &IpAddr| families.ipv6 || address.is_ipv4();
    route
        .set_up_with_mtu(tap.index, MTU)
        .map_err(|e| e.failure(format!("set {} up", dialect.tap)))?;
    for address in dialect.addresses.iter().filter(|net| usable(&net.addr())) {
        add_address(route, tap.index, *address)
            .map_err(|e| e.failure(format!("give {} the address {address}", dialect.tap)))?;
    }
    for gateway in dialect.gateways.iter().copied().filter(usable) {
        let via = Route::Via {
            gateway,
            index: tap.index,
            table: table_of(dialect.mark),
        };
        add_route(route, via)
            .map_err(|e| e.failure(format!("route marked packets via {gateway}")))?;
    }
    Ok(())
}
