//! The internet checksum (RFC 1071), whole or in parts, and the pseudo headers of TCP, UDP and
//! ICMPv6 (RFC 9293 §3.1, RFC 8200 §8.1).

use super::ip::{Addresses, Protocol};

/// A one's complement sum under way.
///
/// Parts may be added in any order as long as each but the last has an even number of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checksum {
    sum: u64,
}

impl Checksum {
    /// Nothing summed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The pseudo header of a transport protocol over IPv4 or IPv6.
    ///
    /// `length`: bytes of transport header and payload.
    pub fn pseudo(addresses: Addresses, protocol: Protocol, length: u32) -> Self {
        let sum = match addresses {
            Addresses::V4 {
                source,
                destination,
            } => Self::new()
                .bytes(&source.octets())
                .bytes(&destination.octets()),
            Addresses::V6 {
                source,
                destination,
            } => Self::new()
                .bytes(&source.octets())
                .bytes(&destination.octets()),
        };
        sum.bytes(&length.to_be_bytes())
            .word(u16::from(protocol.number()))
    }

    /// Adds bytes; an odd last one counts as the high half of a word.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        // 32 bits at a time: 2^16 = 1 in one's complement, so halves may be folded later; 64 bits
        // hold 2^32 such additions.
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            self.sum += u64::from(u32::from_be_bytes(*word));
        }
        let mut tail = [0u8; 4];
        for (to, from) in tail.iter_mut().zip(rest) {
            *to = *from;
        }
        self.sum += u64::from(u32::from_be_bytes(tail));
        self.fold();
        self
    }

    /// Adds one 16-bit word.
    #[must_use]
    pub fn word(self, word: u16) -> Self {
        self.bytes(&word.to_be_bytes())
    }

    /// What goes into the checksum field. Over data that includes a correct checksum: zero.
    pub fn finish(self) -> u16 {
        let mut sum = self.sum;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // The loop ends with 16 bits.
        !(sum as u16)
    }

    fn fold(&mut self) {
        self.sum = (self.sum & 0xffff_ffff) + (self.sum >> 32);
    }
}

/// Writes the checksum of `packet` at byte `offset` of it, where zeroes stand now.
///
/// `before`: what else is summed, such as a pseudo header. Leaves the packet alone where `offset`
/// lies outside.
pub(super) fn fill(packet: &mut [u8], offset: usize, before: Checksum) -> u16 {
    let sum = before.bytes(packet).finish();
    if let Some(field) = packet.get_mut(offset..offset + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    sum
}
