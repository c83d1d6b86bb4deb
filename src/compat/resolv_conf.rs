//! A container's /etc/resolv.conf is its sandbox's: mounted over it, in the container's own mount namespace, while
//! its runtime has mounted the root file system there and not moved into it yet (the time of `createRuntime`).
//!
//! Invariants: nothing outside of the root file system is touched, wherever its symbolic links lead
//! (RESOLVE_IN_ROOT); of the files in it none is changed, and one is made at most, an empty one to mount upon.
//!
//! Sources: OCI runtime specification 1.0 (runtime.md, "Lifecycle"), openat2(2), open_tree(2), move_mount(2),
//! setns(2).

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::fs::{openat2, statx};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const TARGET: &str = "etc/resolv.conf";
/// A configuration longer than this is none, bytes.
const MAX_CONFIG: u64 = 4 << 20;

/// Why a container keeps its own.
#[derive(Debug, thiserror::Error)]
pub(super) enum CoverError {
    #[error("read {}", path.display())]
    Config { path: PathBuf, source: io::Error },
    #[error("{} says no root file system", .0.display())]
    NoRoot(PathBuf),
    #[error("open {}", path.display())]
    Own { path: PathBuf, source: io::Error },
    #[error("enter the mount namespace of process {pid}")]
    Enter { pid: u32, source: io::Error },
    #[error("open the root file system {}", path.display())]
    Root { path: PathBuf, source: io::Error },
    #[error("make /etc/resolv.conf in {}", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("mount upon /etc/resolv.conf in {}", path.display())]
    Mount { path: PathBuf, source: io::Error },
}

/// A container that its runtime is making.
#[derive(Debug)]
pub(super) struct Unfinished {
    /// Its first process, which is in its mount namespace.
    pub(super) pid: u32,
    /// Where its root file system is, for the runtime.
    pub(super) rootfs: PathBuf,
}

/// The part of a bundle's `config.json` that counts here.
#[derive(Debug, Deserialize)]
struct Config {
    #[serde(default)]
    root: Option<Root>,
}

#[derive(Debug, Deserialize)]
struct Root {
    path: PathBuf,
}

impl Unfinished {
    /// From its bundle.
    pub(super) fn of(pid: u32, bundle: &Path) -> Result<Self, CoverError> {
        let path = bundle.join("config.json");
        let read = || -> io::Result<Config> {
            let mut text = Vec::new();
            File::open(&path)?.take(MAX_CONFIG).read_to_end(&mut text)?;
            Ok(serde_json::from_slice(&text)?)
        };
        let config = match read() {
            Ok(config) => config,
            Err(source) => return Err(CoverError::Config { path, source }),
        };
        let root = config.root.ok_or(CoverError::NoRoot(path))?;
        let rootfs = bundle.join(root.path);
        Ok(Self { pid, rootfs })
    }

    /// Mounts `own` over its resolv.conf; `always`: also where something is mounted there already, which
    /// whoever wrote its configuration has wanted.
    pub(super) fn cover(&self, own: &Path, always: bool) -> Result<(), CoverError> {
        let opened = open_tree(
            CWD,
            own,
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
        );
        let file = opened.map_err(|errno| CoverError::Own {
            path: own.to_path_buf(),
            source: errno.into(),
        })?;
        let namespace = File::open(format!("/proc/{}/ns/mnt", self.pid));
        let namespace = namespace.map_err(|source| self.enter(source))?;
        // For good, so in a thread that ends with it.
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| self.cover_within(&file, &namespace, always));
            let ended = thread.join();
            ended.unwrap_or_else(|_| Err(self.enter(io::Error::other("the thread panicked"))))
        })
    }

    fn enter(&self, source: io::Error) -> CoverError {
        CoverError::Enter {
            pid: self.pid,
            source,
        }
    }

    fn cover_within(
        &self,
        file: &OwnedFd,
        namespace: &File,
        always: bool,
    ) -> Result<(), CoverError> {
        // Threads share their working directory, and then none may change its mount namespace.
        let entered = unshare(CloneFlags::CLONE_FS)
            .and_then(|()| setns(namespace.as_fd(), CloneFlags::CLONE_NEWNS));
        entered.map_err(|errno| self.enter(errno.into()))?;
        let path = || self.rootfs.clone();
        let root = open_root(&self.rootfs).map_err(|errno| CoverError::Root {
            path: path(),
            source: errno.into(),
        })?;
        let target = target(root.as_fd()).map_err(|errno| CoverError::Make {
            path: path(),
            source: errno.into(),
        })?;
        let mount = |errno: Errno| CoverError::Mount {
            path: path(),
            source: errno.into(),
        };
        if !always && is_mounted(&target).map_err(mount)? {
            return Ok(());
        }
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(file, "", &target, "", flags).map_err(mount)
    }
}

fn open_root(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// What is to be mounted upon: links lead to where they would inside. Where there is nothing, an empty file,
/// on the root file system itself only.
fn target(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let there = || {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        openat2(root, TARGET, flags, Mode::empty(), inside)
    };
    match there() {
        Err(Errno::NOENT) => {}
        found => return found,
    }
    let strictly = inside | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    match openat2(root, TARGET, flags, Mode::from_raw_mode(0o644), strictly) {
        Ok(_) => there(),
        // A link that leads to nothing.
        Err(Errno::EXIST) => Err(Errno::LOOP),
        Err(errno) => Err(errno),
    }
}

/// Something is mounted there. A kernel that does not say so (before 5.8) is taken to mean no.
fn is_mounted(target: &OwnedFd) -> Result<bool, Errno> {
    let found = statx(target, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside_and_nothing_is_made_behind_them() {
        let place = tempfile::tempdir().unwrap();
        let (rootfs, outside) = (place.path().join("rootfs"), place.path().join("outside"));
        std::fs::create_dir_all(rootfs.join("etc")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("resolv.conf"), "outside").unwrap();
        let look = || target(open_root(&rootfs).unwrap().as_fd());
        let name = rootfs.join(TARGET);

        look().unwrap();
        assert_eq!(std::fs::read(&name).unwrap(), b"", "an empty one is made");
        std::fs::write(&name, "own").unwrap();
        look().unwrap();
        assert_eq!(std::fs::read(&name).unwrap(), b"own", "it stays as it is");

        for link in [
            outside.join("resolv.conf"),
            "../../outside/resolv.conf".into(),
        ] {
            std::fs::remove_file(&name).unwrap();
            symlink(link, &name).unwrap();
            assert_eq!(look().unwrap_err(), Errno::LOOP);
        }
        std::fs::remove_dir_all(rootfs.join("etc")).unwrap();
        symlink(&outside, rootfs.join("etc")).unwrap();
        assert!(look().is_err());
        std::fs::remove_file(rootfs.join("etc")).unwrap();
        assert_eq!(look().unwrap_err(), Errno::NOENT, "no directory is made");
        let left: Vec<_> = std::fs::read_dir(&outside).unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(std::fs::read(left[0].path()).unwrap(), b"outside");
    }

    #[test]
    fn the_root_is_where_the_bundle_says() {
        let place = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            std::fs::write(place.path().join("config.json"), text).unwrap();
            Unfinished::of(7, place.path()).map(|container| container.rootfs)
        };
        let config = r#"{"ociVersion": "1.0.2", "root": {"path": "rootfs"}}"#;
        assert_eq!(of(config).unwrap(), place.path().join("rootfs"));
        let absolute = of(r#"{"root": {"path": "/var/lib/x"}}"#).unwrap();
        assert_eq!(absolute, Path::new("/var/lib/x"));
        assert!(matches!(of("{}"), Err(CoverError::NoRoot(_))));
        assert!(matches!(of("["), Err(CoverError::Config { .. })));
    }
}
