//! What a sandbox process does between its creation and its command.
//!
//! Invariants: it dies with the helper; it keeps no descriptor of the helper's but the three given
//! and the channel, which exec closes; when the command starts, it holds the sandbox's
//! capabilities, which name the sandbox's own user namespace and nothing above it.
//!
//! Sources: capabilities(7), setsid(2), PR_SET_PDEATHSIG in prctl(2), pid_namespaces(7).

use crate::request::Failure;
use crate::sandbox::channel::{ChildEnd, Report, setup};
use crate::sandbox::command::Command;
use crate::sys::process;
use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, setgroups, setsid};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Exit code of a process that could not be set up; the reason goes through the channel.
pub const GAVE_UP: i32 = 125;

/// The part that a sandbox's first process and later ones have in common.
#[derive(Debug, Clone)]
pub struct Process {
    /// What it becomes.
    pub command: Command,
    /// What it may do in the sandbox's user namespace.
    pub capabilities: CapsHashSet,
    /// Whether setgroups(2) works: the namespace maps more than one group.
    pub set_groups: bool,
}

/// Die with the helper. A helper that is dead already shows as end of file on the channel.
pub fn die_with_helper() -> Result<(), Failure> {
    set_pdeathsig(Signal::SIGKILL).map_err(|e| setup("tie the sandbox to the helper", e))
}

/// Put stdin, stdout and stderr in place, keep the channel, close everything else.
pub fn keep_channel(
    stdio: [OwnedFd; 3],
    channel: ChildEnd,
) -> Result<(ChildEnd, OwnedFd), Failure> {
    let [stdin, stdout, stderr] = stdio;
    let fds = vec![stdin, stdout, stderr, channel.into()];
    let kept = process::keep_only(fds, 3).map_err(|e| setup("lay out the standard streams", e))?;
    let Ok([stdin, stdout, stderr, channel]) = <[OwnedFd; 4]>::try_from(kept) else {
        return Err(setup("lay out the standard streams", Errno::EBADF));
    };
    // They belong to the command, and stay open.
    std::mem::forget((stdout, stderr));
    Ok((channel.into(), stdin))
}

/// The rest of the life of a process whose namespaces and file system are complete.
pub fn finish(
    process: &Process,
    stdin: &OwnedFd,
    mut channel: ChildEnd,
    warnings: Vec<String>,
) -> i32 {
    if let Err(failure) = prepare(process, stdin) {
        channel.tell(&Report::Failed(failure));
        return GAVE_UP;
    }
    channel.tell(&Report::Ready(warnings));
    if channel.wait() {
        channel.tell(&Report::Failed(process.command.execute()));
    }
    GAVE_UP
}

/// Everything that the command inherits besides namespaces and descriptors.
fn prepare(process: &Process, stdin: &OwnedFd) -> Result<(), Failure> {
    setsid().map_err(|e| setup("start a session", e))?;
    if process.command.tty {
        process::set_controlling_terminal(stdin.as_fd())
            .map_err(|e| setup("make the terminal the controlling one", e))?;
    }
    // A kernel without keyrings has none to leak.
    let _ = process::new_session_keyring();
    if process.set_groups {
        setgroups(&[Gid::from_raw(0)]).map_err(|e| setup("drop the caller's groups", e))?;
    }
    process::default_signals();
    SigSet::empty()
        .thread_set_mask()
        .map_err(|e| setup("unblock signals", e))?;
    umask(Mode::from_bits_truncate(0o022));
    crate::limits::restore();
    limit_capabilities(&process.capabilities)?;
    // Changes of credentials above may have cleared it.
    die_with_helper()
}

/// Permitted = effective = bounding = `keep`; nothing inheritable, nothing ambient. Exec must not
/// raise the permitted set, or the kernel forgets the parent-death signal.
fn limit_capabilities(keep: &CapsHashSet) -> Result<(), Failure> {
    let failed = |e: caps::errors::CapsError| {
        setup(
            format!("limit capabilities ({e})"),
            io::Error::from(Errno::EPERM),
        )
    };
    let mut last = 0;
    for capability in caps::all() {
        last = last.max(capability.index());
        // One that this kernel lacks needs no dropping.
        let held = caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false);
        if held && !keep.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability).map_err(failed)?;
        }
    }
    process::drop_bounding_above(last);
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let kept: CapsHashSet = permitted.intersection(keep).copied().collect();
    caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed)
}

/// The capabilities that a list of names (`CAP_NET_RAW`) stands for.
pub fn capabilities(names: &[String]) -> Result<CapsHashSet, Failure> {
    names
        .iter()
        .map(|name| {
            name.parse::<Capability>().map_err(|_| {
                Failure::invalid(format!("{name:?} is not a capability such as CAP_NET_RAW"))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_names_are_checked() {
        let set = capabilities(&["CAP_CHOWN".to_owned(), "CAP_BPF".to_owned()]).unwrap();
        assert_eq!(set.len(), 2);
        assert!(capabilities(&["NET_RAW".to_owned()]).is_err());
        assert!(capabilities(&["ALL".to_owned()]).is_err());
    }
}
