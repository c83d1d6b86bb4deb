//! The gate: first packets on their way out, read from `up1` before any kernel has answered them.
//!
//! On the path: container → bridge → default route → `up0` ═ `up1` → **gate** → tcp | udp | icmp;
//! and back into the router netns by the same pair, as if from the world.
//!
//! Invariant: a packet is answered or passed on at most once, and what is sent back never has a
//! source address of the router netns, which its kernel would drop as a martian.
//!
//! Sources: packet(7), RFC 7600 §4.8 and RFC 9780 (dummy addresses), RFC 1122 §3.2.2.

use super::wire::ethernet::{EtherType, Header};
use super::wire::icmp::Notice;
use super::wire::ip::Packet;
use crate::sys::packet::VNET_HEADER_LEN;
use socket2::SockRef;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Who reports an ICMP error that nobody on the way reported: 192.0.0.8, set aside for a node
/// that must send ICMP errors and has no IPv4 address to send them from (RFC 7600 §4.8).
///
/// It is no address of the router netns (a martian there) nor one that a container could mean, and
/// no kernel takes it for a martian.
pub const REPORTER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// Its counterpart, of the dummy prefix 100:0:0:1::/64 (RFC 9780). A link-local address would be
/// more telling, but is never forwarded.
pub const REPORTER_V6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 1, 0, 0, 0, 8);

/// The reporter of the packet's family, where the offender is not known or not fit to be one.
pub fn reporter(packet: &Packet<'_>) -> IpAddr {
    match packet {
        Packet::V4(_) => REPORTER_V4.into(),
        Packet::V6(_) => REPORTER_V6.into(),
    }
}

/// Ethernet addresses of the veth pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UplinkMacs {
    /// Of `up0`, where the router netns's default route leads out.
    pub up0: [u8; 6],
    /// Of `up1`, where the gate is.
    pub up1: [u8; 6],
}

/// Sends packets into the router netns through `up1`.
#[derive(Debug)]
pub struct GateSender {
    socket: Arc<OwnedFd>,
    macs: UplinkMacs,
    frame: Vec<u8>,
}

impl GateSender {
    /// `socket`: AF_PACKET, bound to `up1`.
    pub fn new(socket: Arc<OwnedFd>, macs: UplinkMacs) -> Self {
        Self {
            socket,
            macs,
            frame: Vec::new(),
        }
    }

    /// Sends a whole IP packet with its checksums. One that the kernel does not take is lost, as
    /// on any link.
    pub fn inject(&mut self, packet: &[u8]) {
        let ethertype = match packet.first().map(|byte| byte >> 4) {
            Some(4) => EtherType::Ipv4,
            Some(6) => EtherType::Ipv6,
            Some(_) | None => return,
        };
        let header = Header {
            destination: self.macs.up0,
            source: self.macs.up1,
            ethertype,
        };
        self.frame.clear();
        self.frame.extend([0; VNET_HEADER_LEN]);
        self.frame.extend(header.emit());
        self.frame.extend_from_slice(packet);
        send(&self.socket, &self.frame);
    }

    /// Sends back a frame that was read here, offloads and all, as if it came from the world.
    ///
    /// `frame` begins with its virtio-net header.
    pub fn reinject(&mut self, frame: &[u8]) {
        self.frame.clear();
        self.frame.extend_from_slice(frame);
        let addresses = self.macs.up0.into_iter().chain(self.macs.up1);
        let place = self.frame.iter_mut().skip(VNET_HEADER_LEN);
        for (to, from) in place.zip(addresses) {
            *to = from;
        }
        send(&self.socket, &self.frame);
    }

    /// Tells the sender of `offending` by ICMP, where that is allowed at all.
    pub fn notify(&mut self, notice: Notice, offending: &Packet<'_>) {
        self.notify_from(notice, offending, reporter(offending));
    }

    /// The same in another's name; `from` must be no address of the router netns.
    pub fn notify_from(&mut self, notice: Notice, offending: &Packet<'_>, from: IpAddr) {
        if let Some(error) = notice.about(offending, from) {
            self.inject(&error);
        }
    }
}

fn send(socket: &OwnedFd, frame: &[u8]) {
    if let Err(error) = SockRef::from(socket).send(frame) {
        tracing::debug!(%error, frame.length = frame.len(), "packet not sent into the router netns");
    }
}
