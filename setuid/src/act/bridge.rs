//! `bridge`: the caller's namespace becomes a port of a host bridge.

use super::{Result, Session, random_mac};
use crate::act::Refusal;
use crate::kernel::link::End;
use crate::kernel::{nft, sysctl};
use crate::record::{Link, LinkKind};
use crate::request::{Bridge, Made, Reply, Unavailable};
use std::os::fd::{AsFd, OwnedFd};

impl Session<'_> {
    pub(super) fn bridge(&mut self, wanted: &Bridge, netns: &OwnedFd) -> Result<Reply> {
        let name = || wanted.bridge.to_string();
        match self
            .rights
            .allow_on_bridge(&wanted.bridge, &wanted.addresses)
        {
            Some(true) => {}
            Some(false) => return Err(Refusal::Address(name())),
            None => return Err(Refusal::BridgeNotGranted(name())),
        }
        let bridge = self.host.link_named(None, &wanted.bridge)?;
        let bridge = bridge.ok_or(Refusal::Unavailable(Unavailable::Absent))?;
        if bridge.kind != "bridge" {
            return Err(Refusal::NotABridge(name()));
        }
        let record = &self.store.record;
        let taken = record.overlapping(LinkKind::Bridge, &wanted.addresses, None);
        if taken.is_some() {
            return Err(Refusal::Unavailable(Unavailable::InUse));
        }
        let mtu = u16::try_from(bridge.mtu).unwrap_or(u16::MAX);
        let link = self.make_port(wanted, netns, bridge.index, mtu)?;
        Ok(Reply::Bridge {
            host: Made {
                index: link.index,
                name: link.name,
            },
            mac: link.inside_mac,
            mtu,
        })
    }

    /// Charge first, let the rules stand before the link, and the port be isolated before it is up.
    fn make_port(
        &mut self,
        wanted: &Bridge,
        netns: &OwnedFd,
        bridge: u32,
        mtu: u16,
    ) -> Result<Link> {
        let id = self.store.record.number();
        let namespace = self.host.namespace_id(netns.as_fd())?;
        let mut link = Link {
            id,
            uid: self.uid,
            kind: LinkKind::Bridge,
            index: 0,
            name: super::link_name(nft::PORT_PREFIX, id)?,
            namespace: namespace.0,
            host_mac: random_mac()?,
            inside_mac: random_mac()?,
            prefixes: wanted.addresses.clone(),
        };
        self.charge(link.clone())?;
        self.or_undo(id, |session| {
            session.apply_rules(LinkKind::Bridge)?;
            let ours = End {
                name: &link.name,
                mac: Some(link.host_mac),
                netns: None,
            };
            let theirs = End {
                name: &wanted.inside,
                mac: Some(link.inside_mac),
                netns: Some(netns.as_fd()),
            };
            session.host.add_veth(ours, theirs, mtu)?;
            let found = session.host.link_named(None, &link.name)?;
            link.index = found
                .ok_or(Refusal::Unavailable(Unavailable::Kernel))?
                .index;
            sysctl::prepare_port(&link.name)?;
            session.host.set_port(link.index, bridge)?;
            session.host.set_up(link.index)?;
            session.note(id, link.index)?;
            Ok(link)
        })
    }
}
