//! Control messages as bytes (cmsg(3)): a native `size_t` length, level, type, data, each message
//! aligned to the size of `size_t`.

use super::address;
use std::net::{IpAddr, SocketAddr};

/// Room for every control message that [`super::Report`] can ask for, at once.
pub(super) const CONTROL_LEN: usize = 256;

const ALIGNMENT: usize = size_of::<usize>();
const HEADER_LEN: usize = size_of::<usize>() + 8;

/// Who noticed an error (`ee_origin`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This host's kernel.
    Local,
    /// Somebody on the way, by ICMP.
    Icmp,
    /// Somebody on the way, by ICMPv6.
    Icmpv6,
    /// Timestamps and the like.
    Other(u8),
}

/// One entry of a socket's error queue (`sock_extended_err`, ip(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuedError {
    /// errno(3) value.
    pub errno: i32,
    /// Who noticed.
    pub origin: Origin,
    /// ICMP type.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// MTU where the error is EMSGSIZE.
    pub info: u32,
    /// Who sent the ICMP error.
    pub offender: Option<IpAddr>,
}

/// Everything told about a datagram.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Control {
    pub(super) original_destination: Option<SocketAddr>,
    pub(super) local: Option<IpAddr>,
    pub(super) ttl: Option<u8>,
    pub(super) tos: u8,
    pub(super) segment: Option<u16>,
    pub(super) mark: Option<u32>,
    pub(super) in_fragments: bool,
    pub(super) error: Option<QueuedError>,
}

impl Control {
    /// Reads what the kernel wrote; messages that nobody asked for are skipped.
    pub(super) fn decode(mut bytes: &[u8]) -> Self {
        let mut control = Self::default();
        while let Some((level, kind, data, rest)) = next(bytes) {
            control.take(level, kind, data);
            bytes = rest;
        }
        control
    }

    fn take(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        match (level, kind) {
            (libc::SOL_IP, libc::IP_ORIGDSTADDR) | (libc::SOL_IPV6, libc::IPV6_ORIGDSTADDR) => {
                self.original_destination = address::decode(data);
            }
            (libc::SOL_IP, libc::IP_PKTINFO) => self.local = local_v4(data).or(self.local),
            (libc::SOL_IPV6, libc::IPV6_PKTINFO) => self.local = local_v6(data).or(self.local),
            (libc::SOL_IP, libc::IP_TTL) | (libc::SOL_IPV6, libc::IPV6_HOPLIMIT) => {
                self.ttl = int(data).and_then(|ttl| u8::try_from(ttl).ok());
            }
            // One byte, unlike the others.
            (libc::SOL_IP, libc::IP_TOS) => self.tos = data.first().copied().unwrap_or(0),
            (libc::SOL_IPV6, libc::IPV6_TCLASS) => {
                self.tos = int(data)
                    .and_then(|tos| u8::try_from(tos).ok())
                    .unwrap_or(0);
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let size = int(data).and_then(|size| u16::try_from(size).ok());
                self.segment = size.filter(|size| *size > 0);
            }
            (libc::SOL_SOCKET, libc::SO_MARK) => {
                self.mark = int(data).map(i32::cast_unsigned);
            }
            (libc::SOL_IPV6, libc::IPV6_RECVFRAGSIZE) => self.in_fragments = true,
            (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR) => {
                self.error = queued_error(data);
            }
            _ => {}
        }
    }
}

type Message<'a> = (libc::c_int, libc::c_int, &'a [u8], &'a [u8]);

/// The first message of `bytes`, and what follows it.
fn next(bytes: &[u8]) -> Option<Message<'_>> {
    let (length, rest) = bytes.split_first_chunk::<{ size_of::<usize>() }>()?;
    let (level, rest) = rest.split_first_chunk::<4>()?;
    let (kind, _) = rest.split_first_chunk::<4>()?;
    let length = usize::from_ne_bytes(*length);
    let data = bytes.get(HEADER_LEN..length)?;
    let rest = bytes
        .get(length.next_multiple_of(ALIGNMENT)..)
        .unwrap_or_default();
    Some((
        i32::from_ne_bytes(*level),
        i32::from_ne_bytes(*kind),
        data,
        rest,
    ))
}

/// `ipi_spec_dst`: the address asked, or where that was no single one's, our own.
fn local_v4(data: &[u8]) -> Option<IpAddr> {
    let (_index, rest) = data.split_first_chunk::<4>()?;
    rest.first_chunk::<4>().map(|octets| IpAddr::from(*octets))
}

/// `ipi6_addr`; IPv4 where a socket of both families received it.
fn local_v6(data: &[u8]) -> Option<IpAddr> {
    let octets = data.first_chunk::<16>()?;
    Some(IpAddr::from(*octets).to_canonical())
}

fn int(data: &[u8]) -> Option<i32> {
    data.first_chunk::<4>()
        .map(|bytes| i32::from_ne_bytes(*bytes))
}

fn queued_error(data: &[u8]) -> Option<QueuedError> {
    let (errno, rest) = data.split_first_chunk::<4>()?;
    let ([origin, kind, code, _pad], rest) = rest.split_first_chunk::<4>()?;
    let (info, rest) = rest.split_first_chunk::<4>()?;
    let (_data, offender) = rest.split_first_chunk::<4>()?;
    Some(QueuedError {
        errno: i32::from_ne_bytes(*errno),
        origin: match *origin {
            1 => Origin::Local,
            libc::SO_EE_ORIGIN_ICMP => Origin::Icmp,
            libc::SO_EE_ORIGIN_ICMP6 => Origin::Icmpv6,
            other => Origin::Other(other),
        },
        kind: *kind,
        code: *code,
        info: u32::from_ne_bytes(*info),
        offender: address::decode(offender).map(|offender| offender.ip()),
    })
}

/// `in6_pktinfo`, the longest thing sent along.
const PACKET_INFO_LEN: usize = 20;

/// Room for the control messages of one outgoing message.
pub(super) const OUTGOING_LEN: usize =
    3 * (HEADER_LEN + ALIGNMENT) + HEADER_LEN + PACKET_INFO_LEN.next_multiple_of(ALIGNMENT);

/// Control messages for one outgoing message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing {
    pub(super) bytes: [u8; OUTGOING_LEN],
    pub(super) length: usize,
}

impl Outgoing {
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; OUTGOING_LEN],
            length: 0,
        }
    }

    /// TTL or hop limit of this message only.
    pub(super) fn ttl(&mut self, v6: bool, ttl: u8) {
        let (level, kind) = if v6 {
            (libc::SOL_IPV6, libc::IPV6_HOPLIMIT)
        } else {
            (libc::SOL_IP, libc::IP_TTL)
        };
        self.push(level, kind, &i32::from(ttl).to_ne_bytes());
    }

    /// DSCP and ECN of this message only.
    pub(super) fn tos(&mut self, v6: bool, tos: u8) {
        let (level, kind) = if v6 {
            (libc::SOL_IPV6, libc::IPV6_TCLASS)
        } else {
            (libc::SOL_IP, libc::IP_TOS)
        };
        self.push(level, kind, &i32::from(tos).to_ne_bytes());
    }

    /// The data is several datagrams of `size` bytes, the last one perhaps shorter.
    pub(super) fn segment(&mut self, size: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }

    /// The address that it leaves from; `scope` is the interface of a link-local one.
    pub(super) fn source(&mut self, address: IpAddr, scope: u32) {
        match address {
            IpAddr::V4(address) => {
                let mut info = [0; 12];
                // ipi_ifindex, ipi_spec_dst, ipi_addr.
                info.iter_mut()
                    .skip(4)
                    .zip(address.octets())
                    .for_each(|(to, from)| *to = from);
                self.push(libc::SOL_IP, libc::IP_PKTINFO, &info);
            }
            IpAddr::V6(address) => {
                let mut info = [0; PACKET_INFO_LEN];
                let bytes = address.octets().into_iter().chain(scope.to_ne_bytes());
                info.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
                self.push(libc::SOL_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    fn push(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let length = HEADER_LEN + data.len();
        let message = length.to_ne_bytes().into_iter();
        let message = message.chain(level.to_ne_bytes()).chain(kind.to_ne_bytes());
        let room = self.bytes.iter_mut().skip(self.length);
        for (to, from) in room.zip(message.chain(data.iter().copied())) {
            *to = from;
        }
        self.length = (self.length + length.next_multiple_of(ALIGNMENT)).min(OUTGOING_LEN);
    }
}
