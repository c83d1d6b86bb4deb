//! Descriptors that arrive by SCM_RIGHTS (unix(7)), owned from the moment they exist.

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Most descriptors accepted with one read.
pub const MAX_FDS: usize = 16;

/// Read at most `buffer.len()` bytes, and the descriptors that came with them (CLOEXEC).
/// 0 bytes: end of file. Descriptors beyond [`MAX_FDS`] are closed by the kernel.
pub fn recv_with_fds(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: MsgFlags,
) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut iov = [IoSliceMut::new(buffer)];
    let mut control = cmsg_space!([RawFd; MAX_FDS]);
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut iov, Some(&mut control), flags)?;
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            fds.extend(raw.into_iter().map(own));
        }
    }
    Ok((message.bytes, fds))
}

/// Take over a descriptor that the kernel has just made for this process.
fn own(raw: RawFd) -> OwnedFd {
    // SAFETY: recvmsg(2) has just installed this descriptor; nothing else knows of it.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// Let no descriptor but the standard ones survive exec: whoever started us may have leaked some.
/// Kernels before 5.11 cannot, and keep them.
pub fn close_others_on_exec() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: takes integers only, and closes nothing in this process.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
}
