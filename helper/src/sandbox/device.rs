//! The minimal /dev of a sandbox with a root directory of its own: the devices that every program
//! expects, taken from the caller's /dev, terminals and shared memory of its own.
//!
//! Sources: the list of devices in the OCI runtime specification (config-linux.md), pts(4).

use crate::request::Failure;
use crate::sandbox::channel::setup;
use crate::sandbox::root::{INERT, mount_point};
use crate::sys::mount::{attach_tree, clone_tree};
use nix::mount::{MsFlags, mount};
use nix::unistd::{isatty, ttyname};
use std::fs::{self, File, Permissions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Device nodes cannot be made in a user namespace, so they are taken from the host.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Name in /dev, and where it leads.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Devices of the caller's /dev.
pub struct Devices {
    nodes: Vec<(&'static str, OwnedFd)>,
}

/// Take them; what the host lacks, the sandbox lacks. A terminal on `stdin` becomes /dev/console,
/// where ttyname(3) finds it.
pub fn take(stdin: &OwnedFd) -> Devices {
    let node = |name| {
        Some((
            name,
            clone_tree(None, &*format!("/dev/{name}"), false).ok()?,
        ))
    };
    let mut nodes: Vec<_> = NODES.into_iter().filter_map(node).collect();
    if isatty(stdin).unwrap_or(false)
        && let Ok(path) = ttyname(stdin)
        && let Ok(tree) = clone_tree(None, &path, false)
    {
        nodes.push(("console", tree));
    }
    Devices { nodes }
}

/// Mount a new /dev.
pub fn mount_dev(devices: &Devices) -> Result<(), Failure> {
    let dev = Path::new("/dev");
    mount_point(dev)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_STRICTATIME;
    mount(
        Some("tmpfs"),
        dev,
        Some("tmpfs"),
        flags,
        Some("mode=755,size=64k"),
    )
    .map_err(|e| setup("mount /dev", e))?;
    for (name, tree) in &devices.nodes {
        let path = dev.join(name);
        File::create(&path)
            .and_then(|_| Ok(attach_tree(tree.as_fd(), &path)?))
            .map_err(|e| setup(format!("make {}", path.display()), e))?;
    }
    for (name, target) in LINKS {
        symlink(target, dev.join(name)).map_err(|e| setup(format!("make /dev/{name}"), e))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(name)).map_err(|e| setup(format!("make /dev/{name}"), e))?;
    }
    mount_pts()?;
    mount(
        Some("shm"),
        "/dev/shm",
        Some("tmpfs"),
        INERT,
        Some("mode=1777,size=64m"),
    )
    .map_err(|e| setup("mount /dev/shm", e))?;
    // A kernel without POSIX message queues leaves an empty directory.
    let _ = mount(
        Some("mqueue"),
        "/dev/mqueue",
        Some("mqueue"),
        INERT,
        None::<&str>,
    );
    // mkdir and open obey the umask of the helper.
    fs::set_permissions(dev, Permissions::from_mode(0o755))
        .map_err(|e| setup("set the mode of /dev", e))
}

/// Terminals of the sandbox's own, of group 5 (tty) where that group is mapped.
fn mount_pts() -> Result<(), Failure> {
    let pts = |options| {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        mount(
            Some("devpts"),
            "/dev/pts",
            Some("devpts"),
            flags,
            Some(options),
        )
    };
    pts("newinstance,ptmxmode=0666,mode=0620,gid=5")
        .or_else(|_| pts("newinstance,ptmxmode=0666,mode=0620"))
        .map_err(|e| setup("mount /dev/pts", e))
}
