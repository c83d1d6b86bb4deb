//! Who is at the other end of a unix socket: the user, or something in one of the user's sandboxes?
//!
//! A sandbox's root has the user's own uid, so SO_PEERCRED alone does not tell them apart, and a
//! sandbox with every capability can take off the mask over the runtime directory. But each
//! sandbox has a pid namespace below ours, which nothing in it can leave: its processes have more
//! than one pid, and `/proc/PID/status` says so to everybody (`NSpid`, proc_pid_status(5)).

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::fs;

/// Whether process `pid` lives outside of every pid namespace below ours. A process that has ended
/// meanwhile does not count as outside; pid 0 (it cannot be seen from here, so it is above us) does.
pub fn outside_sandboxes(pid: i32) -> bool {
    if pid == 0 {
        return true;
    }
    match fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => pids(&status) == Some(1),
        // Mounted with hidepid, /proc hides the daemon from the helper: alive is all it can know.
        Err(_) => kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH),
    }
}

/// In how many pid namespaces, from ours inwards, the process has a pid.
fn pids(status: &str) -> Option<usize> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    Some(line.split_ascii_whitespace().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_in_a_namespace_below_has_several_pids() {
        assert_eq!(pids("Name:\tsh\nNSpid:\t4711\nNSpgid:\t4711\n"), Some(1));
        assert_eq!(pids("Name:\tsh\nNSpid:\t4711\t1\n"), Some(2));
        // The name is the process's own choice, but cannot hold a line break.
        assert_eq!(pids("Name:\tNSpid:\nPid:\t1\n"), None);
    }

    #[test]
    fn we_are_outside_and_the_dead_are_not() {
        assert!(outside_sandboxes(std::process::id().cast_signed()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        child.wait().unwrap();
        assert!(!outside_sandboxes(pid));
    }
}
