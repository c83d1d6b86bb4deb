//! Repair after a crash: what the records say, what the helper holds, and what to do about the
//! difference. Pure; `daemon::link` performs the actions.
//!
//! Invariants: a record is written before the kernel objects that it describes, so that whatever
//! the helper holds without a record is a leftover; applying the actions twice changes nothing the
//! second time.

use crate::network::{Sandbox, SandboxPhase};
use mossnet_helper::request::{Inventory, ProcessInfo, ProcessState, Request};
use mossnet_helper::{IfName, SandboxId};
use std::collections::{BTreeSet, HashMap};

/// Exit code of a process whose end nobody saw: it was killed with its helper (128 + SIGKILL).
pub(super) const LOST: i32 = 137;

/// Who answers for a sandbox that is recorded and not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nobody: an earlier daemon made it.
    Nobody,
    /// A request of this daemon that has not made its process yet.
    Making,
    /// This daemon has made its process.
    Made,
}

/// One repair.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// The sandbox's first process ended with this code: record it and clean up.
    Exited(SandboxId, i32),
    /// It runs, as this process, though the record says that it was not started.
    Started(SandboxId, u32),
    /// Nobody will start it: remove it.
    Abandon(SandboxId),
    /// It ended earlier and was to be removed then.
    Remove(SandboxId),
    /// An exec'd process still runs in this sandbox.
    AdoptExec(SandboxId, SandboxId),
    /// An exec'd process ended with this code.
    ExecExited(SandboxId, i32),
    /// It runs without these of its endpoints, or perhaps without its default routes: join it.
    Mend(SandboxId, Vec<SandboxId>),
    /// A leftover in the kernel: perform this request.
    Clean(Request),
}

/// What the stores and this daemon know.
#[derive(Debug, Clone, Default)]
pub(super) struct Known<'a> {
    /// Each record with who answers for it.
    pub(super) sandboxes: Vec<(&'a Sandbox, Claim)>,
    /// Bridges of all networks.
    pub(super) bridges: BTreeSet<IfName>,
}

/// The repairs that make `known` and `inventory` agree.
pub(super) fn reconcile(known: &Known<'_>, inventory: &Inventory) -> Vec<Action> {
    let mut actions: Vec<Action> = Vec::new();
    let processes: HashMap<&SandboxId, &ProcessInfo> =
        inventory.processes.iter().map(|p| (&p.id, p)).collect();
    for (sandbox, claim) in &known.sandboxes {
        let process = processes.get(&sandbox.id).copied();
        actions.extend(sandbox_action(sandbox, *claim, process));
    }
    actions.extend(unfinished(known, inventory, &processes));
    actions.extend(process_leftovers(known, inventory));
    actions.extend(interface_leftovers(known, inventory));
    actions
}

fn sandbox_action(
    sandbox: &Sandbox,
    claim: Claim,
    process: Option<&ProcessInfo>,
) -> Option<Action> {
    let id = sandbox.id.clone();
    let state = process.map(|process| process.state);
    match (sandbox.phase, state) {
        (SandboxPhase::Exited { .. }, _) if sandbox.auto_remove => Some(Action::Remove(id)),
        // Its end is recorded; the helper need not keep it.
        (SandboxPhase::Exited { .. }, Some(_)) => Some(Action::Clean(Request::Forget { id })),
        (SandboxPhase::Exited { .. }, None) => None,
        (SandboxPhase::Running { .. }, Some(ProcessState::Running)) => None,
        (SandboxPhase::Running { .. }, None | Some(ProcessState::Created)) => {
            Some(Action::Exited(id, LOST))
        }
        (SandboxPhase::Created, Some(ProcessState::Running)) => {
            process.map(|process| Action::Started(id, process.pid))
        }
        (
            SandboxPhase::Running { .. } | SandboxPhase::Created,
            Some(ProcessState::Exited(status)),
        ) => Some(Action::Exited(id, status.shell_code())),
        (SandboxPhase::Created, None | Some(ProcessState::Created)) => match claim {
            Claim::Nobody => Some(Action::Abandon(id)),
            Claim::Making => None,
            Claim::Made if state.is_none() => Some(Action::Exited(id, LOST)),
            Claim::Made => None,
        },
    }
}

/// Running sandboxes whose joining or leaving of a network was broken off.
fn unfinished(
    known: &Known<'_>,
    inventory: &Inventory,
    processes: &HashMap<&SandboxId, &ProcessInfo>,
) -> Vec<Action> {
    let there: BTreeSet<&IfName> = inventory.endpoints.iter().map(|(name, _)| name).collect();
    let runs = |sandbox: &Sandbox| {
        let process = processes.get(&sandbox.id).map(|process| process.state);
        sandbox.is_live() && process == Some(ProcessState::Running)
    };
    let action = |(sandbox, _): &(&Sandbox, Claim)| {
        if !runs(sandbox) {
            return None;
        }
        let missing = sandbox.endpoints.iter();
        let missing = missing.filter(|e| !there.contains(&e.router_ifname));
        let missing: Vec<_> = missing.map(|e| e.id.clone()).collect();
        let whole = missing.is_empty() && sandbox.attachments.len() < 2;
        (!whole).then(|| Action::Mend(sandbox.id.clone(), missing))
    };
    known.sandboxes.iter().filter_map(action).collect()
}

/// Processes without a record, and exec'd ones, which have none.
fn process_leftovers(known: &Known<'_>, inventory: &Inventory) -> Vec<Action> {
    let records: BTreeSet<&SandboxId> = known.sandboxes.iter().map(|(s, _)| &s.id).collect();
    let recorded = |id: &SandboxId| records.contains(id);
    let action = |process: &ProcessInfo| {
        let id = process.id.clone();
        match (&process.exec_in, process.state) {
            (None, _) if recorded(&id) => None,
            (Some(sandbox), ProcessState::Running | ProcessState::Created) if recorded(sandbox) => {
                Some(Action::AdoptExec(id, sandbox.clone()))
            }
            (Some(_), ProcessState::Exited(status)) => {
                Some(Action::ExecExited(id, status.shell_code()))
            }
            (None, _) | (Some(_), _) => Some(Action::Clean(Request::Forget { id })),
        }
    };
    inventory.processes.iter().filter_map(action).collect()
}

/// Veth pairs of no live sandbox, and bridges of no network.
fn interface_leftovers(known: &Known<'_>, inventory: &Inventory) -> Vec<Action> {
    let live = known
        .sandboxes
        .iter()
        .filter(|(sandbox, _)| sandbox.is_live());
    let endpoints: BTreeSet<&IfName> = live
        .flat_map(|(sandbox, _)| &sandbox.endpoints)
        .map(|e| &e.router_ifname)
        .collect();
    let veths = inventory.endpoints.iter().map(|(name, _)| name);
    let veths = veths
        .filter(|name| !endpoints.contains(name))
        .map(|name| Request::Detach {
            router_ifname: name.clone(),
        });
    let bridges = inventory
        .bridges
        .iter()
        .filter(|name| !known.bridges.contains(name));
    let bridges = bridges.map(|name| Request::RemoveBridge { name: name.clone() });
    veths.chain(bridges).map(Action::Clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::model::samples;
    use mossnet_helper::request::ExitStatus;

    fn sandbox(phase: SandboxPhase) -> Sandbox {
        let network = samples::network("mynet", 1, "10.89.3.0/24");
        let mut sandbox = samples::sandbox("web", 2, &network, "10.89.3.2/24");
        sandbox.phase = phase;
        sandbox
    }

    fn process(id: u8, exec_in: Option<u8>, state: ProcessState) -> ProcessInfo {
        let id_of = |id: u8| SandboxId::from([id; 32]);
        ProcessInfo {
            id: id_of(id),
            exec_in: exec_in.map(id_of),
            pid: 40,
            state,
            netns_fd: None,
        }
    }

    fn actions_for(phase: SandboxPhase, claim: Claim, state: Option<ProcessState>) -> Vec<Action> {
        let sandbox = sandbox(phase);
        let known = Known {
            sandboxes: vec![(&sandbox, claim)],
            bridges: BTreeSet::new(),
        };
        let process = state.map(|state| process(2, None, state));
        let veth = sandbox.endpoints[0].router_ifname.clone();
        let inventory = Inventory {
            processes: process.into_iter().collect(),
            endpoints: (sandbox.is_live())
                .then_some((veth, None))
                .into_iter()
                .collect(),
            ..Inventory::default()
        };
        reconcile(&known, &inventory)
    }

    /// Every phase against every state of the process.
    #[test]
    fn records_and_processes_are_brought_together() {
        let created = SandboxPhase::Created;
        let running = SandboxPhase::Running {
            started: 1,
            pid: 40,
        };
        let exited = SandboxPhase::Exited {
            started: Some(1),
            finished: 2,
            code: 3,
        };
        let id = || SandboxId::from([2; 32]);
        let ended = Some(ProcessState::Exited(ExitStatus::Signal(9)));
        let (waits, runs) = (Some(ProcessState::Created), Some(ProcessState::Running));
        let forget = || Action::Clean(Request::Forget { id: id() });
        for (phase, claim, state, expected) in [
            (created, Claim::Nobody, None, Some(Action::Abandon(id()))),
            (created, Claim::Nobody, waits, Some(Action::Abandon(id()))),
            (
                created,
                Claim::Nobody,
                runs,
                Some(Action::Started(id(), 40)),
            ),
            (
                created,
                Claim::Nobody,
                ended,
                Some(Action::Exited(id(), 137)),
            ),
            (created, Claim::Making, None, None),
            (created, Claim::Made, waits, None),
            (created, Claim::Made, None, Some(Action::Exited(id(), LOST))),
            (
                running,
                Claim::Nobody,
                None,
                Some(Action::Exited(id(), LOST)),
            ),
            (running, Claim::Nobody, runs, None),
            (running, Claim::Made, runs, None),
            (
                running,
                Claim::Nobody,
                ended,
                Some(Action::Exited(id(), 137)),
            ),
            (exited, Claim::Nobody, None, None),
            (exited, Claim::Nobody, ended, Some(forget())),
        ] {
            let actions = actions_for(phase, claim, state);
            assert_eq!(
                actions,
                Vec::from_iter(expected),
                "{phase:?} {claim:?} {state:?}"
            );
        }
    }

    #[test]
    fn an_unfinished_removal_is_finished() {
        let mut sandbox = sandbox(SandboxPhase::Exited {
            started: None,
            finished: 2,
            code: 3,
        });
        sandbox.auto_remove = true;
        let known = Known {
            sandboxes: vec![(&sandbox, Claim::Nobody)],
            bridges: BTreeSet::new(),
        };
        let actions = reconcile(&known, &Inventory::default());
        assert_eq!(actions, [Action::Remove(sandbox.id.clone())]);
    }

    #[test]
    fn a_running_sandbox_gets_what_it_lacks() {
        let mut web = sandbox(SandboxPhase::Running {
            started: 1,
            pid: 40,
        });
        let second = samples::network("second", 7, "10.89.7.0/24");
        web.endpoints
            .push(samples::endpoint(0x77, &second, "10.89.7.2/24", 1));
        web.attachments.push(samples::attachment(&second));
        let veths = |n: usize| {
            let there = web.endpoints.iter().take(n);
            there.map(|e| (e.router_ifname.clone(), Some(e.bridge.clone())))
        };
        let known = Known {
            sandboxes: vec![(&web, Claim::Nobody)],
            bridges: BTreeSet::new(),
        };
        let mended = |veths: Vec<(IfName, Option<IfName>)>, state| {
            let inventory = Inventory {
                processes: vec![process(2, None, state)],
                endpoints: veths,
                ..Inventory::default()
            };
            let actions = reconcile(&known, &inventory).into_iter();
            let mended = |action| match action {
                Action::Mend(_, missing) => Some(missing),
                _ => None,
            };
            actions.filter_map(mended).collect::<Vec<_>>()
        };
        let missing = vec![web.endpoints[1].id.clone()];
        assert_eq!(mended(veths(1).collect(), ProcessState::Running), [missing]);
        // Its default routes may still be those of before.
        assert_eq!(mended(veths(2).collect(), ProcessState::Running), [[]]);
        let ended = ProcessState::Exited(ExitStatus::Code(0));
        assert!(mended(veths(1).collect(), ended).is_empty());
    }

    #[test]
    fn leftovers_without_a_record_go_and_execs_are_kept() {
        let sandbox = sandbox(SandboxPhase::Running {
            started: 1,
            pid: 40,
        });
        let bridge: IfName = sandbox.endpoints[0].bridge.clone();
        let known = Known {
            sandboxes: vec![(&sandbox, Claim::Nobody)],
            bridges: [bridge.clone()].into(),
        };
        let inventory = Inventory {
            processes: vec![
                process(2, None, ProcessState::Running),
                process(3, Some(2), ProcessState::Running),
                process(4, Some(2), ProcessState::Exited(ExitStatus::Code(5))),
                process(5, None, ProcessState::Running),
            ],
            bridges: vec![bridge.clone(), "br-stale".parse().unwrap()],
            endpoints: vec![
                (sandbox.endpoints[0].router_ifname.clone(), Some(bridge)),
                ("ve-stale".parse().unwrap(), None),
            ],
            ..Inventory::default()
        };
        let id = |id: u8| SandboxId::from([id; 32]);
        let expected = [
            Action::AdoptExec(id(3), id(2)),
            Action::ExecExited(id(4), 5),
            Action::Clean(Request::Forget { id: id(5) }),
            Action::Clean(Request::Detach {
                router_ifname: "ve-stale".parse().unwrap(),
            }),
            Action::Clean(Request::RemoveBridge {
                name: "br-stale".parse().unwrap(),
            }),
        ];
        assert_eq!(reconcile(&known, &inventory), expected);
    }
}
