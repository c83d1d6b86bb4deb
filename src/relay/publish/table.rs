//! What each listening socket leads to, compiled from a snapshot.
//!
//! Built by the control thread, read by all workers. Invariant: an entry that has not changed stays
//! the same object from one table to the next, and a table in which nothing has changed is the same
//! table, so that other news costs published ports nothing.

use super::listener::{Bound, Counts, Listener, wildcard};
use super::source::Way;
use crate::network::snapshot::{NetworkView, PublishView, Snapshot};
use crate::ports::{HostAddr, Port, SourceAddress};
use serde::Serialize;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Listening sockets by where they listen.
pub type Listeners = HashMap<Bound, Arc<Listener>>;

/// Every published port.
#[derive(Debug, Default)]
pub struct Table {
    entries: HashMap<Bound, Arc<Published>>,
}

/// One published port.
#[derive(Debug, PartialEq)]
pub struct Published {
    listener: ByAddress,
    port: Port,
    route: Arc<Route>,
}

/// Listeners are the same where they are the same object.
#[derive(Debug)]
struct ByAddress(Arc<Listener>);

impl PartialEq for ByAddress {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Where all ports of one publish lead.
#[derive(Debug, PartialEq, Eq)]
struct Route {
    sandbox: String,
    /// IPv4, IPv6.
    endpoints: [Option<Endpoint>; 2],
    keep: bool,
    either_family: bool,
}

/// A container's address, and what is known of its network.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Endpoint {
    address: IpAddr,
    gateway: IpAddr,
    /// None: the sockets are in the container's own netns.
    bridge: Option<String>,
    internal: bool,
}

/// Where a client is led.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The container's address and port.
    pub address: SocketAddr,
    /// The router's address on that network.
    pub gateway: IpAddr,
    /// The bridge of that network, where one is between.
    pub bridge: Option<&'a str>,
    /// What decides whom the container sees.
    pub way: Way,
}

impl Published {
    /// The socket.
    pub fn listener(&self) -> &Arc<Listener> {
        &self.listener.0
    }

    /// The sandbox, for logs.
    pub fn sandbox(&self) -> &str {
        &self.route.sandbox
    }

    /// Where a client is led: by its own family where the container has an address of it.
    pub fn target(&self, client: IpAddr) -> Option<Target<'_>> {
        self.target_by(client.is_ipv6())
    }

    /// Where a client may be led that was refused at the target of this family.
    pub fn other_target(&self, refused_v6: bool) -> Option<Target<'_>> {
        let other = self.target_by(!refused_v6);
        other.filter(|other| self.route.either_family && other.way.v6 != refused_v6)
    }

    /// By this family, or else by the other one.
    fn target_by(&self, v6: bool) -> Option<Target<'_>> {
        let [own, other] = match (&self.route.endpoints, v6) {
            ([v4, v6], true) => [v6, v4],
            ([v4, v6], false) => [v4, v6],
        };
        let endpoint = own.as_ref().or(other.as_ref())?;
        Some(Target {
            address: SocketAddr::new(endpoint.address, self.port.get()),
            gateway: endpoint.gateway,
            bridge: endpoint.bridge.as_deref(),
            way: Way {
                keep: self.route.keep,
                internal: endpoint.internal,
                v6: endpoint.address.is_ipv6(),
            },
        })
    }
}

impl Route {
    fn new(view: &PublishView, networks: &[NetworkView]) -> Self {
        let endpoint = |v6: bool| {
            let address = view.targets.iter().find(|target| target.is_ipv6() == v6)?;
            let holds =
                |network: &&NetworkView| network.subnets.iter().any(|net| net.contains(address));
            let network = networks.iter().find(holds)?;
            let mut gateways = network.gateways.iter();
            Some(Endpoint {
                address: *address,
                // Without one the kernel chooses, and there is but the bridge's to choose.
                gateway: gateways
                    .find(|gateway| gateway.is_ipv6() == v6)
                    .copied()
                    .unwrap_or(wildcard(v6)),
                bridge: (!view.inside).then(|| network.bridge.to_string()),
                internal: network.internal,
            })
        };
        Self {
            sandbox: view.sandbox.clone(),
            endpoints: [endpoint(false), endpoint(true)],
            keep: view.publish.source() == SourceAddress::Keep,
            either_family: view.either_family,
        }
    }
}

/// One line of the counters.
#[derive(Debug, Serialize)]
pub struct Line {
    /// The socket, as `*:8080/tcp`.
    pub listener: String,
    /// The sandbox that it leads to.
    pub sandbox: String,
    /// What it has seen.
    #[serde(flatten)]
    pub counts: Counts,
}

impl Table {
    /// Compiles; `before` is the table so far. Also gives the ports that have no listener.
    pub fn build(
        snapshot: &Snapshot,
        listeners: &Listeners,
        before: &Arc<Self>,
    ) -> (Arc<Self>, Vec<Bound>) {
        let mut entries = HashMap::with_capacity(before.entries.len());
        let mut missing = Vec::new();
        let mut changed = false;
        for view in &snapshot.publishes {
            let route = Arc::new(Route::new(view, &snapshot.networks));
            for host_port in view.publish.host_ports().iter() {
                let Some(port) = view.publish.leads_to(host_port) else {
                    continue;
                };
                let wanted = Bound {
                    proto: view.publish.proto(),
                    addr: view.publish.host_addr(),
                    port: host_port,
                };
                let Some(listener) = find(listeners, wanted) else {
                    missing.push(wanted);
                    continue;
                };
                let published = Published {
                    listener: ByAddress(Arc::clone(listener)),
                    port,
                    route: Arc::clone(&route),
                };
                let bound = listener.bound();
                let old = before.entries.get(&bound).filter(|old| ***old == published);
                changed |= old.is_none();
                let entry = old.map_or_else(|| Arc::new(published), Arc::clone);
                entries.insert(bound, entry);
            }
        }
        if !changed && entries.len() == before.entries.len() {
            return (Arc::clone(before), missing);
        }
        (Arc::new(Self { entries }), missing)
    }

    /// What a socket leads to.
    pub fn get(&self, bound: &Bound) -> Option<&Arc<Published>> {
        self.entries.get(bound)
    }

    /// Every published port.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Published>> {
        self.entries.values()
    }

    /// What every published port has seen, sorted.
    pub fn counts(&self) -> Vec<Line> {
        let mut all: Vec<_> = self.entries.iter().collect();
        all.sort_unstable_by_key(|(bound, _)| **bound);
        let line = |(bound, published): (&Bound, &Arc<Published>)| Line {
            listener: bound.to_string(),
            sandbox: published.sandbox().to_owned(),
            counts: published.listener().counters.read(),
        };
        all.into_iter().map(line).collect()
    }
}

/// The socket for a published port. Where the host has no IPv6, `Any` is an IPv4 socket.
fn find(listeners: &Listeners, wanted: Bound) -> Option<&Arc<Listener>> {
    listeners.get(&wanted).or_else(|| {
        let v4 = Bound {
            addr: HostAddr::Only(wildcard(false)),
            ..wanted
        };
        (wanted.addr == HostAddr::Any)
            .then(|| listeners.get(&v4))
            .flatten()
    })
}
