//! What the host's network looks like: by which interface each family leaves, with which addresses.
//!
//! Sources: rtnetlink(7).

use crate::network::snapshot::ExitView;
use ipnet::IpNet;
use mossnet_helper::netlink::{
    DefaultRoute, Explain, Netlink, Way as LedBy, addresses, default_routes,
};
use mossnet_helper::request::Failure;
use nix::net::if_::if_nametoindex;
use std::net::{IpAddr, UdpSocket};

/// How one family leaves the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// By this interface.
    pub interface: String,
    /// Through this neighbour; none where the link leads to one only.
    pub gateway: Option<IpAddr>,
    /// The interface's addresses of this family.
    pub addresses: Vec<IpNet>,
}

/// IPv4, IPv6; absent where the family leads nowhere.
pub type Host = [Option<Way>; 2];

/// Looks, from the host's network namespace: at `interface`, or at the one that the best default route
/// leads to.
pub fn look(interface: Option<&str>) -> Result<Host, Failure> {
    let mut netlink = Netlink::route().map_err(|e| Failure::kernel("open rtnetlink", e))?;
    let wanted = match interface {
        None => None,
        Some(name) => {
            let link = netlink.link(name);
            let link = link.map_err(|e| e.failure(format!("look for {name}")))?;
            let absent = || Failure::not_found(format!("the host has no interface {name}"));
            Some(link.ok_or_else(absent)?.index)
        }
    };
    let routes = default_routes(&mut netlink).map_err(|e| e.failure("list the default routes"))?;
    let mut ways = [None, None];
    for (way, ipv6) in ways.iter_mut().zip([false, true]) {
        let best = best(&routes, ipv6, wanted);
        let index = best.map(|best| best.index).or(wanted);
        if let Some(index) = index {
            *way = describe(
                &mut netlink,
                index,
                best.and_then(|best| best.gateway),
                ipv6,
            )?;
        }
    }
    Ok(ways)
}

/// Refuses addresses and interfaces to leave by that the host does not have.
pub fn check_exits(exits: &[ExitView]) -> Result<(), Failure> {
    for exit in exits {
        if let Some(name) = &exit.interface {
            if_nametoindex(name.as_str())
                .map_err(|_| Failure::not_found(format!("the host has no interface {name}")))?;
        }
        if let Some(address) = exit.address {
            UdpSocket::bind((address, 0))
                .map_err(|_| Failure::not_found(format!("the host has no address {address}")))?;
        }
    }
    Ok(())
}

fn best(routes: &[DefaultRoute], ipv6: bool, wanted: Option<u32>) -> Option<LedBy> {
    let fits = |way: &LedBy| way.ipv6 == ipv6 && wanted.is_none_or(|wanted| way.index == wanted);
    let ways = routes.iter().filter_map(DefaultRoute::way);
    ways.filter(fits).min_by_key(|way| way.metric)
}

fn describe(
    netlink: &mut Netlink,
    index: u32,
    gateway: Option<IpAddr>,
    ipv6: bool,
) -> Result<Option<Way>, Failure> {
    let links = netlink.links().map_err(|e| e.failure("list the links"))?;
    let Some(link) = links.into_iter().find(|link| link.index == index) else {
        return Ok(None);
    };
    let all = addresses(netlink, index);
    let mut all = all.map_err(|e| e.failure(format!("list the addresses of {}", link.name)))?;
    all.retain(|net| net.addr().is_ipv6() == ipv6);
    let way = Way {
        interface: link.name,
        gateway,
        addresses: all,
    };
    Ok((!way.addresses.is_empty()).then_some(way))
}
