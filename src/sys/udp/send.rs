//! Sending in batches. Datagrams that the sender handed over as one (UDP_SEGMENT) stay one.
//!
//! Datagrams that came singly are not put together, though it would save a fifth of our CPU time:
//! they would arrive as a burst, of which a receiver with a default buffer lost ten times as much
//! (measured: 3.2 % instead of 0.2 % at 100 Mbit/s on a busy machine).

use super::address::{self, NAME_LEN};
use super::control::Outgoing;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Most messages that one call takes.
pub const MAX_BATCH: usize = 64;

/// One outgoing datagram, or several of one size.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// The data.
    pub data: &'a [u8],
    /// `data` is several datagrams of this many bytes, the last perhaps shorter.
    pub segment: Option<u16>,
    /// DSCP and ECN; 0 leaves the socket's own.
    pub tos: u8,
    /// TTL or hop limit; `None` leaves the socket's own.
    pub ttl: Option<u8>,
}

impl Datagram<'_> {
    /// How many datagrams it is.
    pub fn segments(&self) -> usize {
        self.segment
            .map_or(1, |size| self.data.len().div_ceil(usize::from(size.max(1))))
    }

    fn describe(&self, path: Path, control: &mut Outgoing) {
        let v6 = path.v6;
        if let Some(source) = path.source {
            let scope = match path.destination {
                Some(SocketAddr::V6(destination)) => destination.scope_id(),
                Some(SocketAddr::V4(_)) | None => 0,
            };
            control.source(source, scope);
        }
        if self.tos != 0 {
            control.tos(v6, self.tos);
        }
        if let Some(ttl) = self.ttl {
            control.ttl(v6, ttl);
        }
        if let Some(size) = self.segment {
            control.segment(size);
        }
    }
}

/// Where a batch goes, and in whose name.
#[derive(Debug, Clone, Copy, Default)]
pub struct Path {
    /// `None`: to where the socket is connected.
    pub destination: Option<SocketAddr>,
    /// The address of ours that it leaves from; `None` leaves that to socket and route.
    pub source: Option<IpAddr>,
    /// The family of addresses, which is not the socket's where that serves both.
    pub v6: bool,
}

/// Sends up to [`MAX_BATCH`] datagrams from one socket without waiting. How many the kernel took,
/// one at least.
///
/// An error is about the first one. `WouldBlock`: no room in the socket's buffer. A segmented one
/// gives EMSGSIZE or EINVAL where its segments exceed the path's MTU, EIO where the device cannot
/// do it.
pub fn send(socket: BorrowedFd<'_>, path: Path, datagrams: &[Datagram<'_>]) -> io::Result<usize> {
    let mut name = [0; NAME_LEN];
    let name_len = path
        .destination
        .map_or(0, |address| address::encode(address, &mut name));
    let empty = libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    };
    let mut vectors = [empty; MAX_BATCH];
    let mut controls = [Outgoing::new(); MAX_BATCH];
    // SAFETY: all-zero is a valid mmsghdr: null pointers and zero lengths.
    let mut headers: [libc::mmsghdr; MAX_BATCH] = unsafe { std::mem::zeroed() };
    let slots = headers.iter_mut().zip(&mut vectors).zip(&mut controls);
    for (((header, vector), control), datagram) in slots.zip(datagrams) {
        let header = &mut header.msg_hdr;
        if name_len > 0 {
            header.msg_name = name.as_mut_ptr().cast();
            header.msg_namelen = name_len as libc::socklen_t;
        }
        // sendmmsg only reads; iovec has one pointer type for both directions.
        vector.iov_base = datagram.data.as_ptr().cast_mut().cast();
        vector.iov_len = datagram.data.len();
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        datagram.describe(path, control);
        if control.length > 0 {
            header.msg_control = control.bytes.as_mut_ptr().cast();
            header.msg_controllen = control.length as _;
        }
    }
    // SAFETY: the first `datagrams.len()` headers, 64 at most, point to `name`, `vectors`,
    // `controls` and the data of `datagrams`, all of which outlive the call.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            datagrams.len().min(MAX_BATCH) as libc::c_uint,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
