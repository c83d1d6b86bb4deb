//! What a teardown needs to know. Less than a set-up: podman may have lost the addresses by then, and
//! somebody may have changed the network since. Pure.

use super::input::{Connection, Network, Request};
use super::options::Options;
use super::plan::{LinkPlan, NetworkPlan, check_name, port_of};
use super::refusal::{NetworkRefusal, Refusal};
use mossnet_helper::IfName;

/// One network that a container leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// Name of the network.
    pub network: String,
    /// How it was connected.
    pub link: Leaving,
}

/// How a container was connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaving {
    /// To a bridge.
    Bridge {
        /// The bridge.
        bridge: IfName,
        /// The veth pair's end on it.
        port: IfName,
        /// The bridge is ours to remove.
        managed: bool,
        /// The container's end.
        guest: Option<IfName>,
    },
    /// By a link of this name in the container.
    Share(IfName),
}

impl From<&NetworkPlan> for Departure {
    fn from(plan: &NetworkPlan) -> Self {
        let link = match &plan.link {
            LinkPlan::Bridge(planned) => Leaving::Bridge {
                bridge: planned.bridge.name.clone(),
                port: planned.port.clone(),
                managed: planned.managed,
                guest: None,
            },
            LinkPlan::Share { .. } => Leaving::Share(plan.guest.name.clone()),
        };
        Self {
            network: plan.name.clone(),
            link,
        }
    }
}

/// Every network of a request that can be left, and why others cannot.
pub fn departures(request: &Request) -> Result<(Vec<Departure>, Vec<Refusal>), Refusal> {
    check_name("container id", &request.container_id)?;
    let (mut all, mut refusals) = (Vec::new(), Vec::new());
    for (name, connection) in &request.networks.0 {
        match departure(request, name, connection) {
            Ok(departure) => all.push(departure),
            Err(refusal) => refusals.push(refusal),
        }
    }
    Ok((all, refusals))
}

fn departure(request: &Request, name: &str, connection: &Connection) -> Result<Departure, Refusal> {
    check_name("network name", name)?;
    let network = request.network_info.get(name);
    let network = network.ok_or_else(|| Refusal::NoInfo(name.to_owned()))?;
    let link = leaving(&request.container_id, name, connection, network);
    let link = link.map_err(|source| Refusal::Network {
        network: name.to_owned(),
        source,
    })?;
    Ok(Departure {
        network: name.to_owned(),
        link,
    })
}

fn leaving(
    container: &str,
    name: &str,
    connection: &Connection,
    network: &Network,
) -> Result<Leaving, NetworkRefusal> {
    match network.driver.as_str() {
        "bridge" => {
            let bridge = network.network_interface.as_deref().unwrap_or_default();
            if bridge.is_empty() {
                return Err(NetworkRefusal::NoBridge);
            }
            let options = Options(network.options.as_ref());
            Ok(Leaving::Bridge {
                bridge: bridge.parse()?,
                port: port_of(container, name, connection)?,
                managed: options.text("mode") != Some("unmanaged"),
                guest: connection.interface_name.parse().ok(),
            })
        }
        "macvlan" | "ipvlan" => Ok(Leaving::Share(connection.interface_name.parse()?)),
        other => Err(NetworkRefusal::Driver(other.to_owned())),
    }
}
