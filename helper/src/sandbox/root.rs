//! The file system of a sandbox, made in the child in its own mount namespace.
//!
//! Order: find the files to be laid over and the root directory; hide the masked directories; take
//! what else must come from the caller's file system as mount trees; change the root, where there
//! is another; mount /proc, /sys and /dev; lay the files over; let go of the old root.
//!
//! Invariant: nothing outside a given root directory is ever written, and without one nothing at
//! all. Links in a root directory are followed only once it is the root, so that they lead nowhere
//! else.
//!
//! Sources: mount_namespaces(7), pivot_root(2), mount(2); "too revealing" mounts in
//! fs/namespace.c: /proc and /sys can be mounted afresh only where the old ones show everything,
//! so before the old root goes.

use crate::request::{Bind, Failure};
use crate::sandbox::channel::setup;
use crate::sandbox::{device, overlay};
use crate::sys::mount::{attach_tree, clone_tree, make_read_only};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, fchdir, pivot_root};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Flags of every mount that holds neither devices nor programs.
pub const INERT: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

/// What the file system of a sandbox consists of.
#[derive(Debug, Clone)]
pub struct RootPlan {
    /// Another root directory.
    pub rootfs: Option<PathBuf>,
    /// Files laid over it.
    pub binds: Vec<Bind>,
    /// Directories of the caller's file system that are hidden.
    pub masks: Vec<PathBuf>,
    /// The sandbox's user namespace owns its network namespace, so that it can mount /sys.
    pub owns_netns: bool,
    /// Made where it is missing in another root directory, as Docker does.
    pub workdir: PathBuf,
}

/// Trees of the caller's file system, taken while its paths still lead there.
struct Taken {
    binds: Vec<(OwnedFd, PathBuf)>,
    proc: Option<OwnedFd>,
    sys: Option<OwnedFd>,
    cgroup: Option<OwnedFd>,
    devices: Option<device::Devices>,
}

/// Build it. Adds a line to `warnings` for each thing that is degraded.
pub fn build(plan: &RootPlan, stdin: &OwnedFd, warnings: &mut Vec<String>) -> Result<(), Failure> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&str>,
    )
    .map_err(|e| setup("keep the sandbox's mounts to itself", e))?;
    let binds = take_binds(&plan.binds)?;
    let rootfs = plan.rootfs.as_deref();
    let dir = rootfs.map(open_root).transpose()?;
    for dir in &plan.masks {
        mask(dir)?;
    }
    let root = rootfs
        .zip(dir.as_ref())
        .map(|(rootfs, dir)| mount_root(rootfs, dir))
        .transpose()?;
    let taken = Taken {
        binds,
        proc: rootfs.and_then(|_| clone_tree(None, "/proc", true).ok()),
        sys: rootfs.and_then(|_| clone_tree(None, "/sys", true).ok()),
        cgroup: clone_tree(None, "/sys/fs/cgroup", true).ok(),
        devices: root.as_ref().map(|_| device::take(stdin)),
    };
    if let Some(root) = &root {
        enter_root(root)?;
    }
    let own_root = root.is_some();
    mount_proc(&taken, own_root, warnings)?;
    mount_sys(&taken, own_root, plan.owns_netns, warnings)?;
    if let Some(devices) = &taken.devices {
        device::mount_dev(devices)?;
    }
    let mut overlay = overlay::Overlay::new(own_root);
    for (tree, target) in &taken.binds {
        overlay.lay(tree.as_fd(), target)?;
    }
    if own_root {
        leave_old_root()?;
        // Where it cannot be made, the command's own chdir says why.
        let _ = fs::create_dir_all(&plan.workdir);
    }
    Ok(())
}

/// The files to be laid over, as trees: their directory may be masked later.
fn take_binds(binds: &[Bind]) -> Result<Vec<(OwnedFd, PathBuf)>, Failure> {
    let take = |bind: &Bind| {
        let tree = clone_tree(None, &bind.source, false)
            .map_err(|e| setup(format!("take the file {}", bind.source.display()), e))?;
        Ok((tree, bind.target.clone()))
    };
    binds.iter().map(take).collect()
}

/// The root directory, found before anything is masked.
fn open_root(rootfs: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(rootfs, flags, Mode::empty()).map_err(|e| cannot_root(rootfs, e))
}

/// A mount of the root directory, which pivot_root demands, on top of the old root. The path of
/// the directory may be hidden by now, and it may be `/`, so the descriptor stands for it.
fn mount_root(rootfs: &Path, dir: &OwnedFd) -> Result<OwnedFd, Failure> {
    let tree = clone_tree(Some(dir.as_fd()), "", true).map_err(|e| cannot_root(rootfs, e))?;
    attach_tree(tree.as_fd(), "/").map_err(|e| cannot_root(rootfs, e))?;
    Ok(tree)
}

fn cannot_root(rootfs: &Path, error: Errno) -> Failure {
    setup(format!("use {} as root directory", rootfs.display()), error)
}

/// Hide a directory under an empty one; nothing to do where it does not exist.
fn mask(dir: &Path) -> Result<(), Failure> {
    let Ok(dir) = fs::canonicalize(dir) else {
        return Ok(());
    };
    mount(
        Some("tmpfs"),
        &dir,
        Some("tmpfs"),
        INERT | MsFlags::MS_RDONLY,
        Some("size=4k,nr_inodes=2,mode=555"),
    )
    .map_err(|e| setup(format!("hide {}", dir.display()), e))
}

/// Change the root; the old one lies on top of the working directory until `leave_old_root`.
fn enter_root(root: &OwnedFd) -> Result<(), Failure> {
    fchdir(root).map_err(|e| setup("enter the root directory", e))?;
    pivot_root(".", ".").map_err(|e| setup("change the root", e))
}

/// Let go of the old root.
fn leave_old_root() -> Result<(), Failure> {
    umount2(".", MntFlags::MNT_DETACH).map_err(|e| setup("let go of the old root", e))?;
    chdir("/").map_err(|e| setup("enter the new root", e))
}

/// Make a directory to mount on, where a root directory lacks it.
pub fn mount_point(path: &Path) -> Result<(), Failure> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(|e| {
        setup(
            format!(
                "make the mount point {} in the root directory",
                path.display()
            ),
            e,
        )
    })
}

/// A /proc that shows the sandbox's own processes. Where the host's is partly hidden, as in many
/// containers, the kernel refuses it, and the host's stays.
fn mount_proc(taken: &Taken, own_root: bool, warnings: &mut Vec<String>) -> Result<(), Failure> {
    mount_point(Path::new("/proc"))?;
    let fresh = |more| {
        mount(
            Some("proc"),
            "/proc",
            Some("proc"),
            INERT | more,
            None::<&str>,
        )
    };
    let Err(error) = fresh(MsFlags::empty()).or_else(|_| fresh(MsFlags::MS_RDONLY)) else {
        return Ok(());
    };
    warnings.push(format!(
        "/proc of the sandbox shows the host's processes: the kernel refused a new one ({error}), \
         because parts of the host's are hidden or read-only"
    ));
    if own_root {
        attach("/proc", taken.proc.as_ref(), error)?;
    }
    Ok(())
}

/// A read-only /sys that shows the sandbox's interfaces, with the host's control groups. In the
/// host's network namespace the host's is the right one.
fn mount_sys(
    taken: &Taken,
    own_root: bool,
    owns_netns: bool,
    warnings: &mut Vec<String>,
) -> Result<(), Failure> {
    if own_root {
        mount_point(Path::new("/sys"))?;
    }
    if owns_netns {
        let flags = INERT | MsFlags::MS_RDONLY;
        match mount(Some("sysfs"), "/sys", Some("sysfs"), flags, None::<&str>) {
            Ok(()) => {
                attach_cgroup(taken.cgroup.as_ref(), own_root);
                return Ok(());
            }
            Err(error) => warnings.push(format!(
                "/sys of the sandbox shows the host's interfaces: the kernel refused a new one \
                 ({error})"
            )),
        }
    }
    if own_root {
        if let Some(sys) = &taken.sys {
            make_read_only(sys.as_fd()).map_err(|e| setup("make /sys read-only", e))?;
        }
        attach("/sys", taken.sys.as_ref(), Errno::ENOENT)?;
    }
    Ok(())
}

/// Programs size themselves by the control groups; without them they use the whole machine.
fn attach_cgroup(cgroup: Option<&OwnedFd>, own_root: bool) {
    let Some(cgroup) = cgroup else { return };
    if own_root && make_read_only(cgroup.as_fd()).is_err() {
        return;
    }
    // A new /sys without the mount point belongs to a kernel without control groups.
    let _ = attach_tree(cgroup.as_fd(), "/sys/fs/cgroup");
}

/// Attach a tree of the old root; `missing` is the reason where there is none.
fn attach(target: &str, tree: Option<&OwnedFd>, missing: Errno) -> Result<(), Failure> {
    let failed = |e| setup(format!("mount {target}"), e);
    let tree = tree.ok_or(missing).map_err(failed)?;
    attach_tree(tree.as_fd(), target).map_err(failed)
}
