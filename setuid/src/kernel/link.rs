//! Links: veth pairs and bridge ports (rtnetlink(7), ip-link(8), bridge(8)).

use super::{Host, KernelError, NamespaceId, Result};
use crate::attribute::{each, nest, put, put_text, text, word};
use mossnet_netlink::{IfName, MacAddr, Message};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Group of every link that this program makes, so that it knows them again: "moss".
pub const GROUP: u32 = 0x6d6f_7373;

const IFLA_LINKINFO: u16 = libc::IFLA_LINKINFO;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_TARGET_NETNSID: u16 = 46;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_GUARD: u16 = 5;
const IFLA_BRPORT_PROTECT: u16 = 6;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const UP: u32 = libc::IFF_UP as u32;
/// struct ifinfomsg.
const FIXED: usize = 16;

/// A link as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index in its netns.
    pub index: u32,
    /// Name.
    pub name: String,
    /// "veth", "bridge"; empty for a physical one.
    pub kind: String,
    /// Group; [`GROUP`]: made by this program.
    pub group: u32,
    /// Bytes.
    pub mtu: u32,
    /// Namespace of the other end of a veth pair, if it is another one.
    pub peer: Option<NamespaceId>,
}

impl Link {
    /// This program made it.
    pub fn is_ours(&self) -> bool {
        self.group == GROUP && self.kind == "veth"
    }
}

/// One end of a veth pair to be made.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Its name.
    pub name: &'a IfName,
    /// Its address; absent: the kernel makes one.
    pub mac: Option<MacAddr>,
    /// Where it is; absent: in the host.
    pub netns: Option<BorrowedFd<'a>>,
}

/// Where a link is: in the host, or in a caller's namespace.
pub type Place = Option<NamespaceId>;

impl Host {
    /// Every link of the host.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        self.dump("list links", message(libc::RTM_GETLINK, 0, 0), |payload| {
            links.extend(decode(payload));
        })?;
        Ok(links)
    }

    /// The link with this name.
    pub fn link_named(&mut self, place: Place, name: &IfName) -> Result<Option<Link>> {
        let mut request = message(libc::RTM_GETLINK, 0, 0);
        put_text(request.attributes(), libc::IFLA_IFNAME, name.as_str());
        self.one_link(place, request)
    }

    /// The link with this index.
    pub fn link_at(&mut self, place: Place, index: u32) -> Result<Option<Link>> {
        self.one_link(place, message(libc::RTM_GETLINK, 0, index))
    }

    fn one_link(&mut self, place: Place, mut request: Message) -> Result<Option<Link>> {
        put_place(&mut request, place);
        let mut found = None;
        match self.query("look at a link", request, |payload| found = decode(payload)) {
            Ok(()) => Ok(found),
            // EINVAL: no namespace has that number any more.
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Make a veth pair, both ends down; where both are the caller's, `group` marks the first.
    pub fn add_veth(&mut self, first: End<'_>, second: End<'_>, mtu: u16) -> Result<()> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut request = message(libc::RTM_NEWLINK, flags, 0);
        let attributes = request.attributes();
        put_end(attributes, first, mtu);
        put(attributes, libc::IFLA_GROUP, &GROUP.to_ne_bytes());
        nest(attributes, IFLA_LINKINFO, |info| {
            put_text(info, IFLA_INFO_KIND, "veth");
            nest(info, IFLA_INFO_DATA, |data| {
                nest(data, VETH_INFO_PEER, |peer| {
                    peer.extend_from_slice(&[0; FIXED]);
                    put_end(peer, second, mtu);
                });
            });
        });
        self.change("make a veth pair", request)
    }

    /// Make a link of the host a port of a bridge: kept from other isolated ports, deaf to spanning
    /// tree messages and roots from there.
    pub fn set_port(&mut self, index: u32, bridge: u32) -> Result<()> {
        let mut request = message(libc::RTM_NEWLINK, 0, index);
        let master = bridge.to_ne_bytes();
        put(request.attributes(), libc::IFLA_MASTER, &master);
        self.change("join the bridge", request)?;
        let mut request = message(libc::RTM_NEWLINK, 0, index);
        nest(request.attributes(), IFLA_LINKINFO, |info| {
            put_text(info, IFLA_INFO_SLAVE_KIND, "bridge");
            nest(info, IFLA_INFO_SLAVE_DATA, |port| {
                for setting in [IFLA_BRPORT_ISOLATED, IFLA_BRPORT_GUARD, IFLA_BRPORT_PROTECT] {
                    put(port, setting, &[1]);
                }
            });
        });
        self.change("isolate the bridge port", request)
    }

    /// Set a link of the host up.
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        let mut fixed = [0; FIXED];
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        fixed[8..12].copy_from_slice(&UP.to_ne_bytes());
        fixed[12..16].copy_from_slice(&UP.to_ne_bytes());
        self.change("set a link up", Message::new(libc::RTM_NEWLINK, 0, &fixed))
    }

    /// Remove a link; absent is success.
    pub fn remove_link(&mut self, place: Place, index: u32) -> Result<()> {
        let mut request = message(libc::RTM_DELLINK, 0, index);
        put_place(&mut request, place);
        match self.change("remove a link", request) {
            Err(error) if is_absent(&error) => Ok(()),
            other => other,
        }
    }
}

fn is_absent(error: &KernelError) -> bool {
    matches!(error.errno(), Some(Errno::ENODEV | Errno::EINVAL))
}

fn message(kind: u16, flags: i32, index: u32) -> Message {
    let mut fixed = [0; FIXED];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    Message::new(kind, flags, &fixed)
}

fn put_place(message: &mut Message, place: Place) {
    if let Some(NamespaceId(id)) = place {
        put(message.attributes(), IFLA_TARGET_NETNSID, &id.to_ne_bytes());
    }
}

fn put_end(attributes: &mut Vec<u8>, end: End<'_>, mtu: u16) {
    put_text(attributes, libc::IFLA_IFNAME, end.name.as_str());
    let mtu = u32::from(mtu).to_ne_bytes();
    put(attributes, libc::IFLA_MTU, &mtu);
    if let Some(mac) = end.mac {
        put(attributes, libc::IFLA_ADDRESS, &mac.octets());
    }
    if let Some(netns) = end.netns {
        let fd = netns.as_raw_fd().to_ne_bytes();
        put(attributes, libc::IFLA_NET_NS_FD, &fd);
    }
}

fn decode(payload: &[u8]) -> Option<Link> {
    let mut link = Link {
        index: word(payload.get(4..8)?)?,
        name: String::new(),
        kind: String::new(),
        group: 0,
        mtu: 0,
        peer: None,
    };
    for (kind, value) in each(payload.get(FIXED..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_GROUP => link.group = word(value)?,
            libc::IFLA_MTU => link.mtu = word(value)?,
            IFLA_LINK_NETNSID => link.peer = word(value).map(|id| NamespaceId(id.cast_signed())),
            IFLA_LINKINFO => {
                let info = each(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = info.map(|(_, kind)| text(kind)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}
