//! Keeping root in a sandbox from rewriting our program.
//!
//! A command of `/proc/self/exe`, or a script that names it as interpreter, runs the helper's own
//! program inside the sandbox, which can then reach its file through `/proc/PID/exe`: it belongs to
//! the same user. So the helper runs from a detached, read-only mount of its program, which no
//! path leads to and nobody can remount.
//!
//! Sources: CVE-2019-5736, mount_setattr(2), execveat(2).

use crate::request::Failure;
use crate::sandbox::channel::setup;
use crate::sys::mount::{clone_tree, make_read_only};
use nix::fcntl::AtFlags;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::execveat;
use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::AsFd;

/// The program that runs.
const PROGRAM: &str = "/proc/self/exe";

/// Whether this process runs from a read-only mount.
pub fn is_sealed() -> bool {
    statvfs(PROGRAM).is_ok_and(|mount| mount.flags().contains(FsFlags::ST_RDONLY))
}

/// Execute this program again from a read-only mount of it. Needs CAP_SYS_ADMIN in the user
/// namespace that owns the mount namespace; the namespaces stay as they are.
pub fn execute_sealed(argv: &[CString], env: &[CString]) -> Result<Infallible, Failure> {
    let failed = |e| setup("execute the helper from a read-only mount", e);
    let program = std::fs::read_link(PROGRAM).map_err(|e| setup("find the helper's program", e))?;
    let mount = clone_tree(None, &program, false).map_err(failed)?;
    make_read_only(mount.as_fd()).map_err(failed)?;
    execveat(&mount, c"", argv, env, AtFlags::AT_EMPTY_PATH).map_err(failed)
}
