//! Links that share the wire of another one: macvlan and ipvlan (ip-link(8), linux/if_link.h).

use super::link::link_message;
use super::{Netlink, Refused};
use crate::names::{IfName, MacAddr};
use netlink_bindings::rt_link::PushLinkAttrs;
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::{finalize_nested_header, push_header, push_nested_header};
use std::os::fd::{AsRawFd, BorrowedFd};

/// IFLA_INFO_DATA, IFLA_MACVLAN_MODE, IFLA_IPVLAN_MODE.
const INFO_DATA: u16 = 2;
const MODE: u16 = 1;

/// Kind and mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubKind {
    /// macvlan: 1 private, 2 vepa, 4 bridge, 8 passthru.
    Macvlan(u32),
    /// ipvlan: 0 L2, 1 L3, 2 L3S.
    Ipvlan(u16),
}

/// A link to be made in a sandbox, on the wire of one here.
#[derive(Debug, Clone, Copy)]
pub struct NewSub<'a> {
    /// Name in the sandbox.
    pub name: &'a IfName,
    /// Index of the link whose wire it shares.
    pub parent: u32,
    /// What it is.
    pub kind: SubKind,
    /// MAC address; ipvlan has that of the parent.
    pub mac: Option<MacAddr>,
    /// Bytes; absent: as the parent.
    pub mtu: Option<u32>,
    /// Network namespace of the sandbox.
    pub netns: BorrowedFd<'a>,
}

impl Netlink {
    /// Make a link on another one's wire. It is left down.
    pub fn add_sub(&mut self, sub: NewSub<'_>) -> Result<(), Refused> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut message = link_message(libc::RTM_NEWLINK, flags, 0, 0);
        let mut attributes = PushLinkAttrs::new(message.attributes())
            .push_ifname_bytes(sub.name.as_str().as_bytes())
            .push_link(sub.parent)
            .push_net_ns_fd(sub.netns.as_raw_fd() as u32);
        if let Some(mtu) = sub.mtu {
            attributes = attributes.push_mtu(mtu);
        }
        if let Some(mac) = sub.mac {
            attributes = attributes.push_address(&mac.octets());
        }
        let kind = match sub.kind {
            SubKind::Macvlan(_) => c"macvlan",
            SubKind::Ipvlan(_) => c"ipvlan",
        };
        let mut linkinfo = attributes.nested_linkinfo().push_kind(kind);
        let bytes = linkinfo.as_vec_mut();
        let data = push_nested_header(bytes, INFO_DATA);
        match sub.kind {
            SubKind::Macvlan(mode) => {
                push_header(bytes, MODE, 4);
                bytes.extend(mode.to_ne_bytes());
            }
            SubKind::Ipvlan(mode) => {
                push_header(bytes, MODE, 2);
                bytes.extend(mode.to_ne_bytes());
                bytes.extend([0; 2]);
            }
        }
        finalize_nested_header(bytes, data);
        linkinfo.end_nested().end_nested();
        self.request(message)
    }
}
