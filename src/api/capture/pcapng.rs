//! Blocks of a pcapng file. Invariant: pure; what is written is whole blocks, of which any number makes a
//! file that others read.
//!
//! Sources: draft-ietf-opsawg-pcapng, linktypes(tcpdump.org).

use crate::sys::capture::Frame;

/// Ethernet.
const LINKTYPE_ETHERNET: u16 = 1;
/// Timestamps count nanoseconds.
const NANOSECONDS: u8 = 9;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

const END_OF_OPTIONS: u16 = 0;

/// Begins a file.
pub fn section(out: &mut Vec<u8>) {
    let application = concat!("mossnet ", env!("CARGO_PKG_VERSION"));
    block(out, SECTION, |out| {
        // Byte order; a reader whose own is another one turns all fields around.
        out.extend(0x1a2b_3c4d_u32.to_ne_bytes());
        out.extend(1_u16.to_ne_bytes());
        out.extend(0_u16.to_ne_bytes());
        // The section's length, which is not known.
        out.extend(u64::MAX.to_ne_bytes());
        option(out, 4, application.as_bytes());
        option(out, END_OF_OPTIONS, &[]);
    });
}

/// Declares the next interface; the first is 0.
pub fn interface(out: &mut Vec<u8>, name: &str, description: &str, snaplen: u32) {
    block(out, INTERFACE, |out| {
        out.extend(LINKTYPE_ETHERNET.to_ne_bytes());
        out.extend([0; 2]);
        out.extend(snaplen.to_ne_bytes());
        option(out, 2, name.as_bytes());
        option(out, 3, description.as_bytes());
        option(out, 9, &[NANOSECONDS]);
        option(out, END_OF_OPTIONS, &[]);
    });
}

/// One frame. `inward`: towards whoever the interface belongs to.
pub fn packet(out: &mut Vec<u8>, interface: u32, frame: &Frame<'_>, inward: bool) {
    let tag_len = if frame.tag.is_some() { 4 } else { 0 };
    let (addresses, rest) = frame.bytes.split_at(frame.bytes.len().min(12));
    block(out, PACKET, |out| {
        out.extend(interface.to_ne_bytes());
        timestamp(out, frame.seconds, frame.nanoseconds);
        out.extend(((frame.bytes.len() + tag_len) as u32).to_ne_bytes());
        out.extend(((frame.length + tag_len) as u32).to_ne_bytes());
        out.extend_from_slice(addresses);
        if let Some([tpid, tci]) = frame.tag {
            out.extend(tpid.to_be_bytes());
            out.extend(tci.to_be_bytes());
        }
        out.extend_from_slice(rest);
        pad(out, frame.bytes.len() + tag_len);
        let direction: u32 = if inward { 1 } else { 2 };
        option(out, 2, &direction.to_ne_bytes());
        option(out, END_OF_OPTIONS, &[]);
    });
}

/// How many frames of an interface were captured, and how many lost, until `now` (seconds and nanoseconds).
pub fn statistics(
    out: &mut Vec<u8>,
    interface: u32,
    (seconds, nanoseconds): (u32, u32),
    (captured, dropped): (u64, u64),
) {
    block(out, STATISTICS, |out| {
        out.extend(interface.to_ne_bytes());
        timestamp(out, seconds, nanoseconds);
        option(out, 4, &captured.to_ne_bytes());
        option(out, 5, &dropped.to_ne_bytes());
        option(out, END_OF_OPTIONS, &[]);
    });
}

/// Type, length, `body`, length.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_ne_bytes());
    out.extend([0; 4]);
    body(out);
    let length = ((out.len() - start + 4) as u32).to_ne_bytes();
    if let Some(place) = out.get_mut(start + 4..start + 8) {
        place.copy_from_slice(&length);
    }
    out.extend(length);
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend(code.to_ne_bytes());
    // Longer names than interfaces have are cut by nobody: 65,535 bytes is far.
    out.extend((value.len() as u16).to_ne_bytes());
    out.extend_from_slice(value);
    pad(out, value.len());
}

fn pad(out: &mut Vec<u8>, length: usize) {
    out.extend(std::iter::repeat_n(0, length.next_multiple_of(4) - length));
}

fn timestamp(out: &mut Vec<u8>, seconds: u32, nanoseconds: u32) {
    let nanoseconds = u64::from(seconds) * 1_000_000_000 + u64::from(nanoseconds);
    out.extend(((nanoseconds >> 32) as u32).to_ne_bytes());
    out.extend((nanoseconds as u32).to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(bytes: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Types and lengths of all blocks, which must lie end to end.
    fn blocks(mut bytes: &[u8]) -> Vec<(u32, usize)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let length = field(bytes, 4) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(field(bytes, length - 4) as usize, length);
            found.push((field(bytes, 0), length));
            bytes = &bytes[length..];
        }
        found
    }

    #[test]
    fn blocks_lie_end_to_end() {
        let frame = Frame {
            seconds: 1_700_000_000,
            nanoseconds: 123_456_789,
            length: 1000,
            bytes: &[7; 61],
            tag: None,
            outgoing: true,
        };
        let mut out = Vec::new();
        section(&mut out);
        interface(&mut out, "eth0", "web", 61);
        let start = out.len();
        packet(&mut out, 0, &frame, true);
        statistics(&mut out, 0, (1_700_000_001, 0), (1, 2));
        let kinds: Vec<u32> = blocks(&out).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [SECTION, INTERFACE, PACKET, STATISTICS]);
        let packet = &out[start..];
        let time = u64::from(field(packet, 12)) << 32 | u64::from(field(packet, 16));
        assert_eq!(time, 1_700_000_000_123_456_789);
        assert_eq!((field(packet, 20), field(packet, 24)), (61, 1000));
        assert_eq!(packet[28..28 + 61], [7; 61]);
    }

    #[test]
    fn a_tag_is_put_back_where_it_was() {
        let bytes: Vec<u8> = (0..20).collect();
        let frame = Frame {
            seconds: 0,
            nanoseconds: 0,
            length: 20,
            bytes: &bytes,
            tag: Some([0x8100, 5]),
            outgoing: false,
        };
        let mut out = Vec::new();
        packet(&mut out, 0, &frame, false);
        assert_eq!((field(&out, 20), field(&out, 24)), (24, 24));
        assert_eq!(out[28..40], bytes[..12]);
        assert_eq!(out[40..44], [0x81, 0, 0, 5]);
        assert_eq!(out[44..52], bytes[12..]);
    }
}
