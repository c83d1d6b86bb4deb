//! What listings and inspections show of sandboxes, and of the daemon. `network_info`: of networks.

use super::clock::rfc3339;
use super::model::Model;
use super::publish::live_ports;
use super::{Daemon, files};
use crate::api::control::Answer;
use crate::api::network_types::LinkInfo;
use crate::api::port_types::PortInfo;
use crate::api::types::{EndpointInfo, Info, SandboxInfo, SandboxState};
use crate::kernel::helper::Helper;
use crate::network::{Endpoint, LinkRecord, Sandbox, SandboxPhase};

/// The command of a sandbox without a process.
const BARE: &str = "(netns)";

impl Daemon {
    /// One sandbox.
    pub(super) fn sandbox_info(&self, model: &Model, sandbox: &Sandbox) -> SandboxInfo {
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
                let pid = (!sandbox.bare).then_some(pid);
                (SandboxState::Running, Some(started), None, None, pid)
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
            command: match sandbox.bare {
                true => vec![BARE.to_owned()],
                false => sandbox.command.clone(),
            },
            created: rfc3339(sandbox.created),
            started: started.map(rfc3339),
            finished: finished.map(rfc3339),
            state,
            exit_code,
            pid,
            network_mode: sandbox.mode.to_string(),
            networks: (sandbox.attachments.iter())
                .map(|attachment| attachment.network_name.to_string())
                .collect(),
            endpoints: (sandbox.endpoints.iter())
                .map(|endpoint| endpoint_info(sandbox, endpoint))
                .collect(),
            links: sandbox.links.iter().map(link_info).collect(),
            ports: live_ports(sandbox).iter().map(PortInfo::of).collect(),
            host_loopback: model.host_loopback_of(sandbox),
            netns_path: self.live().netns_path(&sandbox.id),
            log_path: sandbox.detached.then_some(log),
            hosts_path: etc.join("hosts"),
            resolv_conf_path: etc.join("resolv.conf"),
            auto_remove: sandbox.auto_remove,
            tty: sandbox.tty,
            rootfs: sandbox.rootfs.clone(),
        }
    }

    /// The daemon itself.
    pub(super) async fn daemon_info(&self) -> Answer<Info> {
        let helper = self.current_helper().await;
        let relay_pid = match &helper {
            Some(helper) => helper.inventory().await?.relay_pid,
            None => None,
        };
        let router_netns = helper.as_ref().map(Helper::router_netns);
        let model = self.0.model.lock().await;
        let running = |s: &&Sandbox| matches!(s.phase, SandboxPhase::Running { .. });
        Ok(Info {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            helper_pid: helper.as_ref().map(|helper| helper.pid),
            relay_pid,
            data_dir: self.0.paths.data.clone(),
            runtime_dir: self.0.paths.runtime.clone(),
            running: model.sandboxes().filter(running).count(),
            router_netns,
        })
    }
}

fn endpoint_info(sandbox: &Sandbox, endpoint: &Endpoint) -> EndpointInfo {
    EndpointInfo {
        network: endpoint.network_name.to_string(),
        endpoint_id: endpoint.id.clone(),
        ifname: endpoint.ifname.to_string(),
        router_ifname: endpoint.router_ifname.to_string(),
        mac_address: endpoint.mac,
        addresses: endpoint.addresses.clone(),
        gateways: endpoint.gateways.clone(),
        aliases: endpoint.aliases.clone(),
        gw_priority: endpoint.gw_priority,
        rate_in: endpoint.bandwidth.inward.map(Into::into),
        rate_out: endpoint.bandwidth.outward.map(Into::into),
        dns_names: match endpoint.named {
            true => sandbox.names_at(endpoint),
            false => Vec::new(),
        },
    }
}

fn link_info(link: &LinkRecord) -> LinkInfo {
    LinkInfo {
        name: link.name.to_string(),
        alias: link.alias.clone(),
    }
}
