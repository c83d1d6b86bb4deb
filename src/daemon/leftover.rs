//! Sandboxes that outlived their helper.
//!
//! A helper that is killed takes every sandbox along, by the parent-death signal of its first
//! process; but the kernel clears that signal where the process changes its uid (prctl(2)), which
//! it can where there are subordinate ids. We may signal it all the same: we own the user namespace
//! that it is in (capabilities(7)).

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::path::Path;
use tracing::{info, warn};

/// Kills the first process of a sandbox that was recorded as `pid`, if that is still it. It is where
/// files of `directory`, which only one sandbox has, are laid over its `/etc`.
pub(super) fn end(pid: u32, directory: &Path) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // Opened before the look at what it is: the signal cannot reach another that got its number.
    let held = pid.and_then(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?)));
    let Some((pid, pidfd)) = held else { return };
    let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", pid.as_raw_nonzero()));
    if !mounts.is_ok_and(|mounts| is_of(&mounts, directory)) {
        return;
    }
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) => info!(
            sandbox.pid = pid.as_raw_nonzero().get(),
            "outlived its helper; killed"
        ),
        Err(error) => {
            warn!(sandbox.pid = pid.as_raw_nonzero().get(), %error, "outlives its helper")
        }
    }
}

/// Whether a file of `directory` is mounted somewhere, by its whole name or, where the directory is
/// in a file system of its own, the end of it (proc_pid_mountinfo(5): the fourth field).
fn is_of(mounts: &str, directory: &Path) -> bool {
    let Some(name) = directory.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    let roots = mounts.lines().filter_map(|line| line.split(' ').nth(3));
    roots
        .filter_map(|root| Path::new(root).parent()?.file_name())
        .any(|parent| parent == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_of_the_directory_count() {
        let mounts = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
            30 22 0:24 /mossnet/sandboxes/0123ab/hosts /etc/hosts rw - tmpfs run rw\n";
        let is_of = |directory: &str| is_of(mounts, Path::new(directory));
        assert!(is_of("/run/mossnet/sandboxes/0123ab"));
        for other in [
            "/run/mossnet/sandboxes/0123",
            "/run/mossnet/sandboxes",
            "/",
            "/etc",
        ] {
            assert!(!is_of(other), "{other}");
        }
        assert!(!super::is_of("", Path::new("/run/0123ab")));
    }

    #[test]
    fn a_stranger_is_left_alone() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        end(child.id(), Path::new("/run/mossnet/sandboxes/0123ab"));
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(!status.success());
        end(child.id(), Path::new("/"));
        end(0, Path::new("/"));
        end(u32::MAX, Path::new("/"));
    }
}
