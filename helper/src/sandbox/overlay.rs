//! Files laid over a sandbox's file system, such as /etc/hosts, wherever their path leads.
//!
//! A target that is a link gets the file where the link ends (systemd-resolved's
//! /etc/resolv.conf). A target that is missing needs a file to mount on: it is made in a root
//! directory of the sandbox's own; in the caller's file system, or where the root directory is
//! read-only, the target's directory is replaced by a *stand-in*: a tmpfs that shows every original
//! entry, and the one more. Invariant: the caller's file system is never written.

use crate::request::Failure;
use crate::sandbox::channel::setup;
use crate::sys::mount::{attach_tree, clone_tree};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use std::fs::{self, DirEntry, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Lays files over one file system.
pub struct Overlay {
    own_root: bool,
    stand_ins: Vec<PathBuf>,
}

impl Overlay {
    /// `own_root`: the root directory is the sandbox's, where mount points may be made.
    pub fn new(own_root: bool) -> Self {
        Self {
            own_root,
            stand_ins: Vec::new(),
        }
    }

    /// Show the file `source` at `target`.
    pub fn lay(&mut self, source: BorrowedFd<'_>, target: &Path) -> Result<(), Failure> {
        let real = match fs::canonicalize(target) {
            Ok(real) => real,
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.make(target)?,
            Err(e) => return Err(setup(format!("find {}", target.display()), e)),
        };
        attach_tree(source, &real)
            .map_err(|e| setup(format!("lay a file over {}", target.display()), e))
    }

    /// Make a file to mount on, without writing to the caller's file system.
    fn make(&mut self, target: &Path) -> Result<PathBuf, Failure> {
        let failed = |e| setup(format!("make the mount point {}", target.display()), e);
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(failed(io::Error::from(Errno::EISDIR)));
        };
        if self.own_root {
            // Where the root directory is read-only, the stand-in below does without.
            let _ = fs::create_dir_all(parent);
            let mut options = OpenOptions::new();
            if options
                .write(true)
                .create(true)
                .truncate(false)
                .open(target)
                .is_ok()
            {
                return fs::canonicalize(target).map_err(failed);
            }
        }
        let parent = fs::canonicalize(parent).map_err(failed)?;
        if !self.stand_ins.contains(&parent) {
            stand_in(&parent)?;
            self.stand_ins.push(parent.clone());
        }
        let path = parent.join(name);
        // A link that leads nowhere.
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        File::create_new(&path).map_err(failed)?;
        Ok(path)
    }
}

/// Mount a tmpfs over `dir` that shows its entries.
fn stand_in(dir: &Path) -> Result<(), Failure> {
    let failed = |e: io::Error| setup(format!("put a stand-in over {}", dir.display()), e);
    if dir == Path::new("/") {
        return Err(failed(Errno::EBUSY.into()));
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let original: OwnedFd = open(dir, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
    let mode = fs::metadata(dir).map_err(failed)?.permissions().mode() & 0o7777;
    let entries: Vec<DirEntry> = fs::read_dir(dir)
        .and_then(Iterator::collect)
        .map_err(failed)?;
    let links: Vec<Option<PathBuf>> = entries
        .iter()
        .map(|entry| fs::read_link(entry.path()).ok())
        .collect();
    let kinds: Vec<bool> = entries
        .iter()
        .map(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .collect();
    mount(
        Some("tmpfs"),
        dir,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("size=1m,mode=700"),
    )
    .map_err(|e| failed(e.into()))?;
    for ((entry, link), is_dir) in entries.iter().zip(links).zip(kinds) {
        show(
            original.as_fd(),
            &dir.join(entry.file_name()),
            link.as_deref(),
            is_dir,
        )
        .map_err(|e| setup(format!("show {}", entry.path().display()), e))?;
    }
    fs::set_permissions(dir, Permissions::from_mode(mode)).map_err(failed)
}

/// Show one entry of the original directory at `path`.
fn show(
    original: BorrowedFd<'_>,
    path: &Path,
    link: Option<&Path>,
    is_dir: bool,
) -> io::Result<()> {
    if let Some(link) = link {
        return symlink(link, path);
    }
    let Some(name) = path.file_name() else {
        return Ok(());
    };
    let tree = match clone_tree(Some(original), name, is_dir) {
        Ok(tree) => tree,
        // Removed meanwhile, or a mount that its owner keeps from being shown elsewhere.
        Err(Errno::ENOENT | Errno::EINVAL) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    if is_dir {
        fs::create_dir(path)?;
    } else {
        File::create_new(path)?;
    }
    Ok(attach_tree(tree.as_fd(), path)?)
}
