//! Descriptors that a parent process left us under agreed numbers.
//!
//! Sources: fcntl(2), close_range(2).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes ownership of an inherited descriptor and keeps it from further programs. EBADF where it is
/// not open. To be called once for each number, before anything else opens descriptors.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by agreement with the parent process nobody else here has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor from `first` on. ENOSYS before Linux 5.9.
pub fn close_from(first: RawFd) -> io::Result<()> {
    let first = libc::c_uint::try_from(first).map_err(|_| io::ErrorKind::InvalidInput)?;
    // By number: glibc before 2.34 has no wrapper.
    // SAFETY: takes no pointer; called before this process has opened descriptors of its own.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
