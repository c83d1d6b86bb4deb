//! Ethernet II frames (IEEE 802.3 §3), as they cross the veth pair `up0` ═ `up1`: no VLAN tags.

use super::{WireError, fixed};

/// Bytes of the header.
pub const HEADER_LEN: usize = 14;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtherType {
    /// 0x0800.
    Ipv4,
    /// 0x86dd.
    Ipv6,
    /// 0x0806.
    Arp,
    /// Anything else.
    Other(u16),
}

impl From<u16> for EtherType {
    fn from(number: u16) -> Self {
        match number {
            0x0800 => Self::Ipv4,
            0x86dd => Self::Ipv6,
            0x0806 => Self::Arp,
            other => Self::Other(other),
        }
    }
}

impl From<EtherType> for u16 {
    fn from(kind: EtherType) -> Self {
        match kind {
            EtherType::Ipv4 => 0x0800,
            EtherType::Ipv6 => 0x86dd,
            EtherType::Arp => 0x0806,
            EtherType::Other(number) => number,
        }
    }
}

/// A checked view of a frame.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Checks the length.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (header, payload) = fixed("ethernet", bytes)?;
        Ok(Self { header, payload })
    }

    /// Whom it is for.
    pub fn destination(&self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = *self.header;
        [a, b, c, d, e, f]
    }

    /// Whom it is from.
    pub fn source(&self) -> [u8; 6] {
        let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.header;
        [a, b, c, d, e, f]
    }

    /// What it carries.
    pub fn ethertype(&self) -> EtherType {
        u16::from_be_bytes([self.header[12], self.header[13]]).into()
    }

    /// Behind the header; may have padding at its end.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whom it is for.
    pub destination: [u8; 6],
    /// Whom it is from.
    pub source: [u8; 6],
    /// What follows.
    pub ethertype: EtherType,
}

impl Header {
    /// The header of an answer to `frame`: addresses swapped.
    pub fn answering(frame: &Frame<'_>) -> Self {
        Self {
            destination: frame.source(),
            source: frame.destination(),
            ethertype: frame.ethertype(),
        }
    }

    /// The bytes.
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let parts = self.destination.into_iter().chain(self.source);
        let parts = parts.chain(u16::from(self.ethertype).to_be_bytes());
        for (to, from) in bytes.iter_mut().zip(parts) {
            *to = from;
        }
        bytes
    }
}
