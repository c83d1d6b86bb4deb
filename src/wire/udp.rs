//! UDP datagrams (RFC 768).

use super::checksum::{Checksum, fill};
use super::ip::{self, Addresses, Protocol};
use super::{WireError, first, fixed};

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;

/// A checked view of a datagram. Bytes behind its length are cut off.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    header: &'a [u8; HEADER_LEN],
    bytes: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Checks the length field. `bytes`: the payload of a whole IP packet.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        const LAYER: &str = "UDP";
        let (header, _) = fixed::<HEADER_LEN>(LAYER, bytes)?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        if length < HEADER_LEN {
            return Err(WireError::Length {
                layer: LAYER,
                length,
            });
        }
        let bytes = first(LAYER, bytes, length)?;
        let payload = bytes.get(HEADER_LEN..).unwrap_or_default();
        Ok(Self {
            header,
            bytes,
            payload,
        })
    }

    /// The datagram in `packet`; an error where it carries something else, or a fragment.
    pub fn of(packet: &ip::Packet<'a>) -> Result<Self, WireError> {
        Self::parse(packet.transport(Protocol::Udp)?)
    }

    /// Port of the sender.
    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// Port of the receiver.
    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// The data; may be empty.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The checksum is right, or was not computed.
    pub fn verify_checksum(&self, addresses: Addresses) -> bool {
        let sum = Checksum::pseudo(addresses, Protocol::Udp, self.bytes.len() as u32);
        let absent = self.header[6] == 0 && self.header[7] == 0;
        absent && matches!(addresses, Addresses::V4 { .. }) || sum.bytes(self.bytes).finish() == 0
    }
}

/// The header of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Of the sender.
    pub source: u16,
    /// Of the receiver.
    pub destination: u16,
}

impl Ports {
    /// Header and payload with checksum. `TooLong` beyond 65,527 bytes.
    pub fn emit(&self, addresses: Addresses, payload: &[u8]) -> Result<Vec<u8>, WireError> {
        let length = HEADER_LEN + payload.len();
        let field = u16::try_from(length).map_err(|_| WireError::TooLong {
            layer: "UDP",
            length,
        })?;
        let mut datagram = Vec::with_capacity(length);
        datagram.extend(self.source.to_be_bytes());
        datagram.extend(self.destination.to_be_bytes());
        datagram.extend(field.to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend_from_slice(payload);
        let pseudo = Checksum::pseudo(addresses, Protocol::Udp, u32::from(field));
        if fill(&mut datagram, 6, pseudo) == 0 {
            // Zero would say "none"; its one's complement twin does not.
            for byte in datagram.iter_mut().skip(6).take(2) {
                *byte = 0xff;
            }
        }
        Ok(datagram)
    }
}
