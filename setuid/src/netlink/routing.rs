//! Routes, policy rules and neighbours (rtnetlink(7), ip-route(8), ip-rule(8), ip-neighbour(8)).

use super::address::family;
use super::{Message, Netlink, Refused};
use crate::names::MacAddr;
use netlink_bindings::rt_neigh::{Ndmsg, NudState, PushNeighbourAttrs};
use netlink_bindings::rt_route::{PushRouteAttrs, Rtmsg};
use netlink_bindings::rt_rule::{FibRuleHdr, FrAct, PushFibRuleAttrs};
use std::net::IpAddr;

/// RTPROT_STATIC, linux/rtnetlink.h: set by an administrator, here by us.
const STATIC: u8 = 4;

/// RTNH_F_ONLINK, linux/rtnetlink.h: the gateway need not be in a prefix of the link.
const ONLINK: u32 = 4;

/// A default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Through a neighbour on link `index`, which need not be in any prefix of it.
    Via {
        /// The neighbour.
        gateway: IpAddr,
        /// Link.
        index: u32,
        /// Routing table.
        table: u32,
    },
    /// Everything is an address of this host (IPv6 or not), for transparent sockets.
    Local {
        /// IPv6 rather than IPv4.
        ipv6: bool,
        /// Index of lo.
        index: u32,
        /// Routing table.
        table: u32,
    },
}

/// Set a default route, replacing one of the same table and family.
pub fn add_route(netlink: &mut Netlink, route: Route) -> Result<(), Refused> {
    let mut fixed = Rtmsg::new();
    fixed.rtm_protocol = STATIC;
    fixed.rtm_table = libc::RT_TABLE_UNSPEC;
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let message = match route {
        Route::Via {
            gateway,
            index,
            table,
        } => {
            fixed.rtm_family = family(gateway);
            fixed.rtm_type = libc::RTN_UNICAST;
            fixed.rtm_scope = libc::RT_SCOPE_UNIVERSE;
            fixed.rtm_flags = ONLINK;
            let mut message = Message::new(libc::RTM_NEWROUTE, flags, fixed.as_slice());
            PushRouteAttrs::new(message.attributes())
                .push_table(table)
                .push_oif(index)
                .push_gateway(gateway)
                .end_nested();
            message
        }
        Route::Local { ipv6, index, table } => {
            fixed.rtm_family = if ipv6 {
                libc::AF_INET6 as u8
            } else {
                libc::AF_INET as u8
            };
            fixed.rtm_type = libc::RTN_LOCAL;
            fixed.rtm_scope = libc::RT_SCOPE_HOST;
            let mut message = Message::new(libc::RTM_NEWROUTE, flags, fixed.as_slice());
            PushRouteAttrs::new(message.attributes())
                .push_table(table)
                .push_oif(index)
                .end_nested();
            message
        }
    };
    netlink.request(message)
}

/// Look packets marked `mark` up in `table` before any other.
pub fn add_rule(netlink: &mut Netlink, ipv6: bool, mark: u32, table: u32) -> Result<(), Refused> {
    let mut fixed = FibRuleHdr::new();
    fixed.family = if ipv6 {
        libc::AF_INET6 as u8
    } else {
        libc::AF_INET as u8
    };
    fixed.action = FrAct::ToTbl as u8;
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut message = Message::new(libc::RTM_NEWRULE, flags, fixed.as_slice());
    PushFibRuleAttrs::new(message.attributes())
        .push_priority(table)
        .push_fwmark(mark)
        .push_table(table)
        .end_nested();
    netlink.request(message)
}

/// A neighbour that is never asked for nor forgotten.
pub fn add_neighbour(
    netlink: &mut Netlink,
    index: u32,
    address: IpAddr,
    mac: MacAddr,
) -> Result<(), Refused> {
    let mut fixed = Ndmsg::new();
    fixed.ndm_family = family(address);
    fixed.ndm_ifindex = index as i32;
    fixed.ndm_state = NudState::Permanent as u16;
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let mut message = Message::new(libc::RTM_NEWNEIGH, flags, fixed.as_slice());
    PushNeighbourAttrs::new(message.attributes())
        .push_dst(address)
        .push_lladdr(&mac.octets())
        .end_nested();
    netlink.request(message)
}
