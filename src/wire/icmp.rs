//! ICMP for IPv4 (RFC 792, RFC 1191) and IPv6 (RFC 4443): echo, and errors that quote a packet.

use super::checksum::{Checksum, fill};
use super::ip::{Addresses, Header, Packet, Protocol};
use super::{WireError, fixed, ipv4, ipv6};
use std::io;
use std::net::IpAddr;

/// Bytes of the header, with the four that depend on the type.
pub const HEADER_LEN: usize = 8;

/// Most bytes of an IPv4 error, IP header included (RFC 1812 §4.3.2.3).
const MAX_ERROR_V4: usize = 576;
/// Most bytes of an IPv6 error, IP header included: the minimum MTU (RFC 4443 §2.4 c).
const MAX_ERROR_V6: usize = 1280;

/// Which of the two protocols: their numbers mean different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// ICMP over IPv4.
    V4,
    /// ICMPv6.
    V6,
}

impl Family {
    fn of(addresses: Addresses) -> Self {
        match addresses {
            Addresses::V4 { .. } => Self::V4,
            Addresses::V6 { .. } => Self::V6,
        }
    }

    /// Its IP protocol number.
    pub fn protocol(self) -> Protocol {
        match self {
            Self::V4 => Protocol::Icmp,
            Self::V6 => Protocol::Icmpv6,
        }
    }

    fn echo_request(self) -> u8 {
        match self {
            Self::V4 => 8,
            Self::V6 => 128,
        }
    }

    fn echo_reply(self) -> u8 {
        match self {
            Self::V4 => 0,
            Self::V6 => 129,
        }
    }

    /// Types that report an error: never to be answered with an error.
    fn is_error(self, kind: u8) -> bool {
        match self {
            Self::V4 => matches!(kind, 3 | 4 | 5 | 11 | 12),
            // Redirect (137) is informational by number, but must not be answered either.
            Self::V6 => kind < 128 || kind == 137,
        }
    }
}

/// A checked view of a message.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    family: Family,
    header: &'a [u8; HEADER_LEN],
    bytes: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Checks the length. `bytes`: the payload of an IP packet.
    pub fn parse(family: Family, bytes: &'a [u8]) -> Result<Self, WireError> {
        let (header, payload) = fixed("ICMP", bytes)?;
        Ok(Self {
            family,
            header,
            bytes,
            payload,
        })
    }

    /// The message in `packet`; an error where it carries something else, or a later fragment.
    pub fn of(packet: &Packet<'a>) -> Result<Self, WireError> {
        let family = Family::of(packet.addresses());
        Self::parse(family, packet.transport(family.protocol())?)
    }

    /// Type.
    pub fn kind(&self) -> u8 {
        self.header[0]
    }

    /// Code.
    pub fn code(&self) -> u8 {
        self.header[1]
    }

    /// The four bytes that depend on the type: MTU, pointer, or id and sequence number.
    pub fn rest(&self) -> u32 {
        u32::from_be_bytes([
            self.header[4],
            self.header[5],
            self.header[6],
            self.header[7],
        ])
    }

    /// Behind the header: data, or the quoted packet.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Reports an error.
    pub fn is_error(&self) -> bool {
        self.family.is_error(self.kind())
    }

    /// The echo request that it is.
    pub fn echo_request(&self) -> Option<Echo<'a>> {
        self.echo(self.family.echo_request())
    }

    /// The echo reply that it is.
    pub fn echo_reply(&self) -> Option<Echo<'a>> {
        self.echo(self.family.echo_reply())
    }

    /// The checksum is right.
    pub fn verify_checksum(&self, addresses: Addresses) -> bool {
        before(addresses, self.bytes.len())
            .bytes(self.bytes)
            .finish()
            == 0
    }

    fn echo(&self, kind: u8) -> Option<Echo<'a>> {
        (self.kind() == kind && self.code() == 0).then(|| Echo {
            id: u16::from_be_bytes([self.header[4], self.header[5]]),
            sequence: u16::from_be_bytes([self.header[6], self.header[7]]),
            data: self.payload,
        })
    }
}

/// An echo request or reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo<'a> {
    /// Tells one asker's requests from another's.
    pub id: u16,
    /// Counts the requests.
    pub sequence: u16,
    /// Comes back as it was sent.
    pub data: &'a [u8],
}

impl Echo<'_> {
    /// As a request, without IP header.
    pub fn emit_request(&self, addresses: Addresses) -> Vec<u8> {
        self.emit(Family::of(addresses).echo_request(), addresses)
    }

    /// As a reply, without IP header.
    pub fn emit_reply(&self, addresses: Addresses) -> Vec<u8> {
        self.emit(Family::of(addresses).echo_reply(), addresses)
    }

    fn emit(&self, kind: u8, addresses: Addresses) -> Vec<u8> {
        let rest = u32::from(self.id) << 16 | u32::from(self.sequence);
        message([kind, 0], rest, self.data, addresses)
    }
}

/// Why a packet was not delivered, as its sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// No route to the destination (ENETUNREACH).
    NoRoute,
    /// The destination does not answer on its link (EHOSTUNREACH).
    HostUnreachable,
    /// It does not speak the protocol.
    ProtocolUnreachable,
    /// Nobody listens on the port (ECONNREFUSED).
    PortUnreachable,
    /// Somebody's policy forbids it (EACCES).
    Prohibited,
    /// It ran out of hops.
    TimeExceeded,
    /// It must be fragmented or made smaller.
    TooBig {
        /// Bytes that fit, IP header included.
        mtu: u32,
    },
    /// As somebody else said it: type, code and the four bytes behind the checksum, all in the
    /// numbers of the family at hand.
    Verbatim {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Bytes 4 to 8 of the message.
        rest: u32,
    },
}

impl Notice {
    /// What a failed connect(2) or send(2) towards the destination means to the sender. `None`
    /// where a router would be silent (blackhole routes: EINVAL), or where the fault is our own.
    pub fn of(error: &io::Error) -> Option<Self> {
        match error.raw_os_error()? {
            // The last two: no address, or no protocol, of the destination's family.
            libc::ENETUNREACH | libc::ENETDOWN | libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT => {
                Some(Self::NoRoute)
            }
            libc::EHOSTUNREACH | libc::EHOSTDOWN => Some(Self::HostUnreachable),
            libc::ECONNREFUSED => Some(Self::PortUnreachable),
            libc::EACCES | libc::EPERM => Some(Self::Prohibited),
            _ => None,
        }
    }

    /// Type and code, and the next four bytes.
    fn numbers(self, family: Family) -> ([u8; 2], u32) {
        match (self, family) {
            (Self::NoRoute, Family::V4) => ([3, 0], 0),
            (Self::HostUnreachable, Family::V4) => ([3, 1], 0),
            (Self::ProtocolUnreachable, Family::V4) => ([3, 2], 0),
            (Self::PortUnreachable, Family::V4) => ([3, 3], 0),
            (Self::TooBig { mtu }, Family::V4) => ([3, 4], mtu.min(0xffff)),
            (Self::Prohibited, Family::V4) => ([3, 13], 0),
            (Self::TimeExceeded, Family::V4) => ([11, 0], 0),
            (Self::NoRoute, Family::V6) => ([1, 0], 0),
            (Self::Prohibited, Family::V6) => ([1, 1], 0),
            (Self::HostUnreachable, Family::V6) => ([1, 3], 0),
            (Self::PortUnreachable, Family::V6) => ([1, 4], 0),
            (Self::TooBig { mtu }, Family::V6) => ([2, 0], mtu),
            (Self::TimeExceeded, Family::V6) => ([3, 0], 0),
            // Parameter problem, unrecognised next header; it stands at byte 6.
            (Self::ProtocolUnreachable, Family::V6) => ([4, 1], 6),
            (Self::Verbatim { kind, code, rest }, _) => ([kind, code], rest),
        }
    }

    /// A whole IP packet that tells the sender of `offending`, quoting as much of it as may be.
    ///
    /// `reporter`: who says so; another address than the router netns's own, or its kernel drops
    /// the packet as a martian. `None` where no error may be sent: about an ICMP error, a later
    /// fragment, a packet to or from other than one host (RFC 1122 §3.2.2, RFC 4443 §2.4 e), or by
    /// a reporter of the other family.
    pub fn about(self, offending: &Packet<'_>, reporter: IpAddr) -> Option<Vec<u8>> {
        let addresses = Addresses::new(reporter, offending.source())?;
        if !answerable(offending) {
            return None;
        }
        let family = Family::of(addresses);
        let (headers, most) = match family {
            Family::V4 => (ipv4::HEADER_LEN + HEADER_LEN, MAX_ERROR_V4),
            Family::V6 => (ipv6::HEADER_LEN + HEADER_LEN, MAX_ERROR_V6),
        };
        let quote = offending.bytes();
        let quote = quote.get(..most - headers).unwrap_or(quote);
        let (numbers, rest) = self.numbers(family);
        let message = message(numbers, rest, quote, addresses);
        Header::new(addresses, family.protocol())
            .emit(&message)
            .ok()
    }
}

/// An error may be sent about this packet.
fn answerable(packet: &Packet<'_>) -> bool {
    let one_host = |address: IpAddr| match address {
        IpAddr::V4(address) => {
            !(address.is_unspecified() || address.is_multicast() || address.is_broadcast())
        }
        IpAddr::V6(address) => !(address.is_unspecified() || address.is_multicast()),
    };
    let an_error = Message::of(packet).is_ok_and(|message| message.is_error());
    packet.has_transport_header()
        && one_host(packet.source())
        && one_host(packet.destination())
        && !an_error
}

fn message(numbers: [u8; 2], rest: u32, payload: &[u8], addresses: Addresses) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER_LEN + payload.len());
    message.extend(numbers);
    message.extend([0, 0]);
    message.extend(rest.to_be_bytes());
    message.extend_from_slice(payload);
    let sum = before(addresses, message.len());
    fill(&mut message, 2, sum);
    message
}

/// ICMPv6 sums a pseudo header, ICMP does not.
fn before(addresses: Addresses, length: usize) -> Checksum {
    match addresses {
        Addresses::V4 { .. } => Checksum::new(),
        Addresses::V6 { .. } => Checksum::pseudo(addresses, Protocol::Icmpv6, length as u32),
    }
}
