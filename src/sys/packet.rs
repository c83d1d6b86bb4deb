//! AF_PACKET sockets on one interface: whole frames in and out, each behind a virtio-net header
//! that tells of offloaded checksums.
//!
//! Sources: packet(7), linux/if_packet.h, linux/virtio_net.h.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Bytes of the virtio-net header before each frame (`PACKET_VNET_HDR`): flags, GSO type, and four
/// lengths. All zero: a whole packet with its checksums.
pub const VNET_HEADER_LEN: usize = 10;

/// Opens a socket that sees every frame arriving on the interface, and none that it sends.
///
/// With several sockets, `fanout_group` (unique in the network namespace) spreads the frames over
/// them so that both directions of a flow meet at one socket. EPERM without CAP_NET_RAW.
pub fn open(ifindex: u32, fanout_group: Option<u16>) -> io::Result<OwnedFd> {
    let socket = deaf()?;
    set(socket.as_fd(), libc::PACKET_VNET_HDR, &1_i32)?;
    set(socket.as_fd(), libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
    bind(socket.as_fd(), ifindex)?;
    if let Some(group) = fanout_group {
        // Low half: group; high half: mode.
        let mode = i32::from(group) | (libc::PACKET_FANOUT_HASH << 16) as i32;
        set(socket.as_fd(), libc::PACKET_FANOUT, &mode)?;
    }
    Ok(socket)
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

/// Most frames that one call takes, whatever the batch was made for.
const MAX_FRAMES: usize = 16;

/// Room for several frames, received by one system call.
pub struct FrameBatch {
    slots: Vec<Vec<u8>>,
    lengths: Vec<usize>,
}

impl FrameBatch {
    /// For up to `slots` frames (16 at most). `slot_len`: bytes of the largest frame, virtio-net
    /// header included; longer ones are skipped.
    pub fn new(slots: usize, slot_len: usize) -> Self {
        let slots = slots.clamp(1, MAX_FRAMES);
        Self {
            slots: (0..slots).map(|_| vec![0; slot_len]).collect(),
            lengths: Vec::with_capacity(slots),
        }
    }

    /// Takes as many frames as are there and fit. `WouldBlock` where there is none.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.lengths.clear();
        let empty = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        let mut vectors = [empty; MAX_FRAMES];
        // SAFETY: all-zero is a valid mmsghdr: null pointers and zero lengths.
        let mut headers: [libc::mmsghdr; MAX_FRAMES] = unsafe { std::mem::zeroed() };
        let slots = self.slots.iter_mut().zip(&mut vectors).zip(&mut headers);
        for ((slot, vector), header) in slots {
            vector.iov_base = slot.as_mut_ptr().cast();
            vector.iov_len = slot.len();
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        let count = self.slots.len().min(MAX_FRAMES);
        // SAFETY: each of the first `count` headers points to a vector, and that to a slot, which
        // all outlive the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for header in headers.iter().take(received) {
            let truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            self.lengths.push(if truncated {
                0
            } else {
                header.msg_len as usize
            });
        }
        Ok(received)
    }

    /// How many frames fit.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// The frames of the last receive, each behind its virtio-net header.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.slots
            .iter()
            .zip(&self.lengths)
            .filter_map(|(slot, length)| slot.get(..*length))
            .filter(|frame| frame.len() > VNET_HEADER_LEN)
    }
}
