//! The connection to the helper: made on first need, repaired when it breaks, with the helper's
//! events and the memory of what it was told.
//!
//! Invariant: whoever gets a [`Helper`] from here gets one whose holdings agree with the records.

use super::kernel_uplink;
use super::networks::Told;
use super::reconcile::{Action, Known, LOST, reconcile};
use super::{Daemon, apply, clock, files, leftover};
use crate::api::control::Answer;
use crate::kernel::helper::{Helper, HelperError};
use crate::network::plan::{attach, routes_request, teardown};
use crate::network::{Sandbox, SandboxPhase};
use futures_util::future::BoxFuture;
use mossnet_helper::SandboxId;
use mossnet_helper::request::{Event, Inventory, Request};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tracing::{error, info, warn};

/// A helper that closed its connection takes this long to end, at most.
const HELPER_FAREWELL: Duration = Duration::from_secs(10);
/// An external uplink that keeps ending is started again no faster than this.
const UPLINK_PAUSE: Duration = Duration::from_secs(1);

/// Whether the caller holds the lock of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkLock {
    /// Somebody up the stack does.
    Held,
    /// Nobody that waits for us.
    Free,
}

/// The helper, and what it was told.
#[derive(Debug, Default)]
pub(super) struct Link {
    helper: Option<Helper>,
    pub(super) told: Told,
}

impl Link {
    /// The helper, if one is connected.
    pub(super) fn current(&self) -> Option<&Helper> {
        self.helper.as_ref().filter(|helper| !helper.is_gone())
    }
}

impl Daemon {
    /// The helper, started if need be.
    pub(super) async fn helper(&self) -> Answer<Helper> {
        let mut link = self.0.link.lock().await;
        self.ensure(&mut link).await
    }

    /// The same, for a caller that holds the link.
    pub(super) async fn ensure(&self, link: &mut Link) -> Answer<Helper> {
        if let Some(helper) = link.current() {
            return Ok(helper.clone());
        }
        let socket = self.0.paths.helper_socket();
        let (helper, events) = match Helper::connect(&socket).await? {
            Some(connected) => connected,
            None => {
                info!("helper starts");
                Helper::launch(&socket, &self.0.paths.log("helper")).await?
            }
        };
        self.take_up(link, helper.clone(), events).await?;
        Ok(helper)
    }

    /// Brings the records and whatever helper there is together; starts none.
    pub(super) async fn repair(&self) -> Answer<()> {
        let mut link = self.0.link.lock().await;
        if link.current().is_some() {
            return Ok(());
        }
        match Helper::connect(&self.0.paths.helper_socket()).await? {
            Some((helper, events)) => self.take_up(&mut link, helper, events).await,
            None => {
                *link = Link::default();
                self.live().helper_gone();
                self.agree(None, &Inventory::default()).await;
                self.collect_kernel_uplink().await;
                Ok(())
            }
        }
    }

    /// Forgets a helper that has ended; false where it was let go before, its end being expected.
    async fn let_go(&self, helper: &Helper) -> bool {
        let mut link = self.0.link.lock().await;
        let held = link.helper.as_ref();
        let ours = held.is_some_and(|have| have.pid == helper.pid);
        if ours {
            *link = Link::default();
            self.live().helper_gone();
        }
        ours
    }

    /// `repair`, of a named type: it starts `follow`, which ends in `repair`.
    fn repair_boxed(&self) -> BoxFuture<'_, Answer<()>> {
        Box::pin(self.repair())
    }

    /// The helper, if one is connected.
    pub(super) async fn current_helper(&self) -> Option<Helper> {
        self.0.link.lock().await.current().cloned()
    }

    async fn take_up(
        &self,
        link: &mut Link,
        helper: Helper,
        events: UnboundedReceiver<Event>,
    ) -> Answer<()> {
        let inventory = helper.inventory().await?;
        link.told = Told::from_inventory(&inventory);
        link.helper = Some(helper.clone());
        info!(helper.pid = helper.pid, "helper connected");
        {
            let mut live = self.live();
            live.helper_gone();
            for process in &inventory.processes {
                if let Some(descriptor) = process.netns_fd {
                    live.has_netns(&process.id, helper.descriptor(descriptor));
                }
            }
        }
        let unfinished = self.agree(Some(&helper), &inventory).await;
        tokio::spawn(self.clone().follow(helper.clone(), events));
        // Of a helper that was there before, bridges and rules may be half told.
        if let Err(refusal) = self.tell(link, &helper).await {
            warn!(error = %refusal, "networks not told to the helper");
        }
        for (id, missing) in unfinished {
            self.mend(&helper, &id, &missing).await;
        }
        self.renew_all_etc().await;
        Ok(())
    }

    /// Finishes connects of a running sandbox that an earlier daemon began; what cannot be joined
    /// is left.
    async fn mend(&self, helper: &Helper, id: &SandboxId, missing: &[SandboxId]) {
        let Some(sandbox) = self.0.model.lock().await.sandbox(id).cloned() else {
            return;
        };
        let mut requests = Vec::new();
        for endpoint in sandbox.endpoints.iter().filter(|e| missing.contains(&e.id)) {
            let attached = helper.call(attach(id, endpoint, Vec::new())).await;
            if let Err(error) = attached {
                let network = endpoint.network_name.as_str();
                warn!(sandbox.id = id.short(), network, %error, "not joined again");
                self.leave(id, &endpoint.id).await;
            }
        }
        if let Some(sandbox) = self.0.model.lock().await.sandbox(id) {
            requests.push(routes_request(id, &sandbox.endpoints));
        }
        apply::teardown(helper, requests).await;
    }

    async fn leave(&self, id: &SandboxId, endpoint: &SandboxId) {
        let leave = |sandbox: &mut Sandbox| {
            let network = sandbox.endpoints.iter().find(|e| e.id == *endpoint);
            let network = network.map(|endpoint| endpoint.network.clone());
            sandbox.endpoints.retain(|e| e.id != *endpoint);
            (sandbox.attachments).retain(|a| Some(&a.network) != network.as_ref());
        };
        if let Err(error) = self.0.model.lock().await.change_sandbox(id, leave) {
            error!(sandbox.id = id.short(), %error, "lost endpoint not recorded");
        }
    }

    async fn follow(self, helper: Helper, mut events: UnboundedReceiver<Event>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::Exited { id, status } => {
                    let (daemon, helper) = (self.clone(), helper.clone());
                    // Each on its own: cleaning up after one must not keep others waiting.
                    tokio::spawn(async move {
                        let code = status.shell_code();
                        daemon.ended(Some(&helper), &id, code, LinkLock::Free).await;
                    });
                }
                Event::RelayRestarted { status } => {
                    warn!(?status, "relay ended and was started again");
                }
                Event::UplinkExited { kind, status } => {
                    warn!(?kind, ?status, "external uplink ended");
                    self.0.link.lock().await.told.uplink_ended(kind);
                    tokio::time::sleep(UPLINK_PAUSE).await;
                    self.refresh().await;
                }
            }
        }
        if !self.let_go(&helper).await {
            return;
        }
        error!(helper.pid = helper.pid, "helper ended");
        until_ended(&helper).await;
        if let Err(refusal) = self.repair_boxed().await {
            error!(error = %refusal, "records not repaired");
        }
    }

    /// Performs every repair but those that need the bridges, which it returns; goes on where one
    /// fails.
    async fn agree(
        &self,
        helper: Option<&Helper>,
        inventory: &Inventory,
    ) -> Vec<(SandboxId, Vec<SandboxId>)> {
        let actions = {
            let model = self.0.model.lock().await;
            let live = self.live();
            let known = Known {
                sandboxes: model.sandboxes().map(|s| (s, live.claim(&s.id))).collect(),
                bridges: model
                    .networks()
                    .map(|network| network.bridge.clone())
                    .collect(),
            };
            reconcile(&known, inventory)
        };
        if helper.is_none() {
            self.end_lost_execs();
        }
        let mut unfinished = Vec::new();
        for action in actions {
            info!(?action, "repair");
            match action {
                Action::Mend(id, missing) => unfinished.push((id, missing)),
                action => self.repair_one(helper, action).await,
            }
        }
        self.remove_stale_directories().await;
        unfinished
    }

    async fn repair_one(&self, helper: Option<&Helper>, action: Action) {
        match action {
            Action::Exited(id, code) => {
                self.end_leftover(&id).await;
                self.ended(helper, &id, code, LinkLock::Held).await;
            }
            Action::ExecExited(id, code) => {
                self.live().adopt_exec(id.clone(), id.clone());
                self.ended(helper, &id, code, LinkLock::Held).await;
            }
            Action::AdoptExec(id, sandbox) => self.live().adopt_exec(id, sandbox),
            Action::Abandon(id) => self.discard(helper, &id, LinkLock::Held).await,
            Action::Remove(id) => self.finish_removal(&id).await,
            Action::Started(id, pid) => {
                self.live().made(&id, pid);
                self.record_start(&id, pid).await;
            }
            // Later, when the bridges are there.
            Action::Mend(..) => {}
            Action::Clean(request) => {
                if let Some(helper) = helper {
                    apply::teardown(helper, vec![request]).await;
                }
            }
        }
    }

    async fn end_leftover(&self, id: &SandboxId) {
        let model = self.0.model.lock().await;
        if let Some(sandbox) = model.sandbox(id)
            && let SandboxPhase::Running { pid, .. } = sandbox.phase
        {
            leftover::end(pid, &self.etc_dir(sandbox));
        }
    }

    fn end_lost_execs(&self) {
        let mut live = self.live();
        for id in live.running_execs(None) {
            live.ended(&id, Some(LOST));
        }
    }

    async fn remove_stale_directories(&self) {
        let model = self.0.model.lock().await;
        for id in files::directories(&self.0.paths) {
            if model.sandbox(&id).is_none() {
                files::remove_directory(&self.0.paths.sandbox_dir(&id));
            }
        }
    }

    /// The first process of a sandbox, or an exec'd one, ended: record it, clean up, then tell
    /// whoever waits, so that what they do next finds nothing of it (but see `linger`).
    pub(super) async fn ended(
        &self,
        helper: Option<&Helper>,
        id: &SandboxId,
        code: i32,
        lock: LinkLock,
    ) {
        let is_exec = {
            let mut live = self.live();
            // Whoever sees the end from here on can see that it is not cleaned up.
            let _pending = live.exit_of(id);
            live.is_exec(id)
        };
        let (endpoints, name, auto_remove, linger, published) = {
            let mut model = self.0.model.lock().await;
            let sandbox = model.sandbox(id).cloned();
            let name = sandbox.as_ref().map(|s| s.name.clone());
            let auto_remove = sandbox.as_ref().is_some_and(|s| s.auto_remove);
            let recorded = if is_exec {
                model.remove_exited(id, code, clock::now())
            } else {
                model
                    .change_sandbox(id, |s| s.exit(clock::now(), code))
                    .map(drop)
            };
            if let Err(error) = recorded {
                error!(sandbox.id = id.short(), %error, "exit not recorded");
            }
            let holder = sandbox.as_ref().filter(|_| helper.is_some());
            let linger = holder.and_then(|sandbox| model.begin_linger(sandbox));
            let published = sandbox.as_ref().is_some_and(|s| !s.publishes.is_empty());
            let endpoints = sandbox.map(|s| s.endpoints).unwrap_or_default();
            (endpoints, name, auto_remove, linger, published)
        };
        info!(
            sandbox.id = id.short(),
            exit.code = code,
            exec = is_exec,
            "ended"
        );
        if let Some(helper) = helper {
            self.take_down(helper, id, &endpoints, linger).await;
        }
        if let Some(name) = name.filter(|_| !endpoints.is_empty()) {
            self.renew_linked(&name).await;
        }
        if auto_remove && !is_exec {
            self.finish_removal(id).await;
        }
        self.close_ports(published, lock).await;
        self.live().ended(id, Some(code));
        if !endpoints.is_empty() {
            self.refresh_later();
        }
    }

    /// Published ports of one that lives no longer are free when this is done; where the link is
    /// held, when its holder tells the helper.
    async fn close_ports(&self, published: bool, lock: LinkLock) {
        match lock {
            LinkLock::Free if published => self.refresh().await,
            LinkLock::Free | LinkLock::Held => {}
        }
    }

    /// Forgets a sandbox that has exited, with its directory.
    pub(super) async fn finish_removal(&self, id: &SandboxId) {
        let mut model = self.0.model.lock().await;
        let Some(SandboxPhase::Exited { code, .. }) = model.sandbox(id).map(|s| s.phase) else {
            return;
        };
        if let Err(error) = model.remove_exited(id, code, clock::now()) {
            error!(sandbox.id = id.short(), %error, "removal not recorded");
        }
        drop(model);
        files::remove_directory(&self.0.paths.sandbox_dir(id));
    }

    /// Takes back a sandbox that was not started, or that has no process: it is removed, or what it
    /// was before where it was to be started again. The caller has its turn.
    pub(super) async fn discard(&self, helper: Option<&Helper>, id: &SandboxId, lock: LinkLock) {
        let model = self.0.model.lock().await;
        let mortal = |s: &&Sandbox| match s.phase {
            SandboxPhase::Created => true,
            SandboxPhase::Running { .. } => s.bare,
            SandboxPhase::Exited { .. } => false,
        };
        let Some(Sandbox {
            endpoints,
            name,
            publishes,
            ..
        }) = model.sandbox(id).filter(mortal).cloned()
        else {
            return;
        };
        drop(model);
        if let Some(helper) = helper {
            apply::teardown(helper, teardown(id, &endpoints)).await;
        }
        let code = self.lay_down_or_remove(id).await;
        self.close_ports(!publishes.is_empty(), lock).await;
        self.live().ended(id, code);
        if !endpoints.is_empty() {
            self.renew_linked(&name).await;
            self.refresh_later();
        }
    }

    /// The exit code of the former run, if there was one.
    async fn lay_down_or_remove(&self, id: &SandboxId) -> Option<i32> {
        let mut model = self.0.model.lock().await;
        let mut former = None;
        let recorded = match model.sandbox(id).is_some_and(|s| s.former.is_some()) {
            true => {
                let lay_down = |sandbox: &mut Sandbox| former = sandbox.lay_down();
                model.change_sandbox(id, lay_down).map(drop)
            }
            false => model.remove_sandbox(id),
        };
        if let Err(error) = recorded {
            error!(sandbox.id = id.short(), %error, "removal not recorded");
        }
        if former.is_none() {
            files::remove_directory(&self.0.paths.sandbox_dir(id));
        }
        former.map(|run| run.code)
    }

    /// Ends every sandbox, the relay and the helper.
    pub(super) async fn end_helper(&self) -> Result<(), HelperError> {
        let mut link = self.0.link.lock().await;
        let Some(helper) = link.current().cloned() else {
            return Ok(());
        };
        if let Some(made) = link.told.kernel.made().cloned() {
            kernel_uplink::give_back(Some(made)).await;
        }
        let ended = helper.call(Request::Shutdown).await;
        *link = Link::default();
        self.live().helper_gone();
        drop(link);
        match ended {
            Ok(_) | Err(HelperError::Gone) => {
                until_ended(&helper).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Records that a sandbox's process runs, unless it has ended already.
    pub(super) async fn record_start(&self, id: &SandboxId, pid: u32) {
        let started = clock::now();
        let mut model = self.0.model.lock().await;
        let recorded = model.change_sandbox(id, |sandbox| {
            if let SandboxPhase::Created = sandbox.phase {
                sandbox.phase = SandboxPhase::Running { started, pid };
                sandbox.former = None;
            }
        });
        if let Err(error) = recorded {
            error!(sandbox.id = id.short(), %error, "start not recorded");
        }
    }
}

/// Its socket and lock are free then.
async fn until_ended(helper: &Helper) {
    if tokio::time::timeout(HELPER_FAREWELL, helper.ended())
        .await
        .is_err()
    {
        warn!(helper.pid = helper.pid, "helper does not end");
    }
}
