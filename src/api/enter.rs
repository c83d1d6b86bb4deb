//! This process enters mossnet's user namespace and the router netns: to become a command there
//! (`unshare`), or for `capture`.
//!
//! The user namespace is the helper's, whose owner is our own uid: that is what lets us in
//! (user_namespaces(7)). The file system stays the caller's; only /sys is mounted anew, in a mount
//! namespace of our own, since it shows the interfaces of the namespace that it was mounted in.
//!
//! Invariant: one thread. setns(2) of a threaded process into a user namespace fails with EINVAL.

use super::paths::{Paths, RUNTIME_DIR};
use super::types::Info;
use crate::error::{EXIT_CANNOT_EXECUTE, EXIT_FAILURE, EXIT_NOT_FOUND};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// A shell that is always there.
const SHELL: &str = "sh";
/// Keeps the daemon from ending of idleness; never read, answered when the daemon ends.
const HOLD: &[u8] = b"GET /v1/hold HTTP/1.1\r\nHost: mossnet\r\n\r\n";

/// Why the namespaces could not be entered, or the command not be run in them.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The daemon knows of no router.
    #[error("the router's network namespace cannot be entered: no helper runs")]
    NoRouter,
    /// The helper went away, or is not ours.
    #[error("open namespace {}", path.display())]
    Open {
        /// Of the namespace.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// setns(2) refused.
    #[error("enter {what}")]
    Enter {
        /// Which.
        what: &'static str,
        /// Why.
        source: Errno,
    },
    /// execve(2) refused.
    #[error("{}", program.display())]
    Execute {
        /// The command.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl EnterError {
    /// What to do next.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoRouter | Self::Open { .. } => {
                Some("try again; mossnet doctor checks what this machine lacks")
            }
            Self::Enter { .. } => Some("mossnet doctor checks what this machine lacks"),
            Self::Execute { .. } => None,
        }
    }

    /// As that of `run`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Execute { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                EXIT_NOT_FOUND
            }
            Self::Execute { .. } => EXIT_CANNOT_EXECUTE,
            Self::NoRouter | Self::Open { .. } | Self::Enter { .. } => EXIT_FAILURE,
        }
    }
}

/// Becomes `command`, or a shell, in the namespaces that `info` tells of. Returns if it cannot.
pub fn become_command(paths: &Paths, info: &Info, command: &[OsString]) -> EnterError {
    match enter(paths, info) {
        Ok(()) => execute(paths, command),
        Err(error) => error,
    }
}

fn enter(paths: &Paths, info: &Info) -> Result<(), EnterError> {
    let held = enter_router(paths, info)?;
    // The command inherits it. Without one the daemon may end of idleness under the command, which is no
    // reason not to run it.
    if let Some(held) = held
        && rustix::io::fcntl_setfd(&held, rustix::io::FdFlags::empty()).is_ok()
    {
        std::mem::forget(held);
    }
    // Where it fails, /sys shows the host's interfaces; everything else works.
    let _ = fresh_sys();
    Ok(())
}

/// This process, of one thread, is in the router netns from now on, and in the user namespace that owns it,
/// with every capability there. While the connection that is given is open, the namespaces are in use.
pub(super) fn enter_router(paths: &Paths, info: &Info) -> Result<Option<UnixStream>, EnterError> {
    let (Some(helper), Some(router)) = (info.helper_pid, &info.router_netns) else {
        return Err(EnterError::NoRouter);
    };
    // All three while we may still look at the helper.
    let user = open(Path::new(&format!("/proc/{helper}/ns/user")))?;
    let net = open(router)?;
    let held = hold_the_daemon(paths);
    enter_one("the user namespace", &user, CloneFlags::CLONE_NEWUSER)?;
    enter_one(
        "the router's network namespace",
        &net,
        CloneFlags::CLONE_NEWNET,
    )?;
    Ok(held)
}

fn open(path: &Path) -> Result<File, EnterError> {
    File::open(path).map_err(|source| EnterError::Open {
        path: path.to_path_buf(),
        source,
    })
}

fn enter_one(what: &'static str, namespace: &File, kind: CloneFlags) -> Result<(), EnterError> {
    setns(namespace, kind).map_err(|source| EnterError::Enter { what, source })
}

/// A connection that keeps the daemon from ending of idleness.
fn hold_the_daemon(paths: &Paths) -> Option<UnixStream> {
    let mut held = UnixStream::connect(paths.api_socket()).ok()?;
    held.write_all(HOLD).ok()?;
    Some(held)
}

fn fresh_sys() -> nix::Result<()> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(NONE, "/", NONE, private, NONE)?;
    let cgroups = File::open(CGROUPS);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("sysfs"), "/sys", Some("sysfs"), flags, NONE)?;
    // Container runtimes look there; the new /sys has nothing in it.
    if let Ok(cgroups) = cgroups {
        let source = format!("/proc/self/fd/{}", cgroups.as_raw_fd());
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        let _ = mount(Some(source.as_str()), CGROUPS, NONE, flags, NONE);
    }
    Ok(())
}

fn execute(paths: &Paths, command: &[OsString]) -> EnterError {
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    let shell = shell.unwrap_or_else(|| OsString::from(SHELL));
    let (program, arguments) = match command.split_first() {
        Some((program, arguments)) => (program.as_os_str(), arguments),
        None => (shell.as_os_str(), &[][..]),
    };
    let source = replace(paths, program, arguments);
    // What SHELL names may be missing where a shell is not.
    if command.is_empty() && source.kind() == io::ErrorKind::NotFound {
        let _ = replace(paths, OsStr::new(SHELL), &[]);
    }
    EnterError::Execute {
        program: program.into(),
        source,
    }
}

/// What runs there has another uid than the daemon: it is told where that is.
fn replace(paths: &Paths, program: &OsStr, arguments: &[OsString]) -> io::Error {
    let mut command = Command::new(program);
    command.args(arguments).env(RUNTIME_DIR, &paths.runtime);
    if let Some(root) = &paths.root {
        command.env("MOSSNET_ROOT", root);
    }
    command.exec()
}
