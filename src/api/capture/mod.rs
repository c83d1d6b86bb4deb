//! `capture`: frames of a sandbox's endpoints, or of a network, as lines or as a file.
//!
//! The CLI's own process enters the router netns (`enter`), opens the sockets, and drops every capability
//! before it reads a frame: nothing of mossnet's is in the way of a packet, captured or not. `filter`:
//! what the kernel leaves out. `summary`, `pcapng`: the two forms. `output`: where they go.
//!
//! Invariant: one thread until the namespaces are entered; no file is touched before the sockets are open.

pub mod filter;
mod output;
mod pcapng;
mod run;
mod summary;

pub use run::{Job, PacketFile, Tally, run, run_here};

use super::enter::EnterError;
use super::network_types::NetworkInfo;
use super::types::{SandboxInfo, SandboxState};
use crate::error::EXIT_FAILURE;
use crate::sys::capture::MAX_SNAPLEN;
use std::io;
use std::path::PathBuf;

/// Most bytes that can be kept of a packet.
pub const MOST_BYTES: u32 = MAX_SNAPLEN;

/// Why nothing is captured, or no more.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A sandbox without endpoints, since it does not run.
    #[error("sandbox '{0}' does not run")]
    NotRunning(String),
    /// A sandbox in another's namespace.
    #[error("sandbox '{name}' has no interfaces of its own: it shares those of '{other}'")]
    Shares {
        /// It.
        name: String,
        /// The other.
        other: String,
    },
    /// A sandbox in the host's namespace.
    #[error("sandbox '{0}' is in the host's network, which is not mossnet's to look into")]
    OnHost(String),
    /// A sandbox with loopback only.
    #[error("sandbox '{0}' is on no network")]
    NoNetwork(String),
    /// `--network` of another one.
    #[error("sandbox '{name}' is not on network '{network}'")]
    NotOn {
        /// The sandbox.
        name: String,
        /// The network.
        network: String,
    },
    /// `host` or `none`.
    #[error("network '{0}' has no bridge")]
    NoBridge(String),
    /// Its bridge is made when the first sandbox comes.
    #[error("nobody is on network '{0}'")]
    Empty(String),
    /// The namespaces could not be entered.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// The socket of an interface.
    #[error("capture on {interface}")]
    Open {
        /// Its name in the router netns.
        interface: String,
        /// Why.
        source: io::Error,
    },
    /// Capabilities could not be given up.
    #[error("give up the capabilities over the networks")]
    Privileges(#[source] io::Error),
    /// The file.
    #[error("open {}", path.display())]
    File {
        /// It.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The output failed.
    #[error("write what was captured")]
    Write(#[source] io::Error),
    /// Waiting failed.
    #[error("wait for packets")]
    Wait(#[source] io::Error),
}

impl CaptureError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotRunning(name) => Some(format!("mossnet start {name}")),
            Self::Shares { other, .. } => Some(format!("mossnet capture {other}")),
            Self::OnHost(_) => Some("tcpdump, as root, sees the host's interfaces".to_owned()),
            Self::NotOn { name, .. } | Self::NoNetwork(name) => {
                Some(format!("mossnet inspect {name} shows its endpoints"))
            }
            Self::NoBridge(_) => Some("mossnet network ls shows those that have one".to_owned()),
            Self::Empty(name) => Some(format!("mossnet run --network {name} puts somebody there")),
            Self::Enter(error) => error.hint().map(str::to_owned),
            Self::Open { .. }
            | Self::Privileges(_)
            | Self::File { .. }
            | Self::Write(_)
            | Self::Wait(_) => None,
        }
    }

    /// 125 where mossnet itself is at fault.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Enter(_) => EXIT_FAILURE,
            _ => 1,
        }
    }
}

/// What is captured on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Name in the router netns.
    pub router_name: String,
    /// Name as the user knows it: that in the sandbox, or the bridge's.
    pub shown: String,
    /// Whose it is.
    pub description: String,
    /// A sandbox's: what the router's end of the pair sends is what it receives.
    pub endpoint: bool,
}

/// The endpoints of a sandbox; those on `networks` only, where there are any.
pub fn of_sandbox(
    sandbox: &SandboxInfo,
    networks: &[String],
) -> Result<Vec<Interface>, CaptureError> {
    let name = || sandbox.name.clone();
    if let Some(other) = sandbox.network_mode.strip_prefix("container:") {
        let other = other.to_owned();
        return Err(CaptureError::Shares {
            name: name(),
            other,
        });
    }
    if sandbox.network_mode == "host" {
        return Err(CaptureError::OnHost(name()));
    }
    for network in networks {
        let on = |endpoint: &super::types::EndpointInfo| endpoint.network == *network;
        if !sandbox.endpoints.iter().any(on) && sandbox.state != SandboxState::Exited {
            let network = network.clone();
            return Err(CaptureError::NotOn {
                name: name(),
                network,
            });
        }
    }
    if sandbox.endpoints.is_empty() {
        return Err(match sandbox.state {
            SandboxState::Exited => CaptureError::NotRunning(name()),
            SandboxState::Created | SandboxState::Running => CaptureError::NoNetwork(name()),
        });
    }
    let wanted = |network| networks.is_empty() || networks.contains(network);
    let endpoints = sandbox.endpoints.iter().filter(|e| wanted(&e.network));
    Ok(endpoints
        .map(|endpoint| Interface {
            router_name: endpoint.router_ifname.clone(),
            shown: endpoint.ifname.clone(),
            description: format!("{} on {}", sandbox.name, endpoint.network),
            endpoint: true,
        })
        .collect())
}

/// The bridge of a network. Those that extend it are found in the router netns.
pub fn of_network(network: &NetworkInfo) -> Result<Vec<Interface>, CaptureError> {
    let Some(bridge) = &network.bridge else {
        return Err(CaptureError::NoBridge(network.name.clone()));
    };
    if network.containers.is_empty() {
        return Err(CaptureError::Empty(network.name.clone()));
    }
    Ok(vec![Interface {
        router_name: bridge.clone(),
        shown: network.name.clone(),
        description: format!("network {}", network.name),
        endpoint: false,
    }])
}
