//! Descriptors of kinds that tokio has no type for, watched for readiness (epoll(7)).

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// Watches `fd`, which should be non-blocking. Call it inside a tokio runtime.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, always names the same descriptor, and is moved into the AsyncFd,
    // which closes it only when it is dropped itself.
    let watched = unsafe { AsyncFd::register(fd) };
    watched.map_err(|error| error.into_parts().1)
}
