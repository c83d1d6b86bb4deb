//! Published ports in the API: the words of `-p` as text, listings with Docker-like names.

pub use crate::ports::{
    HostAddr, HostLoopback, HostPorts, Port, PortError, PortRange, PortSet, Proto, PublishSpec,
    SourceAddress,
};

use crate::ports::Published;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// `POST /v1/sandboxes/{sandbox}/ports`, and part of a `SandboxCreate`: what to publish.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortsPublish {
    /// Each as `[IP:][HOSTPORT:]CONTAINERPORT[/PROTO]`, with ranges.
    #[serde(default)]
    pub ports: Vec<PublishSpec>,
    /// Whom the container takes its clients for.
    #[serde(default)]
    pub source_address: SourceAddress,
    /// Ports without an address are published on the addresses that this interface has now.
    #[serde(default)]
    pub interface: Option<String>,
}

/// `DELETE /v1/sandboxes/{sandbox}/ports`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortsRemove {
    /// Written as for publishing; without an address: at every one; without host ports: all that
    /// lead to these container ports.
    pub ports: Vec<PublishSpec>,
}

/// A published port, or as many in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortInfo {
    /// `*` for every address of both families.
    pub host_address: HostAddr,
    /// One, or a range.
    pub host_ports: PortRange,
    /// What they lead to, in order.
    pub container_ports: PortRange,
    /// tcp or udp.
    pub protocol: Proto,
    /// Whom the container takes its clients for.
    pub source_address: SourceAddress,
}

impl PortInfo {
    /// From its record.
    pub fn of(published: &Published) -> Self {
        let publish = &published.publish;
        Self {
            host_address: publish.host_addr(),
            host_ports: publish.host_ports(),
            container_ports: publish.container_ports(),
            protocol: publish.proto(),
            source_address: publish.source(),
        }
    }

    /// The host's addresses as users read them, in brackets where they need them.
    pub fn addresses(&self) -> Vec<String> {
        let shown = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        self.host_address.addresses().iter().map(shown).collect()
    }
}

/// An element of `GET /v1/sandboxes/{sandbox}/ports`: the sums over all ports of a range, since they
/// were published or the relay was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortStatus {
    /// Which.
    #[serde(flatten)]
    pub port: PortInfo,
    /// Connections, or UDP clients, that reached the container.
    pub accepted: u64,
    /// Those that did not: it refused, or did not answer.
    pub refused: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}

impl PortStatus {
    /// Nothing seen yet.
    pub fn of(published: &Published) -> Self {
        Self {
            port: PortInfo::of(published),
            accepted: 0,
            refused: 0,
            bytes_in: 0,
            bytes_out: 0,
        }
    }
}

/// `GET /v1/sandboxes/{sandbox}/ports/total`: the sums over all ports that a sandbox publishes now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortsTotal {
    /// Connections, or UDP clients, that reached the container.
    pub accepted: u64,
    /// Those that did not.
    pub refused: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}

impl PortsTotal {
    /// Of these.
    pub fn of(ports: &[PortStatus]) -> Self {
        let add = |sum: Self, port: &PortStatus| Self {
            accepted: sum.accepted.saturating_add(port.accepted),
            refused: sum.refused.saturating_add(port.refused),
            bytes_in: sum.bytes_in.saturating_add(port.bytes_in),
            bytes_out: sum.bytes_out.saturating_add(port.bytes_out),
        };
        ports.iter().fold(Self::default(), add)
    }
}
