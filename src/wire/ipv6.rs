//! IPv6 packets (RFC 8200), extension headers included.

use super::ip::Protocol;
use super::{WireError, first, fixed};
use std::net::Ipv6Addr;

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Bytes of a fragment header.
pub const FRAGMENT_LEN: usize = 8;

/// RFC 8504 §5.3 lets a node give up beyond eight; nobody sends as many.
const MAX_EXTENSION_HEADERS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
pub(super) const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// What a fragment header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Where the payload stands in the datagram's fragmentable part, bytes.
    pub offset: usize,
    /// Further fragments follow.
    pub more: bool,
    /// Identifies the datagram.
    pub identification: u32,
    /// Number of the header that the datagram's fragmentable part begins with.
    pub next_header: u8,
}

impl Fragment {
    /// A datagram in one piece despite its fragment header (RFC 6946).
    pub fn is_atomic(&self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// A checked view of a packet. Bytes behind its payload length are cut off.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    header: &'a [u8; HEADER_LEN],
    protocol: Protocol,
    fragment: Option<Fragment>,
    fragmentable: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Checks version and length, and walks the extension headers up to the upper layer, or to
    /// the end of a fragment header that is not the datagram's first.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (header, rest) = fixed::<HEADER_LEN>("IPv6", bytes)?;
        if header[0] >> 4 != 6 {
            return Err(WireError::Version(header[0] >> 4));
        }
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let rest = first("IPv6", rest, length)?;
        let bytes = first("IPv6", bytes, HEADER_LEN + length)?;
        let upper = upper_layer(header[6], rest)?;
        Ok(Self {
            bytes,
            header,
            protocol: upper.protocol,
            fragment: upper.fragment,
            fragmentable: upper.fragmentable,
            payload: upper.payload,
        })
    }

    /// The whole packet.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whom it is from.
    pub fn source(&self) -> Ipv6Addr {
        self.address(8)
    }

    /// Whom it is for.
    pub fn destination(&self) -> Ipv6Addr {
        self.address(24)
    }

    /// DSCP and ECN.
    pub fn traffic_class(&self) -> u8 {
        self.header[0] << 4 | self.header[1] >> 4
    }

    /// Hops left.
    pub fn hop_limit(&self) -> u8 {
        self.header[7]
    }

    /// What it carries behind all extension headers.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Its fragment header, if any.
    pub fn fragment(&self) -> Option<Fragment> {
        self.fragment
    }

    /// Behind the fragment header, where there is one; empty otherwise.
    pub fn fragmentable(&self) -> &'a [u8] {
        self.fragmentable
    }

    /// Behind all extension headers.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    fn address(&self, at: usize) -> Ipv6Addr {
        let mut octets = [0; 16];
        for (to, from) in octets.iter_mut().zip(self.header.iter().skip(at)) {
            *to = *from;
        }
        octets.into()
    }
}

struct Upper<'a> {
    protocol: Protocol,
    fragment: Option<Fragment>,
    fragmentable: &'a [u8],
    payload: &'a [u8],
}

fn upper_layer(first_header: u8, bytes: &[u8]) -> Result<Upper<'_>, WireError> {
    const LAYER: &str = "IPv6 extension header";
    let (mut next, mut rest) = (first_header, bytes);
    let (mut fragment, mut fragmentable) = (None::<Fragment>, <&[u8]>::default());
    for _ in 0..=MAX_EXTENSION_HEADERS {
        // Behind the header of a later fragment stands the middle of something, not a header.
        let later = fragment.is_some_and(|fragment| fragment.offset > 0);
        let length = match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS if !later => {
                let (head, _) = fixed::<2>(LAYER, rest)?;
                (usize::from(head[1]) + 1) * 8
            }
            AUTHENTICATION if !later => {
                let (head, _) = fixed::<2>(LAYER, rest)?;
                (usize::from(head[1]) + 2) * 4
            }
            FRAGMENT if fragment.is_none() => {
                let (head, behind) = fixed::<FRAGMENT_LEN>(LAYER, rest)?;
                let field = u16::from_be_bytes([head[2], head[3]]);
                fragmentable = behind;
                fragment = Some(Fragment {
                    offset: usize::from(field & !7),
                    more: field & 1 == 1,
                    identification: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
                    next_header: head[0],
                });
                FRAGMENT_LEN
            }
            upper => {
                return Ok(Upper {
                    protocol: upper.into(),
                    fragment,
                    fragmentable,
                    payload: rest,
                });
            }
        };
        let header = first(LAYER, rest, length)?;
        next = header.first().copied().unwrap_or_default();
        rest = rest.get(length..).unwrap_or_default();
    }
    Err(WireError::ExtensionHeaders)
}
