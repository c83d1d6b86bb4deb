//! `uplink`: a veth from the caller's router netns into the host, with routes, masquerade and rules.

use super::{Result, Session, random_mac};
use crate::act::Refusal;
use crate::kernel::link::End;
use crate::kernel::nft;
use crate::kernel::sysctl::{self, Family};
use crate::policy::overlap;
use crate::record::{Link, LinkKind};
use crate::request::{
    HOST_V4, HOST_V6, Made, ROUTER_V4, ROUTER_V6, Reply, Unavailable, Uplink, UplinkMade,
};
use ipnet::IpNet;
use std::os::fd::{AsFd, OwnedFd};

impl Session<'_> {
    pub(super) fn uplink(&mut self, uplink: &Uplink, router: &OwnedFd) -> Result<Reply> {
        let rights = self.rights;
        if let Some(subnet) = uplink.subnets.iter().find(|net| !rights.allow_subnet(net)) {
            return Err(Refusal::Subnet(*subnet));
        }
        let id = self.host.namespace_id(router.as_fd())?;
        let there = match self.store.record.uplink_of(self.uid, id.0).cloned() {
            // The number may have been another namespace's.
            Some(link) => {
                let found = self.host.link_at(None, link.index)?;
                found
                    .is_some_and(|found| found.peer == Some(id))
                    .then_some(link)
            }
            None => None,
        };
        self.check_free(&uplink.subnets, there.as_ref())?;
        check_forwarding(&uplink.subnets)?;
        let link = match there {
            Some(link) => match self.change_subnets(link.clone(), &uplink.subnets) {
                Err(_) if self.find(&link)?.is_none() => return Err(Refusal::Leaving),
                other => other?,
            },
            None => self.make_uplink(uplink, router, id.0)?,
        };
        Ok(Reply::Uplink(UplinkMade {
            host: Made {
                index: link.index,
                name: link.name,
            },
            host_mac: link.host_mac,
            router_mac: link.inside_mac,
        }))
    }

    /// Nobody else has an address of these subnets: no live uplink, no route or address of the host.
    fn check_free(&mut self, subnets: &[IpNet], own: Option<&Link>) -> Result<()> {
        let record = &self.store.record;
        let except = own.map(|link| link.id);
        if let Some(other) = record.overlapping(LinkKind::Uplink, subnets, except) {
            return Err(match other.uid == self.uid {
                true => Refusal::Leaving,
                false => Refusal::Unavailable(Unavailable::SubnetInUse),
            });
        }
        for (index, subnet) in subnets.iter().enumerate() {
            let mut others = subnets.iter().skip(index + 1);
            if others.any(|other| overlap(subnet, other)) {
                return Err(Refusal::Unavailable(Unavailable::SubnetInUse));
            }
        }
        let own = own.map(|link| link.index);
        let routes = self.host.routes()?;
        let others = routes.iter().filter(|route| Some(route.link) != own);
        let mut taken = others.map(|route| route.prefix);
        match taken.any(|prefix| subnets.iter().any(|subnet| overlap(subnet, &prefix))) {
            true => Err(Refusal::Unavailable(Unavailable::SubnetInUse)),
            false => Ok(()),
        }
    }

    /// Charge first, let the rules stand before the link, and the link before its routes. Once it is there, the rules may
    /// hang at it.
    fn make_uplink(&mut self, uplink: &Uplink, router: &OwnedFd, namespace: i32) -> Result<Link> {
        let id = self.store.record.number();
        let mut link = Link {
            id,
            uid: self.uid,
            kind: LinkKind::Uplink,
            index: 0,
            name: super::link_name(nft::UPLINK_PREFIX, id)?,
            namespace,
            host_mac: random_mac()?,
            inside_mac: random_mac()?,
            prefixes: uplink.subnets.clone(),
        };
        self.charge(link.clone())?;
        self.or_undo(id, |session| {
            session.apply_rules(LinkKind::Uplink)?;
            let ours = End {
                name: &link.name,
                mac: Some(link.host_mac),
                netns: None,
            };
            let theirs = End {
                name: &uplink.inside,
                mac: Some(link.inside_mac),
                netns: Some(router.as_fd()),
            };
            session.host.add_veth(ours, theirs, uplink.mtu)?;
            let found = session.host.link_named(None, &link.name)?;
            link.index = found
                .ok_or(Refusal::Unavailable(Unavailable::Kernel))?
                .index;
            session.prepare(&link)?;
            session.note(id, link.index)?;
            session.apply_rules(LinkKind::Uplink)?;
            session.repair_routes(&link)?;
            Ok(link)
        })
    }

    /// Settings, addresses and neighbours of the host's end, which is up then.
    fn prepare(&mut self, link: &Link) -> Result<()> {
        // IPv6 may come with a later subnet.
        sysctl::prepare_uplink(&link.name, sysctl::has_ipv6())?;
        self.host.set_up(link.index)?;
        self.host.add_address(HOST_V4.into(), link.index)?;
        self.host
            .add_neighbour(ROUTER_V4.into(), link.inside_mac, link.index)?;
        if sysctl::has_ipv6() {
            self.host.add_address(HOST_V6.into(), link.index)?;
            self.host
                .add_neighbour(ROUTER_V6.into(), link.inside_mac, link.index)?;
        }
        Ok(())
    }

    fn change_subnets(&mut self, mut link: Link, subnets: &[IpNet]) -> Result<Link> {
        link.prefixes = subnets.to_vec();
        let outside = |target: IpNet| !subnets.iter().any(|subnet| subnet.contains(&target));
        let record = &mut self.store.record;
        if let Some(known) = record.links.iter_mut().find(|known| known.id == link.id) {
            *known = link.clone();
        }
        // Ports of containers that are behind it no more.
        record.sockets.retain(|socket| match socket.published {
            Some((uplink, target)) => uplink != link.id || !outside(target.ip().into()),
            None => true,
        });
        self.store.save()?;
        self.apply_rules(LinkKind::Uplink)?;
        self.repair_routes(&link)?;
        Ok(link)
    }
}

/// The host must forward already: making it a router is the admin's decision, since it concerns every
/// other interface too.
fn check_forwarding(subnets: &[IpNet]) -> Result<()> {
    for (family, reason) in [
        (Family::V4, Unavailable::Forwarding4),
        (Family::V6, Unavailable::Forwarding6),
    ] {
        let wanted = subnets.iter().any(|subnet| Family::of(subnet) == family);
        if wanted && !sysctl::forwards(family) {
            return Err(Refusal::Unavailable(reason));
        }
    }
    Ok(())
}
