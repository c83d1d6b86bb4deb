//! What the daemon knows, in memory and in the stores at once.
//!
//! Invariant: every change is committed to a store before it is visible here, so that memory never
//! holds what a crash would lose. The caller holds the one lock of the model; nothing here waits
//! for anything but the disk.

use super::linger::Lingering;
use super::refusal::{conflict, unknown};
use crate::api::control::{Answer, Refusal};
use crate::api::paths::Paths;
use crate::ipam::{Held, Pool, ula_pool};
use crate::network::model::Millis;
use crate::network::{Endpoint, Network, NetworkName, Sandbox, SandboxName};
use crate::state::{DataStore, Lease, RuntimeStore, StateError};
use mossnet_helper::{MacAddr, SandboxId};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Leases of former sandboxes kept at most; the oldest go first.
const MAX_LEASES: usize = 4096;

/// Networks, sandboxes and leases.
#[derive(Debug)]
pub(super) struct Model {
    data: DataStore,
    runtime: RuntimeStore,
    networks: BTreeMap<NetworkName, Network>,
    sandboxes: BTreeMap<SandboxId, Sandbox>,
    leases: Vec<Lease>,
    /// Of this daemon only: after a crash `reconcile` finds what lingered as leftovers.
    pub(super) lingering: Lingering,
    ula: Pool,
}

impl Model {
    /// Opens both stores. `random` becomes the installation's ULA prefix the first time.
    pub(super) fn open(paths: &Paths, boot_id: &str, random: [u8; 5]) -> Result<Self, StateError> {
        let data = DataStore::open(&paths.data_store())?;
        let runtime = RuntimeStore::open(&paths.runtime_store(), boot_id)?;
        let networks = data.networks()?.into_iter();
        let sandboxes = runtime.sandboxes()?.into_iter();
        Ok(Self {
            networks: networks
                .map(|network| (network.name.clone(), network))
                .collect(),
            sandboxes: sandboxes
                .map(|sandbox| (sandbox.id.clone(), sandbox))
                .collect(),
            leases: data.leases()?,
            lingering: Lingering::default(),
            ula: ula_pool(data.ula_global_id(random)?),
            data,
            runtime,
        })
    }

    /// Where IPv6 prefixes come from.
    pub(super) fn ula(&self) -> Pool {
        self.ula
    }

    /// All networks, by name.
    pub(super) fn networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.values()
    }

    /// The network of this name.
    pub(super) fn network(&self, name: &str) -> Option<&Network> {
        self.networks
            .iter()
            .find(|(have, _)| have.as_str() == name)
            .map(|(_, network)| network)
    }

    /// Adds or replaces a network.
    pub(super) fn put_network(&mut self, network: Network) -> Result<(), StateError> {
        self.data.put_network(&network)?;
        self.networks.insert(network.name.clone(), network);
        Ok(())
    }

    /// All sandboxes.
    pub(super) fn sandboxes(&self) -> impl Iterator<Item = &Sandbox> + Clone {
        self.sandboxes.values()
    }

    /// Sandboxes that run or are about to.
    pub(super) fn live(&self) -> impl Iterator<Item = &Sandbox> + Clone {
        self.sandboxes().filter(|sandbox| sandbox.is_live())
    }

    /// By id.
    pub(super) fn sandbox(&self, id: &SandboxId) -> Option<&Sandbox> {
        self.sandboxes.get(id)
    }

    /// By name, id, or an unambiguous beginning of an id.
    pub(super) fn find(&self, text: &str) -> Answer<&Sandbox> {
        if let Some(sandbox) = self.sandboxes().find(|s| s.name.as_str() == text) {
            return Ok(sandbox);
        }
        let mut matching = self.sandboxes().filter(|s| s.id.as_str().starts_with(text));
        match (matching.next(), matching.next()) {
            (Some(sandbox), None) if !text.is_empty() => Ok(sandbox),
            (Some(_), Some(_)) if !text.is_empty() => Err(conflict(format!(
                "'{text}' begins the ids of several sandboxes"
            ))
            .with_hint("give more of the id, or the name")),
            _ => {
                Err(unknown(format!("no such sandbox: {text}"))
                    .with_hint("`mossnet ps -a` lists them"))
            }
        }
    }

    /// Refuses a name that is taken.
    pub(super) fn check_name_free(&self, name: &SandboxName) -> Answer<()> {
        match self.sandboxes().find(|sandbox| sandbox.name == *name) {
            None => Ok(()),
            Some(other) => Err(conflict(format!(
                "the name '{name}' is in use by sandbox {}",
                other.id.short()
            ))
            .with_hint(format!(
                "choose another --name, or remove it: mossnet rm -f {name}"
            ))),
        }
    }

    /// Adds or replaces a sandbox.
    pub(super) fn put_sandbox(&mut self, sandbox: Sandbox) -> Result<(), StateError> {
        self.runtime.put_sandbox(&sandbox)?;
        self.sandboxes.insert(sandbox.id.clone(), sandbox);
        Ok(())
    }

    /// Changes a sandbox; `None` where it is gone.
    pub(super) fn change_sandbox(
        &mut self,
        id: &SandboxId,
        change: impl FnOnce(&mut Sandbox),
    ) -> Result<Option<&Sandbox>, StateError> {
        let Some(mut sandbox) = self.sandboxes.get(id).cloned() else {
            return Ok(None);
        };
        change(&mut sandbox);
        self.put_sandbox(sandbox)?;
        Ok(self.sandboxes.get(id))
    }

    /// Forgets a sandbox.
    pub(super) fn remove_sandbox(&mut self, id: &SandboxId) -> Result<(), StateError> {
        self.runtime.remove_sandbox(id)?;
        self.sandboxes.remove(id);
        Ok(())
    }

    /// Forgets a sandbox or an exec'd process, keeping its exit code for a late wait.
    pub(super) fn remove_exited(
        &mut self,
        id: &SandboxId,
        code: i32,
        at: Millis,
    ) -> Result<(), StateError> {
        self.runtime.remove_exited(id, code, at)?;
        self.sandboxes.remove(id);
        Ok(())
    }

    /// The exit code of something forgotten.
    pub(super) fn exit_code(&self, id: &str) -> Result<Option<i32>, Refusal> {
        match SandboxId::try_from(id.to_owned()) {
            Ok(id) => Ok(self.runtime.exit_code(&id)?),
            Err(_not_a_full_id) => Ok(None),
        }
    }

    /// Endpoints on a network that hold their addresses, live or lingering, with their sandboxes.
    fn holders(&self, network: &SandboxId) -> impl Iterator<Item = (&SandboxName, &Endpoint)> {
        let live = self
            .live()
            .flat_map(|sandbox| sandbox.endpoints.iter().map(|e| (&sandbox.name, e)));
        let all = live.chain(self.lingering.endpoints());
        all.filter(move |(_, endpoint)| endpoint.network == *network)
    }

    /// Addresses that endpoints hold on a network.
    pub(super) fn held(&self, network: &SandboxId) -> Held {
        let held = self.holders(network).flat_map(|(name, endpoint)| {
            let addresses = endpoint.addresses.iter();
            addresses.map(|address| (address.addr(), name.to_string()))
        });
        held.collect()
    }

    /// Who has this MAC address on a network.
    pub(super) fn mac_holder(&self, network: &SandboxId, mac: MacAddr) -> Option<&SandboxName> {
        let mut holders = self.holders(network);
        let holder = holders.find(|(_, endpoint)| endpoint.mac == mac);
        holder.map(|(name, _)| name)
    }

    /// Addresses that a sandbox of this name had on a network.
    pub(super) fn lease(&self, network: &SandboxId, name: &SandboxName) -> &[IpAddr] {
        let lease = self
            .leases
            .iter()
            .find(|l| l.network == *network && l.name == *name);
        lease.map_or(&[], |lease| &lease.addresses)
    }

    /// Addresses remembered for others on a network, the oldest first.
    pub(super) fn remembered(&self, network: &SandboxId, name: &SandboxName) -> Vec<IpAddr> {
        let others = self
            .leases
            .iter()
            .filter(|l| l.network == *network && l.name != *name);
        let mut others: Vec<_> = others.collect();
        others.sort_by_key(|lease| lease.granted);
        others
            .into_iter()
            .flat_map(|lease| lease.addresses.iter().copied())
            .collect()
    }

    /// Remembers addresses by name; whoever had one of them before is forgotten, and so are the
    /// oldest beyond what is kept.
    pub(super) fn remember(&mut self, lease: Lease) -> Result<(), StateError> {
        let same = |old: &Lease| old.network == lease.network && old.name == lease.name;
        let robbed = |old: &Lease| {
            old.network == lease.network
                && old
                    .addresses
                    .iter()
                    .any(|address| lease.addresses.contains(address))
        };
        let mut forgotten: Vec<Lease> = self
            .leases
            .iter()
            .filter(|old| !same(old) && robbed(old))
            .cloned()
            .collect();
        if self.leases.len() - forgotten.len() >= MAX_LEASES {
            let oldest = self
                .leases
                .iter()
                .filter(|old| !same(old))
                .min_by_key(|l| l.granted);
            forgotten.extend(oldest.cloned());
        }
        self.data.put_lease(&lease, &forgotten)?;
        self.leases
            .retain(|old| !same(old) && !forgotten.contains(old));
        self.leases.push(lease);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::model::samples;

    fn model() -> (tempfile::TempDir, Model) {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::resolve(Some(directory.path()));
        paths.prepare().unwrap();
        let model = Model::open(&paths, "boot", [0; 5]).unwrap();
        (directory, model)
    }

    #[test]
    fn sandboxes_are_found_by_name_and_by_the_beginning_of_the_id() {
        let (_directory, mut model) = model();
        let network = samples::network("mynet", 1, "10.89.3.0/24");
        for (name, id) in [("web", 0x21), ("22222222", 0x23), ("db", 0x22)] {
            let sandbox = samples::sandbox(name, id, &network, "10.89.3.2/24");
            model.put_sandbox(sandbox).unwrap();
        }
        let found = |text: &str| model.find(text).map(|s| s.name.to_string());
        assert_eq!(found("web").unwrap(), "web");
        assert_eq!(found("2121").unwrap(), "web");
        assert_eq!(found("22222222").unwrap(), "22222222");
        assert_eq!(found("222222222").unwrap(), "db");
        assert_eq!(found("2").unwrap_err().status, 409);
        for none in ["", "nobody", "99"] {
            assert_eq!(found(none).unwrap_err().status, 404, "{none}");
        }
        assert!(model.check_name_free(&"web".parse().unwrap()).is_err());
    }

    #[test]
    fn exited_sandboxes_hold_no_address_but_are_remembered() {
        let (_directory, mut model) = model();
        let network = samples::network("mynet", 1, "10.89.3.0/24");
        let sandbox = samples::sandbox("web", 2, &network, "10.89.3.2/24");
        let address: IpAddr = "10.89.3.2".parse().unwrap();
        let lease = |name: &str, granted| Lease {
            network: network.id.clone(),
            name: name.parse().unwrap(),
            addresses: vec![address],
            granted,
        };
        model.put_sandbox(sandbox.clone()).unwrap();
        model.remember(lease("web", 1)).unwrap();
        assert_eq!(
            model.held(&network.id).get(&address).map(String::as_str),
            Some("web")
        );
        model.change_sandbox(&sandbox.id, |s| s.exit(5, 0)).unwrap();
        assert!(model.held(&network.id).is_empty());
        assert_eq!(model.lease(&network.id, &sandbox.name), [address]);
        assert_eq!(
            model.remembered(&network.id, &"db".parse().unwrap()),
            [address]
        );
        model.remember(lease("db", 2)).unwrap();
        assert!(model.lease(&network.id, &sandbox.name).is_empty());
    }
}
