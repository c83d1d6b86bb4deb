//! A sandbox process that exists but does not run its command yet, as the helper holds it.

use crate::request::Failure;
use crate::sandbox::channel::{ChildEnd, HelperEnd, Report, pair, setup};
use crate::sandbox::child::{self, GAVE_UP};
use crate::sys::process::{SingleThreaded, pidfd_open, pidfd_send_signal, spawn};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How long a killed process may take to end, in milliseconds, before it is left to the helper's
/// event loop. Only one that hangs in a file system takes that long.
const END_TIMEOUT: u16 = 2000;

/// A process that waits for its next permission.
#[derive(Debug)]
pub struct Made {
    /// In the helper's pid namespace.
    pub pid: Pid,
    /// Refers to it even after it was waited for.
    pub pidfd: OwnedFd,
    /// The conversation with it.
    pub channel: HelperEnd,
}

impl Made {
    /// Let it set itself up; what is degraded comes back. Where it fails, it is gone afterwards.
    pub fn set_up(mut self) -> Result<(Self, Vec<String>), Failure> {
        let outcome = self.channel.permit().and_then(|()| self.channel.report());
        let failure = match outcome {
            Ok(Some(Report::Ready(warnings))) => return Ok((self, warnings)),
            Ok(Some(Report::Failed(failure))) | Err(failure) => failure,
            Ok(Some(Report::Made(_)) | None) => ended_early(),
        };
        self.abandon();
        Err(failure)
    }

    /// Let it execute its command, and wait until it has.
    pub fn execute(channel: &mut HelperEnd) -> Result<(), Failure> {
        channel.permit()?;
        match channel.report()? {
            None => Ok(()),
            Some(Report::Failed(failure)) => Err(failure),
            Some(Report::Made(_) | Report::Ready(_)) => Err(ended_early()),
        }
    }

    /// Kill it and wait for its end.
    pub fn abandon(self) {
        end(self.pid, self.pidfd.as_fd());
    }
}

/// Without a reason of its own: killed from outside, or out of memory.
fn ended_early() -> Failure {
    setup(
        "the sandbox process ended while it was set up",
        Errno::ECHILD,
    )
}

/// Kill a child and wait for its end.
pub fn end(pid: Pid, pidfd: BorrowedFd<'_>) {
    // ESRCH: it has ended by itself.
    let _ = pidfd_send_signal(pidfd, libc::SIGKILL);
    // A time-out leaves it to the event loop.
    let _ = poll(
        &mut [PollFd::new(pidfd, PollFlags::POLLIN)],
        PollTimeout::from(END_TIMEOUT),
    );
    let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
}

/// Have a go-between make the process: a child of ours that enters other namespaces, clones the
/// process there as *our* child by `clone`, reports its pid, and ends. `clone` gets the process's end
/// of the conversation.
pub fn by_go_between(
    clone: impl FnOnce(&SingleThreaded, ChildEnd) -> Result<Pid, Failure>,
) -> Result<Made, Failure> {
    let (channel, child_end) = pair()?;
    let (go_between, _) = spawn(CloneFlags::empty(), |alone| {
        let Ok(mut own_channel) = child_end.try_clone() else {
            return GAVE_UP;
        };
        let cloned = child::die_with_helper().and_then(|()| clone(alone, child_end));
        own_channel.tell_made(cloned)
    })
    .map_err(|e| setup("make a process", e))?;
    from_go_between(go_between, channel)
}

/// Take over the process that a go-between made.
fn from_go_between(go_between: Pid, mut channel: HelperEnd) -> Result<Made, Failure> {
    let made = match channel.report() {
        Ok(Some(Report::Made(pid))) => Ok(Pid::from_raw(pid)),
        Ok(Some(Report::Failed(failure))) | Err(failure) => Err(failure),
        Ok(Some(Report::Ready(_)) | None) => Err(ended_early()),
    };
    // It ends after its one report; where it hangs instead, it must not stay.
    if made.is_err() {
        let _ = pidfd_open(go_between).map(|pidfd| pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL));
    }
    let _ = waitpid(go_between, None);
    let pid = made?;
    let pidfd = pidfd_open(pid).map_err(|e| setup("refer to the sandbox process", e))?;
    Ok(Made {
        pid,
        pidfd,
        channel,
    })
}
