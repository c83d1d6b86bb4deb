//! Who is on which network: an index over the live sandboxes and what lingers, so that an address is
//! chosen without looking at all of them.
//!
//! Invariant: it holds exactly the endpoints of the records that were added and not removed.

use crate::ipam::Held;
use crate::network::{Endpoint, Sandbox, SandboxName};
use mossnet_helper::{MacAddr, SandboxId};
use std::collections::{BTreeSet, HashMap};

/// Endpoints on one network.
#[derive(Debug, Default)]
struct OnNetwork {
    held: Held,
    macs: HashMap<MacAddr, SandboxName>,
    sandboxes: BTreeSet<SandboxId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Members(HashMap<SandboxId, OnNetwork>);

impl Members {
    /// Takes up a live sandbox; one that is not live is on no network.
    pub(super) fn add(&mut self, sandbox: &Sandbox) {
        if sandbox.is_live() {
            for endpoint in &sandbox.endpoints {
                self.add_endpoint(&sandbox.id, &sandbox.name, endpoint);
            }
        }
    }

    /// Forgets it, as it was added.
    pub(super) fn remove(&mut self, sandbox: &Sandbox) {
        if sandbox.is_live() {
            for endpoint in &sandbox.endpoints {
                self.remove_endpoint(&sandbox.id, endpoint);
            }
        }
    }

    /// Endpoints of a sandbox that has ended hold what they have until they are gone.
    pub(super) fn add_lingering(&mut self, id: &SandboxId, name: &SandboxName, of: &[Endpoint]) {
        for endpoint in of {
            self.add_endpoint(id, name, endpoint);
        }
    }

    /// They are gone.
    pub(super) fn remove_lingering(&mut self, id: &SandboxId, of: &[Endpoint]) {
        for endpoint in of {
            self.remove_endpoint(id, endpoint);
        }
    }

    fn add_endpoint(&mut self, id: &SandboxId, name: &SandboxName, endpoint: &Endpoint) {
        let on = self.0.entry(endpoint.network.clone()).or_default();
        for address in &endpoint.addresses {
            on.held.insert(address.addr(), name.to_string());
        }
        on.macs.insert(endpoint.mac, name.clone());
        on.sandboxes.insert(id.clone());
    }

    fn remove_endpoint(&mut self, id: &SandboxId, endpoint: &Endpoint) {
        let Some(on) = self.0.get_mut(&endpoint.network) else {
            return;
        };
        for address in &endpoint.addresses {
            on.held.remove(&address.addr());
        }
        on.macs.remove(&endpoint.mac);
        on.sandboxes.remove(id);
        if on.sandboxes.is_empty() {
            self.0.remove(&endpoint.network);
        }
    }

    /// Addresses that endpoints hold on a network.
    pub(super) fn held(&self, network: &SandboxId) -> &Held {
        static NOBODY: Held = Held::new();
        self.0.get(network).map_or(&NOBODY, |on| &on.held)
    }

    /// Who has this MAC address on a network.
    pub(super) fn mac_holder(&self, network: &SandboxId, mac: MacAddr) -> Option<&SandboxName> {
        self.0.get(network)?.macs.get(&mac)
    }

    /// Who is on a network, by id.
    pub(super) fn on(&self, network: &SandboxId) -> impl Iterator<Item = &SandboxId> {
        self.0.get(network).into_iter().flat_map(|on| &on.sandboxes)
    }

    /// Somebody is.
    pub(super) fn is_used(&self, network: &SandboxId) -> bool {
        self.0.contains_key(network)
    }
}
