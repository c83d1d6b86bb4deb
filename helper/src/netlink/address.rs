//! Addresses of links (rtnetlink(7), ip-address(8)).

use super::{Message, Netlink, Refused};
use ipnet::IpNet;
use netlink_bindings::rt_addr::{AddrAttrs, IfaFlags, Ifaddrmsg, OpGetaddrDump, PushAddrAttrs};
use netlink_bindings::traits::NetlinkRequest;
use nix::errno::Errno;
use std::net::IpAddr;

/// Give a link an address, usable at once: IPAM keeps addresses unique, so no duplicate address
/// detection. Present already is success.
pub fn add_address(netlink: &mut Netlink, index: u32, address: IpNet) -> Result<(), Refused> {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    netlink.request(message(libc::RTM_NEWADDR, flags, index, address))
}

/// Take an address from a link; absent is success.
pub fn remove_address(netlink: &mut Netlink, index: u32, address: IpNet) -> Result<(), Refused> {
    match netlink.request(message(libc::RTM_DELADDR, 0, index, address)) {
        Err(refused) if refused.errno == Errno::EADDRNOTAVAIL => Ok(()),
        other => other,
    }
}

/// The addresses of a link, without link-local ones, which the kernel makes.
pub fn addresses(netlink: &mut Netlink, index: u32) -> Result<Vec<IpNet>, Refused> {
    let mut found = Vec::new();
    let request = Message::new(libc::RTM_GETADDR, 0, Ifaddrmsg::new().as_slice());
    netlink.dump(request, |payload| found.extend(decode(payload, index)))?;
    Ok(found)
}

fn message(kind: u16, flags: i32, index: u32, address: IpNet) -> Message {
    let mut fixed = Ifaddrmsg::new();
    fixed.ifa_family = family(address.addr());
    fixed.ifa_prefixlen = address.prefix_len();
    fixed.ifa_index = index;
    if address.addr().is_ipv6() {
        fixed.ifa_flags = IfaFlags::Nodad as u8;
    }
    let mut message = Message::new(kind, flags, fixed.as_slice());
    let attributes = PushAddrAttrs::new(message.attributes())
        .push_local(address.addr())
        .push_address(address.addr());
    match address {
        IpNet::V4(net) if net.prefix_len() < 31 => {
            attributes.push_broadcast(net.broadcast()).end_nested();
        }
        IpNet::V4(_) | IpNet::V6(_) => {
            attributes.end_nested();
        }
    }
    message
}

fn decode(payload: &[u8], index: u32) -> Option<IpNet> {
    let (fixed, attributes) = OpGetaddrDump::decode_reply(payload);
    let mut local = None;
    let mut address = None;
    for attribute in attributes.flatten() {
        match attribute {
            AddrAttrs::Local(found) => local = Some(found),
            AddrAttrs::Address(found) => address = Some(found),
            _ => {}
        }
    }
    let found = local.or(address).filter(|found| !is_link_local(*found));
    if fixed.ifa_index != index {
        return None;
    }
    IpNet::new(found?, fixed.ifa_prefixlen).ok()
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// AF_INET or AF_INET6, as headers carry it.
pub(super) fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}
