//! How the relay locks itself in, before it reads a byte that anybody else chose.
//!
//! In this order: an empty root ([`empty_root`]), no new privileges and an empty bounding set
//! ([`no_new_privileges`]), both while the process has one thread; then each thread gives up its
//! capabilities ([`drop_capabilities`], [`keep_net_raw_only`], [`keep_net_admin_only`]); then the
//! system calls of all threads are restricted (`seccomp`).
//!
//! Invariant: afterwards no thread can open a file, run a program, make a process, or reach a
//! capability that it does not have; a single thread, which reads nothing that anybody sent, keeps CAP_NET_RAW over
//! the router netns, and workers keep CAP_NET_ADMIN where they hand connections over to the kernel (`sys::tcp_repair`).
//! That one would mean rules, addresses and interfaces of the router netns, all of which take a netlink
//! or packet socket, an ioctl(2) or the options of netfilter's old interface: `seccomp` grants none of them. It
//! matters that all this happens inside the user namespace: a process outside whose euid owns it
//! counts as fully capable over its network namespaces, whatever capabilities it has dropped.
//!
//! Sources: pivot_root(2), capabilities(7), user_namespaces(7), prctl(2), seccomp(2).

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::unistd::{chdir, pivot_root};
use std::path::Path;

/// A step that failed. The relay does not run unrestricted.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Part of the empty root.
    #[error("make the relay's root empty: {step}")]
    Root {
        /// Which.
        step: &'static str,
        /// Why.
        source: nix::Error,
    },
    /// prctl(2).
    #[error("set {what}")]
    Prctl {
        /// Which.
        what: &'static str,
        /// Why.
        source: nix::Error,
    },
    /// capset(2), or PR_CAPBSET_DROP.
    #[error("drop capabilities")]
    Capabilities(#[from] CapsError),
    /// The filter is not valid on this architecture, or the kernel refused it.
    #[error("restrict system calls")]
    Seccomp(#[from] seccompiler::Error),
    /// A rule of the filter is wrong.
    #[error("compile the list of system calls")]
    Filter(#[from] seccompiler::BackendError),
}

/// Replaces the root, in a mount namespace of our own, by an empty read-only file system. Nothing of
/// the caller's stays in reach; descriptors already open stay usable.
pub fn empty_root() -> Result<(), SandboxError> {
    let step = |step| move |source| SandboxError::Root { step, source };
    let none = None::<&str>;
    own_mounts()?;
    // Any directory will do to mount upon, but one must be there.
    let place = ["/tmp", "/proc", "/dev", "/etc"]
        .into_iter()
        .find(|place| Path::new(place).is_dir())
        .unwrap_or("/");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = Some("mode=0500,size=4k,nr_inodes=2");
    mount(Some("mossnet-relay"), place, Some("tmpfs"), flags, options)
        .map_err(step("mount an empty file system"))?;
    pivot(Path::new(place))?;
    let read_only = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(none, "/", none, read_only, none).map_err(step("make it read-only"))
}

/// The same with nothing in reach but one directory, which becomes the root: files in it can be removed.
pub fn only_directory(directory: &Path) -> Result<(), SandboxError> {
    let step = |step| move |source| SandboxError::Root { step, source };
    let none = None::<&str>;
    own_mounts()?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(directory), directory, none, MsFlags::MS_BIND, none)
        .map_err(step("mount the one directory"))?;
    pivot(directory)?;
    mount(
        none,
        "/",
        none,
        flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND,
        none,
    )
    .map_err(step("restrict the one directory"))
}

fn own_mounts() -> Result<(), SandboxError> {
    let step = |step| move |source| SandboxError::Root { step, source };
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).map_err(step("unshare the mount namespace"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).map_err(step("make mounts private"))
}

/// Makes a mounted directory the root.
fn pivot(place: &Path) -> Result<(), SandboxError> {
    let step = |step| move |source| SandboxError::Root { step, source };
    chdir(place).map_err(step("enter it"))?;
    // The old root ends up on top of the new one, and is taken off at once.
    pivot_root(".", ".").map_err(step("pivot the root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(step("detach the old root"))?;
    chdir("/").map_err(step("enter the new root"))
}

/// Nothing that this process or a child might run gains privileges; nobody of the same user reads
/// its memory by ptrace or /proc.
pub fn no_new_privileges() -> Result<(), SandboxError> {
    let prctl = |what| move |source| SandboxError::Prctl { what, source };
    prctl::set_dumpable(false).map_err(prctl("PR_SET_DUMPABLE"))?;
    prctl::set_no_new_privs().map_err(prctl("PR_SET_NO_NEW_PRIVS"))?;
    for capability in caps::runtime::thread_all_supported() {
        caps::drop(None, CapSet::Bounding, capability)?;
    }
    Ok(())
}

/// Of the calling thread, for good.
pub fn drop_capabilities() -> Result<(), SandboxError> {
    keep(&CapsHashSet::new())
}

/// Of the calling thread: CAP_NET_ADMIN is what rules and routes take, and TCP_REPAIR.
pub fn keep_net_admin_only() -> Result<(), SandboxError> {
    keep(&CapsHashSet::from([Capability::CAP_NET_ADMIN]))
}

/// Of the calling thread: CAP_NET_RAW is what IP_TRANSPARENT takes.
pub fn keep_net_raw_only() -> Result<(), SandboxError> {
    keep(&CapsHashSet::from([Capability::CAP_NET_RAW]))
}

/// Of the calling thread: what a port below 1024 takes.
pub fn keep_bind_service_only() -> Result<(), SandboxError> {
    keep(&CapsHashSet::from([Capability::CAP_NET_BIND_SERVICE]))
}

fn keep(capabilities: &CapsHashSet) -> Result<(), SandboxError> {
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    // Effective first: it must stay within the permitted ones.
    caps::set(None, CapSet::Effective, capabilities)?;
    caps::set(None, CapSet::Permitted, capabilities)?;
    Ok(())
}
