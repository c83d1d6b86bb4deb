//! Sandboxes in network namespaces of other runtimes that end with a process of theirs: a runtime that is
//! killed calls nobody.
//!
//! Invariant: the process is told from a later one with the same number by when it started, so that a daemon
//! that starts meanwhile follows the right one, or knows that it has ended.
//!
//! Sources: pidfd_open(2), proc_pid_stat(5).

use super::Daemon;
use super::refusal::malformed;
use crate::api::control::Answer;
use crate::network::{Adopted, ProcessRef, Sandbox};
use mossnet_helper::SandboxId;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::OwnedFd;
use tracing::{info, warn};

/// The field of /proc/PID/stat that says when it started, counted from the one after the name.
const STARTED: usize = 19;

/// The process that has this number now.
pub(super) fn process(pid: u32) -> Answer<ProcessRef> {
    let started = started(pid).ok_or_else(|| {
        malformed(format!("there is no process {pid}"))
            .with_hint("give the process id that the host knows it by")
    })?;
    Ok(ProcessRef { pid, started })
}

fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is the process's own choice, parentheses included.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    // A zombie has ended: its parent only has not heard of it.
    let ended = matches!(fields.clone().next(), Some("Z" | "X"));
    fields.nth(STARTED)?.parse().ok().filter(|_| !ended)
}

/// Refers to the process; `None`: it has ended.
fn hold(process: ProcessRef) -> Option<OwnedFd> {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw)?;
    // Opened before the look at when it started: what ends then is noticed.
    let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
    (started(process.pid) == Some(process.started)).then_some(pidfd)
}

impl Daemon {
    /// Has a sandbox end with the process that it is to end with.
    pub(super) fn follow_owner(&self, id: &SandboxId, adopted: Option<Adopted>) {
        let Some(process) = adopted.and_then(|adopted| adopted.ends_with) else {
            return;
        };
        tokio::spawn(self.clone().end_with(id.clone(), process));
    }

    /// The same for those of an earlier daemon.
    pub(super) async fn follow_owners(&self) {
        let adopted: Vec<_> = {
            let model = self.0.model.lock().await;
            let of = |sandbox: &Sandbox| (sandbox.id.clone(), sandbox.adopted);
            model.sandboxes().map(of).collect()
        };
        for (id, adopted) in adopted {
            self.follow_owner(&id, adopted);
        }
    }

    async fn end_with(self, id: SandboxId, process: ProcessRef) {
        if let Some(pidfd) = hold(process) {
            match crate::sys::readiness::watch(pidfd) {
                // Readable once the process has ended.
                Ok(watched) => drop(watched.readable().await),
                Err(error) => {
                    warn!(sandbox.id = id.short(), %error, "end of its process not followed");
                    return;
                }
            }
        }
        info!(sandbox.id = id.short(), process.pid, "its process ended");
        self.discard_in_turn(&id).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let ours = process(std::process::id()).unwrap();
        assert!(hold(ours).is_some());
        let later = ProcessRef {
            started: ours.started + 1,
            ..ours
        };
        assert!(hold(later).is_none());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(process(pid).is_err());
    }
}
