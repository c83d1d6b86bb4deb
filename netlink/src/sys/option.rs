//! A socket option that nix does not have.

use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Set an integer option of level SOL_NETLINK (netlink(7)).
pub fn set_netlink_option(
    socket: BorrowedFd<'_>,
    option: libc::c_int,
    value: libc::c_int,
) -> nix::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let pointer: *const libc::c_int = &value;
    // SAFETY: `pointer` is valid for reads of `length` bytes for the whole call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            pointer.cast(),
            length,
        )
    };
    Errno::result(result).map(drop)
}
