//! A `Control` that answers from memory.

use crate::api::control::{Answer, Control, Refusal};
use crate::api::network_types::{
    NetnsAdopt, NetnsCreate, NetnsCreated, NetworkConnect, NetworkCreate, NetworkDisconnect,
    NetworkInfo, NetworkPrune, Pruned,
};
use crate::api::port_types::{PortInfo, PortStatus, PortsPublish, PortsRemove};
use crate::api::types::{Created, ExecCreate, Exit, Info, SandboxCreate, SandboxInfo};
use mossnet_helper::SandboxId;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Mutex;

/// Remembers what it was asked; `wait` never resolves for a sandbox called `forever`.
#[derive(Default)]
pub(super) struct Memory {
    asked: Mutex<Vec<String>>,
    pub(super) taken: Mutex<Vec<OwnedFd>>,
}

impl Memory {
    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

pub(super) fn id() -> SandboxId {
    SandboxId::from([7; 32])
}

fn unknown<T>(name: &str) -> Answer<T> {
    Err(Refusal::new(404, format!("sandbox '{name}' does not exist")).with_hint("mossnet ps -a"))
}

impl Control for Memory {
    async fn create(&self, request: SandboxCreate) -> Answer<Created> {
        self.note(format!("create {:?}", request.command));
        Ok(Created {
            id: id(),
            warnings: Vec::new(),
        })
    }
    async fn attach(&self, id: SandboxId, stdio: [OwnedFd; 3]) -> Answer<()> {
        self.note(format!("attach {}", id.short()));
        if id != self::id() {
            return unknown(id.short());
        }
        self.taken.lock().unwrap().extend(stdio);
        Ok(())
    }
    async fn start(&self, sandbox: &str) -> Answer<()> {
        self.note(format!("start {sandbox}"));
        unknown(sandbox)
    }
    async fn stop(&self, sandbox: &str, timeout_seconds: u64) -> Answer<()> {
        self.note(format!("stop {sandbox} {timeout_seconds}"));
        Ok(())
    }
    async fn kill(&self, sandbox: &str, signal: i32) -> Answer<()> {
        self.note(format!("kill {sandbox} {signal}"));
        Ok(())
    }
    async fn remove(&self, sandbox: &str, force: bool) -> Answer<()> {
        self.note(format!("remove {sandbox} {force}"));
        Ok(())
    }
    async fn wait(&self, sandbox: &str) -> Answer<Exit> {
        self.note(format!("wait {sandbox}"));
        if sandbox == "forever" {
            std::future::pending::<()>().await;
        }
        Ok(Exit { code: 3 })
    }
    async fn list(&self, all: bool) -> Answer<Vec<SandboxInfo>> {
        self.note(format!("list {all}"));
        Ok(Vec::new())
    }
    async fn inspect(&self, sandbox: &str) -> Answer<SandboxInfo> {
        unknown(sandbox)
    }
    async fn log_path(&self, _: &str) -> Answer<PathBuf> {
        Ok(PathBuf::from("/log"))
    }
    async fn exec(&self, sandbox: &str, request: ExecCreate) -> Answer<Created> {
        self.note(format!("exec {sandbox} {:?}", request.command));
        Ok(Created {
            id: id(),
            warnings: Vec::new(),
        })
    }
    async fn exec_start(&self, _: SandboxId) -> Answer<()> {
        Ok(())
    }
    async fn exec_kill(&self, _: SandboxId, signal: i32) -> Answer<()> {
        self.note(format!("exec_kill {signal}"));
        Ok(())
    }
    async fn ports(&self, _: &str) -> Answer<Vec<PortStatus>> {
        Ok(Vec::new())
    }
    async fn add_ports(&self, name: &str, request: PortsPublish) -> Answer<Vec<PortInfo>> {
        self.note(format!("add_ports {name} {}", request.ports[0]));
        Ok(Vec::new())
    }
    async fn remove_ports(&self, name: &str, request: PortsRemove) -> Answer<()> {
        self.note(format!("remove_ports {name} {}", request.ports[0]));
        Ok(())
    }
    async fn exec_wait(&self, _: SandboxId) -> Answer<Exit> {
        Ok(Exit { code: 4 })
    }
    async fn create_netns(&self, request: NetnsCreate) -> Answer<NetnsCreated> {
        self.note(format!("create_netns {:?}", request.name));
        Ok(NetnsCreated {
            id: id(),
            path: PathBuf::from("/proc/1/fd/9"),
            warnings: Vec::new(),
        })
    }
    async fn adopt_netns(&self, request: NetnsAdopt, _: OwnedFd) -> Answer<NetnsCreated> {
        self.note(format!("adopt_netns {:?}", request.netns.name));
        Ok(NetnsCreated {
            id: id(),
            path: PathBuf::from("/proc/1/fd/9"),
            warnings: Vec::new(),
        })
    }
    async fn create_network(&self, request: NetworkCreate) -> Answer<Created> {
        self.note(format!("create_network {}", request.name));
        Ok(Created {
            id: id(),
            warnings: Vec::new(),
        })
    }
    async fn networks(&self) -> Answer<Vec<NetworkInfo>> {
        self.note("networks".to_owned());
        Ok(Vec::new())
    }
    async fn network(&self, network: &str) -> Answer<NetworkInfo> {
        unknown(network)
    }
    async fn remove_network(&self, network: &str, force: bool) -> Answer<()> {
        self.note(format!("remove_network {network} {force}"));
        Ok(())
    }
    async fn prune_networks(&self, request: NetworkPrune) -> Answer<Pruned> {
        self.note(format!("prune_networks {:?}", request.filters));
        Ok(Pruned::default())
    }
    async fn connect_network(&self, network: &str, request: NetworkConnect) -> Answer<()> {
        let (sandbox, ip) = (request.sandbox, request.attach.ip);
        self.note(format!("connect {network} {sandbox} {ip:?}"));
        Ok(())
    }
    async fn disconnect_network(&self, network: &str, request: NetworkDisconnect) -> Answer<()> {
        let NetworkDisconnect { sandbox, force } = request;
        self.note(format!("disconnect {network} {sandbox} {force}"));
        Ok(())
    }
    async fn router(&self) -> Answer<Info> {
        self.info().await
    }
    async fn info(&self) -> Answer<Info> {
        unknown("info")
    }
    async fn shutdown(&self, all: bool) -> Answer<()> {
        self.note(format!("shutdown {all}"));
        Ok(())
    }
}
