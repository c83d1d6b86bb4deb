//! Making a further process in a running sandbox.
//!
//! A go-between enters the sandbox's namespaces and clones the process as the helper's own child,
//! so that it is a pid of the sandbox. Invariant: until its command runs, nobody in the sandbox can
//! look into it (it is not dumpable, and the memory belongs to our user namespace): its copy of the
//! helper's memory and descriptors stays private.
//!
//! Sources: setns(2), PR_SET_DUMPABLE in prctl(2), ptrace(2) (access checks), CVE-2016-9962.

use crate::request::Failure;
use crate::sandbox::channel::{ChildEnd, setup};
use crate::sandbox::child::{self, GAVE_UP, Process};
use crate::sandbox::made::{Made, by_go_between};
use crate::sandbox::namespaces::Namespaces;
use crate::sys::process::spawn_sibling;
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::prctl::set_dumpable;
use std::os::fd::OwnedFd;

/// Make the process; it waits for its first permission.
pub fn make(
    process: &Process,
    stdio: [OwnedFd; 3],
    namespaces: &Namespaces,
) -> Result<Made, Failure> {
    by_go_between(|alone, channel| {
        set_dumpable(false).map_err(|e| setup("close the process to inspection", e))?;
        namespaces
            .enter()
            .map_err(|e| setup("enter the sandbox's namespaces", e))?;
        spawn_sibling(alone, CloneFlags::empty(), |_| {
            live(process, stdio, channel)
        })
        .map_err(|e| match e {
            // Its first process has ended (clone(2)), which the event loop has yet to see.
            Errno::ENOMEM => Failure::not_found("the sandbox is not running any more"),
            _ => setup("make a process in the sandbox", e),
        })
    })
}

/// The child's whole life.
fn live(process: &Process, stdio: [OwnedFd; 3], channel: ChildEnd) -> i32 {
    if child::die_with_helper().is_err() {
        return GAVE_UP;
    }
    let Ok((mut channel, stdin)) = child::keep_channel(stdio, channel) else {
        return GAVE_UP;
    };
    if !channel.wait() {
        return GAVE_UP;
    }
    child::finish(process, &stdin, channel, Vec::new())
}
