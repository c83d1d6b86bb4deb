//! Sandboxes join and leave networks while they run, or before they run again.
//!
//! Path: `control` → here → `apply` → helper. Invariants: an endpoint is recorded before its veth
//! pair is made and forgotten after it is gone, so that after a `kill -9` in between `reconcile`
//! finds which of the two is missing; whatever fails on the way is taken back.

use super::joining::{attachment, check_attach, of_connect};
use super::model::Model;
use super::refusal::{conflict, failed, malformed};
use super::{Daemon, apply};
use crate::api::control::{Answer, Refusal};
use crate::api::network_types::{NetworkAttach, NetworkConnect, NetworkDisconnect};
use crate::kernel::helper::Helper;
use crate::network::model::DEFAULT_NETWORK;
use crate::network::plan::{connect_plan, detach, disconnect_plan};
use crate::network::{Attachment, Endpoint, LinkRecord, NetworkModeRecord, Sandbox, SandboxPhase};
use mossnet_helper::SandboxId;
use mossnet_helper::request::{ProcessInfo, ProcessState};
use tracing::{debug, error, info, warn};

/// What a connect changed in the records.
struct Joined {
    /// As it is now.
    sandbox: Sandbox,
    /// Of a live one.
    endpoint: Option<Endpoint>,
    network: SandboxId,
    links_before: Vec<LinkRecord>,
    /// Nothing was remembered for its name on this network.
    new_lease: bool,
}

impl Daemon {
    /// Joins a sandbox to a further network: at once where it lives, else when it is started.
    pub(super) async fn connect(&self, network: &str, request: NetworkConnect) -> Answer<()> {
        let attach = of_connect(network, &request.attach);
        check_attach(&attach)?;
        if matches!(network, "host" | "none") {
            return Err(malformed(format!(
                "a sandbox cannot be connected to network '{network}'"
            ))
            .with_hint(format!(
                "choose it at the start: mossnet run --network {network}"
            )));
        }
        if matches!(network, DEFAULT_NETWORK | "default") {
            self.default_network_exists().await?;
        }
        let (id, _) = self.phase_of(&request.sandbox).await?;
        let _turn = self.0.turns.take(&id).await;
        // Before the record: a helper that starts now would take it for a leftover.
        let helper = match self.is_live(&id).await {
            true => Some(self.helper().await?),
            false => None,
        };
        self.make_way_for(&id, &request.sandbox, &attach).await?;
        let joined = self.record_connect(&id, &request, &attach).await?;
        if let (Some(helper), Some(endpoint)) = (&helper, &joined.endpoint)
            && let Err(refusal) = self.bring_up(helper, &joined.sandbox, endpoint).await
        {
            self.take_back(&joined, endpoint).await;
            return Err(refusal);
        }
        info!(sandbox.id = id.short(), network.name = network, "connected");
        self.renew_etc([id]).await;
        self.renew_linked(&joined.sandbox.name).await;
        Ok(())
    }

    async fn make_way_for(
        &self,
        id: &SandboxId,
        sandbox: &str,
        attach: &NetworkAttach,
    ) -> Answer<()> {
        let (name, wanted) = {
            let model = self.0.model.lock().await;
            let network = model.find_network(&attach.network)?;
            let name = model.still(id, sandbox)?.name.clone();
            (name, attachment(network, attach)?)
        };
        self.make_way(Some(&name), &[wanted]).await;
        Ok(())
    }

    async fn is_live(&self, id: &SandboxId) -> bool {
        let model = self.0.model.lock().await;
        model.sandbox(id).is_some_and(Sandbox::is_live)
    }

    /// Its namespace is there.
    fn is_made(&self, sandbox: &Sandbox) -> bool {
        match sandbox.phase {
            SandboxPhase::Created => self.live().pid(&sandbox.id).is_some(),
            SandboxPhase::Running { .. } => true,
            SandboxPhase::Exited { .. } => false,
        }
    }

    async fn record_connect(
        &self,
        id: &SandboxId,
        request: &NetworkConnect,
        attach: &NetworkAttach,
    ) -> Answer<Joined> {
        let (text, links) = (request.sandbox.as_str(), &request.attach.links);
        let mut model = self.0.model.lock().await;
        let mut sandbox = model.still(id, text)?.clone();
        check_mode(&sandbox)?;
        let network = model.find_network(&attach.network)?.clone();
        if on(&sandbox, &network.id, network.name.as_str()).is_some() {
            let message = format!(
                "sandbox '{}' is connected to network '{}' already",
                sandbox.name, network.name
            );
            return Err(conflict(message).with_hint("disconnect it first to change how"));
        }
        let attachment = attachment(&network, attach)?;
        check_ifname(&sandbox, &attachment)?;
        // Of one that does not live only to see that it could.
        let endpoint = model.join(&sandbox, &network, &attachment)?;
        let added = model.links(Some(&sandbox.name), links)?;
        let links_before = sandbox.links.clone();
        let new_links = added.into_iter().filter(|l| !links_before.contains(l));
        sandbox.links.extend(new_links);
        let new_lease = model.lease(&network.id, &sandbox.name).is_empty();
        sandbox.attachments.push(attachment);
        let endpoint = sandbox.is_live().then_some(endpoint);
        sandbox.endpoints.extend(endpoint.clone());
        model.put_joined(sandbox.clone())?;
        Ok(Joined {
            sandbox,
            endpoint,
            network: network.id,
            links_before,
            new_lease,
        })
    }

    async fn bring_up(
        &self,
        helper: &Helper,
        sandbox: &Sandbox,
        endpoint: &Endpoint,
    ) -> Answer<()> {
        {
            let mut link = self.0.link.lock().await;
            self.tell(&mut link, helper).await?;
            link.told.kernel.check(std::slice::from_ref(endpoint))?;
        }
        if !self.is_made(sandbox) {
            // It comes up with the rest.
            return Ok(());
        }
        match apply::perform(helper, connect_plan(sandbox, endpoint), Vec::new()).await {
            // The sandbox, or the bridge: the helper knows both by its own names for them.
            Err(error) if error.is_not_found() => {
                debug!(%error, "connected too late");
                self.check_lives(helper, sandbox).await?;
                return Err(error.into());
            }
            performed => drop(performed?),
        }
        let model = self.0.model.lock().await;
        let still = recorded_as_live(&model, sandbox)?;
        match still.endpoint_on(&endpoint.network) {
            Some(still) if still.id == endpoint.id => Ok(()),
            Some(_) | None => Err(taken_off(sandbox, endpoint)),
        }
    }

    /// Refuses with the truth where a sandbox ended or was removed since it was looked up. The helper
    /// knows of an end before it is recorded.
    async fn check_lives(&self, helper: &Helper, sandbox: &Sandbox) -> Answer<()> {
        recorded_as_live(&*self.0.model.lock().await, sandbox)?;
        let inventory = helper.inventory().await?;
        let lives = |process: &ProcessInfo| !matches!(process.state, ProcessState::Exited(_));
        let mut processes = inventory.processes.iter();
        match processes.find(|process| process.id == sandbox.id) {
            Some(process) if lives(process) => Ok(()),
            Some(_) | None => Err(ended_meanwhile(sandbox)),
        }
    }

    /// Undoes a connect that failed.
    async fn take_back(&self, joined: &Joined, endpoint: &Endpoint) {
        if let Some(helper) = self.current_helper().await {
            apply::teardown(&helper, vec![detach(endpoint)]).await;
        }
        let id = &joined.sandbox.id;
        {
            let mut model = self.0.model.lock().await;
            let undo = |sandbox: &mut Sandbox| {
                sandbox.endpoints.retain(|other| other.id != endpoint.id);
                sandbox.attachments.retain(|a| a.network != joined.network);
                sandbox.links.clone_from(&joined.links_before);
            };
            let mut undone = model.change_sandbox(id, undo).map(drop);
            if joined.new_lease {
                let forgotten = model.forget_lease(&joined.network, &joined.sandbox.name);
                undone = undone.and(forgotten);
            }
            if let Err(error) = undone {
                error!(sandbox.id = id.short(), %error, "failed connect not taken back");
            }
        }
        self.refresh().await;
    }

    /// Takes a sandbox off a network; with `force` also where the kernel does not do it in order. A
    /// stranger to the network is an error all the same, as in Docker.
    pub(super) async fn disconnect(&self, network: &str, request: NetworkDisconnect) -> Answer<()> {
        let NetworkDisconnect { sandbox, force } = request;
        let (id, _) = self.phase_of(&sandbox).await?;
        let _turn = self.0.turns.take(&id).await;
        let (sandbox, left) = self.find_attachment(&id, &sandbox, network).await?;
        let endpoint = sandbox.endpoint_on(&left.network).cloned();
        if let Some(endpoint) = endpoint.as_ref().filter(|_| self.is_made(&sandbox)) {
            let helper = self.helper().await?;
            let plan = disconnect_plan(&sandbox, endpoint);
            match apply::perform(&helper, plan, Vec::new()).await {
                Err(error) if force => {
                    warn!(%error, "disconnected by force");
                    apply::teardown(&helper, vec![detach(endpoint)]).await;
                }
                // It ended meanwhile: then its record says so, or will.
                Err(error) if error.is_not_found() => {}
                performed => drop(performed?),
            }
        }
        self.record_disconnect(&sandbox, &left, endpoint.as_ref())
            .await?;
        info!(
            sandbox.id = id.short(),
            network.name = network,
            "disconnected"
        );
        if endpoint.is_some() {
            // Its names are gone when the caller hears of it.
            self.refresh().await;
        }
        self.renew_etc([id]).await;
        self.renew_linked(&sandbox.name).await;
        Ok(())
    }

    async fn find_attachment(
        &self,
        id: &SandboxId,
        text: &str,
        network: &str,
    ) -> Answer<(Sandbox, Attachment)> {
        let model = self.0.model.lock().await;
        let sandbox = model.still(id, text)?;
        let stranger = |name: &str| {
            conflict(format!(
                "sandbox '{}' is not connected to network '{name}'",
                sandbox.name
            ))
            .with_hint(format!(
                "mossnet inspect {} shows where it is",
                sandbox.name
            ))
        };
        if matches!(network, "host" | "none") {
            return Err(stranger(network));
        }
        let found = match model.find_network(network) {
            Ok(found) => on(sandbox, &found.id, found.name.as_str())
                .ok_or_else(|| stranger(found.name.as_str())),
            // A network that is gone may still be wanted.
            Err(refusal) => sandbox
                .attachments
                .iter()
                .find(|a| a.network_name.as_str() == network)
                .ok_or(refusal),
        };
        Ok((sandbox.clone(), found?.clone()))
    }

    async fn record_disconnect(
        &self,
        sandbox: &Sandbox,
        left: &Attachment,
        endpoint: Option<&Endpoint>,
    ) -> Answer<()> {
        let mut model = self.0.model.lock().await;
        let leave = |sandbox: &mut Sandbox| {
            sandbox.endpoints.retain(|e| e.network != left.network);
            sandbox.attachments.retain(|a| a.network != left.network);
        };
        let Err(error) = model.change_sandbox(&sandbox.id, leave).map(drop) else {
            return Ok(());
        };
        drop(model);
        // Still recorded, so it shall still be there.
        let helper = self.current_helper().await;
        if let (Some(helper), Some(endpoint)) = (helper, endpoint) {
            let again = apply::perform(&helper, connect_plan(sandbox, endpoint), Vec::new()).await;
            if let Err(error) = again {
                error!(sandbox.id = sandbox.id.short(), %error, "failed disconnect not taken back");
            }
        }
        Err(error.into())
    }
}

/// How a sandbox joins this network, if it does; one of that name may have been made anew.
fn on<'a>(sandbox: &'a Sandbox, id: &SandboxId, name: &str) -> Option<&'a Attachment> {
    let mut attachments = sandbox.attachments.iter();
    attachments.find(|a| a.network == *id || a.network_name.as_str() == name)
}

/// A sandbox as it is recorded now, unless it ended or was removed since `then`.
fn recorded_as_live<'a>(model: &'a Model, then: &Sandbox) -> Answer<&'a Sandbox> {
    let now = model.still(&then.id, then.name.as_str())?;
    match now.is_live() {
        true => Ok(now),
        false => Err(ended_meanwhile(then)),
    }
}

fn ended_meanwhile(sandbox: &Sandbox) -> Refusal {
    conflict(format!("sandbox '{}' ended meanwhile", sandbox.name))
        .with_hint("connect it again, and it joins the network when it is started")
}

/// It lives, but without the endpoint that was just recorded: a repair took that for a leftover.
fn taken_off(sandbox: &Sandbox, endpoint: &Endpoint) -> Refusal {
    let (name, interface) = (&sandbox.name, &endpoint.ifname);
    failed(format!(
        "{interface} of sandbox '{name}' was taken away while it was made"
    ))
    .with_hint("try again; daemon.log in the runtime directory (`mossnet info`) may say why")
}

fn check_mode(sandbox: &Sandbox) -> Answer<()> {
    let name = &sandbox.name;
    let refuse = |message: String, hint: &str| Err(conflict(message).with_hint(hint));
    let hint = "run it again with --network NETWORK";
    match &sandbox.mode {
        NetworkModeRecord::Network(_) => Ok(()),
        NetworkModeRecord::None => refuse(
            format!(
                "sandbox '{name}' cannot be connected to multiple networks with one of the networks in private (none) mode"
            ),
            hint,
        ),
        NetworkModeRecord::Host => refuse(
            format!("sandbox '{name}' shares the host's network, and joins no other"),
            hint,
        ),
        NetworkModeRecord::Container { name: other, .. } => refuse(
            format!("sandbox '{name}' shares the network of '{other}', and joins no other"),
            "connect that one",
        ),
    }
}

/// Of one that does not live there are no interfaces yet to compare with.
fn check_ifname(sandbox: &Sandbox, wanted: &Attachment) -> Answer<()> {
    let mut others = sandbox.attachments.iter();
    match &wanted.ifname {
        Some(name) if others.any(|other| other.ifname.as_ref() == Some(name)) => {
            let message = format!("sandbox '{}' has an interface {name} already", sandbox.name);
            Err(conflict(message).with_hint("choose another name for the interface"))
        }
        Some(_) | None => Ok(()),
    }
}
