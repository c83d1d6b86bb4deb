//! `veth`: a pair between two namespaces of the caller, whatever user namespaces they hang under.
//!
//! The caller may make pairs within one user namespace without anybody's help, so that the quota is
//! against mistakes rather than against a caller who moves an end away and is no longer charged for it.

use super::{Result, Session, random_mac};
use crate::act::Refusal;
use crate::kernel::link::End;
use crate::record::{Link, LinkKind};
use crate::request::{Made, Reply, Unavailable, Veth};
use std::os::fd::{AsFd, OwnedFd};

impl Session<'_> {
    pub(super) fn veth(&mut self, veth: &Veth, first: &OwnedFd, second: &OwnedFd) -> Result<Reply> {
        let place = self.host.namespace_id(first.as_fd())?;
        let other = self.host.namespace_id(second.as_fd())?;
        // What is there already is not ours to undo.
        for (place, name) in [(place, &veth.first), (other, &veth.second)] {
            if self.host.link_named(Some(place), name)?.is_some() {
                return Err(Refusal::Unavailable(Unavailable::InUse));
            }
        }
        let id = self.store.record.number();
        self.charge(Link {
            id,
            uid: self.uid,
            kind: LinkKind::Veth,
            index: 0,
            name: veth.first.clone(),
            namespace: place.0,
            host_mac: random_mac()?,
            inside_mac: random_mac()?,
            prefixes: Vec::new(),
        })?;
        self.or_undo(id, |session| {
            let end = |name, netns| End {
                name,
                mac: None,
                netns: Some(netns),
            };
            let ours = end(&veth.first, first.as_fd());
            let theirs = end(&veth.second, second.as_fd());
            session.host.add_veth(ours, theirs, veth.mtu)?;
            let missing = Refusal::Unavailable(Unavailable::Kernel);
            let made = session.host.link_named(Some(place), &veth.first)?;
            let index = made.ok_or(missing)?.index;
            let peer = session.host.link_named(Some(other), &veth.second)?;
            session.note(id, index)?;
            Ok(Reply::Veth {
                first: Made {
                    index,
                    name: veth.first.clone(),
                },
                second: peer.map_or(0, |peer| peer.index),
            })
        })
    }
}
