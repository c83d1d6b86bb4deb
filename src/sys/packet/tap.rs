//! A tap: of all frames that come to any interface of a network namespace, those of TCP connections that
//! mossnet speaks itself.
//!
//! The kernel runs the filter for every frame there, so it tells them by one word: the timestamp that
//! a peer echoes (TSecr), which is mossnet's own choice. Linux begins the options of an established
//! connection with the timestamps, and those of an answered SYN with the segment size before them, so the word has a fixed
//! place. Whatever else comes leaves the filter after a few
//! instructions.
//!
//! A frame that passes a bridge on its way to the router itself is seen once, at the port: there it is for another's Ethernet
//! address.
//!
//! Sources: packet(7), Documentation/networking/filter.rst, RFC 7323 §3.2 and appendix A, RFC 9293 §3.10.7.1.

use super::{Deaf, Wakes, of_arriving};
use socket2::{SockFilter, SockRef};
use std::io;

/// A socket that is to see TCP segments which echo `timestamp` and resets without options, coming to any interface
/// of the network namespace, now or later. EPERM without CAP_NET_RAW.
pub fn of_timestamp(timestamp: u32) -> io::Result<Deaf> {
    let socket = of_arriving()?;
    SockRef::from(&socket).attach_filter(&filter(timestamp))?;
    let wakes = Wakes::Bind;
    Ok(Deaf { socket, wakes })
}

const WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
/// From the index register on.
const HALF_AT: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_IND) as u16;
const WORD_AT: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_IND) as u16;
/// Into that register: a number; the length of an IPv4 header, from its first byte.
const INDEX: u16 = (libc::BPF_LDX | libc::BPF_IMM) as u16;
const HEADER_LEN: u16 = (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const SKIP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Where the kernel says whom a frame is for, instead of a byte of it.
const PACKET_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;

const ETHERNET: u32 = 14;
const IPV6: u32 = 40;
/// More fragments, or an offset.
const FRAGMENT: u32 = 0x3fff;
/// Where data offset and flags are in a TCP header, and of these the offset and RST.
const FLAGS: u32 = 12;
const OFFSET_AND_RST: u32 = 0xf004;
/// A header of five words, and RST: what a kernel answers where nobody listens.
const BARE_RESET: u32 = 0x5004;
/// Where the options begin, and how: two times NOP, timestamps (kind 8) of ten bytes.
const OPTIONS: u32 = 20;
const TIMESTAMPS_FIRST: u32 = 0x0101_080a;
/// TSecr of these.
const ECHOED: u32 = 28;
/// In a segment with SYN they come later by so much, behind the segment size and two NOPs, or two bytes about selective
/// acknowledgements.
const SYN: u32 = 0x0002;
const SEGMENT_SIZE: u32 = 4;
const TIMESTAMPS: u32 = 0x080a;

/// Jumps name how many instructions to skip, if so and if not. A load past the end of the frame ends the
/// program as its last instruction does.
const fn filter(timestamp: u32) -> [SockFilter; 29] {
    const fn plain(code: u16, value: u32) -> SockFilter {
        SockFilter::new(code, 0, 0, value)
    }
    const fn jump(code: u16, value: u32, so: u8, not: u8) -> SockFilter {
        SockFilter::new(code, so, not, value)
    }
    [
        // 0: to another than the interface itself, as what comes to a port of a bridge is.
        plain(WORD, PACKET_TYPE),
        jump(IF_EQUAL, libc::PACKET_OTHERHOST as u32, 0, 26), // not: 28
        // 2: ethertype.
        plain(HALF, 12),
        jump(IF_EQUAL, libc::ETH_P_IPV6 as u32, 0, 4), // not: 8
        // 4: IPv6, TCP at once.
        plain(BYTE, ETHERNET + 6),
        jump(IF_EQUAL, libc::IPPROTO_TCP as u32, 0, 22), // not: 28
        plain(INDEX, IPV6),
        plain(SKIP, 6), // 14
        // 8: IPv4, TCP, no fragment.
        jump(IF_EQUAL, libc::ETH_P_IP as u32, 0, 19), // not: 28
        plain(BYTE, ETHERNET + 9),
        jump(IF_EQUAL, libc::IPPROTO_TCP as u32, 0, 17), // not: 28
        plain(HALF, ETHERNET + 6),
        jump(IF_ANY_BIT, FRAGMENT, 15, 0), // so: 28
        plain(HEADER_LEN, ETHERNET),
        // 14: TCP. A reset may end before the timestamps, so it comes first.
        plain(HALF_AT, ETHERNET + FLAGS),
        jump(IF_ANY_BIT, SYN, 7, 0), // so: 23
        plain(AND, OFFSET_AND_RST),
        jump(IF_EQUAL, BARE_RESET, 9, 0), // so: 27
        plain(WORD_AT, ETHERNET + ECHOED),
        jump(IF_EQUAL, timestamp, 0, 8), // not: 28
        plain(WORD_AT, ETHERNET + OPTIONS),
        jump(IF_EQUAL, TIMESTAMPS_FIRST, 5, 6), // so: 27, not: 28
        plain(RETURN, 0),
        // 23: SYN; of use where it answers one.
        plain(WORD_AT, ETHERNET + ECHOED + SEGMENT_SIZE),
        jump(IF_EQUAL, timestamp, 0, 3), // not: 28
        plain(HALF_AT, ETHERNET + OPTIONS + SEGMENT_SIZE + 2),
        jump(IF_EQUAL, TIMESTAMPS, 0, 1), // not: 28
        // 27: as much of it as there is; 28: nothing.
        plain(RETURN, u32::MAX),
        plain(RETURN, 0),
    ]
}

#[cfg(test)]
mod tests;
