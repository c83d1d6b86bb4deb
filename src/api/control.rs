//! What the API server asks of the daemon.

use super::network_types::{
    NetnsAdopt, NetnsCreate, NetnsCreated, NetworkConnect, NetworkCreate, NetworkDisconnect,
    NetworkInfo, NetworkPrune, Pruned,
};
use super::port_types::{PortInfo, PortStatus, PortsPublish, PortsRemove};
use super::types::{Created, ErrorBody, ExecCreate, Exit, Info, SandboxCreate, SandboxInfo};
use mossnet_helper::SandboxId;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// A request that was refused or failed, with the HTTP status that says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", body.message)]
pub struct Refusal {
    /// HTTP status: 400 malformed, 404 unknown, 409 conflict, 500 failed.
    pub status: u16,
    /// What the user reads.
    pub body: ErrorBody,
}

impl Refusal {
    /// A refusal without a hint, which makes the CLI exit with 125.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            body: ErrorBody {
                message: message.into(),
                hint: None,
                exit_code: crate::error::EXIT_FAILURE,
            },
        }
    }

    /// The same, with what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }
}

/// Shorthand of every answer.
pub type Answer<T> = Result<T, Refusal>;

/// What a daemon can do. `sandbox` and `network` arguments are a name, a full id, or an unambiguous
/// beginning of an id, 4 digits at least.
pub trait Control: Send + Sync + 'static {
    /// Make a sandbox with its endpoints; its process waits for `start`.
    fn create(&self, request: SandboxCreate) -> impl Future<Output = Answer<Created>> + Send;
    /// Give descriptors (stdin, stdout, stderr) to a created, attached sandbox or exec.
    fn attach(&self, id: SandboxId, stdio: [OwnedFd; 3])
    -> impl Future<Output = Answer<()>> + Send;
    /// Let its process run; one that has exited runs again, detached.
    fn start(&self, sandbox: &str) -> impl Future<Output = Answer<()>> + Send;
    /// SIGTERM, then SIGKILL after `timeout_seconds`. Already stopped is success.
    fn stop(&self, sandbox: &str, timeout_seconds: u64) -> impl Future<Output = Answer<()>> + Send;
    /// Send a signal.
    fn kill(&self, sandbox: &str, signal: i32) -> impl Future<Output = Answer<()>> + Send;
    /// Remove; a running one only with `force`.
    fn remove(&self, sandbox: &str, force: bool) -> impl Future<Output = Answer<()>> + Send;
    /// Resolves when its first process has ended.
    fn wait(&self, sandbox: &str) -> impl Future<Output = Answer<Exit>> + Send;
    /// All sandboxes, or those that run.
    fn list(&self, all: bool) -> impl Future<Output = Answer<Vec<SandboxInfo>>> + Send;
    /// One sandbox.
    fn inspect(&self, sandbox: &str) -> impl Future<Output = Answer<SandboxInfo>> + Send;
    /// The log file of a detached sandbox.
    fn log_path(&self, sandbox: &str) -> impl Future<Output = Answer<PathBuf>> + Send;
    /// What a sandbox publishes, with counters.
    fn ports(&self, sandbox: &str) -> impl Future<Output = Answer<Vec<PortStatus>>> + Send;
    /// Publish more; all or none.
    fn add_ports(
        &self,
        sandbox: &str,
        request: PortsPublish,
    ) -> impl Future<Output = Answer<Vec<PortInfo>>> + Send;
    /// Publish less; all that is named, or nothing where something is not published.
    fn remove_ports(
        &self,
        sandbox: &str,
        request: PortsRemove,
    ) -> impl Future<Output = Answer<()>> + Send;
    /// Prepare a further process in a running sandbox.
    fn exec(
        &self,
        sandbox: &str,
        request: ExecCreate,
    ) -> impl Future<Output = Answer<Created>> + Send;
    /// Run it.
    fn exec_start(&self, id: SandboxId) -> impl Future<Output = Answer<()>> + Send;
    /// Send it a signal.
    fn exec_kill(&self, id: SandboxId, signal: i32) -> impl Future<Output = Answer<()>> + Send;
    /// Resolves when it has ended.
    fn exec_wait(&self, id: SandboxId) -> impl Future<Output = Answer<Exit>> + Send;
    /// Make a sandbox without a process.
    fn create_netns(
        &self,
        request: NetnsCreate,
    ) -> impl Future<Output = Answer<NetnsCreated>> + Send;
    /// Make another runtime's network namespace a sandbox without a process.
    fn adopt_netns(
        &self,
        request: NetnsAdopt,
        netns: OwnedFd,
    ) -> impl Future<Output = Answer<NetnsCreated>> + Send;
    /// Make a network.
    fn create_network(
        &self,
        request: NetworkCreate,
    ) -> impl Future<Output = Answer<Created>> + Send;
    /// All networks.
    fn networks(&self) -> impl Future<Output = Answer<Vec<NetworkInfo>>> + Send;
    /// One network.
    fn network(&self, network: &str) -> impl Future<Output = Answer<NetworkInfo>> + Send;
    /// Remove a network that nobody is on; with `force` whoever is on it too.
    fn remove_network(&self, network: &str, force: bool)
    -> impl Future<Output = Answer<()>> + Send;
    /// Remove every network that nobody is on.
    fn prune_networks(&self, request: NetworkPrune) -> impl Future<Output = Answer<Pruned>> + Send;
    /// Join a sandbox to a further network: at once, or when it is started.
    fn connect_network(
        &self,
        network: &str,
        request: NetworkConnect,
    ) -> impl Future<Output = Answer<()>> + Send;
    /// Take a sandbox off a network.
    fn disconnect_network(
        &self,
        network: &str,
        request: NetworkDisconnect,
    ) -> impl Future<Output = Answer<()>> + Send;
    /// The daemon itself, after a helper was started where none ran: its router can be entered.
    fn router(&self) -> impl Future<Output = Answer<Info>> + Send;
    /// The daemon itself.
    fn info(&self) -> impl Future<Output = Answer<Info>> + Send;
    /// End the daemon; with `all`, also every sandbox, the relay and the helper.
    fn shutdown(&self, all: bool) -> impl Future<Output = Answer<()>> + Send;
}
