//! Sandboxes: the processes that the helper makes for the daemon, in namespaces of their own, and
//! the record of them.
//!
//! A *bare* sandbox has no process: `bare` makes its namespaces, and the record holds them. Another
//! runtime's network namespace is *adopted* (`adopt`): the same, but nobody is let into it.
//!
//! On the path of a command: `act` → here → `create` or `exec` (make the process) → `child` (set
//! itself up: `root`, `netview`) → `command` (become the command). Helper and child talk through
//! `channel`.
//!
//! Invariants: every recorded process is a child of the helper that dies with it; each has a user
//! namespace nested in ours (or shares one with the sandbox that it joins), so that root in it has
//! no power over the router netns; the record of a process outlives it until `forget`.
//!
//! All of it must be called from the main thread, while it is the only one: the parent-death signal
//! is bound to the *thread* that clones.

pub mod adopt;
mod bare;
mod channel;
mod child;
mod command;
mod create;
mod device;
mod exec;
mod made;
mod namespaces;
mod netview;
mod overlay;
mod root;
pub mod seal;

use crate::names::SandboxId;
use crate::namespace::IdMapping;
use crate::request::{
    ExecSpec, ExitStatus, Failure, FailureKind, ProcessInfo, ProcessState, SandboxNetns,
    SandboxSpec,
};
use crate::sys::process::pidfd_send_signal;
use caps::CapsHashSet;
use channel::HelperEnd;
use child::Process;
use command::Command;
use create::FirstProcess;
use made::Made;
use namespaces::{Namespaces, Network};
use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Every process that the helper made for the daemon and has not been told to forget.
#[derive(Debug)]
pub struct Sandboxes {
    mapping: IdMapping,
    entries: BTreeMap<SandboxId, Entry>,
}

/// One process, or a bare sandbox.
#[derive(Debug)]
struct Entry {
    /// 0 for a bare sandbox.
    pid: Pid,
    life: Life,
    exec_in: Option<SandboxId>,
}

/// How far a process has come, with what it takes to go on.
#[derive(Debug)]
enum Life {
    Created {
        pidfd: OwnedFd,
        place: Place,
        channel: HelperEnd,
    },
    Running {
        pidfd: OwnedFd,
        /// `None`: an exec'd process, which has no place of its own.
        place: Option<Place>,
    },
    Exited {
        status: ExitStatus,
        /// Of a first process, unless in the host's: what it sent last may still be on its way.
        netns: Option<OwnedFd>,
    },
    /// No process: namespaces, held until they are forgotten.
    Bare(Network),
    /// The same, of another runtime: its user namespace is none of our business.
    Adopted(OwnedFd),
}

/// Where a sandbox's processes run, and how.
#[derive(Debug)]
struct Place {
    namespaces: Namespaces,
    workdir: PathBuf,
    capabilities: CapsHashSet,
    set_groups: bool,
}

impl Sandboxes {
    /// None yet. `mapping` is that of our own user namespace.
    pub fn new(mapping: IdMapping) -> Self {
        Self {
            mapping,
            entries: BTreeMap::new(),
        }
    }

    /// Make a sandbox, its process ready to execute its command; the process id in the host's pid
    /// namespace.
    pub fn create(&mut self, spec: SandboxSpec, stdio: [OwnedFd; 3]) -> Result<u32, Failure> {
        self.vacant(&spec.id)?;
        let mut first = FirstProcess::check(&spec, &self.mapping)?;
        let (made, host_netns) = match &spec.netns {
            SandboxNetns::Own => (create::make(&first, stdio, true, &self.mapping)?, false),
            SandboxNetns::Host => (create::make(&first, stdio, false, &self.mapping)?, true),
            SandboxNetns::Given => {
                return Err(Failure::invalid(
                    "another runtime's network namespace is for bare sandboxes",
                ));
            }
            SandboxNetns::Join(other) => {
                let other = self.network(other)?;
                let host_netns = other.net.is_none();
                first.root.owns_netns = !host_netns;
                (create::make_joined(&first, stdio, other)?, host_netns)
            }
        };
        let namespaces = match Namespaces::of(made.pid, host_netns) {
            Ok(namespaces) => namespaces,
            Err(failure) => {
                made.abandon();
                return Err(failure);
            }
        };
        let (made, warnings) = made.set_up()?;
        for line in warnings {
            eprintln!("sandbox {}: warning: {line}", spec.id.short());
        }
        let Process {
            command,
            capabilities,
            set_groups,
        } = first.process;
        let place = Place {
            namespaces,
            workdir: command.workdir().to_owned(),
            capabilities,
            set_groups,
        };
        let Made {
            pid,
            pidfd,
            channel,
        } = made;
        let life = Life::Created {
            pidfd,
            place,
            channel,
        };
        Ok(self.record(spec.id, pid, life, None))
    }

    /// Make a bare sandbox; the number of the descriptor of its network namespace.
    pub fn create_bare(&mut self, spec: &SandboxSpec) -> Result<i32, Failure> {
        self.vacant(&spec.id)?;
        if spec.netns != SandboxNetns::Own {
            return Err(Failure::invalid(
                "a sandbox without a process has a network namespace of its own",
            ));
        }
        let (network, warnings) = bare::make(&self.mapping)?;
        for line in warnings {
            eprintln!("sandbox {}: warning: {line}", spec.id.short());
        }
        let life = Life::Bare(network);
        let number = life.netns_fd().unwrap_or(-1);
        self.record(spec.id.clone(), Pid::from_raw(0), life, None);
        Ok(number)
    }

    /// Take another runtime's network namespace for a bare sandbox; the number of its descriptor.
    pub fn adopt(&mut self, spec: &SandboxSpec, netns: OwnedFd) -> Result<i32, Failure> {
        self.vacant(&spec.id)?;
        adopt::check(&netns)?;
        let held = |entry: &Entry| {
            let netns_of = entry.life.netns().map(AsFd::as_fd);
            netns_of.is_some_and(|one| adopt::same(one, netns.as_fd()))
        };
        if let Some((other, _)) = self.entries.iter().find(|(_, entry)| held(entry)) {
            return Err(Failure::exists(format!(
                "the network namespace is that of sandbox {}",
                other.short()
            )));
        }
        adopt::prepare(&netns)?;
        let number = netns.as_raw_fd();
        let life = Life::Adopted(netns);
        self.record(spec.id.clone(), Pid::from_raw(0), life, None);
        Ok(number)
    }

    /// The network namespace of a sandbox that is made or runs.
    pub fn netns(&self, id: &SandboxId) -> Result<BorrowedFd<'_>, Failure> {
        if let Some(Life::Adopted(netns)) = self.entries.get(id).map(|entry| &entry.life) {
            return Ok(netns.as_fd());
        }
        let netns = self.network(id)?.net.as_ref();
        netns.map(AsFd::as_fd).ok_or_else(|| {
            Failure::invalid(format!("sandbox {} is in the host's network", id.short()))
        })
    }

    /// The same, also of one that has ended and is not forgotten. `None`: the host's, or there is
    /// no such sandbox.
    pub fn last_netns(&self, id: &SandboxId) -> Option<BorrowedFd<'_>> {
        let life = &self.entries.get(id)?.life;
        let netns = match life {
            Life::Exited { netns, .. } => netns.as_ref(),
            Life::Created { .. } | Life::Running { .. } | Life::Bare(_) | Life::Adopted(_) => {
                life.netns()
            }
        };
        netns.map(AsFd::as_fd)
    }

    /// Whether a sandbox lives in this network namespace: the one whose it is, or one that shares it.
    /// What cannot be told counts.
    pub fn live_in(&self, netns: BorrowedFd<'_>) -> bool {
        let identity = |netns: BorrowedFd<'_>| fstat(netns).ok().map(|s| (s.st_dev, s.st_ino));
        let this = identity(netns);
        let of_living = self.entries.values().filter_map(|entry| entry.life.netns());
        this.is_none() || of_living.map(AsFd::as_fd).any(|one| identity(one) == this)
    }

    /// Let a sandbox's process execute its command. A bare one has nothing to start.
    pub fn start(&mut self, id: &SandboxId) -> Result<(), Failure> {
        let entry = self.entries.get_mut(id).ok_or_else(|| unknown(id))?;
        if entry.life.is_bare() {
            return Ok(());
        }
        let ended = Life::ended(ExitStatus::Code(child::GAVE_UP));
        let life = std::mem::replace(&mut entry.life, ended);
        let Life::Created {
            pidfd,
            place,
            mut channel,
        } = life
        else {
            let ended = matches!(life, Life::Exited { .. });
            entry.life = life;
            return Err(if ended {
                not_running(id)
            } else {
                Failure::invalid(format!("{} has been started already", id.short()))
            });
        };
        match Made::execute(&mut channel) {
            Ok(()) => {
                let place = Some(place);
                entry.life = Life::Running { pidfd, place };
                Ok(())
            }
            Err(failure) => {
                made::end(entry.pid, pidfd.as_fd());
                entry.life = Life::ended(ExitStatus::Code(shell_code(&failure)));
                Err(failure)
            }
        }
    }

    /// Run another process in a running sandbox; its process id in the host's pid namespace.
    pub fn exec(&mut self, spec: ExecSpec, stdio: [OwnedFd; 3]) -> Result<u32, Failure> {
        self.vacant(&spec.id)?;
        let place = match self.entries.get(&spec.sandbox).map(|entry| &entry.life) {
            Some(Life::Running {
                place: Some(place), ..
            }) => place,
            Some(Life::Bare(_) | Life::Adopted(_)) => return Err(no_process(&spec.sandbox)),
            Some(_) => return Err(not_running(&spec.sandbox)),
            None => return Err(unknown(&spec.sandbox)),
        };
        let process = Process {
            command: Command::check(&spec.process, &place.workdir)?,
            capabilities: place.capabilities.clone(),
            set_groups: place.set_groups,
        };
        let made = exec::make(&process, stdio, &place.namespaces)?;
        let (mut made, _) = made.set_up()?;
        if let Err(failure) = Made::execute(&mut made.channel) {
            made.abandon();
            return Err(failure);
        }
        let Made { pid, pidfd, .. } = made;
        let life = Life::Running { pidfd, place: None };
        Ok(self.record(spec.id, pid, life, Some(spec.sandbox)))
    }

    /// Send a signal to a process. SIGKILL to a sandbox's first process ends the whole sandbox.
    pub fn signal(&self, id: &SandboxId, signal: i32) -> Result<(), Failure> {
        if !(1..=64).contains(&signal) {
            return Err(Failure::invalid(format!("signal {signal} is not 1 to 64")));
        }
        let entry = self.entries.get(id).ok_or_else(|| unknown(id))?;
        if entry.life.is_bare() {
            return Err(no_process(id));
        }
        let pidfd = entry.life.pidfd().ok_or_else(|| not_running(id))?;
        match pidfd_send_signal(pidfd, signal) {
            Err(Errno::ESRCH) => Err(not_running(id)),
            result => {
                result.map_err(|e| Failure::kernel(format!("signal {signal} to {}", id.short()), e))
            }
        }
    }

    /// Forget a process, killing it first where it lives. Processes exec'd in a sandbox end with
    /// it, and are still reported by [`Sandboxes::exited`].
    pub fn forget(&mut self, id: &SandboxId) -> Result<(), Failure> {
        let entry = self.entries.remove(id).ok_or_else(|| unknown(id))?;
        let Some(pidfd) = entry.life.pidfd() else {
            return Ok(());
        };
        let lives_in =
            |other: &Entry| other.exec_in.as_ref() == Some(id) && other.life.pidfd().is_some();
        if self.entries.values().any(lives_in) {
            // The first process of a pid namespace cannot end before the others have been waited
            // for, which is up to the event loop.
            let _ = pidfd_send_signal(pidfd, libc::SIGKILL);
        } else {
            made::end(entry.pid, pidfd);
        }
        Ok(())
    }

    /// Note that a child has ended; whose it was, unless it is forgotten or was never recorded.
    pub fn exited(&mut self, pid: Pid, status: ExitStatus) -> Option<SandboxId> {
        let (id, entry) = self
            .entries
            .iter_mut()
            .find(|(_, entry)| entry.pid == pid && entry.life.pidfd().is_some())?;
        let life = std::mem::replace(&mut entry.life, Life::ended(status));
        if let Life::Exited { netns, .. } = &mut entry.life {
            *netns = life.into_netns();
        }
        Some(id.clone())
    }

    /// All of them.
    pub fn list(&self) -> Vec<ProcessInfo> {
        let info = |(id, entry): (&SandboxId, &Entry)| ProcessInfo {
            id: id.clone(),
            exec_in: entry.exec_in.clone(),
            pid: entry.pid.as_raw().unsigned_abs(),
            state: match &entry.life {
                Life::Created { .. } => ProcessState::Created,
                Life::Running { .. } | Life::Bare(_) | Life::Adopted(_) => ProcessState::Running,
                Life::Exited { status, .. } => ProcessState::Exited(*status),
            },
            netns_fd: entry.life.netns_fd(),
        };
        self.entries.iter().map(info).collect()
    }

    /// Refuse an id that is taken.
    fn vacant(&self, id: &SandboxId) -> Result<(), Failure> {
        if self.entries.contains_key(id) {
            return Err(Failure::exists(format!("{} exists already", id.short())));
        }
        Ok(())
    }

    /// The network of a sandbox, while it lives.
    fn network(&self, id: &SandboxId) -> Result<&Network, Failure> {
        match &self.entries.get(id).ok_or_else(|| unknown(id))?.life {
            Life::Created { place, .. }
            | Life::Running {
                place: Some(place), ..
            } => Ok(&place.namespaces.network),
            Life::Bare(network) => Ok(network),
            Life::Adopted(_) => Err(Failure::invalid(format!(
                "the network namespace of {} is another runtime's",
                id.short()
            ))),
            Life::Running { place: None, .. } => Err(Failure::invalid(format!(
                "{} is a process in a sandbox, not a sandbox",
                id.short()
            ))),
            Life::Exited { .. } => Err(not_running(id)),
        }
    }

    /// Keep a process in mind; its id as the daemon is told it.
    fn record(&mut self, id: SandboxId, pid: Pid, life: Life, exec_in: Option<SandboxId>) -> u32 {
        let entry = Entry { pid, life, exec_in };
        self.entries.insert(id, entry);
        pid.as_raw().unsigned_abs()
    }
}

impl Life {
    /// Without a process.
    fn is_bare(&self) -> bool {
        matches!(self, Self::Bare(_) | Self::Adopted(_))
    }

    /// `None` once it has ended.
    fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Created { pidfd, .. } | Self::Running { pidfd, .. } => Some(pidfd.as_fd()),
            Self::Exited { .. } | Self::Bare(_) | Self::Adopted(_) => None,
        }
    }

    /// The number that a bare sandbox's network namespace is known by.
    fn netns_fd(&self) -> Option<i32> {
        match self {
            Self::Bare(network) => network.net.as_ref().map(AsRawFd::as_raw_fd),
            Self::Adopted(netns) => Some(netns.as_raw_fd()),
            Self::Created { .. } | Self::Running { .. } | Self::Exited { .. } => None,
        }
    }

    /// One that leaves no network behind.
    fn ended(status: ExitStatus) -> Self {
        let netns = None;
        Self::Exited { status, netns }
    }

    /// The network namespace of one that lives, unless it is the host's.
    fn netns(&self) -> Option<&OwnedFd> {
        match self {
            Self::Created { place, .. } => place.namespaces.network.net.as_ref(),
            Self::Running { place, .. } => place.as_ref()?.namespaces.network.net.as_ref(),
            Self::Bare(network) => network.net.as_ref(),
            Self::Adopted(netns) => Some(netns),
            Self::Exited { .. } => None,
        }
    }

    /// The network namespace, without the rest.
    fn into_netns(self) -> Option<OwnedFd> {
        match self {
            Self::Created { place, .. } => place.namespaces.network.net,
            Self::Running { place, .. } => place?.namespaces.network.net,
            Self::Bare(network) => network.net,
            Self::Adopted(netns) => Some(netns),
            Self::Exited { netns, .. } => netns,
        }
    }
}

/// What `docker run` exits with for a command that could not be executed.
fn shell_code(failure: &Failure) -> i32 {
    match (failure.kind, failure.errno) {
        (FailureKind::Exec, Some(libc::ENOENT)) => 127,
        (FailureKind::Exec, _) => 126,
        _ => child::GAVE_UP,
    }
}

fn unknown(id: &SandboxId) -> Failure {
    Failure::not_found(format!("no sandbox or exec {}", id.short()))
}

fn no_process(id: &SandboxId) -> Failure {
    Failure::invalid(format!(
        "sandbox {} is bare: a network namespace without processes",
        id.short()
    ))
}

fn not_running(id: &SandboxId) -> Failure {
    Failure::not_found(format!("{} is not running", id.short()))
}
