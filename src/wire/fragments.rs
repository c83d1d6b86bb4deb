//! Fragments: putting datagrams together again, and taking IPv6 ones apart.
//!
//! The kernel does this for what tproxy catches; what reaches the gate (echo requests longer than
//! the MTU, long traceroute probes) comes in pieces.
//!
//! Invariants: memory is bounded by [`MAX_DATAGRAMS`] and [`MAX_BYTES`], the oldest datagram goes
//! first; pieces that overlap kill their datagram (RFC 5722), so no byte is ever written twice; a
//! datagram that is not complete after [`TIMEOUT`] is forgotten.
//!
//! Sources: RFC 791 §3.2, RFC 8200 §4.5, RFC 5722, RFC 8900.

use super::WireError;
use super::ip::{Addresses, Header, Packet, Protocol};
use super::ipv6;
use std::time::{Duration, Instant};

/// Datagrams under way at one time.
pub const MAX_DATAGRAMS: usize = 32;
/// Bytes of all of them together.
pub const MAX_BYTES: usize = 1 << 20;
/// How long a datagram may take (Linux: net.ipv4.ipfrag_time).
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Longest datagram: what the length field of its header can say.
const MAX_LENGTH: usize = 65_535;
/// Pieces of one datagram; 64 KiB in pieces of the smallest IPv4 MTU's 48 bytes come close.
const MAX_PIECES: usize = 1_400;

/// Datagrams that have not arrived whole.
#[derive(Default)]
pub struct Reassembly {
    /// In order of their first pieces.
    partial: Vec<Partial>,
    bytes: usize,
}

/// A datagram put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// As an unfragmented IP packet, without IP options.
    pub bytes: Vec<u8>,
    /// The longest piece's length, IP header included: what the path can carry.
    pub largest: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    addresses: Addresses,
    protocol: u8,
    identification: u32,
}

struct Partial {
    identity: Identity,
    started: Instant,
    /// Of the first piece.
    header: Option<Header>,
    /// Sorted by offset, without overlap.
    pieces: Vec<Piece>,
    /// Known once the last piece is there.
    total: Option<usize>,
    bytes: usize,
    largest: usize,
}

struct Piece {
    offset: usize,
    data: Vec<u8>,
}

impl Piece {
    fn end(&self) -> usize {
        self.offset + self.data.len()
    }
}

impl Reassembly {
    /// Nothing under way.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a fragment up; the datagram, if this completes it. Packets that are no fragments are
    /// ignored.
    pub fn add(&mut self, packet: &Packet<'_>, now: Instant) -> Option<Whole> {
        let (identity, piece, more) = dissect(packet)?;
        self.expire(now);
        let at = self.position(identity, now);
        let partial = self.partial.get_mut(at)?;
        partial.largest = partial.largest.max(packet.bytes().len());
        if piece.offset == 0 && partial.header.is_none() {
            partial.header = Some(Header {
                addresses: identity.addresses,
                protocol: identity.protocol.into(),
                ttl: packet.ttl(),
                tos: packet.tos(),
                identification: Some(identity.identification as u16),
            });
        }
        let added = piece.data.len();
        match partial.insert(piece, more) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(Unusable) => {
                self.forget(at);
                return None;
            }
        }
        self.bytes += added;
        if let Some(whole) = self.partial.get(at).and_then(Partial::whole) {
            self.forget(at);
            return Some(whole);
        }
        while self.bytes > MAX_BYTES && !self.partial.is_empty() {
            self.forget(0);
        }
        None
    }

    /// Forgets what took too long.
    pub fn expire(&mut self, now: Instant) {
        let late = |partial: &Partial| now.saturating_duration_since(partial.started) >= TIMEOUT;
        while self.partial.first().is_some_and(late) {
            self.forget(0);
        }
    }

    fn position(&mut self, identity: Identity, now: Instant) -> usize {
        if let Some(at) = self
            .partial
            .iter()
            .position(|partial| partial.identity == identity)
        {
            return at;
        }
        if self.partial.len() >= MAX_DATAGRAMS {
            self.forget(0);
        }
        self.partial.push(Partial {
            identity,
            started: now,
            header: None,
            pieces: Vec::new(),
            total: None,
            bytes: 0,
            largest: 0,
        });
        self.partial.len() - 1
    }

    fn forget(&mut self, at: usize) {
        if at < self.partial.len() {
            self.bytes -= self.partial.remove(at).bytes;
        }
    }
}

/// A datagram whose pieces contradict each other.
struct Unusable;

impl Partial {
    /// `false` for a piece that is there already.
    fn insert(&mut self, piece: Piece, more: bool) -> Result<bool, Unusable> {
        let end = piece.end();
        let at = self
            .pieces
            .partition_point(|known| known.offset < piece.offset);
        let (before, after) = self.pieces.split_at_checked(at).ok_or(Unusable)?;
        if after
            .first()
            .is_some_and(|known| (known.offset, known.end()) == (piece.offset, end))
        {
            return Ok(false);
        }
        let overlaps = before
            .last()
            .is_some_and(|known| known.end() > piece.offset)
            || after.first().is_some_and(|known| known.offset < end);
        let beyond = self
            .total
            .is_some_and(|total| end > total || (!more && end != total));
        let too_short = !more && !after.is_empty();
        // Only the last piece may have a length that offsets cannot count, or be empty.
        let uneven = more && (piece.data.is_empty() || !piece.data.len().is_multiple_of(8));
        let too_many = self.pieces.len() >= MAX_PIECES || end > MAX_LENGTH;
        if overlaps || beyond || too_short || uneven || too_many {
            return Err(Unusable);
        }
        if !more {
            self.total = Some(end);
        }
        self.bytes += piece.data.len();
        self.pieces.insert(at, piece);
        Ok(true)
    }

    fn whole(&self) -> Option<Whole> {
        // Pieces do not overlap, so as many bytes as the datagram has are all of them.
        if self.total? != self.bytes {
            return None;
        }
        let payload: Vec<u8> = self
            .pieces
            .iter()
            .flat_map(|piece| piece.data.iter().copied())
            .collect();
        let bytes = self.header?.emit(&payload).ok()?;
        Some(Whole {
            bytes,
            largest: self.largest,
        })
    }
}

fn dissect(packet: &Packet<'_>) -> Option<(Identity, Piece, bool)> {
    if !packet.is_fragment() {
        return None;
    }
    let addresses = packet.addresses();
    match packet {
        Packet::V4(packet) => {
            let identity = Identity {
                addresses,
                protocol: packet.protocol().number(),
                identification: u32::from(packet.identification()),
            };
            let piece = Piece {
                offset: packet.fragment_offset(),
                data: packet.payload().to_vec(),
            };
            Some((identity, piece, packet.more_fragments()))
        }
        Packet::V6(packet) => {
            let fragment = packet.fragment()?;
            let identity = Identity {
                addresses,
                protocol: fragment.next_header,
                identification: fragment.identification,
            };
            let piece = Piece {
                offset: fragment.offset,
                data: packet.fragmentable().to_vec(),
            };
            Some((identity, piece, fragment.more))
        }
    }
}

/// Packets of `payload` that fit into `mtu` bytes each: one, if it does as a whole or if routers
/// may fragment it (IPv4).
pub fn split(
    header: &Header,
    payload: &[u8],
    mtu: usize,
    identification: u32,
) -> Result<Vec<Vec<u8>>, WireError> {
    let fits = ipv6::HEADER_LEN + payload.len() <= mtu;
    if fits || matches!(header.addresses, Addresses::V4 { .. }) {
        return Ok(vec![header.emit(payload)?]);
    }
    let room = mtu.saturating_sub(ipv6::HEADER_LEN + ipv6::FRAGMENT_LEN) & !7;
    let outer = Header {
        protocol: Protocol::Other(ipv6::FRAGMENT),
        ..*header
    };
    let mut packets = Vec::new();
    let mut offset = 0;
    for part in payload.chunks(room.max(8)) {
        let more = offset + part.len() < payload.len();
        let place = u16::try_from(offset).map_err(|_| WireError::TooLong {
            layer: "IPv6",
            length: payload.len(),
        })?;
        let mut piece = Vec::with_capacity(ipv6::FRAGMENT_LEN + part.len());
        piece.extend([header.protocol.number(), 0]);
        piece.extend((place | u16::from(more)).to_be_bytes());
        piece.extend(identification.to_be_bytes());
        piece.extend_from_slice(part);
        packets.push(outer.emit(&piece)?);
        offset += part.len();
    }
    Ok(packets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const V6: Addresses = Addresses::V6 {
        source: Ipv6Addr::LOCALHOST,
        destination: Ipv6Addr::LOCALHOST,
    };
    const V4: Addresses = Addresses::V4 {
        source: Ipv4Addr::LOCALHOST,
        destination: Ipv4Addr::LOCALHOST,
    };

    /// Pieces of `payload`, all but the last of `size` bytes, a multiple of eight.
    fn pieces_v4(payload: &[u8], size: usize, id: u16) -> Vec<Vec<u8>> {
        let count = payload.len().div_ceil(size);
        let chunks = payload.chunks(size).enumerate();
        chunks
            .map(|(number, part)| {
                let header = Header::new(V4, Protocol::Icmp);
                let mut bytes = header.emit(part).unwrap();
                let more: u16 = if number + 1 < count { 0x2000 } else { 0 };
                bytes[4..6].copy_from_slice(&id.to_be_bytes());
                let place = more | (number * size / 8) as u16;
                bytes[6..8].copy_from_slice(&place.to_be_bytes());
                bytes
            })
            .collect()
    }

    fn feed(reassembly: &mut Reassembly, packets: &[Vec<u8>], now: Instant) -> Vec<Whole> {
        let parsed = packets.iter().map(|bytes| Packet::parse(bytes).unwrap());
        parsed
            .filter_map(|packet| reassembly.add(&packet, now))
            .collect()
    }

    proptest! {
        #[test]
        fn shuffled_and_repeated_pieces_make_the_whole(
            payload in prop::collection::vec(any::<u8>(), 100..9000),
            (v6, size) in any::<(bool, u8)>(),
            order in any::<prop::sample::Index>(),
            seed in any::<u64>(),
        ) {
            let size = 8 * (usize::from(size) + 1);
            let header = Header::new(V6, Protocol::Icmpv6);
            let mut packets = if v6 {
                split(&header, &payload, size + 48, 7).unwrap()
            } else {
                pieces_v4(&payload, size, 7)
            };
            prop_assume!(packets.len() > 1);
            let again = packets[order.index(packets.len())].clone();
            packets.push(again);
            packets.sort_by_key(|packet| {
                packet.iter().fold(seed, |sum, byte| {
                    sum.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(u64::from(*byte))
                })
            });
            let mut reassembly = Reassembly::new();
            let whole = feed(&mut reassembly, &packets, Instant::now());
            prop_assert_eq!(whole.len(), 1);
            let longest = packets.iter().map(Vec::len).max().unwrap();
            prop_assert_eq!(whole[0].largest, longest);
            let packet = Packet::parse(&whole[0].bytes).unwrap();
            prop_assert!(!packet.is_fragment());
            prop_assert_eq!(packet.payload(), &payload[..]);
        }

        #[test]
        fn arbitrary_pieces_stay_within_bounds(
            pieces in prop::collection::vec((0u8..3, 0u16..0x4000, 0usize..200), 0..300),
        ) {
            let mut reassembly = Reassembly::new();
            let now = Instant::now();
            for (id, place, length) in pieces {
                let mut bytes = Header::new(V4, Protocol::Icmp).emit(&vec![0; length]).unwrap();
                bytes[5] = id;
                bytes[6..8].copy_from_slice(&place.to_be_bytes());
                let _ = reassembly.add(&Packet::parse(&bytes).unwrap(), now);
                let held: usize = reassembly.partial.iter().map(|partial| partial.bytes).sum();
                prop_assert_eq!(held, reassembly.bytes);
                prop_assert!(reassembly.partial.len() <= MAX_DATAGRAMS);
            }
        }
    }

    #[test]
    fn overlapping_pieces_kill_their_datagram() {
        let mut packets = pieces_v4(&[1; 64], 16, 1);
        packets[1][7] = 1; // bytes 8 to 24, where 0 to 16 are there already
        let mut reassembly = Reassembly::new();
        assert!(feed(&mut reassembly, &packets, Instant::now()).is_empty());
    }

    #[test]
    fn unfinished_datagrams_are_bounded_and_forgotten() {
        let (mut reassembly, start) = (Reassembly::new(), Instant::now());
        for id in 0..100 {
            let packets = pieces_v4(&[1; 64], 16, id);
            feed(&mut reassembly, &packets[..2], start);
        }
        assert_eq!((reassembly.partial.len(), reassembly.bytes), (32, 32 * 32));
        reassembly.expire(start + TIMEOUT);
        assert_eq!((reassembly.partial.len(), reassembly.bytes), (0, 0));
    }

    #[test]
    fn a_flood_of_long_pieces_is_bounded() {
        let (mut reassembly, now) = (Reassembly::new(), Instant::now());
        for id in 0..40 {
            let packets = pieces_v4(&vec![1; 65_000], 32_000, id);
            feed(&mut reassembly, &packets[..2], now);
            assert!(reassembly.bytes <= MAX_BYTES);
        }
    }
}
