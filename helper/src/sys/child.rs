//! Child processes: those that must die with the helper, and one that stays behind in the old user
//! namespace. Sandbox processes are made in `process`.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::{ForkResult, Pid, fork};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Most descriptors that a child is given.
pub const MOST_FDS: usize = 4;

/// Let `command`'s process be killed when the helper ends (PR_SET_PDEATHSIG, prctl(2)), lead a
/// session of its own, and find each descriptor of `fds` (at most [`MOST_FDS`]) under its number
/// (3 or above). Must be spawned by the main thread: the signal is sent when the spawning
/// *thread* ends.
pub fn bind_to_parent(command: &mut Command, fds: Vec<(OwnedFd, RawFd)>) {
    let parent = Pid::this();
    let prepare = move || {
        nix::unistd::setsid()?;
        crate::limits::restore();
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        if Pid::parent() != parent {
            return Err(io::Error::from(Errno::ESRCH));
        }
        place(&fds)
    };
    // SAFETY: the closure makes system calls only, and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

/// Duplicate each descriptor to its number, without CLOEXEC. They are first moved above all target
/// numbers, so that none is overwritten before its turn.
fn place(fds: &[(OwnedFd, RawFd)]) -> io::Result<()> {
    let first_free = fds.iter().map(|(_, target)| target + 1).max().unwrap_or(3);
    let mut aside = [-1; MOST_FDS];
    for (slot, (fd, _)) in aside.iter_mut().zip(fds) {
        *slot = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(first_free))?;
    }
    for (slot, (_, target)) in aside.iter().zip(fds) {
        duplicate(*slot, *target)?;
    }
    Ok(())
}

/// dup2(2).
fn duplicate(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: takes integers only; whatever `to` was in the new child is meant to be replaced.
    let result = unsafe { libc::dup2(from, to) };
    Errno::result(result)?;
    Ok(())
}

/// Fork while the process is single-threaded: `in_child` runs in the child, whose exit code it
/// returns; the parent gets the child's process id.
pub fn fork_single_threaded(in_child: impl FnOnce() -> i32) -> nix::Result<Pid> {
    // SAFETY: called at start-up, before any thread exists, so that no lock can be held for ever
    // in the child.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let code = in_child();
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(code) }
        }
    }
}
