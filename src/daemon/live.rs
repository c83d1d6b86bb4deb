//! What belongs to this process alone: who waits for which exit, execs that are prepared, and which
//! sandboxes this daemon answers for. Lost with the daemon, and nothing is lost by it.

use super::reconcile::Claim;
use mossnet_helper::SandboxId;
use mossnet_helper::request::ExecSpec;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use tokio::sync::watch;

/// Becomes the exit code; closed without one where the thing was removed before it ran.
pub(super) type ExitReceiver = watch::Receiver<Option<i32>>;

#[derive(Debug)]
struct LiveSandbox {
    claim: Claim,
    pid: u32,
}

#[derive(Debug)]
struct LiveExec {
    sandbox: SandboxId,
    /// Until it is started.
    prepared: Option<PreparedExec>,
}

/// An exec that was asked for and not started.
#[derive(Debug)]
pub(super) struct PreparedExec {
    /// What to run.
    pub(super) spec: ExecSpec,
    /// Its streams, once they came.
    pub(super) stdio: Option<[OwnedFd; 3]>,
    /// Streams come from the client.
    pub(super) attached: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Live {
    sandboxes: HashMap<SandboxId, LiveSandbox>,
    execs: HashMap<SandboxId, LiveExec>,
    exits: HashMap<SandboxId, watch::Sender<Option<i32>>>,
    /// Paths that lead to the network namespaces of sandboxes without a process, by descriptors of
    /// the helper that is connected.
    netns: HashMap<SandboxId, PathBuf>,
}

impl Live {
    /// This daemon begins to make a sandbox.
    pub(super) fn making(&mut self, id: &SandboxId) {
        let claim = Claim::Making;
        self.sandboxes
            .insert(id.clone(), LiveSandbox { claim, pid: 0 });
    }

    /// Its process is made.
    pub(super) fn made(&mut self, id: &SandboxId, pid: u32) {
        let claim = Claim::Made;
        self.sandboxes
            .insert(id.clone(), LiveSandbox { claim, pid });
    }

    /// Who answers for a sandbox.
    pub(super) fn claim(&self, id: &SandboxId) -> Claim {
        self.sandboxes
            .get(id)
            .map_or(Claim::Nobody, |sandbox| sandbox.claim)
    }

    /// The process id of a sandbox whose process is made.
    pub(super) fn pid(&self, id: &SandboxId) -> Option<u32> {
        let made = self
            .sandboxes
            .get(id)
            .filter(|sandbox| sandbox.claim == Claim::Made);
        made.map(|sandbox| sandbox.pid)
    }

    /// The helper is gone, and every namespace that it held.
    pub(super) fn helper_gone(&mut self) {
        self.netns.clear();
    }

    /// Where the network namespace of a sandbox without a process is.
    pub(super) fn has_netns(&mut self, id: &SandboxId, path: PathBuf) {
        self.netns.insert(id.clone(), path);
    }

    /// A path that leads to that namespace.
    pub(super) fn netns_path(&self, id: &SandboxId) -> Option<PathBuf> {
        self.netns.get(id).cloned()
    }

    /// Follows the end of a sandbox or exec.
    pub(super) fn exit_of(&mut self, id: &SandboxId) -> ExitReceiver {
        self.exits
            .entry(id.clone())
            .or_insert_with(|| watch::Sender::new(None))
            .subscribe()
    }

    /// The same, if its end is still to be told: it is being cleaned up.
    pub(super) fn exit_if_pending(&self, id: &SandboxId) -> Option<ExitReceiver> {
        self.exits.get(id).map(watch::Sender::subscribe)
    }

    /// Tells whoever waits; `None`: it never ran.
    pub(super) fn ended(&mut self, id: &SandboxId, code: Option<i32>) {
        self.sandboxes.remove(id);
        self.netns.remove(id);
        self.execs.remove(id);
        if let Some(exit) = self.exits.remove(id) {
            exit.send_replace(code);
        }
    }

    /// Keeps an exec until it is started.
    pub(super) fn prepare_exec(&mut self, prepared: PreparedExec) {
        let sandbox = prepared.spec.sandbox.clone();
        let id = prepared.spec.id.clone();
        let prepared = Some(prepared);
        self.execs.insert(id, LiveExec { sandbox, prepared });
    }

    /// The exec, while it waits for its start.
    pub(super) fn prepared_exec(&mut self, id: &SandboxId) -> Option<&mut PreparedExec> {
        self.execs.get_mut(id)?.prepared.as_mut()
    }

    /// Takes it, to start it.
    pub(super) fn take_exec(&mut self, id: &SandboxId) -> Option<PreparedExec> {
        self.execs.get_mut(id)?.prepared.take()
    }

    /// An exec of an earlier daemon that still runs.
    pub(super) fn adopt_exec(&mut self, id: SandboxId, sandbox: SandboxId) {
        let running = LiveExec {
            sandbox,
            prepared: None,
        };
        self.execs.entry(id).or_insert(running);
    }

    /// An exec is known by this id.
    pub(super) fn is_exec(&self, id: &SandboxId) -> bool {
        self.execs.contains_key(id)
    }

    /// Execs that were started, of every sandbox or of one.
    pub(super) fn running_execs(&self, sandbox: Option<&SandboxId>) -> Vec<SandboxId> {
        let of = |exec: &LiveExec| sandbox.is_none_or(|sandbox| exec.sandbox == *sandbox);
        let running = self
            .execs
            .iter()
            .filter(|(_, exec)| exec.prepared.is_none() && of(exec));
        running.map(|(id, _)| id.clone()).collect()
    }

    /// Execs are known, prepared or running.
    pub(super) fn has_execs(&self) -> bool {
        !self.execs.is_empty()
    }
}
