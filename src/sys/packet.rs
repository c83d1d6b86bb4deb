//! AF_PACKET sockets on one interface, or a [`tap`] of all: whole frames in and out, each behind a
//! virtio-net header that tells of offloaded checksums.
//!
//! Sources: packet(7), linux/if_packet.h, linux/virtio_net.h.

mod tap;

pub use tap::of_timestamp;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::socket::{MsgFlags, recv};
use socket2::{SockFilter, SockRef};
use std::io;
use std::mem::offset_of;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

/// Bytes of the virtio-net header before each frame (`PACKET_VNET_HDR`): flags, GSO type, and four
/// lengths. All zero: a whole packet with its checksums.
pub const VNET_HEADER_LEN: usize = 10;

/// The checksum field holds the sum of the pseudo header only (VIRTIO_NET_HDR_F_NEEDS_CSUM).
const CHECKSUM_PARTIAL: u8 = 1;
/// The sender's hardware has seen that it is right (VIRTIO_NET_HDR_F_DATA_VALID).
const CHECKSUM_VALID: u8 = 2;

/// What a frame is that the kernel shall cut into segments (`VIRTIO_NET_HDR_GSO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gso {
    /// TCP over IPv4.
    TcpV4 = 1,
    /// TCP over IPv6.
    TcpV6 = 4,
}

/// The virtio-net header of a frame whose checksum the kernel shall complete: it lies
/// `checksum_offset` behind `checksum_start`, which counts from the Ethernet header, is summed from
/// there on, and holds the sum of the pseudo header. `segment`: kind of frame, payload bytes of a segment, bytes
/// of all headers.
///
/// In the byte order of the machine, as AF_PACKET has it.
pub const fn vnet_header(
    checksum_start: u16,
    checksum_offset: u16,
    segment: Option<(Gso, u16, u16)>,
) -> [u8; VNET_HEADER_LEN] {
    let (kind, size, header) = match segment {
        Some((kind, size, header)) => (kind as u8, size, header),
        None => (0, 0, 0),
    };
    let (header, size) = (header.to_ne_bytes(), size.to_ne_bytes());
    let start = checksum_start.to_ne_bytes();
    let offset = checksum_offset.to_ne_bytes();
    [
        CHECKSUM_PARTIAL,
        kind,
        header[0],
        header[1],
        size[0],
        size[1],
        start[0],
        start[1],
        offset[0],
        offset[1],
    ]
}

/// Whether the kernel vouches for the transport checksum of a frame (virtio-net header first): it
/// never left the machine, and is not completed, or was found right.
pub fn checksum_is_known(frame: &[u8]) -> bool {
    let flags = frame.first().copied().unwrap_or(0);
    flags & (CHECKSUM_PARTIAL | CHECKSUM_VALID) != 0
}

/// A socket that hears nothing yet: it waits for the ring that its frames will come to.
#[derive(Debug)]
pub struct Deaf {
    socket: OwnedFd,
    /// What is to be done when the ring is there.
    wakes: Wakes,
}

#[derive(Debug, Clone, Copy)]
enum Wakes {
    /// Bound, behind a filter that drops everything, which is taken away.
    Filter,
    /// Bound to all interfaces.
    Bind,
}

/// A socket that sees every frame arriving on the interface from now on, and none that it sends. Frames wait in its queue to be
/// [received](receive) one by one.
///
/// With several sockets, `fanout_group` (unique in the network namespace) spreads the frames over
/// them so that both directions of a flow meet at one socket. EPERM without CAP_NET_RAW.
pub fn of_interface(ifindex: u32, fanout_group: Option<u16>) -> io::Result<OwnedFd> {
    let socket = of_arriving()?;
    hear(socket.as_fd(), ifindex, fanout_group)?;
    Ok(socket)
}

/// The same, for a ring: silent until that is there.
pub fn ringed_of_interface(ifindex: u32, fanout_group: Option<u16>) -> io::Result<Deaf> {
    let socket = of_arriving()?;
    silence(&socket)?;
    // Fanout takes a socket that is bound. A ring does not change either, so nothing but memory is wanted of the
    // kernel later, when the relay has locked itself in.
    hear(socket.as_fd(), ifindex, fanout_group)?;
    let wakes = Wakes::Filter;
    Ok(Deaf { socket, wakes })
}

/// What comes from now on is dropped, what has come stays.
pub fn silence(socket: &OwnedFd) -> io::Result<()> {
    let nothing = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
    SockRef::from(socket).attach_filter(&[nothing])
}

fn hear(socket: BorrowedFd<'_>, ifindex: u32, fanout_group: Option<u16>) -> io::Result<()> {
    bind(socket, ifindex)?;
    let Some(group) = fanout_group else {
        return Ok(());
    };
    // Low half: group; high half: mode.
    let mode = i32::from(group) | (libc::PACKET_FANOUT_HASH << 16) as i32;
    set(socket, libc::PACKET_FANOUT, &mode)
}

/// Reads the next frame of a socket without a ring, virtio-net header first, into `frame`: its bytes, 0 where none waits or it is longer
/// than `frame`.
pub fn receive(socket: BorrowedFd<'_>, frame: &mut [u8]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
    match recv(socket.as_raw_fd(), frame, flags) {
        Ok(length) if length <= frame.len() => Ok(length),
        Ok(_) | Err(Errno::EAGAIN) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Rings that the kernel is asked for. It waits until nobody can still be about the socket (`synchronize_net`), 5 to 25 ms
/// for each; all wait at once here, each in a thread that does nothing else.
#[derive(Debug)]
pub struct Asked(Vec<io::Result<JoinHandle<io::Result<Deaf>>>>);

/// Asks for them. The threads have what the caller has.
pub fn ask(sockets: Vec<Deaf>) -> Asked {
    let begin = |one: Deaf| {
        let wait = move || FrameRing::reserve(one.socket.as_fd()).map(|()| one);
        std::thread::Builder::new().name("ring".into()).spawn(wait)
    };
    Asked(sockets.into_iter().map(begin).collect())
}

impl Asked {
    /// Waits for them, in their order; none is heard by yet. `largest`: bytes of the largest frame, virtio-net header included;
    /// longer ones are skipped.
    pub fn wait(self, largest: usize) -> Vec<io::Result<Ringed>> {
        let broken = |_panic| Err(io::ErrorKind::BrokenPipe.into());
        let end = |one: io::Result<JoinHandle<io::Result<Deaf>>>| {
            let deaf = one?.join().unwrap_or_else(broken)?;
            let ring = FrameRing::map(deaf.socket.as_fd(), largest)?;
            Ok(Ringed { deaf, ring })
        };
        self.0.into_iter().map(end).collect()
    }
}

/// A socket with its ring, still silent.
#[derive(Debug)]
pub struct Ringed {
    deaf: Deaf,
    ring: FrameRing,
}

impl Ringed {
    /// Lets it hear.
    pub fn listen(self) -> io::Result<(OwnedFd, FrameRing)> {
        let Deaf { socket, wakes } = self.deaf;
        match wakes {
            Wakes::Filter => SockRef::from(&socket).detach_filter()?,
            Wakes::Bind => bind(socket.as_fd(), 0)?,
        }
        Ok((socket, self.ring))
    }
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

/// The same, of frames that arrive, each behind its virtio-net header.
fn of_arriving() -> io::Result<OwnedFd> {
    let socket = deaf()?;
    set(socket.as_fd(), libc::PACKET_VNET_HDR, &1_i32)?;
    set(socket.as_fd(), libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
    Ok(socket)
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

fn link(ifindex: u32, protocol: i32) -> io::Result<libc::sockaddr_ll> {
    Ok(libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (protocol as u16).to_be(),
        sll_ifindex: i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    })
}

/// Receives everything of the interface from now on; 0: of every interface.
pub(super) fn bind(socket: BorrowedFd<'_>, ifindex: u32) -> io::Result<()> {
    let address = link(ifindex, libc::ETH_P_ALL)?;
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

/// Sends a frame (virtio-net header first) by an interface, whichever the socket is bound to; never waits.
///
/// ENXIO where the interface is gone, ENETDOWN where it is down, EMSGSIZE beyond its MTU, ENOBUFS or EAGAIN where
/// there is no room.
pub fn send_on(socket: BorrowedFd<'_>, interface: u32, frame: &[u8]) -> io::Result<()> {
    // Protocol 0: the kernel reads it from the frame.
    let address = link(interface, 0)?;
    // SAFETY: `frame` and `address`, a whole sockaddr_ll, outlive the call, which only reads them.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 {
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
    /// For a socket that is not bound yet.
    fn reserve(socket: BorrowedFd<'_>) -> io::Result<()> {
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
        set(socket, libc::PACKET_RX_RING, &geometry)
    }

    /// What was reserved. `largest`: bytes of the largest frame, virtio-net header included; longer ones are skipped.
    fn map(socket: BorrowedFd<'_>, largest: usize) -> io::Result<Self> {
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
                self.large_len = Some(receive(socket, &mut self.large)?);
                break;
            }
        }
        Ok(self.count)
    }

    /// The frames of the batch, each behind its virtio-net header.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.count).filter_map(|number| self.frame(number))
    }

    /// The same, each with the index of the interface that it came to.
    pub fn iter_with_interface(&self) -> impl Iterator<Item = (u32, &[u8])> {
        (0..self.count).filter_map(|number| {
            let interface = interface_of(self.slot(number))?;
            Some((interface, self.frame(number)?))
        })
    }

    /// A frame of the batch, if it is whole.
    fn frame(&self, number: usize) -> Option<&[u8]> {
        let last = self.count.saturating_sub(1);
        let frame = match self.large_len {
            Some(length) if number == last => self.large.get(..length),
            _ => in_slot(self.slot(number)),
        };
        frame.filter(|frame| frame.len() > VNET_HEADER_LEN)
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

/// Where the address stands in a place, behind the header.
const ADDRESS: usize = size_of::<libc::tpacket2_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);

fn word(slot: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*slot.get(at..)?.first_chunk()?))
}

/// To which interface the frame of a place came, also where it was too long for it.
fn interface_of(slot: &[u8]) -> Option<u32> {
    word(slot, ADDRESS + offset_of!(libc::sockaddr_ll, sll_ifindex))
}

/// The frame in a place, if it is whole.
fn in_slot(slot: &[u8]) -> Option<&[u8]> {
    type Header = libc::tpacket2_hdr;
    let length = word(slot, offset_of!(Header, tp_len))? as usize;
    let kept = word(slot, offset_of!(Header, tp_snaplen))? as usize;
    let mac = slot.get(offset_of!(Header, tp_mac)..)?.first_chunk()?;
    let mac = usize::from(u16::from_ne_bytes(*mac));
    if kept < length {
        return None;
    }
    slot.get(mac.checked_sub(VNET_HEADER_LEN)?..mac.checked_add(kept)?)
}
