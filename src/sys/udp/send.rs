//! Sending in batches, with consecutive datagrams of one size handed over as one (UDP_SEGMENT).

use super::address::{self, NAME_LEN};
use super::control::Outgoing;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Most datagrams that one call looks at.
pub const MAX_BATCH: usize = 64;

/// Most datagrams in one segmented message (UDP_MAX_SEGMENTS; newer kernels take 128).
const MAX_SEGMENTS: usize = 64;
/// Most bytes of one message: what fits into an IPv4 packet.
const MAX_MESSAGE: usize = 65_507;

/// One outgoing datagram, or several of one size.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// The data.
    pub data: &'a [u8],
    /// `data` is several datagrams of this many bytes, the last perhaps shorter.
    pub segment: Option<usize>,
    /// DSCP and ECN; 0 leaves the socket's own.
    pub tos: u8,
    /// TTL or hop limit; `None` leaves the socket's own.
    pub ttl: Option<u8>,
}

impl Datagram<'_> {
    /// Bytes of its (first) datagram.
    fn size(&self) -> usize {
        self.segment.unwrap_or(self.data.len())
    }

    /// How many datagrams it is.
    pub fn segments(&self) -> usize {
        self.data.len().div_ceil(self.size().max(1)).max(1)
    }

    /// Ends with a datagram of full size, so that more can follow it in one message.
    fn is_even(&self) -> bool {
        !self.data.is_empty() && self.data.len().is_multiple_of(self.size().max(1))
    }
}

/// Which datagrams may go as one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segmentation {
    /// Datagrams of up to this many bytes. 0: none; then each [`Datagram`] must be a single one.
    pub largest: usize,
}

/// How far a call got.
#[derive(Debug)]
pub struct Sent {
    /// Datagrams taken by the kernel, from the first on.
    pub count: usize,
    /// Why the next one was not.
    pub error: Option<io::Error>,
    /// The next one would have gone in a segmented message.
    pub segmented: bool,
}

/// Sends up to [`MAX_BATCH`] datagrams of one socket without waiting: to `destination`, or to
/// where the socket is connected.
///
/// `WouldBlock`: no room in the socket's buffer.
pub fn send(
    socket: BorrowedFd<'_>,
    destination: Option<SocketAddr>,
    v6: bool,
    datagrams: &[Datagram<'_>],
    segmentation: Segmentation,
) -> Sent {
    let mut name = [0; NAME_LEN];
    let name_len = destination.map_or(0, |address| address::encode(address, &mut name));
    let mut vectors = [libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    }; MAX_BATCH];
    let mut controls = [Outgoing::new(); MAX_BATCH];
    // SAFETY: all-zero is a valid mmsghdr: null pointers and zero lengths.
    let mut headers: [libc::mmsghdr; MAX_BATCH] = unsafe { std::mem::zeroed() };
    let mut groups = [Group::default(); MAX_BATCH];
    let count = group(datagrams, segmentation, &mut groups);
    let mut data = datagrams.iter().zip(&mut vectors);
    for ((header, control), group) in headers
        .iter_mut()
        .zip(&mut controls)
        .zip(&groups)
        .take(count)
    {
        let header = &mut header.msg_hdr;
        if name_len > 0 {
            header.msg_name = name.as_mut_ptr().cast();
            header.msg_namelen = name_len as libc::socklen_t;
        }
        for (datagram, vector) in data.by_ref().take(group.datagrams) {
            // sendmmsg only reads; iovec has one pointer type for both directions.
            vector.iov_base = datagram.data.as_ptr().cast_mut().cast();
            vector.iov_len = datagram.data.len();
            if header.msg_iovlen == 0 {
                header.msg_iov = vector;
                group.describe(datagram, v6, control);
            }
            header.msg_iovlen += 1;
        }
        if control.length > 0 {
            header.msg_control = control.bytes.as_mut_ptr().cast();
            header.msg_controllen = control.length as _;
        }
    }
    // SAFETY: the first `count` headers point to `name`, `vectors`, `controls` and to the data of
    // `datagrams`, all of which outlive the call; each run of vectors lies within the array.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count as libc::c_uint,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    outcome(sent, &groups, count)
}

/// Translates what sendmmsg returned, messages, into datagrams.
fn outcome(sent: libc::c_int, groups: &[Group], count: usize) -> Sent {
    let (messages, error) = match usize::try_from(sent) {
        Ok(messages) => (messages, None),
        Err(_) => (0, Some(io::Error::last_os_error())),
    };
    Sent {
        count: groups
            .iter()
            .take(messages.min(count))
            .map(|group| group.datagrams)
            .sum(),
        error,
        segmented: groups
            .get(messages)
            .is_some_and(|next| next.segment.is_some()),
    }
}

/// Consecutive datagrams that go as one message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) datagrams: usize,
    pub(super) segment: Option<u16>,
}

impl Group {
    fn describe(&self, datagram: &Datagram<'_>, v6: bool, control: &mut Outgoing) {
        if datagram.tos != 0 {
            control.tos(v6, datagram.tos);
        }
        if let Some(ttl) = datagram.ttl {
            control.ttl(v6, ttl);
        }
        if let Some(segment) = self.segment {
            control.segment(segment);
        }
    }
}

/// Splits `datagrams` into messages; the number of messages.
pub(super) fn group(
    datagrams: &[Datagram<'_>],
    segmentation: Segmentation,
    groups: &mut [Group; MAX_BATCH],
) -> usize {
    let mut rest = datagrams.get(..MAX_BATCH).unwrap_or(datagrams);
    let mut count = 0;
    for group in groups.iter_mut() {
        let Some((first, following)) = rest.split_first() else {
            break;
        };
        let mut segments = first.segments();
        let mut bytes = first.data.len();
        let mut open = first.is_even() && first.size() <= segmentation.largest;
        let mut datagrams = 1;
        for next in following {
            let alike = next.size() <= first.size()
                && !next.data.is_empty()
                && (next.segment.is_none() || next.size() == first.size())
                && (next.tos, next.ttl) == (first.tos, first.ttl);
            segments += next.segments();
            bytes += next.data.len();
            if !open || !alike || segments > MAX_SEGMENTS || bytes > MAX_MESSAGE {
                break;
            }
            datagrams += 1;
            open = next.size() == first.size() && next.is_even();
        }
        let several = datagrams > 1 || first.segments() > 1;
        let segment = u16::try_from(first.size()).ok().filter(|_| several);
        *group = Group { datagrams, segment };
        count += 1;
        rest = rest.get(datagrams..).unwrap_or_default();
    }
    count
}
