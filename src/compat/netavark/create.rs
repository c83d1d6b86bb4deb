//! `create`: podman 6 has a new network's configuration checked and completed, and keeps it itself.
//!
//! In: the network as far as its user described it, what other networks and the host use, the pools. Out:
//! the network with a bridge's name, subnets, gateways. Pure but for the names of links; nothing is made
//! or remembered. Invariants: what a container would be refused on, the network is refused for now, by the
//! same code (`plan`); fields that we do not know come out as they went in.
//! Sources: go.podman.io/common `libnetwork/netavark/config.go`; netavark's manual, `create`; netavark 2.0.

mod subnets;

use super::input::{Connection, Network, Networks, Request as Container};
use super::plan;
use super::refusal::{CreateRefusal, NetworkRefusal, Refusal};
use crate::network::calendar::rfc3339;
use crate::network::model::Millis;
use ipnet::IpNet;
use mossnet_helper::IfName;
use mossnet_helper::request::Failure;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use subnets::Occupied;

/// How many names of bridges are tried.
const BRIDGES: u32 = 1_000_000;
/// Options of networks by driver: what is none of these was mistyped.
const BRIDGE_OPTIONS: &[&str] = &[
    "isolate",
    "metric",
    "mode",
    "mtu",
    "no_default_route",
    "outbound_addr4",
    "outbound_addr6",
    "vlan",
    "vrf",
];
const SHARE_OPTIONS: &[&str] = &["metric", "mode", "mtu", "no_default_route"];

/// The whole input.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Request {
    /// What is described.
    pub network: Draft,
    /// What is taken.
    pub used: Used,
    /// Where new ones come from.
    pub options: Pools,
}

/// A network's configuration before it is complete, and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    name: String,
    id: String,
    driver: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network_interface: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subnets: Option<Vec<Subnet>>,
    #[serde(default)]
    ipv6_enabled: bool,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    dns_enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network_dns_servers: Option<Vec<IpAddr>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipam_options: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// A subnet of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    subnet: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease_range: Option<LeaseRange>,
}

/// Which addresses containers get; both ends may be open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start_ip: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end_ip: Option<IpAddr>,
}

/// What other networks have, and the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Used {
    #[serde(default)]
    interfaces: Option<BTreeSet<String>>,
    /// Id by name.
    #[serde(default)]
    names: Option<BTreeMap<String, String>>,
    #[serde(default)]
    subnets: Option<Vec<IpNet>>,
}

/// Where what nobody asked for comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Pools {
    #[serde(default)]
    subnet_pools: Option<Vec<Pool>>,
    /// How names of bridges begin.
    #[serde(default)]
    default_interface_name: Option<String>,
    #[serde(default)]
    check_used_subnets: bool,
}

/// IPv4 subnets of one size.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Pool {
    /// Out of which.
    pub base: IpNet,
    /// Length of their prefixes.
    pub size: u8,
}

/// Whether a link of that name is there.
pub type LookUp<'a> = &'a mut dyn FnMut(&IfName) -> Result<bool, Failure>;

/// What is to be known of where the network will be.
pub struct Surroundings<'a> {
    /// The links; absent where the network's are not to be seen from here (podman without root has them in a
    /// namespace of its own).
    pub links: Option<LookUp<'a>>,
    /// The time.
    pub now: Millis,
}

/// Checks and completes a network.
pub fn create(request: Request, around: Surroundings<'_>) -> Result<Draft, Refusal> {
    plan::check_name("network name", &request.network.name)?;
    let name = request.network.name.clone();
    let refused = |source| Refusal::Network {
        network: name.clone(),
        source,
    };
    let mut work = Work {
        check: request.options.check_used_subnets,
        occupied: Occupied::of(request.used.subnets.as_deref().unwrap_or_default()),
        draft: request.network,
        used: request.used,
        pools: request.options,
        around,
    };
    work.perform().map_err(refused)?;
    rehearse(&work.draft)?;
    Ok(work.draft)
}

struct Work<'a> {
    draft: Draft,
    used: Used,
    pools: Pools,
    occupied: Occupied,
    /// Whether others' subnets and bridges are out of bounds: not for bridges that are somebody else's, and
    /// for VLANs of one.
    check: bool,
    around: Surroundings<'a>,
}

impl Work<'_> {
    fn perform(&mut self) -> Result<(), NetworkRefusal> {
        self.identity()?;
        self.options()?;
        match self.draft.driver.as_str() {
            "bridge" => self.bridge()?,
            "macvlan" | "ipvlan" => self.share()?,
            other => return Err(NetworkRefusal::Driver(other.to_owned())),
        }
        self.ipam()?;
        let draft = &self.draft;
        let servers = draft.network_dns_servers.iter().flatten().count();
        if servers > 0 && !draft.dns_enabled {
            return Err(CreateRefusal::ServersWithoutNames.into());
        }
        self.subnets()?;
        let now = Value::from(rfc3339(self.around.now));
        self.draft.rest.insert("created".to_owned(), now);
        Ok(())
    }

    fn identity(&self) -> Result<(), CreateRefusal> {
        let Draft { name, id, .. } = &self.draft;
        if self.used.names.iter().any(|names| names.contains_key(name)) {
            return Err(CreateRefusal::Exists);
        }
        match id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            true => Ok(()),
            false => Err(CreateRefusal::Id(id.chars().take(80).collect())),
        }
    }

    /// Docker's words for options become podman's; unknown ones are refused.
    fn options(&mut self) -> Result<(), CreateRefusal> {
        let draft = &mut self.draft;
        draft.network_interface.take_if(|name| name.is_empty());
        let known = match draft.driver.as_str() {
            "bridge" => BRIDGE_OPTIONS,
            _ => SHARE_OPTIONS,
        };
        let Some(options) = &mut draft.options else {
            return Ok(());
        };
        if let Some(mtu) = options.remove("com.docker.network.driver.mtu") {
            options.insert("mtu".to_owned(), mtu);
        }
        if let Some(name) = options.remove("com.docker.network.bridge.name") {
            draft.network_interface = Some(name);
        }
        match options.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(option) => Err(CreateRefusal::UnknownOption {
                driver: draft.driver.clone(),
                option: option.clone(),
                known: known.join(", "),
            }),
        }
    }

    fn bridge(&mut self) -> Result<(), NetworkRefusal> {
        let option = |name: &str| self.draft.options.as_ref()?.get(name).map(String::as_str);
        let foreign = option("mode").is_some_and(|mode| mode != "managed");
        let shared = foreign || option("vlan").is_some();
        self.check &= !shared;
        let name = match &self.draft.network_interface {
            None => self.free_bridge()?.to_string(),
            Some(name) => {
                let taken = self.used.interfaces.iter().any(|all| all.contains(name));
                if taken && !shared {
                    return Err(CreateRefusal::BridgeInUse(name.clone()).into());
                }
                name.clone()
            }
        };
        self.draft.network_interface = Some(name);
        Ok(())
    }

    fn free_bridge(&mut self) -> Result<IfName, NetworkRefusal> {
        let beginning = self.pools.default_interface_name.as_deref();
        let beginning = beginning.unwrap_or_default();
        let none = || CreateRefusal::NoBridgeName(beginning.to_owned());
        if beginning.is_empty() {
            return Err(none().into());
        }
        let (interfaces, names) = (&self.used.interfaces, &self.used.names);
        for number in 1..BRIDGES {
            let text = format!("{beginning}{number}");
            let name: IfName = text.parse().map_err(|_| none())?;
            let taken = interfaces.iter().any(|all| all.contains(&text))
                || names.iter().any(|all| all.contains_key(&text));
            if taken {
                continue;
            }
            let there = match &mut self.around.links {
                Some(links) => links(&name).map_err(CreateRefusal::Links)?,
                None => false,
            };
            if !there {
                return Ok(name);
            }
        }
        Err(none().into())
    }

    /// A link that others share has no name server of its own.
    fn share(&mut self) -> Result<(), NetworkRefusal> {
        self.check = false;
        self.draft.dns_enabled = false;
        let (Some(name), Some(links)) = (&self.draft.network_interface, &mut self.around.links)
        else {
            return Ok(());
        };
        let parent: IfName = name.parse()?;
        match links(&parent).map_err(CreateRefusal::Links)? {
            true => Ok(()),
            false => Err(NetworkRefusal::NoParent(name.clone())),
        }
    }

    /// Who hands out addresses, and subnets for them. What is not supported, `plan` refuses.
    fn ipam(&mut self) -> Result<(), CreateRefusal> {
        let draft = &mut self.draft;
        let options = draft.ipam_options.get_or_insert_default();
        let driver = options.get("driver").map(String::as_str);
        let (is_bridge, has_none) = (
            draft.driver == "bridge",
            draft.subnets.as_ref().is_none_or(Vec::is_empty),
        );
        match driver.unwrap_or_default() {
            "none" => {
                draft.dns_enabled = false;
                return match has_none {
                    true => Ok(()),
                    false => Err(CreateRefusal::SubnetsWithoutIpam),
                };
            }
            "" | "host-local" if is_bridge => {}
            "" if has_none => {
                options.insert("driver".to_owned(), "dhcp".to_owned());
                return Ok(());
            }
            "host-local" if has_none => return Err(CreateRefusal::NoSubnets),
            "" | "host-local" => {}
            _ => return Ok(()),
        }
        options.insert("driver".to_owned(), "host-local".to_owned());
        match is_bridge {
            true => self.free_subnets(),
            false => Ok(()),
        }
    }

    /// Each family that is wanted and has no subnet gets one.
    fn free_subnets(&mut self) -> Result<(), CreateRefusal> {
        let draft = &mut self.draft;
        let subnets = draft.subnets.get_or_insert_default();
        let has = |v4: bool| subnets.iter().any(|s| s.subnet.addr().is_ipv4() == v4);
        let (has_v4, has_v6) = (has(true), has(false));
        let mut more = Vec::new();
        if !has_v4 && (draft.ipv6_enabled || !has_v6) {
            let pools = self.pools.subnet_pools.as_deref().unwrap_or_default();
            more.push(subnets::free_v4(pools, &self.occupied, self.check)?);
        }
        if !has_v6 && draft.ipv6_enabled {
            more.push(subnets::free_v6(&draft.id, &self.occupied)?);
        }
        subnets.extend(more.into_iter().map(|subnet| Subnet {
            subnet,
            gateway: None,
            lease_range: None,
        }));
        Ok(())
    }

    fn subnets(&mut self) -> Result<(), CreateRefusal> {
        let draft = &mut self.draft;
        let with_gateway = !draft.internal || draft.dns_enabled;
        let subnets = draft.subnets.as_deref_mut().unwrap_or_default();
        for subnet in subnets.iter_mut() {
            subnet.subnet = subnet.subnet.trunc();
            if self.check && self.occupied.overlaps(&subnet.subnet) {
                return Err(CreateRefusal::SubnetInUse(subnet.subnet));
            }
            subnet.complete(with_gateway)?;
        }
        subnets::apart(subnets.iter().map(|subnet| subnet.subnet))?;
        draft.ipv6_enabled |= subnets.iter().any(|s| s.subnet.addr().is_ipv6());
        Ok(())
    }
}

impl Subnet {
    /// Checks the gateway and the range, and adds the first.
    fn complete(&mut self, with_gateway: bool) -> Result<(), CreateRefusal> {
        let outside = |what, address: &IpAddr| CreateRefusal::Outside {
            what,
            address: *address,
            subnet: self.subnet,
        };
        match &self.gateway {
            Some(gateway) if !self.subnet.contains(gateway) => {
                return Err(outside("gateway", gateway));
            }
            Some(_) => {}
            None if with_gateway => self.gateway = Some(subnets::first_address(&self.subnet)?),
            None => {}
        }
        let Some(LeaseRange { start_ip, end_ip }) = &self.lease_range else {
            return Ok(());
        };
        for (what, end) in [("start_ip", start_ip), ("end_ip", end_ip)] {
            if let Some(address) = end.filter(|address| !self.subnet.contains(address)) {
                return Err(outside(what, &address));
            }
        }
        match (start_ip, end_ip) {
            (Some(start), Some(end)) if start > end => Err(CreateRefusal::Range(*start, *end)),
            _ => Ok(()),
        }
    }
}

/// Plans a container on the network: all options, routes and drivers are looked at, and nothing comes of it.
fn rehearse(draft: &Draft) -> Result<(), Refusal> {
    let network: Network = serde_json::from_value(serde_json::to_value(draft)?)?;
    let subnets = network.subnets.iter().flatten();
    let connection = Connection {
        aliases: None,
        interface_name: "eth0".to_owned(),
        static_ips: Some(subnets.map(|subnet| subnet.subnet.addr()).collect()),
        static_mac: None,
        options: None,
    };
    let name = draft.name.clone();
    let container = Container {
        container_id: draft.id.clone(),
        container_name: name.clone(),
        networks: Networks(vec![(name.clone(), connection)]),
        network_info: BTreeMap::from([(name, network)]),
        port_mappings: None,
        dns_servers: None,
    };
    plan::plan(&container).map(drop)
}

#[cfg(test)]
pub mod tests;
