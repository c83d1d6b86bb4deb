//! Routes, policy rules and neighbours (rtnetlink(7), ip-route(8), ip-rule(8), ip-neighbour(8)).

use super::address::family;
use super::{Message, Netlink, Refused};
use crate::names::MacAddr;
use ipnet::IpNet;
use netlink_bindings::rt_neigh::{Ndmsg, NudState, PushNeighbourAttrs};
use netlink_bindings::rt_route::{OpGetrouteDump, PushRouteAttrs, RouteAttrs, Rtmsg};
use netlink_bindings::rt_rule::{FibRuleHdr, FrAct, PushFibRuleAttrs};
use netlink_bindings::traits::NetlinkRequest;
use nix::errno::Errno;
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

/// A route to one prefix, by one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixRoute {
    /// Where to.
    pub destination: IpNet,
    /// How.
    pub kind: RouteKind,
    /// Of several to the same prefix, the lowest counts; absent: the kernel's.
    pub metric: Option<u32>,
}

/// What happens to packets that a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// They go to this neighbour.
    Via(IpAddr),
    /// They go out by the link: the destination is there.
    Link,
    /// They are lost.
    Blackhole,
    /// They come back: no route to host.
    Unreachable,
    /// They come back: forbidden.
    Prohibit,
}

/// Set a route of the main table; one with the same destination and metric must not be there.
pub fn add_prefix_route(
    netlink: &mut Netlink,
    route: &PrefixRoute,
    index: u32,
) -> Result<(), Refused> {
    let mut fixed = Rtmsg::new();
    fixed.rtm_family = family(route.destination.addr());
    fixed.rtm_dst_len = route.destination.prefix_len();
    fixed.rtm_protocol = STATIC;
    fixed.rtm_scope = match (route.kind, route.destination) {
        (RouteKind::Link, IpNet::V4(_)) => libc::RT_SCOPE_LINK,
        _ => libc::RT_SCOPE_UNIVERSE,
    };
    fixed.rtm_table = libc::RT_TABLE_MAIN;
    fixed.rtm_type = match route.kind {
        RouteKind::Via(_) | RouteKind::Link => libc::RTN_UNICAST,
        RouteKind::Blackhole => libc::RTN_BLACKHOLE,
        RouteKind::Unreachable => libc::RTN_UNREACHABLE,
        RouteKind::Prohibit => libc::RTN_PROHIBIT,
    };
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut message = Message::new(libc::RTM_NEWROUTE, flags, fixed.as_slice());
    let mut attributes = PushRouteAttrs::new(message.attributes());
    if route.destination.prefix_len() > 0 {
        attributes = attributes.push_dst(route.destination.network());
    }
    match route.kind {
        RouteKind::Via(gateway) => attributes = attributes.push_gateway(gateway).push_oif(index),
        RouteKind::Link => attributes = attributes.push_oif(index),
        RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit => {}
    }
    if let Some(metric) = route.metric {
        attributes = attributes.push_priority(metric);
    }
    attributes.end_nested();
    netlink.request(message)
}

/// The metric of an IPv6 route that is given none (IP6_RT_PRIO_USER, net/ip6_route.h).
const METRIC_V6: u32 = 1024;

/// Where `struct rtmsg` has its flags.
const FLAGS: std::ops::Range<usize> = 8..12;

/// A default route of the main table, as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Where it leads, if it is one that [`add_route`] could have set.
    plain: Option<(IpAddr, u32)>,
    way: Option<Way>,
    payload: Vec<u8>,
}

/// Where a default route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// IPv6 rather than IPv4.
    pub ipv6: bool,
    /// Of several, the lowest counts.
    pub metric: u32,
    /// The neighbour; none: everybody is on the link.
    pub gateway: Option<IpAddr>,
    /// The link.
    pub index: u32,
}

impl DefaultRoute {
    /// The link it leads to, if it is one that [`add_route`] could have set.
    pub fn link(&self) -> Option<u32> {
        self.plain.map(|(_, index)| index)
    }

    /// Where it leads, whatever its metric, if it leads by one link.
    pub fn way(&self) -> Option<Way> {
        self.way
    }

    /// It is what [`add_route`] would set.
    pub fn is(&self, gateway: IpAddr, index: u32) -> bool {
        self.plain == Some((gateway, index))
    }
}

/// Every default route of the main table, of both families, whatever its metric and kind.
pub fn default_routes(netlink: &mut Netlink) -> Result<Vec<DefaultRoute>, Refused> {
    let mut found = Vec::new();
    let request = Message::new(libc::RTM_GETROUTE, 0, Rtmsg::new().as_slice());
    netlink.dump(request, |payload| found.extend(decode_default(payload)))?;
    Ok(found)
}

/// Remove a route that was found; already gone is success.
pub fn remove_route(netlink: &mut Netlink, route: &DefaultRoute) -> Result<(), Refused> {
    let mut payload = route.payload.clone();
    // Those that tell a state are refused in a request.
    if let Some(flags) = payload.get_mut(FLAGS) {
        flags.copy_from_slice(&ONLINK.to_ne_bytes());
    }
    match netlink.request(Message::new(libc::RTM_DELROUTE, 0, &payload)) {
        Err(refused) if refused.errno == Errno::ESRCH => Ok(()),
        other => other,
    }
}

fn decode_default(payload: &[u8]) -> Option<DefaultRoute> {
    let (fixed, attributes) = OpGetrouteDump::decode_reply(payload);
    let ipv6 = match i32::from(fixed.rtm_family) {
        libc::AF_INET => false,
        libc::AF_INET6 => true,
        _ => return None,
    };
    let mut table = u32::from(fixed.rtm_table);
    let mut metric = 0;
    let (mut gateway, mut index) = (None, None);
    for attribute in attributes.flatten() {
        match attribute {
            RouteAttrs::Table(found) => table = found,
            RouteAttrs::Priority(found) => metric = found,
            RouteAttrs::Gateway(found) => gateway = Some(found),
            RouteAttrs::Oif(found) => index = Some(found),
            _ => {}
        }
    }
    if fixed.rtm_dst_len != 0 || table != u32::from(libc::RT_TABLE_MAIN) {
        return None;
    }
    let usual = if ipv6 { METRIC_V6 } else { 0 };
    let unicast = fixed.rtm_type == libc::RTN_UNICAST;
    let way = index.filter(|_| unicast).map(|index| Way {
        ipv6,
        metric,
        gateway,
        index,
    });
    let plain = metric == usual && unicast && fixed.rtm_tos == 0;
    Some(DefaultRoute {
        plain: gateway.zip(index).filter(|_| plain),
        way,
        payload: payload.to_vec(),
    })
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
