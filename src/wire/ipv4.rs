//! IPv4 packets (RFC 791).

use super::checksum::Checksum;
use super::ip::Protocol;
use super::{WireError, first, fixed};
use std::net::Ipv4Addr;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// A checked view of a packet. Bytes behind its total length (padding) are cut off.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    header: &'a [u8; HEADER_LEN],
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Checks version, header length and total length.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        const LAYER: &str = "IPv4";
        let (header, _) = fixed::<HEADER_LEN>(LAYER, bytes)?;
        if header[0] >> 4 != 4 {
            return Err(WireError::Version(header[0] >> 4));
        }
        let header_len = usize::from(header[0] & 15) * 4;
        if header_len < HEADER_LEN {
            return Err(WireError::Length {
                layer: LAYER,
                length: header_len,
            });
        }
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if total < header_len {
            return Err(WireError::Length {
                layer: LAYER,
                length: total,
            });
        }
        let bytes = first(LAYER, bytes, total)?;
        let (head, payload) = bytes
            .split_at_checked(header_len)
            .ok_or(WireError::Truncated {
                layer: LAYER,
                have: bytes.len(),
                need: header_len,
            })?;
        let options = head.get(HEADER_LEN..).unwrap_or_default();
        Ok(Self {
            bytes,
            header,
            options,
            payload,
        })
    }

    /// The whole packet.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whom it is from.
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::new(
            self.header[12],
            self.header[13],
            self.header[14],
            self.header[15],
        )
    }

    /// Whom it is for.
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::new(
            self.header[16],
            self.header[17],
            self.header[18],
            self.header[19],
        )
    }

    /// DSCP and ECN.
    pub fn tos(&self) -> u8 {
        self.header[1]
    }

    /// Hops left.
    pub fn ttl(&self) -> u8 {
        self.header[8]
    }

    /// What it carries.
    pub fn protocol(&self) -> Protocol {
        self.header[9].into()
    }

    /// Identifies the datagram that a fragment belongs to.
    pub fn identification(&self) -> u16 {
        u16::from_be_bytes([self.header[4], self.header[5]])
    }

    /// Routers may not fragment it.
    pub fn dont_fragment(&self) -> bool {
        self.header[6] & 0x40 != 0
    }

    /// Further fragments follow.
    pub fn more_fragments(&self) -> bool {
        self.header[6] & 0x20 != 0
    }

    /// Where its payload stands in the datagram's, bytes.
    pub fn fragment_offset(&self) -> usize {
        usize::from(u16::from_be_bytes([self.header[6] & 0x1f, self.header[7]])) * 8
    }

    /// Between the fixed header and the payload.
    pub fn options(&self) -> &'a [u8] {
        self.options
    }

    /// Behind the header.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The header's checksum is right.
    pub fn verify_checksum(&self) -> bool {
        Checksum::new()
            .bytes(self.header)
            .bytes(self.options)
            .finish()
            == 0
    }
}
