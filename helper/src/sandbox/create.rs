//! Making a sandbox's first process.
//!
//! A sandbox with a user namespace of its own is cloned straight into it; the helper writes the id
//! maps from outside. One that joins another's network is made by a *go-between*: a short-lived
//! child that enters the other's user and network namespace and there clones the process as the
//! helper's own child (CLONE_PARENT). Invariant: root in the sandbox holds capabilities in the
//! nested user namespace only.
//!
//! Sources: clone(2), user_namespaces(7) (who may write the maps), setns(2).

use crate::namespace::{IdMapping, IdRange};
use crate::request::{Failure, SandboxNetns, SandboxSpec};
use crate::sandbox::channel::{ChildEnd, Report, pair, setup};
use crate::sandbox::child::{self, GAVE_UP, Process};
use crate::sandbox::command::{Command, absolute};
use crate::sandbox::made::{Made, by_go_between};
use crate::sandbox::namespaces::Network;
use crate::sandbox::netview;
use crate::sandbox::root::{self, RootPlan};
use crate::sys::process::{spawn, spawn_sibling};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, sethostname};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

/// A checked [`SandboxSpec`], as the child needs it.
#[derive(Debug)]
pub struct FirstProcess {
    hostname: String,
    /// Its file system.
    pub root: RootPlan,
    /// Number of mapped groups, where the network namespace is new and wants preparing.
    prepare_net: Option<u32>,
    /// What runs.
    pub process: Process,
}

impl FirstProcess {
    /// Check a spec.
    pub fn check(spec: &SandboxSpec, mapping: &IdMapping) -> Result<Self, Failure> {
        let Some(process) = &spec.process else {
            return Err(Failure::invalid("the sandbox has no process"));
        };
        if !(1..=64).contains(&spec.hostname.len()) || spec.hostname.contains('\0') {
            return Err(Failure::invalid(format!(
                "host name {:?} must be 1 to 64 bytes",
                spec.hostname
            )));
        }
        if let Some(rootfs) = &spec.rootfs {
            absolute("root directory", rootfs)?;
        }
        for bind in &spec.binds {
            absolute("bind source", &bind.source)?;
            absolute("bind target", &bind.target)?;
        }
        for mask in &spec.masks {
            absolute("masked directory", mask)?;
        }
        let command = Command::check(process, Path::new("/"))?;
        let own_netns = spec.netns == SandboxNetns::Own;
        let groups = mapping.groups();
        Ok(Self {
            hostname: spec.hostname.clone(),
            root: RootPlan {
                rootfs: spec.rootfs.clone(),
                binds: spec.binds.clone(),
                masks: spec.masks.clone(),
                owns_netns: spec.netns != SandboxNetns::Host,
                workdir: command.workdir().to_owned(),
            },
            prepare_net: own_netns.then_some(groups),
            process: Process {
                command,
                capabilities: child::capabilities(&spec.capabilities)?,
                set_groups: groups > 1,
            },
        })
    }

    /// The child's whole life.
    fn live(&self, stdio: [OwnedFd; 3], channel: ChildEnd) -> i32 {
        // Before the channel is in place, its end is all that the helper can be shown.
        if child::die_with_helper().is_err() {
            return GAVE_UP;
        }
        let Ok((mut channel, stdin)) = child::keep_channel(stdio, channel) else {
            return GAVE_UP;
        };
        if !channel.wait() {
            return GAVE_UP;
        }
        let mut warnings = Vec::new();
        match self.build(&stdin, &mut warnings) {
            Ok(()) => child::finish(&self.process, &stdin, channel, warnings),
            Err(failure) => {
                channel.tell(&Report::Failed(failure));
                GAVE_UP
            }
        }
    }

    /// Host name, file system and network settings.
    fn build(&self, stdin: &OwnedFd, warnings: &mut Vec<String>) -> Result<(), Failure> {
        umask(Mode::from_bits_truncate(0o022));
        sethostname(&self.hostname)
            .map_err(|e| setup(format!("set the host name {}", self.hostname), e))?;
        root::build(&self.root, stdin, warnings)?;
        self.prepare_net
            .map_or(Ok(()), |groups| netview::prepare(groups, warnings))
    }
}

/// Namespaces that every sandbox has of its own.
fn always_own() -> CloneFlags {
    CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
}

/// Make the process in a new user namespace, with or without a network namespace; it waits for its
/// first permission.
pub fn make(
    first: &FirstProcess,
    stdio: [OwnedFd; 3],
    new_netns: bool,
    mapping: &IdMapping,
) -> Result<Made, Failure> {
    let (channel, child_end) = pair()?;
    let mut flags = always_own() | CloneFlags::CLONE_NEWUSER;
    flags.set(CloneFlags::CLONE_NEWNET, new_netns);
    let (pid, pidfd) = spawn(flags, |_| first.live(stdio, child_end)).map_err(no_namespaces)?;
    let made = Made {
        pid,
        pidfd,
        channel,
    };
    match write_maps(pid, mapping) {
        Ok(()) => Ok(made),
        Err(failure) => {
            made.abandon();
            Err(failure)
        }
    }
}

/// Make the process in the user and network namespace of another sandbox.
pub fn make_joined(
    first: &FirstProcess,
    stdio: [OwnedFd; 3],
    other: &Network,
) -> Result<Made, Failure> {
    by_go_between(|alone, channel| {
        let failed = |e| setup("join the other sandbox's namespaces", e);
        setns(&other.user, CloneFlags::CLONE_NEWUSER).map_err(failed)?;
        if let Some(net) = &other.net {
            setns(net, CloneFlags::CLONE_NEWNET).map_err(failed)?;
        }
        spawn_sibling(alone, always_own(), |_| first.live(stdio, channel)).map_err(no_namespaces)
    })
}

/// Namespaces could not be made, perhaps because a limit is reached (namespaces(7)).
pub fn no_namespaces(error: Errno) -> Failure {
    let what = match error {
        Errno::ENOSPC | Errno::EUSERS => {
            "make the namespaces of the sandbox (too many exist; raise user.max_user_namespaces, \
             user.max_net_namespaces and the like with sysctl)"
        }
        _ => "make the namespaces of the sandbox",
    };
    setup(what, error)
}

/// Map the ids of our user namespace onto themselves.
pub fn write_maps(pid: Pid, mapping: &IdMapping) -> Result<(), Failure> {
    let write = |file: &str, text: &str| {
        fs::write(format!("/proc/{pid}/{file}"), text)
            .map_err(|e| setup(format!("write the sandbox's {file}"), e))
    };
    if mapping.groups() <= 1 {
        write("setgroups", "deny")?;
    }
    write("uid_map", &map_text(&mapping.uids))?;
    write("gid_map", &map_text(&mapping.gids))
}

/// Lines of /proc/PID/uid_map.
fn map_text(ranges: &[IdRange]) -> String {
    ranges
        .iter()
        .map(|range| format!("{} {} {}\n", range.inside, range.inside, range.count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_maps_are_identical_to_ours() {
        let range = |inside, outside, count| IdRange {
            inside,
            outside,
            count,
        };
        let ranges = [range(0, 1000, 1), range(1, 100_000, 65_536)];
        assert_eq!(map_text(&ranges), "0 0 1\n1 1 65536\n");
    }
}
