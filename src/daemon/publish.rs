//! Published ports: bound, recorded, handed to the helper; added and removed while a sandbox lives.
//!
//! Path: `control` → here → `kernel::listeners`, then `networks` with the relay's next snapshot.
//!
//! Invariants: ports are bound before they are recorded, so that whoever asks hears at once of one
//! that is in use, and all or none of a request's ports are there. Between that and the hand-over
//! the sockets are *parked*: whatever of them no snapshot has asked for by the end of the request is
//! closed. A recorded port whose socket is nowhere (a daemon was killed in between) is bound again.

use super::Daemon;
use super::kernel_publish::lead_ports;
use super::kernel_uplink::Led;
use super::link::Link;
use super::refusal::{conflict, failed, malformed, unknown};
use crate::api::control::{Answer, Refusal};
use crate::api::port_types::{PortInfo, PortStatus, PortsPublish, PortsRemove};
use crate::kernel::helper::Helper;
use crate::kernel::host;
use crate::kernel::listeners::{self, BindError, Bound};
use crate::network::publish::keys;
use crate::network::snapshot::{PublishView, Snapshot};
use crate::network::{NetworkModeRecord, Sandbox};
use crate::ports::{
    Claim, HostAddr, HostChoice, Publish, PublishSpec, Published, SourceAddress, conflict as first,
};
use mossnet_helper::SandboxId;
use mossnet_helper::request::PortCount;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use tracing::{error, info};

/// Sockets that the helper has not got yet, by key.
#[derive(Debug, Default)]
pub(super) struct Parking(Mutex<HashMap<String, OwnedFd>>);

impl Parking {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.with(|sockets| sockets.is_empty())
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<String, OwnedFd>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Ports that were bound for one request. Dropped: what was not handed over is closed.
pub(super) struct Parked<'a> {
    parking: &'a Parking,
    keys: Vec<String>,
    /// For the record.
    pub(super) publishes: Vec<Published>,
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.parking.with(|sockets| {
            for key in &self.keys {
                sockets.remove(key);
            }
        });
    }
}

/// What a request wants published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) specs: Vec<PublishSpec>,
    pub(super) source: SourceAddress,
    pub(super) interface: Option<String>,
}

impl Wishes {
    pub(super) fn of(request: &PortsPublish) -> Self {
        Self {
            specs: request.ports.clone(),
            source: request.source_address,
            interface: request.interface.clone(),
        }
    }

    /// Refuses what would be in its own way.
    pub(super) fn check(&self) -> Answer<()> {
        let claims: Vec<Claim> = self.specs.iter().filter_map(claim).collect();
        for (index, wish) in claims.iter().enumerate() {
            let earlier = claims.iter().take(index);
            if let Some(other) = first(wish, earlier, |claim| *claim) {
                let (proto, addr, ports) = (other.proto, other.host_addr, other.host_ports);
                let message = format!("{proto} ports {ports} of {addr} are published twice");
                return Err(malformed(message).with_hint("give each host port once"));
            }
        }
        Ok(())
    }

    /// With an address of the interface for each wish that has none.
    async fn resolved(&self) -> Answer<Vec<PublishSpec>> {
        let Some(interface) = &self.interface else {
            return Ok(self.specs.clone());
        };
        let addresses = host::addresses_of(interface).await?;
        if addresses.is_empty() {
            let message = format!("interface {interface} has no address to publish on");
            return Err(malformed(message).with_hint("'ip addr' shows interfaces and addresses"));
        }
        let on = |spec: &PublishSpec| match spec.host_addr() {
            HostAddr::Only(_) => vec![*spec],
            HostAddr::Any => {
                let all = addresses.iter();
                all.map(|address| spec.on(HostAddr::only(*address)))
                    .collect()
            }
        };
        Ok(self.specs.iter().flat_map(on).collect())
    }
}

/// What a wish with given host ports claims.
fn claim(spec: &PublishSpec) -> Option<Claim> {
    Some(Claim::from(&spec.fixed(SourceAddress::Keep)?))
}

impl From<BindError> for Refusal {
    fn from(error: BindError) -> Self {
        let refusal = match &error {
            BindError::InUse { .. } | BindError::NoneFree { .. } => conflict(error.to_string()),
            BindError::Forbidden { .. } | BindError::NoAddress(_) | BindError::Ports(_) => {
                malformed(error.to_string())
            }
            BindError::Socket { .. } => failed(crate::error::one_line(&error)),
        };
        refusal.with_hint(error.hint())
    }
}

impl Daemon {
    /// Binds what a request wants, all or nothing; with a socket for each family where the kernel is to
    /// lead the ports.
    pub(super) async fn bind(&self, wishes: &Wishes, by_kernel: bool) -> Answer<Parked<'_>> {
        let specs = wishes.resolved().await?;
        self.check_claims(None, specs.iter().filter_map(claim))
            .await?;
        let source = wishes.source;
        self.park(move || {
            let bound = listeners::bind_all(&specs, source)?;
            match by_kernel {
                true => listeners::apart(bound),
                false => Ok(bound),
            }
        })
        .await
    }

    /// Binds the ports that a sandbox had when it ran before.
    pub(super) async fn bind_again(&self, id: &SandboxId) -> Answer<Parked<'_>> {
        let before = {
            let model = self.0.model.lock().await;
            let sandbox = model.sandbox(id);
            sandbox.map(|s| s.publishes.clone()).unwrap_or_default()
        };
        let given = before.iter().filter(|p| p.choice == HostChoice::Given);
        let claims = given.map(|published| Claim::from(&published.publish));
        self.check_claims(Some(id), claims).await?;
        self.park(move || listeners::bind_again(&before)).await
    }

    /// Whose port it is can be said of our own sandboxes only.
    async fn check_claims(
        &self,
        own: Option<&SandboxId>,
        claims: impl Iterator<Item = Claim>,
    ) -> Answer<()> {
        let model = self.0.model.lock().await;
        let others = model.live().filter(|other| Some(&other.id) != own);
        let held: Vec<(&Sandbox, Publish)> = others
            .flat_map(|other| other.publishes.iter().map(move |p| (other, p.publish)))
            .collect();
        for wish in claims {
            let other = first(&wish, &held, |(_, publish)| Claim::from(publish));
            if let Some((sandbox, publish)) = other {
                let message = format!(
                    "{} port {} of {} is in use by sandbox '{}' ({publish})",
                    wish.proto, wish.host_ports, wish.host_addr, sandbox.name
                );
                return Err(conflict(message).with_hint(format!(
                    "publish another port, or none for a free one; or: mossnet port rm {} {}",
                    sandbox.name,
                    publish.spec(),
                )));
            }
        }
        Ok(())
    }

    async fn park<F>(&self, bind: F) -> Answer<Parked<'_>>
    where
        F: FnOnce() -> Result<Vec<Bound>, BindError> + Send + 'static,
    {
        // A thousand ports, or who holds one: too long for a thread that others wait for.
        let bound = tokio::task::spawn_blocking(bind).await;
        let bound = bound.map_err(|error| failed(format!("bind ports: {error}")))??;
        let mut parked = Parked {
            parking: &self.0.parking,
            keys: Vec::new(),
            publishes: Vec::new(),
        };
        self.0.parking.with(|sockets| {
            for Bound {
                publish,
                choice,
                sockets: bound,
            } in bound
            {
                parked.publishes.push(Published { publish, choice });
                for (key, socket) in keys(&publish).zip(bound) {
                    parked.keys.push(key.clone());
                    sockets.insert(key, socket);
                }
            }
        });
        Ok(parked)
    }

    /// Hands the helper the sockets that a snapshot needs and that it lacks. A publish whose socket
    /// cannot be had is taken out of the snapshot. The keys of all others.
    pub(super) async fn hand_over(
        &self,
        link: &mut Link,
        helper: &Helper,
        snapshot: &mut Snapshot,
        led: &Led,
    ) -> Answer<BTreeSet<String>> {
        let mut sockets = Vec::new();
        let held = &link.told.listeners;
        snapshot.publishes.retain(|view| {
            let lacking = self.0.parking.with(|parked| lacking(view, held, parked));
            match lacking {
                Ok(own) => {
                    sockets.extend(own);
                    true
                }
                Err(error) => {
                    let error = crate::error::one_line(&error);
                    error!(sandbox.name = view.sandbox, publish = %view.publish, error, "not published");
                    false
                }
            }
        });
        lead_ports(&mut link.told, &sockets, led).await;
        let handed: Vec<String> = sockets.iter().map(|(key, _)| key.clone()).collect();
        helper.keep_listeners(sockets).await?;
        link.told.listeners.extend(handed);
        let views = snapshot.publishes.iter();
        Ok(views.flat_map(|view| keys(&view.publish)).collect())
    }

    /// Publishes more of a sandbox's ports; all or none.
    pub(super) async fn publish(&self, text: &str, request: PortsPublish) -> Answer<Vec<PortInfo>> {
        let wishes = Wishes::of(&request);
        wishes.check()?;
        let (id, _) = self.phase_of(text).await?;
        let _turn = self.0.turns.take(&id).await;
        let sandbox = self.0.model.lock().await.still(&id, text)?.clone();
        check_mode(&sandbox)?;
        let by_kernel = self.is_on_kernel(&sandbox).await;
        let parked = self.bind(&wishes, by_kernel).await?;
        let added = parked.publishes.clone();
        let mut wanted = sandbox.publishes.clone();
        wanted.extend(&added);
        self.change_ports(&sandbox, wanted).await?;
        info!(sandbox.id = id.short(), ports = added.len(), "published");
        Ok(added.iter().map(PortInfo::of).collect())
    }

    /// Publishes some of a sandbox's ports no longer; where one of the wishes names none, nothing is
    /// changed.
    pub(super) async fn unpublish(&self, text: &str, request: PortsRemove) -> Answer<()> {
        let (id, _) = self.phase_of(text).await?;
        let _turn = self.0.turns.take(&id).await;
        let sandbox = self.0.model.lock().await.still(&id, text)?.clone();
        let mut wanted = sandbox.publishes.clone();
        for gone in &request.ports {
            let mut found = false;
            let mut left = Vec::new();
            for published in &wanted {
                match published.without(gone) {
                    Some(rest) => {
                        found = true;
                        left.extend(rest);
                    }
                    None => left.push(*published),
                }
            }
            if !found {
                let message = format!("sandbox '{}' does not publish {gone}", sandbox.name);
                let hint = format!("mossnet port ls {} shows what it does", sandbox.name);
                return Err(unknown(message).with_hint(hint));
            }
            wanted = left;
        }
        self.change_ports(&sandbox, wanted).await?;
        info!(sandbox.id = id.short(), "published less");
        Ok(())
    }

    /// Records and tells; takes it back where it cannot be told.
    async fn change_ports(&self, sandbox: &Sandbox, wanted: Vec<Published>) -> Answer<()> {
        let record = |publishes: Vec<Published>| async move {
            let mut model = self.0.model.lock().await;
            let change = |sandbox: &mut Sandbox| sandbox.publishes = publishes;
            model.change_sandbox(&sandbox.id, change).map(drop)
        };
        // Before the record, so that one that starts now knows of all that there is.
        let helper = match sandbox.is_live() {
            true => Some(self.helper().await?),
            false => None,
        };
        record(wanted).await?;
        let Some(helper) = helper else {
            return Ok(());
        };
        let told = {
            let mut link = self.0.link.lock().await;
            self.tell(&mut link, &helper).await
        };
        if let Err(refusal) = told {
            record(sandbox.publishes.clone()).await?;
            self.refresh().await;
            return Err(refusal);
        }
        Ok(())
    }

    /// What a sandbox publishes, with what was seen of it.
    pub(super) async fn ports_of(&self, text: &str) -> Answer<Vec<PortStatus>> {
        let (id, _) = self.phase_of(text).await?;
        let sandbox = self.0.model.lock().await.still(&id, text)?.clone();
        let counts = match self.current_helper().await {
            Some(helper) if !live_ports(&sandbox).is_empty() => {
                helper.counters(sandbox.name.as_str()).await?
            }
            Some(_) | None => Vec::new(),
        };
        let counts: HashMap<&str, &PortCount> = (counts.iter())
            .map(|count| (count.listener.as_str(), count))
            .collect();
        let ports = live_ports(&sandbox).iter();
        Ok(ports.map(|published| status(published, &counts)).collect())
    }
}

/// The sockets of a publish that the helper lacks: parked, or bound now.
fn lacking(
    view: &PublishView,
    held: &BTreeSet<String>,
    parked: &mut HashMap<String, OwnedFd>,
) -> Result<Vec<(String, OwnedFd)>, BindError> {
    let publish = view.publish;
    let all = keys(&publish).zip(publish.host_ports().iter());
    let mut sockets = Vec::new();
    for (key, port) in all {
        if let Some(socket) = parked.remove(&key) {
            sockets.push((key, socket));
        } else if !held.contains(&key) {
            sockets.push((key, listeners::bind_port_of(&publish, port)?));
        }
    }
    Ok(sockets)
}

fn status(published: &Published, counts: &HashMap<&str, &PortCount>) -> PortStatus {
    let mut status = PortStatus::of(published);
    let any_v4 = HostAddr::Only(std::net::Ipv4Addr::UNSPECIFIED.into());
    let as_v4 = published.publish.at(any_v4);
    // Where the host has no IPv6, a socket for all addresses is one of IPv4.
    let names = keys(&published.publish).zip(keys(&as_v4));
    for count in names.filter_map(|(own, v4)| {
        let counted = counts.get(own.as_str());
        counted.or_else(|| counts.get(v4.as_str()))
    }) {
        status.accepted += count.accepted;
        status.refused += count.refused;
        status.bytes_in += count.bytes_in;
        status.bytes_out += count.bytes_out;
    }
    status
}

/// Those that are there now.
pub(super) fn live_ports(sandbox: &Sandbox) -> &[Published] {
    match sandbox.is_live() && !sandbox.endpoints.is_empty() {
        true => &sandbox.publishes,
        false => &[],
    }
}

fn check_mode(sandbox: &Sandbox) -> Answer<()> {
    let name = &sandbox.name;
    let refuse = |message: String, hint: String| Err(conflict(message).with_hint(hint));
    match &sandbox.mode {
        NetworkModeRecord::Network(_) => Ok(()),
        NetworkModeRecord::None => refuse(
            format!("sandbox '{name}' has no network, and so no ports to publish"),
            "run it again with --network NETWORK".to_owned(),
        ),
        NetworkModeRecord::Host => refuse(
            format!("sandbox '{name}' shares the host's network: its ports are the host's"),
            "connect to them as they are".to_owned(),
        ),
        NetworkModeRecord::Container { name: other, .. } => refuse(
            format!("sandbox '{name}' shares the network of '{other}', whose ports these are"),
            format!("mossnet port add {other} …"),
        ),
    }
}
