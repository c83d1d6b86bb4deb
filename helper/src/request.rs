//! The closed set of requests that the daemon may make of the helper, and what comes back.
//!
//! Framing: a unix *stream* socket; each frame is a little-endian `u32` length (at most
//! [`MAX_FRAME`] bytes) followed by JSON. Daemon → helper frames are [`Request`]; file descriptors
//! belonging to a request travel by SCM_RIGHTS with its first byte. Helper → daemon frames are
//! [`Frame`]: one `Reply` per request, in order, with `Event`s in between.

use crate::bandwidth::Bandwidth;
pub use crate::failure::{Failure, FailureKind};
use crate::names::{IfName, MacAddr, SandboxId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;

/// Changes whenever a request or reply changes shape; `Hello` compares it.
pub const PROTOCOL_VERSION: u32 = 7;

/// Largest frame accepted, in bytes. Argument lists are the largest thing that travels.
pub const MAX_FRAME: usize = 4 << 20;

/// Most sockets that one [`Request::Listeners`] can bring: what one message carries (SCM_MAX_FD).
pub const MAX_LISTENERS: usize = 253;

/// What the daemon asks of the helper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// First request on every connection. Answer: [`Reply::Hello`].
    Hello {
        /// [`PROTOCOL_VERSION`] of the daemon.
        version: u32,
    },
    /// Everything the helper holds, for reconciliation. Answer: [`Reply::Inventory`].
    Inventory,
    /// Make a bridge exist as described; changes an existing one to match. Answer: `Done`.
    Bridge(BridgeSpec),
    /// Remove a bridge; already absent is success. Answer: `Done`.
    RemoveBridge {
        /// The bridge.
        name: IfName,
    },
    /// Replace the whole nftables ruleset of the router netns in one transaction. Answer: `Done`.
    Ruleset {
        /// Every network that exists.
        networks: Vec<NetworkRules>,
    },
    /// Make the namespaces of a sandbox. With a process: stopped before its first instruction; the
    /// request carries three descriptors: stdin, stdout, stderr. Answer: [`Reply::Created`].
    /// Without one: a *bare* sandbox, no descriptors, or where it is [`SandboxNetns::Given`] one: the
    /// network namespace. Answer: [`Reply::Bare`]; [`FailureKind::Foreign`] where our user namespace has no
    /// power over it.
    CreateSandbox(Box<SandboxSpec>),
    /// Join a created or running sandbox to a bridge by a veth pair; on a bridge whose ports are
    /// used up, by a further bridge of the same segment that the helper makes. Answer: `Done`;
    /// `Exists` where the sandbox has an interface of that name.
    Attach(EndpointSpec),
    /// Make the default routes of a created or running sandbox (main table) exactly these. Routes
    /// that are not default ones stay. Answer: `Done`.
    DefaultRoutes {
        /// The sandbox.
        sandbox: SandboxId,
        /// At most one per address family; a family without one loses its default route.
        routes: Vec<DefaultRoute>,
    },
    /// Remove an endpoint's veth pair; already absent (the sandbox may have deleted its end) is
    /// success. Answer: `Done`.
    Detach {
        /// The router side of the pair.
        router_ifname: IfName,
    },
    /// Let the sandbox's process run; nothing to do for a bare sandbox. Answer: `Done`, or a [`Failure`] with `errno` and
    /// [`FailureKind::Exec`] where the command could not be executed.
    StartSandbox {
        /// The sandbox.
        id: SandboxId,
    },
    /// Run another process in a running sandbox, but not in a bare one; carries stdin, stdout, stderr.
    /// Answer: [`Reply::Created`], or a failure as for `StartSandbox`.
    Exec(Box<ExecSpec>),
    /// Send a signal to a sandbox's first process or to an exec'd one. Answer: `Done`; `NotFound`
    /// where it has exited.
    Signal {
        /// Sandbox or exec id.
        id: SandboxId,
        /// Signal number, 1 to 64.
        signal: i32,
    },
    /// Count the TCP sockets of a sandbox's network that still have something to deliver, also after
    /// its first process has ended. Answer: [`Reply::Unsent`]; 0 for the host's network, and for
    /// what is unknown.
    Unsent {
        /// The sandbox.
        id: SandboxId,
    },
    /// Forget an exited sandbox or exec, killing what is left of it first. Answer: `Done`.
    Forget {
        /// Sandbox or exec id.
        id: SandboxId,
    },
    /// Hand the relay its view of the networks: carries one descriptor, a sealed memfd
    /// ([`crate::sealed`]) with the JSON of `mossnet::network::snapshot::Snapshot`. It is kept,
    /// unread, and given again to a relay that had to be restarted; it starts the relay when none
    /// runs. Answer: `Done` when the relay has taken it up.
    RelaySnapshot {
        /// Keys of the listening sockets that it needs; the helper lets go of all others. One that
        /// it does not hold: [`FailureKind::NotFound`].
        listeners: Vec<String>,
    },
    /// Keep listening sockets of published ports, for snapshots that will need them; carries one
    /// descriptor for each key, at most [`MAX_LISTENERS`]. A key that is held already gets the new
    /// socket. Answer: `Done`.
    Listeners {
        /// Where each socket listens, as `*:8080/tcp`.
        keys: Vec<String>,
    },
    /// What the published ports of a sandbox have seen. Answer: [`Reply::Counters`].
    Counters {
        /// Its name.
        sandbox: String,
    },
    /// Run an installed user-mode network stack in the router netns. Answer: `Done` when its
    /// interface is up.
    StartUplink(UplinkSpec),
    /// Lead the networks with uplink `Kernel` out through a link that `mossnet-helper` has put into
    /// the router netns; repeating it is harmless. Answer: `Done`; `NotFound` where the link is not
    /// there.
    KernelUplink(KernelLink),
    /// Stop an uplink, or remove the link of `Kernel`; not running is success. Answer: `Done`.
    StopUplink {
        /// Which one.
        kind: UplinkKind,
    },
    /// End every sandbox, the relay and the helper itself. Answer: `Done`, then end of file.
    Shutdown,
}

/// A bridge in the router netns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeSpec {
    /// Interface name; always starts with `br-`, which is what the ruleset matches.
    pub name: IfName,
    /// Fixed, so that it does not follow the lowest port's.
    pub mac: MacAddr,
    /// Bytes, 68 to 65535 (1280 and up with IPv6).
    pub mtu: u32,
    /// Gateway addresses with their prefix lengths.
    pub addresses: Vec<IpNet>,
    /// Endpoints reach each other. `false`: only the gateway, and what lies behind it.
    pub icc: bool,
    /// VLAN id that all traffic of the bridge is in, 1 to 4094.
    pub vlan: Option<u16>,
}

/// What the ruleset needs to know of one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRules {
    /// The bridge.
    pub bridge: IfName,
    /// Its prefixes.
    pub subnets: Vec<IpNet>,
    /// The router's own addresses on it.
    pub gateways: Vec<IpAddr>,
    /// Without a way out.
    pub internal: bool,
    /// How its traffic leaves.
    pub uplink: UplinkKind,
}

/// How traffic leaves the router netns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UplinkKind {
    /// mossnet's own userspace NAT.
    Relay,
    /// An installed `pasta`.
    Pasta,
    /// An installed `slirp4netns`.
    Slirp,
    /// A link to the host's own network, which an installed `mossnet-helper` makes.
    Kernel,
    /// No way out.
    None,
}

/// An installed user-mode network stack to run in the router netns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UplinkSpec {
    /// `Pasta` or `Slirp`.
    pub kind: UplinkKind,
    /// Absolute path of the program.
    pub program: PathBuf,
}

/// The router's end of the link to the host's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelLink {
    /// Its name.
    pub ifname: IfName,
    /// MAC address of the host's end.
    pub host_mac: MacAddr,
    /// Its own, which it has already.
    pub router_mac: MacAddr,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// The host's end, at most one of each family: what leaves goes there.
    pub gateways: Vec<IpAddr>,
}

/// A sandbox to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxSpec {
    /// Its identity, also of its first process.
    pub id: SandboxId,
    /// UTS host name, 1 to 64 bytes.
    pub hostname: String,
    /// Which network namespace it lives in.
    pub netns: SandboxNetns,
    /// Root directory; absent: the caller's own file system.
    pub rootfs: Option<PathBuf>,
    /// Files laid over the sandbox's file system (`/etc/hosts`, `/etc/resolv.conf`, `/etc/hostname`).
    pub binds: Vec<Bind>,
    /// Directories hidden under an empty file system (mossnet's own runtime directory).
    pub masks: Vec<PathBuf>,
    /// Capabilities kept in the bounding set, as `CAP_NET_RAW`; all others are dropped.
    pub capabilities: Vec<String>,
    /// What runs in it. `None`: nothing, a *bare* sandbox: a network namespace (so [`Self::netns`] is
    /// `Own` or `Given`), in the first case in a user namespace of its own, which the helper keeps until it
    /// is told to forget it.
    pub process: Option<ProcessSpec>,
}

/// Which network namespace a sandbox lives in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxNetns {
    /// A new one, owned by the sandbox's own user namespace.
    Own,
    /// The host's.
    Host,
    /// That of another sandbox, and so its user namespace too; the rest is the sandbox's own.
    Join(SandboxId),
    /// Of a bare sandbox only: one that another runtime has made. It is *adopted*: held until it is
    /// forgotten, and joined to bridges, but nobody is let into it.
    Given,
}

/// A file laid over another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// Absolute path in the caller's file system.
    pub source: PathBuf,
    /// Absolute path in the sandbox.
    pub target: PathBuf,
}

/// A process to be run in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSpec {
    /// Command and arguments; the command is looked up in `PATH` of `env` where it has no slash.
    pub argv: Vec<String>,
    /// The whole environment, as (name, value).
    pub env: Vec<(String, String)>,
    /// Working directory in the sandbox; absent: `/` with a rootfs, else the caller's where it exists.
    pub workdir: Option<PathBuf>,
    /// The three descriptors are one terminal, which becomes the controlling terminal.
    pub tty: bool,
}

/// A further process in a running sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecSpec {
    /// Identity of the new process.
    pub id: SandboxId,
    /// Where it runs.
    pub sandbox: SandboxId,
    /// What runs.
    pub process: ProcessSpec,
}

/// One veth pair between a bridge and a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointSpec {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The bridge.
    pub bridge: IfName,
    /// Name of the end on the bridge.
    pub router_ifname: IfName,
    /// Name of the end in the sandbox, such as `eth0`.
    pub ifname: IfName,
    /// MAC address of the end in the sandbox.
    pub mac: MacAddr,
    /// Bytes.
    pub mtu: u32,
    /// Addresses with their prefix lengths.
    pub addresses: Vec<IpNet>,
    /// Default routes to set, at most one per address family.
    pub default_routes: Vec<IpAddr>,
    /// How fast it may be.
    #[serde(default)]
    pub bandwidth: Bandwidth,
}

/// A default route of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultRoute {
    /// Next hop; it need not be in a prefix of the interface.
    pub gateway: IpAddr,
    /// The interface in the sandbox, such as `eth0`.
    pub ifname: IfName,
}

/// Helper → daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frame {
    /// The answer to the oldest unanswered request.
    Reply(Result<Reply, Failure>),
    /// Something happened by itself.
    Event(Event),
}

/// The answer to a request that was performed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Performed; nothing to tell.
    Done,
    /// To `Hello`.
    Hello {
        /// [`PROTOCOL_VERSION`] of the helper.
        version: u32,
        /// Process id of the helper, in the host's pid namespace.
        pid: u32,
        /// Number of user ids that sandboxes can map: 1, or with subuids 65,536 or so.
        mapped_ids: u32,
        /// Endpoints are held to their own addresses; `false`: the kernel lacks nftables for
        /// bridges.
        anti_spoofing: bool,
        /// Descriptor of the router netns in the helper: `/proc/HELPER/fd/N`.
        router_netns_fd: i32,
    },
    /// To `CreateSandbox` with a process, and to `Exec`.
    Created {
        /// Process id in the host's pid namespace.
        pid: u32,
    },
    /// To `CreateSandbox` without a process.
    Bare {
        /// Descriptor of its network namespace in the helper: `/proc/HELPER/fd/N`.
        netns_fd: i32,
    },
    /// To `Inventory`.
    Inventory(Box<Inventory>),
    /// To `Unsent`.
    Unsent {
        /// How many sockets.
        sockets: u32,
    },
    /// To `Counters`.
    Counters {
        /// Sorted by address and port.
        ports: Vec<PortCount>,
    },
}

/// What one published port has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCount {
    /// Where it listens, as `*:8080/tcp`.
    pub listener: String,
    /// Connections, or UDP clients, that reached the container.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub accepted: u64,
    /// Those that did not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refused: u64,
    /// Bytes from clients.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_in: u64,
    /// Bytes to clients.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_out: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Everything the helper holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// Sandboxes and exec'd processes, live or exited and not yet forgotten; bare sandboxes too.
    pub processes: Vec<ProcessInfo>,
    /// Bridges in the router netns, without those that only extend another.
    pub bridges: Vec<IfName>,
    /// Router sides of veth pairs, each with its bridge: the one that `Attach` named.
    pub endpoints: Vec<(IfName, Option<IfName>)>,
    /// Process id of the relay, if it runs.
    pub relay_pid: Option<u32>,
    /// External uplinks that run; `Kernel` where its link is there.
    pub uplinks: Vec<UplinkKind>,
    /// Keys of the listening sockets that it keeps.
    #[serde(default)]
    pub listeners: Vec<String>,
}

/// One process that the helper started for the daemon, or a bare sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Sandbox or exec id.
    pub id: SandboxId,
    /// For an exec'd process, the sandbox it runs in.
    pub exec_in: Option<SandboxId>,
    /// Process id in the host's pid namespace; 0 for a bare sandbox.
    pub pid: u32,
    /// What became of it; a bare sandbox is `Running` until it is forgotten.
    pub state: ProcessState,
    /// For a bare sandbox, the descriptor of its network namespace in the helper.
    pub netns_fd: Option<i32>,
}

/// What became of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// Made, waiting for `StartSandbox`.
    Created,
    /// Runs.
    Running,
    /// Ended.
    Exited(ExitStatus),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// By exit(2), 0 to 255.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl ExitStatus {
    /// As a shell reports it: the code, or 128 + the signal.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Something that happened by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A sandbox's first process or an exec'd process ended.
    Exited {
        /// Sandbox or exec id.
        id: SandboxId,
        /// How.
        status: ExitStatus,
    },
    /// The relay ended unexpectedly and was started again with the last snapshot.
    RelayRestarted {
        /// How the previous one ended.
        status: ExitStatus,
    },
    /// An external uplink ended unexpectedly.
    UplinkExited {
        /// Which.
        kind: UplinkKind,
        /// How.
        status: ExitStatus,
    },
}
