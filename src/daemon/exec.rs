//! Further processes in running sandboxes: prepared, given streams, started, signalled, waited for.
//!
//! Invariant: an exec that is not started within a while is forgotten; the exit code of one that
//! ended is kept for a late wait.

use super::draft::check_env_names;
use super::live::PreparedExec;
use super::refusal::{conflict, failed, malformed, unknown};
use super::session::check_signal;
use super::streams::Detached;
use super::{Daemon, clock};
use crate::api::control::Answer;
use crate::api::types::{Created, ExecCreate, Exit, Stdio};
use crate::network::SandboxPhase;
use crate::network::plan::exec_spec;
use mossnet_helper::SandboxId;
use mossnet_helper::request::Request;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// An exec that nobody starts for this long is forgotten.
const START_PATIENCE: Duration = Duration::from_secs(60);

impl Daemon {
    /// Prepares a further process.
    pub(super) async fn prepare_exec(&self, text: &str, request: ExecCreate) -> Answer<Created> {
        if request.command.first().is_none_or(String::is_empty) {
            return Err(malformed("no command was given"));
        }
        check_env_names(&request.env)?;
        let id = clock::new_id().map_err(|error| failed(format!("random bytes: {error}")))?;
        let detached = Detached {
            interactive: request.interactive,
            tty: request.tty,
        };
        let spec = {
            let model = self.0.model.lock().await;
            let sandbox = model.find(text)?;
            if !matches!(sandbox.phase, SandboxPhase::Running { .. }) {
                return Err(conflict(format!("sandbox '{text}' is not running")));
            }
            if sandbox.bare {
                let message = format!("sandbox '{text}' is a network namespace without a process");
                return Err(conflict(message).with_hint("nsenter(1) enters it by its path"));
            }
            let ExecCreate {
                command,
                env,
                workdir,
                interactive: _,
                tty,
                stdio: _,
            } = request;
            exec_spec(sandbox, id.clone(), command, env, workdir, tty)
        };
        let attached = request.stdio == Stdio::Attached;
        let stdio = if attached {
            None
        } else {
            Some(detached.nowhere()?)
        };
        self.live().prepare_exec(PreparedExec {
            spec,
            stdio,
            attached,
        });
        tokio::spawn(self.clone().forget_unless_started(id.clone()));
        let warnings = Vec::new();
        Ok(Created { id, warnings })
    }

    async fn forget_unless_started(self, id: SandboxId) {
        tokio::time::sleep(START_PATIENCE).await;
        let mut live = self.live();
        if live.prepared_exec(&id).is_some() {
            live.ended(&id, None);
        }
    }

    /// Takes the streams of an attached exec.
    pub(super) fn attach_exec(&self, id: &SandboxId, stdio: [OwnedFd; 3]) -> Answer<()> {
        let mut live = self.live();
        let prepared = live.prepared_exec(id).ok_or_else(|| no_such_exec(id))?;
        if !prepared.attached || prepared.stdio.is_some() {
            return Err(conflict(format!(
                "exec {} has its streams already",
                id.short()
            )));
        }
        prepared.stdio = Some(stdio);
        Ok(())
    }

    /// Runs it.
    pub(super) async fn start_exec(&self, id: &SandboxId) -> Answer<()> {
        let PreparedExec { spec, stdio, .. } = self.take_prepared(id)?;
        let helper = self.helper().await?;
        let streams = stdio.map(Vec::from).unwrap_or_default();
        let started = helper.create(Request::Exec(Box::new(spec)), streams).await;
        if let Err(error) = started {
            self.live().ended(id, None);
            return Err(error.into());
        }
        Ok(())
    }

    fn take_prepared(&self, id: &SandboxId) -> Answer<PreparedExec> {
        let mut live = self.live();
        let prepared = live.prepared_exec(id).ok_or_else(|| no_such_exec(id))?;
        if prepared.stdio.is_none() {
            return Err(conflict(format!("exec {} has no streams yet", id.short()))
                .with_hint("send its descriptors to the stdio socket first"));
        }
        live.take_exec(id).ok_or_else(|| no_such_exec(id))
    }

    /// Sends it a signal; ended already is success.
    pub(super) async fn kill_exec(&self, id: SandboxId, signal: i32) -> Answer<()> {
        check_signal(signal)?;
        if !self.live().is_exec(&id) {
            return Err(no_such_exec(&id));
        }
        let helper = self.helper().await?;
        match helper.call(Request::Signal { id, signal }).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Resolves when it has ended.
    pub(super) async fn wait_exec(&self, id: &SandboxId) -> Answer<Exit> {
        let exit = {
            let mut live = self.live();
            let known = live.is_exec(id);
            known.then(|| live.exit_of(id))
        };
        let code = match exit {
            Some(mut exit) => exit
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|code| *code),
            None => self.0.model.lock().await.exit_code(id.as_str())?,
        };
        let code = code.ok_or_else(|| no_such_exec(id))?;
        Ok(Exit { code })
    }
}

fn no_such_exec(id: &SandboxId) -> crate::api::control::Refusal {
    unknown(format!("no such exec: {}", id.short()))
}
