//! The record and the kernel, in step again: what one has and the other has not goes.

use super::{Result, Session};
use crate::kernel::link::Link as KernelLink;
use crate::kernel::nft;
use crate::kernel::socket_table::SocketTable;
use crate::record::{self, LinkKind};
use crate::request::{HOST_V4, ROUTER_V4, ROUTER_V6};
use ipnet::IpNet;
use std::net::IpAddr;

/// Where routes to a subnet behind an uplink lead.
pub fn gateway(subnet: &IpNet) -> IpAddr {
    match subnet {
        IpNet::V4(_) => ROUTER_V4.into(),
        IpNet::V6(_) => ROUTER_V6.into(),
    }
}

impl Session<'_> {
    /// Strike out what is no more, and remove what nobody is charged for.
    pub fn reconcile(&mut self) -> Result<()> {
        let found = self.host.links()?;
        let links = self.store.record.links.clone();
        let mut gone = Vec::new();
        for link in &links {
            if !self.is_there(link, &found)? {
                gone.push(link);
            }
        }
        for link in &gone {
            // One that was being made may be there in part.
            if let Some(left) = self.find(link)?.filter(|_| link.index == 0) {
                self.host.remove_link(super::place(link), left.index)?;
            }
            self.store.record.strike(link.id);
        }
        for orphan in found.iter().filter(|link| is_orphan(link, &links)) {
            self.host.remove_link(None, orphan.index)?;
        }
        let sockets = self.store.record.sockets.len();
        let table = SocketTable::read();
        let open =
            |socket: &mut record::Socket| table.has(socket.protocol, socket.port, socket.inode);
        self.store.record.sockets.retain_mut(open);
        let ports_gone = self.store.record.sockets.len() < sockets;
        if gone.is_empty() && !ports_gone {
            return Ok(());
        }
        self.store.save()?;
        for kind in [LinkKind::Bridge, LinkKind::Uplink] {
            let published = ports_gone && kind == LinkKind::Uplink;
            if published || gone.iter().any(|link| link.kind == kind) {
                self.apply_rules(kind)?;
            }
        }
        Ok(())
    }

    fn is_there(&mut self, link: &record::Link, found: &[KernelLink]) -> Result<bool> {
        if link.index == 0 {
            return Ok(false);
        }
        if link.kind == LinkKind::Veth {
            return Ok(self.find(link)?.is_some());
        }
        let same = |other: &KernelLink| {
            other.index == link.index && other.name == link.name.as_str() && other.is_ours()
        };
        Ok(found.iter().any(same))
    }

    /// Make the routes of an uplink those that the record has for it.
    pub fn repair_routes(&mut self, link: &record::Link) -> Result<()> {
        let routes = self.host.routes()?;
        let ours = routes.iter().filter(|route| route.link == link.index);
        let surplus = ours.map(|route| route.prefix).filter(|prefix| {
            // The kernel has some of its own: the link's address, multicast.
            let own = IpAddr::from(HOST_V4);
            let kernels = prefix.addr() == own || !is_subnet(prefix);
            !kernels && !link.prefixes.contains(prefix)
        });
        for prefix in surplus {
            self.host
                .remove_route(prefix, gateway(&prefix), link.index)?;
        }
        for prefix in &link.prefixes {
            self.host.add_route(*prefix, gateway(prefix), link.index)?;
        }
        Ok(())
    }
}

/// It may have been a granted subnet: neither link-local nor multicast.
fn is_subnet(prefix: &IpNet) -> bool {
    match prefix.addr() {
        IpAddr::V4(address) => {
            !address.is_link_local() && !address.is_multicast() && !address.is_broadcast()
        }
        IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_multicast(),
    }
}

/// A link of ours that the record does not know.
fn is_orphan(found: &KernelLink, links: &[record::Link]) -> bool {
    let prefixes = [nft::UPLINK_PREFIX, nft::PORT_PREFIX];
    let named = prefixes.iter().any(|prefix| found.name.starts_with(prefix));
    let known = links.iter().any(|link| link.name.as_str() == found.name);
    found.is_ours() && named && !known
}
