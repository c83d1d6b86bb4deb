//! Routes, addresses and neighbours of the host (rtnetlink(7)).

use super::{Host, Result};
use crate::attribute::{each, put, word};
use ipnet::IpNet;
use mossnet_netlink::{MacAddr, Message};
use nix::errno::Errno;
use std::net::IpAddr;

const RTA_DST: u16 = libc::RTA_DST;
const RTA_OIF: u16 = libc::RTA_OIF;
const RTA_GATEWAY: u16 = libc::RTA_GATEWAY;
/// struct rtmsg.
const RTM_FIXED: usize = 12;
/// RTPROT_STATIC: set by an administrator, here by us.
const STATIC: u8 = 4;
/// RTNH_F_ONLINK: the gateway need not be in a prefix of the link.
const ONLINK: u32 = 4;
/// RTM_F_CLONED: a cached exception, not a route.
const CLONED: u32 = 0x200;
/// NUD_PERMANENT.
const PERMANENT: u16 = 0x80;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

/// A route of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub prefix: IpNet,
    /// Through which link; 0 for one that leads nowhere, such as a blackhole.
    pub link: u32,
}

impl Host {
    /// Every route of every table but default routes, those by halves included, as VPNs set them.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        let request = Message::new(libc::RTM_GETROUTE, 0, &[0; RTM_FIXED]);
        self.dump("list routes", request, |payload| {
            routes.extend(decode(payload));
        })?;
        Ok(routes)
    }

    /// Lead a subnet through a neighbour on a link; there already is success.
    pub fn add_route(&mut self, subnet: IpNet, gateway: IpAddr, link: u32) -> Result<()> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let request = route(libc::RTM_NEWROUTE, flags, subnet, gateway, link);
        match self.change("add a route", request) {
            Err(error) if error.errno() == Some(Errno::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// The opposite; absent is success.
    pub fn remove_route(&mut self, subnet: IpNet, gateway: IpAddr, link: u32) -> Result<()> {
        let request = route(libc::RTM_DELROUTE, 0, subnet, gateway, link);
        match self.change("remove a route", request) {
            Err(error) if error.errno() == Some(Errno::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// A host address on a link, usable at once.
    pub fn add_address(&mut self, address: IpAddr, link: u32) -> Result<()> {
        let (family, bytes) = parts(address);
        let length = bytes.len() as u8 * 8;
        let mut fixed = vec![family, length, libc::IFA_F_NODAD as u8, 0];
        fixed.extend(link.to_ne_bytes());
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let mut request = Message::new(libc::RTM_NEWADDR, flags, &fixed);
        put(request.attributes(), libc::IFA_LOCAL, &bytes);
        put(request.attributes(), libc::IFA_ADDRESS, &bytes);
        self.change("add an address", request)
    }

    /// A neighbour that is never asked for nor forgotten.
    pub fn add_neighbour(&mut self, address: IpAddr, mac: MacAddr, link: u32) -> Result<()> {
        let (family, bytes) = parts(address);
        let mut fixed = vec![family, 0, 0, 0];
        fixed.extend(link.to_ne_bytes());
        fixed.extend(PERMANENT.to_ne_bytes());
        fixed.extend([0; 2]);
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let mut request = Message::new(libc::RTM_NEWNEIGH, flags, &fixed);
        put(request.attributes(), NDA_DST, &bytes);
        put(request.attributes(), NDA_LLADDR, &mac.octets());
        self.change("add a neighbour", request)
    }
}

fn route(kind: u16, flags: i32, subnet: IpNet, gateway: IpAddr, link: u32) -> Message {
    let (family, bytes) = parts(subnet.network());
    let mut fixed = [0; RTM_FIXED];
    fixed[0] = family;
    fixed[1] = subnet.prefix_len();
    fixed[4] = libc::RT_TABLE_MAIN;
    fixed[5] = STATIC;
    fixed[7] = libc::RTN_UNICAST;
    if kind == libc::RTM_NEWROUTE {
        fixed[8..12].copy_from_slice(&ONLINK.to_ne_bytes());
    }
    let mut message = Message::new(kind, flags, &fixed);
    put(message.attributes(), RTA_DST, &bytes);
    put(message.attributes(), RTA_GATEWAY, &parts(gateway).1);
    put(message.attributes(), RTA_OIF, &link.to_ne_bytes());
    message
}

/// Address family and bytes.
fn parts(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (libc::AF_INET as u8, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6 as u8, address.octets().to_vec()),
    }
}

fn decode(payload: &[u8]) -> Option<Route> {
    let (family, length) = (*payload.first()?, *payload.get(1)?);
    if word(payload.get(8..RTM_FIXED)?)? & CLONED != 0 {
        return None;
    }
    let (mut to, mut link) = (None, 0);
    for (kind, value) in each(payload.get(RTM_FIXED..)?) {
        match kind {
            RTA_DST => to = address(value),
            RTA_OIF => link = word(value)?,
            _ => {}
        }
    }
    // A half of everything is a default route in disguise; IPv6's is 2000::/3.
    let default = match i32::from(family) {
        libc::AF_INET => length <= 1,
        libc::AF_INET6 => length <= 3,
        _ => return None,
    };
    let prefix = IpNet::new(to?, length).ok().filter(|_| !default)?;
    Some(Route { prefix, link })
}

fn address(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from))
        .ok()
}
