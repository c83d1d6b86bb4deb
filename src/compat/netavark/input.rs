//! What podman writes to standard input, as JSON: a container, its networks, its ports.
//!
//! Podman up to 5 writes `networks` as a map, 6 as an array whose entries have a `name`. Fields that
//! we do not know are ignored: newer versions add some. Pure; nothing is checked here but types.
//! Sources: go.podman.io/common `libnetwork/types` and `libnetwork/netavark/exec.go`.

use ipnet::IpNet;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// Longest input that is read, bytes. A container with ten thousand ports needs a tenth of it.
pub const MOST: usize = 8 << 20;

/// The whole.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Request {
    /// Its id, 64 hexadecimal digits usually.
    pub container_id: String,
    /// Its name.
    pub container_name: String,
    /// What it is on.
    pub networks: Networks,
    /// What those are, by name.
    pub network_info: BTreeMap<String, Network>,
    /// Ports of the host that lead to it.
    #[serde(default)]
    pub port_mappings: Option<Vec<PortMapping>>,
    /// Resolvers for this container alone.
    #[serde(default)]
    pub dns_servers: Option<Vec<IpAddr>>,
}

/// What a container is on, in the order in which it shall be connected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<(String, Connection)>);

/// One of its networks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Connection {
    /// Further names.
    #[serde(default)]
    pub aliases: Option<Vec<String>>,
    /// Name of the interface in the container.
    #[serde(default)]
    pub interface_name: String,
    /// Addresses, one for each subnet.
    #[serde(default)]
    pub static_ips: Option<Vec<IpAddr>>,
    /// MAC address.
    #[serde(default)]
    pub static_mac: Option<String>,
    /// What this network's driver knows.
    #[serde(default)]
    pub options: Option<BTreeMap<String, String>>,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Network {
    /// Name.
    pub name: String,
    /// Id, 64 hexadecimal digits usually.
    pub id: String,
    /// bridge, macvlan, ipvlan.
    pub driver: String,
    /// The bridge, or the link whose wire is shared.
    #[serde(default)]
    pub network_interface: Option<String>,
    /// Nothing leaves it.
    #[serde(default)]
    pub internal: bool,
    /// It has a name server.
    #[serde(default)]
    pub dns_enabled: bool,
    /// Subnets.
    #[serde(default)]
    pub subnets: Option<Vec<Subnet>>,
    /// Routes for its containers.
    #[serde(default)]
    pub routes: Option<Vec<Route>>,
    /// What its driver knows.
    #[serde(default)]
    pub options: Option<BTreeMap<String, String>>,
    /// `driver`: host-local, dhcp, none.
    #[serde(default)]
    pub ipam_options: Option<BTreeMap<String, String>>,
    /// Resolvers for its containers.
    #[serde(default)]
    pub network_dns_servers: Option<Vec<IpAddr>>,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Subnet {
    /// The prefix.
    pub subnet: IpNet,
    /// Address of the bridge.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Through whom.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Metric.
    #[serde(default)]
    pub metric: Option<u32>,
    /// unicast, blackhole, unreachable, prohibit.
    #[serde(default)]
    pub route_type: Option<String>,
}

/// Ports of the host that lead to the container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PortMapping {
    /// First port of the container.
    pub container_port: u16,
    /// Address of the host; empty: all.
    #[serde(default)]
    pub host_ip: String,
    /// First port of the host.
    pub host_port: u16,
    /// tcp, udp, sctp, or several with commas between; empty: tcp.
    #[serde(default)]
    pub protocol: String,
    /// How many; 0 is 1.
    #[serde(default)]
    pub range: u16,
}

/// An entry of podman 6's array.
#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(flatten)]
    connection: Connection,
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = Networks;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of networks, or an array of them")
    }

    /// A map has no order, so that of the interfaces' names is taken: eth0, eth1, … eth10.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Networks, A::Error> {
        let mut networks: Vec<(String, Connection)> = Vec::new();
        while let Some(entry) = map.next_entry()? {
            networks.push(entry);
        }
        networks.sort_by(|(_, a), (_, b)| {
            let key = |connection: &Connection| {
                let name = connection.interface_name.clone();
                (name.len(), name)
            };
            key(a).cmp(&key(b))
        });
        Ok(Networks(networks))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Networks, A::Error> {
        let mut networks = Vec::new();
        while let Some(Named { name, connection }) = seq.next_element()? {
            networks.push((name, connection));
        }
        Ok(Networks(networks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(json: &str) -> Result<Vec<String>, serde_json::Error> {
        let networks: Networks = serde_json::from_str(json)?;
        Ok(networks.0.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn networks_are_a_map_or_an_array() {
        let map = r#"{"b": {"interface_name": "eth10"}, "a": {"interface_name": "eth9"}}"#;
        assert_eq!(networks(map).unwrap(), ["a", "b"]);
        let array = r#"[{"name": "b", "interface_name": "eth0", "new": 1}, {"name": "a"}]"#;
        assert_eq!(networks(array).unwrap(), ["b", "a"]);
        for bad in [
            "3",
            "\"x\"",
            "null",
            r#"{"a": 3}"#,
            r#"[{"interface_name": "eth0"}]"#,
        ] {
            let error = networks(bad).unwrap_err().to_string();
            assert!(!error.is_empty(), "{bad}");
        }
        let error = networks("3").unwrap_err().to_string();
        assert!(error.contains("a map of networks, or an array"), "{error}");
    }
}
