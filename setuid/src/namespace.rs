//! Namespaces of the helper: its own user and mount namespace, the id mapping of the former, and
//! short visits to other network namespaces.
//!
//! Invariant: the main thread never leaves the host's network namespace; whatever must happen in
//! another one happens in a thread that lives for one call.
//!
//! Sources: user_namespaces(7), mount_namespaces(7), setns(2).

use crate::request::Failure;
use nix::sched::{CloneFlags, setns};
use std::os::fd::BorrowedFd;
use std::thread;

/// One line of /proc/PID/uid_map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id in our user namespace.
    pub inside: u32,
    /// First id outside of it.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The ids of our own user namespace. Inside ids are 0 to `count() - 1`, without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMapping {
    /// User ids.
    pub uids: Vec<IdRange>,
    /// Group ids.
    pub gids: Vec<IdRange>,
}

impl IdMapping {
    /// Nobody but the user, who is 0 inside.
    pub fn single(uid: u32, gid: u32) -> Self {
        let only = |id| {
            vec![IdRange {
                inside: 0,
                outside: id,
                count: 1,
            }]
        };
        Self {
            uids: only(uid),
            gids: only(gid),
        }
    }

    /// How many ids sandboxes can map: the same inside ids for users and groups.
    pub fn count(&self) -> u32 {
        let sum = |ranges: &[IdRange]| ranges.iter().map(|range| range.count).sum::<u32>();
        sum(&self.uids).min(sum(&self.gids))
    }
}

/// Run `visit` in a thread of its own inside `netns`; its capabilities are the caller's.
pub fn in_netns<T: Send>(
    netns: BorrowedFd<'_>,
    visit: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    in_thread(move || {
        setns(netns, CloneFlags::CLONE_NEWNET)
            .map_err(|e| Failure::kernel("enter a network namespace", e))?;
        visit()
    })
}

/// Run `work` in a thread that ends with it.
pub(crate) fn in_thread<T: Send>(
    work: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|e| Failure::kernel("start a thread", e))?;
        thread
            .join()
            .unwrap_or_else(|_| Err(Failure::invalid("a namespace thread panicked")))
    })
}
