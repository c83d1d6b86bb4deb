//! The host's loopback as sandboxes know it: which address it has, who may reach it, how far. Pure.
//!
//! One address of each family stands for 127.0.0.1 and ::1, the same on every network, so that it
//! can be written anywhere. Neither is an address of the router netns: packets to them take the way
//! of all others, to the relay, which connects to the loopback in the host netns instead.
//!
//! Who may: a sandbox that was made so, or that is on a network made so. It may from each of its
//! addresses on networks that lead out by the relay, since it is the default route that decides
//! which one its packets bear. An internal network never opens anything.
//!
//! Sources: RFC 3927 §2.7 (link-local IPv4 addresses are never forwarded by others), RFC 4193 §3.2.2
//! (a global id drawn at random), RFC 6724 §2.1 (IPv4 is tried before a ULA).

use super::model::{Endpoint, Network};
use super::resolv::HOST_ALIASES;
use super::sandbox::Sandbox;
use super::snapshot::HostLoopbackView;
use ipnet::IpNet;
use mossnet_helper::SandboxId;
use mossnet_helper::request::UplinkKind;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Stands for 127.0.0.1. Of the link between router netns and relay, which is nobody's to reach.
pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 77);
/// Stands for ::1. No network can have its prefix.
pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfd8d, 0x5ead, 0xb037, 0, 0, 0, 0, 0x77);

/// What an address stands for, if it is one of the two.
pub fn loopback_behind(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(HOST_V4) => Some(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(HOST_V6) => Some(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// Where a line of `/etc/hosts` leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostTarget {
    /// There.
    Address(IpAddr),
    /// To the host, as Docker's `host-gateway`.
    HostGateway,
}

const HOST_GATEWAY: &str = "host-gateway";

impl FromStr for HostTarget {
    type Err = std::net::AddrParseError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            HOST_GATEWAY => Ok(Self::HostGateway),
            address => address.parse().map(Self::Address),
        }
    }
}

impl fmt::Display for HostTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::HostGateway => f.write_str(HOST_GATEWAY),
        }
    }
}

impl TryFrom<String> for HostTarget {
    type Error = std::net::AddrParseError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HostTarget> for String {
    fn from(target: HostTarget) -> Self {
        target.to_string()
    }
}

/// Why nothing is open through a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// It has no way out.
    Internal,
    /// Its traffic leaves by something that cannot tell its senders apart, or not at all.
    Uplink(UplinkKind),
}

/// Whether the host's loopback can be reached through a network, were it open.
pub fn leads_to_host(internal: bool, uplink: UplinkKind) -> Result<(), Closed> {
    match uplink {
        _ if internal => Err(Closed::Internal),
        UplinkKind::Relay => Ok(()),
        UplinkKind::Pasta | UplinkKind::Slirp | UplinkKind::Kernel | UplinkKind::None => {
            Err(Closed::Uplink(uplink))
        }
    }
}

fn leads(network: &Network) -> bool {
    leads_to_host(network.internal, network.uplink).is_ok()
}

/// What the relay is told of a sandbox: nothing where nothing is open to it, or where it has no
/// address that leads there. `find` knows networks by identity.
pub fn view<'a>(
    sandbox: &Sandbox,
    find: impl Fn(&SandboxId) -> Option<&'a Network>,
) -> Option<HostLoopbackView> {
    if !sandbox.is_live() {
        return None;
    }
    let mut open = sandbox.host_loopback.clone();
    let (mut sources, mut others) = (Vec::new(), Vec::new());
    for endpoint in &sandbox.endpoints {
        let network = find(&endpoint.network).filter(|network| leads(network));
        if let Some(by_network) = network.and_then(|network| network.host_loopback.as_ref()) {
            let wider = open.map_or_else(|| by_network.clone(), |open| open.union(by_network));
            open = Some(wider);
        }
        for address in endpoint.addresses.iter().map(IpNet::addr) {
            if network.is_some() && has_gateway(endpoint, address) {
                sources.push(address);
            } else {
                others.push(address);
            }
        }
    }
    Some(HostLoopbackView {
        sandbox: sandbox.name.to_string(),
        open: open.filter(|_| !sources.is_empty())?,
        sources,
        others,
    })
}

/// Without a gateway of its family nothing leaves from an address.
fn has_gateway(endpoint: &Endpoint, address: IpAddr) -> bool {
    let mut gateways = endpoint.gateways.iter();
    gateways.any(|gateway| gateway.is_ipv4() == address.is_ipv4())
}

impl HostLoopbackView {
    /// The addresses by which the sandbox knows the host.
    pub fn host_addresses(&self) -> Vec<IpAddr> {
        let both = [IpAddr::V4(HOST_V4), IpAddr::V6(HOST_V6)].into_iter();
        let reached = |host: &IpAddr| {
            let mut sources = self.sources.iter();
            sources.any(|source| source.is_ipv4() == host.is_ipv4())
        };
        both.filter(reached).collect()
    }

    /// Its lines of `/etc/hosts` for the host's names.
    pub fn hosts_lines(&self) -> Vec<(IpAddr, Vec<String>)> {
        let names = HOST_ALIASES.map(str::to_owned).to_vec();
        let addresses = self.host_addresses().into_iter();
        addresses.map(|host| (host, names.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::model::samples;
    use crate::ports::HostLoopback;

    /// An open network, a quiet one, an internal one that claims to be open.
    fn networks() -> [Network; 3] {
        let mut open = samples::network("open", 1, "10.89.1.0/24");
        open.host_loopback = Some("80".to_owned().try_into().unwrap());
        let quiet = samples::network("quiet", 2, "10.89.2.0/24");
        let mut inner = samples::network("inner", 3, "10.89.3.0/24");
        (inner.internal, inner.host_loopback) = (true, Some(HostLoopback::All));
        [open, quiet, inner]
    }

    fn seen(sandbox: &Sandbox, networks: &[Network]) -> Option<(String, Vec<String>, usize)> {
        let view = view(sandbox, |id| networks.iter().find(|n| n.id == *id))?;
        let sources = view.sources.iter().map(IpAddr::to_string).collect();
        Some((view.open.to_string(), sources, view.others.len()))
    }

    #[test]
    fn networks_open_for_whoever_is_on_them() {
        let networks = networks();
        let [open, quiet, inner] = &networks;
        let on_open = samples::sandbox("a", 0x21, open, "10.89.1.2/24");
        let expected = ("80".to_owned(), vec!["10.89.1.2".to_owned()], 0);
        assert_eq!(seen(&on_open, &networks), Some(expected));
        let on_quiet = samples::sandbox("b", 0x22, quiet, "10.89.2.2/24");
        assert_eq!(seen(&on_quiet, &networks), None);
        let on_inner = samples::sandbox("c", 0x23, inner, "10.89.3.2/24");
        assert_eq!(seen(&on_inner, &networks), None);
        let mut ended = on_open.clone();
        ended.phase = crate::network::SandboxPhase::Exited {
            started: None,
            finished: 9,
            code: 0,
        };
        assert_eq!(seen(&ended, &networks), None);
    }

    #[test]
    fn a_sandbox_may_from_all_its_addresses_that_lead_out() {
        let networks = networks();
        let [open, quiet, inner] = &networks;
        let mut web = samples::sandbox("web", 0x21, quiet, "10.89.2.2/24");
        web.host_loopback = Some("53/udp".to_owned().try_into().unwrap());
        web.endpoints
            .push(samples::endpoint(0x72, inner, "10.89.3.2/24", 1));
        let expected = ("53/udp".to_owned(), vec!["10.89.2.2".to_owned()], 1);
        assert_eq!(seen(&web, &networks), Some(expected));
        web.endpoints
            .push(samples::endpoint(0x73, open, "10.89.1.2/24", 2));
        let sources = ["10.89.2.2", "10.89.1.2"].map(str::to_owned).to_vec();
        let expected = ("80,53/udp".to_owned(), sources, 1);
        assert_eq!(seen(&web, &networks), Some(expected));
        web.endpoints.retain(|e| e.network == inner.id);
        assert_eq!(seen(&web, &networks), None, "internal networks only");
    }

    #[test]
    fn only_the_relay_leads_there() {
        let [_, quiet, _] = networks();
        let mut web = samples::sandbox("web", 0x21, &quiet, "10.89.2.2/24");
        web.host_loopback = Some(HostLoopback::All);
        for (uplink, leads) in [
            (UplinkKind::Relay, true),
            (UplinkKind::Pasta, false),
            (UplinkKind::Slirp, false),
            (UplinkKind::Kernel, false),
            (UplinkKind::None, false),
        ] {
            let mut network = quiet.clone();
            network.uplink = uplink;
            assert_eq!(seen(&web, &[network]).is_some(), leads, "{uplink:?}");
        }
    }

    #[test]
    fn families_are_those_of_the_way_out() {
        let [_, quiet, _] = networks();
        let mut web = samples::sandbox("web", 0x21, &quiet, "10.89.2.2/24");
        web.host_loopback = Some(HostLoopback::All);
        let second = "fd00:2::2/64".parse().unwrap();
        web.endpoints[0].addresses.push(second);
        let networks = [quiet];
        let hosts = |web: &Sandbox| {
            let view = view(web, |id| networks.iter().find(|n| n.id == *id)).unwrap();
            view.host_addresses()
        };
        assert_eq!(hosts(&web), [IpAddr::V4(HOST_V4)], "no IPv6 gateway");
        web.endpoints[0].gateways.push("fd00:2::1".parse().unwrap());
        assert_eq!(hosts(&web), [IpAddr::V4(HOST_V4), IpAddr::V6(HOST_V6)]);
    }

    #[test]
    fn no_network_can_hold_the_hosts_addresses() {
        for address in [IpAddr::V4(HOST_V4), IpAddr::V6(HOST_V6)] {
            for length in [12, 24, 30] {
                let prefix = IpNet::new(address, length).unwrap().trunc();
                assert!(super::super::Subnet::try_from(prefix).is_err(), "{prefix}");
            }
            assert!(loopback_behind(address).unwrap().is_loopback());
        }
        assert_eq!(loopback_behind("169.254.77.1".parse().unwrap()), None);
    }

    #[test]
    fn lines_of_hosts_are_read_as_they_were() {
        let old = r#"["db","10.0.0.1"]"#;
        let line: (String, HostTarget) = serde_json::from_str(old).unwrap();
        assert_eq!(serde_json::to_string(&line).unwrap(), old);
        assert_eq!(line.1, HostTarget::Address([10, 0, 0, 1].into()));
        assert_eq!("host-gateway".parse(), Ok(HostTarget::HostGateway));
        assert!("host".parse::<HostTarget>().is_err());
    }
}
