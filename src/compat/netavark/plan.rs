//! From what podman asks to what the kernel is to have. Pure.
//!
//! Invariant: whatever can be wrong with the request is found here, before anything is changed. MAC
//! addresses and names of ports follow from container and network, so that a container that comes again
//! has the same ones, and a teardown needs no record to find them.

use super::input::{Connection, Network, Request, Route};
use super::options::Options;
use super::output::{Address, Interface, StatusBlock};
use super::refusal::{NetworkRefusal, Refusal};
use crate::compat::digest::digest;
use ipnet::IpNet;
use mossnet_helper::foreign::{Bridge, Guest};
use mossnet_helper::netlink::{PrefixRoute, RouteKind, SubKind};
use mossnet_helper::ruleset::Isolation;
use mossnet_helper::{IfName, MacAddr, NameError};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Metric of default routes where nobody asks, as netavark sets it.
const METRIC: u32 = 100;
/// What podman puts into resolv.conf as search domain.
const SEARCH_DOMAIN: &str = "dns.podman";

/// One network of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPlan {
    /// Name of the network.
    pub name: String,
    /// How the container is connected.
    pub link: LinkPlan,
    /// The container's end. Its MTU is 0 where nobody asks.
    pub guest: Guest,
    /// What podman is told.
    pub status: StatusBlock,
    /// Its entry in the name server.
    pub names: Option<NamesPlan>,
}

/// How a container is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkPlan {
    /// By a veth pair to a bridge.
    Bridge(BridgePlan),
    /// On the wire of another link.
    Share {
        /// Which; absent: that of the default route.
        parent: Option<IfName>,
        /// How.
        kind: SubKind,
    },
}

/// A bridge and what is to be known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgePlan {
    /// The bridge.
    pub bridge: Bridge,
    /// The veth pair's end on it.
    pub port: IfName,
    /// We make and remove it, and have rules for it.
    pub managed: bool,
    /// Nothing leaves it.
    pub internal: bool,
    /// Which other bridges it reaches.
    pub isolation: Isolation,
    /// Addresses that its traffic bears outside.
    pub outbound: Vec<IpAddr>,
}

/// An entry in the name server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamesPlan {
    /// The bridge's addresses, where it listens.
    pub gateways: Vec<IpAddr>,
    /// Resolvers of the network.
    pub network_servers: Vec<IpAddr>,
    /// The container's addresses.
    pub addresses: Vec<IpAddr>,
    /// Its name and aliases.
    pub names: Vec<String>,
    /// Its own resolvers.
    pub servers: Vec<IpAddr>,
    /// Nothing is asked outside.
    pub internal: bool,
}

/// Plans every network of a request, in its order.
pub fn plan(request: &Request) -> Result<Vec<NetworkPlan>, Refusal> {
    check_name("container id", &request.container_id)?;
    let networks = request.networks.0.iter();
    networks
        .map(|(name, connection)| {
            check_name("network name", name)?;
            let network = request.network_info.get(name);
            let network = network.ok_or_else(|| Refusal::NoInfo(name.clone()))?;
            let planned = Planner {
                request,
                name,
                connection,
                network,
            };
            planned.plan().map_err(|source| Refusal::Network {
                network: name.clone(),
                source,
            })
        })
        .collect()
}

/// Names become names of files, and words in them.
pub fn check_name(what: &'static str, value: &str) -> Result<(), Refusal> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let begins = value
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins && value.len() <= 200 && value.bytes().all(legal) {
        return Ok(());
    }
    let value = value.chars().take(40).collect();
    Err(Refusal::Name { what, value })
}

struct Planner<'a> {
    request: &'a Request,
    name: &'a str,
    connection: &'a Connection,
    network: &'a Network,
}

impl Planner<'_> {
    fn plan(&self) -> Result<NetworkPlan, NetworkRefusal> {
        if self.connection.interface_name.is_empty() {
            return Err(NetworkRefusal::NoInterface);
        }
        let guest_name: IfName = self.connection.interface_name.parse()?;
        let link = match self.network.driver.as_str() {
            "bridge" => LinkPlan::Bridge(self.bridge()?),
            "macvlan" | "ipvlan" => self.share()?,
            other => return Err(NetworkRefusal::Driver(other.to_owned())),
        };
        let addresses = self.addresses()?;
        let mac = match self.connection.static_mac.as_deref() {
            None | Some("") => mac_of(&[&self.request.container_id, self.name])?,
            Some(mac) => mac.parse()?,
        };
        let guest = Guest {
            name: guest_name,
            mac,
            mtu: self.options().mtu()?.unwrap_or(0),
            addresses: addresses.iter().map(|(address, _)| *address).collect(),
            routes: self.routes(&addresses)?,
        };
        // A port and its bridge, a sub-link and its parent have one name server at most: the bridge.
        let serves = self.network.dns_enabled && matches!(link, LinkPlan::Bridge(_));
        Ok(NetworkPlan {
            name: self.name.to_owned(),
            status: self.status(&guest, &addresses, serves),
            names: serves.then(|| self.names(&addresses)),
            link,
            guest,
        })
    }

    fn options(&self) -> Options<'_> {
        Options(self.network.options.as_ref())
    }

    fn ipam_driver(&self) -> Option<&str> {
        Options(self.network.ipam_options.as_ref()).text("driver")
    }

    fn bridge(&self) -> Result<BridgePlan, NetworkRefusal> {
        let options = self.options();
        let name = self
            .network
            .network_interface
            .as_deref()
            .unwrap_or_default();
        if name.is_empty() {
            return Err(NetworkRefusal::NoBridge);
        }
        let managed = match options.text("mode") {
            None | Some("managed") => true,
            Some("unmanaged") => false,
            Some(value) => {
                return Err(NetworkRefusal::Option {
                    option: "mode",
                    value: value.to_owned(),
                    wanted: "managed or unmanaged",
                });
            }
        };
        let vlan = options.vlan()?;
        if vlan.is_some() && !managed {
            let why = "the option vlan does not go with mode=unmanaged: set it on the bridge";
            return Err(NetworkRefusal::Unsupported(why));
        }
        let vrf: Option<IfName> = options.text("vrf").map(str::parse).transpose()?;
        let port = port_of(&self.request.container_id, self.name, self.connection)?;
        let v4: Option<Ipv4Addr> = options.value("outbound_addr4", "an IPv4 address")?;
        let v6: Option<Ipv6Addr> = options.value("outbound_addr6", "an IPv6 address")?;
        let outbound = v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6));
        let subnets = self.network.subnets.iter().flatten();
        let gateways = subnets
            .filter_map(|subnet| IpNet::new(subnet.gateway?, subnet.subnet.prefix_len()).ok());
        Ok(BridgePlan {
            bridge: Bridge {
                name: name.parse()?,
                mac: mac_of(&[&self.network.id, name])?,
                mtu: options.mtu()?.unwrap_or(0),
                addresses: if managed {
                    gateways.collect()
                } else {
                    Vec::new()
                },
                vlan,
                vrf,
            },
            port,
            managed,
            internal: self.network.internal,
            isolation: options.isolation()?,
            outbound: outbound.collect(),
        })
    }

    fn share(&self) -> Result<LinkPlan, NetworkRefusal> {
        let mode = self.options().text("mode");
        let unknown = |value: &str, wanted| NetworkRefusal::Option {
            option: "mode",
            value: value.to_owned(),
            wanted,
        };
        let kind = if self.network.driver == "macvlan" {
            SubKind::Macvlan(match mode {
                Some("private") => 1,
                Some("vepa") => 2,
                None | Some("bridge") => 4,
                Some("passthru") => 8,
                Some(other) => return Err(unknown(other, "bridge, private, vepa or passthru")),
            })
        } else {
            SubKind::Ipvlan(match mode {
                None | Some("l2") => 0,
                Some("l3") => 1,
                Some("l3s") => 2,
                Some(other) => return Err(unknown(other, "l2, l3 or l3s")),
            })
        };
        let parent = self.network.network_interface.as_deref();
        let parent = parent.filter(|name| !name.is_empty());
        Ok(LinkPlan::Share {
            parent: parent.map(str::parse).transpose()?,
            kind,
        })
    }

    /// The container's address of each subnet, with the gateway there.
    fn addresses(&self) -> Result<Vec<(IpNet, Option<IpAddr>)>, NetworkRefusal> {
        match self.ipam_driver() {
            Some("none") => return Ok(Vec::new()),
            Some("dhcp") => {
                let why = "ipam driver dhcp is not supported: mossnet has no DHCP proxy; give the network \
                    subnets, or use the ipam driver none and a DHCP client in the container";
                return Err(NetworkRefusal::Unsupported(why));
            }
            None | Some("host-local") => {}
            Some(value) => {
                return Err(NetworkRefusal::Option {
                    option: "ipam driver",
                    value: value.to_owned(),
                    wanted: "host-local or none",
                });
            }
        }
        let given = self.connection.static_ips.as_deref();
        let mut left: Vec<IpAddr> = given.ok_or(NetworkRefusal::NoAddresses)?.to_vec();
        let mut addresses = Vec::new();
        for subnet in self.network.subnets.iter().flatten() {
            let at = left
                .iter()
                .position(|address| subnet.subnet.contains(address));
            let at = at.ok_or(NetworkRefusal::NoAddressOf(subnet.subnet))?;
            let address = IpNet::new(left.remove(at), subnet.subnet.prefix_len());
            let address = address.map_err(|_| NetworkRefusal::NoAddressOf(subnet.subnet))?;
            addresses.push((address, subnet.gateway));
        }
        match left.first() {
            Some(stray) => Err(NetworkRefusal::Stray(*stray)),
            None => Ok(addresses),
        }
    }

    /// Default routes where there is a way out, and the network's own.
    fn routes(
        &self,
        addresses: &[(IpNet, Option<IpAddr>)],
    ) -> Result<Vec<PrefixRoute>, NetworkRefusal> {
        let options = self.options();
        let metric = options.value("metric", "a number")?.unwrap_or(METRIC);
        let without = self.network.internal || options.flag("no_default_route")?;
        let gateways = addresses.iter().filter_map(|(_, gateway)| *gateway);
        let mut routes: Vec<PrefixRoute> = gateways
            .filter(|_| !without)
            .map(|gateway| PrefixRoute {
                destination: everything(gateway),
                kind: RouteKind::Via(gateway),
                metric: Some(metric),
            })
            .collect();
        for route in self.network.routes.iter().flatten() {
            routes.push(own_route(route, metric)?);
        }
        Ok(routes)
    }

    fn status(
        &self,
        guest: &Guest,
        addresses: &[(IpNet, Option<IpAddr>)],
        serves: bool,
    ) -> StatusBlock {
        let subnets = addresses.iter().map(|(ipnet, gateway)| Address {
            gateway: *gateway,
            ipnet: *ipnet,
        });
        let interface = Interface {
            mac_address: guest.mac.to_string(),
            subnets: subnets.collect(),
        };
        let gateways = addresses.iter().filter_map(|(_, gateway)| *gateway);
        let servers = match serves {
            true => gateways.collect(),
            false => self.request.dns_servers.clone().unwrap_or_default(),
        };
        StatusBlock {
            dns_search_domains: serves
                .then(|| SEARCH_DOMAIN.to_owned())
                .into_iter()
                .collect(),
            dns_server_ips: servers,
            interfaces: BTreeMap::from([(guest.name.to_string(), interface)]),
        }
    }

    fn names(&self, addresses: &[(IpNet, Option<IpAddr>)]) -> NamesPlan {
        let aliases = self.connection.aliases.iter().flatten();
        let names = std::iter::once(&self.request.container_name).chain(aliases);
        let mut unique: Vec<String> = Vec::new();
        for name in names.filter(|name| is_word(name)) {
            if !unique.contains(name) {
                unique.push(name.clone());
            }
        }
        NamesPlan {
            gateways: addresses
                .iter()
                .filter_map(|(_, gateway)| *gateway)
                .collect(),
            network_servers: self.network.network_dns_servers.clone().unwrap_or_default(),
            addresses: addresses
                .iter()
                .map(|(address, _)| address.addr())
                .collect(),
            names: unique,
            servers: self.request.dns_servers.clone().unwrap_or_default(),
            internal: self.network.internal,
        }
    }
}

/// What can stand in a line of the name server's files; others have no name there.
fn is_word(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == ',' || c.is_control())
}

fn own_route(route: &Route, metric: u32) -> Result<PrefixRoute, NetworkRefusal> {
    let refuse = |problem| NetworkRefusal::Route {
        destination: route.destination,
        problem,
    };
    if route.destination.trunc() != route.destination {
        return Err(refuse("it is an address, not a network"));
    }
    let kind = match (route.route_type.as_deref(), route.gateway) {
        (None | Some("" | "unicast"), Some(gateway)) => RouteKind::Via(gateway),
        (None | Some("" | "unicast"), None) => return Err(refuse("it has no gateway")),
        (Some("blackhole"), None) => RouteKind::Blackhole,
        (Some("unreachable"), None) => RouteKind::Unreachable,
        (Some("prohibit"), None) => RouteKind::Prohibit,
        (Some("blackhole" | "unreachable" | "prohibit"), Some(_)) => {
            return Err(refuse("its type has no gateway"));
        }
        (Some(_), _) => {
            return Err(refuse(
                "its type is none of unicast, blackhole, unreachable, prohibit",
            ));
        }
    };
    if let RouteKind::Via(gateway) = kind
        && gateway.is_ipv4() != route.destination.addr().is_ipv4()
    {
        return Err(refuse("its gateway is of the other address family"));
    }
    Ok(PrefixRoute {
        destination: route.destination,
        kind,
        metric: Some(route.metric.unwrap_or(metric)),
    })
}

/// 0.0.0.0/0 or ::/0.
fn everything(like: IpAddr) -> IpNet {
    match like {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// The veth pair's end on the bridge.
pub fn port_of(
    container: &str,
    network: &str,
    connection: &Connection,
) -> Result<IfName, NetworkRefusal> {
    if let Some(name) = Options(connection.options.as_ref()).text("host_interface_name") {
        return Ok(name.parse()?);
    }
    let digest = digest(&[container, network]) & 0xffff_ffff_ffff;
    Ok(format!("mp{digest:012x}").parse()?)
}

/// A locally administered unicast address.
fn mac_of(parts: &[&str]) -> Result<MacAddr, NameError> {
    let [_, _, a, b, c, d, e, f] = digest(parts).to_be_bytes();
    // Of the first byte, what makes it one.
    MacAddr::try_from([a & 0xfc | 2, b, c, d, e, f])
}

#[cfg(test)]
mod tests;
