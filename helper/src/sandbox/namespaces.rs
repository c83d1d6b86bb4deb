//! The namespaces of a sandbox, held open by the helper so that later processes can enter them
//! whatever the sandbox's first process does.

use crate::request::Failure;
use crate::sandbox::channel::setup;
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;
use std::fs::File;
use std::os::fd::OwnedFd;

/// A user namespace with the network namespace that it owns.
#[derive(Debug)]
pub struct Network {
    /// User namespace.
    pub user: OwnedFd,
    /// Network namespace; `None`: the host's, which it does not own.
    pub net: Option<OwnedFd>,
}

/// Descriptors of namespaces.
#[derive(Debug)]
pub struct Namespaces {
    /// What others can join.
    pub network: Network,
    ipc: OwnedFd,
    uts: OwnedFd,
    pid: OwnedFd,
    mnt: OwnedFd,
}

impl Network {
    /// Those of a child that is in them already.
    pub fn of(pid: Pid, host_netns: bool) -> Result<Self, Failure> {
        Ok(Self {
            user: open(pid, "user")?,
            net: (!host_netns).then(|| open(pid, "net")).transpose()?,
        })
    }
}

fn open(pid: Pid, name: &str) -> Result<OwnedFd, Failure> {
    File::open(format!("/proc/{pid}/ns/{name}"))
        .map(OwnedFd::from)
        .map_err(|e| setup(format!("hold the sandbox's {name} namespace"), e))
}

impl Namespaces {
    /// Those of a child that is in them already.
    pub fn of(pid: Pid, host_netns: bool) -> Result<Self, Failure> {
        Ok(Self {
            network: Network::of(pid, host_netns)?,
            ipc: open(pid, "ipc")?,
            uts: open(pid, "uts")?,
            pid: open(pid, "pid")?,
            mnt: open(pid, "mnt")?,
        })
    }

    /// Enter all of them; the pid namespace is that of later children. The user namespace comes
    /// first, since it gives the right to enter the others.
    pub fn enter(&self) -> nix::Result<()> {
        setns(&self.network.user, CloneFlags::CLONE_NEWUSER)?;
        setns(&self.ipc, CloneFlags::CLONE_NEWIPC)?;
        setns(&self.uts, CloneFlags::CLONE_NEWUTS)?;
        if let Some(net) = &self.network.net {
            setns(net, CloneFlags::CLONE_NEWNET)?;
        }
        setns(&self.pid, CloneFlags::CLONE_NEWPID)?;
        setns(&self.mnt, CloneFlags::CLONE_NEWNS)
    }
}
