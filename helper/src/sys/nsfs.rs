//! Questions to a descriptor of a namespace (ioctl_ns(2)). Ask only what is known to be one: the same
//! numbers mean other things to other files.

use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// NS_GET_USERNS of linux/nsfs.h.
const GET_USERNS: libc::c_ulong = 0xb701;
/// NS_GET_NSTYPE of linux/nsfs.h.
const GET_NSTYPE: libc::c_ulong = 0xb703;

/// The user namespace that owns it. EPERM: that is neither the caller's own nor one below.
pub fn owner(namespace: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    // SAFETY: NS_GET_USERNS takes no argument, and the descriptor is open.
    let result = unsafe { libc::ioctl(namespace.as_raw_fd(), GET_USERNS as _) };
    let owner = Errno::result(result)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(owner) })
}

/// Its kind, as CLONE_NEW* of clone(2).
pub fn kind(namespace: BorrowedFd<'_>) -> nix::Result<libc::c_int> {
    // SAFETY: NS_GET_NSTYPE takes no argument, and the descriptor is open.
    let result = unsafe { libc::ioctl(namespace.as_raw_fd(), GET_NSTYPE as _) };
    Errno::result(result)
}
