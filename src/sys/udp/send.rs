//! Sending in batches. Datagrams that the sender handed over as one (UDP_SEGMENT) stay one.
//!
//! Datagrams that came singly are put together only where the caller says so ([`Join`]): they would
//! arrive as a burst, of which a receiver with a default buffer lost ten times as much (measured:
//! 3.2 % instead of 0.2 % at 100 Mbit/s on a busy machine).

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

impl<'a> Datagram<'a> {
    /// One, with nothing special about it.
    pub const fn plain(data: &'a [u8]) -> Self {
        Self {
            data,
            segment: None,
            tos: 0,
            ttl: None,
        }
    }

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

/// Datagrams made singly that may leave as one message (UDP_SEGMENT): they pass the kernel together,
/// and are single again where they are received, or leave the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Join {
    /// Most datagrams of a message.
    pub most: usize,
    /// Bytes of the largest that may be joined.
    pub largest: u16,
}

impl Join {
    /// Each for itself.
    pub const NEVER: Self = Self {
        most: 1,
        largest: 0,
    };

    /// Most bytes of a message: an IPv4 packet, less the longest headers.
    const MOST_BYTES: usize = 65_535 - 60 - 8;

    /// How many of the first datagrams make one message: all of one size, but that the last may
    /// be shorter. 0 where there are none.
    pub fn run(self, datagrams: &[Datagram<'_>]) -> usize {
        let Some(first) = datagrams.first() else {
            return 0;
        };
        let size = first.data.len();
        if size == 0 || size > usize::from(self.largest) || first.segment.is_some() {
            return 1;
        }
        let most = self.most.min(Self::MOST_BYTES / size).max(1);
        let alike = |next: &&Datagram<'_>| {
            next.segment.is_none() && next.tos == first.tos && next.ttl == first.ttl
        };
        let same = datagrams
            .iter()
            .take(most)
            .take_while(|next| next.data.len() == size && alike(next))
            .count();
        let shorter = datagrams
            .get(same)
            .filter(alike)
            .is_some_and(|last| (1..size).contains(&last.data.len()));
        if shorter && same < most {
            same + 1
        } else {
            same
        }
    }
}

/// Sends up to [`MAX_BATCH`] datagrams from one socket without waiting. How many the kernel took,
/// one at least.
///
/// An error is about the first one. `WouldBlock`: no room in the socket's buffer. A segmented one
/// gives EMSGSIZE or EINVAL where its segments exceed the path's MTU, EIO where the device cannot
/// do it.
pub fn send(socket: BorrowedFd<'_>, path: Path, datagrams: &[Datagram<'_>]) -> io::Result<usize> {
    send_joined(socket, path, datagrams, Join::NEVER)
}

/// The same, with what `join` allows put together. An error is then about the first [`Join::run`].
pub fn send_joined(
    socket: BorrowedFd<'_>,
    path: Path,
    datagrams: &[Datagram<'_>],
    join: Join,
) -> io::Result<usize> {
    // Single datagrams are the most frequent batch, and clearing room for 64 costs as much as the
    // rest of this function.
    if datagrams.len() <= FEW {
        send_up_to::<FEW>(socket, path, datagrams, join)
    } else {
        send_up_to::<MAX_BATCH>(socket, path, datagrams, join)
    }
}

/// A small batch.
const FEW: usize = 4;

fn send_up_to<const MOST: usize>(
    socket: BorrowedFd<'_>,
    path: Path,
    datagrams: &[Datagram<'_>],
    join: Join,
) -> io::Result<usize> {
    let mut name = [0; NAME_LEN];
    let name_len = path
        .destination
        .map_or(0, |address| address::encode(address, &mut name));
    let empty = libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    };
    let mut vectors = [empty; MOST];
    let mut controls = [Outgoing::new(); MOST];
    // SAFETY: all-zero is a valid mmsghdr: null pointers and zero lengths.
    let mut headers: [libc::mmsghdr; MOST] = unsafe { std::mem::zeroed() };
    // How many datagrams are in the messages up to each.
    let mut ends = [0; MOST];
    let mut messages = 0;
    let mut free = vectors.as_mut_slice();
    let mut rest = datagrams.get(..MOST).unwrap_or(datagrams);
    let slots = headers.iter_mut().zip(&mut controls).zip(&mut ends);
    for ((header, control), end) in slots {
        let (run, others) = rest.split_at(join.run(rest));
        let Some(first) = run.first() else {
            break;
        };
        rest = others;
        let (mine, others) = std::mem::take(&mut free).split_at_mut(run.len());
        free = others;
        let header = &mut header.msg_hdr;
        if name_len > 0 {
            header.msg_name = name.as_mut_ptr().cast();
            header.msg_namelen = name_len as libc::socklen_t;
        }
        first.describe(path, control);
        if run.len() > 1 {
            // At most `join.largest`.
            control.segment(first.data.len() as u16);
        }
        point(header, run, mine, control);
        messages += 1;
        *end = datagrams.len().min(MOST) - rest.len();
    }
    // SAFETY: the first `messages` headers point to `name`, `vectors`, `controls` and the data of
    // `datagrams`, all of which outlive the call.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            messages,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
    Ok(sent
        .checked_sub(1)
        .and_then(|last| ends.get(last))
        .copied()
        .unwrap_or(0))
}

/// Lets `header` point to the data of `run`, by way of as many `vectors`, and to `control`.
fn point(
    header: &mut libc::msghdr,
    run: &[Datagram<'_>],
    vectors: &mut [libc::iovec],
    control: &mut Outgoing,
) {
    for (vector, datagram) in vectors.iter_mut().zip(run) {
        // sendmmsg only reads; iovec has one pointer type for both directions.
        vector.iov_base = datagram.data.as_ptr().cast_mut().cast();
        vector.iov_len = datagram.data.len();
    }
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = vectors.len() as _;
    if control.length > 0 {
        header.msg_control = control.bytes.as_mut_ptr().cast();
        header.msg_controllen = control.length as _;
    }
}
