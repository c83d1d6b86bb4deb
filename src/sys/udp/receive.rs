//! Receiving: batches, and the error queue.

use super::address::{self, NAME_LEN};
use super::control::{CONTROL_LEN, Control, QueuedError};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Most messages that one call takes, whatever the batch was made for.
const MAX_SLOTS: usize = 64;

/// Buffers for datagrams, used again and again.
pub struct Batch {
    data: Box<[u8]>,
    slots: Box<[Slot]>,
    slot_len: usize,
    filled: usize,
    /// See [`Batch::came`].
    came: Came,
}

/// How datagrams have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Came {
    /// A call has taken more than one.
    pub several: bool,
    /// A call has taken as many as it can, or [`MUCH`].
    pub much: bool,
}

impl std::ops::BitOr for Came {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            several: self.several | other.several,
            much: self.much | other.much,
        }
    }
}

/// Bytes taken by a call that are not dear any more: what a call and a packet cost is little beside.
const MUCH: usize = 32 * 1024;

/// What one datagram leaves besides its data.
#[derive(Clone, Copy)]
struct Slot {
    name: [u8; NAME_LEN],
    control: [u8; CONTROL_LEN],
    name_len: usize,
    control_len: usize,
    data_len: usize,
    truncated: bool,
}

/// A datagram, or with `segment` several.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The data.
    pub data: &'a [u8],
    /// Who sent it.
    pub source: Option<SocketAddr>,
    /// Where it was going before tproxy.
    pub original_destination: Option<SocketAddr>,
    /// The address of ours that it came to.
    pub local: Option<IpAddr>,
    /// TTL or hop limit.
    pub ttl: Option<u8>,
    /// DSCP and ECN; 0 where not asked for.
    pub tos: u8,
    /// Bytes of each datagram in `data` but the last, which may be shorter.
    pub segment: Option<u16>,
    /// The packet's mark, where it is told.
    pub mark: Option<u32>,
    /// It came in fragments, where that is told.
    pub in_fragments: bool,
    /// It was longer than its buffer.
    pub truncated: bool,
}

impl Batch {
    /// For up to `slots` datagrams (64 at most) of up to `slot_len` bytes. Memory that no
    /// datagram has filled is not resident.
    pub fn new(slots: usize, slot_len: usize) -> Self {
        let slots = slots.clamp(1, MAX_SLOTS);
        let empty = Slot {
            name: [0; NAME_LEN],
            control: [0; CONTROL_LEN],
            name_len: 0,
            control_len: 0,
            data_len: 0,
            truncated: false,
        };
        Self {
            data: vec![0; slots * slot_len].into_boxed_slice(),
            slots: vec![empty; slots].into_boxed_slice(),
            slot_len,
            filled: 0,
            came: Came::default(),
        }
    }

    /// Takes what waits in `socket`, without waiting for more; the number of messages taken.
    /// `WouldBlock` where there is nothing. Fewer than [`Batch::slots`] means that it is drained.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.filled = 0;
        let count = self.slots.len().min(MAX_SLOTS);
        // SAFETY: all-zero is a valid mmsghdr and iovec: null pointers and zero lengths.
        let mut headers: [libc::mmsghdr; MAX_SLOTS] = unsafe { std::mem::zeroed() };
        let mut vectors = [libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        }; MAX_SLOTS];
        let buffers = self.data.chunks_exact_mut(self.slot_len.max(1));
        for (((header, vector), slot), buffer) in headers
            .iter_mut()
            .zip(&mut vectors)
            .zip(&mut self.slots)
            .zip(buffers)
        {
            vector.iov_base = buffer.as_mut_ptr().cast();
            vector.iov_len = buffer.len();
            slot.prepare(&mut header.msg_hdr, vector);
        }
        // SAFETY: the first `count` headers point to buffers of `self` and to `vectors`, which
        // outlive the call; their lengths are those of the buffers.
        let taken = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let taken = usize::try_from(taken).map_err(|_| io::Error::last_os_error())?;
        for (slot, header) in self.slots.iter_mut().zip(&headers).take(taken) {
            slot.note(&header.msg_hdr, header.msg_len as usize);
        }
        self.filled = taken.min(count);
        self.came = self.came | self.last();
        Ok(self.filled)
    }

    /// How the datagrams of the last call have come.
    fn last(&self) -> Came {
        let slots = self.slots.iter().take(self.filled);
        Came {
            several: match self.slots.first() {
                Some(only) if self.filled == 1 => only.holds_several(),
                _ => self.filled > 1,
            },
            much: self.filled == self.slots.len()
                || slots.map(|slot| slot.data_len).sum::<usize>() >= MUCH,
        }
    }

    /// How datagrams have come since this was asked last.
    pub fn came(&mut self) -> Came {
        std::mem::take(&mut self.came)
    }

    /// How many messages one call can take.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The messages of the last call.
    pub fn iter(&self) -> impl Iterator<Item = Received<'_>> {
        let buffers = self.data.chunks_exact(self.slot_len.max(1));
        self.slots
            .iter()
            .zip(buffers)
            .take(self.filled)
            .map(|(slot, buffer)| slot.received(buffer))
    }
}

impl Slot {
    /// Lets `header` point here and at `vector`.
    fn prepare(&mut self, header: &mut libc::msghdr, vector: &mut libc::iovec) {
        header.msg_name = self.name.as_mut_ptr().cast();
        header.msg_namelen = NAME_LEN as libc::socklen_t;
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        header.msg_control = self.control.as_mut_ptr().cast();
        header.msg_controllen = CONTROL_LEN as _;
    }

    /// Notes what the kernel wrote.
    #[allow(
        clippy::unnecessary_cast,
        reason = "msg_controllen is 32 bits wide in musl"
    )]
    fn note(&mut self, header: &libc::msghdr, data_len: usize) {
        self.name_len = header.msg_namelen as usize;
        self.control_len = header.msg_controllen as usize;
        self.data_len = data_len;
        self.truncated = header.msg_flags & libc::MSG_TRUNC != 0;
    }

    fn control(&self) -> Control {
        Control::decode(self.control.get(..self.control_len).unwrap_or_default())
    }

    fn source(&self) -> Option<SocketAddr> {
        address::decode(self.name.get(..self.name_len)?)
    }

    fn holds_several(&self) -> bool {
        let segment = self.control().segment;
        segment.is_some_and(|size| usize::from(size) < self.data_len)
    }

    fn received<'a>(&self, buffer: &'a [u8]) -> Received<'a> {
        let control = self.control();
        let data = buffer.get(..self.data_len).unwrap_or(buffer);
        Received {
            data,
            source: self.source(),
            original_destination: control.original_destination,
            local: control.local,
            ttl: control.ttl,
            tos: control.tos,
            mark: control.mark,
            in_fragments: control.in_fragments,
            segment: control
                .segment
                .filter(|size| usize::from(*size) < data.len()),
            truncated: self.truncated,
        }
    }
}

/// A buffer for entries of error queues.
pub struct ErrorQueue {
    slot: Slot,
    data: Box<[u8]>,
}

impl ErrorQueue {
    /// Keeps up to `data_len` bytes of the packets that errors are about.
    pub fn new(data_len: usize) -> Self {
        let slot = Slot {
            name: [0; NAME_LEN],
            control: [0; CONTROL_LEN],
            name_len: 0,
            control_len: 0,
            data_len: 0,
            truncated: false,
        };
        Self {
            slot,
            data: vec![0; data_len].into_boxed_slice(),
        }
    }

    /// Takes the oldest error of `socket`: what happened, the payload of the packet that it is
    /// about (as much of it as was quoted), and where that packet was going.
    ///
    /// `Ok(None)` where an entry was something else. `WouldBlock` where the queue is empty.
    pub fn next(&mut self, socket: BorrowedFd<'_>) -> io::Result<Option<Queued<'_>>> {
        // SAFETY: all-zero is a valid msghdr.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        let mut vector = libc::iovec {
            iov_base: self.data.as_mut_ptr().cast(),
            iov_len: self.data.len(),
        };
        self.slot.prepare(&mut header, &mut vector);
        // SAFETY: `header` points to buffers of `self` and to `vector`, which outlive the call.
        let length = unsafe {
            libc::recvmsg(
                socket.as_raw_fd(),
                &raw mut header,
                libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
            )
        };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        self.slot.note(&header, length);
        let data = self.data.get(..length).unwrap_or(&self.data);
        let destination = self.slot.source();
        Ok(self.slot.control().error.map(|error| Queued {
            error,
            data,
            destination,
        }))
    }
}

/// An error, and the packet that it is about.
#[derive(Debug, Clone, Copy)]
pub struct Queued<'a> {
    /// What happened.
    pub error: QueuedError,
    /// Payload of the packet.
    pub data: &'a [u8],
    /// Where it was going.
    pub destination: Option<SocketAddr>,
}
