//! The configuration directory: one file for each network, called as it is, `NAME%int` if it is an
//! internal one. First line: addresses to listen at, and resolvers; each other line a container: id, IPv4
//! and IPv6 addresses, names, resolvers. Words are apart by one space, several of a kind by commas.
//!
//! Pure but for reading. A line that is none is left out and does not take others along: files are
//! written by whoever is netavark. Source: aardvark-dns's documentation.

use crate::compat::digest::digest;
use crate::compat::netavark::{INTERNAL, PID_FILE};
use crate::network::snapshot::{NameRecord, NetworkView, OwnResolvers, ResolverView, Snapshot};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::{fs, io};

/// The search domain that podman gives to containers: names are known with it, too.
const DOMAIN: &str = "dns.podman";

/// Everything in the directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Networks by name.
    pub networks: BTreeMap<String, Network>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Nothing is asked outside.
    pub internal: bool,
    /// Where to listen.
    pub listen: Vec<IpAddr>,
    /// Whom to ask instead of the host's resolvers.
    pub servers: Vec<IpAddr>,
    /// Containers.
    pub entries: Vec<Entry>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The container.
    pub id: String,
    /// Its addresses on the network.
    pub addresses: Vec<IpAddr>,
    /// Names, the first one its own.
    pub names: Vec<String>,
    /// Whom to ask for it.
    pub servers: Vec<IpAddr>,
}

impl Config {
    /// Reads the directory; one that is not there is an error.
    pub fn read(directory: &Path) -> io::Result<Self> {
        let mut networks = BTreeMap::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| *name != PID_FILE) else {
                continue;
            };
            // One that goes meanwhile is none; one that is no text is somebody else's.
            let Ok(text) = fs::read_to_string(entry.path()) else {
                continue;
            };
            let (bare, internal) = match name.strip_suffix(INTERNAL) {
                Some(bare) => (bare, true),
                None => (name, false),
            };
            if let Some(network) = Network::parse(&text, internal) {
                networks.insert(bare.to_owned(), network);
            }
        }
        Ok(Self { networks })
    }

    /// Every address to listen at.
    pub fn listen(&self) -> BTreeSet<IpAddr> {
        let networks = self.networks.values();
        networks
            .flat_map(|network| network.listen.iter().copied())
            .collect()
    }

    /// As the name server takes it.
    pub fn snapshot(&self, host: ResolverView) -> Snapshot {
        let own = self.listen();
        let mut resolver = host;
        // A host that asks its containers' name server would make us ask ourselves.
        resolver.nameservers.retain(|server| !own.contains(server));
        let mut homes: BTreeMap<&str, (Vec<IpAddr>, usize)> = BTreeMap::new();
        let mut own_resolvers: BTreeMap<&str, OwnResolvers> = BTreeMap::new();
        for entry in self.networks.values().flat_map(|network| &network.entries) {
            let (addresses, count) = homes.entry(&entry.id).or_default();
            addresses.extend(&entry.addresses);
            *count += 1;
            if !entry.servers.is_empty() {
                let own = own_resolvers.entry(&entry.id).or_insert(OwnResolvers {
                    clients: Vec::new(),
                    servers: entry.servers.clone(),
                });
                own.clients.extend(&entry.addresses);
            }
        }
        let several = homes.into_values().filter(|(_, count)| *count > 1);
        Snapshot {
            networks: self.networks.iter().filter_map(view).collect(),
            resolver,
            multihomed: several.map(|(addresses, _)| addresses).collect(),
            own_resolvers: own_resolvers.into_values().collect(),
            ..Snapshot::default()
        }
    }
}

impl Network {
    fn parse(text: &str, internal: bool) -> Option<Self> {
        let mut lines = text.lines();
        let mut words = lines.next()?.split(' ');
        let listen = addresses(words.next()?)?;
        let servers = words.next().map_or(Some(Vec::new()), addresses)?;
        Some(Self {
            internal,
            listen,
            servers,
            entries: lines.filter_map(Entry::parse).collect(),
        })
    }
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let [id, v4, v6, names, servers @ ..] = words.as_slice() else {
            return None;
        };
        let mut all = addresses(v4)?;
        all.extend(addresses(v6)?);
        let names = names.split(',').filter(|name| !name.is_empty());
        Some(Self {
            id: (*id).to_owned(),
            addresses: all,
            names: names.map(str::to_lowercase).collect(),
            servers: servers
                .first()
                .map_or(Some(Vec::new()), |servers| addresses(servers))?,
        })
    }
}

/// Several addresses with commas between; none of nothing.
fn addresses(words: &str) -> Option<Vec<IpAddr>> {
    let words = words.split(',').filter(|word| !word.is_empty());
    words.map(|word| word.parse().ok()).collect()
}

fn view((name, network): (&String, &Network)) -> Option<NetworkView> {
    // Those who may ask: the containers, and the host itself at the bridge's addresses.
    let clients = network.entries.iter().flat_map(|entry| &entry.addresses);
    let clients = clients.chain(&network.listen).copied().map(IpNet::from);
    let names = network.entries.iter().flat_map(|entry| {
        let record = |name: &String| NameRecord {
            name: name.clone(),
            addresses: entry.addresses.clone(),
        };
        entry.names.iter().map(record)
    });
    Some(NetworkView {
        name: DOMAIN.to_owned(),
        // It only tells networks apart here.
        bridge: format!("n{:012x}", digest(&[name]) & 0xffff_ffff_ffff)
            .parse()
            .ok()?,
        subnets: clients.collect(),
        gateways: network.listen.clone(),
        internal: network.internal,
        dns: network.servers.clone(),
        names: names.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::parse(text, false).unwrap()
    }

    fn list(words: &[&str]) -> Vec<IpAddr> {
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    #[test]
    fn files_of_netavark_are_read() {
        // As netavark 1.4 wrote them.
        let read = network(
            "10.99.0.1,fd00:99::1\nabc 10.99.0.2 fd00:99::2 Web,al1,abc\nd 10.99.0.3  db\n",
        );
        assert_eq!(read.listen, list(&["10.99.0.1", "fd00:99::1"]));
        assert!(read.servers.is_empty());
        assert_eq!(
            read.entries[0].addresses,
            list(&["10.99.0.2", "fd00:99::2"])
        );
        assert_eq!(read.entries[0].names, ["web", "al1", "abc"]);
        assert_eq!(read.entries[1].addresses, list(&["10.99.0.3"]));
        let read = network("10.0.0.1 1.1.1.1,8.8.8.8\nabc 10.0.0.2  web 9.9.9.9\n");
        assert_eq!(read.servers, list(&["1.1.1.1", "8.8.8.8"]));
        assert_eq!(read.entries[0].servers, list(&["9.9.9.9"]));
    }

    #[test]
    fn what_is_no_line_does_not_take_others_along() {
        let read = network("10.0.0.1\nx\n\nabc nonsense  web\nabc 10.0.0.2  web\n");
        assert_eq!(read.entries.len(), 1);
        for bad in ["", "x\n", "10.0.0.1 x\n"] {
            assert_eq!(Network::parse(bad, false), None, "{bad:?}");
        }
    }

    #[test]
    fn the_snapshot_knows_who_is_where() {
        let mut config = Config::default();
        let a = network("10.0.0.1\nabc 10.0.0.2  web 9.9.9.9\nd 10.0.0.3  db\n");
        let b = network("10.1.0.1\nabc 10.1.0.2  web 9.9.9.9\n");
        config
            .networks
            .extend([("a".to_owned(), a), ("b".to_owned(), b)]);
        let host = ResolverView {
            nameservers: list(&["10.0.0.1", "192.0.2.53"]),
            search: Vec::new(),
        };
        let snapshot = config.snapshot(host);
        assert_eq!(
            snapshot.resolver.nameservers,
            list(&["192.0.2.53"]),
            "not ourselves"
        );
        assert_eq!(snapshot.multihomed, [list(&["10.0.0.2", "10.1.0.2"])]);
        let own = &snapshot.own_resolvers[0];
        assert_eq!(own.clients, list(&["10.0.0.2", "10.1.0.2"]));
        assert_eq!(own.servers, list(&["9.9.9.9"]));
        let [first, second] = snapshot.networks.as_slice() else {
            panic!("two networks");
        };
        assert_ne!(first.bridge, second.bridge);
        assert_eq!(first.names.len(), 2);
        assert!(first.subnets.contains(&"10.0.0.1/32".parse().unwrap()));
        assert_eq!(config.listen().len(), 2);
    }
}
