//! splice(2): moves bytes between a socket and a pipe without copying them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Moves up to `length` bytes; one of the two must be a pipe. None at the end of file.
/// `WouldBlock` where there is nothing to take or no room.
///
/// Of a TCP socket, the bytes before urgent data only; beyond, `WouldBlock` (`tcp_read_sock`).
pub fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, length: usize) -> io::Result<usize> {
    // SAFETY: no offsets are given; the call touches no memory of ours.
    let moved = unsafe {
        libc::splice(
            from.as_raw_fd(),
            std::ptr::null_mut(),
            to.as_raw_fd(),
            std::ptr::null_mut(),
            length,
            libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK,
        )
    };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}
