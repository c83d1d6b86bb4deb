//! What the daemon knows, in memory and in the stores at once.
//!
//! Invariants: every change is committed to a store before it is visible here, so that memory never
//! holds what a crash would lose; the indices (`names`, `members`) say the same as the records. The
//! caller holds the one lock of the model; nothing here waits for anything but the disk.

use super::leases::Leases;
use super::linger::Lingering;
use super::members::Members;
use super::refusal::conflict;
use crate::api::control::{Answer, Refusal};
use crate::api::paths::Paths;
use crate::ipam::{Pool, ula_pool};
use crate::network::model::Millis;
use crate::network::{Network, NetworkName, Sandbox, SandboxName, SandboxPhase};
use crate::state::{DataStore, Lease, RuntimeStore, StateError};
use mossnet_helper::SandboxId;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// A lease that is not older than this need not be written again, milliseconds.
const FRESH: Millis = 3_600_000;

/// Networks, sandboxes and leases.
#[derive(Debug)]
pub(super) struct Model {
    data: DataStore,
    runtime: RuntimeStore,
    networks: BTreeMap<NetworkName, Network>,
    sandboxes: BTreeMap<SandboxId, Sandbox>,
    names: HashMap<SandboxName, SandboxId>,
    pub(super) members: Members,
    leases: Leases,
    /// Of this daemon only: after a crash `reconcile` finds what lingered as leftovers.
    pub(super) lingering: Lingering,
    ula: Pool,
    revision: u64,
}

impl Model {
    /// Opens both stores. `random` becomes the installation's ULA prefix the first time.
    pub(super) fn open(paths: &Paths, boot_id: &str, random: [u8; 5]) -> Result<Self, StateError> {
        let data = DataStore::open(&paths.data_store())?;
        let runtime = RuntimeStore::open(&paths.runtime_store(), boot_id)?;
        let networks = data.networks()?.into_iter();
        let mut model = Self {
            networks: networks
                .map(|network| (network.name.clone(), network))
                .collect(),
            sandboxes: BTreeMap::new(),
            names: HashMap::new(),
            members: Members::default(),
            leases: Leases::new(data.leases()?),
            lingering: Lingering::default(),
            ula: ula_pool(data.ula_global_id(random)?),
            revision: 0,
            data,
            runtime,
        };
        for sandbox in model.runtime.sandboxes()? {
            model.take_up(sandbox.with_attachments());
        }
        Ok(model)
    }

    /// Counts up with every change of what helper and relay are told.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// What helper and relay are to be told has changed.
    pub(super) fn told_differs(&mut self) {
        self.revision += 1;
    }

    /// Where IPv6 prefixes come from.
    pub(super) fn ula(&self) -> Pool {
        self.ula
    }

    /// All networks, by name.
    pub(super) fn networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.values()
    }

    /// By exactly this name.
    pub(super) fn network(&self, name: &str) -> Option<&Network> {
        self.networks
            .iter()
            .find(|(have, _)| have.as_str() == name)
            .map(|(_, network)| network)
    }

    /// By identity.
    pub(super) fn network_by_id(&self, id: &SandboxId) -> Option<&Network> {
        self.networks().find(|network| network.id == *id)
    }

    /// Adds or replaces a network.
    pub(super) fn put_network(&mut self, network: Network) -> Result<(), StateError> {
        self.data.put_network(&network)?;
        self.networks.insert(network.name.clone(), network);
        self.revision += 1;
        Ok(())
    }

    /// Forgets a network, with the addresses remembered on it.
    pub(super) fn remove_network(&mut self, network: &Network) -> Result<(), StateError> {
        let leases: Vec<_> = self.leases.on(&network.id).cloned().collect();
        self.data.remove_network(network, &leases)?;
        self.networks.remove(&network.name);
        self.leases.remove_network(&network.id);
        self.revision += 1;
        Ok(())
    }

    /// Live sandboxes on a network, by id.
    pub(super) fn on_network(&self, network: &SandboxId) -> impl Iterator<Item = &Sandbox> {
        let ids = self.members.on(network);
        let known = ids.filter_map(|id| self.sandboxes.get(id));
        // Of the ended there may be endpoints that linger.
        known.filter(|sandbox| sandbox.is_live())
    }

    /// Whether a live sandbox is on it, or something lingers there.
    pub(super) fn is_used(&self, network: &SandboxId) -> bool {
        self.members.is_used(network)
    }

    /// Who is on which network.
    pub(super) fn members(&self) -> &Members {
        &self.members
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

    /// By exactly this name.
    pub(super) fn named(&self, name: &str) -> Option<&Sandbox> {
        let name: SandboxName = name.parse().ok()?;
        self.sandboxes.get(self.names.get(&name)?)
    }

    /// Refuses a name that is taken.
    pub(super) fn check_name_free(&self, name: &SandboxName) -> Answer<()> {
        match self.names.get(name) {
            None => Ok(()),
            Some(other) => Err(conflict(format!(
                "the name '{name}' is in use by sandbox {}",
                other.short()
            ))
            .with_hint(format!(
                "choose another --name, or remove it: mossnet rm -f {name}"
            ))),
        }
    }

    /// Adds or replaces a sandbox.
    pub(super) fn put_sandbox(&mut self, sandbox: Sandbox) -> Result<(), StateError> {
        self.runtime.put_sandbox(&sandbox)?;
        self.take_up(sandbox);
        Ok(())
    }

    /// What is in the store already.
    fn take_up(&mut self, sandbox: Sandbox) {
        let id = sandbox.id.clone();
        let unchanged = self.sandboxes.get(&id).is_some_and(|old| {
            old.is_live() == sandbox.is_live()
                && old.endpoints == sandbox.endpoints
                && old.publishes == sandbox.publishes
        });
        if !unchanged {
            self.drop_record(&id);
            self.members.add(&sandbox);
            self.names.insert(sandbox.name.clone(), id.clone());
            self.revision += 1;
        }
        self.sandboxes.insert(id, sandbox);
    }

    /// What is in the store no longer.
    fn drop_record(&mut self, id: &SandboxId) {
        if let Some(old) = self.sandboxes.remove(id) {
            self.members.remove(&old);
            self.names.remove(&old.name);
            self.revision += 1;
        }
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
        self.drop_record(id);
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
        self.drop_record(id);
        Ok(())
    }

    /// The exit code of something forgotten.
    pub(super) fn exit_code(&self, id: &str) -> Result<Option<i32>, Refusal> {
        match SandboxId::try_from(id.to_owned()) {
            Ok(id) => Ok(self.runtime.exit_code(&id)?),
            Err(_not_a_full_id) => Ok(None),
        }
    }

    /// Addresses that a sandbox of this name had on a network.
    pub(super) fn lease(&self, network: &SandboxId, name: &SandboxName) -> &[IpAddr] {
        self.leases.of(network, name)
    }

    /// Whether the same is remembered, as of lately: the disk is spared.
    pub(super) fn is_fresh(&self, lease: &Lease) -> bool {
        self.leases
            .find(&lease.network, &lease.name)
            .is_some_and(|had| {
                had.addresses == lease.addresses && had.granted + FRESH > lease.granted
            })
    }

    /// Leases on a network of names that are not on it now.
    pub(super) fn reserved(&self, network: &SandboxId) -> impl Iterator<Item = &Lease> {
        let present = |name: &SandboxName| {
            let sandbox = self.named(name.as_str());
            sandbox.is_some_and(|s| s.is_live() && s.endpoint_on(network).is_some())
        };
        let leases = self.leases.on(network);
        leases.filter(move |lease| !present(&lease.name))
    }

    /// Sandboxes with a made-up name that ended on this network, each with what it had: it may be
    /// started again.
    pub(super) fn parked<'a>(
        &'a self,
        network: &'a SandboxId,
    ) -> impl Iterator<Item = (&'a Sandbox, &'a [IpAddr])> {
        let ended = self.sandboxes().filter(|sandbox| {
            !sandbox.name_chosen && matches!(sandbox.phase, SandboxPhase::Exited { .. })
        });
        ended.filter_map(move |sandbox| {
            let mut all = sandbox.attachments.iter();
            let attachment = all.find(|attachment| attachment.network == *network)?;
            (!attachment.last.is_empty()).then_some((sandbox, attachment.last.as_slice()))
        })
    }

    /// Addresses remembered for others on a network, the oldest first.
    pub(super) fn remembered(&self, network: &SandboxId, name: &SandboxName) -> Vec<IpAddr> {
        let leases = self.leases.on(network);
        let leases = leases.map(|lease| (&lease.name, lease.granted, lease.addresses.as_slice()));
        let parked = self.parked(network);
        let parked = parked.map(|(s, addresses)| (&s.name, s.created, addresses));
        let mut others: Vec<_> = leases.chain(parked).filter(|(n, ..)| *n != name).collect();
        others.sort_by_key(|(_, granted, _)| *granted);
        let addresses = others.into_iter().flat_map(|(.., addresses)| addresses);
        addresses.copied().collect()
    }

    /// Remembers addresses by name; whoever had one of them before is forgotten.
    pub(super) fn remember(&mut self, lease: Lease) -> Result<(), StateError> {
        let out = self.leases.put_out(&lease);
        self.data.put_lease(&lease, &out)?;
        for old in &out {
            self.leases.remove(old);
        }
        self.leases.insert(lease);
        Ok(())
    }

    /// Forgets what is remembered for a name on a network.
    pub(super) fn forget_lease(
        &mut self,
        network: &SandboxId,
        name: &SandboxName,
    ) -> Result<(), StateError> {
        let Some(lease) = self.leases.find(network, name).cloned() else {
            return Ok(());
        };
        self.data.remove_lease(&lease)?;
        self.leases.remove(&lease);
        Ok(())
    }

    /// Live sandboxes that know one of this name by a link.
    pub(super) fn linked_to(&self, name: &SandboxName) -> Vec<SandboxId> {
        let knows = |sandbox: &&Sandbox| sandbox.links.iter().any(|link| link.name == *name);
        self.live().filter(knows).map(|s| s.id.clone()).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::network::model::samples;

    /// An empty one, in a directory that goes with the first.
    pub(in crate::daemon) fn model() -> (tempfile::TempDir, Model) {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::resolve(Some(directory.path()));
        paths.prepare().unwrap();
        let model = Model::open(&paths, "boot", [0; 5]).unwrap();
        (directory, model)
    }

    #[test]
    fn the_revision_follows_what_the_helper_is_told() {
        let (_directory, mut model) = model();
        let network = samples::network("mynet", 1, "10.89.3.0/24");
        let sandbox = samples::sandbox("web", 2, &network, "10.89.3.2/24");
        let (started, pid) = (1, 7);
        model.put_sandbox(sandbox.clone()).unwrap();
        let before = model.revision();
        let start = |s: &mut Sandbox| s.phase = SandboxPhase::Running { started, pid };
        model.change_sandbox(&sandbox.id, start).unwrap();
        assert_eq!(model.revision(), before, "a start changes nothing");
        model.change_sandbox(&sandbox.id, |s| s.exit(5, 0)).unwrap();
        assert_ne!(model.revision(), before);
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
            model
                .members()
                .held(&network.id)
                .get(&address)
                .map(String::as_str),
            Some("web")
        );
        model.change_sandbox(&sandbox.id, |s| s.exit(5, 0)).unwrap();
        assert!(model.members().held(&network.id).is_empty());
        assert_eq!(model.lease(&network.id, &sandbox.name), [address]);
        assert_eq!(
            model.remembered(&network.id, &"db".parse().unwrap()),
            [address]
        );
        model.remember(lease("db", 2)).unwrap();
        assert!(model.lease(&network.id, &sandbox.name).is_empty());
    }
}
