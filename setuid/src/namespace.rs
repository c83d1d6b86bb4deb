//! Whose a network namespace is.
//!
//! Invariant: the answer is about the descriptor itself, and is asked of the kernel: nothing can be put
//! in its place afterwards, as a path or a pid could.
//!
//! Sources: ioctl_nsfs(2), namespaces(7), user_namespaces(7).

use crate::sys;
use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, fstatfs};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

/// linux/magic.h.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);
/// Inode number of the first user namespace (PROC_USER_INIT_INO, linux/proc_ns.h).
const INITIAL_USER: u64 = 0xefff_fffd;

/// Why a namespace is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotOwned {
    /// A file, a socket, anything else.
    #[error("the descriptor is no namespace")]
    NoNamespace,
    /// Of mounts, of users and so on.
    #[error("the descriptor is a namespace of another kind")]
    Kind,
    /// Somebody else has made the user namespace that owns it.
    #[error("the namespace is uid {owner}'s")]
    Owner {
        /// Who.
        owner: u32,
    },
    /// The host's.
    #[error("the namespace is the host's own")]
    Host,
    /// The kernel does not say.
    #[error("ask the kernel about a namespace: {}", .0.desc())]
    Kernel(#[from] Errno),
}

type Result<T> = std::result::Result<T, NotOwned>;

/// Check that this is a network namespace, not the host's, and below a user namespace that `uid` made.
pub fn check(namespace: BorrowedFd<'_>, uid: u32) -> Result<()> {
    check_kind(namespace)?;
    let identity = |fd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    let own = open_own("net")?;
    if identity(namespace)? == identity(own.as_fd())? {
        return Err(NotOwned::Host);
    }
    let users = sys::user_namespace_of(namespace)?;
    match sys::owner_uid(users.as_fd())? {
        owner if owner == uid => Ok(()),
        owner => Err(NotOwned::Owner { owner }),
    }
}

fn check_kind(namespace: BorrowedFd<'_>) -> Result<()> {
    if fstatfs(namespace)?.filesystem_type() != NSFS_MAGIC {
        return Err(NotOwned::NoNamespace);
    }
    match sys::namespace_kind(namespace)? {
        libc::CLONE_NEWNET => Ok(()),
        _ => Err(NotOwned::Kind),
    }
}

/// Whether this process is in the machine's own user namespace, and in a network namespace of that. In
/// any other, its capabilities are no more than its caller's.
pub fn is_hosts_own() -> nix::Result<bool> {
    let (user, net) = (open_own("user")?, open_own("net")?);
    let owner = sys::user_namespace_of(net.as_fd());
    let initial = |fd: BorrowedFd<'_>| fstat(fd).map(|stat| stat.st_ino == INITIAL_USER);
    Ok(initial(user.as_fd())? && initial(owner?.as_fd())?)
}

fn open_own(kind: &str) -> nix::Result<File> {
    let opened = File::open(format!("/proc/self/ns/{kind}"));
    opened.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_network_namespace_is_refused() {
        let null = File::open("/dev/null").expect("a file");
        assert!(matches!(check(null.as_fd(), 0), Err(NotOwned::NoNamespace)));
        let pipe = std::io::pipe().expect("a pipe");
        assert!(matches!(
            check(pipe.0.as_fd(), 0),
            Err(NotOwned::NoNamespace)
        ));
        let user = open_own("user").expect("a namespace");
        assert!(matches!(check(user.as_fd(), 0), Err(NotOwned::Kind)));
        let own = open_own("net").expect("a namespace");
        assert!(matches!(check(own.as_fd(), 0), Err(NotOwned::Host)));
    }
}
