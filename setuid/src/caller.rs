//! Who asks: the real ids of this process, which its caller cannot choose.

use nix::unistd::{getgid, getgroups, getuid};
use std::collections::BTreeSet;

/// A caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Real user id.
    pub uid: u32,
    /// Real and supplementary group ids; not the effective one, which may come from the program's file.
    pub gids: BTreeSet<u32>,
}

impl Caller {
    /// Whoever has started this program.
    pub fn current() -> nix::Result<Self> {
        let mut gids: BTreeSet<u32> = getgroups()?.iter().map(|gid| gid.as_raw()).collect();
        gids.insert(getgid().as_raw());
        Ok(Self {
            uid: getuid().as_raw(),
            gids,
        })
    }
}
