//! The words: ports, ranges, addresses, publishes.

use super::parse::PortError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::str::FromStr;

/// A port that can be connected to.
pub type Port = NonZeroU16;

/// Transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Where on the host a port is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostAddr {
    /// Every address of both families, by one socket.
    Any,
    /// One address, or with 0.0.0.0 or `::` every one of that family.
    Only(IpAddr),
}

impl HostAddr {
    /// Without IPv4 in IPv6 clothes.
    pub fn only(address: IpAddr) -> Self {
        Self::Only(address.to_canonical())
    }

    /// Whether a packet to `address` is for it.
    pub fn holds(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Only(own) if own.is_unspecified() => own.is_ipv4() == address.is_ipv4(),
            Self::Only(own) => own == address,
        }
    }

    /// Whether some packet is for both: two sockets cannot have one port then.
    pub fn overlaps(self, other: Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Only(a), Self::Only(b)) => self.holds(b) || other.holds(a),
        }
    }

    /// The addresses as users read them.
    pub fn addresses(self) -> Vec<IpAddr> {
        match self {
            Self::Any => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            Self::Only(address) => vec![address],
        }
    }
}

impl fmt::Display for HostAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Only(IpAddr::V4(address)) => address.fmt(f),
            Self::Only(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl FromStr for HostAddr {
    type Err = PortError;
    fn from_str(text: &str) -> Result<Self, PortError> {
        if text.is_empty() || text == "*" {
            return Ok(Self::Any);
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let address = bare.unwrap_or(text).parse::<IpAddr>();
        match address {
            // Brackets are for IPv6.
            Ok(address) if bare.is_none() || address.is_ipv6() => Ok(Self::only(address)),
            Ok(_) | Err(_) => Err(PortError::Address(text.to_owned())),
        }
    }
}

impl TryFrom<String> for HostAddr {
    type Error = PortError;
    fn try_from(text: String) -> Result<Self, PortError> {
        text.parse()
    }
}

impl From<HostAddr> for String {
    fn from(address: HostAddr) -> Self {
        address.to_string()
    }
}

/// Ports in a row: one at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: Port,
    last: Port,
}

impl PortRange {
    /// From `first` to `last`, which is not the smaller one.
    pub fn new(first: Port, last: Port) -> Result<Self, PortError> {
        if first > last {
            return Err(PortError::Backwards(first.get(), last.get()));
        }
        Ok(Self { first, last })
    }

    /// A single one.
    pub fn one(port: Port) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// The smallest.
    pub fn first(self) -> Port {
        self.first
    }

    /// The largest.
    pub fn last(self) -> Port {
        self.last
    }

    /// How many, 1 to 65,535.
    pub fn count(self) -> usize {
        usize::from(self.last.get() - self.first.get()) + 1
    }

    /// The port `offset` places after the first, if it is still one of them.
    pub fn nth(self, offset: u16) -> Option<Port> {
        let port = self.first.checked_add(offset)?;
        (port <= self.last).then_some(port)
    }

    /// How far after the first `port` is, if it is one of them.
    pub fn offset(self, port: Port) -> Option<u16> {
        (port <= self.last)
            .then(|| port.get().checked_sub(self.first.get()))
            .flatten()
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = Port> {
        (self.first.get()..=self.last.get()).filter_map(Port::new)
    }

    /// Whether they have a port in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Both in one, where no port lies between them.
    pub fn joined(self, other: Self) -> Option<Self> {
        let (low, high) = (self.min(other), self.max(other));
        let gap = low
            .last
            .checked_add(1)
            .is_some_and(|next| next < high.first);
        (!gap).then(|| Self {
            first: low.first,
            last: low.last.max(high.last),
        })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return self.first.fmt(f);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl TryFrom<String> for PortRange {
    type Error = PortError;
    fn try_from(text: String) -> Result<Self, PortError> {
        text.parse()
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

/// Whom a container takes its clients for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceAddress {
    /// The clients themselves, wherever that is possible.
    #[default]
    Keep,
    /// The network's gateway.
    Gateway,
}

impl FromStr for SourceAddress {
    type Err = PortError;
    fn from_str(text: &str) -> Result<Self, PortError> {
        match text {
            "keep" => Ok(Self::Keep),
            "gateway" => Ok(Self::Gateway),
            other => Err(PortError::Source(other.to_owned())),
        }
    }
}

/// Which host ports a wish is content with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostPorts {
    /// Any that is free, one for each container port.
    Free,
    /// One of these, for the single container port.
    OneOf(PortRange),
    /// These, in the order of the container ports.
    Each(PortRange),
}

/// What `-p` asks for. Built by parsing, which makes sure that the ranges fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublishSpec {
    pub(super) host_addr: HostAddr,
    pub(super) host_ports: HostPorts,
    pub(super) container_ports: PortRange,
    pub(super) proto: Proto,
}

impl PublishSpec {
    /// Any free port for each of `container_ports`: what `-P` does for an exposed one.
    pub fn exposed(container_ports: PortRange, proto: Proto) -> Self {
        Self {
            host_addr: HostAddr::Any,
            host_ports: HostPorts::Free,
            container_ports,
            proto,
        }
    }

    /// Where on the host.
    pub fn host_addr(&self) -> HostAddr {
        self.host_addr
    }

    /// By which of its ports.
    pub fn host_ports(&self) -> HostPorts {
        self.host_ports
    }

    /// What they lead to.
    pub fn container_ports(&self) -> PortRange {
        self.container_ports
    }

    /// By which protocol.
    pub fn proto(&self) -> Proto {
        self.proto
    }

    /// Fits for each container port the host ports that would do, best first: none of them where any
    /// free one does.
    pub fn expand(&self) -> impl Iterator<Item = (Port, Option<PortRange>)> {
        let hosts = self.host_ports;
        (0u16..)
            .zip(self.container_ports.iter())
            .map(move |(offset, container)| {
                let host = match hosts {
                    HostPorts::Free => None,
                    HostPorts::OneOf(range) => Some(range),
                    HostPorts::Each(range) => range.nth(offset).map(PortRange::one),
                };
                (container, host)
            })
    }

    /// The publish that it is where every host port is given; `None` where some must be chosen.
    pub fn fixed(&self, source: SourceAddress) -> Option<Publish> {
        let HostPorts::Each(host_ports) = self.host_ports else {
            return None;
        };
        Some(Publish {
            host_addr: self.host_addr,
            host_ports,
            container_port: self.container_ports.first(),
            proto: self.proto,
            source,
        })
    }
}

/// Host ports in a row that lead to as many container ports in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", deny_unknown_fields)]
pub struct Publish {
    pub(super) host_addr: HostAddr,
    pub(super) host_ports: PortRange,
    pub(super) container_port: Port,
    pub(super) proto: Proto,
    pub(super) source: SourceAddress,
}

/// As it may come from anywhere.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    host_addr: HostAddr,
    host_ports: PortRange,
    container_port: Port,
    proto: Proto,
    #[serde(default)]
    source: SourceAddress,
}

impl TryFrom<Unchecked> for Publish {
    type Error = PortError;
    fn try_from(publish: Unchecked) -> Result<Self, PortError> {
        Self::new(
            publish.host_addr,
            publish.host_ports,
            publish.container_port,
            publish.proto,
            publish.source,
        )
    }
}

impl Publish {
    /// The first of `host_ports` leads to `container_port`, the next one to the next.
    pub fn new(
        host_addr: HostAddr,
        host_ports: PortRange,
        container_port: Port,
        proto: Proto,
        source: SourceAddress,
    ) -> Result<Self, PortError> {
        let reach = usize::from(container_port.get()) + host_ports.count() - 1;
        if reach > usize::from(u16::MAX) {
            return Err(PortError::Beyond(container_port.get(), host_ports.count()));
        }
        Ok(Self {
            host_addr,
            host_ports,
            container_port,
            proto,
            source,
        })
    }

    /// Where on the host.
    pub fn host_addr(&self) -> HostAddr {
        self.host_addr
    }

    /// By which of its ports.
    pub fn host_ports(&self) -> PortRange {
        self.host_ports
    }

    /// By which protocol.
    pub fn proto(&self) -> Proto {
        self.proto
    }

    /// Whom the container takes its clients for.
    pub fn source(&self) -> SourceAddress {
        self.source
    }

    /// What the first host port leads to.
    pub fn container_port(&self) -> Port {
        self.container_port
    }

    /// What a host port leads to, if it is one of these.
    pub fn leads_to(&self, host_port: Port) -> Option<Port> {
        let offset = self.host_ports.offset(host_port)?;
        self.container_port.checked_add(offset)
    }
}

impl fmt::Display for Publish {
    /// `0.0.0.0:8080->80/tcp`, as `docker ps` has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let containers = self.container_ports();
        write!(
            f,
            "{}:{}->{containers}/{}",
            self.host_addr, self.host_ports, self.proto
        )
    }
}
