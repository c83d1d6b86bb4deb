//! Endpoints of sandboxes that have ended while their kernel still had something to deliver.
//!
//! What a process sent just before its end waits in its network namespace until the peer takes it.
//! So the veth pair, the addresses and the namespace (which the helper keeps until `Forget`) stay a
//! while: the endpoint *lingers*. Nobody waits for it but who wants its addresses; the exit code and
//! the name do not.
//!
//! Invariants: an endpoint lingers from the moment at which its sandbox's end is recorded until its
//! veth pair is gone, so that its addresses are never given away early; no linger outlasts
//! [`LONGEST`]. Nothing of it is stored: after a crash `reconcile` takes what lingered for the
//! leftover that it is.

use super::model::Model;
use super::{Daemon, apply};
use crate::ipam::{Wish, allocate};
use crate::kernel::helper::{Helper, HelperError};
use crate::network::plan::teardown;
use crate::network::{Attachment, Endpoint, Sandbox, SandboxName};
use ipnet::IpNet;
use mossnet_helper::SandboxId;
use mossnet_helper::request::Request;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// A peer that takes nothing for this long is given up, as an application that waits would do.
const LONGEST: Duration = Duration::from_secs(60);
/// Who asks for an address that lingers waits this long for it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks; each pause is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(250);

/// Becomes true where the linger is to end early; closed when it is over.
pub(super) type Cut = watch::Receiver<bool>;

/// Everything that lingers, by the sandbox whose it was.
#[derive(Debug, Default)]
pub(super) struct Lingering(BTreeMap<SandboxId, Lingerer>);

#[derive(Debug)]
struct Lingerer {
    endpoints: Vec<Endpoint>,
    cut: watch::Sender<bool>,
}

impl Lingering {
    /// The endpoints of a sandbox linger from now on. `None`: it has none, or they do already.
    pub(super) fn add(&mut self, sandbox: &Sandbox) -> Option<Cut> {
        if sandbox.endpoints.is_empty() || self.0.contains_key(&sandbox.id) {
            return None;
        }
        let (cut, receiver) = watch::channel(false);
        let lingerer = Lingerer {
            endpoints: sandbox.endpoints.clone(),
            cut,
        };
        self.0.insert(sandbox.id.clone(), lingerer);
        Some(receiver)
    }

    /// Their veth pairs are gone.
    fn over(&mut self, id: &SandboxId) -> Option<Lingerer> {
        self.0.remove(id)
    }

    /// Nothing lingers.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose they are, of those that `pick` picks.
    fn whose(&self, pick: impl Fn(&Endpoint) -> bool) -> Vec<SandboxId> {
        let picked = |lingerer: &Lingerer| lingerer.endpoints.iter().any(&pick);
        let of = self.0.iter().filter(|(_, lingerer)| picked(lingerer));
        of.map(|(id, _)| id.clone()).collect()
    }

    fn watch(&self, ids: &[SandboxId]) -> Vec<Cut> {
        let found = ids.iter().filter_map(|id| self.0.get(id));
        found.map(|lingerer| lingerer.cut.subscribe()).collect()
    }

    fn cut(&self, ids: &[SandboxId]) {
        for lingerer in ids.iter().filter_map(|id| self.0.get(id)) {
            lingerer.cut.send_replace(true);
        }
    }
}

/// When to look whether everything is delivered.
#[derive(Debug)]
struct Pace {
    begun: Instant,
    pause: Duration,
}

impl Pace {
    fn new(begun: Instant) -> Self {
        let pause = FIRST_PAUSE;
        Self { begun, pause }
    }

    /// How long to wait for the next look; `None`: long enough.
    fn next(&mut self, now: Instant) -> Option<Duration> {
        let left = (self.begun + LONGEST).checked_duration_since(now)?;
        let pause = self.pause.min(left);
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        (!left.is_zero()).then_some(pause)
    }
}

impl Model {
    /// The endpoints of a sandbox whose end is recorded linger from now on.
    pub(super) fn begin_linger(&mut self, sandbox: &Sandbox) -> Option<Cut> {
        let cut = self.lingering.add(sandbox)?;
        let (id, name) = (&sandbox.id, &sandbox.name);
        self.members.add_lingering(id, name, &sandbox.endpoints);
        Some(cut)
    }

    fn end_linger(&mut self, id: &SandboxId) {
        if let Some(lingerer) = self.lingering.over(id) {
            self.members.remove_lingering(id, &lingerer.endpoints);
            self.told_differs();
        }
    }

    /// Whose endpoints linger with what a newcomer asks for: an address or MAC address that it
    /// wants, one that is remembered for its name, or any where none is left.
    fn in_the_way(&self, name: Option<&SandboxName>, wanted: &Attachment) -> Vec<SandboxId> {
        if self.lingering.is_empty() {
            return Vec::new();
        }
        let Some(network) = self.network_by_id(&wanted.network) else {
            return Vec::new();
        };
        let had = name.map_or(&[][..], |name| self.lease(&network.id, name));
        let held = self.members().held(&network.id);
        let mut subnets = network.subnets.iter();
        let full = subnets.any(|on| allocate(on, held, &[], Wish::Any).is_err());
        let asked = |address: &IpAddr| {
            let mut all = wanted.addresses.iter().chain(&wanted.last).chain(had);
            all.any(|other| other == address)
        };
        self.lingering.whose(|endpoint| {
            let mut addresses = endpoint.addresses.iter().map(IpNet::addr);
            let same = wanted.mac == Some(endpoint.mac) || addresses.any(|a| asked(&a));
            endpoint.network == network.id && (full || same)
        })
    }
}

impl Daemon {
    /// Takes down what an ended sandbox has in the kernel: at once where its network has delivered
    /// everything, else later, without keeping the caller.
    pub(super) async fn take_down(
        &self,
        helper: &Helper,
        id: &SandboxId,
        endpoints: &[Endpoint],
        linger: Option<Cut>,
    ) {
        let requests = teardown(id, endpoints);
        let unsent = match &linger {
            Some(_) => unsent(helper, id).await,
            None => 0,
        };
        match linger {
            Some(cut) if unsent > 0 => {
                info!(sandbox.id = id.short(), sockets = unsent, "lingers");
                let (daemon, helper, id) = (self.clone(), helper.clone(), id.clone());
                tokio::spawn(async move { daemon.linger(&helper, &id, requests, cut).await });
            }
            Some(_) | None => {
                apply::teardown(helper, requests).await;
                self.0.model.lock().await.end_linger(id);
            }
        }
    }

    async fn linger(&self, helper: &Helper, id: &SandboxId, requests: Vec<Request>, mut cut: Cut) {
        let mut pace = Pace::new(Instant::now());
        let mut reason = "delivered";
        while unsent(helper, id).await > 0 {
            let Some(pause) = pace.next(Instant::now()) else {
                reason = "nobody takes it";
                break;
            };
            // Closed: something else has taken it down.
            let cut = tokio::time::timeout(pause, cut.wait_for(|cut| *cut));
            if let Ok(_cut_or_closed) = cut.await {
                reason = "its place is wanted";
                break;
            }
        }
        debug!(sandbox.id = id.short(), reason, "lingers no longer");
        apply::teardown(helper, requests).await;
        self.0.model.lock().await.end_linger(id);
        self.refresh().await;
    }

    /// Gives a newcomer the place of what lingers there, on each network that it joins.
    pub(super) async fn make_way(&self, name: Option<&SandboxName>, wanted: &[Attachment]) {
        let in_the_way: Vec<SandboxId> = {
            let model = self.0.model.lock().await;
            let of = |attachment: &Attachment| model.in_the_way(name, attachment);
            wanted.iter().flat_map(of).collect()
        };
        self.see_off(&in_the_way, PATIENCE).await;
    }

    /// Ends all linger on a network now.
    pub(super) async fn end_linger_on(&self, network: &SandboxId) {
        let model = self.0.model.lock().await;
        let there = model
            .lingering
            .whose(|endpoint| endpoint.network == *network);
        drop(model);
        self.see_off(&there, Duration::ZERO).await;
    }

    /// Ends the linger of a sandbox's endpoints now.
    pub(super) async fn end_linger(&self, id: &SandboxId) {
        self.see_off(std::slice::from_ref(id), Duration::ZERO).await;
    }

    /// The same for everything, with a last chance to deliver.
    pub(super) async fn see_off_all(&self) {
        let all = self.0.model.lock().await.lingering.whose(|_| true);
        self.see_off(&all, PATIENCE).await;
    }

    /// Waits until these linger no longer; has them cut after `patience`.
    async fn see_off(&self, ids: &[SandboxId], patience: Duration) {
        let mut watched = self.0.model.lock().await.lingering.watch(ids);
        if watched.is_empty() {
            return;
        }
        if tokio::time::timeout(patience, over(&mut watched))
            .await
            .is_err()
        {
            self.0.model.lock().await.lingering.cut(ids);
            over(&mut watched).await;
        }
    }
}

/// Resolves when the last of them is closed.
async fn over(watched: &mut [Cut]) {
    for cut in watched {
        while cut.changed().await.is_ok() {}
    }
}

/// Sockets with something to deliver; none where that cannot be told.
async fn unsent(helper: &Helper, id: &SandboxId) -> u32 {
    match helper.unsent(id).await {
        Ok(sockets) => sockets,
        Err(HelperError::Gone) => 0,
        Err(error) => {
            warn!(sandbox.id = id.short(), %error, "not known what is still to be delivered");
            0
        }
    }
}

#[cfg(test)]
mod tests;
