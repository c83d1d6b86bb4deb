//! Header views and packet builders: the bytes that the gate reads from and writes to `up1`, and those that
//! `capture` shows.
//!
//! On the path: gate → **wire** (what is it?) → tcp | udp | icmp → **wire** (answer) → gate.
//!
//! Two levels. A *view* (`ip::Packet`, `tcp::Segment`, …) borrows bytes whose lengths were checked
//! once by `parse`, so that no accessor can fail. A small *semantic* struct (`ip::Header`,
//! `icmp::Echo`, …) says what a packet means and `emit`s it.
//!
//! Invariant: pure. No descriptor, no clock, no unsafe code; arbitrary bytes give a view or a
//! [`WireError`], never a panic. Checksums of what is read are not enforced by `parse` (the kernel
//! offloads them on veth pairs), those of what is emitted are always complete.
//!
//! Sources: RFC 791, RFC 8200 (IP), RFC 768 (UDP), RFC 9293 (TCP), RFC 792, RFC 4443 (ICMP),
//! RFC 1071 (checksum), RFC 1122 §3.2.2 and RFC 1812 §4.3.2 (when to send ICMP errors),
//! RFC 8504, RFC 5722 and RFC 815 (reassembly).

pub mod checksum;
pub mod ethernet;
pub mod fragments;
pub mod icmp;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod reset;
pub mod tcp;
pub mod udp;

#[cfg(test)]
mod tests;

pub use ip::{Addresses, Protocol};

/// Why bytes are not the packet that they should be, or a packet cannot be emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than the header, or the header's own length field, asks for.
    #[error("{layer}: {have} bytes where at least {need} are needed")]
    Truncated {
        /// Which header.
        layer: &'static str,
        /// Bytes there.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// The version nibble is neither 4 nor 6, or not the one asked for.
    #[error("IP version {0}")]
    Version(u8),
    /// A length field contradicts the header it stands in.
    #[error("{layer}: length field says {length}")]
    Length {
        /// Which header.
        layer: &'static str,
        /// What it says.
        length: usize,
    },
    /// More extension headers than anybody sends (RFC 8504 §5.3).
    #[error("IPv6: too many extension headers")]
    ExtensionHeaders,
    /// The packet is of another protocol than the view asked for.
    #[error("protocol {0} where another one is needed")]
    Protocol(u8),
    /// A fragment that lacks the beginning of the payload.
    #[error("a fragment without its transport header")]
    Fragment,
    /// What should be emitted is longer than its length field can say.
    #[error("{layer}: {length} bytes do not fit its length field")]
    TooLong {
        /// Which header.
        layer: &'static str,
        /// Bytes to be carried.
        length: usize,
    },
}

/// The fixed part of a header and what follows it.
fn fixed<'a, const N: usize>(
    layer: &'static str,
    bytes: &'a [u8],
) -> Result<(&'a [u8; N], &'a [u8]), WireError> {
    bytes.split_first_chunk::<N>().ok_or(WireError::Truncated {
        layer,
        have: bytes.len(),
        need: N,
    })
}

/// The first `need` bytes.
fn first<'a>(layer: &'static str, bytes: &'a [u8], need: usize) -> Result<&'a [u8], WireError> {
    bytes.get(..need).ok_or(WireError::Truncated {
        layer,
        have: bytes.len(),
        need,
    })
}
