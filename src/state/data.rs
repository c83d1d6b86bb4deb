//! Networks, leases and the installation's ULA prefix.

use super::file::{Schema, StateError, StateFile, Table};
use crate::network::model::Millis;
use crate::network::{Network, SandboxName};
use mossnet_helper::SandboxId;
use redb::TableDefinition;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::Path;

const NETWORKS: Table = TableDefinition::new("networks");
const LEASES: Table = TableDefinition::new("leases");
const ULA: &str = "ula_global_id";
/// Format 2: networks have options, ranges and addresses set aside. What format 1 does not say has
/// defaults; the number keeps an older mossnet from rewriting a network without them.
const SCHEMA: Schema = Schema {
    migrations: &[|_| Ok(())],
};

/// What a sandbox of this name last had on this network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The network.
    pub network: SandboxId,
    /// The sandbox.
    pub name: SandboxName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// When it last got them.
    pub granted: Millis,
}

/// The store under the data directory.
#[derive(Debug)]
pub struct DataStore(StateFile);

impl DataStore {
    /// Opens or makes it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        StateFile::open(path, &SCHEMA).map(Self)
    }

    /// The installation's 40 random bits of fd00::/8; `random` is kept the first time.
    pub fn ula_global_id(&self, random: [u8; 5]) -> Result<[u8; 5], StateError> {
        if let Some(id) = self.0.meta(ULA)? {
            return Ok(id);
        }
        self.0.change().put_meta(ULA, &random)?.commit()?;
        Ok(random)
    }

    /// All networks.
    pub fn networks(&self) -> Result<Vec<Network>, StateError> {
        Ok(values(self.0.load(NETWORKS)?))
    }

    /// Adds or replaces a network.
    pub fn put_network(&self, network: &Network) -> Result<(), StateError> {
        let change = self.0.change();
        change.put(NETWORKS, network.id.as_str(), network)?.commit()
    }

    /// Forgets a network; `leases` on it go in the same transaction.
    pub fn remove_network(&self, network: &Network, leases: &[Lease]) -> Result<(), StateError> {
        let change = self.0.change().delete(NETWORKS, network.id.as_str());
        let change = leases
            .iter()
            .fold(change, |change, lease| change.delete(LEASES, &key(lease)));
        change.commit()
    }

    /// Forgets a lease.
    pub fn remove_lease(&self, lease: &Lease) -> Result<(), StateError> {
        self.0.change().delete(LEASES, &key(lease)).commit()
    }

    /// All leases, of live and of former sandboxes.
    pub fn leases(&self) -> Result<Vec<Lease>, StateError> {
        Ok(values(self.0.load(LEASES)?))
    }

    /// Adds or replaces a lease; `forgotten` ones go in the same transaction.
    pub fn put_lease(&self, lease: &Lease, forgotten: &[Lease]) -> Result<(), StateError> {
        let change = forgotten.iter().fold(self.0.change(), |change, old| {
            change.delete(LEASES, &key(old))
        });
        change.put(LEASES, &key(lease), lease)?.commit()
    }
}

fn key(lease: &Lease) -> String {
    format!("{}/{}", lease.network, lease.name)
}

fn values<T>(rows: Vec<(String, T)>) -> Vec<T> {
    rows.into_iter().map(|(_, value)| value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::model::samples;

    #[test]
    fn what_is_put_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mossnet.redb");
        let network = samples::network("mynet", 1, "10.89.3.0/24");
        let lease = |name: &str| Lease {
            network: network.id.clone(),
            name: name.parse().unwrap(),
            addresses: vec!["10.89.3.2".parse().unwrap()],
            granted: 5,
        };
        {
            let store = DataStore::open(&path).unwrap();
            assert_eq!(store.ula_global_id([1; 5]).unwrap(), [1; 5]);
            store.put_network(&network).unwrap();
            store.put_lease(&lease("old"), &[]).unwrap();
            store.put_lease(&lease("new"), &[lease("old")]).unwrap();
        }
        let store = DataStore::open(&path).unwrap();
        assert_eq!(store.ula_global_id([2; 5]).unwrap(), [1; 5]);
        assert_eq!(store.networks().unwrap(), std::slice::from_ref(&network));
        assert_eq!(store.leases().unwrap(), [lease("new")]);
        store.remove_network(&network, &[lease("new")]).unwrap();
        assert!(store.networks().unwrap().is_empty());
        assert!(store.leases().unwrap().is_empty());
    }

    #[test]
    fn networks_of_the_first_format_are_read() {
        let network = samples::network("mynet", 1, "10.89.3.0/24");
        let mut old = serde_json::to_value(&network).unwrap();
        let fields = old.as_object_mut().unwrap();
        for new in [
            "disable_dns",
            "icc",
            "vlan",
            "inhibit_ipv4",
            "ifname_prefix",
            "options",
        ] {
            fields.remove(new).unwrap();
        }
        for new in ["ip_range", "aux_addresses"] {
            old["subnets"][0].as_object_mut().unwrap().remove(new);
        }
        assert_eq!(serde_json::from_value::<Network>(old).unwrap(), network);
    }
}
