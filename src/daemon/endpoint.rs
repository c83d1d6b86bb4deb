//! A new endpoint: its addresses, MAC and names, chosen while the model is held.
//!
//! Invariant: the lease is committed before the endpoint is recorded; a crash in between leaves a
//! remembered address that nobody holds.

use super::clock;
use super::model::Model;
use super::refusal::{conflict, failed, malformed};
use crate::api::control::Answer;
use crate::api::types::SandboxCreate;
use crate::ipam::{Wish, allocate};
use crate::network::model::NetworkSubnet;
use crate::network::names::{mac_for, made_up_name, router_ifname};
use crate::network::{Endpoint, Network, Sandbox, SandboxName};
use crate::state::Lease;
use ipnet::IpNet;
use mossnet_helper::MacAddr;
use std::net::IpAddr;

/// Fixed addresses that were asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Wishes {
    addresses: Vec<IpAddr>,
    mac: Option<MacAddr>,
}

impl Wishes {
    /// Whether what is wished for is this endpoint's.
    pub(super) fn ask_for(&self, endpoint: &Endpoint) -> bool {
        let mut addresses = endpoint.addresses.iter().map(IpNet::addr);
        self.mac == Some(endpoint.mac) || addresses.any(|a| self.addresses.contains(&a))
    }
}

/// Of a request.
pub(super) fn wishes(request: &SandboxCreate) -> Wishes {
    let v4 = request.ip.map(IpAddr::V4);
    let v6 = request.ip6.map(IpAddr::V6);
    Wishes {
        addresses: v4.into_iter().chain(v6).collect(),
        mac: request.mac_address,
    }
}

impl Model {
    /// An endpoint of `sandbox` on `network`; its addresses are remembered if its name was chosen.
    pub(super) fn join(
        &mut self,
        sandbox: &Sandbox,
        network: &Network,
        wishes: &Wishes,
    ) -> Answer<Endpoint> {
        check_families(network, wishes)?;
        let mut addresses = Vec::new();
        for on in &network.subnets {
            let address = self.choose(sandbox, network, on, wishes)?;
            addresses.push(IpNet::new_assert(address, on.subnet.prefix().prefix_len()));
        }
        let first = addresses.first().map(IpNet::addr);
        let first =
            first.ok_or_else(|| failed(format!("network '{}' has no subnet", network.name)))?;
        let mac = match wishes.mac {
            Some(mac) => mac,
            None => mac_for(first)?,
        };
        if let Some(holder) = self.mac_holder(&network.id, mac) {
            return Err(
                conflict(format!("MAC address {mac} is in use by '{holder}'"))
                    .with_hint("choose another one, or leave --mac-address out"),
            );
        }
        if sandbox.name_chosen {
            self.remember(Lease {
                network: network.id.clone(),
                name: sandbox.name.clone(),
                addresses: addresses.iter().map(IpNet::addr).collect(),
                granted: clock::now(),
            })?;
        }
        let id = clock::new_id().map_err(|error| failed(format!("random bytes: {error}")))?;
        Ok(Endpoint {
            network: network.id.clone(),
            network_name: network.name.clone(),
            bridge: network.bridge.clone(),
            ifname: format!("eth{}", sandbox.endpoints.len()).parse()?,
            router_ifname: router_ifname(&id)?,
            id,
            mac,
            mtu: network.mtu,
            addresses,
            gateways: network.gateways(),
            aliases: Vec::new(),
        })
    }

    fn choose(
        &self,
        sandbox: &Sandbox,
        network: &Network,
        on: &NetworkSubnet,
        wishes: &Wishes,
    ) -> Answer<IpAddr> {
        let of_family = |address: &&IpAddr| address.is_ipv4() == on.gateway.is_ipv4();
        let fixed = wishes
            .addresses
            .iter()
            .find(of_family)
            .copied()
            .map(Wish::Fixed);
        let had = self
            .lease(&network.id, &sandbox.name)
            .iter()
            .find(of_family)
            .copied();
        let had = had.filter(|_| sandbox.name_chosen).map(Wish::Again);
        let wish = fixed.or(had).unwrap_or(Wish::Any);
        let held = self.held(&network.id);
        let remembered = self.remembered(&network.id, &sandbox.name);
        let remembered: Vec<_> = remembered.iter().filter(of_family).copied().collect();
        Ok(allocate(on, &held, &remembered, wish)?)
    }

    /// A made-up name that nobody has.
    pub(super) fn make_up_name(&self) -> Answer<SandboxName> {
        for attempt in 0..20 {
            let random = clock::random();
            let random = random.map_err(|error| failed(format!("random bytes: {error}")))?;
            let name = made_up_name(random, attempt);
            if self.check_name_free(&name).is_ok() {
                return Ok(name);
            }
        }
        Err(failed("no made-up name is free").with_hint("give one with --name"))
    }
}

/// An address of a family that the network does not have cannot be had.
fn check_families(network: &Network, wishes: &Wishes) -> Answer<()> {
    let has = |v4: bool| network.subnets.iter().any(|on| on.gateway.is_ipv4() == v4);
    match wishes
        .addresses
        .iter()
        .find(|address| !has(address.is_ipv4()))
    {
        None => Ok(()),
        Some(address) => {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let message = format!(
                "network '{}' has no {family} subnet for {address}",
                network.name
            );
            Err(malformed(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::paths::Paths;
    use crate::network::model::samples;

    fn model() -> (tempfile::TempDir, Model) {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::resolve(Some(directory.path()));
        paths.prepare().unwrap();
        let model = Model::open(&paths, "boot", [0; 5]).unwrap();
        (directory, model)
    }

    fn newcomer(name: &str, id: u8, network: &Network) -> Sandbox {
        let mut sandbox = samples::sandbox(name, id, network, "10.89.3.99/24");
        sandbox.endpoints.clear();
        sandbox
    }

    fn wish(address: &str) -> Wishes {
        Wishes {
            addresses: vec![address.parse().unwrap()],
            mac: None,
        }
    }

    #[test]
    fn a_name_gets_its_addresses_and_mac_again() {
        let (_directory, mut model) = model();
        let network = samples::network("mynet", 1, "10.89.3.0/24");
        let join = |model: &mut Model, name: &str, id: u8| {
            let mut sandbox = newcomer(name, id, &network);
            let endpoint = model.join(&sandbox, &network, &Wishes::default()).unwrap();
            sandbox.endpoints.push(endpoint.clone());
            model.put_sandbox(sandbox.clone()).unwrap();
            (sandbox.id, endpoint)
        };
        let (first, was) = join(&mut model, "web", 2);
        assert_eq!(was.addresses[0].to_string(), "10.89.3.2/24");
        assert_eq!(was.mac.to_string(), "02:42:0a:59:03:02");
        model.change_sandbox(&first, |s| s.exit(9, 0)).unwrap();
        model.remove_sandbox(&first).unwrap();
        let (_, other) = join(&mut model, "db", 3);
        assert_eq!(other.addresses[0].to_string(), "10.89.3.3/24");
        let (_, again) = join(&mut model, "web", 4);
        assert_eq!((again.addresses, again.mac), (was.addresses, was.mac));
    }

    #[test]
    fn wishes_that_cannot_be_met_are_refused() {
        let (_directory, mut model) = model();
        let network = samples::network("mynet", 1, "10.89.3.0/24");
        let web = samples::sandbox("web", 2, &network, "10.89.3.2/24");
        let mac = web.endpoints[0].mac;
        model.put_sandbox(web).unwrap();
        let newcomer = newcomer("db", 3, &network);
        let mut refuse = |wishes: Wishes| {
            let refusal = model.join(&newcomer, &network, &wishes).unwrap_err();
            (refusal.status, refusal.body.message)
        };
        let in_use = (409, "address 10.89.3.2 is in use by 'web'".to_owned());
        assert_eq!(refuse(wish("10.89.3.2")), in_use);
        assert_eq!(refuse(wish("192.0.2.1")).0, 400);
        assert_eq!(
            refuse(wish("fd00::2")).1,
            "network 'mynet' has no IPv6 subnet for fd00::2"
        );
        let mac = Wishes {
            addresses: Vec::new(),
            mac: Some(mac),
        };
        assert!(refuse(mac).1.ends_with("is in use by 'web'"));
    }
}
