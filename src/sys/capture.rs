//! A ring of blocks that the kernel fills with the frames of one interface, both directions, behind a
//! filter of its own (PACKET_RX_RING, TPACKET_V3).
//!
//! On the path of `mossnet capture`: interface → filter → **ring** → lines or a file. Not the gate's: that
//! reads few frames and answers each.
//!
//! Invariant: a block is read only between the kernel's word that it is full (or old enough) and ours that it
//! is read; meanwhile the kernel does not touch it.
//!
//! Sources: packet(7), Documentation/networking/packet_mmap.rst, linux/if_packet.h.

use super::packet::{bind, deaf, map_ring, set, silence};
use socket2::{SockFilter, SockRef};
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a block: the largest frame of a veth pair (GSO, 64 KiB) fits in.
const BLOCK_LEN: usize = 128 * 1024;
/// Blocks of a ring: 8 MiB.
const BLOCKS: usize = 64;
const RING_LEN: usize = BLOCK_LEN * BLOCKS;
/// After so many milliseconds a block that is not full is given to us.
const RETIRE_AFTER_MS: u32 = 50;
/// Where `block_status` is in a block.
const STATUS: usize =
    offset_of!(libc::tpacket_block_desc, hdr) + offset_of!(libc::tpacket_hdr_v1, block_status);
/// Where the other fields of a block's header are.
const NUM_PKTS: usize =
    offset_of!(libc::tpacket_block_desc, hdr) + offset_of!(libc::tpacket_hdr_v1, num_pkts);
const FIRST_PKT: usize = offset_of!(libc::tpacket_block_desc, hdr)
    + offset_of!(libc::tpacket_hdr_v1, offset_to_first_pkt);
/// Where a `sockaddr_ll` stands behind the header of a frame.
const ADDRESS: usize = size_of::<libc::tpacket3_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);

/// TPID where the kernel names none (IEEE 802.1Q).
const VLAN: u16 = 0x8100;

/// Longest time from a frame's arrival until [`Ring::next_block`] gives it.
pub const LATENCY_MS: u16 = 2 * RETIRE_AFTER_MS as u16;

/// Most bytes that are kept of a frame.
pub const MAX_SNAPLEN: u32 = BLOCK_LEN as u32;

/// One frame in a ring.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Seconds since 1970.
    pub seconds: u32,
    /// Nanoseconds of that second.
    pub nanoseconds: u32,
    /// Bytes of the whole frame.
    pub length: usize,
    /// Its beginning, as long as the filter's answer; without the VLAN tag.
    pub bytes: &'a [u8],
    /// TPID and TCI of a VLAN tag, which stood behind the first twelve bytes.
    pub tag: Option<[u16; 2]>,
    /// Sent by the interface, not received.
    pub outgoing: bool,
}

/// A socket and its blocks.
#[derive(Debug)]
pub struct Ring {
    socket: OwnedFd,
    blocks: NonNull<u8>,
    next: usize,
}

impl Ring {
    /// Frames of the interface that `filter` (classic BPF, over whole Ethernet frames) lets pass, cut to its
    /// answer. `all`: also those for others, which a bridge passes on. EPERM without CAP_NET_RAW.
    pub fn open(ifindex: u32, filter: &[SockFilter], all: bool) -> io::Result<Self> {
        let socket = deaf()?;
        SockRef::from(&socket).attach_filter(filter)?;
        let version = libc::tpacket_versions::TPACKET_V3 as libc::c_int;
        set(socket.as_fd(), libc::PACKET_VERSION, &version)?;
        let geometry = libc::tpacket_req3 {
            tp_block_size: BLOCK_LEN as u32,
            tp_block_nr: BLOCKS as u32,
            // The third version lays frames end to end; the kernel still wants the product to be right.
            tp_frame_size: BLOCK_LEN as u32,
            tp_frame_nr: BLOCKS as u32,
            tp_retire_blk_tov: RETIRE_AFTER_MS,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set(socket.as_fd(), libc::PACKET_RX_RING, &geometry)?;
        let blocks = map_ring(socket.as_fd(), RING_LEN)?;
        let ring = Self {
            socket,
            blocks,
            next: 0,
        };
        if all {
            let membership = libc::packet_mreq {
                mr_ifindex: i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?,
                mr_type: libc::PACKET_MR_PROMISC as u16,
                mr_alen: 0,
                mr_address: [0; 8],
            };
            set(ring.as_fd(), libc::PACKET_ADD_MEMBERSHIP, &membership)?;
        }
        bind(ring.as_fd(), ifindex)?;
        Ok(ring)
    }

    /// The next block that the kernel has done with.
    pub fn next_block(&mut self) -> Option<Block<'_>> {
        if self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            return None;
        }
        Some(Block { ring: self })
    }

    /// Takes no more frames; those that are in the ring come within [`LATENCY_MS`].
    pub fn stop(&self) -> io::Result<()> {
        silence(&self.socket)
    }

    /// Frames that found no room since this was last asked.
    pub fn dropped(&self) -> io::Result<u64> {
        let mut statistics = libc::tpacket_stats_v3 {
            tp_packets: 0,
            tp_drops: 0,
            tp_freeze_q_cnt: 0,
        };
        let mut length = size_of::<libc::tpacket_stats_v3>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes into `statistics`; both outlive the call.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(statistics.tp_drops.into())
    }

    /// What went wrong with the interface: ENETDOWN where it is gone.
    pub fn error(&self) -> Option<io::Error> {
        match SockRef::from(&self.socket).take_error() {
            Ok(error) => error,
            Err(error) => Some(error),
        }
    }

    fn block(&self) -> NonNull<u8> {
        // SAFETY: `next` is below BLOCKS, so that the result lies within the mapping.
        unsafe { self.blocks.add(self.next * BLOCK_LEN) }
    }

    fn status(&self) -> &AtomicU32 {
        // SAFETY: within the block, as above.
        let status = unsafe { self.block().add(STATUS) };
        // SAFETY: aligned (a page's beginning plus 8), mapped as long as `self` lives, and accessed as an
        // atomic only.
        unsafe { AtomicU32::from_ptr(status.cast().as_ptr()) }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: what mmap gave; no block is borrowed any more.
        unsafe { libc::munmap(self.blocks.as_ptr().cast(), RING_LEN) };
    }
}

/// A block of frames; the kernel gets it back when this is dropped.
#[derive(Debug)]
pub struct Block<'a> {
    ring: &'a mut Ring,
}

impl Block<'_> {
    /// Its frames, oldest first.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        // SAFETY: mapped and initialised by the kernel, which does not write to it before our word.
        let bytes = unsafe { std::slice::from_raw_parts(self.ring.block().as_ptr(), BLOCK_LEN) };
        let mut left = word(bytes, NUM_PKTS).unwrap_or(0);
        let mut at = word(bytes, FIRST_PKT).unwrap_or(0) as usize;
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let header = bytes.get(at..)?;
            at += word(header, offset_of!(libc::tpacket3_hdr, tp_next_offset))? as usize;
            frame(header)
        })
    }
}

impl Drop for Block<'_> {
    fn drop(&mut self) {
        let free = libc::TP_STATUS_KERNEL;
        self.ring.status().store(free, Ordering::Release);
        self.ring.next = (self.ring.next + 1) % BLOCKS;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*field))
}

fn frame(header: &[u8]) -> Option<Frame<'_>> {
    type Header = libc::tpacket3_hdr;
    let mac = header.get(offset_of!(Header, tp_mac)..)?.first_chunk()?;
    let mac = usize::from(u16::from_ne_bytes(*mac));
    let kept = word(header, offset_of!(Header, tp_snaplen))? as usize;
    let kind = *header.get(ADDRESS + offset_of!(libc::sockaddr_ll, sll_pkttype))?;
    let status = word(header, offset_of!(Header, tp_status))?;
    let hv1 = offset_of!(Header, hv1);
    let tci = word(
        header,
        hv1 + offset_of!(libc::tpacket_hdr_variant1, tp_vlan_tci),
    )?;
    let tpid = hv1 + offset_of!(libc::tpacket_hdr_variant1, tp_vlan_tpid);
    let tpid = u16::from_ne_bytes(*header.get(tpid..)?.first_chunk()?);
    let tagged = status & libc::TP_STATUS_VLAN_VALID != 0;
    let tpid = if tpid == 0 { VLAN } else { tpid };
    Some(Frame {
        seconds: word(header, offset_of!(Header, tp_sec))?,
        nanoseconds: word(header, offset_of!(Header, tp_nsec))?,
        length: word(header, offset_of!(Header, tp_len))? as usize,
        bytes: header.get(mac..mac.checked_add(kept)?)?,
        // The TCI has sixteen bits.
        tag: tagged.then_some([tpid, tci as u16]),
        outgoing: kind == libc::PACKET_OUTGOING,
    })
}
