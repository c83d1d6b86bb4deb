//! Text to wishes: `[ip:][hostPort]:containerPort[/proto]`, with ranges.

use super::types::{HostAddr, HostPorts, Port, PortRange, Proto, PublishSpec};
use std::str::FromStr;

/// A publish that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// No container port.
    #[error("publish '{0}' names no container port")]
    NoContainerPort(String),
    /// Not a number from 1 to 65535.
    #[error("'{0}' is not a port: ports are 1 to 65535")]
    Port(String),
    /// The end before the beginning.
    #[error("port range {0}-{1} runs backwards")]
    Backwards(u16, u16),
    /// Host and container ranges differ in length.
    #[error("host ports {host} are {} and container ports {container} are {}", host.count(), container.count())]
    Lengths {
        /// Those of the host.
        host: PortRange,
        /// Those of the container.
        container: PortRange,
    },
    /// The container's ports would go beyond the last one.
    #[error("{1} ports from container port {0} on go beyond 65535")]
    Beyond(u16, usize),
    /// Neither tcp nor udp.
    #[error("protocol '{0}' cannot be published")]
    Proto(String),
    /// The same where ports are opened.
    #[error("protocol '{0}' cannot be opened")]
    OpenedProto(String),
    /// Not an IP address.
    #[error("'{0}' is not an IP address of this host")]
    Address(String),
    /// An IPv6 address without brackets.
    #[error("the address in '{0}' needs brackets")]
    Brackets(String),
    /// Not a source policy.
    #[error("source address policy '{0}' is unknown")]
    Source(String),
}

impl PortError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoContainerPort(_) => "give [IP:][HOSTPORT:]CONTAINERPORT, such as 8080:80",
            Self::Port(_) => "give a number, or a range such as 8000-8010",
            Self::Backwards(..) => "give the smaller port first",
            Self::Lengths { .. } => {
                "give as many host ports as container ports, or one container port for a choice of host ports"
            }
            Self::Beyond(..) => "give fewer ports",
            Self::Proto(_) => "publish tcp or udp, such as 53:53/udp",
            Self::OpenedProto(_) => "give tcp or udp, such as 5432,53/udp",
            Self::Address(_) => {
                "give an address such as 127.0.0.1 or [::1], no name and no interface"
            }
            Self::Brackets(_) => "write it as [2001:db8::1]:8080:80",
            Self::Source(_) => "it is 'keep' or 'gateway'",
        }
    }
}

impl FromStr for Proto {
    type Err = PortError;
    fn from_str(text: &str) -> Result<Self, PortError> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(PortError::Proto(text.to_owned())),
        }
    }
}

fn port(text: &str) -> Result<Port, PortError> {
    // `parse` would take a sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number
        .and_then(Port::new)
        .ok_or_else(|| PortError::Port(text.to_owned()))
}

impl FromStr for PortRange {
    type Err = PortError;
    fn from_str(text: &str) -> Result<Self, PortError> {
        match text.split_once('-') {
            Some((first, last)) => Self::new(port(first)?, port(last)?),
            None => port(text).map(Self::one),
        }
    }
}

/// `PORTS[/PROTO]`, as `--expose` takes it.
pub(super) fn ports_and_proto(text: &str) -> Result<(PortRange, Proto), PortError> {
    let (ports, proto) = match text.split_once('/') {
        Some((ports, proto)) => (ports, proto.parse()?),
        None => (text, Proto::Tcp),
    };
    Ok((ports.parse()?, proto))
}

impl FromStr for PublishSpec {
    type Err = PortError;
    fn from_str(text: &str) -> Result<Self, PortError> {
        let no_container_port = || PortError::NoContainerPort(text.to_owned());
        let (host, container) = match text.rsplit_once(':') {
            Some((host, container)) => (Some(host), container),
            None => (None, text),
        };
        if container.is_empty() || container.starts_with('/') {
            return Err(no_container_port());
        }
        if container.ends_with(']') {
            // `[::1]`: the last colon was the address's.
            return Err(no_container_port());
        }
        let (container_ports, proto) = ports_and_proto(container)?;
        let (host_addr, host_ports) = host_side(text, host.unwrap_or_default())?;
        Ok(Self {
            host_addr,
            host_ports: match host_ports {
                None => HostPorts::Free,
                Some(range) if range.count() == container_ports.count() => HostPorts::Each(range),
                Some(range) if container_ports.count() == 1 => HostPorts::OneOf(range),
                Some(host) => {
                    return Err(PortError::Lengths {
                        host,
                        container: container_ports,
                    });
                }
            },
            container_ports,
            proto,
        })
    }
}

/// `[ip:][ports]`. Port 0 is any free one, as no port is.
fn host_side(whole: &str, text: &str) -> Result<(HostAddr, Option<PortRange>), PortError> {
    let (address, ports) = match text.rsplit_once(':') {
        Some((address, ports)) => (Some(address), ports),
        None => (None, text),
    };
    let host_addr = match address {
        None => HostAddr::Any,
        Some("") => return Err(PortError::Address(String::new())),
        Some(address) if address.contains(':') && !address.starts_with('[') => {
            return Err(PortError::Brackets(whole.to_owned()));
        }
        Some("*") => return Err(PortError::Address("*".to_owned())),
        Some(address) => address.parse()?,
    };
    let ports = match ports {
        "" | "0" => None,
        ports => Some(ports.parse()?),
    };
    Ok((host_addr, ports))
}

impl PublishSpec {
    /// `PORTS[/PROTO]` of `--expose`, to be published by any free ports.
    pub fn expose(text: &str) -> Result<Self, PortError> {
        let (ports, proto) = ports_and_proto(text)?;
        Ok(Self::exposed(ports, proto))
    }
}
