//! `network graph`: sandboxes, networks, addresses and published ports in one picture.
//!
//! What the daemon tells becomes a [`Picture`], sorted; `text`, `dot`, `mermaid` and `svg` write it
//! down. Invariant: the same networks and sandboxes give the same bytes, and no name or label can
//! become markup.

mod dot;
mod mermaid;
mod svg;
mod text;

use super::ports;
use crate::api::network_types::NetworkInfo;
use crate::api::types::{SandboxInfo, SandboxState, Uplink};
use clap::ValueEnum;

/// How to draw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// A tree for the terminal.
    Text,
    /// For graphviz.
    Dot,
    /// For Markdown.
    Mermaid,
    /// For a browser.
    Svg,
}

/// The picture's text.
pub(super) fn draw(
    networks: &[NetworkInfo],
    sandboxes: &[SandboxInfo],
    format: GraphFormat,
) -> String {
    let picture = Picture::of(networks, sandboxes);
    match format {
        GraphFormat::Text => text::draw(&picture),
        GraphFormat::Dot => dot::draw(&picture),
        GraphFormat::Mermaid => mermaid::draw(&picture),
        GraphFormat::Svg => svg::draw(&picture),
    }
}

/// Everything that is to be seen.
struct Picture {
    /// By name, `bridge` first.
    networks: Vec<Network>,
    /// By name.
    boxes: Vec<Sandbox>,
}

struct Network {
    name: String,
    prefixes: Vec<Prefix>,
    /// How traffic leaves; `None`: not at all.
    way_out: Option<&'static str>,
    /// In order of `Picture::boxes`.
    members: Vec<Member>,
}

struct Prefix {
    subnet: String,
    gateway: String,
}

/// An endpoint; without name of an interface where the sandbox does not run.
struct Member {
    /// Index in `Picture::boxes`.
    sandbox: usize,
    ifname: Option<String>,
    addresses: Vec<String>,
    aliases: Vec<String>,
}

/// A sandbox.
struct Sandbox {
    name: String,
    runs: bool,
    /// What it has instead of networks.
    instead: Option<Instead>,
    /// `0.0.0.0:8080->80/tcp`.
    publishes: Vec<String>,
    /// `db as store`.
    links: Vec<Linked>,
}

enum Instead {
    Nothing,
    Host,
    /// The network namespace of this sandbox.
    Of(String),
}

struct Linked {
    /// Name of the sandbox that is linked to.
    name: String,
    alias: Option<String>,
}

impl Linked {
    fn shown(&self) -> String {
        match &self.alias {
            Some(alias) => format!("{} as {alias}", self.name),
            None => self.name.clone(),
        }
    }
}

impl Picture {
    fn of(networks: &[NetworkInfo], sandboxes: &[SandboxInfo]) -> Self {
        let mut sandboxes: Vec<&SandboxInfo> = sandboxes.iter().collect();
        sandboxes.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        let mut networks: Vec<&NetworkInfo> = networks
            .iter()
            .filter(|network| network.driver == "bridge")
            .collect();
        networks.sort_by_key(|network| (network.name != "bridge", &network.name));
        Self {
            networks: networks
                .into_iter()
                .map(|network| Network::of(network, &sandboxes))
                .collect(),
            boxes: sandboxes.into_iter().map(Sandbox::of).collect(),
        }
    }

    fn sandbox(&self, member: &Member) -> &str {
        self.boxes.get(member.sandbox).map_or("", |b| &b.name)
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.boxes.iter().position(|sandbox| sandbox.name == name)
    }
}

impl Network {
    fn of(network: &NetworkInfo, sandboxes: &[&SandboxInfo]) -> Self {
        let way_out = match network.uplink {
            _ if network.internal => None,
            Uplink::Relay => Some("relay"),
            Uplink::Pasta => Some("pasta"),
            Uplink::Slirp => Some("slirp"),
            Uplink::Kernel => Some("kernel"),
            Uplink::None => None,
        };
        let prefixes = network.ipam.config.iter().map(|config| Prefix {
            subnet: config.subnet.to_string(),
            gateway: config.gateway.to_string(),
        });
        let members = sandboxes.iter().enumerate();
        Self {
            name: network.name.clone(),
            prefixes: prefixes.collect(),
            way_out,
            members: members
                .filter_map(|(index, sandbox)| Member::of(&network.name, index, sandbox))
                .collect(),
        }
    }
}

impl Member {
    fn of(network: &str, index: usize, sandbox: &SandboxInfo) -> Option<Self> {
        let endpoint = sandbox.endpoints.iter().find(|e| e.network == network);
        let Some(endpoint) = endpoint else {
            let joins = sandbox.networks.iter().any(|name| name == network);
            return joins.then(|| Self {
                sandbox: index,
                ifname: None,
                addresses: Vec::new(),
                aliases: Vec::new(),
            });
        };
        let addresses = endpoint.addresses.iter();
        Some(Self {
            sandbox: index,
            ifname: Some(endpoint.ifname.clone()),
            addresses: addresses.map(|net| net.addr().to_string()).collect(),
            aliases: endpoint.aliases.clone(),
        })
    }
}

impl Sandbox {
    fn of(sandbox: &SandboxInfo) -> Self {
        let instead = match sandbox.network_mode.as_str() {
            _ if !sandbox.networks.is_empty() || !sandbox.endpoints.is_empty() => None,
            "host" => Some(Instead::Host),
            mode => Some(match mode.strip_prefix("container:") {
                Some(other) => Instead::Of(other.to_owned()),
                None => Instead::Nothing,
            }),
        };
        let links = sandbox.links.iter().map(|link| Linked {
            name: link.name.clone(),
            alias: link.alias.clone(),
        });
        Self {
            name: sandbox.name.clone(),
            runs: sandbox.state == SandboxState::Running,
            instead,
            publishes: ports::shown(&sandbox.ports),
            links: links.collect(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
