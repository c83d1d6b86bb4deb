//! Addresses remembered by the name of the sandbox that had them.
//!
//! Invariant: no address of a network is remembered for two names.

use crate::network::SandboxName;
use crate::state::Lease;
use mossnet_helper::SandboxId;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// Leases of former sandboxes kept at most; the oldest go first.
const MAX_LEASES: usize = 4096;

/// All leases, by network and name.
#[derive(Debug, Default)]
pub(super) struct Leases {
    networks: HashMap<SandboxId, BTreeMap<SandboxName, Lease>>,
    count: usize,
}

impl Leases {
    /// Those of the store.
    pub(super) fn new(leases: Vec<Lease>) -> Self {
        let mut all = Self::default();
        for lease in leases {
            all.insert(lease);
        }
        all
    }

    /// Those of a network, by name.
    pub(super) fn on(&self, network: &SandboxId) -> impl Iterator<Item = &Lease> {
        self.networks
            .get(network)
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    /// Addresses that a sandbox of this name had on a network.
    pub(super) fn of(&self, network: &SandboxId, name: &SandboxName) -> &[IpAddr] {
        self.find(network, name)
            .map_or(&[], |lease| &lease.addresses)
    }

    /// The lease of a sandbox of this name on a network.
    pub(super) fn find(&self, network: &SandboxId, name: &SandboxName) -> Option<&Lease> {
        self.networks.get(network)?.get(name)
    }

    /// Whom a new lease puts out: whoever had one of its addresses before, and the oldest beyond
    /// what is kept.
    pub(super) fn put_out(&self, lease: &Lease) -> Vec<Lease> {
        let robbed = |old: &&Lease| {
            let mut addresses = old.addresses.iter();
            old.name != lease.name && addresses.any(|address| lease.addresses.contains(address))
        };
        let mut out: Vec<Lease> = self.on(&lease.network).filter(robbed).cloned().collect();
        if self.count >= MAX_LEASES + out.len() {
            let all = self.networks.values().flat_map(BTreeMap::values);
            let others = all.filter(|l| l.network != lease.network || l.name != lease.name);
            out.extend(others.min_by_key(|lease| lease.granted).cloned());
        }
        out
    }

    /// Adds or replaces one.
    pub(super) fn insert(&mut self, lease: Lease) {
        let on = self.networks.entry(lease.network.clone()).or_default();
        if on.insert(lease.name.clone(), lease).is_none() {
            self.count += 1;
        }
    }

    /// Forgets one.
    pub(super) fn remove(&mut self, lease: &Lease) {
        if let Some(on) = self.networks.get_mut(&lease.network)
            && on.remove(&lease.name).is_some()
        {
            self.count -= 1;
        }
    }

    /// Forgets all of a network.
    pub(super) fn remove_network(&mut self, network: &SandboxId) {
        self.count -= self.networks.remove(network).map_or(0, |on| on.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(name: &str, address: u8, granted: u64) -> Lease {
        Lease {
            network: SandboxId::from([1; 32]),
            name: name.parse().unwrap(),
            addresses: vec![[10, 89, 0, address].into()],
            granted,
        }
    }

    #[test]
    fn an_address_is_remembered_for_one_name() {
        let mut leases = Leases::new(vec![lease("web", 2, 1)]);
        let newer = lease("db", 2, 2);
        assert_eq!(leases.put_out(&newer), [lease("web", 2, 1)]);
        leases.remove(&lease("web", 2, 1));
        leases.insert(newer.clone());
        assert!(leases.put_out(&newer).is_empty(), "its own is replaced");
        assert!(
            leases
                .of(&newer.network, &"web".parse().unwrap())
                .is_empty()
        );
        assert_eq!(leases.of(&newer.network, &newer.name), newer.addresses);
        leases.remove_network(&newer.network);
        assert_eq!(leases.count, 0);
    }

    #[test]
    fn the_oldest_go_first() {
        let mut leases = Leases::default();
        for n in 0..MAX_LEASES {
            let name = format!("n{n}").parse().unwrap();
            let addresses = Vec::new();
            let granted = n as u64 + 1;
            leases.insert(Lease {
                name,
                addresses,
                granted,
                ..lease("x", 0, 0)
            });
        }
        let out = leases.put_out(&lease("new", 7, 9999));
        let names: Vec<_> = out.iter().map(|lease| lease.name.as_str()).collect();
        assert_eq!(names, ["n0"]);
    }
}
