//! What listings and inspections show.

use super::clock::rfc3339;
use super::uplink::word_for;
use super::{Daemon, files};
use crate::api::control::Answer;
use crate::api::types::{EndpointInfo, Info, NetworkInfo, SandboxInfo, SandboxState, Uplink};
use crate::network::model::Driver;
use crate::network::{Endpoint, Network, Sandbox, SandboxPhase};
use mossnet_helper::SandboxId;

impl Daemon {
    /// One sandbox.
    pub(super) fn sandbox_info(&self, sandbox: &Sandbox) -> SandboxInfo {
        let etc = self.etc_dir(sandbox);
        let (state, started, finished, exit_code, pid) = match sandbox.phase {
            SandboxPhase::Created => (
                SandboxState::Created,
                None,
                None,
                None,
                self.live().pid(&sandbox.id),
            ),
            SandboxPhase::Running { started, pid } => {
                (SandboxState::Running, Some(started), None, None, Some(pid))
            }
            SandboxPhase::Exited {
                started,
                finished,
                code,
            } => (
                SandboxState::Exited,
                started,
                Some(finished),
                Some(code),
                None,
            ),
        };
        let log = files::log_path(&self.0.paths, &sandbox.id);
        SandboxInfo {
            id: sandbox.id.clone(),
            name: sandbox.name.to_string(),
            hostname: sandbox.hostname.clone(),
            command: sandbox.command.clone(),
            created: rfc3339(sandbox.created),
            started: started.map(rfc3339),
            finished: finished.map(rfc3339),
            state,
            exit_code,
            pid,
            network_mode: sandbox.mode.to_string(),
            endpoints: sandbox.endpoints.iter().map(endpoint_info).collect(),
            log_path: sandbox.detached.then_some(log),
            hosts_path: etc.join("hosts"),
            resolv_conf_path: etc.join("resolv.conf"),
            auto_remove: sandbox.auto_remove,
            tty: sandbox.tty,
            rootfs: sandbox.rootfs.clone(),
        }
    }

    /// All networks: those with a bridge, then `host` and `none`.
    pub(super) async fn network_infos(&self) -> Answer<Vec<NetworkInfo>> {
        self.default_network_exists().await?;
        let model = self.0.model.lock().await;
        let bridges = model.networks().map(|network| {
            let on = |s: &Sandbox| {
                let endpoint = s.endpoints.iter().find(|e| e.network == network.id)?;
                Some((s.id.clone(), s.name.to_string(), endpoint.addresses.clone()))
            };
            network_info(network, model.live().filter_map(on).collect())
        });
        Ok(bridges
            .chain([predefined("host", "host"), predefined("none", "null")])
            .collect())
    }

    /// The daemon itself.
    pub(super) async fn daemon_info(&self) -> Answer<Info> {
        let helper = self.current_helper().await;
        let relay_pid = match &helper {
            Some(helper) => helper.inventory().await?.relay_pid,
            None => None,
        };
        let model = self.0.model.lock().await;
        let running = |s: &&Sandbox| matches!(s.phase, SandboxPhase::Running { .. });
        Ok(Info {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            helper_pid: helper.map(|helper| helper.pid),
            relay_pid,
            data_dir: self.0.paths.data.clone(),
            runtime_dir: self.0.paths.runtime.clone(),
            running: model.sandboxes().filter(running).count(),
        })
    }
}

fn endpoint_info(endpoint: &Endpoint) -> EndpointInfo {
    EndpointInfo {
        network: endpoint.network_name.to_string(),
        endpoint_id: endpoint.id.clone(),
        ifname: endpoint.ifname.to_string(),
        router_ifname: endpoint.router_ifname.to_string(),
        mac_address: endpoint.mac,
        addresses: endpoint.addresses.clone(),
        gateways: endpoint.gateways.clone(),
    }
}

fn network_info(
    network: &Network,
    sandboxes: Vec<(SandboxId, String, Vec<ipnet::IpNet>)>,
) -> NetworkInfo {
    let driver = match network.driver {
        Driver::Bridge => "bridge",
    };
    NetworkInfo {
        name: network.name.to_string(),
        id: network.id.clone(),
        driver: driver.to_owned(),
        bridge: Some(network.bridge.to_string()),
        subnets: network.prefixes(),
        gateways: network.gateways(),
        internal: network.internal,
        uplink: word_for(network.uplink),
        sandboxes,
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
        driver: driver.to_owned(),
        bridge: None,
        subnets: Vec::new(),
        gateways: Vec::new(),
        internal: false,
        uplink: Uplink::None,
        sandboxes: Vec::new(),
    }
}
