//! Adopted sandboxes: the network namespace of another runtime, which comes as a descriptor.
//!
//! Invariants: the user namespace that owns it is ours or lies below, as the kernel says of the descriptor
//! itself, so that nobody gets power over a namespace through us that they lack; nothing is judged by a path
//! or a process id.
//!
//! Sources: ioctl_ns(2), namespaces(7).

use crate::namespace::in_netns;
use crate::request::{Failure, FailureKind};
use crate::sys::{loopback, nsfs};
use crate::sysctl;
use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, fstatfs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// NSFS_MAGIC of linux/magic.h.
const NSFS: i64 = 0x6e73_6673;

/// Refuse what is no network namespace of ours to join to others.
pub fn check(netns: &OwnedFd) -> Result<(), Failure> {
    let filesystem = fstatfs(netns).map_err(|e| Failure::kernel("look at a descriptor", e))?;
    let wrong = || Failure::invalid("that is not a network namespace");
    if filesystem.filesystem_type() != FsType(NSFS as _) {
        return Err(wrong());
    }
    match nsfs::kind(netns.as_fd()) {
        Ok(libc::CLONE_NEWNET) => {}
        Ok(_) => return Err(wrong()),
        Err(e) => return Err(Failure::kernel("look at a namespace", e)),
    }
    match nsfs::owner(netns.as_fd()) {
        Ok(_) => Ok(()),
        // Of a sibling, or of one above: the host's own, say.
        Err(Errno::EPERM) => Err(Failure::invalid(
            "the network namespace belongs to a user namespace that is not below mossnet's",
        )
        .of_kind(FailureKind::Foreign)),
        Err(e) => Err(Failure::kernel("find the owner of a network namespace", e)),
    }
}

/// Both lead to one namespace.
pub fn same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let identity = |fd: BorrowedFd<'_>| fstat(fd).ok().map(|s| (s.st_dev, s.st_ino));
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// What every network namespace of a container needs and its runtime may have left out: loopback, and no
/// trust in the router advertisements of others (CVE-2020-13401). What the runtime has set otherwise stays.
pub fn prepare(netns: &OwnedFd) -> Result<(), Failure> {
    in_netns(netns.as_fd(), || {
        sysctl::distrust_routers();
        loopback::bring_up().map_err(|e| Failure::kernel("bring loopback up", e))
    })
}
