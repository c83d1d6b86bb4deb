//! The id maps of our user namespace: by newuidmap and newgidmap where the administrator has given
//! the user subordinate ids, else the user alone.
//!
//! newuidmap must run outside of the new namespace, so a child is forked before it is made, and
//! waits until it is.
//!
//! Sources: user_namespaces(7), newuidmap(1), subuid(5).

use crate::namespace::{IdMapping, IdRange};
use crate::sys::child::fork_single_threaded;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, Uid, User};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, iter};

/// Where distributions install it.
const DIRECTORIES: &[&str] = &["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"];

/// newuidmap(1) writes at most this many lines; the kernel takes 340.
const MOST_RANGES: usize = 64;

/// A child in the old namespace, ready to map ids.
pub struct Mapper {
    child: Pid,
    go: io::PipeWriter,
    mapping: IdMapping,
}

impl Mapper {
    /// None where there are no subordinate ids, or nothing to map them with.
    pub fn start(uid: u32, gid: u32) -> Option<Self> {
        let programs = [find("newuidmap")?, find("newgidmap")?];
        let mapping = subordinate(uid, gid)?;
        let (mut wait, go) = io::pipe().ok()?;
        let target = Pid::this();
        let closed_in_child = go.try_clone().ok()?;
        let child = fork_single_threaded(|| {
            drop(closed_in_child);
            let mut told = [0];
            let run = |program: &Path, ranges: &[IdRange]| run_map(program, target, ranges);
            let done = wait.read_exact(&mut told).is_ok()
                && run(&programs[0], &mapping.uids)
                && run(&programs[1], &mapping.gids);
            i32::from(!done)
        });
        Some(Self {
            child: child.ok()?,
            go,
            mapping,
        })
    }

    /// Map, once the process is in its new namespace. None: it was refused.
    pub fn finish(mut self) -> Option<IdMapping> {
        let told = self.go.write_all(b"g").is_ok();
        drop(self.go);
        let status = waitpid(self.child, None).ok()?;
        let done = told && matches!(status, WaitStatus::Exited(_, 0));
        done.then_some(self.mapping)
    }
}

/// Map nobody but the user himself, as 0. What newuidmap may have written stays.
pub fn write_single(uid: u32, gid: u32) -> io::Result<IdMapping> {
    let write = |file: &str, content: &str| fs::write(format!("/proc/self/{file}"), content);
    if fs::read_to_string("/proc/self/uid_map")?.trim().is_empty() {
        write("uid_map", &format!("0 {uid} 1"))?;
    }
    // Without privilege outside, a group map is permitted only when groups cannot be changed.
    write("setgroups", "deny")?;
    write("gid_map", &format!("0 {gid} 1"))?;
    Ok(IdMapping::single(uid, gid))
}

fn find(program: &str) -> Option<PathBuf> {
    let candidates = DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(program));
    candidates.into_iter().find(|path| path.exists())
}

fn run_map(program: &Path, target: Pid, ranges: &[IdRange]) -> bool {
    let mut command = Command::new(program);
    command
        .arg(target.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    for range in ranges {
        command.args([range.inside, range.outside, range.count].map(|id| id.to_string()));
    }
    command.status().is_ok_and(|status| status.success())
}

/// The user as 0, followed by his subordinate ids. None: he has none.
fn subordinate(uid: u32, gid: u32) -> Option<IdMapping> {
    let name = User::from_uid(Uid::from_raw(uid))
        .ok()
        .flatten()
        .map(|user| user.name);
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    let uids = ranges_of(&read("/etc/subuid"), name.as_deref(), uid);
    let gids = ranges_of(&read("/etc/subgid"), name.as_deref(), uid);
    if uids.is_empty() || gids.is_empty() {
        return None;
    }
    Some(IdMapping {
        uids: chain(uid, &uids),
        gids: chain(gid, &gids),
    })
}

/// (first id, how many) of each line that is for this user, by name or number.
fn ranges_of(content: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let line = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let first: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        let ours = owner == number || Some(owner) == name;
        let sane = count > 0 && first.checked_add(count).is_some();
        (ours && sane && fields.next().is_none()).then_some((first, count))
    };
    content
        .lines()
        .filter_map(line)
        .take(MOST_RANGES - 1)
        .collect()
}

/// Inside ids without gaps: 0 for the user, then range after range.
fn chain(own: u32, ranges: &[(u32, u32)]) -> Vec<IdRange> {
    let all = iter::once((own, 1)).chain(ranges.iter().copied());
    all.scan(0u32, |inside, (outside, count)| {
        let range = IdRange {
            inside: *inside,
            outside,
            count,
        };
        *inside = inside.checked_add(count)?;
        Some(range)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_subuid_5() {
        let content = "root:1:2\nalice:100000:65536\n1000:300000:10\nbad:x:1\nalice:5\n\
                       alice:1:0\nalice:4294967295:2\nalice:7:7:7\n";
        assert_eq!(
            ranges_of(content, Some("alice"), 1000),
            [(100_000, 65536), (300_000, 10)]
        );
        assert_eq!(ranges_of(content, None, 1000), [(300_000, 10)]);
        assert_eq!(ranges_of(content, Some("bob"), 1001), []);
    }

    #[test]
    fn inside_ids_have_no_gaps() {
        let map = chain(1000, &[(100_000, 65536), (300_000, 10)]);
        let inside: Vec<_> = map
            .iter()
            .map(|range| (range.inside, range.count))
            .collect();
        assert_eq!(inside, [(0, 1), (1, 65536), (65537, 10)]);
        let mapping = IdMapping {
            uids: map,
            gids: chain(1000, &[(100_000, 100)]),
        };
        assert_eq!(mapping.count(), 101);
    }
}
