//! Mount trees as descriptors, so that a tree can be attached after its path is hidden or gone.
//!
//! Sources: open_tree(2), move_mount(2), fsopen(2), fsmount(2), mount_setattr(2), Linux 5.2 and 5.12.

use nix::NixPath;
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// linux/mount.h.
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// A detached copy of the mounts at `path` below `dir` (with everything mounted under it, where
/// `recursive`), that can be attached elsewhere. An empty path stands for `dir` itself.
pub fn clone_tree(
    dir: Option<BorrowedFd<'_>>,
    path: &(impl NixPath + ?Sized),
    recursive: bool,
) -> nix::Result<OwnedFd> {
    let dir = dir.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    let mut flags = libc::OPEN_TREE_CLONE
        | libc::O_CLOEXEC as libc::c_uint
        | libc::AT_EMPTY_PATH as libc::c_uint;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    let result = path.with_nix_path(|path| {
        // SAFETY: `path` is a C string that outlives the call.
        unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) }
    })?;
    let fd = Errno::result(result)? as RawFd;
    // SAFETY: open_tree(2) has just installed this descriptor; nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A tree of /sys that shows the calling thread's network namespace, attached nowhere. EPERM where our mount
/// namespace shows a part of /sys only, as in a container.
pub fn new_sysfs() -> nix::Result<OwnedFd> {
    let cloexec: libc::c_uint = 1;
    let name = c"sysfs";
    // SAFETY: `name` outlives the call. 1 is FSOPEN_CLOEXEC (linux/mount.h).
    let context = unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), cloexec) };
    let context = Errno::result(context)? as RawFd;
    // SAFETY: fsopen(2) has just installed this descriptor; nothing else knows of it.
    let context = unsafe { OwnedFd::from_raw_fd(context) };
    let (no_key, no_value, no_aux) = (0_usize, 0_usize, 0_i32);
    // SAFETY: FSCONFIG_CMD_CREATE takes neither key nor value: both pointers are null.
    let created = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            no_key,
            no_value,
            no_aux,
        )
    };
    Errno::result(created)?;
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    // SAFETY: fsmount(2) takes numbers only. 1 is FSMOUNT_CLOEXEC (linux/mount.h).
    let tree =
        unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), cloexec, attributes) };
    let tree = Errno::result(tree)? as RawFd;
    // SAFETY: fsmount(2) has just installed this descriptor; nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(tree) })
}

/// Attach a detached tree over `target`, which is not followed where it is a symbolic link.
pub fn attach_tree(tree: BorrowedFd<'_>, target: &(impl NixPath + ?Sized)) -> nix::Result<()> {
    let empty = c"";
    let result = target.with_nix_path(|target| {
        // SAFETY: both paths are C strings that outlive the call.
        unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                tree.as_raw_fd(),
                empty.as_ptr(),
                libc::AT_FDCWD,
                target.as_ptr(),
                libc::MOVE_MOUNT_F_EMPTY_PATH,
            )
        }
    })?;
    Errno::result(result).map(drop)
}

/// Make a tree read-only, with everything under it.
pub fn make_read_only(tree: BorrowedFd<'_>) -> nix::Result<()> {
    // attr_set, attr_clr, propagation, userns_fd: `struct mount_attr`, version 0.
    let attributes: [u64; 4] = [libc::MOUNT_ATTR_RDONLY, 0, 0, 0];
    let empty = c"";
    // SAFETY: `empty` and `attributes` outlive the call, which is told the size of the latter.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    Errno::result(result).map(drop)
}
