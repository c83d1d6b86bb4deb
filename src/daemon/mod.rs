//! The daemon: lifetime and policy of everything else, without a single capability.
//!
//! Path: `api::server` → [`Daemon`] (as `api::control::Control`) → `session`, `exec` → `network` +
//! `ipam` (what) → `apply` → `kernel` → helper (how); `state` on commit.
//!
//! Invariants: a record is committed before the kernel objects that it describes (so that after a
//! `kill -9` at any moment `reconcile` finds every leftover); the lock of the model is never held
//! while anything is awaited but the disk; locks are taken in the order turn of a sandbox, link,
//! etc, model, live.
//!
//! * `startup`: one daemon per root, background start, signals, idleness. `activation`: sockets that a service
//!   manager holds.
//! * `model`: networks, sandboxes, leases, in memory and in the stores; `members` and `leases` are
//!   its indices. `turns`: one change of a sandbox at a time.
//! * `reference`: what a user calls one of them.
//! * `live`: what belongs to this process alone: waiters, prepared execs.
//! * `link`: the connection to the helper, its events, and what it was told.
//! * `linger`: endpoints of the ended that have something to deliver.
//! * `networks`: networks into bridges, ruleset and the relay's snapshot. `uplink`: ways out; `kernel_uplink`: the one that takes a
//!   grant; `kernel_publish`: ports that the host's kernel leads.
//! * `network_admin`: networks made and removed, by `network_draft` (a request, checked) and
//!   `network_filter`.
//! * `draft`: a request to create, checked; `joining`: its networks and links; `endpoint`: addresses
//!   for it; `creation`: made. `session`: the life of a sandbox. `connect`: its networks change.
//!   `exec`: a further process in one.
//! * `adopted`: sandboxes of other runtimes that end with a process of theirs.
//! * `publish`: ports of sandboxes on the host. `host_loopback`: the way to the host's own.
//! * `apply`: plans. `reconcile`: repairs. `leftover`: what outlived its helper. `etc`, `files`: a
//!   sandbox's `/etc` and log. `streams`: stdin and output of the detached.
//! * `info`, `network_info`: what listings show. `refusal`: errors as users read them. `clock`: time and dice.

mod activation;
mod adopted;
mod apply;
mod clock;
mod connect;
mod control;
mod creation;
mod draft;
mod endpoint;
mod etc;
mod exec;
mod files;
mod host_loopback;
mod info;
mod joining;
mod kernel_publish;
mod kernel_uplink;
mod leases;
mod leftover;
mod linger;
mod link;
mod live;
mod members;
mod model;
mod network_admin;
mod network_draft;
mod network_filter;
mod network_info;
mod networks;
mod publish;
mod reconcile;
mod reference;
mod refusal;
mod session;
mod startup;
mod streams;
mod turns;
mod uplink;

pub use startup::{Options, run};
pub use streams::{KEEPER, keep};

use crate::api::paths::Paths;
use crate::kernel::host::RESOLV_CONF;
use crate::network::resolv::HostResolver;
use crate::state::StateError;
use link::Link;
use live::Live;
use model::Model;
use publish::Parking;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use turns::Turns;

/// The daemon; cheap to clone.
#[derive(Clone)]
pub struct Daemon(Arc<Inner>);

struct Inner {
    paths: Paths,
    link: tokio::sync::Mutex<Link>,
    model: tokio::sync::Mutex<Model>,
    live: Mutex<Live>,
    turns: Turns,
    /// Held while `/etc` files are rendered and written.
    etc: tokio::sync::Mutex<()>,
    parking: Parking,
    resolver: Mutex<HostResolver>,
    /// Becomes true when the daemon is to end.
    end: watch::Sender<bool>,
}

impl Daemon {
    /// Opens the stores; touches no kernel object yet.
    fn open(paths: Paths, random: [u8; 5]) -> Result<Self, StateError> {
        let boot_id = files::read_small("/proc/sys/kernel/random/boot_id");
        let model = Model::open(&paths, boot_id.trim(), random)?;
        Ok(Self(Arc::new(Inner {
            paths,
            link: tokio::sync::Mutex::default(),
            model: tokio::sync::Mutex::new(model),
            live: Mutex::default(),
            turns: Turns::default(),
            etc: tokio::sync::Mutex::default(),
            parking: Parking::default(),
            resolver: Mutex::new(host_resolver()),
            end: watch::Sender::new(false),
        })))
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resolver(&self) -> HostResolver {
        let resolver = self.0.resolver.lock();
        resolver.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the host's resolv.conf again; true where it says something new.
    fn reread_resolver(&self) -> bool {
        let fresh = host_resolver();
        let mut resolver = self
            .0
            .resolver
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let changed = *resolver != fresh;
        *resolver = fresh;
        changed
    }
}

fn host_resolver() -> HostResolver {
    let resolver = HostResolver::parse(&files::read_small(RESOLV_CONF));
    for warning in &resolver.warnings {
        tracing::debug!(%warning, "part of resolv.conf left out");
    }
    resolver
}

#[cfg(test)]
mod tests;
