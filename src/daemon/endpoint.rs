//! A new endpoint: its addresses, MAC and interface name, chosen while the model is held.
//!
//! Invariant: choosing commits nothing; leases are committed before the endpoints are recorded, so
//! that a crash in between leaves a remembered address that nobody holds.

use super::clock;
use super::model::Model;
use super::refusal::{conflict, failed, malformed};
use crate::api::control::Answer;
use crate::ipam::{Wish, allocate};
use crate::network::names::{mac_for, made_up_name, router_ifname};
use crate::network::{Attachment, Endpoint, Network, NetworkSubnet, Sandbox, SandboxName};
use crate::state::{Lease, StateError};
use ipnet::IpNet;
use mossnet_helper::{IfName, MacAddr, SandboxId};
use std::net::IpAddr;

/// Names of interfaces without another wish.
const IFNAME_PREFIX: &str = "eth";

impl Model {
    /// Gives a sandbox that is not live an endpoint for each of its attachments. Nothing is
    /// committed.
    pub(super) fn join_all(&self, sandbox: &mut Sandbox) -> Answer<()> {
        sandbox.endpoints.clear();
        for at in 0..sandbox.attachments.len() {
            let network = self.attached_network(sandbox, at)?.clone();
            let Some(attachment) = sandbox.attachments.get_mut(at) else {
                continue;
            };
            // A network of the same name may have been made anew meanwhile.
            attachment.network = network.id.clone();
            let attachment = attachment.clone();
            let endpoint = self.join(sandbox, &network, &attachment)?;
            sandbox.endpoints.push(endpoint);
        }
        Ok(())
    }

    fn attached_network(&self, sandbox: &Sandbox, at: usize) -> Answer<&Network> {
        let attachment = sandbox.attachments.get(at);
        let attachment = attachment.ok_or_else(|| failed("an attachment is gone"))?;
        let name = attachment.network_name.as_str();
        let by_id = self.network_by_id(&attachment.network);
        by_id.or_else(|| self.network(name)).ok_or_else(|| {
            self.no_such_network(name).with_hint(format!(
                "make it again, or take the sandbox off it: mossnet network disconnect {name} {}",
                sandbox.name
            ))
        })
    }

    /// An endpoint of `sandbox` on `network`. Nothing is committed.
    pub(super) fn join(
        &self,
        sandbox: &Sandbox,
        network: &Network,
        attachment: &Attachment,
    ) -> Answer<Endpoint> {
        check_families(network, attachment)?;
        let mut addresses = Vec::new();
        for on in &network.subnets {
            let address = self.choose(sandbox, network, on, attachment)?;
            addresses.push(IpNet::new_assert(address, on.subnet.prefix().prefix_len()));
        }
        let id = clock::new_id().map_err(|error| failed(format!("random bytes: {error}")))?;
        Ok(Endpoint {
            network: network.id.clone(),
            network_name: network.name.clone(),
            bridge: network.bridge.clone(),
            ifname: interface_name(sandbox, network, attachment)?,
            router_ifname: router_ifname(&id)?,
            mac: self.choose_mac(network, attachment, &addresses, &id)?,
            id,
            mtu: network.mtu,
            addresses,
            gateways: network.gateways(),
            aliases: attachment.aliases.clone(),
            gw_priority: attachment.gw_priority,
            internal: network.internal,
            named: network.serves_names(),
            bandwidth: attachment.bandwidth,
        })
    }

    /// Commits a sandbox with its endpoints; their addresses are remembered if its name was chosen.
    pub(super) fn put_joined(&mut self, sandbox: Sandbox) -> Result<(), StateError> {
        for endpoint in &sandbox.endpoints {
            self.remember_endpoint(&sandbox, endpoint)?;
        }
        self.put_sandbox(sandbox)
    }

    fn remember_endpoint(&mut self, of: &Sandbox, endpoint: &Endpoint) -> Result<(), StateError> {
        if !of.name_chosen {
            return Ok(());
        }
        let lease = Lease {
            network: endpoint.network.clone(),
            name: of.name.clone(),
            addresses: endpoint.addresses.iter().map(IpNet::addr).collect(),
            granted: clock::now(),
        };
        if self.is_fresh(&lease) {
            return Ok(());
        }
        self.remember(lease)
    }

    fn choose_mac(
        &self,
        network: &Network,
        attachment: &Attachment,
        addresses: &[IpNet],
        id: &SandboxId,
    ) -> Answer<MacAddr> {
        let first = addresses.first().map(IpNet::addr);
        let first =
            first.ok_or_else(|| failed(format!("network '{}' has no subnet", network.name)))?;
        let holder = |mac: MacAddr| match mac == network.mac {
            true => Some("the router".to_owned()),
            false => (self.members().mac_holder(&network.id, mac)).map(|name| format!("'{name}'")),
        };
        let Some(mac) = attachment.mac else {
            let mac = mac_for(first)?;
            if holder(mac).is_none() {
                return Ok(mac);
            }
            // Somebody asked for the one that belongs to this address.
            let bytes = id.as_str().as_bytes().iter();
            let digits = bytes.fold(0u32, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte));
            return Ok(mac_for(IpAddr::V4(digits.into()))?);
        };
        match holder(mac) {
            None => Ok(mac),
            Some(holder) => Err(conflict(format!("MAC address {mac} is in use by {holder}"))
                .with_hint("choose another one, or leave --mac-address out")),
        }
    }

    fn choose(
        &self,
        sandbox: &Sandbox,
        network: &Network,
        on: &NetworkSubnet,
        attachment: &Attachment,
    ) -> Answer<IpAddr> {
        let of_family = |address: &&IpAddr| address.is_ipv4() == on.is_ipv4();
        let fixed = attachment.addresses.iter().find(of_family);
        let fixed = fixed.copied().map(Wish::Fixed);
        let lease = self.lease(&network.id, &sandbox.name);
        let lease = lease.iter().filter(|_| sandbox.name_chosen);
        let had = lease.chain(&attachment.last).find(of_family);
        let had = had.copied().map(Wish::Again);
        let wish = fixed.or(had).unwrap_or(Wish::Any);
        let remembered = match wish {
            Wish::Fixed(_) => Vec::new(),
            Wish::Again(_) | Wish::Any => self.remembered(&network.id, &sandbox.name),
        };
        let remembered: Vec<_> = remembered.iter().filter(of_family).copied().collect();
        Ok(allocate(
            on,
            self.members().held(&network.id),
            &remembered,
            wish,
        )?)
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

/// The one that was asked for, else the first free `ethN`; a later attachment may have asked for
/// that.
fn interface_name(sandbox: &Sandbox, network: &Network, attachment: &Attachment) -> Answer<IfName> {
    let has = |name: &IfName| sandbox.endpoints.iter().any(|e| e.ifname == *name);
    if let Some(name) = &attachment.ifname {
        if has(name) {
            let message = format!("sandbox '{}' has an interface {name} already", sandbox.name);
            return Err(conflict(message).with_hint("choose another name for the interface"));
        }
        return Ok(name.clone());
    }
    let others = sandbox.attachments.iter();
    let asked: Vec<&IfName> = others.filter_map(|other| other.ifname.as_ref()).collect();
    let prefix = network.ifname_prefix.as_deref().unwrap_or(IFNAME_PREFIX);
    for number in 0..=sandbox.endpoints.len() + asked.len() {
        let name: IfName = format!("{prefix}{number}").parse()?;
        if !has(&name) && !asked.contains(&&name) {
            return Ok(name);
        }
    }
    Err(failed("no interface name is free"))
}

/// An address of a family that the network does not have cannot be had.
fn check_families(network: &Network, attachment: &Attachment) -> Answer<()> {
    let has = |v4: bool| network.subnets.iter().any(|on| on.is_ipv4() == v4);
    let mut addresses = attachment.addresses.iter();
    match addresses.find(|address| !has(address.is_ipv4())) {
        None => Ok(()),
        Some(address) => {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let message = format!(
                "network '{}' has no {family} subnet for {address}",
                network.name
            );
            Err(malformed(message).with_hint("leave the address out, or choose another network"))
        }
    }
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
