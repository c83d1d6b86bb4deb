//! `Control` for the API server: each call goes to the module that knows.

use super::refusal::unknown;
use super::{Daemon, files};
use crate::api::control::{Answer, Control};
use crate::api::network_types::{
    NetnsAdopt, NetnsCreate, NetnsCreated, NetworkConnect, NetworkCreate, NetworkDisconnect,
    NetworkInfo, NetworkPrune, Pruned,
};
use crate::api::port_types::{PortInfo, PortStatus, PortsPublish, PortsRemove};
use crate::api::types::{Created, ExecCreate, Exit, Info, SandboxCreate, SandboxInfo};
use crate::network::SandboxPhase;
use mossnet_helper::SandboxId;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

impl Control for Daemon {
    async fn create(&self, request: SandboxCreate) -> Answer<Created> {
        self.create_sandbox(request).await
    }

    async fn attach(&self, id: SandboxId, stdio: [OwnedFd; 3]) -> Answer<()> {
        if self.live().is_exec(&id) {
            return self.attach_exec(&id, stdio);
        }
        self.attach_sandbox(&id, stdio).await
    }

    async fn start(&self, sandbox: &str) -> Answer<()> {
        self.start_sandbox(sandbox).await
    }

    async fn stop(&self, sandbox: &str, timeout_seconds: u64) -> Answer<()> {
        self.stop_sandbox(sandbox, Duration::from_secs(timeout_seconds))
            .await
    }

    async fn kill(&self, sandbox: &str, signal: i32) -> Answer<()> {
        self.kill_sandbox(sandbox, signal).await
    }

    async fn remove(&self, sandbox: &str, force: bool) -> Answer<()> {
        self.remove_sandbox(sandbox, force).await
    }

    async fn wait(&self, sandbox: &str) -> Answer<Exit> {
        self.wait_sandbox(sandbox).await
    }

    async fn list(&self, all: bool) -> Answer<Vec<SandboxInfo>> {
        let model = self.0.model.lock().await;
        let mut shown: Vec<_> = model
            .sandboxes()
            .filter(|s| all || matches!(s.phase, SandboxPhase::Running { .. }))
            .collect();
        // The newest first, as Docker lists them.
        shown.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created));
        Ok(shown
            .into_iter()
            .map(|sandbox| self.sandbox_info(&model, sandbox))
            .collect())
    }

    async fn inspect(&self, sandbox: &str) -> Answer<SandboxInfo> {
        let (id, _) = self.phase_of(sandbox).await?;
        let model = self.0.model.lock().await;
        Ok(self.sandbox_info(&model, model.still(&id, sandbox)?))
    }

    async fn log_path(&self, sandbox: &str) -> Answer<PathBuf> {
        let model = self.0.model.lock().await;
        let found = model.find(sandbox)?;
        if found.bare {
            let message = format!(
                "sandbox '{text}' has no process, and so no output",
                text = sandbox
            );
            return Err(unknown(message));
        }
        if !found.detached {
            let message = format!("sandbox '{sandbox}' keeps no log: it was not run with -d");
            return Err(unknown(message).with_hint("its output went to the terminal of its run"));
        }
        Ok(files::log_path(&self.0.paths, &found.id))
    }

    async fn ports(&self, sandbox: &str) -> Answer<Vec<PortStatus>> {
        self.ports_of(sandbox).await
    }

    async fn add_ports(&self, sandbox: &str, request: PortsPublish) -> Answer<Vec<PortInfo>> {
        self.publish(sandbox, request).await
    }

    async fn remove_ports(&self, sandbox: &str, request: PortsRemove) -> Answer<()> {
        self.unpublish(sandbox, request).await
    }

    async fn exec(&self, sandbox: &str, request: ExecCreate) -> Answer<Created> {
        self.prepare_exec(sandbox, request).await
    }

    async fn exec_start(&self, id: SandboxId) -> Answer<()> {
        self.start_exec(&id).await
    }

    async fn exec_kill(&self, id: SandboxId, signal: i32) -> Answer<()> {
        self.kill_exec(id, signal).await
    }

    async fn exec_wait(&self, id: SandboxId) -> Answer<Exit> {
        self.wait_exec(&id).await
    }

    async fn networks(&self) -> Answer<Vec<NetworkInfo>> {
        self.network_infos().await
    }

    async fn network(&self, network: &str) -> Answer<NetworkInfo> {
        self.network_info(network).await
    }

    async fn create_netns(&self, request: NetnsCreate) -> Answer<NetnsCreated> {
        self.create_bare(request).await
    }

    async fn adopt_netns(&self, request: NetnsAdopt, netns: OwnedFd) -> Answer<NetnsCreated> {
        self.adopt(request, netns).await
    }

    async fn create_network(&self, request: NetworkCreate) -> Answer<Created> {
        self.make_network(request).await
    }

    async fn remove_network(&self, network: &str, force: bool) -> Answer<()> {
        self.discard_network(network, force).await
    }

    async fn prune_networks(&self, request: NetworkPrune) -> Answer<Pruned> {
        self.prune(request).await
    }

    async fn connect_network(&self, network: &str, request: NetworkConnect) -> Answer<()> {
        self.connect(network, request).await
    }

    async fn disconnect_network(&self, network: &str, request: NetworkDisconnect) -> Answer<()> {
        self.disconnect(network, request).await
    }

    async fn router(&self) -> Answer<Info> {
        self.helper().await?;
        self.daemon_info().await
    }

    async fn info(&self) -> Answer<Info> {
        self.daemon_info().await
    }

    async fn shutdown(&self, all: bool) -> Answer<()> {
        self.shut_down(all).await
    }
}
