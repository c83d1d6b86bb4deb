//! The life of one sandbox: start, stop, remove, wait. `creation` makes it.
//!
//! Path: `control` → here → helper. Invariant: the record goes after the last kernel object.

use super::Daemon;
use super::link::LinkLock;
use super::refusal::{conflict, failed, malformed, unknown};
use crate::api::control::Answer;
use crate::api::types::Exit;
use crate::kernel::helper::Helper;
use crate::network::{Sandbox, SandboxPhase};
use mossnet_helper::SandboxId;
use mossnet_helper::request::Request;
use std::time::Duration;
use tracing::info;

/// Between SIGKILL and the end of a process lies the kernel's work only.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How often a removal by force holds against those who start the sandbox.
const REMOVALS: u32 = 5;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

impl Daemon {
    /// Lets its process run; one that has ended is made again first.
    pub(super) async fn start_sandbox(&self, text: &str) -> Answer<()> {
        let (id, _) = self.phase_of(text).await?;
        self.cleaned_up(&id).await;
        let _turn = self.0.turns.take(&id).await;
        let sandbox = self.0.model.lock().await.still(&id, text)?.clone();
        match sandbox.phase {
            SandboxPhase::Created => {}
            SandboxPhase::Running { .. } => {
                return Err(conflict(format!("sandbox '{}' runs already", sandbox.name)));
            }
            SandboxPhase::Exited { .. } => return self.start_again(&id).await,
        }
        if self.live().pid(&id).is_none() {
            let message = format!("sandbox '{}' has no streams yet", sandbox.name);
            return Err(
                conflict(message).with_hint("send its descriptors to the stdio socket first")
            );
        }
        let helper = self.helper().await?;
        let started = self.start_made(&helper, &id).await;
        if started.is_err() {
            // Where its end was seen first, it is recorded as ended and not as discarded.
            self.forget(&id).await?;
        }
        started
    }

    /// Makes one that has ended again, with its former addresses if they are free, and lets it run.
    async fn start_again(&self, id: &SandboxId) -> Answer<()> {
        // Before the record, as for a new one.
        let helper = self.helper().await?;
        let ports = self.bind_again(id).await?;
        let sandbox = self.record_again(id, &ports).await?;
        if let Err(refusal) = self.bring_about(&helper, &sandbox, None).await {
            self.discard(Some(&helper), id, LinkLock::Free).await;
            return Err(refusal);
        }
        info!(sandbox.id = id.short(), sandbox.name = %sandbox.name, "sandbox made again");
        match sandbox.bare {
            true => Ok(()),
            false => self.start_made(&helper, id).await,
        }
    }

    async fn start_made(&self, helper: &Helper, id: &SandboxId) -> Answer<()> {
        let pid = self.live().pid(id).unwrap_or_default();
        let started = helper.call(Request::StartSandbox { id: id.clone() }).await;
        if let Err(error) = started {
            self.discard(Some(helper), id, LinkLock::Free).await;
            return Err(error.into());
        }
        self.record_start(id, pid).await;
        Ok(())
    }

    /// Resolves when nothing of a former run is left in the kernel.
    async fn cleaned_up(&self, id: &SandboxId) {
        let ended = {
            let model = self.0.model.lock().await;
            let phase = model.sandbox(id).map(|sandbox| sandbox.phase);
            matches!(phase, Some(SandboxPhase::Exited { .. }))
        };
        let pending = ended.then(|| self.live().exit_if_pending(id)).flatten();
        if let Some(mut exit) = pending {
            // Closed where it was removed: the same.
            let _ = exit.wait_for(Option::is_some).await;
        }
    }

    /// SIGTERM, then SIGKILL.
    pub(super) async fn stop_sandbox(&self, text: &str, timeout: Duration) -> Answer<()> {
        let (id, phase) = self.phase_of(text).await?;
        match phase {
            SandboxPhase::Exited { .. } => return Ok(()),
            SandboxPhase::Created => {
                self.discard_in_turn(&id).await;
                return Ok(());
            }
            SandboxPhase::Running { .. } => self.check_process(&id).await?,
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
            SandboxPhase::Running { .. } => {
                self.check_process(&id).await?;
                self.signal_sandbox(&id, signal).await
            }
            SandboxPhase::Created | SandboxPhase::Exited { .. } => {
                Err(conflict(format!("sandbox '{text}' is not running")))
            }
        }
    }

    /// Removes it; a running one only with `force`, which also holds against one who starts it again
    /// meanwhile.
    pub(super) async fn remove_sandbox(&self, text: &str, force: bool) -> Answer<()> {
        let (id, mut phase) = self.phase_of(text).await?;
        let mut outcome = Ok(());
        for _ in 0..REMOVALS {
            self.end_for_removal(text, &id, phase, force).await?;
            self.end_linger(&id).await;
            outcome = self.forget(&id).await;
            match self.0.model.lock().await.sandbox(&id) {
                Some(started) if force => phase = started.phase,
                Some(_) => break,
                None => return Ok(()),
            }
        }
        outcome
    }

    /// Sees to it that it does not run.
    async fn end_for_removal(
        &self,
        text: &str,
        id: &SandboxId,
        phase: SandboxPhase,
        force: bool,
    ) -> Answer<()> {
        match phase {
            SandboxPhase::Running { .. } if self.check_process(id).await.is_err() => {
                // There is nobody in it whom this could surprise.
                self.discard_in_turn(id).await;
            }
            SandboxPhase::Running { .. } if !force => {
                return Err(
                    conflict(format!("sandbox '{text}' is running")).with_hint(format!(
                        "stop it first (mossnet stop {text}), or remove it with -f"
                    )),
                );
            }
            SandboxPhase::Running { .. } => self.end_by_force(id).await?,
            SandboxPhase::Created => self.discard_in_turn(id).await,
            SandboxPhase::Exited { .. } => {}
        }
        Ok(())
    }

    /// Takes back what was not started, or has no process, when nobody else changes it.
    pub(super) async fn discard_in_turn(&self, id: &SandboxId) {
        let _turn = self.0.turns.take(id).await;
        let helper = self.current_helper().await;
        self.discard(helper.as_ref(), id, LinkLock::Free).await;
    }

    /// Refuses a sandbox without a process.
    pub(super) async fn check_process(&self, id: &SandboxId) -> Answer<()> {
        let model = self.0.model.lock().await;
        match model.sandbox(id).filter(|sandbox| sandbox.bare) {
            None => Ok(()),
            Some(Sandbox { name, .. }) => {
                let message = format!("sandbox '{name}' is a network namespace without a process");
                Err(conflict(message).with_hint(format!("mossnet rm {name} removes it")))
            }
        }
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
        let (id, phase) = {
            let model = self.0.model.lock().await;
            let sandbox = model.find(text)?;
            (sandbox.id.clone(), sandbox.phase)
        };
        let settled = match phase {
            SandboxPhase::Created => {
                drop(self.0.turns.take(&id).await);
                self.0.model.lock().await.still(&id, text)?.phase
            }
            SandboxPhase::Running { .. } | SandboxPhase::Exited { .. } => phase,
        };
        Ok((id, settled))
    }
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
