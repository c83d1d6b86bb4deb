//! `-o key=value` of a network: our own names, and Docker's and podman's for the same. Pure.
//!
//! Sources: docker network create (bridge driver options), podman-network-create(1).

use super::model::DEFAULT_MTU;
use crate::ports::{HostLoopback, PortSet};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Longest beginning of an interface's name that leaves room for a number.
const MAX_PREFIX: usize = 11;

/// Names that a message lists.
const KNOWN: &str = "mtu, isolate, icc, mode, vlan, host_loopback, host_ports, and Docker's com.docker.network.* names for them";

/// An option was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Nobody knows it.
    #[error("network option '{}' is not known", .0.escape_debug())]
    Unknown(String),
    /// Its value makes no sense.
    #[error("network option {name}={} is not {wanted}", value.escape_debug())]
    Value {
        /// As it was given.
        name: String,
        /// As it was given.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// It asks for what mossnet does not do.
    #[error("network option {name}={} is not possible: {reason}", value.escape_debug())]
    Impossible {
        /// As it was given.
        name: String,
        /// As it was given.
        value: String,
        /// Why.
        reason: &'static str,
    },
    /// Two names for one thing say different things.
    #[error("network option '{0}' is given twice with different values")]
    Twice(&'static str),
}

impl OptionError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown(_) => format!("there are: {KNOWN}"),
            Self::Value { .. } => "correct the value".to_owned(),
            Self::Impossible { .. } => "leave the option out".to_owned(),
            Self::Twice(_) => "give one of them".to_owned(),
        }
    }
}

/// What options decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Bytes.
    pub mtu: u32,
    /// Endpoints reach one another.
    pub icc: bool,
    /// VLAN of its frames.
    pub vlan: Option<u16>,
    /// The bridge has no IPv4 address.
    pub inhibit_ipv4: bool,
    /// Beginning of the interfaces' names.
    pub ifname_prefix: Option<String>,
    /// How far the host's loopback is open.
    pub host_loopback: Option<HostLoopback>,
    /// What was given, under our own names where there are any.
    pub shown: BTreeMap<String, String>,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            mtu: DEFAULT_MTU,
            icc: true,
            vlan: None,
            inhibit_ipv4: false,
            ifname_prefix: None,
            host_loopback: None,
            shown: BTreeMap::new(),
        }
    }
}

/// Ours, where Docker or podman have another name.
fn canonical(name: &str) -> Option<&'static str> {
    Some(match name {
        "mtu" | "com.docker.network.driver.mtu" => "mtu",
        "isolate" => "isolate",
        "icc" | "com.docker.network.bridge.enable_icc" => "icc",
        "mode"
        | "com.docker.network.bridge.gateway_mode_ipv4"
        | "com.docker.network.bridge.gateway_mode_ipv6" => "mode",
        "vlan" => "vlan",
        "host_loopback" => "host_loopback",
        "host_ports" => "host_ports",
        "com.docker.network.bridge.name" => "com.docker.network.bridge.name",
        "com.docker.network.container_iface_prefix" => "com.docker.network.container_iface_prefix",
        "com.docker.network.bridge.enable_ip_masquerade" => {
            "com.docker.network.bridge.enable_ip_masquerade"
        }
        "com.docker.network.bridge.inhibit_ipv4" => "com.docker.network.bridge.inhibit_ipv4",
        "com.docker.network.bridge.host_binding_ipv4" => {
            "com.docker.network.bridge.host_binding_ipv4"
        }
        _ => return None,
    })
}

/// Reads options as they were given.
pub fn parse(given: &BTreeMap<String, String>) -> Result<NetworkOptions, OptionError> {
    let mut options = NetworkOptions::default();
    for (name, value) in given {
        let ours = canonical(name).ok_or_else(|| OptionError::Unknown(name.clone()))?;
        let shown = options.read(ours, Given { name, value })?;
        let before = options.shown.insert(ours.to_owned(), shown.clone());
        if before.is_some_and(|before| before != shown) {
            return Err(OptionError::Twice(ours));
        }
    }
    Ok(options)
}

/// One option, as the user wrote it.
#[derive(Clone, Copy)]
struct Given<'a> {
    name: &'a str,
    value: &'a str,
}

impl Given<'_> {
    fn wrong(self, wanted: &'static str) -> OptionError {
        OptionError::Value {
            name: self.name.to_owned(),
            value: self.value.to_owned(),
            wanted,
        }
    }

    fn impossible(self, reason: &'static str) -> OptionError {
        OptionError::Impossible {
            name: self.name.to_owned(),
            value: self.value.to_owned(),
            reason,
        }
    }

    /// As Go reads it, which Docker and podman are written in.
    fn truth(self) -> Result<bool, OptionError> {
        match self.value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(self.wrong("true or false")),
        }
    }
}

impl NetworkOptions {
    /// Takes up one option; how it is shown.
    fn read(&mut self, ours: &str, given: Given<'_>) -> Result<String, OptionError> {
        match ours {
            "mtu" => {
                let wanted = "a number of bytes from 68 to 65535";
                let mtu = given.value.parse().map_err(|_| given.wrong(wanted))?;
                if !(68..=65535).contains(&mtu) {
                    return Err(given.wrong(wanted));
                }
                self.mtu = mtu;
            }
            "icc" => {
                self.icc = given.truth()?;
                return Ok(self.icc.to_string());
            }
            "vlan" => {
                let wanted = "a VLAN id from 1 to 4094";
                let vlan = given.value.parse().map_err(|_| given.wrong(wanted))?;
                if !(1..=4094).contains(&vlan) {
                    return Err(given.wrong(wanted));
                }
                self.vlan = Some(vlan);
            }
            "host_loopback" | "host_ports" => return self.open_host(ours, given),
            "isolate" if given.value == "strict" => {}
            "isolate" => {
                if !given.truth()? {
                    return Err(given.impossible("networks are always isolated from one another"));
                }
                return Ok("true".to_owned());
            }
            "mode" => {
                if !matches!(given.value, "managed" | "nat") {
                    return Err(given.impossible("addresses of sandboxes are always translated"));
                }
                return Ok("managed".to_owned());
            }
            "com.docker.network.bridge.enable_ip_masquerade" => {
                if !given.truth()? {
                    return Err(given.impossible("addresses of sandboxes are always translated"));
                }
                return Ok("true".to_owned());
            }
            "com.docker.network.bridge.inhibit_ipv4" => {
                self.inhibit_ipv4 = given.truth()?;
                return Ok(self.inhibit_ipv4.to_string());
            }
            "com.docker.network.bridge.host_binding_ipv4" => {
                let address: Result<Ipv4Addr, _> = given.value.parse();
                address.map_err(|_| given.wrong("an IPv4 address"))?;
            }
            "com.docker.network.container_iface_prefix" => {
                self.ifname_prefix = Some(prefix(given)?);
            }
            // "com.docker.network.bridge.name"
            _ => {
                return Err(given.impossible(
                    "bridges live in mossnet's own network namespace, and are named by it",
                ));
            }
        }
        Ok(given.value.to_owned())
    }

    /// Options come in the order of their names: host_ports after host_loopback, which it narrows.
    fn open_host(&mut self, ours: &str, given: Given<'_>) -> Result<String, OptionError> {
        if ours == "host_loopback" {
            let open = given.truth()?;
            self.host_loopback = open.then_some(HostLoopback::All);
            return Ok(open.to_string());
        }
        let said = self.shown.get("host_loopback");
        if said.is_some_and(|open| open == "false") {
            return Err(given.impossible("host_loopback=false closes them all"));
        }
        let wanted = "a list of ports, such as 5432,8000-8010,53/udp";
        let ports: PortSet = given.value.parse().map_err(|_| given.wrong(wanted))?;
        let shown = ports.to_string();
        self.host_loopback = Some(HostLoopback::Ports(ports));
        Ok(shown)
    }
}

fn prefix(given: Given<'_>) -> Result<String, OptionError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let text = given.value;
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
    if !first || text.len() > MAX_PREFIX || !text.bytes().all(legal) {
        return Err(given.wrong("1 to 11 letters, digits, '-', '_' or '.', a letter first"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[(&str, &str)]) -> Result<NetworkOptions, OptionError> {
        let pairs = given
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        parse(&pairs.collect())
    }

    #[test]
    fn names_of_docker_and_podman_mean_ours() {
        let options = read(&[
            ("com.docker.network.driver.mtu", "1400"),
            ("com.docker.network.bridge.enable_icc", "False"),
            ("com.docker.network.bridge.gateway_mode_ipv4", "nat"),
            ("com.docker.network.container_iface_prefix", "net"),
            ("isolate", "strict"),
            ("vlan", "7"),
        ]);
        let options = options.unwrap();
        assert_eq!(
            (options.mtu, options.icc, options.vlan),
            (1400, false, Some(7))
        );
        assert_eq!(options.ifname_prefix.as_deref(), Some("net"));
        let shown = |name: &str| options.shown.get(name).map(String::as_str);
        assert_eq!(shown("mtu"), Some("1400"));
        assert_eq!(shown("icc"), Some("false"));
        assert_eq!(shown("mode"), Some("managed"));
        assert_eq!(shown("isolate"), Some("strict"));
    }

    #[test]
    fn one_thing_may_be_said_twice_but_not_otherwise() {
        let name = "com.docker.network.driver.mtu";
        assert_eq!(read(&[("mtu", "1400"), (name, "1400")]).unwrap().mtu, 1400);
        let error = read(&[("mtu", "1400"), (name, "1500")]).unwrap_err();
        assert_eq!(error, OptionError::Twice("mtu"));
    }

    #[test]
    fn the_hosts_loopback_is_closed_unless_it_is_asked_for() {
        let open = |given: &[(&str, &str)]| {
            let options = read(given).unwrap();
            options.host_loopback.map(|open| open.to_string())
        };
        assert_eq!(open(&[]), None);
        assert_eq!(open(&[("host_loopback", "false")]), None);
        assert_eq!(open(&[("host_loopback", "1")]).as_deref(), Some("all"));
        let ports = ("host_ports", "6379,5432,53/udp");
        assert_eq!(open(&[ports]).as_deref(), Some("5432,6379,53/udp"));
        let both = [("host_loopback", "true"), ports];
        assert_eq!(open(&both).as_deref(), Some("5432,6379,53/udp"));
        let error = read(&[("host_loopback", "0"), ports]).unwrap_err();
        assert!(error.to_string().contains("closes them all"), "{error}");
    }

    #[test]
    fn wrong_options_say_what_would_be_right() {
        for (name, value, part) in [
            ("mtu", "67", "68 to 65535"),
            ("mtu", "x", "mtu=x"),
            ("vlan", "4095", "1 to 4094"),
            ("icc", "perhaps", "true or false"),
            ("isolate", "false", "always isolated"),
            ("mode", "unmanaged", "always translated"),
            (
                "com.docker.network.bridge.gateway_mode_ipv6",
                "routed",
                "always translated",
            ),
            (
                "com.docker.network.bridge.enable_ip_masquerade",
                "0",
                "always translated",
            ),
            ("com.docker.network.bridge.name", "br0", "named by it"),
            (
                "com.docker.network.bridge.host_binding_ipv4",
                "::1",
                "an IPv4 address",
            ),
            (
                "com.docker.network.container_iface_prefix",
                "a/b",
                "a letter first",
            ),
            ("host_loopback", "perhaps", "true or false"),
            ("host_ports", "0", "a list of ports, such as 5432"),
            ("nonsense", "1", "'nonsense' is not known"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
            assert!(!error.hint().is_empty());
        }
    }
}
