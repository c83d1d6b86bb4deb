//! A new sandbox, or one that is made again: recorded, told about, made.
//!
//! Path: `control` → here → `apply` → helper. Invariant: the record stands before the first kernel
//! object; whatever fails on the way is taken back, and the user is told the first failure.

use super::apply::{self, Made};
use super::draft::{self, Draft};
use super::link::LinkLock;
use super::publish::Parked;
use super::refusal::{conflict, failed};
use super::streams::Detached;
use super::uplink::{kind_of, name_of};
use super::{Daemon, clock, files};
use crate::api::control::{Answer, Refusal};
use crate::api::network_types::{NetnsAdopt, NetnsCreate, NetnsCreated, NetworkAttach};
use crate::api::types::{Created, NetworkMode, SandboxCreate, Stdio, Uplink};
use crate::kernel::helper::Helper;
use crate::network::model::DEFAULT_NETWORK;
use crate::network::plan::{Places, sandbox_plan};
use crate::network::{Attachment, NetworkModeRecord, Sandbox, SandboxName, SandboxPhase};
use mossnet_helper::SandboxId;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tracing::info;

/// A sandbox that nobody starts for this long is removed: whoever made it has gone.
const START_PATIENCE: Duration = Duration::from_secs(60);

impl Daemon {
    /// Makes a sandbox with its endpoints; its process waits for `start`.
    pub(super) async fn create_sandbox(&self, request: SandboxCreate) -> Answer<Created> {
        let draft = draft::check(request)?;
        let (helper, id) = self.before_creation().await?;
        let _turn = self.0.turns.take(&id).await;
        self.create(&helper, &id, &draft, None).await?;
        tokio::spawn(self.clone().discard_unless_started(id.clone()));
        let warnings = draft.warnings;
        Ok(Created { id, warnings })
    }

    /// Makes a sandbox without a process.
    pub(super) async fn create_bare(&self, request: NetnsCreate) -> Answer<NetnsCreated> {
        self.bare(draft::check_netns(request)?, None).await
    }

    /// Makes another runtime's network namespace one.
    pub(super) async fn adopt(&self, request: NetnsAdopt, netns: OwnedFd) -> Answer<NetnsCreated> {
        self.bare(draft::check_adopt(request)?, Some(netns)).await
    }

    async fn bare(&self, draft: Draft, netns: Option<OwnedFd>) -> Answer<NetnsCreated> {
        let (helper, id) = self.before_creation().await?;
        let _turn = self.0.turns.take(&id).await;
        self.create(&helper, &id, &draft, netns).await?;
        self.follow_owner(&id, draft.adopted);
        let path = self.live().netns_path(&id);
        let path = path.ok_or_else(|| failed("the network namespace was lost meanwhile"))?;
        let warnings = Vec::new();
        Ok(NetnsCreated { id, path, warnings })
    }

    /// A helper that starts after the record was made would find it and take it for a leftover.
    async fn before_creation(&self) -> Answer<(Helper, SandboxId)> {
        let helper = self.helper().await?;
        let id = clock::new_id().map_err(random_failed)?;
        Ok((helper, id))
    }

    async fn create(
        &self,
        helper: &Helper,
        id: &SandboxId,
        draft: &Draft,
        netns: Option<OwnedFd>,
    ) -> Answer<()> {
        let by_kernel = self.will_be_on_kernel(draft).await;
        let ports = self.bind(&draft.publish, by_kernel).await?;
        let sandbox = self.record(id, draft, &ports).await?;
        if let Err(refusal) = self.bring_about(helper, &sandbox, netns).await {
            self.discard(Some(helper), id, LinkLock::Free).await;
            return Err(refusal);
        }
        info!(sandbox.id = id.short(), sandbox.name = %sandbox.name, "sandbox made");
        Ok(())
    }

    /// Makes what a record describes, but for the process of an attached sandbox, which wants its
    /// streams first. `netns`: that of an adopted one.
    pub(super) async fn bring_about(
        &self,
        helper: &Helper,
        sandbox: &Sandbox,
        netns: Option<OwnedFd>,
    ) -> Answer<()> {
        self.make_etc(sandbox).await?;
        if !sandbox.endpoints.is_empty() {
            let mut link = self.0.link.lock().await;
            self.tell(&mut link, helper).await?;
            link.told.kernel.check(&sandbox.endpoints)?;
        }
        if sandbox.bare {
            self.make(helper, sandbox, netns.into_iter().collect())
                .await?;
            self.record_start(&sandbox.id, 0).await;
        } else if sandbox.detached {
            let log = files::log_path(&self.0.paths, &sandbox.id);
            let streams = Detached {
                interactive: sandbox.interactive,
                tty: sandbox.tty,
            };
            self.make(helper, sandbox, streams.open(&log)?.into())
                .await?;
        }
        if !sandbox.endpoints.is_empty() {
            self.renew_linked(&sandbox.name).await;
        }
        Ok(())
    }

    /// Performs the plan: namespaces, process, veth pairs.
    async fn make(&self, helper: &Helper, sandbox: &Sandbox, fds: Vec<OwnedFd>) -> Answer<()> {
        let etc = self.etc_dir(sandbox);
        let places = Places {
            etc: &etc,
            runtime: &self.0.paths.runtime,
        };
        let made = apply::perform(helper, sandbox_plan(sandbox, places), fds).await?;
        let mut live = self.live();
        match made {
            Made::Nothing => {}
            Made::Process(pid) => live.made(&sandbox.id, pid),
            Made::Netns(netns) => {
                live.made(&sandbox.id, 0);
                live.has_netns(&sandbox.id, helper.descriptor(netns));
            }
        }
        Ok(())
    }

    /// Takes the streams of an attached sandbox, and makes its process with them.
    pub(super) async fn attach_sandbox(&self, id: &SandboxId, stdio: [OwnedFd; 3]) -> Answer<()> {
        let _turn = self.0.turns.take(id).await;
        let sandbox = self.0.model.lock().await.still(id, id.short())?.clone();
        if sandbox.detached || sandbox.bare {
            return Err(conflict(format!("sandbox '{}' is detached", sandbox.name)));
        }
        let waits = matches!(sandbox.phase, SandboxPhase::Created);
        if !waits || self.live().pid(id).is_some() {
            let message = format!("sandbox '{}' has its streams already", sandbox.name);
            return Err(conflict(message));
        }
        let helper = self.helper().await?;
        if let Err(refusal) = self.make(&helper, &sandbox, stdio.into()).await {
            self.discard(Some(&helper), id, LinkLock::Free).await;
            return Err(refusal);
        }
        Ok(())
    }

    async fn discard_unless_started(self, id: SandboxId) {
        tokio::time::sleep(START_PATIENCE).await;
        let _turn = self.0.turns.take(&id).await;
        let helper = self.current_helper().await;
        self.discard(helper.as_ref(), &id, LinkLock::Free).await;
    }

    /// What `--network` means now.
    async fn resolve_mode(&self, draft: &Draft) -> Answer<(NetworkModeRecord, Vec<Attachment>)> {
        match &draft.network {
            NetworkMode::None => Ok((NetworkModeRecord::None, Vec::new())),
            NetworkMode::Host => Ok((NetworkModeRecord::Host, Vec::new())),
            NetworkMode::Networks(joined) => self.resolve_networks(joined, draft).await,
            NetworkMode::Container(text) => {
                let model = self.0.model.lock().await;
                let other = model.find(text)?;
                let running = matches!(other.phase, SandboxPhase::Running { .. });
                let mode = match &other.mode {
                    _ if other.adopted.is_some() => {
                        return Err(conflict(format!(
                            "sandbox '{text}' is another runtime's, and shares its network with nobody"
                        )));
                    }
                    _ if !running => {
                        return Err(conflict(format!(
                            "sandbox '{text}', whose network is to be shared, is not running"
                        )));
                    }
                    // The chain ends at the one whose netns it is.
                    NetworkModeRecord::Container { .. } | NetworkModeRecord::Host => {
                        other.mode.clone()
                    }
                    NetworkModeRecord::Network(_) | NetworkModeRecord::None => {
                        let (id, name) = (other.id.clone(), other.name.clone());
                        NetworkModeRecord::Container { id, name }
                    }
                };
                Ok((mode, Vec::new()))
            }
        }
    }

    async fn resolve_networks(
        &self,
        joined: &[NetworkAttach],
        draft: &Draft,
    ) -> Answer<(NetworkModeRecord, Vec<Attachment>)> {
        let uplink = draft.request.uplink;
        if let Some(at) = joined.iter().position(|a| a.network == DEFAULT_NETWORK) {
            self.default_network(uplink.filter(|_| at == 0)).await?;
        }
        let model = self.0.model.lock().await;
        let attachments = model.attachments(joined)?;
        let first = attachments.first();
        let first = first.ok_or_else(|| failed("no network was chosen"))?;
        let has = model.network_by_id(&first.network).map(|n| n.uplink);
        check_uplink(first, has.map(name_of), uplink)?;
        Ok((
            NetworkModeRecord::Network(first.network_name.clone()),
            attachments,
        ))
    }

    /// Chooses name and addresses, and commits the record.
    async fn record(&self, id: &SandboxId, draft: &Draft, ports: &Parked<'_>) -> Answer<Sandbox> {
        let (mode, attachments) = self.resolve_mode(draft).await?;
        self.make_way(draft.name.as_ref(), &attachments).await;
        let mut model = self.0.model.lock().await;
        let name = match &draft.name {
            Some(name) => {
                model.check_name_free(name)?;
                name.clone()
            }
            None => model.make_up_name()?,
        };
        let hostname = match &mode {
            NetworkModeRecord::Container { id, .. } => {
                let other = model.sandbox(id).map(|sandbox| sandbox.hostname.clone());
                other.unwrap_or_else(|| id.short().to_owned())
            }
            NetworkModeRecord::Host => draft.request.hostname.clone().unwrap_or_else(host_name),
            NetworkModeRecord::Network(_) | NetworkModeRecord::None => draft
                .request
                .hostname
                .clone()
                .unwrap_or_else(|| id.short().to_owned()),
        };
        let mut sandbox = new_sandbox(id, name, hostname, draft);
        sandbox.links = model.links(Some(&sandbox.name), &draft.request.links)?;
        (sandbox.mode, sandbox.attachments) = (mode, attachments);
        sandbox.publishes.clone_from(&ports.publishes);
        model.join_all(&mut sandbox)?;
        model.check_host_loopback(&sandbox)?;
        self.live().making(&sandbox.id);
        model.put_joined(sandbox.clone())?;
        Ok(sandbox)
    }

    async fn known(&self, id: &SandboxId) -> Option<Sandbox> {
        self.0.model.lock().await.sandbox(id).cloned()
    }

    /// Commits that one that has ended is to run again, on its networks.
    pub(super) async fn record_again(&self, id: &SandboxId, ports: &Parked<'_>) -> Answer<Sandbox> {
        self.end_linger(id).await;
        if let Some(sandbox) = self.known(id).await {
            self.make_way(Some(&sandbox.name), &sandbox.attachments)
                .await;
        }
        let mut model = self.0.model.lock().await;
        let mut sandbox = model.still(id, id.short())?.clone();
        if let NetworkModeRecord::Container { id, name } = &sandbox.mode {
            let other = model.sandbox(id).map(|other| other.phase);
            if !matches!(other, Some(SandboxPhase::Running { .. })) {
                return Err(conflict(format!(
                    "sandbox '{name}', whose network '{}' shares, is not running",
                    sandbox.name
                )));
            }
        }
        if sandbox.revive().is_none() {
            let message = format!("sandbox '{}' was started meanwhile", sandbox.name);
            return Err(conflict(message));
        }
        sandbox.publishes.clone_from(&ports.publishes);
        model.join_all(&mut sandbox)?;
        model.check_host_loopback(&sandbox)?;
        self.live().making(&sandbox.id);
        model.put_joined(sandbox.clone())?;
        Ok(sandbox)
    }
}

/// A record without networks.
fn new_sandbox(id: &SandboxId, name: SandboxName, hostname: String, draft: &Draft) -> Sandbox {
    let request = &draft.request;
    Sandbox {
        id: id.clone(),
        name,
        // Of another runtime's containers each has a name of its own, which never comes again.
        name_chosen: draft.name.is_some() && draft.adopted.is_none(),
        command: request.command.clone(),
        env: draft.environment(&hostname),
        hostname,
        workdir: draft.workdir(),
        rootfs: request.rootfs.clone(),
        capabilities: draft.capabilities.clone(),
        interactive: request.interactive,
        tty: request.tty,
        detached: !draft.bare && request.stdio == Stdio::Detached,
        // There is no way back into another runtime's namespace once it was let go.
        auto_remove: request.auto_remove || draft.adopted.is_some(),
        mode: NetworkModeRecord::None,
        attachments: Vec::new(),
        endpoints: Vec::new(),
        links: Vec::new(),
        publishes: Vec::new(),
        host_loopback: request.host_loopback.clone(),
        dns: request.dns.clone(),
        dns_search: request.dns_search.clone(),
        add_host: request.add_host.clone(),
        bare: draft.bare,
        adopted: draft.adopted,
        former: None,
        created: clock::now(),
        phase: SandboxPhase::Created,
    }
}

/// Only the default network changes its way out with a wish, and has done so already.
fn check_uplink(first: &Attachment, has: Option<&'static str>, wish: Option<Uplink>) -> Answer<()> {
    let wish = wish.map(|wish| name_of(kind_of(wish)));
    match (has, wish) {
        (Some(has), Some(wish)) if has != wish => {
            let name = &first.network_name;
            Err(conflict(format!("network '{name}' has uplink {has}"))
                .with_hint("leave --uplink out, or make another network"))
        }
        (_, _) => Ok(()),
    }
}

pub(super) fn random_failed(error: std::io::Error) -> Refusal {
    failed(format!("random bytes: {error}"))
}

/// The host's own name; its tail where it is longer than a sandbox's can be.
fn host_name() -> String {
    let name = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    name.filter(|name| files::check_hostname(name).is_ok())
        .unwrap_or_else(|| "localhost".into())
}
