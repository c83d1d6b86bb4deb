//! Requests and answers of the API, as JSON. Field names of listings follow Docker where Docker has
//! the thing (`docker ps --format json`, `docker inspect`).

use super::network_types::{Link, LinkInfo, NetworkAttach};
use super::port_types::{HostLoopback, PortInfo, PortsPublish, PublishSpec};
pub use crate::network::host_loopback::HostTarget;

use ipnet::IpNet;
use mossnet_helper::bandwidth::{Limit, Rate};
use mossnet_helper::{MacAddr, SandboxId};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;

/// `POST /v1/sandboxes`: make a sandbox, not yet started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxCreate {
    /// Absent: made up (`adjective_moss`).
    pub name: Option<String>,
    /// Absent: the short id.
    pub hostname: Option<String>,
    /// Absent: the default `bridge`.
    pub network: Option<NetworkMode>,
    /// `--link`: sandboxes that it shall know by name.
    #[serde(default)]
    pub links: Vec<Link>,
    /// Resolvers instead of the network's.
    pub dns: Vec<IpAddr>,
    /// Search domains instead of the host's.
    pub dns_search: Vec<String>,
    /// Lines for `/etc/hosts`: name, and address or `host-gateway`.
    pub add_host: Vec<(String, HostTarget)>,
    /// Whole environment of the command besides PATH, HOME, HOSTNAME and TERM.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub workdir: Option<PathBuf>,
    /// Working directory of the CLI, the default without `rootfs`.
    pub caller_dir: Option<PathBuf>,
    /// Home directory of the CLI's user, the default for HOME without `rootfs`.
    pub caller_home: Option<PathBuf>,
    /// Another root file system.
    pub rootfs: Option<PathBuf>,
    /// Capabilities added to Docker's default set; `ALL` for all.
    pub cap_add: Vec<String>,
    /// Capabilities dropped from it; `ALL` for all.
    pub cap_drop: Vec<String>,
    /// Command and arguments.
    pub command: Vec<String>,
    /// Standard streams.
    pub stdio: Stdio,
    /// stdin stays open where nobody is attached.
    #[serde(default)]
    pub interactive: bool,
    /// A terminal.
    pub tty: bool,
    /// Remove when it ends.
    pub auto_remove: bool,
    /// `--uplink` for the default network.
    pub uplink: Option<Uplink>,
    /// Ports on the host.
    #[serde(default)]
    pub publish: PortsPublish,
    /// Publish what `expose` names, too, each by a free port.
    #[serde(default)]
    pub publish_all: bool,
    /// Container ports, as `80` or `53/udp`.
    #[serde(default)]
    pub expose: Vec<PublishSpec>,
    /// How far the host's loopback is open to it: `all`, or ports as `5432,8000-8010,53/udp`.
    #[serde(default)]
    pub host_loopback: Option<HostLoopback>,
}

#[cfg(test)]
impl SandboxCreate {
    /// Runs `sh`, detached, with nothing asked for; for tests.
    pub(crate) fn example() -> Self {
        Self {
            name: None,
            hostname: None,
            network: None,
            links: Vec::new(),
            dns: Vec::new(),
            dns_search: Vec::new(),
            add_host: Vec::new(),
            env: Vec::new(),
            workdir: None,
            caller_dir: None,
            caller_home: None,
            rootfs: None,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            command: vec!["sh".into()],
            stdio: Stdio::Detached,
            interactive: false,
            tty: false,
            auto_remove: false,
            uplink: None,
            publish: PortsPublish::default(),
            publish_all: false,
            expose: Vec::new(),
            host_loopback: None,
        }
    }
}

/// `--network`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// On these networks, in this order; `bridge` is the default one.
    Networks(Vec<NetworkAttach>),
    /// Loopback only.
    None,
    /// The host's network namespace.
    Host,
    /// Another sandbox's.
    Container(String),
}

/// `--uplink`: how traffic leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Uplink {
    /// Our own userspace NAT.
    Relay,
    /// An installed `pasta`.
    Pasta,
    /// An installed `slirp4netns`.
    Slirp,
    /// The host's kernel, as an installed `mossnet-helper` grants it.
    Kernel,
    /// None.
    None,
}

/// Where the standard streams of a process go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdio {
    /// To the log; stdin is empty.
    Detached,
    /// To three descriptors sent over the stdio socket (see `api::stdio`) before the start.
    Attached,
}

/// Answer to every creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// Full id.
    pub id: SandboxId,
    /// Things that are degraded, one line each.
    pub warnings: Vec<String>,
}

/// `POST /v1/sandboxes/{sandbox}/exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecCreate {
    /// Command and arguments.
    pub command: Vec<String>,
    /// Added to the sandbox's own environment.
    pub env: Vec<(String, String)>,
    /// Absent: the sandbox's.
    pub workdir: Option<PathBuf>,
    /// stdin stays open where nobody is attached.
    #[serde(default)]
    pub interactive: bool,
    /// A terminal.
    pub tty: bool,
    /// Standard streams.
    pub stdio: Stdio,
}

/// `GET /v1/sandboxes/{sandbox}/wait` and `GET /v1/exec/{id}/wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// As a shell reports it: the code, or 128 + the signal.
    pub code: i32,
}

/// The body of an answer to `wait` whose head was sent before the end was known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WaitEnd {
    /// It ended.
    Exit(Exit),
    /// It cannot be known, or another daemon may know (503).
    Error {
        /// What would have been the HTTP status.
        status: u16,
        /// Why.
        #[serde(flatten)]
        body: ErrorBody,
    },
}

/// State of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxState {
    /// Made, not started.
    Created,
    /// Its first process runs.
    Running,
    /// Its first process ended.
    Exited,
}

/// One sandbox: an element of `GET /v1/sandboxes`, and `GET /v1/sandboxes/{sandbox}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SandboxInfo {
    /// Full id.
    pub id: SandboxId,
    /// Name.
    pub name: String,
    /// UTS host name.
    pub hostname: String,
    /// Command and arguments; `(netns)` for one without a process.
    pub command: Vec<String>,
    /// RFC 3339, UTC.
    pub created: String,
    /// RFC 3339, UTC.
    pub started: Option<String>,
    /// RFC 3339, UTC.
    pub finished: Option<String>,
    /// State.
    pub state: SandboxState,
    /// Once exited, as a shell reports it.
    pub exit_code: Option<i32>,
    /// Process id in the host's pid namespace, while it lives.
    pub pid: Option<u32>,
    /// `bridge`, a network's name, `none`, `host` or `container:NAME`.
    pub network_mode: String,
    /// Networks that it is on, or joins when it is started, in order.
    pub networks: Vec<String>,
    /// Live endpoints, in order of attachment.
    pub endpoints: Vec<EndpointInfo>,
    /// Sandboxes that it knows by name.
    pub links: Vec<LinkInfo>,
    /// Its ports on the host, while it lives.
    #[serde(default)]
    pub ports: Vec<PortInfo>,
    /// How far the host's loopback is open to it, by its own flags and by its networks together; while it is
    /// on none, by its flags.
    #[serde(default)]
    pub host_loopback: Option<HostLoopback>,
    /// Of one without a process: a path that leads to its network namespace while it lives.
    pub netns_path: Option<PathBuf>,
    /// Where detached output goes.
    pub log_path: Option<PathBuf>,
    /// `/etc/hosts` of the sandbox.
    pub hosts_path: PathBuf,
    /// `/etc/resolv.conf` of the sandbox.
    pub resolv_conf_path: PathBuf,
    /// Removed when it ends.
    pub auto_remove: bool,
    /// Has a terminal.
    pub tty: bool,
    /// Root directory where not the caller's.
    pub rootfs: Option<PathBuf>,
}

/// One endpoint of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EndpointInfo {
    /// Network name.
    pub network: String,
    /// Endpoint id.
    pub endpoint_id: SandboxId,
    /// Interface name in the sandbox.
    pub ifname: String,
    /// Router side of the pair.
    pub router_ifname: String,
    /// MAC address in the sandbox.
    pub mac_address: MacAddr,
    /// Addresses with prefix lengths.
    pub addresses: Vec<IpNet>,
    /// Gateways of the network; the default route goes through the first endpoint's.
    pub gateways: Vec<IpAddr>,
    /// Further names on the network.
    pub aliases: Vec<String>,
    /// The default route goes through the highest.
    pub gw_priority: i32,
    /// How fast it may receive; absent: as it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_in: Option<LimitInfo>,
    /// How fast it may send; absent: as it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_out: Option<LimitInfo>,
    /// All names under which peers on the network find it; none where the network has no names.
    pub dns_names: Vec<String>,
}

/// A limit of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LimitInfo {
    /// In the long run.
    pub bits_per_second: Rate,
    /// What may pass at once after a silence; absent: nobody has chosen it.
    pub burst_bytes: Option<u32>,
}

impl From<Limit> for LimitInfo {
    fn from(limit: Limit) -> Self {
        Self {
            bits_per_second: limit.rate,
            burst_bytes: limit.burst,
        }
    }
}

/// `GET /v1/info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Info {
    /// Version of the daemon.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Of the helper, while one runs.
    pub helper_pid: Option<u32>,
    /// Of the relay, while one runs.
    pub relay_pid: Option<u32>,
    /// Where state is kept.
    pub data_dir: PathBuf,
    /// Where sockets are.
    pub runtime_dir: PathBuf,
    /// Sandboxes that run.
    pub running: usize,
    /// While a helper runs: a path that leads to the router's network namespace.
    pub router_netns: Option<PathBuf>,
}

/// `GET /v1/ping`: answered by the server itself, so that a client knows that somebody is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ping {
    /// Version of the daemon.
    pub version: String,
}

/// `GET /v1/sandboxes/{sandbox}/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// Standard output and error of a detached sandbox. The client, of the same user, reads it.
    pub path: PathBuf,
}

/// How long `stop` waits for SIGTERM to work before SIGKILL, as `docker stop` does.
pub const STOP_TIMEOUT_SECONDS: u64 = 10;

/// Body of every answer with a status of 400 or above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What failed, on what, why.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// Exit code that the CLI should end with (125, 126, 127, or 1).
    pub exit_code: u8,
}

#[cfg(test)]
#[path = "types_tests.rs"]
mod tests;
