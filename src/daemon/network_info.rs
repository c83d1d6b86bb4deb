//! What listings and inspections show of networks: Docker's shape, with our own facts beside it.

use super::Daemon;
use super::clock::rfc3339;
use super::model::Model;
use super::reference::Begins;
use super::uplink::word_for;
use crate::api::control::Answer;
use crate::api::network_types::{
    ConfigFrom, ContainerInfo, IpamConfig, IpamInfo, LeaseInfo, NetworkInfo,
};
use crate::api::types::Uplink;
use crate::network::model::Driver;
use crate::network::{Endpoint, Network, NetworkSubnet, Sandbox};
use ipnet::IpNet;
use mossnet_helper::SandboxId;
use std::collections::BTreeMap;

impl Daemon {
    /// All networks: those with a bridge, then `host` and `none`.
    pub(super) async fn network_infos(&self) -> Answer<Vec<NetworkInfo>> {
        self.default_network_exists().await?;
        let model = self.0.model.lock().await;
        let bridges = model.networks().map(|network| shown(&model, network));
        Ok(bridges
            .chain(PREDEFINED.map(|(name, driver)| predefined(name, driver)))
            .collect())
    }

    /// One network.
    pub(super) async fn network_info(&self, text: &str) -> Answer<NetworkInfo> {
        self.default_network_exists().await?;
        let predefined = PREDEFINED.map(|(name, driver)| predefined(name, driver));
        let mut named = predefined.into_iter();
        if let Some(found) = named.find(|known| known.name == text || known.id.as_str() == text) {
            return Ok(found);
        }
        let model = self.0.model.lock().await;
        match model.find_network(text) {
            Ok(network) => Ok(shown(&model, network)),
            Err(refusal) => predefined_by_id(text).ok_or(refusal),
        }
    }
}

/// `host` or `none`, by the beginning of its id.
pub(super) fn predefined_by_id(text: &str) -> Option<NetworkInfo> {
    let all = PREDEFINED.map(|(name, driver)| predefined(name, driver));
    match Begins::of(text, all.iter().map(|network| (&network.id, network))) {
        Begins::One(network) => Some(network.clone()),
        Begins::Nothing | Begins::Several | Begins::TooShort => None,
    }
}

/// Networks without a record: name and driver.
const PREDEFINED: [(&str, &str); 2] = [("host", "host"), ("none", "null")];

fn shown(model: &Model, network: &Network) -> NetworkInfo {
    let driver = match network.driver {
        Driver::Bridge => "bridge",
    };
    let has = |v4: bool| network.subnets.iter().any(|on| on.gateway.is_ipv4() == v4);
    NetworkInfo {
        name: network.name.to_string(),
        id: network.id.clone(),
        created: rfc3339(network.created),
        driver: driver.to_owned(),
        enable_ipv4: has(true),
        enable_ipv6: has(false),
        ipam: IpamInfo {
            driver: "default".to_owned(),
            options: BTreeMap::new(),
            config: network.subnets.iter().map(ipam_config).collect(),
        },
        internal: network.internal,
        containers: containers(model, network),
        options: network.options.clone(),
        labels: network.labels.clone(),
        bridge: Some(network.bridge.to_string()),
        uplink: word_for(network.uplink),
        mtu: Some(network.mtu),
        dns_enabled: network.serves_names(),
        dns: network.dns.clone(),
        leases: leases(model, network),
        ..predefined(network.name.as_str(), driver)
    }
}

fn ipam_config(on: &NetworkSubnet) -> IpamConfig {
    IpamConfig {
        subnet: on.subnet.prefix(),
        ip_range: on.ip_range,
        gateway: on.gateway,
        auxiliary_addresses: (on.aux_addresses.iter())
            .map(|(address, name)| (name.clone(), *address))
            .collect(),
    }
}

/// Addresses that are kept for sandboxes which are not on the network now.
fn leases(model: &Model, network: &Network) -> Vec<LeaseInfo> {
    let reserved = model.reserved(&network.id).map(|lease| LeaseInfo {
        name: lease.name.to_string(),
        addresses: lease.addresses.clone(),
        granted: rfc3339(lease.granted),
    });
    let parked = model
        .parked(&network.id)
        .map(|(sandbox, addresses)| LeaseInfo {
            name: sandbox.name.to_string(),
            addresses: addresses.to_vec(),
            granted: rfc3339(sandbox.created),
        });
    reserved.chain(parked).collect()
}

fn containers(model: &Model, network: &Network) -> BTreeMap<SandboxId, ContainerInfo> {
    let on = |sandbox: &Sandbox| {
        let endpoint = sandbox.endpoint_on(&network.id)?;
        Some((sandbox.id.clone(), container(sandbox, endpoint)))
    };
    model.on_network(&network.id).filter_map(on).collect()
}

fn container(sandbox: &Sandbox, endpoint: &Endpoint) -> ContainerInfo {
    let of_family = |v4: bool| {
        let mut addresses = endpoint.addresses.iter();
        let found = addresses.find(|address| address.addr().is_ipv4() == v4);
        found.map(IpNet::to_string).unwrap_or_default()
    };
    ContainerInfo {
        name: sandbox.name.to_string(),
        endpoint_id: endpoint.id.clone(),
        mac_address: endpoint.mac,
        ipv4_address: of_family(true),
        ipv6_address: of_family(false),
    }
}

/// `host` and `none` are not kept anywhere; their ids are their names, padded with zeros.
fn predefined(name: &str, driver: &str) -> NetworkInfo {
    let mut id = [0; 32];
    for (byte, letter) in id.iter_mut().zip(name.bytes()) {
        *byte = letter;
    }
    NetworkInfo {
        name: name.to_owned(),
        id: SandboxId::from(id),
        created: rfc3339(0),
        scope: "local".to_owned(),
        driver: driver.to_owned(),
        enable_ipv4: true,
        enable_ipv6: false,
        ipam: IpamInfo {
            driver: "default".to_owned(),
            ..IpamInfo::default()
        },
        internal: false,
        attachable: false,
        ingress: false,
        config_from: ConfigFrom::default(),
        config_only: false,
        containers: BTreeMap::new(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        bridge: None,
        uplink: Uplink::None,
        mtu: None,
        dns_enabled: false,
        dns: Vec::new(),
        leases: Vec::new(),
    }
}
