//! The gate: first packets on their way out, read from `up1` before any kernel has answered them.
//!
//! On the path: container → bridge → default route → `up0` ═ `up1` → **gate** → tcp | udp | icmp;
//! and back into the router netns by the same pair, as if from the world.
//!
//! Invariant: a packet is answered or passed on at most once, and what is sent back never has a
//! source address of the router netns, which its kernel would drop as a martian.
//!
//! Sources: packet(7), RFC 7600 §4.8 and RFC 9780 (dummy addresses), RFC 1122 §3.2.2.

use super::wire::ethernet::{EtherType, Frame, Header};
use super::wire::icmp::{Message, Notice};
use super::wire::ip::{Packet, Protocol};
use super::wire::tcp::{Flags, Segment};
use crate::sys::packet::{FrameRing, VNET_HEADER_LEN, receive};
use socket2::SockRef;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Bytes of the largest frame: up0 has an MTU of 65,535.
pub const LARGEST: usize = VNET_HEADER_LEN + super::wire::ethernet::HEADER_LEN + 65_535;

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

/// What a packet at the gate is, and so who handles it.
#[derive(Debug)]
pub enum Arrival<'a> {
    /// Somebody wants a TCP connection.
    FirstSyn(Segment<'a>),
    /// TCP otherwise: nobody has the connection.
    StraySegment,
    /// UDP, which comes here with few hops left only.
    Udp,
    /// An echo request, or a fragment of one.
    EchoRequest,
    /// Nothing is said about it: an ICMP error or reply, multicast, or it is broken.
    Ignored,
    /// A protocol that nobody relays.
    UnknownProtocol,
}

/// The packet in a frame (virtio-net header first), and what it is. `None` for what is not IP.
pub fn classify(frame: &[u8]) -> Option<(Packet<'_>, Arrival<'_>)> {
    let frame = Frame::parse(frame.get(VNET_HEADER_LEN..)?).ok()?;
    let packet = match frame.ethertype() {
        EtherType::Ipv4 | EtherType::Ipv6 => Packet::parse(frame.payload()).ok()?,
        EtherType::Arp | EtherType::Other(_) => return None,
    };
    if packet.destination().is_multicast() {
        return Some((packet, Arrival::Ignored));
    }
    let arrival = match packet.protocol() {
        Protocol::Tcp => match Segment::of(&packet) {
            // A connection begun by a fragmented SYN is an attack, or a test of one.
            Ok(_) if packet.is_fragment() => Arrival::Ignored,
            Ok(segment) if is_first(segment.flags()) => Arrival::FirstSyn(segment),
            Ok(_) => Arrival::StraySegment,
            Err(_) => Arrival::Ignored,
        },
        Protocol::Udp => Arrival::Udp,
        Protocol::Icmp | Protocol::Icmpv6 if packet.is_fragment() => Arrival::EchoRequest,
        Protocol::Icmp | Protocol::Icmpv6 => match Message::of(&packet) {
            Ok(message) if message.echo_request().is_some() => Arrival::EchoRequest,
            Ok(_) | Err(_) => Arrival::Ignored,
        },
        Protocol::Other(_) => Arrival::UnknownProtocol,
    };
    Some((packet, arrival))
}

/// As the ruleset tells them: SYN, and neither ACK, RST nor FIN.
fn is_first(flags: Flags) -> bool {
    let kept = Flags::FIN
        .with(Flags::SYN)
        .with(Flags::RST)
        .with(Flags::ACK);
    flags.0 & kept.0 == Flags::SYN.0
}

/// Reads what arrives at `up1`.
pub struct Gate {
    socket: Arc<OwnedFd>,
    source: Source,
}

/// How frames come.
enum Source {
    /// In the socket's queue, each by a system call: so many bytes of the buffer.
    Queue(Vec<u8>, usize),
    Ring(FrameRing),
}

impl Gate {
    /// `socket`: AF_PACKET, bound to `up1`, whose frames come to `ring`.
    pub fn new(socket: Arc<OwnedFd>, ring: FrameRing) -> Self {
        let source = Source::Ring(ring);
        Self { socket, source }
    }

    /// The same without a ring.
    pub fn queued(socket: Arc<OwnedFd>) -> Self {
        let source = Source::Queue(vec![0; LARGEST], 0);
        Self { socket, source }
    }

    /// To be watched.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes what is there, up to a batch; [`done`](Self::done) must follow. Fails where the interface is
    /// gone.
    pub fn receive(&mut self) -> io::Result<impl Iterator<Item = &[u8]>> {
        match &mut self.source {
            Source::Queue(frame, length) => *length = receive(self.socket.as_fd(), frame)?,
            Source::Ring(ring) => {
                if ring.receive(self.socket.as_fd())? == 0
                    && let Some(error) = SockRef::from(&self.socket).take_error()?
                {
                    return Err(error);
                }
            }
        }
        let queued = match &self.source {
            Source::Queue(frame, length) => frame.get(..*length).filter(|frame| !frame.is_empty()),
            Source::Ring(_) => None,
        };
        let ring = self.ring();
        Ok(queued
            .into_iter()
            .chain(ring.into_iter().flat_map(FrameRing::iter)))
    }

    /// The same of a socket that sees several interfaces, with the index of the one that a frame came by.
    pub fn receive_with_interface(&mut self) -> io::Result<impl Iterator<Item = (u32, &[u8])>> {
        if let Source::Ring(ring) = &mut self.source {
            ring.receive(self.socket.as_fd())?;
        }
        let ring = self.ring().into_iter();
        Ok(ring.flat_map(FrameRing::iter_with_interface))
    }

    /// The batch has been handled.
    pub fn done(&mut self) {
        match &mut self.source {
            Source::Queue(_, length) => *length = 0,
            Source::Ring(ring) => ring.give_back(),
        }
    }

    fn ring(&self) -> Option<&FrameRing> {
        match &self.source {
            Source::Queue(..) => None,
            Source::Ring(ring) => Some(ring),
        }
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
    /// None: where there is no gate.
    socket: Option<Arc<OwnedFd>>,
    macs: UplinkMacs,
    frame: Vec<u8>,
}

impl GateSender {
    /// `socket`: AF_PACKET, bound to `up1`.
    pub fn new(socket: Arc<OwnedFd>, macs: UplinkMacs) -> Self {
        Self {
            socket: Some(socket),
            macs,
            frame: Vec::new(),
        }
    }

    /// Sends by another socket from now on, `up1`'s as well.
    pub fn send_by(&mut self, socket: Arc<OwnedFd>) {
        self.socket = Some(socket);
    }

    /// Of a process without a gate; what is sent by it is lost.
    pub fn nowhere() -> Self {
        Self {
            socket: None,
            macs: UplinkMacs {
                up0: [0; 6],
                up1: [0; 6],
            },
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
        self.send();
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
        self.send();
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

    fn send(&self) {
        let Some(socket) = &self.socket else {
            return;
        };
        if let Err(error) = SockRef::from(socket).send(&self.frame) {
            tracing::debug!(%error, frame.length = self.frame.len(), "packet not sent into the router netns");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::wire::ip;
    use crate::relay::wire::tcp::Control;
    use crate::relay::wire::{Addresses, ethernet, icmp, udp};

    fn frame(ethertype: EtherType, packet: &[u8]) -> Vec<u8> {
        let header = ethernet::Header {
            destination: [2, 0, 0, 0, 0, 1],
            source: [2, 0, 0, 0, 0, 2],
            ethertype,
        };
        [
            vec![0; VNET_HEADER_LEN],
            header.emit().to_vec(),
            packet.to_vec(),
        ]
        .concat()
    }

    fn addresses(destination: &str) -> Addresses {
        Addresses::new("10.0.0.2".parse().unwrap(), destination.parse().unwrap()).unwrap()
    }

    fn packet(protocol: Protocol, payload: &[u8]) -> Vec<u8> {
        ip::Header::new(addresses("192.0.2.1"), protocol)
            .emit(payload)
            .unwrap()
    }

    fn tcp(flags: Flags) -> Vec<u8> {
        let control = Control {
            source_port: 1000,
            destination_port: 80,
            sequence: 1,
            acknowledgement: 0,
            flags,
            window: 100,
        };
        packet(Protocol::Tcp, &control.emit(addresses("192.0.2.1")))
    }

    fn arrival(packet: &[u8]) -> String {
        match classify(&frame(EtherType::Ipv4, packet)) {
            Some((_, arrival)) => format!("{arrival:?}").split('(').next().unwrap().to_owned(),
            None => "None".to_owned(),
        }
    }

    #[test]
    fn packets_are_told_apart() {
        assert_eq!(arrival(&tcp(Flags::SYN)), "FirstSyn");
        assert_eq!(
            arrival(&tcp(Flags::SYN.with(Flags(0xc0)))),
            "FirstSyn",
            "ECN"
        );
        assert_eq!(arrival(&tcp(Flags::SYN.with(Flags::ACK))), "StraySegment");
        assert_eq!(arrival(&tcp(Flags::SYN.with(Flags::FIN))), "StraySegment");
        assert_eq!(arrival(&tcp(Flags::ACK)), "StraySegment");
        let ports = udp::Ports {
            source: 1,
            destination: 2,
        };
        let datagram = ports.emit(addresses("192.0.2.1"), b"x").unwrap();
        assert_eq!(arrival(&packet(Protocol::Udp, &datagram)), "Udp");
        let echo = icmp::Echo {
            id: 1,
            sequence: 1,
            data: b"x",
        };
        let (request, reply) = (
            echo.emit_request(addresses("192.0.2.1")),
            echo.emit_reply(addresses("192.0.2.1")),
        );
        assert_eq!(arrival(&packet(Protocol::Icmp, &request)), "EchoRequest");
        assert_eq!(arrival(&packet(Protocol::Icmp, &reply)), "Ignored");
        assert_eq!(
            arrival(&packet(Protocol::Other(132), b"sctp")),
            "UnknownProtocol"
        );
        assert_eq!(arrival(b"short"), "None");
        assert!(classify(&frame(EtherType::Arp, &tcp(Flags::SYN))).is_none());
    }

    #[test]
    fn multicast_is_ignored() {
        let to_group = ip::Header::new(addresses("224.0.0.251"), Protocol::Other(2));
        assert_eq!(arrival(&to_group.emit(b"").unwrap()), "Ignored");
    }
}
