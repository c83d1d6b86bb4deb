//! One call: set-up and teardown of a container, and what concerns all of them.
//!
//! Order of a set-up: everything is checked; the record says what is going to be; links, rules, names
//! follow. A failure undoes what was done. A kill in between leaves a record, or a link that goes with the
//! container's namespace; both are cleaned up by the next call, and so is a bridge that nobody is on.

use super::departure::{Departure, Leaving, departures};
use super::input::Request;
use super::names::NameServer;
use super::output::Status;
use super::plan::{self, LinkPlan, NetworkPlan};
use super::ports::{self, Ports};
use super::refusal::{NetworkRefusal, Refusal};
use super::state::{BridgeRecord, Container, Rules, State};
use crate::compat::digest::digest;
use mossnet_helper::IfName;
use mossnet_helper::foreign::{self, Place};
use mossnet_helper::netlink::LinkKind;
use mossnet_helper::ruleset;
use nix::sys::statfs::{self, FsType};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// NSFS_MAGIC, linux/magic.h.
const NSFS: FsType = FsType(0x6e73_6673);
/// Port of a name server where nobody asks.
pub const DNS_PORT: u16 = 53;

/// Where, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Podman's configuration directory for us.
    pub directory: PathBuf,
    /// The name server.
    pub aardvark: Option<PathBuf>,
    /// Where it listens.
    pub dns_port: u16,
    /// The namespace is podman's alone.
    pub rootless: bool,
    /// Whether addresses are translated and networks kept apart.
    pub firewall: bool,
}

/// What a call has at hand.
#[derive(Debug)]
struct Session<'a> {
    settings: &'a Settings,
    place: Place,
    state: State,
    names: NameServer,
}

impl<'a> Session<'a> {
    fn open(settings: &'a Settings) -> Result<Self, Refusal> {
        let state = State::open(&settings.directory)?;
        let aardvark = settings.aardvark.clone();
        Ok(Self {
            settings,
            place: Place::here()?,
            state,
            names: NameServer::new(&settings.directory, aardvark, settings.dns_port),
        })
    }
}

/// Connects a container to its networks.
pub fn set_up(settings: &Settings, request: &Request, path: &Path) -> Result<Status, Refusal> {
    let plans = plan::plan(request)?;
    let ports = ports::ports(request.port_mappings.as_deref().unwrap_or_default())?;
    let netns = open_netns(path)?;
    let mut session = Session::open(settings)?;
    session.forget_the_dead();
    let plans = session.with_mtu(plans)?;
    match session.connect(request, &plans, ports, path, &netns) {
        Ok(()) => Ok(plans
            .into_iter()
            .map(|plan| (plan.name, plan.status))
            .collect()),
        Err(refusal) => {
            // What goes wrong now is a consequence of what did before.
            let made: Vec<Departure> = plans.iter().map(Departure::from).collect();
            let _ = session.disconnect(&request.container_id, &made, Some(&netns));
            Err(refusal)
        }
    }
}

/// Takes a container off its networks. Goes on after a failure, and tells all of them.
pub fn tear_down(settings: &Settings, request: &Request, path: &Path) -> Result<(), Refusal> {
    let (left, mut failures) = departures(request)?;
    // Gone already, most often with all that was in it.
    let netns = open_netns(path).ok();
    let mut session = Session::open(settings)?;
    failures.extend(session.disconnect(&request.container_id, &left, netns.as_ref()));
    session.forget_the_dead();
    several(failures)
}

/// Makes the rules again, as after somebody flushed them.
pub fn reload(settings: &Settings) -> Result<(), Refusal> {
    let mut session = Session::open(settings)?;
    session.forget_the_dead();
    session.state.record.rules = None;
    session.rules()
}

/// Gives a network other resolvers.
pub fn update(settings: &Settings, network: &str, servers: &[IpAddr]) -> Result<(), Refusal> {
    plan::check_name("network name", network)?;
    let session = Session::open(settings)?;
    session.names.set_servers(network, servers)?;
    session.names.tell(true)
}

fn several(mut failures: Vec<Refusal>) -> Result<(), Refusal> {
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        _ => Err(Refusal::Several(failures)),
    }
}

fn open_netns(path: &Path) -> Result<File, Refusal> {
    let failed = |source| Refusal::Netns {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let kind = statfs::fstatfs(&file).map_err(|errno| failed(errno.into()))?;
    match kind.filesystem_type() == NSFS {
        true => Ok(file),
        false => Err(Refusal::NotNetns(path.to_owned())),
    }
}

/// Which namespace it is.
fn inode(netns: &File) -> u64 {
    netns.metadata().map_or(0, |metadata| metadata.ino())
}

fn lives(container: &Container) -> bool {
    open_netns(&container.netns).is_ok_and(|netns| inode(&netns) == container.inode)
}

impl Session<'_> {
    /// The MTU of each network that says none: that of the way out for a new bridge, and that of a bridge
    /// which is there.
    fn with_mtu(&mut self, mut plans: Vec<NetworkPlan>) -> Result<Vec<NetworkPlan>, Refusal> {
        for plan in plans.iter_mut().filter(|plan| plan.guest.mtu == 0) {
            let mtu = match &mut plan.link {
                LinkPlan::Bridge(planned) => {
                    let link = self.place.link(&planned.bridge.name)?;
                    let mtu = match link {
                        Some(link) => link.mtu,
                        None => self.place.usual_mtu()?,
                    };
                    planned.bridge.mtu = mtu;
                    mtu
                }
                LinkPlan::Share { .. } => continue,
            };
            plan.guest.mtu = mtu;
        }
        Ok(plans)
    }

    fn connect(
        &mut self,
        request: &Request,
        plans: &[NetworkPlan],
        ports: Vec<Ports>,
        path: &Path,
        netns: &File,
    ) -> Result<(), Refusal> {
        let mut container =
            Container::of(&request.container_id, (path, inode(netns)), plans, ports);
        container.dns_port = Some(self.settings.dns_port).filter(|port| *port != DNS_PORT);
        if let Some(former) = self.state.record.add(container) {
            self.bury(&former);
        }
        self.state.save()?;
        self.place.forward(self.settings.rootless)?;
        for plan in plans {
            self.link(plan, netns)?;
        }
        self.rules()?;
        let mut named = false;
        for plan in plans {
            if let Some(names) = &plan.names {
                self.names.add(&plan.name, &request.container_id, names)?;
                named = true;
            }
        }
        match named {
            true => self.names.tell(true),
            false => Ok(()),
        }
    }

    fn link(&mut self, plan: &NetworkPlan, netns: &File) -> Result<(), Refusal> {
        let absent = |name: &str| Refusal::Network {
            network: plan.name.clone(),
            source: NetworkRefusal::NoParent(name.to_owned()),
        };
        match &plan.link {
            LinkPlan::Bridge(planned) => {
                let bridge = &planned.bridge;
                if planned.managed {
                    self.place.bridge(bridge)?;
                } else {
                    let link = self.place.link(&bridge.name)?;
                    link.filter(|link| link.kind == LinkKind::Bridge)
                        .ok_or_else(|| absent(bridge.name.as_str()))?;
                }
                let (name, port) = (&bridge.name, &planned.port);
                self.place.plug(name, port, &plan.guest, netns.as_fd())?;
            }
            LinkPlan::Share { parent, kind } => {
                let link = match parent {
                    Some(name) => self.place.link(name)?,
                    None => self.place.default_link()?,
                };
                let name = parent.as_ref().map_or("of a default route", IfName::as_str);
                let link = link.ok_or_else(|| absent(name))?;
                let mut guest = plan.guest.clone();
                if guest.mtu == 0 {
                    guest.mtu = link.mtu;
                }
                self.place.share(&link, *kind, &guest, netns.as_fd())?;
            }
        }
        Ok(())
    }

    /// Makes the kernel's rules those of the record, where they are not.
    fn rules(&mut self) -> Result<(), Refusal> {
        if !self.settings.firewall {
            return Ok(());
        }
        let record = &self.state.record;
        let (segments, forwards) = (record.segments(), record.forwards());
        let wanted = Rules {
            digest: digest(&[&format!("{segments:?}{forwards:?}")]),
            netns: File::open("/proc/thread-self/ns/net").map_or(0, |netns| inode(&netns)),
        };
        if record.rules == Some(wanted) && wanted.netns != 0 {
            return Ok(());
        }
        let families = self.place.families();
        let rules = (!segments.is_empty()).then(|| ruleset::podman(&segments, &forwards, families));
        // Whoever is killed from here on leaves nobody knowing which are there.
        self.state.record.rules = None;
        self.state.save()?;
        self.place.rules(rules.as_ref())?;
        self.state.record.rules = Some(wanted);
        Ok(self.state.save()?)
    }

    fn disconnect(&mut self, id: &str, left: &[Departure], netns: Option<&File>) -> Vec<Refusal> {
        let mut failures = Vec::new();
        let mut note = |result: Result<(), Refusal>| failures.extend(result.err());
        let mut named = false;
        for departure in left {
            match self.names.remove(&departure.network, id) {
                Ok(was) => named |= was,
                Err(refusal) => note(Err(refusal)),
            }
        }
        if named {
            note(self.names.tell(false));
        }
        let names = left.iter().map(|departure| departure.network.as_str());
        self.state.record.remove(id, names);
        for departure in left {
            note(self.unlink(&departure.link, netns));
        }
        note(self.rules());
        note(self.state.save().map_err(Refusal::from));
        failures
    }

    fn unlink(&mut self, link: &Leaving, netns: Option<&File>) -> Result<(), Refusal> {
        match link {
            Leaving::Bridge {
                bridge,
                port,
                managed,
                guest,
            } => {
                let known = self.place.link(port)?.is_some();
                self.place.remove(port)?;
                if let (false, Some(guest), Some(netns)) = (known, guest, netns) {
                    // Connected by netavark, before us: its pair goes with the container's end.
                    foreign::remove_inside(guest, netns.as_fd())?;
                }
                self.drop_bridge(bridge, *managed)
            }
            Leaving::Share(name) => match netns {
                Some(netns) => Ok(foreign::remove_inside(name, netns.as_fd())?),
                None => Ok(()),
            },
        }
    }

    /// Removes a bridge of ours that nobody is on any more.
    fn drop_bridge(&mut self, name: &IfName, managed: bool) -> Result<(), Refusal> {
        if managed {
            self.place.remove_unused(name)?;
        }
        Ok(())
    }

    /// Containers that went without a teardown take their rules, names and bridges along.
    fn forget_the_dead(&mut self) {
        let dead = self.state.record.forget_the_dead(lives);
        for container in &dead {
            self.bury(container);
        }
        if !dead.is_empty() {
            // What a failure leaves is tried again the next time a container dies.
            let _ = self.rules();
            let _ = self.names.tell(false);
            let _ = self.state.save();
        }
    }

    fn bury(&mut self, container: &Container) {
        let bridges: BTreeSet<(IfName, bool)> = container
            .networks
            .iter()
            .filter_map(|network| network.bridge.as_ref())
            .map(|bridge: &BridgeRecord| (bridge.name.clone(), bridge.managed))
            .collect();
        for network in &container.networks {
            let _ = self.names.remove(&network.network, &container.id);
            if let Some(bridge) = &network.bridge {
                let _ = self.place.remove(&bridge.port);
            }
        }
        for (bridge, managed) in bridges {
            let _ = self.drop_bridge(&bridge, managed);
        }
    }
}
