//! The first thing that this program does: nothing is inherited, and nothing is effective.
//!
//! Invariant: after [`enter`] there are three descriptors, no environment, no effective capability, and
//! no way to get more privilege; where any step fails, nothing is performed.
//!
//! Sources: capabilities(7), prctl(2), credentials(7), environ(7).

use crate::caller::Caller;
use crate::privilege::{self, PrivilegeError};
use crate::{namespace, sys};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, getegid, geteuid, getgid, setgroups, setresgid, setresuid};

/// Why nothing can be performed.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// A system call failed.
    #[error("{step}: {}", errno.desc())]
    Step {
        /// Which.
        step: &'static str,
        /// How.
        errno: Errno,
    },
    /// The program's file gave it less than it needs, or no_new_privs was set before.
    #[error("not installed with its capabilities, or started with no_new_privs: {0}")]
    Privilege(#[from] PrivilegeError),
    /// Started in a container: its capabilities are not about the host.
    #[error("started outside of the host's own namespaces")]
    Namespace,
}

type Result<T> = std::result::Result<T, StartupError>;

fn step<T>(step: &'static str, result: nix::Result<T>) -> Result<T> {
    result.map_err(|errno| StartupError::Step { step, errno })
}

/// Forget what was inherited; who the caller is.
pub fn enter() -> Result<Caller> {
    // With one of them closed, what is opened next would be taken for it.
    for (fd, name) in [(0, "stdin"), (1, "stdout"), (2, "stderr")] {
        step(name, sys::is_open(fd))?;
    }
    step("clear the environment", sys::clear_environment())?;
    step("close descriptors", sys::close_all_but_standard())?;
    step("change directory", chdir("/"))?;
    umask(Mode::S_IRWXO);
    for signal in [
        Signal::SIGXFSZ,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
    ] {
        step("ignore signals", sys::ignore_signal(signal))?;
    }
    step("forbid core dumps", setrlimit(Resource::RLIMIT_CORE, 0, 0))?;
    let caller = step("ask for ids", Caller::current())?;
    if !step("look at namespaces", namespace::is_hosts_own())? {
        return Err(StartupError::Namespace);
    }
    if geteuid().is_root() {
        become_root()?;
    }
    privilege::shrink()?;
    step("set no_new_privs", prctl::set_no_new_privs())?;
    Ok(caller)
}

/// Installed setuid root: root in every respect but for capabilities, so that the caller can neither stop
/// this process while it holds the lock nor own the files that it makes. The group that the program's file
/// may have given stays: without capabilities root reaches the record by it where that belongs to callers.
fn become_root() -> Result<()> {
    let uid = Uid::from_raw(0);
    let gid = match getegid() {
        given if given != getgid() => given,
        _ => Gid::from_raw(0),
    };
    step("drop groups", setgroups(&[]))?;
    step("set group ids", setresgid(gid, gid, gid))?;
    step("set user ids", setresuid(uid, uid, uid))
}
