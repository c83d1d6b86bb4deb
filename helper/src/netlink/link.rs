//! Links: bridges, veth pairs, and what is there (rtnetlink(7), ip-link(8)).

use super::{Message, Netlink, Refused};
use crate::names::{IfName, MacAddr};
use mossnet_netlink::Received;
use netlink_bindings::rt_link::{
    Ifinfomsg, LinkAttrs, LinkinfoAttrs, OpGetlinkDump, PushLinkAttrs,
};
use netlink_bindings::traits::NetlinkRequest;
use netlink_bindings::utils::{finalize_nested_header, push_nested_header};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Instant;

/// VETH_INFO_PEER, linux/veth.h.
const VETH_INFO_PEER: u16 = 1;
/// IFLA_INFO_DATA, linux/if_link.h.
const IFLA_INFO_DATA: u16 = 2;

pub(super) const UP: u32 = libc::IFF_UP as u32;
const RUNNING: u32 = libc::IFF_RUNNING as u32;
const NOARP: u32 = libc::IFF_NOARP as u32;

/// A link as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index in its netns.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Index of the bridge that it is a port of.
    pub master: Option<u32>,
    /// Index of the other end of a veth pair, in the netns that it is in.
    pub peer: Option<u32>,
    /// Bytes.
    pub mtu: u32,
    /// What it is.
    pub kind: LinkKind,
    /// Up, with a carrier (IFF_RUNNING): frames pass.
    pub running: bool,
}

/// What a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// One end of a veth pair.
    Veth,
    /// Anything else: lo, tun devices.
    Other,
}

/// The end of a link.
#[derive(Debug, Clone, Copy)]
pub struct Gone {
    /// Index that the link had.
    pub index: u32,
}

impl Gone {
    /// Bridges tell the same of their ports, in a family of their own.
    pub(super) fn is_said_by(self, part: &Received<'_>) -> bool {
        let Received::Data { kind, payload, .. } = part else {
            return false;
        };
        let (fixed, _) = OpGetlinkDump::decode_reply(payload);
        *kind == libc::RTM_DELLINK
            && i32::from(fixed.ifi_family) == libc::AF_UNSPEC
            && u32::try_from(fixed.ifi_index) == Ok(self.index)
    }
}

/// A veth pair to be made: one end on a bridge of this netns, the other in a sandbox.
#[derive(Debug, Clone, Copy)]
pub struct BridgePort<'a> {
    /// The end on the bridge.
    pub name: &'a IfName,
    /// Index of the bridge.
    pub bridge: u32,
    /// The end in the sandbox.
    pub peer_name: &'a IfName,
    /// Its MAC address.
    pub peer_mac: MacAddr,
    /// Network namespace of the sandbox.
    pub peer_netns: BorrowedFd<'a>,
    /// Both ends, bytes.
    pub mtu: u32,
}

/// A veth pair to be made: one end in this netns, the other in a namespace. Both have one MAC address, and
/// neither asks for neighbours.
#[derive(Debug, Clone, Copy)]
pub struct Wire<'a> {
    /// The end here.
    pub name: &'a IfName,
    /// The end there.
    pub peer_name: &'a IfName,
    /// Of both ends.
    pub mac: MacAddr,
    /// Network namespace of the other end.
    pub peer_netns: BorrowedFd<'a>,
    /// Both ends, bytes.
    pub mtu: u32,
}

impl Netlink {
    /// Every link of the netns.
    pub fn links(&mut self) -> Result<Vec<Link>, Refused> {
        let mut links = Vec::new();
        let request = link_message(libc::RTM_GETLINK, 0, 0, 0);
        self.dump(request, |payload| links.extend(decode(payload)))?;
        Ok(links)
    }

    /// The link called `name`.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Refused> {
        let mut message = link_message(libc::RTM_GETLINK, 0, 0, 0);
        PushLinkAttrs::new(message.attributes())
            .push_ifname_bytes(name.as_bytes())
            .end_nested();
        let mut found = None;
        match self.query(message, |payload| found = decode(payload)) {
            Err(refused) if refused.errno == Errno::ENODEV => Ok(None),
            other => other.map(|()| found),
        }
    }

    /// Change MAC address and MTU, and set the link up.
    pub fn change_link(&mut self, index: u32, mac: MacAddr, mtu: u32) -> Result<(), Refused> {
        let mut message = link_message(libc::RTM_NEWLINK, 0, index, UP);
        PushLinkAttrs::new(message.attributes())
            .push_address(&mac.octets())
            .push_mtu(mtu)
            .end_nested();
        self.request(message)
    }

    /// Set a link up.
    pub fn set_up(&mut self, index: u32) -> Result<(), Refused> {
        self.request(link_message(libc::RTM_NEWLINK, 0, index, UP))
    }

    /// Set a link up, with this MTU.
    pub fn set_up_with_mtu(&mut self, index: u32, mtu: u32) -> Result<(), Refused> {
        let mut message = link_message(libc::RTM_NEWLINK, 0, index, UP);
        PushLinkAttrs::new(message.attributes())
            .push_mtu(mtu)
            .end_nested();
        self.request(message)
    }

    /// Make a veth pair between a bridge of this netns and a sandbox. The end in the sandbox is
    /// left down.
    pub fn add_bridge_port(&mut self, port: BridgePort<'_>) -> Result<(), Refused> {
        let mut message = link_message(
            libc::RTM_NEWLINK,
            libc::NLM_F_CREATE | libc::NLM_F_EXCL,
            0,
            UP,
        );
        let attributes = message.attributes();
        PushLinkAttrs::new(&mut *attributes)
            .push_ifname_bytes(port.name.as_str().as_bytes())
            .push_mtu(port.mtu)
            .push_master(port.bridge)
            .end_nested();
        push_veth(attributes, |peer| {
            peer.push_ifname_bytes(port.peer_name.as_str().as_bytes())
                .push_address(&port.peer_mac.octets())
                .push_mtu(port.mtu)
                .push_net_ns_fd(port.peer_netns.as_raw_fd() as u32)
                .end_nested();
        });
        self.request(message)
    }

    /// Make a veth pair with both ends in this netns, both down: a peer cannot be opened before its
    /// pair is complete.
    pub fn add_veth_pair(
        &mut self,
        one: (&IfName, MacAddr),
        other: (&IfName, MacAddr),
        mtu: u32,
    ) -> Result<(), Refused> {
        let mut message = link_message(
            libc::RTM_NEWLINK,
            libc::NLM_F_CREATE | libc::NLM_F_EXCL,
            0,
            0,
        );
        let attributes = message.attributes();
        PushLinkAttrs::new(&mut *attributes)
            .push_ifname_bytes(one.0.as_str().as_bytes())
            .push_address(&one.1.octets())
            .push_mtu(mtu)
            .end_nested();
        push_veth(attributes, |peer| {
            peer.push_ifname_bytes(other.0.as_str().as_bytes())
                .push_address(&other.1.octets())
                .push_mtu(mtu)
                .end_nested();
        });
        self.request(message)
    }

    /// Make a veth pair of which every frame reaches the other end's host. The end here is up, the other
    /// is left down; see [`Netlink::set_up_without_arp`].
    pub fn add_wire(&mut self, wire: Wire<'_>) -> Result<(), Refused> {
        let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut message = link_message(libc::RTM_NEWLINK, create, 0, UP | NOARP);
        let attributes = message.attributes();
        PushLinkAttrs::new(&mut *attributes)
            .push_ifname_bytes(wire.name.as_str().as_bytes())
            .push_address(&wire.mac.octets())
            .push_mtu(wire.mtu)
            .end_nested();
        push_veth(attributes, |peer| {
            peer.push_ifname_bytes(wire.peer_name.as_str().as_bytes())
                .push_address(&wire.mac.octets())
                .push_mtu(wire.mtu)
                .push_net_ns_fd(wire.peer_netns.as_raw_fd() as u32)
                .end_nested();
        });
        self.request(message)
    }

    /// Set a link up that asks for no neighbours: what it sends bears its own MAC address as destination.
    pub fn set_up_without_arp(&mut self, index: u32) -> Result<(), Refused> {
        self.request(link_message(libc::RTM_NEWLINK, 0, index, UP | NOARP))
    }

    /// Remove a link, and wait until the kernel has nothing of it left; already absent is success.
    pub fn remove_link(&mut self, index: u32) -> Result<(), Refused> {
        match self.request(link_message(libc::RTM_DELLINK, 0, index, 0)) {
            Err(refused) if refused.is_absent() => Ok(()),
            other => other,
        }
    }

    /// Wait until `wanted` holds for the link called `name`, on a socket from
    /// [`Netlink::link_changes`]; None: not before `deadline`.
    pub fn wait_link(
        &mut self,
        name: &str,
        deadline: Instant,
        wanted: impl Fn(&Link) -> bool,
    ) -> Result<Option<Link>, Refused> {
        loop {
            if let Some(link) = self.link(name)?.filter(&wanted) {
                return Ok(Some(link));
            }
            if !self.wait(deadline)? {
                return Ok(None);
            }
            self.discard();
        }
    }
}

/// A message about links; `flags` are switched on, others left as they are.
pub(super) fn link_message(kind: u16, message_flags: i32, index: u32, flags: u32) -> Message {
    let mut fixed = Ifinfomsg::new();
    fixed.ifi_index = index as i32;
    fixed.ifi_flags = flags;
    fixed.ifi_change = flags;
    Message::new(kind, message_flags, fixed.as_slice())
}

/// Kind "veth" with its peer, which has a fixed part of its own.
pub(super) fn push_veth(
    attributes: &mut Vec<u8>,
    describe_peer: impl FnOnce(PushLinkAttrs<&mut Vec<u8>>),
) {
    let mut linkinfo = PushLinkAttrs::new(attributes)
        .nested_linkinfo()
        .push_kind(c"veth");
    let bytes = netlink_bindings::traits::Pusher::as_vec_mut(&mut linkinfo);
    let data = push_nested_header(bytes, IFLA_INFO_DATA);
    let peer = push_nested_header(bytes, VETH_INFO_PEER);
    bytes.extend_from_slice(Ifinfomsg::new().as_slice());
    describe_peer(PushLinkAttrs::new(&mut *bytes));
    finalize_nested_header(bytes, peer);
    finalize_nested_header(bytes, data);
    linkinfo.end_nested().end_nested();
}

fn decode(payload: &[u8]) -> Option<Link> {
    let (fixed, attributes) = OpGetlinkDump::decode_reply(payload);
    let mut name = None;
    let mut master = None;
    let mut peer = None;
    let mut mtu = 0;
    let mut kind = LinkKind::Other;
    for attribute in attributes.flatten() {
        match attribute {
            LinkAttrs::Ifname(text) => name = Some(text.to_string_lossy().into_owned()),
            LinkAttrs::Mtu(bytes) => mtu = bytes,
            LinkAttrs::Master(index) => master = Some(index),
            LinkAttrs::Link(index) => peer = Some(index),
            LinkAttrs::Linkinfo(info) => kind = decode_kind(info),
            _ => {}
        }
    }
    Some(Link {
        index: u32::try_from(fixed.ifi_index).ok()?,
        name: name?,
        master,
        peer: peer.filter(|_| kind == LinkKind::Veth),
        mtu,
        kind,
        running: fixed.ifi_flags & (UP | RUNNING) == UP | RUNNING,
    })
}

fn decode_kind<'a, E>(info: impl Iterator<Item = Result<LinkinfoAttrs<'a>, E>>) -> LinkKind {
    let kind = info.flatten().find_map(|attribute| match attribute {
        LinkinfoAttrs::Kind(kind) => Some(kind),
        _ => None,
    });
    match kind.map(std::ffi::CStr::to_bytes) {
        Some(b"bridge") => LinkKind::Bridge,
        Some(b"veth") => LinkKind::Veth,
        _ => LinkKind::Other,
    }
}
