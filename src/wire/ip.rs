//! IP packets of either version.

use super::checksum::{Checksum, fill};
use super::{WireError, ipv4, ipv6};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An upper-layer protocol (IANA protocol numbers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// 1: ICMP for IPv4.
    Icmp,
    /// 6.
    Tcp,
    /// 17.
    Udp,
    /// 58: ICMP for IPv6.
    Icmpv6,
    /// Any other number.
    Other(u8),
}

impl Protocol {
    /// As in the header.
    pub fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmpv6 => 58,
            Self::Other(number) => number,
        }
    }
}

impl From<u8> for Protocol {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Icmp,
            6 => Self::Tcp,
            17 => Self::Udp,
            58 => Self::Icmpv6,
            other => Self::Other(other),
        }
    }
}

/// Source and destination, of one family by construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// IPv4.
    V4 {
        /// Sender.
        source: Ipv4Addr,
        /// Receiver.
        destination: Ipv4Addr,
    },
    /// IPv6.
    V6 {
        /// Sender.
        source: Ipv6Addr,
        /// Receiver.
        destination: Ipv6Addr,
    },
}

impl Addresses {
    /// `None` where the families differ.
    pub fn new(source: IpAddr, destination: IpAddr) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Self::V4 {
                source,
                destination,
            }),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Self::V6 {
                source,
                destination,
            }),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }

    /// Sender.
    pub fn source(self) -> IpAddr {
        match self {
            Self::V4 { source, .. } => source.into(),
            Self::V6 { source, .. } => source.into(),
        }
    }

    /// Receiver.
    pub fn destination(self) -> IpAddr {
        match self {
            Self::V4 { destination, .. } => destination.into(),
            Self::V6 { destination, .. } => destination.into(),
        }
    }

    /// The way back.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::V4 {
                source,
                destination,
            } => Self::V4 {
                source: destination,
                destination: source,
            },
            Self::V6 {
                source,
                destination,
            } => Self::V6 {
                source: destination,
                destination: source,
            },
        }
    }
}

/// A checked view of a packet of either version.
#[derive(Debug, Clone, Copy)]
pub enum Packet<'a> {
    /// IPv4.
    V4(ipv4::Packet<'a>),
    /// IPv6.
    V6(ipv6::Packet<'a>),
}

impl<'a> Packet<'a> {
    /// Goes by the version nibble.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        match bytes.first().map(|byte| byte >> 4) {
            Some(4) => ipv4::Packet::parse(bytes).map(Self::V4),
            Some(6) => ipv6::Packet::parse(bytes).map(Self::V6),
            Some(version) => Err(WireError::Version(version)),
            None => Err(WireError::Truncated {
                layer: "IP",
                have: 0,
                need: 1,
            }),
        }
    }

    /// The whole packet, without padding.
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Self::V4(packet) => packet.bytes(),
            Self::V6(packet) => packet.bytes(),
        }
    }

    /// Sender.
    pub fn source(&self) -> IpAddr {
        self.addresses().source()
    }

    /// Receiver.
    pub fn destination(&self) -> IpAddr {
        self.addresses().destination()
    }

    /// Both.
    pub fn addresses(&self) -> Addresses {
        match self {
            Self::V4(packet) => Addresses::V4 {
                source: packet.source(),
                destination: packet.destination(),
            },
            Self::V6(packet) => Addresses::V6 {
                source: packet.source(),
                destination: packet.destination(),
            },
        }
    }

    /// TTL or hop limit.
    pub fn ttl(&self) -> u8 {
        match self {
            Self::V4(packet) => packet.ttl(),
            Self::V6(packet) => packet.hop_limit(),
        }
    }

    /// DSCP and ECN.
    pub fn tos(&self) -> u8 {
        match self {
            Self::V4(packet) => packet.tos(),
            Self::V6(packet) => packet.traffic_class(),
        }
    }

    /// The upper layer, behind IPv6 extension headers.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::V4(packet) => packet.protocol(),
            Self::V6(packet) => packet.protocol(),
        }
    }

    /// Of the upper layer: its header and data.
    pub fn payload(&self) -> &'a [u8] {
        match self {
            Self::V4(packet) => packet.payload(),
            Self::V6(packet) => packet.payload(),
        }
    }

    /// Part of a datagram only: its payload is not complete.
    pub fn is_fragment(&self) -> bool {
        match self {
            Self::V4(packet) => packet.more_fragments() || packet.fragment_offset() > 0,
            Self::V6(packet) => packet
                .fragment()
                .is_some_and(|fragment| !fragment.is_atomic()),
        }
    }

    /// Its payload begins with the upper layer's header: not a fragment, or the first one.
    pub fn has_transport_header(&self) -> bool {
        match self {
            Self::V4(packet) => packet.fragment_offset() == 0,
            Self::V6(packet) => packet
                .fragment()
                .is_none_or(|fragment| fragment.offset == 0),
        }
    }

    /// The payload where it begins with a header of `protocol`.
    pub(super) fn transport(&self, protocol: Protocol) -> Result<&'a [u8], WireError> {
        if self.protocol() != protocol {
            return Err(WireError::Protocol(self.protocol().number()));
        }
        if !self.has_transport_header() {
            return Err(WireError::Fragment);
        }
        Ok(self.payload())
    }
}

/// What the header of an emitted packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// From whom, to whom.
    pub addresses: Addresses,
    /// What follows.
    pub protocol: Protocol,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// IPv4: `Some` lets routers fragment the packet under this id, `None` sets "don't fragment".
    /// IPv6 has neither.
    pub identification: Option<u16>,
}

/// TTL of the packets that we make ourselves (RFC 1700).
pub const DEFAULT_TTL: u8 = 64;

impl Header {
    /// With the usual TTL, no DSCP, "don't fragment".
    pub fn new(addresses: Addresses, protocol: Protocol) -> Self {
        Self {
            addresses,
            protocol,
            ttl: DEFAULT_TTL,
            tos: 0,
            identification: None,
        }
    }

    /// Header and payload. `TooLong` where the sum exceeds what IP can carry.
    pub fn emit(&self, payload: &[u8]) -> Result<Vec<u8>, WireError> {
        match self.addresses {
            Addresses::V4 {
                source,
                destination,
            } => self.emit_v4(source, destination, payload),
            Addresses::V6 {
                source,
                destination,
            } => self.emit_v6(source, destination, payload),
        }
    }

    fn emit_v4(
        &self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        payload: &[u8],
    ) -> Result<Vec<u8>, WireError> {
        let length = ipv4::HEADER_LEN + payload.len();
        let total = u16::try_from(length).map_err(|_| WireError::TooLong {
            layer: "IPv4",
            length,
        })?;
        let flags: u16 = if self.identification.is_some() {
            0
        } else {
            0x4000
        };
        let mut packet = Vec::with_capacity(length);
        packet.extend([0x45, self.tos]);
        packet.extend(total.to_be_bytes());
        packet.extend(self.identification.unwrap_or(0).to_be_bytes());
        packet.extend(flags.to_be_bytes());
        packet.extend([self.ttl, self.protocol.number(), 0, 0]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        fill(&mut packet, 10, Checksum::new());
        packet.extend_from_slice(payload);
        Ok(packet)
    }

    fn emit_v6(
        &self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        payload: &[u8],
    ) -> Result<Vec<u8>, WireError> {
        let length = u16::try_from(payload.len()).map_err(|_| WireError::TooLong {
            layer: "IPv6",
            length: payload.len(),
        })?;
        let mut packet = Vec::with_capacity(ipv6::HEADER_LEN + payload.len());
        packet.extend([0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
        packet.extend(length.to_be_bytes());
        packet.extend([self.protocol.number(), self.ttl]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend_from_slice(payload);
        Ok(packet)
    }
}
