//! Sandboxes: what runs in them, which networks they join, where they are in their life.
//!
//! Invariant: `attachments` say where a sandbox wants to be and outlive its run; `endpoints` say
//! where it is. A live sandbox has an endpoint for each attachment, in the same order.

use super::host_loopback::HostTarget;
use super::model::{Attachment, Endpoint, Millis};
use super::names::{NetworkName, SandboxName};
use crate::ports::{HostLoopback, Published};
use ipnet::IpNet;
use mossnet_helper::SandboxId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// `--network`, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkModeRecord {
    /// On networks, this one first.
    Network(NetworkName),
    /// Loopback only.
    None,
    /// The host's netns.
    Host,
    /// Another sandbox's netns, `/etc/hosts` and `/etc/resolv.conf`.
    Container {
        /// Whose.
        id: SandboxId,
        /// Its name then.
        name: SandboxName,
    },
}

impl fmt::Display for NetworkModeRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(name) => name.fmt(f),
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container { name, .. } => write!(f, "container:{name}"),
        }
    }
}

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxPhase {
    /// Recorded; perhaps not yet made, not started.
    Created,
    /// Its first process runs.
    Running {
        /// Since.
        started: Millis,
        /// Process id in the host's pid namespace.
        pid: u32,
    },
    /// Its first process ended, and its endpoints are gone.
    Exited {
        /// When it had started, if it had.
        started: Option<Millis>,
        /// When.
        finished: Millis,
        /// As a shell reports it.
        code: i32,
    },
}

/// A run that has ended, of a sandbox that is being started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerRun {
    /// When it had started, if it had.
    pub started: Option<Millis>,
    /// When it ended.
    pub finished: Millis,
    /// As a shell reports it.
    pub code: i32,
}

/// A process, told from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// In the host's pid namespace.
    pub pid: u32,
    /// When it started, in clock ticks since boot (proc_pid_stat(5)).
    pub started: u64,
}

/// The network namespace of a sandbox is another runtime's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The sandbox goes when this process has ended.
    pub ends_with: Option<ProcessRef>,
}

/// Another sandbox that one knows by name, wherever it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    /// Its name.
    pub name: SandboxName,
    /// A further name for it.
    pub alias: Option<String>,
}

/// A container's namespaces and what runs in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Identity.
    pub id: SandboxId,
    /// Name, unique.
    pub name: SandboxName,
    /// The user chose the name, so its addresses are remembered by it.
    pub name_chosen: bool,
    /// UTS host name.
    pub hostname: String,
    /// Command and arguments.
    pub command: Vec<String>,
    /// Whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub workdir: Option<PathBuf>,
    /// Root directory where not the caller's.
    pub rootfs: Option<PathBuf>,
    /// Bounding set.
    pub capabilities: Vec<String>,
    /// Its stdin stays open where nobody is attached.
    #[serde(default)]
    pub interactive: bool,
    /// Has a terminal.
    pub tty: bool,
    /// Output goes to the log.
    pub detached: bool,
    /// Removed when it ends.
    pub auto_remove: bool,
    /// Its netns.
    pub mode: NetworkModeRecord,
    /// Networks that it joins whenever it runs, in order.
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    /// In order of attachment; empty once it has exited.
    pub endpoints: Vec<Endpoint>,
    /// Sandboxes that it knows by name.
    #[serde(default)]
    pub links: Vec<LinkRecord>,
    /// Its ports on the host, bound whenever it lives and is on a network.
    #[serde(default)]
    pub publishes: Vec<Published>,
    /// How far the host's loopback is open to it, whatever its networks say.
    #[serde(default)]
    pub host_loopback: Option<HostLoopback>,
    /// Resolvers instead of its networks'.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Search domains instead of the host's.
    #[serde(default)]
    pub dns_search: Vec<String>,
    /// Lines of its `/etc/hosts`.
    #[serde(default)]
    pub add_host: Vec<(String, HostTarget)>,
    /// Without a process: a network namespace with endpoints.
    #[serde(default)]
    pub bare: bool,
    /// A bare one whose network namespace is another runtime's.
    #[serde(default)]
    pub adopted: Option<Adopted>,
    /// While it is being started again: what it goes back to if that fails.
    #[serde(default)]
    pub former: Option<FormerRun>,
    /// When it was recorded.
    pub created: Millis,
    /// Where it is in its life.
    pub phase: SandboxPhase,
}

impl Sandbox {
    /// Runs, or is about to.
    pub fn is_live(&self) -> bool {
        match self.phase {
            SandboxPhase::Created | SandboxPhase::Running { .. } => true,
            SandboxPhase::Exited { .. } => false,
        }
    }

    /// Marks the end of its first process; a second end changes nothing.
    pub fn exit(&mut self, finished: Millis, code: i32) {
        let started = match self.phase {
            SandboxPhase::Created => None,
            SandboxPhase::Running { started, .. } => Some(started),
            SandboxPhase::Exited { .. } => return,
        };
        self.end(FormerRun {
            started,
            finished,
            code,
        });
    }

    /// Makes it one that is started again; `None` where it has not ended.
    pub fn revive(&mut self) -> Option<()> {
        let SandboxPhase::Exited {
            started,
            finished,
            code,
        } = self.phase
        else {
            return None;
        };
        self.former = Some(FormerRun {
            started,
            finished,
            code,
        });
        self.phase = SandboxPhase::Created;
        // Nobody is there to give it other streams.
        self.detached = true;
        Some(())
    }

    /// Makes it what it was before it was to be started again; `None` where it never ran.
    pub fn lay_down(&mut self) -> Option<FormerRun> {
        let former = self.former?;
        self.end(former);
        Some(former)
    }

    fn end(&mut self, run: FormerRun) {
        let FormerRun {
            started,
            finished,
            code,
        } = run;
        self.phase = SandboxPhase::Exited {
            started,
            finished,
            code,
        };
        self.former = None;
        for endpoint in self.endpoints.drain(..) {
            let of = |a: &&mut Attachment| a.network == endpoint.network;
            if let Some(attachment) = self.attachments.iter_mut().find(of) {
                attachment.last = endpoint.addresses.iter().map(IpNet::addr).collect();
            }
        }
    }

    /// Its endpoint on a network.
    pub fn endpoint_on(&self, network: &SandboxId) -> Option<&Endpoint> {
        self.endpoints.iter().find(|e| e.network == *network)
    }

    /// All addresses, in order of attachment.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let addresses = self.endpoints.iter().flat_map(|e| &e.addresses);
        addresses.map(IpNet::addr)
    }

    /// Every name under which peers find this endpoint of it, each once, in lower case.
    pub fn names_at(&self, endpoint: &Endpoint) -> Vec<String> {
        let own = [self.name.as_str(), self.id.short(), self.hostname.as_str()];
        let aliases = endpoint.aliases.iter().map(String::as_str);
        let mut names: Vec<String> = Vec::with_capacity(3);
        for name in own.into_iter().chain(aliases) {
            let name = name.trim_end_matches('.');
            if !names.iter().any(|had| had.eq_ignore_ascii_case(name)) {
                names.push(name.to_ascii_lowercase());
            }
        }
        names
    }

    /// Records of earlier versions say only where the sandbox is, not where it wants to be.
    pub fn with_attachments(mut self) -> Self {
        if self.attachments.is_empty() {
            let of = |endpoint: &Endpoint| Attachment {
                network: endpoint.network.clone(),
                network_name: endpoint.network_name.clone(),
                addresses: Vec::new(),
                mac: None,
                aliases: endpoint.aliases.clone(),
                ifname: None,
                gw_priority: endpoint.gw_priority,
                bandwidth: endpoint.bandwidth,
                last: Vec::new(),
            };
            self.attachments = self.endpoints.iter().map(of).collect();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::model::samples;

    #[test]
    fn the_end_keeps_what_is_needed_to_start_again() {
        let network = samples::network("mynet", 1, "10.89.3.0/24");
        let mut web = samples::sandbox("web", 2, &network, "10.89.3.2/24");
        assert!(web.clone().lay_down().is_none());
        assert!(web.revive().is_none(), "it has not ended");
        web.exit(9, 3);
        assert!(web.endpoints.is_empty());
        assert_eq!(
            web.attachments[0].last,
            ["10.89.3.2".parse::<IpAddr>().unwrap()]
        );
        let ended = web.clone();
        web.revive().unwrap();
        assert!(web.is_live());
        assert_eq!(web.lay_down().unwrap().code, 3);
        assert_eq!(web, ended);
    }

    #[test]
    fn records_of_the_first_format_are_read() {
        let network = samples::network("mynet", 1, "10.89.3.0/24");
        let web = samples::sandbox("web", 2, &network, "10.89.3.2/24");
        let mut old = serde_json::to_value(&web).unwrap();
        let fields = old.as_object_mut().unwrap();
        for new in [
            "attachments",
            "links",
            "publishes",
            "host_loopback",
            "dns",
            "dns_search",
            "add_host",
            "bare",
            "adopted",
            "former",
        ] {
            fields.remove(new);
        }
        for new in ["gw_priority", "internal", "named", "bandwidth"] {
            old["endpoints"][0].as_object_mut().unwrap().remove(new);
        }
        let read: Sandbox = serde_json::from_value(old).unwrap();
        let read = read.with_attachments();
        assert_eq!(read.attachments, web.attachments);
        assert_eq!(read.endpoints[0].addresses, web.endpoints[0].addresses);
    }

    #[test]
    fn names_of_an_endpoint_are_listed_once() {
        let network = samples::network("mynet", 1, "10.89.3.0/24");
        let mut web = samples::sandbox("Web", 2, &network, "10.89.3.2/24");
        web.hostname = "web".to_owned();
        web.endpoints[0].aliases = vec!["www".to_owned(), "WWW".to_owned()];
        let names = web.names_at(&web.endpoints[0]);
        assert_eq!(names, ["web", "020202020202", "www"]);
    }
}
