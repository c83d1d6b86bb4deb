//! The life of one sandbox: record, make, start, stop, remove, wait.
//!
//! Path: `control` → here → `apply` → helper. Invariant: the record stands before the first kernel
//! object, and goes after the last; whatever fails on the way is taken back, and the user is told
//! the first failure.

use super::draft::{self, Draft, unknown_network};
use super::files::{self, Etc};
use super::refusal::{conflict, failed, malformed, unknown};
use super::{Daemon, apply, clock};
use crate::api::control::{Answer, Refusal};
use crate::api::types::{Created, Exit, NetworkMode, SandboxCreate, Stdio};
use crate::kernel::helper::Helper;
use crate::network::model::DEFAULT_NETWORK;
use crate::network::plan::{Places, sandbox_plan};
use crate::network::resolv::{Hosts, ResolvConf};
use crate::network::{Network, NetworkModeRecord, Sandbox, SandboxPhase};
use ipnet::IpNet;
use mossnet_helper::SandboxId;
use mossnet_helper::request::Request;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;
use tracing::info;

/// A sandbox that nobody starts for this long is removed: whoever made it has gone.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Between SIGKILL and the end of a process lies the kernel's work only.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

impl Daemon {
    /// Makes a sandbox with its endpoints; its process waits for `start`.
    pub(super) async fn create_sandbox(&self, request: SandboxCreate) -> Answer<Created> {
        let draft = draft::check(request)?;
        // Before the record: a helper that starts now would find it and take it for a leftover.
        let helper = self.helper().await?;
        let sandbox = self.record(&draft).await?;
        let id = sandbox.id.clone();
        if let Err(refusal) = self.bring_about(&helper, &sandbox, &draft).await {
            self.discard(Some(&helper), &id).await;
            return Err(refusal);
        }
        info!(sandbox.id = id.short(), sandbox.name = %sandbox.name, "sandbox made");
        tokio::spawn(self.clone().discard_unless_started(id.clone()));
        let warnings = Vec::new();
        Ok(Created { id, warnings })
    }

    async fn bring_about(&self, helper: &Helper, sandbox: &Sandbox, draft: &Draft) -> Answer<()> {
        let directory = self.0.paths.sandbox_dir(&sandbox.id);
        match sandbox.mode {
            NetworkModeRecord::Container { .. } => files::make_directory(&directory)?,
            NetworkModeRecord::Network(_) | NetworkModeRecord::None | NetworkModeRecord::Host => {
                files::write_etc(&directory, &self.etc_of(sandbox, draft)?)?;
            }
        }
        if !sandbox.endpoints.is_empty() {
            let mut link = self.0.link.lock().await;
            self.tell(&mut link, helper).await?;
        }
        if sandbox.detached {
            let log = files::log_path(&self.0.paths, &sandbox.id);
            let stdio = files::log_streams(&log)?;
            self.make(helper, sandbox, stdio).await?;
        }
        Ok(())
    }

    /// Performs the plan: namespaces, process, veth pairs.
    async fn make(&self, helper: &Helper, sandbox: &Sandbox, stdio: [OwnedFd; 3]) -> Answer<()> {
        let etc = self.etc_dir(sandbox);
        let places = Places {
            etc: &etc,
            runtime: &self.0.paths.runtime,
        };
        let pid = apply::perform(helper, sandbox_plan(sandbox, places), stdio).await?;
        self.live().made(&sandbox.id, pid);
        Ok(())
    }

    /// Where the files laid over its `/etc` are: its own directory, or that of the sandbox whose
    /// network it shares.
    pub(super) fn etc_dir(&self, sandbox: &Sandbox) -> PathBuf {
        match &sandbox.mode {
            NetworkModeRecord::Container { id, .. } => self.0.paths.sandbox_dir(id),
            NetworkModeRecord::Network(_) | NetworkModeRecord::None | NetworkModeRecord::Host => {
                self.0.paths.sandbox_dir(&sandbox.id)
            }
        }
    }

    fn etc_of(&self, sandbox: &Sandbox, draft: &Draft) -> Answer<Etc> {
        let request = &draft.request;
        let first = sandbox.endpoints.first();
        let addresses: Vec<IpAddr> = sandbox
            .endpoints
            .iter()
            .flat_map(|e| &e.addresses)
            .map(IpNet::addr)
            .collect();
        let resolv = ResolvConf {
            gateways: first.map_or(&[], |endpoint| &endpoint.gateways),
            named: first.is_some_and(|e| e.network_name.as_str() != DEFAULT_NETWORK),
            dns: &request.dns,
            dns_search: &request.dns_search,
        };
        let is_host = matches!(sandbox.mode, NetworkModeRecord::Host);
        let hosts_file = is_host.then(|| files::read_small("/etc/hosts"));
        let hosts = Hosts {
            base: hosts_file.as_deref(),
            addresses: &addresses,
            hostname: &sandbox.hostname,
            name: sandbox.name_chosen.then_some(sandbox.name.as_str()),
            extra: &request.add_host,
        };
        Ok(Etc {
            hosts: hosts.render()?,
            resolv_conf: resolv.render(&self.resolver())?,
            hostname: sandbox.hostname.clone(),
        })
    }

    async fn discard_unless_started(self, id: SandboxId) {
        tokio::time::sleep(START_PATIENCE).await;
        let helper = self.current_helper().await;
        self.discard(helper.as_ref(), &id).await;
    }

    /// Takes the streams of an attached sandbox, and makes its process with them.
    pub(super) async fn attach_sandbox(&self, id: &SandboxId, stdio: [OwnedFd; 3]) -> Answer<()> {
        let sandbox = self.0.model.lock().await.find(id.as_str())?.clone();
        if sandbox.detached {
            return Err(conflict(format!("sandbox '{}' is detached", sandbox.name)));
        }
        let waits = matches!(sandbox.phase, SandboxPhase::Created);
        if !waits || self.live().pid(id).is_some() {
            let message = format!("sandbox '{}' has its streams already", sandbox.name);
            return Err(conflict(message));
        }
        let helper = self.helper().await?;
        if let Err(refusal) = self.make(&helper, &sandbox, stdio).await {
            self.discard(Some(&helper), id).await;
            return Err(refusal);
        }
        Ok(())
    }

    /// Lets its process run.
    pub(super) async fn start_sandbox(&self, text: &str) -> Answer<()> {
        let sandbox = self.0.model.lock().await.find(text)?.clone();
        let (id, name) = (sandbox.id, sandbox.name);
        match sandbox.phase {
            SandboxPhase::Created => {}
            SandboxPhase::Running { .. } => {
                return Err(conflict(format!("sandbox '{name}' runs already")));
            }
            SandboxPhase::Exited { .. } => {
                return Err(conflict(format!("sandbox '{name}' has ended"))
                    .with_hint("remove it and run the command again"));
            }
        }
        let Some(pid) = self.live().pid(&id) else {
            return Err(conflict(format!("sandbox '{name}' has no streams yet"))
                .with_hint("send its descriptors to the stdio socket first"));
        };
        let helper = self.helper().await?;
        let _starting = self.0.starts.lock().await;
        let started = helper.call(Request::StartSandbox { id: id.clone() }).await;
        if let Err(error) = started {
            self.discard(Some(&helper), &id).await;
            // Where its end was seen first, it is recorded as ended and not as discarded.
            self.forget(&id).await?;
            return Err(error.into());
        }
        self.record_start(&id, pid).await;
        Ok(())
    }

    /// SIGTERM, then SIGKILL.
    pub(super) async fn stop_sandbox(&self, text: &str, timeout: Duration) -> Answer<()> {
        let (id, phase) = self.phase_of(text).await?;
        match phase {
            SandboxPhase::Exited { .. } => return Ok(()),
            SandboxPhase::Created => {
                let helper = self.current_helper().await;
                self.discard(helper.as_ref(), &id).await;
                return Ok(());
            }
            SandboxPhase::Running { .. } => {}
        }
        if !timeout.is_zero() {
            self.signal_sandbox(&id, SIGTERM).await?;
            if self.exit_within(&id, timeout).await {
                return Ok(());
            }
        }
        self.end_by_force(&id).await
    }

    async fn end_by_force(&self, id: &SandboxId) -> Answer<()> {
        self.signal_sandbox(id, SIGKILL).await?;
        if self.exit_within(id, KILL_PATIENCE).await {
            return Ok(());
        }
        let message = format!("sandbox {} does not end, not even by SIGKILL", id.short());
        Err(failed(message).with_hint("a process in it hangs in the kernel (ps: state D)"))
    }

    /// Whether it ends, and is cleaned up, in time.
    async fn exit_within(&self, id: &SandboxId, timeout: Duration) -> bool {
        let wait = self.wait_sandbox(id.as_str());
        tokio::time::timeout(timeout, wait).await.is_ok()
    }

    /// Sends a signal to a running one; already ended is success.
    async fn signal_sandbox(&self, id: &SandboxId, signal: i32) -> Answer<()> {
        let id = id.clone();
        let helper = self.helper().await?;
        match helper.call(Request::Signal { id, signal }).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Sends a signal.
    pub(super) async fn kill_sandbox(&self, text: &str, signal: i32) -> Answer<()> {
        check_signal(signal)?;
        let (id, phase) = self.phase_of(text).await?;
        match phase {
            SandboxPhase::Running { .. } => self.signal_sandbox(&id, signal).await,
            SandboxPhase::Created | SandboxPhase::Exited { .. } => {
                Err(conflict(format!("sandbox '{text}' is not running")))
            }
        }
    }

    /// Removes it; a running one only with `force`.
    pub(super) async fn remove_sandbox(&self, text: &str, force: bool) -> Answer<()> {
        let (id, phase) = self.phase_of(text).await?;
        match phase {
            SandboxPhase::Running { .. } if !force => {
                return Err(
                    conflict(format!("sandbox '{text}' is running")).with_hint(format!(
                        "stop it first (mossnet stop {text}), or remove it with -f"
                    )),
                );
            }
            SandboxPhase::Running { .. } => self.end_by_force(&id).await?,
            SandboxPhase::Created => {
                let helper = self.current_helper().await;
                self.discard(helper.as_ref(), &id).await;
            }
            SandboxPhase::Exited { .. } => {}
        }
        self.end_linger(&id).await;
        self.forget(&id).await
    }

    /// Forgets a sandbox that has ended; unknown is success.
    async fn forget(&self, id: &SandboxId) -> Answer<()> {
        self.finish_removal(id).await;
        match self.0.model.lock().await.sandbox(id) {
            None => Ok(()),
            Some(sandbox) => Err(conflict(format!(
                "sandbox '{}' was started meanwhile",
                sandbox.name
            ))),
        }
    }

    /// Resolves when its first process has ended.
    pub(super) async fn wait_sandbox(&self, text: &str) -> Answer<Exit> {
        let mut exit = {
            let model = self.0.model.lock().await;
            match model.find(text) {
                Ok(sandbox) => match sandbox.phase {
                    // Not yet cleaned up where somebody is still to be told.
                    SandboxPhase::Exited { code, .. } => {
                        match self.live().exit_if_pending(&sandbox.id) {
                            Some(exit) => exit,
                            None => return Ok(Exit { code }),
                        }
                    }
                    SandboxPhase::Created | SandboxPhase::Running { .. } => {
                        self.live().exit_of(&sandbox.id)
                    }
                },
                Err(refusal) => {
                    let code = model.exit_code(text)?.ok_or(refusal)?;
                    return Ok(Exit { code });
                }
            }
        };
        let code = exit
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|code| *code);
        let code = code.ok_or_else(|| unknown(format!("sandbox '{text}' was removed")))?;
        Ok(Exit { code })
    }

    /// Where it is in its life; one that is being started has been, or has failed.
    pub(super) async fn phase_of(&self, text: &str) -> Answer<(SandboxId, SandboxPhase)> {
        let look = async || {
            let model = self.0.model.lock().await;
            model
                .find(text)
                .map(|sandbox| (sandbox.id.clone(), sandbox.phase))
        };
        match look().await? {
            (_, SandboxPhase::Created) => {
                let _no_start = self.0.starts.lock().await;
                look().await
            }
            settled => Ok(settled),
        }
    }

    /// What `--network` means now.
    pub(super) async fn resolve_mode(
        &self,
        draft: &Draft,
    ) -> Answer<(NetworkModeRecord, Option<Network>)> {
        match &draft.network {
            NetworkMode::None => Ok((NetworkModeRecord::None, None)),
            NetworkMode::Host => Ok((NetworkModeRecord::Host, None)),
            NetworkMode::Network(name) => {
                let network = self.named_network(name, draft).await?;
                Ok((
                    NetworkModeRecord::Network(network.name.clone()),
                    Some(network),
                ))
            }
            NetworkMode::Container(text) => {
                let model = self.0.model.lock().await;
                let other = model.find(text)?;
                let running = matches!(other.phase, SandboxPhase::Running { .. });
                match &other.mode {
                    _ if !running => Err(conflict(format!(
                        "sandbox '{text}', whose network is to be shared, is not running"
                    ))),
                    // The chain ends at the one whose netns it is.
                    NetworkModeRecord::Container { .. } | NetworkModeRecord::Host => {
                        Ok((other.mode.clone(), None))
                    }
                    NetworkModeRecord::Network(_) | NetworkModeRecord::None => {
                        let (id, name) = (other.id.clone(), other.name.clone());
                        Ok((NetworkModeRecord::Container { id, name }, None))
                    }
                }
            }
        }
    }

    async fn named_network(&self, name: &str, draft: &Draft) -> Answer<Network> {
        let wish = draft.request.uplink;
        if name == DEFAULT_NETWORK {
            return self.default_network(wish).await;
        }
        let model = self.0.model.lock().await;
        let Some(network) = model.network(name) else {
            let mut known = vec!["bridge", "host", "none"];
            let others = model.networks().map(|network| network.name.as_str());
            known.extend(others.filter(|name| *name != DEFAULT_NETWORK));
            return Err(unknown_network(name, &known));
        };
        match wish.map(super::uplink::kind_of) {
            Some(wish) if wish != network.uplink => {
                let has = super::uplink::name_of(network.uplink);
                Err(conflict(format!("network '{name}' has uplink {has}"))
                    .with_hint("leave --uplink out, or make another network"))
            }
            Some(_) | None => Ok(network.clone()),
        }
    }

    /// Chooses name and addresses, and commits the record.
    async fn record(&self, draft: &Draft) -> Answer<Sandbox> {
        let (mode, network) = self.resolve_mode(draft).await?;
        if let Some(network) = &network {
            let wishes = super::endpoint::wishes(&draft.request);
            self.make_way(draft.name.as_ref(), network, &wishes).await;
        }
        let id = clock::new_id().map_err(random_failed)?;
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
        let request = &draft.request;
        let mut sandbox = Sandbox {
            command: request.command.clone(),
            env: draft.environment(&hostname),
            workdir: draft.workdir(),
            rootfs: request.rootfs.clone(),
            capabilities: draft.capabilities.clone(),
            tty: request.tty,
            detached: request.stdio == Stdio::Detached,
            auto_remove: request.auto_remove,
            name_chosen: draft.name.is_some(),
            endpoints: Vec::new(),
            created: clock::now(),
            phase: SandboxPhase::Created,
            id,
            name,
            hostname,
            mode,
        };
        if let Some(network) = network {
            let endpoint = model.join(&sandbox, &network, &super::endpoint::wishes(request))?;
            sandbox.endpoints.push(endpoint);
        }
        self.live().making(&sandbox.id);
        model.put_sandbox(sandbox.clone())?;
        Ok(sandbox)
    }
}

fn random_failed(error: std::io::Error) -> Refusal {
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

/// Signal numbers of Linux.
pub(super) fn check_signal(signal: i32) -> Answer<()> {
    if (1..=64).contains(&signal) {
        return Ok(());
    }
    Err(malformed(format!(
        "{signal} is not a signal number (1 to 64)"
    )))
}
