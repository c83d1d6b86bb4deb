//! Namespaces of the helper: its own user and mount namespace, the id mapping of the former, and
//! short visits to other network namespaces.
//!
//! Invariant: the main thread never leaves the host's network namespace; whatever must happen in
//! another one happens in a thread that lives for one call.
//!
//! Sources: user_namespaces(7), mount_namespaces(7), setns(2).

use crate::idmap;
use crate::request::Failure;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getgid, getuid};
use std::os::fd::BorrowedFd;
use std::{fs, io, thread};

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

    /// That of the user namespace that this process is in, which must be one of ours.
    pub fn current() -> Result<Self, Failure> {
        let read = |file: &str| {
            let content = fs::read_to_string(file);
            let content = content.map_err(|e| Failure::kernel(format!("read {file}"), e))?;
            parse_map(&content).ok_or_else(|| Failure::invalid(format!("{file} is not ours")))
        };
        Ok(Self {
            uids: read("/proc/self/uid_map")?,
            gids: read("/proc/self/gid_map")?,
        })
    }

    /// How many group ids are mapped.
    pub fn groups(&self) -> u32 {
        self.gids.iter().map(|range| range.count).sum()
    }

    /// How many ids sandboxes can map: the same inside ids for users and groups.
    pub fn count(&self) -> u32 {
        let sum = |ranges: &[IdRange]| ranges.iter().map(|range| range.count).sum::<u32>();
        sum(&self.uids).min(sum(&self.gids))
    }
}

/// Lines of `inside outside count`; none for a map with gaps, or that of the initial namespace.
fn parse_map(content: &str) -> Option<Vec<IdRange>> {
    let mut next = 0u32;
    let mut ranges = Vec::new();
    for line in content.lines() {
        let mut fields = line.split_whitespace().map(str::parse::<u32>);
        let mut field = || fields.next()?.ok();
        let range = IdRange {
            inside: field()?,
            outside: field()?,
            count: field()?,
        };
        if range.inside != next || range.count == u32::MAX {
            return None;
        }
        next = next.checked_add(range.count)?;
        ranges.push(range);
    }
    (!ranges.is_empty()).then_some(ranges)
}

/// Move the process, single-threaded still, into a user and mount namespace of its own. Mounts of
/// the host go on to appear in it, its own mounts stay inside.
pub fn enter() -> Result<IdMapping, Failure> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let mapper = idmap::Mapper::start(uid, gid);
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(|errno| refused("create a user namespace", errno.into()))?;
    let mapping = match mapper.and_then(idmap::Mapper::finish) {
        Some(mapping) => mapping,
        None => idmap::write_single(uid, gid).map_err(|error| refused("map our user id", error))?,
    };
    let flags = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .map_err(|errno| refused("make mounts private", errno.into()))?;
    Ok(mapping)
}

/// A failure to make namespaces, with its cause where the kernel lets us see it.
pub(crate) fn refused(what: &str, error: io::Error) -> Failure {
    match obstacle() {
        Some(obstacle) => Failure::kernel(format!("{what} ({obstacle})"), error),
        None => Failure::kernel(what, error),
    }
}

/// Settings that forbid user namespaces, each with the command that allows them. AppArmor lets
/// the namespace be made, but without any capability in it.
fn obstacle() -> Option<&'static str> {
    let forbids = [
        (
            "/proc/sys/kernel/unprivileged_userns_clone",
            "0",
            "kernel.unprivileged_userns_clone is 0; as root: sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            "/proc/sys/user/max_user_namespaces",
            "0",
            "user.max_user_namespaces is 0; as root: sysctl -w user.max_user_namespaces=15000",
        ),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "AppArmor restricts user namespaces; load mossnet's profile, as 'mossnet doctor' says; or as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ];
    let says = |path: &str, value: &str| {
        fs::read_to_string(path).is_ok_and(|content| content.trim() == value)
    };
    forbids
        .iter()
        .find(|(path, value, _)| says(path, value))
        .map(|(_, _, words)| *words)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_maps_of_ours_are_taken() {
        let map = parse_map("         0       1000          1\n         1     100000      65536\n");
        let range = |inside, outside, count| IdRange {
            inside,
            outside,
            count,
        };
        assert_eq!(map, Some(vec![range(0, 1000, 1), range(1, 100_000, 65536)]));
        for bad in [
            "",
            "0 0 4294967295",
            "1 1 1",
            "0 1000 1\n2 5 1",
            "0 x 1",
            "0 1",
        ] {
            assert_eq!(parse_map(bad), None, "{bad}");
        }
    }
}
