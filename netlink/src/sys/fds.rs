//! Descriptors that arrive by SCM_RIGHTS (unix(7)), owned from the moment they exist.

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Most descriptors that one message can carry (SCM_MAX_FD of the kernel).
pub const MAX_FDS: usize = 253;

/// Bytes of [`MAX_FDS`] descriptors with their header, rounded up to what its alignment asks for.
const CONTROL: usize = MAX_FDS * size_of::<RawFd>() + 64;

/// Room for control messages.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Read at most `buffer.len()` bytes, and the descriptors that came with them (CLOEXEC).
/// 0 bytes: end of file. EMSGSIZE: some descriptors did not fit into our limit of open files; those
/// that did are closed again.
pub fn recv_with_fds(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: MsgFlags,
) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut control = Control([0; CONTROL]);
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: all zeros is a message header without any part.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL as _;
    let flags = (flags | MsgFlags::MSG_CMSG_CLOEXEC).bits();
    // SAFETY: the header leads to `buffer` and `control`, which outlive the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    let length = Errno::result(length)?.cast_unsigned();
    // Owned before anything is judged, so that none is lost.
    let fds = descriptors(&header);
    if header.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(Errno::EMSGSIZE);
    }
    Ok((length, fds))
}

/// Those that a received message has brought.
#[allow(clippy::unnecessary_cast)] // With musl, lengths are of another type.
fn descriptors(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the kernel has filled in `msg_control` up to `msg_controllen`.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: null, or the header of a control message within the buffer, aligned as it asks for.
    while let Some(message) = unsafe { next.as_ref() } {
        if message.cmsg_level == libc::SOL_SOCKET && message.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: pointer arithmetic within the buffer.
            let data = unsafe { libc::CMSG_DATA(next) }.cast::<RawFd>();
            // SAFETY: arithmetic on integers only.
            let empty = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = (message.cmsg_len as usize).saturating_sub(empty) / size_of::<RawFd>();
            for index in 0..count {
                // SAFETY: the message is that long.
                let place = unsafe { data.add(index) };
                // SAFETY: the same; nothing is said of its alignment.
                fds.push(own(unsafe { place.read_unaligned() }));
            }
        }
        // SAFETY: both are what the kernel has filled in.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    fds
}

/// Take over a descriptor that the kernel has just made for this process.
fn own(raw: RawFd) -> OwnedFd {
    // SAFETY: recvmsg(2) has just installed this descriptor; nothing else knows of it.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessage, sendmsg};
    use std::fs::File;
    use std::io::{IoSlice, Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn as_many_as_a_message_carries_arrive_in_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let null = File::open("/dev/null").unwrap();
        let mut sent = vec![null.as_raw_fd(); MAX_FDS - 1];
        sent.push(writer.as_raw_fd());
        let rights = [ControlMessage::ScmRights(&sent)];
        let flags = MsgFlags::empty();
        sendmsg::<()>(
            theirs.as_raw_fd(),
            &[IoSlice::new(b"x")],
            &rights,
            flags,
            None,
        )
        .unwrap();
        let mut buffer = [0; 8];
        let (length, mut fds) = recv_with_fds(ours.as_fd(), &mut buffer, flags).unwrap();
        assert_eq!((length, fds.len()), (1, MAX_FDS));
        writer.write_all(b"before").unwrap();
        drop(writer);
        let mut last = File::from(fds.pop().unwrap());
        last.write_all(b" after").unwrap();
        drop(last);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "before after");
        drop(theirs);
        assert_eq!(
            recv_with_fds(ours.as_fd(), &mut buffer, flags).unwrap().0,
            0
        );
    }
}
