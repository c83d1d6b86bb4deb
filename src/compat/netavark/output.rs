//! What podman reads from standard output: one entry for each network, or an error.
//!
//! Nothing here but what every version of podman decodes. Source: go.podman.io/common
//! `libnetwork/types` (StatusBlock); what netavark 1.4 itself writes (`fixtures/`).

use ipnet::IpNet;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// By name of the network.
pub type Status = BTreeMap<String, StatusBlock>;

/// One network of a container that is connected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StatusBlock {
    /// For the container's resolv.conf.
    pub dns_search_domains: Vec<String>,
    /// For the container's resolv.conf.
    pub dns_server_ips: Vec<IpAddr>,
    /// By name in the container.
    pub interfaces: BTreeMap<String, Interface>,
}

/// An interface of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// MAC address.
    pub mac_address: String,
    /// Addresses.
    pub subnets: Vec<Address>,
}

/// An address, with whom it is reached by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Address {
    /// Address of the bridge.
    pub gateway: Option<IpAddr>,
    /// Address, and length of the prefix.
    pub ipnet: IpNet,
}

/// What stands on standard output instead, with exit code 1.
#[derive(Debug, Serialize)]
pub struct ErrorReport {
    /// On one line.
    pub error: String,
}

/// `version`.
#[derive(Debug, Serialize)]
pub struct Version {
    /// Which of netavark's protocols is spoken, for those who compare versions.
    pub version: &'static str,
    /// What this is.
    pub commit: String,
    /// For podman info(1).
    pub build_time: &'static str,
    /// Architecture and system.
    pub target: String,
    /// Who translates addresses.
    pub default_fw_driver: &'static str,
}
