//! The uplink pair: `up0` is where everything without a nearer route goes, `up1` is the relay's end.
//!
//! Sources: design.md section 4.

use super::{Router, link_failure, require_link};
use crate::names::{IfName, MacAddr};
use crate::namespace::in_netns;
use crate::netlink::Explain;
use crate::netlink::{Route, add_address, add_neighbour, add_route, add_rule};
use crate::request::Failure;
use crate::ruleset::{KERNEL_MARK, PASTA_MARK, RELAY_MARK, SLIRP_MARK, WHOLE_MARK};
use crate::sysctl;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

/// Every network namespace calls its loopback so.
const LOOPBACK: &str = "lo";
/// The router's end of the uplink pair, and the relay's.
const UP0: &str = "up0";
const UP1: &str = "up1";
const UP0_MAC: [u8; 6] = [0x02, 0x6d, 0x6f, 0x73, 0x73, 0x00];
const UP1_MAC: [u8; 6] = [0x02, 0x6d, 0x6f, 0x73, 0x73, 0x01];
/// The largest that a veth takes: containers' segments pass unsplit.
const UP_MTU: u32 = 65535;
/// Where everything without a nearer route goes; nobody has these addresses, the gate answers.
const GATE_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 1);
const GATE_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);
const UP0_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 2);
const UP0_PREFIX: u8 = 30;

/// Routing tables by mark: to transparent sockets, and out by external uplinks.
const TABLES: [(u32, u32); 5] = [
    (RELAY_MARK, RELAY_TABLE),
    (WHOLE_MARK, RELAY_TABLE),
    (PASTA_MARK, 102),
    (SLIRP_MARK, 103),
    (KERNEL_MARK, 104),
];
const RELAY_TABLE: u32 = 100;

/// The routing table for packets with this mark.
pub fn table_of(mark: u32) -> u32 {
    TABLES
        .iter()
        .find(|(of, _)| *of == mark)
        .map_or(RELAY_TABLE, |(_, table)| *table)
}

impl Router {
    /// Make the uplink pair and the routes to it. Links made later have no IPv6 unless they are
    /// given it: a port of a bridge needs no addresses, and a route for each would be a long list.
    pub(super) fn set_up_uplink(&mut self) -> Result<(), Failure> {
        let name = |name: &str| {
            name.parse::<IfName>()
                .map_err(|e| Failure::invalid(e.to_string()))
        };
        let mac =
            |mac: [u8; 6]| MacAddr::try_from(mac).map_err(|e| Failure::invalid(e.to_string()));
        let (up0_mac, up1_mac) = (mac(UP0_MAC)?, mac(UP1_MAC)?);
        let route = &mut self.route;
        let lo = require_link(route, LOOPBACK)?;
        route.set_up(lo).map_err(|e| e.failure("set lo up"))?;
        route
            .add_veth_pair((&name(UP0)?, up0_mac), (&name(UP1)?, up1_mac), UP_MTU)
            .map_err(|refused| link_failure(refused, "create the uplink pair", "veth"))?;
        let up0 = require_link(route, UP0)?;
        for end in [up0, require_link(route, UP1)?] {
            route
                .set_up(end)
                .map_err(|e| e.failure("set the uplink pair up"))?;
        }
        let address = IpNet::new(UP0_V4.into(), UP0_PREFIX);
        let address = address.map_err(|e| Failure::invalid(e.to_string()))?;
        add_address(route, up0, address).map_err(|e| e.failure("give up0 its address"))?;
        let gates: &[IpAddr] = match self.families.ipv6 {
            true => &[IpAddr::V4(GATE_V4), IpAddr::V6(GATE_V6)],
            false => &[IpAddr::V4(GATE_V4)],
        };
        let main = libc::RT_TABLE_MAIN.into();
        for gateway in gates.iter().copied() {
            let ipv6 = gateway.is_ipv6();
            add_neighbour(route, up0, gateway, up1_mac)
                .map_err(|e| e.failure(format!("make {gateway} a neighbour")))?;
            add_route(
                route,
                Route::Via {
                    gateway,
                    index: up0,
                    table: main,
                },
            )
            .map_err(|e| e.failure(format!("route everything via {gateway}")))?;
            add_route(
                route,
                Route::Local {
                    ipv6,
                    index: lo,
                    table: RELAY_TABLE,
                },
            )
            .map_err(|e| e.failure("route marked packets to transparent sockets"))?;
            for (mark, table) in TABLES {
                add_rule(route, ipv6, mark, table)
                    .map_err(|e| e.failure(format!("add a policy rule for mark {mark}")))?;
            }
        }
        if !self.families.ipv6 {
            return Ok(());
        }
        in_netns(self.netns.as_fd(), || sysctl::set_ipv6("default", false))
    }
}
