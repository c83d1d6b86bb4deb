//! The network of a container that another runtime made, for a process that publishes its ports.
//!
//! Place: used by the rootlessport drop-in, which podman starts with every capability over its own
//! namespaces; nothing of it runs in the helper's process. A [`View`] has netlink sockets that belong to one
//! network namespace, so that it is entered once.
//!
//! Invariant: what is set here and outlives its process does nothing without it: a policy rule for a mark that
//! then nobody sets. The rules that set it go with the view.
//!
//! Sources: netlink(7), ip-rule(8), ip(7) IP_TRANSPARENT.

use crate::names::IfName;
use crate::namespace::in_netns;
use crate::netlink::{
    Explain, LinkKind, Netlink, Route, Way, add_route, add_rule, addresses, default_routes,
};
use crate::request::Failure;
use crate::router::require_link;
use crate::ruleset::{self, Families, PORT_MARK};
use crate::sysctl;
use ipnet::IpNet;
use nix::errno::Errno;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// Every network namespace calls its loopback so.
const LOOPBACK: &str = "lo";
/// Where marked packets are looked up: everything is an address of this netns. Also the rule's priority,
/// before those of the main table.
const TABLE: u32 = PORT_MARK;

/// A network namespace, by sockets that belong to it.
#[derive(Debug)]
pub struct View {
    route: Netlink,
    netfilter: Netlink,
    families: Families,
}

/// Tells that something has changed in a network namespace.
#[derive(Debug)]
pub struct Changes(Netlink);

impl Changes {
    /// In one that this process is capable in, from now on.
    pub fn of(netns: BorrowedFd<'_>) -> Result<Self, Failure> {
        in_netns(netns, || {
            let netlink = Netlink::network_changes();
            netlink
                .map(Self)
                .map_err(|errno| Failure::kernel("follow changes of the network", errno))
        })
    }

    /// Forget what was told.
    pub fn forget(&mut self) {
        // That it cannot be read shows when it is waited for.
        let _ = self.0.heard(|_| false);
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One interface of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Index.
    pub index: u32,
    /// Index of the other end, where it is one of a veth pair.
    pub peer: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
}

/// What a container has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// All but the loopback.
    pub interfaces: Vec<Interface>,
    /// By where it leaves, in the order in which that counts.
    pub exits: Vec<Way>,
}

/// A bridge and what is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: IfName,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Index of each port and of the port's other end.
    pub ports: Vec<(u32, u32)>,
}

/// Where the sockets in clients' names are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side<'a> {
    /// On the other side of the bridge; the container answers from these addresses.
    Bridge(&'a [IpAddr]),
    /// In the container's own netns.
    Inside,
}

impl View {
    /// Of one that this process is capable in.
    pub fn of(netns: BorrowedFd<'_>) -> Result<Self, Failure> {
        in_netns(netns, || {
            let netlink = |what: &'static str| move |errno| Failure::kernel(what, errno);
            Ok(Self {
                route: Netlink::route().map_err(netlink("open rtnetlink"))?,
                netfilter: Netlink::netfilter().map_err(netlink("open nfnetlink"))?,
                families: Families {
                    ipv6: sysctl::has_ipv6(),
                },
            })
        })
    }

    /// Of a container in whose netns answers are told by the conversation that they belong to.
    pub fn of_conversations(netns: BorrowedFd<'_>) -> Result<Self, Failure> {
        in_netns(netns, || {
            sysctl::remember_datagrams();
            Ok(())
        })?;
        Self::of(netns)
    }

    /// What is there, of a container's.
    pub fn container(&mut self) -> Result<Container, Failure> {
        let links = self.route.links();
        let links = links.map_err(|e| e.failure("list the container's links"))?;
        let mut interfaces = Vec::new();
        for link in links.iter().filter(|link| link.name != LOOPBACK) {
            interfaces.push(Interface {
                index: link.index,
                peer: link.peer,
                addresses: self.addresses(link.index)?,
            });
        }
        let routes = default_routes(&mut self.route);
        let routes = routes.map_err(|e| e.failure("list the container's routes"))?;
        let mut exits: Vec<Way> = routes.iter().filter_map(|route| route.way()).collect();
        exits.sort_by_key(|way| way.metric);
        Ok(Container { interfaces, exits })
    }

    /// What is there, of bridges.
    pub fn bridges(&mut self) -> Result<Vec<Bridge>, Failure> {
        let links = self.route.links();
        let links = links.map_err(|e| e.failure("list the bridges"))?;
        let is_bridge = |kind| kind == LinkKind::Bridge;
        let mut bridges = Vec::new();
        for bridge in links.iter().filter(|link| is_bridge(link.kind)) {
            let Ok(name) = bridge.name.parse() else {
                continue;
            };
            let ports = links
                .iter()
                .filter(|link| link.master == Some(bridge.index));
            bridges.push(Bridge {
                name,
                addresses: self.addresses(bridge.index)?,
                ports: ports
                    .filter_map(|port| Some((port.index, port.peer?)))
                    .collect(),
            });
        }
        Ok(bridges)
    }

    fn addresses(&mut self, index: u32) -> Result<Vec<IpNet>, Failure> {
        addresses(&mut self.route, index).map_err(|e| e.failure("list addresses"))
    }

    /// Have answers to sockets in clients' names come to them, until this view is dropped. Again is a change.
    pub fn lead_answers(&mut self, side: Side<'_>) -> Result<(), Failure> {
        self.policy()?;
        let process = std::process::id();
        let ruleset = match side {
            Side::Bridge(targets) => ruleset::ports_by_bridge(process, targets, self.families),
            Side::Inside => ruleset::ports_inside(process),
        };
        ruleset::apply(&mut self.netfilter, &ruleset)
    }

    /// The same for every process in this netns, and kept: it is for marked packets only.
    fn policy(&mut self) -> Result<(), Failure> {
        let route = &mut self.route;
        let lo = require_link(route, LOOPBACK)?;
        route.set_up(lo).map_err(|e| e.failure("set lo up"))?;
        let families: &[bool] = if self.families.ipv6 {
            &[false, true]
        } else {
            &[false]
        };
        for ipv6 in families.iter().copied() {
            let local = Route::Local {
                ipv6,
                index: lo,
                table: TABLE,
            };
            let set = add_route(route, local).and_then(|()| {
                match add_rule(route, ipv6, PORT_MARK, TABLE) {
                    Err(refused) if refused.errno == Errno::EEXIST => Ok(()),
                    other => other,
                }
            });
            match set {
                // IPv6 is switched off there, and so no client of it comes.
                Err(refused)
                    if ipv6 && matches!(refused.errno, Errno::EACCES | Errno::EAFNOSUPPORT) => {}
                other => other.map_err(|e| e.failure("lead marked packets to sockets"))?,
            }
        }
        Ok(())
    }
}
