//! What listings and inspections show of networks: Docker's shape, with our own facts beside it.

use super::Daemon;
use super::clock::rfc3339;
use super::model::Model;
use super::uplink::word_for;
use crate::api::control::Answer;
use crate::api::network_types::{ContainerInfo, IpamConfig, IpamInfo, LeaseInfo, NetworkInfo};
use crate::api::types::Uplink;
use crate::network::model::{Driver, NetworkSubnet};
use crate::network::{Endpoint, Network, Sandbox};
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
            .chain([predefined("host", "host"), predefined("none", "null")])
            .collect())
    }
}

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
        labels: network.labels.clone(),
        bridge: Some(network.bridge.to_string()),
        uplink: word_for(network.uplink),
        mtu: Some(network.mtu),
        dns_enabled: network.serves_names(),
        dns: network.dns.clone(),
        ..predefined(network.name.as_str(), driver)
    }
}

fn ipam_config(on: &NetworkSubnet) -> IpamConfig {
    IpamConfig {
        subnet: on.subnet.prefix(),
        ip_range: None,
        gateway: on.gateway,
        auxiliary_addresses: BTreeMap::new(),
    }
}

fn containers(model: &Model, network: &Network) -> BTreeMap<SandboxId, ContainerInfo> {
    let on = |sandbox: &Sandbox| {
        let endpoint = sandbox.endpoints.iter().find(|e| e.network == network.id)?;
        Some((sandbox.id.clone(), container(sandbox, endpoint)))
    };
    model.live().filter_map(on).collect()
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
        config_only: false,
        containers: BTreeMap::new(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        bridge: None,
        uplink: Uplink::None,
        mtu: None,
        dns_enabled: false,
        dns: Vec::new(),
        leases: Vec::<LeaseInfo>::new(),
    }
}
