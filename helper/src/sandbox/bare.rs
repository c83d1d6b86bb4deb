//! Bare sandboxes: a nested user namespace and the network namespace that it owns, held by
//! descriptors, without any process.
//!
//! A child is cloned into the namespaces to prepare them, and into a mount and pid namespace that go
//! with it; it has ended when they are handed out.
//! Invariant: it runs our code only, and nobody else is in its user namespace.
//!
//! Sources: clone(2), user_namespaces(7).

use crate::namespace::IdMapping;
use crate::request::Failure;
use crate::sandbox::channel::{ChildEnd, Report, pair};
use crate::sandbox::child::{self, GAVE_UP};
use crate::sandbox::create::{no_namespaces, write_maps};
use crate::sandbox::made::{Made, end};
use crate::sandbox::namespaces::Network;
use crate::sandbox::netview;
use crate::sandbox::root::INERT;
use crate::sys::process::spawn;
use nix::mount::mount;
use nix::sched::CloneFlags;
use std::os::fd::AsFd;

/// Make the namespaces; what is degraded comes along.
pub fn make(mapping: &IdMapping) -> Result<(Network, Vec<String>), Failure> {
    let (channel, child_end) = pair()?;
    let groups = mapping.groups();
    let flags = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS;
    let (pid, pidfd) = spawn(flags, |_| prepare(groups, child_end)).map_err(no_namespaces)?;
    let network = write_maps(pid, mapping).and_then(|()| Network::of(pid, false));
    let made = Made {
        pid,
        pidfd,
        channel,
    };
    let network = match network {
        Ok(network) => network,
        Err(failure) => {
            made.abandon();
            return Err(failure);
        }
    };
    let (made, warnings) = made.set_up()?;
    // It waits for a permission that never comes.
    end(made.pid, made.pidfd.as_fd());
    Ok((network, warnings))
}

/// The child's whole life.
fn prepare(groups: u32, mut channel: ChildEnd) -> i32 {
    if child::die_with_helper().is_err() || !channel.wait() {
        return GAVE_UP;
    }
    own_proc();
    let mut warnings = Vec::new();
    let report = match netview::prepare(groups, &mut warnings) {
        Ok(()) => Report::Ready(warnings),
        Err(failure) => Report::Failed(failure),
    };
    channel.tell(&report);
    channel.wait();
    0
}

/// A /proc of its own, which goes with it. In a shared one the kernel keeps the settings of every
/// network namespace under the same name in one list, and walks it for each look-up: with 2,500
/// namespaces, 25 ms for ours. Where it is refused (parts of the old one are hidden), it is slow.
fn own_proc() {
    let _ = mount(Some("proc"), "/proc", Some("proc"), INERT, None::<&str>);
}
