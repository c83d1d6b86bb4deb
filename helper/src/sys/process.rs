//! Processes of sandboxes: clone3, pidfds, descriptors laid out for exec, controlling terminals.
//!
//! Invariant: a child runs one closure and ends; control never returns from it into the helper's
//! code, not by panic either.
//!
//! Sources: clone(2), pidfd_open(2), pidfd_send_signal(2), close_range(2), ioctl_tty(2), prctl(2),
//! keyctl(2).

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sched::CloneFlags;
use nix::unistd::Pid;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Exit code of a child whose closure panicked.
const PANICKED: i32 = 125;

/// How often, and for how long at a time, a thread that is just ending is waited for.
const THREAD_END_TRIES: u32 = 200;
const THREAD_END_PAUSE: Duration = Duration::from_millis(1);

/// Proof that this process has one thread: it was made by [`spawn`] and started none.
#[derive(Debug)]
pub struct SingleThreaded(());

/// Make a child in the new namespaces of `flags`; `body` runs in it, and what it returns is the
/// exit code. `EBUSY`: this process has further threads, whose locks the child would inherit.
pub fn spawn(
    flags: CloneFlags,
    body: impl FnOnce(&SingleThreaded) -> i32,
) -> nix::Result<(Pid, OwnedFd)> {
    wait_single_threaded()?;
    let mut pidfd: RawFd = -1;
    let flags = flags | CloneFlags::from_bits_retain(libc::CLONE_PIDFD);
    match clone3(flags, libc::SIGCHLD, Some(&mut pidfd))? {
        Some(pid) => Ok((pid, own(pidfd))),
        None => run(body),
    }
}

/// As [`spawn`], but the child becomes a child of this process's *parent* (CLONE_PARENT), with the
/// exit signal of this process.
pub fn spawn_sibling(
    _alone: &SingleThreaded,
    flags: CloneFlags,
    body: impl FnOnce(&SingleThreaded) -> i32,
) -> nix::Result<Pid> {
    match clone3(flags | CloneFlags::CLONE_PARENT, 0, None)? {
        Some(pid) => Ok(pid),
        None => run(body),
    }
}

/// The kernel's list of threads loses a joined thread a moment after the join.
fn wait_single_threaded() -> nix::Result<()> {
    for _ in 0..THREAD_END_TRIES {
        let tasks = std::fs::read_dir("/proc/self/task").map_err(|e| {
            e.raw_os_error()
                .map_or(Errno::UnknownErrno, Errno::from_raw)
        })?;
        if tasks.count() == 1 {
            return Ok(());
        }
        std::thread::sleep(THREAD_END_PAUSE);
    }
    Err(Errno::EBUSY)
}

/// clone3(2) without CLONE_VM; `None` in the child.
fn clone3(
    flags: CloneFlags,
    exit_signal: libc::c_int,
    pidfd: Option<&mut RawFd>,
) -> nix::Result<Option<Pid>> {
    let args = [
        flags.bits() as u64,
        pidfd.map_or(0, |fd| std::ptr::from_mut(fd) as u64),
        0,
        0,
        exit_signal as u64,
        0,
        0,
        0,
    ];
    // SAFETY: `args` has the layout of `struct clone_args` (version 0, eight words) and outlives
    // the call; the callers see to it that this process has one thread, so the child's copy of the
    // memory is consistent.
    let result = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
    let pid = Errno::result(result)? as libc::pid_t;
    Ok((pid != 0).then(|| Pid::from_raw(pid)))
}

/// Run the whole life of a child.
fn run(body: impl FnOnce(&SingleThreaded) -> i32) -> ! {
    let code = catch_unwind(AssertUnwindSafe(|| body(&SingleThreaded(())))).unwrap_or(PANICKED);
    // SAFETY: ends the child without running the parent's exit handlers.
    unsafe { libc::_exit(code) }
}

/// Take over a descriptor that the kernel has just made for this process.
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: a system call has just installed this descriptor; nothing else knows of it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// pidfd_open(2). Free of races for a child that has not been waited for.
pub fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: takes integers only.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    Errno::result(result).map(|fd| own(fd as RawFd))
}

/// pidfd_send_signal(2).
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> nix::Result<()> {
    let no_info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null `info` is allowed and means what kill(2) would send.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            no_info,
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// Lay `fds` out from number 0 on and close every other descriptor. The first `inherited` survive
/// exec, the rest do not. For a child only: whatever other values own is gone.
pub fn keep_only(fds: Vec<OwnedFd>, inherited: usize) -> nix::Result<Vec<OwnedFd>> {
    let count = fds.len() as RawFd;
    let mut aside = Vec::with_capacity(fds.len());
    for fd in fds {
        let moved = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(count))?;
        // Its number may be one that is about to be replaced.
        std::mem::forget(fd);
        aside.push(moved);
    }
    let mut kept = Vec::with_capacity(aside.len());
    for (position, from) in aside.into_iter().enumerate() {
        let flags = if position < inherited {
            0
        } else {
            libc::O_CLOEXEC
        };
        kept.push(place(from, position as RawFd, flags)?);
    }
    close_from(count)?;
    Ok(kept)
}

/// dup3(2) to a number below those in use.
fn place(from: RawFd, to: RawFd, flags: libc::c_int) -> nix::Result<OwnedFd> {
    // SAFETY: takes integers only; whatever `to` was in the child is meant to be replaced.
    let result = unsafe { libc::dup3(from, to, flags) };
    Errno::result(result).map(own)
}

/// Close every descriptor from `first` on.
fn close_from(first: RawFd) -> nix::Result<()> {
    // SAFETY: takes integers only; the child uses no descriptor but those below `first` again.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    Errno::result(result).map(drop)
}

/// Make `terminal` the controlling terminal of this session leader (TIOCSCTTY).
pub fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer argument; 0 does not steal another session's terminal.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    Errno::result(result).map(drop)
}

/// Give every signal its default action: exec keeps ignored ones ignored (signal(7)). By the system
/// call itself, since libc refuses the two signals that it keeps for itself.
pub fn default_signals() {
    // `struct sigaction` of the kernel (handler, flags, restorer, mask), all zero: SIG_DFL.
    let default = [0u64; 4];
    let old: *mut u64 = std::ptr::null_mut();
    for signal in 1..=64 {
        // SAFETY: `default` outlives the call; SIGKILL and SIGSTOP are refused.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                old,
                8usize,
            )
        };
    }
}

/// Drop capabilities above `last` from the bounding set: those newer than our list of names.
pub fn drop_bounding_above(last: u8) {
    for capability in (libc::c_ulong::from(last) + 1)..64 {
        // SAFETY: takes integers only; EINVAL for one that the kernel lacks too.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
}

/// Leave the session keyring that was inherited for a new, empty one.
pub fn new_session_keyring() -> nix::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    let anonymous: *const libc::c_char = std::ptr::null();
    // SAFETY: a null name asks for an anonymous keyring.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, anonymous) };
    Errno::result(result).map(drop)
}
