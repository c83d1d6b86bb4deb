//! AF_PACKET sockets on one interface: whole frames in and out, each behind a virtio-net header
//! that tells of offloaded checksums.
//!
//! Sources: packet(7), linux/if_packet.h, linux/virtio_net.h.

use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::socket::{MsgFlags, recv};
use std::io;
use std::mem::offset_of;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of the virtio-net header before each frame (`PACKET_VNET_HDR`): flags, GSO type, and four
/// lengths. All zero: a whole packet with its checksums.
pub const VNET_HEADER_LEN: usize = 10;

/// Opens a socket that sees every frame arriving on the interface, and none that it sends, and the ring that
/// they come to. `largest`: bytes of the largest frame, virtio-net header included; longer ones are skipped.
///
/// With several sockets, `fanout_group` (unique in the network namespace) spreads the frames over
/// them so that both directions of a flow meet at one socket. EPERM without CAP_NET_RAW.
pub fn open(
    ifindex: u32,
    fanout_group: Option<u16>,
    largest: usize,
) -> io::Result<(OwnedFd, FrameRing)> {
    let socket = deaf()?;
    set(socket.as_fd(), libc::PACKET_VNET_HDR, &1_i32)?;
    set(socket.as_fd(), libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
    let ring = FrameRing::new(socket.as_fd(), largest)?;
    bind(socket.as_fd(), ifindex)?;
    if let Some(group) = fanout_group {
        // Low half: group; high half: mode.
        let mode = i32::from(group) | (libc::PACKET_FANOUT_HASH << 16) as i32;
        set(socket.as_fd(), libc::PACKET_FANOUT, &mode)?;
    }
    Ok((socket, ring))
}

/// A socket that receives nothing before [`bind`] has named an interface.
pub(super) fn deaf() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes no pointer.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor just made, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// setsockopt(2) at `SOL_PACKET`; `value` as the option has it.
pub(super) fn set<T: Copy>(
    socket: BorrowedFd<'_>,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: `value` outlives the call, which only reads its bytes.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Receives everything of the interface from now on.
pub(super) fn bind(socket: BorrowedFd<'_>, ifindex: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `address` is a whole sockaddr_ll that outlives the call.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Bytes of a frame's place in the ring, its header included: a SYN fits, and most of what else comes.
const SLOT_LEN: usize = 1024;
/// Places in the ring.
const SLOTS: usize = 2048;
const RING_LEN: usize = SLOT_LEN * SLOTS;
/// Bytes of a block, of which the kernel makes the ring: whole pages.
const BLOCK_LEN: usize = 64 * 1024;
/// Most frames of a batch, so that others of the worker get their turn.
const BATCH: usize = 64;

/// Frames of one socket that wait in memory shared with the kernel (PACKET_RX_RING, TPACKET_V2): none needs
/// a system call, and many find room. Those too long for a place are received one by one.
///
/// Invariant: a place is read only between the kernel's word that it is filled and ours that it is read.
#[derive(Debug)]
pub struct FrameRing {
    slots: NonNull<u8>,
    /// The first place of the batch.
    next: usize,
    /// Places of the batch.
    count: usize,
    /// The last frame of the batch, where it was too long: so many bytes of `large`.
    large_len: Option<usize>,
    large: Vec<u8>,
}

// SAFETY: the mapping is this value's alone, and of no thread in particular.
unsafe impl Send for FrameRing {}

impl FrameRing {
    /// For a socket that is not bound yet. `largest`: bytes of the largest frame, virtio-net header
    /// included; longer ones are skipped.
    fn new(socket: BorrowedFd<'_>, largest: usize) -> io::Result<Self> {
        let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
        set(socket, libc::PACKET_VERSION, &version)?;
        // Any value but 0: what is too long for its place also comes whole, by recv(2).
        set(socket, libc::PACKET_COPY_THRESH, &1_i32)?;
        let geometry = libc::tpacket_req {
            tp_block_size: BLOCK_LEN as u32,
            tp_block_nr: (RING_LEN / BLOCK_LEN) as u32,
            tp_frame_size: SLOT_LEN as u32,
            tp_frame_nr: SLOTS as u32,
        };
        set(socket, libc::PACKET_RX_RING, &geometry)?;
        Ok(Self {
            slots: map_ring(socket, RING_LEN)?,
            next: 0,
            count: 0,
            large_len: None,
            large: vec![0; largest],
        })
    }

    /// Gives back the last batch, and finds the next one: how many frames are there, 0 for none.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.give_back();
        while self.count < BATCH {
            let status = self.status(self.count).load(Ordering::Acquire);
            if status & libc::TP_STATUS_USER == 0 {
                break;
            }
            self.count += 1;
            if status & libc::TP_STATUS_COPY != 0 {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
                let length = recv(socket.as_raw_fd(), &mut self.large, flags)?;
                self.large_len = Some(length);
                break;
            }
        }
        Ok(self.count)
    }

    /// The frames of the batch, each behind its virtio-net header.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let last = self.count.saturating_sub(1);
        let frames = (0..self.count).map(move |number| match self.large_len {
            Some(length) if number == last => self.large.get(..length),
            _ => in_slot(self.slot(number)),
        });
        frames
            .flatten()
            .filter(|frame| frame.len() > VNET_HEADER_LEN)
    }

    /// Ends the batch: its places are the kernel's again.
    pub fn give_back(&mut self) {
        for number in 0..self.count {
            let free = libc::TP_STATUS_KERNEL;
            self.status(number).store(free, Ordering::Release);
        }
        self.next = (self.next + self.count) % SLOTS;
        self.count = 0;
        self.large_len = None;
    }

    fn place(&self, number: usize) -> NonNull<u8> {
        let place = (self.next + number) % SLOTS;
        // SAFETY: `place` is below SLOTS, so that the result lies within the mapping.
        unsafe { self.slots.add(place * SLOT_LEN) }
    }

    /// A place of the batch.
    fn slot(&self, number: usize) -> &[u8] {
        // SAFETY: mapped and initialised by the kernel, which does not write to it before our word.
        unsafe { std::slice::from_raw_parts(self.place(number).as_ptr(), SLOT_LEN) }
    }

    fn status(&self, number: usize) -> &AtomicU32 {
        // SAFETY: aligned (SLOT_LEN is a multiple of 16, and the status is first), mapped as long as `self`
        // lives, and written as an atomic only.
        unsafe { AtomicU32::from_ptr(self.place(number).cast().as_ptr()) }
    }
}

impl Drop for FrameRing {
    fn drop(&mut self) {
        // SAFETY: what mmap gave; nothing of it is borrowed any more.
        unsafe { libc::munmap(self.slots.as_ptr().cast(), RING_LEN) };
    }
}

/// Maps a socket's ring of `length` bytes.
pub(super) fn map_ring(socket: BorrowedFd<'_>, length: usize) -> io::Result<NonNull<u8>> {
    let length = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let mapped = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, socket, 0) };
    Ok(mapped?.cast())
}

/// The frame in a place, if it is whole.
fn in_slot(slot: &[u8]) -> Option<&[u8]> {
    type Header = libc::tpacket2_hdr;
    let word = |at: usize| Some(u32::from_ne_bytes(*slot.get(at..)?.first_chunk()?) as usize);
    let length = word(offset_of!(Header, tp_len))?;
    let kept = word(offset_of!(Header, tp_snaplen))?;
    let mac = slot.get(offset_of!(Header, tp_mac)..)?.first_chunk()?;
    let mac = usize::from(u16::from_ne_bytes(*mac));
    if kept < length {
        return None;
    }
    slot.get(mac.checked_sub(VNET_HEADER_LEN)?..mac.checked_add(kept)?)
}
