//! The only unsafe code of this crate: one system call a block, each with its reason.
//!
//! Sources: ioctl_nsfs(2), close_range(2), environ(7), socket(7).

#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::request_code_none;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// ioctl type of nsfs, linux/nsfs.h.
const NSIO: u8 = 0xb7;
const NS_GET_USERNS: u8 = 1;
const NS_GET_NSTYPE: u8 = 3;
const NS_GET_OWNER_UID: u8 = 4;

/// The user namespace that owns a namespace. EPERM: it is not one of ours or below (ioctl_nsfs(2)).
pub fn user_namespace_of(namespace: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let request = request_code_none!(NSIO, NS_GET_USERNS);
    // SAFETY: takes no argument.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), request) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just made it for this process; nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// CLONE_NEWNET, CLONE_NEWUSER and so on.
pub fn namespace_kind(namespace: BorrowedFd<'_>) -> nix::Result<i32> {
    let request = request_code_none!(NSIO, NS_GET_NSTYPE);
    // SAFETY: takes no argument.
    Errno::result(unsafe { libc::ioctl(namespace.as_raw_fd(), request) })
}

/// The user who made a user namespace, as an id of our own user namespace.
pub fn owner_uid(user_namespace: BorrowedFd<'_>) -> nix::Result<u32> {
    let request = request_code_none!(NSIO, NS_GET_OWNER_UID);
    let mut uid: libc::uid_t = 0;
    // SAFETY: writes one uid_t, to a place that is one.
    let result = unsafe { libc::ioctl(user_namespace.as_raw_fd(), request, &raw mut uid) };
    Errno::result(result).map(|_| uid)
}

/// EBADF: the descriptor with this number is closed.
pub fn is_open(number: i32) -> nix::Result<()> {
    // SAFETY: asks for a flag, and changes nothing.
    Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) }).map(drop)
}

/// Close every descriptor from 3 on. ENOSYS: a kernel before 5.9.
pub fn close_all_but_standard() -> nix::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: called before this program has opened anything of its own.
    let result = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) };
    Errno::result(result).map(drop)
}

/// Forget the environment.
pub fn clear_environment() -> nix::Result<()> {
    // SAFETY: there is one thread, and nobody holds a pointer into the environment.
    match unsafe { libc::clearenv() } {
        0 => Ok(()),
        _ => Err(Errno::ENOMEM),
    }
}

/// Random bytes.
pub fn random<const N: usize>() -> nix::Result<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: writes at most `N` bytes, to a place that has as many.
    let length = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    match Errno::result(length)?.cast_unsigned() {
        length if length == N => Ok(bytes),
        _ => Err(Errno::EIO),
    }
}

/// Keep CPU, terminal and size limits that the caller has set from stopping or ending this process in the
/// middle; who kills it gets what a kill gives.
pub fn ignore_signal(signal: nix::sys::signal::Signal) -> nix::Result<()> {
    use nix::sys::signal::{SigHandler, signal as set};
    // SAFETY: no handler is installed.
    unsafe { set(signal, SigHandler::SigIgn) }.map(drop)
}

/// A number that no other network namespace has, nor will have until the machine restarts: that of
/// the namespace in which the socket was made.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> nix::Result<u64> {
    number_option(socket, libc::SO_NETNS_COOKIE)
}

/// An option of level SOL_SOCKET that is eight bytes long.
fn number_option(socket: BorrowedFd<'_>, option: libc::c_int) -> nix::Result<u64> {
    let mut value = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: both pointers are valid for what they say, for the whole call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).map(|_| value)
}
