//! The record of what is connected: one file in podman's configuration directory, which lives as long
//! as the namespaces do.
//!
//! The kernel's rules are always made from the whole of it, so that they can be made again
//! (firewall-reload) and never hold what nobody remembers. Invariant: read and written under a lock that
//! dies with its holder; replaced as a whole, so that a kill leaves the old or the new one. A container
//! whose network namespace is gone is forgotten at the next occasion.

use super::plan::{LinkPlan, NetworkPlan};
use super::ports::Ports;
use mossnet_helper::IfName;
use mossnet_helper::ruleset::{Forward, Isolation, Segment};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const FILE: &str = "mossnet.json";
const NEW: &str = "mossnet.json.new";
/// The same that netavark takes for its name server's files.
pub const LOCK_FILE: &str = "aardvark.lock";

/// Why the record cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {source}", path.display())]
pub struct StateError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The record, with the lock on it.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    /// What is connected.
    pub record: Record,
    _lock: Flock<File>,
}

/// What is connected, in the order in which it came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Containers.
    pub containers: Vec<Container>,
    /// What the kernel's rules were last made from, and in which namespace: they are left alone while both
    /// stay the same.
    #[serde(default)]
    pub rules: Option<Rules>,
}

/// Rules that the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Digest of what they were made from.
    pub digest: u64,
    /// The network namespace (namespaces(7)).
    pub netns: u64,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Where its network namespace is.
    pub netns: PathBuf,
    /// Which that is (namespaces(7)): another may come to be at the same place.
    pub inode: u64,
    /// Networks, the first one first.
    pub networks: Vec<Connected>,
    /// Ports that lead to it.
    pub ports: Vec<Ports>,
    /// Where the name servers of its networks listen instead of port 53.
    pub dns_port: Option<u16>,
}

/// A network that a container is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// Name of the network.
    pub network: String,
    /// Its name server has an entry.
    pub named: bool,
    /// The bridge; absent: on another link's wire.
    pub bridge: Option<BridgeRecord>,
    /// The container's addresses.
    pub addresses: Vec<IpAddr>,
}

/// A bridge that a container is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeRecord {
    /// Name.
    pub name: IfName,
    /// The veth pair's end on it.
    pub port: IfName,
    /// Ours to remove, and to have rules for.
    pub managed: bool,
    /// Nothing leaves it.
    pub internal: bool,
    /// Which other bridges it reaches.
    pub isolate: Isolate,
    /// Addresses that its traffic bears outside.
    pub outbound: Vec<IpAddr>,
    /// The bridge's own.
    pub gateways: Vec<IpAddr>,
}

/// As the record has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolate {
    /// Reaches all.
    None,
    /// Those that are not isolated.
    Isolated,
    /// Reaches none.
    Strict,
}

impl State {
    /// Reads the record in `directory`, which is made where it is missing; waits for the lock.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StateError { what, path, source }
        };
        fs::create_dir_all(directory).map_err(failed("make directory", directory))?;
        let path = directory.join(LOCK_FILE);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| failed("lock", &path)(errno.into()))?;
        let path = directory.join(FILE);
        let record = match fs::read(&path) {
            // A record that cannot be read would be in the way for ever.
            Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record::default(),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        Ok(Self {
            directory: directory.to_owned(),
            record,
            _lock: lock,
        })
    }

    /// Writes the record; an empty one is no file.
    pub fn save(&self) -> Result<(), StateError> {
        let (path, new) = (self.directory.join(FILE), self.directory.join(NEW));
        let failed = |what, path: &Path, source| StateError {
            what,
            path: path.to_owned(),
            source,
        };
        if self.record.containers.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(failed("remove", &path, error))
                }
                _ => Ok(()),
            };
        }
        let write = || {
            let mut options = OpenOptions::new();
            options.create(true).truncate(true).write(true).mode(0o600);
            let mut file = options.open(&new)?;
            serde_json::to_writer(&mut file, &self.record)?;
            file.flush()
        };
        write().map_err(|error: io::Error| failed("write", &new, error))?;
        fs::rename(&new, &path).map_err(|error| failed("replace", &path, error))
    }
}

impl Record {
    /// Forgets containers whose namespace is gone, and returns them.
    pub fn forget_the_dead(&mut self, lives: impl Fn(&Container) -> bool) -> Vec<Container> {
        let (live, dead) = std::mem::take(&mut self.containers)
            .into_iter()
            .partition(lives);
        self.containers = live;
        dead
    }

    /// Adds networks of a container. One of the same id in another namespace is a former life of it,
    /// and is returned.
    pub fn add(&mut self, new: Container) -> Option<Container> {
        let at = self.containers.iter().position(|known| known.id == new.id);
        let Some(at) = at else {
            self.containers.push(new);
            return None;
        };
        let known = &mut self.containers[at];
        if (&known.netns, known.inode) != (&new.netns, new.inode) {
            return Some(std::mem::replace(known, new));
        }
        for network in new.networks {
            known.networks.retain(|old| old.network != network.network);
            known.networks.push(network);
        }
        known.ports = new.ports;
        known.dns_port = new.dns_port;
        None
    }

    /// Takes networks of a container out.
    pub fn remove<'a>(&mut self, id: &str, networks: impl Iterator<Item = &'a str> + Clone) {
        for container in self.containers.iter_mut().filter(|known| known.id == id) {
            let stays = |known: &Connected| !networks.clone().any(|name| name == known.network);
            container.networks.retain(stays);
        }
        self.containers.retain(|known| !known.networks.is_empty());
    }

    /// Bridges that the rules are about, each once.
    pub fn segments(&self) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::new();
        for bridge in self.bridges().filter(|bridge| bridge.managed) {
            if !segments.iter().any(|known| known.bridge == bridge.name) {
                segments.push(Segment {
                    bridge: bridge.name.clone(),
                    internal: bridge.internal,
                    isolation: bridge.isolate.into(),
                    outbound: bridge.outbound.clone(),
                });
            }
        }
        segments
    }

    fn bridges(&self) -> impl Iterator<Item = &BridgeRecord> {
        let networks = self
            .containers
            .iter()
            .flat_map(|container| &container.networks);
        networks.filter_map(|network| network.bridge.as_ref())
    }

    /// Ports, in the order in which containers came: of several who want one, the first has it.
    pub fn forwards(&self) -> Vec<Forward> {
        self.containers
            .iter()
            .flat_map(Container::forwards)
            .collect()
    }
}

impl Container {
    /// What a plan will have made, for the record.
    pub fn of(id: &str, netns: (&Path, u64), plans: &[NetworkPlan], ports: Vec<Ports>) -> Self {
        Self {
            id: id.to_owned(),
            netns: netns.0.to_owned(),
            inode: netns.1,
            networks: plans.iter().map(Connected::of).collect(),
            ports,
            dns_port: None,
        }
    }

    fn forwards(&self) -> Vec<Forward> {
        let mut forwards = Vec::new();
        // Of each family the first network that leads outside.
        let open = |network: &&Connected| {
            let bridge = network.bridge.as_ref();
            bridge.is_some_and(|bridge| bridge.managed && !bridge.internal)
        };
        for v4 in [true, false] {
            let networks = self.networks.iter().filter(open);
            let mut addresses = networks.flat_map(|network| &network.addresses);
            let Some(target) = addresses.find(|address| address.is_ipv4() == v4) else {
                continue;
            };
            let here = |ports: &&Ports| ports.host_addr.is_none_or(|addr| addr.is_ipv4() == v4);
            for ports in self.ports.iter().filter(here) {
                let pairs = ports.pairs().map(|(host_port, container_port)| Forward {
                    host_addr: ports.host_addr,
                    protocol: ports.protocol,
                    host_port,
                    target: SocketAddr::new(*target, container_port),
                });
                forwards.extend(pairs);
            }
        }
        forwards.extend(self.name_servers());
        forwards
    }

    /// Port 53 of a bridge where its name server listens elsewhere.
    fn name_servers(&self) -> Vec<Forward> {
        let Some(port) = self.dns_port else {
            return Vec::new();
        };
        let named = self.networks.iter().filter(|network| network.named);
        let bridges = named.filter_map(|network| network.bridge.as_ref());
        let gateways = bridges.flat_map(|bridge| &bridge.gateways);
        let both = |gateway: &IpAddr| {
            [libc::IPPROTO_UDP, libc::IPPROTO_TCP].map(|protocol| Forward {
                host_addr: Some(*gateway),
                protocol: protocol as u8,
                host_port: 53,
                target: SocketAddr::new(*gateway, port),
            })
        };
        gateways.flat_map(both).collect()
    }
}

impl Connected {
    fn of(plan: &NetworkPlan) -> Self {
        let bridge = match &plan.link {
            LinkPlan::Bridge(planned) => Some(BridgeRecord {
                name: planned.bridge.name.clone(),
                port: planned.port.clone(),
                managed: planned.managed,
                internal: planned.internal,
                isolate: planned.isolation.into(),
                outbound: planned.outbound.clone(),
                gateways: planned
                    .bridge
                    .addresses
                    .iter()
                    .map(ipnet::IpNet::addr)
                    .collect(),
            }),
            LinkPlan::Share { .. } => None,
        };
        Self {
            network: plan.name.clone(),
            named: plan.names.is_some(),
            bridge,
            addresses: plan
                .guest
                .addresses
                .iter()
                .map(ipnet::IpNet::addr)
                .collect(),
        }
    }
}

impl From<Isolation> for Isolate {
    fn from(isolation: Isolation) -> Self {
        match isolation {
            Isolation::None => Self::None,
            Isolation::Isolated => Self::Isolated,
            Isolation::Strict => Self::Strict,
        }
    }
}

impl From<Isolate> for Isolation {
    fn from(isolate: Isolate) -> Self {
        match isolate {
            Isolate::None => Self::None,
            Isolate::Isolated => Self::Isolated,
            Isolate::Strict => Self::Strict,
        }
    }
}

#[cfg(test)]
mod tests;
