//! The daemon over a scripted helper: what it asks for, what it takes back, what it leaves.

use super::{Daemon, files};
use crate::api::control::Control;
use crate::api::network_types::NetworkAttach;
use crate::api::paths::Paths;
use crate::api::types::{NetworkMode, SandboxCreate, SandboxState, Stdio};
use crate::kernel::fake::{self, Asked, Said, done};
use mossnet_helper::SandboxId;
use mossnet_helper::request::{
    Event, ExitStatus, Failure, FailureKind, Inventory, ProcessInfo, ProcessState, Reply, Request,
    SandboxNetns,
};
use std::sync::{Arc, Mutex};

mod again;
mod crowd;
mod networks;
mod publish;
mod refused;

struct World {
    paths: Paths,
    asked: Asked,
    snapshot: fake::LastSnapshot,
    _directory: tempfile::TempDir,
}

/// A place for a daemon, with a helper that answers by `script`, and in the usual way where that
/// has nothing to say.
fn world(mut script: impl FnMut(&Request) -> Option<Said> + Send + 'static) -> World {
    let directory = tempfile::tempdir().unwrap();
    let paths = Paths::resolve(Some(directory.path()));
    paths.prepare().unwrap();
    let usual = move |request: &Request, descriptors: usize| {
        script(request).or_else(|| match request {
            Request::Inventory => {
                let inventory = Box::new(Inventory::default());
                Some((Vec::new(), Ok(Reply::Inventory(inventory))))
            }
            Request::CreateSandbox(spec) if spec.process.is_none() => {
                let given = spec.netns == SandboxNetns::Given;
                assert_eq!(descriptors, usize::from(given));
                Some((Vec::new(), Ok(Reply::Bare { netns_fd: 9 })))
            }
            Request::CreateSandbox(_) | Request::Exec(_) => {
                assert_eq!(descriptors, 3);
                Some((Vec::new(), Ok(Reply::Created { pid: 77 })))
            }
            Request::Unsent { .. } => Some((Vec::new(), Ok(Reply::Unsent { sockets: 0 }))),
            _ => done(),
        })
    };
    let snapshot = fake::LastSnapshot::default();
    let kept = Arc::clone(&snapshot);
    let asked = fake::serve_keeping(&paths.helper_socket(), usual, kept);
    World {
        paths,
        asked,
        snapshot,
        _directory: directory,
    }
}

impl World {
    fn daemon(&self) -> Daemon {
        Daemon::open(self.paths.clone(), [0; 5]).unwrap()
    }

    /// Requests so far that a filter picks.
    fn count(&self, pick: fn(&Request) -> bool) -> usize {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .filter(|request| pick(request))
            .count()
    }
}

fn request(name: &str) -> SandboxCreate {
    SandboxCreate {
        name: Some(name.to_owned()),
        ..SandboxCreate::example()
    }
}

fn on(network: &str, ip: Option<std::net::Ipv4Addr>) -> NetworkMode {
    NetworkMode::Networks(vec![NetworkAttach {
        network: network.to_owned(),
        ip,
        ..NetworkAttach::default()
    }])
}

fn failure(kind: FailureKind, errno: i32) -> Option<Said> {
    let what = "scripted".to_owned();
    let errno = Some(errno);
    Some((Vec::new(), Err(Failure { what, errno, kind })))
}

fn exited(id: &SandboxId, code: i32) -> Event {
    let status = ExitStatus::Code(code);
    Event::Exited {
        id: id.clone(),
        status,
    }
}

async fn assert_nothing_left(world: &World, daemon: &Daemon) {
    assert!(daemon.list(true).await.unwrap().is_empty());
    assert!(files::directories(&world.paths).is_empty());
}

#[tokio::test]
async fn a_sandbox_is_told_about_made_and_started_in_order() {
    let world = world(|_| None);
    let daemon = world.daemon();
    daemon.create(request("web")).await.unwrap();
    daemon.start("web").await.unwrap();
    let info = daemon.inspect("web").await.unwrap();
    assert_eq!((info.state, info.pid), (SandboxState::Running, Some(77)));
    let asked = world.asked.lock().unwrap();
    let words = asked
        .iter()
        .map(|request| serde_json::to_value(request).unwrap());
    let words: Vec<_> = words
        .map(|json| json["request"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        words,
        [
            "hello",
            "inventory",
            "bridge",
            "ruleset",
            "relay_snapshot",
            "create_sandbox",
            "attach",
            "start_sandbox"
        ]
    );
}

#[tokio::test]
async fn a_second_sandbox_tells_nothing_twice() {
    let world = world(|_| None);
    let daemon = world.daemon();
    daemon.create(request("a")).await.unwrap();
    daemon.create(request("b")).await.unwrap();
    assert_eq!(world.count(|r| matches!(r, Request::Bridge(_))), 1);
    assert_eq!(
        world.count(|r| matches!(r, Request::RelaySnapshot { .. })),
        1
    );
    assert_eq!(world.count(|r| matches!(r, Request::Attach(_))), 2);
}

#[tokio::test]
async fn what_fails_on_the_way_is_taken_back() {
    let world = world(|request| match request {
        Request::Attach(_) => failure(FailureKind::Kernel, 1),
        _ => None,
    });
    let daemon = world.daemon();
    let refusal = daemon.create(request("web")).await.unwrap_err();
    assert_eq!((refusal.status, refusal.body.exit_code), (500, 125));
    assert!(world.count(|r| matches!(r, Request::Detach { .. })) >= 1);
    assert!(world.count(|r| matches!(r, Request::Forget { .. })) >= 1);
    assert_nothing_left(&world, &daemon).await;
    // The address is free again at once.
    let mut fixed = request("db");
    fixed.network = Some(on("bridge", Some([10, 89, 0, 2].into())));
    let refusal = daemon.create(fixed).await.unwrap_err();
    assert!(refusal.body.message.starts_with("scripted"), "{refusal}");
}

#[tokio::test]
async fn a_command_that_cannot_run_leaves_nothing() {
    let world = world(|request| match request {
        Request::StartSandbox { .. } => failure(FailureKind::Exec, 2),
        _ => None,
    });
    let daemon = world.daemon();
    daemon.create(request("web")).await.unwrap();
    let refusal = daemon.start("web").await.unwrap_err();
    assert_eq!(refusal.body.exit_code, 127);
    assert_nothing_left(&world, &daemon).await;
}

#[tokio::test]
async fn waiters_of_a_removed_sandbox_get_its_code_early_and_late() {
    let world = world(|request| match request {
        // It ends as soon as it is started, even before the reply.
        Request::StartSandbox { id } => Some((vec![exited(id, 42)], Ok(Reply::Done))),
        _ => None,
    });
    let daemon = world.daemon();
    let mut request = request("web");
    request.auto_remove = true;
    let id = daemon.create(request).await.unwrap().id;
    let early = tokio::spawn({
        let daemon = daemon.clone();
        async move { daemon.wait("web").await }
    });
    tokio::task::yield_now().await;
    daemon.start("web").await.unwrap();
    assert_eq!(early.await.unwrap().unwrap().code, 42);
    assert_eq!(daemon.wait(id.as_str()).await.unwrap().code, 42);
    assert_eq!(daemon.wait("web").await.unwrap_err().status, 404);
    assert_nothing_left(&world, &daemon).await;
}

#[tokio::test]
async fn an_attached_sandbox_is_made_when_its_streams_come() {
    let world = world(|_| None);
    let daemon = world.daemon();
    let mut request = request("web");
    request.stdio = Stdio::Attached;
    let id = daemon.create(request).await.unwrap().id;
    assert_eq!(world.count(|r| matches!(r, Request::CreateSandbox(_))), 0);
    assert_eq!(daemon.start("web").await.unwrap_err().status, 409);
    let streams = || super::streams::Detached::default().nowhere().unwrap();
    daemon.attach(id.clone(), streams()).await.unwrap();
    assert_eq!(world.count(|r| matches!(r, Request::CreateSandbox(_))), 1);
    assert_eq!(daemon.attach(id, streams()).await.unwrap_err().status, 409);
    daemon.start("web").await.unwrap();
}

#[tokio::test]
async fn bad_requests_are_refused_and_leave_nothing() {
    let world = world(|_| None);
    let daemon = world.daemon();
    daemon.create(request("web")).await.unwrap();
    let refuse = async |spoil: fn(&mut SandboxCreate)| {
        let mut bad = request("bad");
        spoil(&mut bad);
        daemon.create(bad).await.unwrap_err().body.message
    };
    assert!(
        refuse(|r| r.name = Some("web".into()))
            .await
            .contains("is in use by sandbox")
    );
    let message = refuse(|r| r.network = Some(on("x", None))).await;
    assert_eq!(message, "no such network: x");
    let message = refuse(|r| r.network = Some(NetworkMode::Container("web".into()))).await;
    assert!(message.ends_with("is not running"), "{message}");
    let message = refuse(|r| r.network = Some(NetworkMode::Container("x".into()))).await;
    assert_eq!(message, "no such sandbox: x");
    assert_eq!(daemon.list(true).await.unwrap().len(), 1);
    assert_eq!(files::directories(&world.paths).len(), 1);
}

#[tokio::test]
async fn an_exec_ends_with_its_code() {
    let world = world(|request| match request {
        Request::Exec(spec) => Some((vec![exited(&spec.id, 7)], Ok(Reply::Created { pid: 78 }))),
        _ => None,
    });
    let daemon = world.daemon();
    daemon.create(request("web")).await.unwrap();
    let exec = || crate::api::types::ExecCreate {
        command: vec!["true".into()],
        env: Vec::new(),
        workdir: None,
        interactive: false,
        tty: false,
        stdio: Stdio::Detached,
    };
    assert_eq!(daemon.exec("web", exec()).await.unwrap_err().status, 409);
    daemon.start("web").await.unwrap();
    let id = daemon.exec("web", exec()).await.unwrap().id;
    daemon.exec_start(id.clone()).await.unwrap();
    assert_eq!(daemon.exec_wait(id.clone()).await.unwrap().code, 7);
    assert_eq!(daemon.exec_wait(id).await.unwrap().code, 7);
}

/// `kill -9` of the daemon is the loss of everything but the stores: each daemon here has a runtime
/// of its own, which is dropped with all its tasks.
#[test]
fn a_new_daemon_takes_up_what_the_helper_holds() {
    let holds: Arc<Mutex<Inventory>> = Arc::default();
    let shown = Arc::clone(&holds);
    let world = world(move |request| match request {
        Request::Inventory => {
            let inventory = Box::new(shown.lock().unwrap().clone());
            Some((Vec::new(), Ok(Reply::Inventory(inventory))))
        }
        _ => None,
    });
    let run = |test: &dyn Fn(&tokio::runtime::Runtime, Daemon)| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let daemon = world.daemon();
        test(&runtime, daemon);
    };
    run(&|runtime, daemon| {
        runtime.block_on(async {
            for name in ["stays", "ended", "lost", "waits"] {
                let id = daemon.create(request(name)).await.unwrap().id;
                let state = match name {
                    "stays" => ProcessState::Running,
                    "ended" => ProcessState::Exited(ExitStatus::Code(3)),
                    _ => continue,
                };
                let process = ProcessInfo {
                    id,
                    exec_in: None,
                    pid: 77,
                    state,
                    netns_fd: None,
                };
                holds.lock().unwrap().processes.push(process);
            }
            for name in ["stays", "ended", "lost"] {
                daemon.start(name).await.unwrap();
            }
        });
    });
    run(&|runtime, daemon| {
        runtime.block_on(async {
            daemon.repair().await.unwrap();
            let shown = daemon.list(true).await.unwrap();
            let mut shown: Vec<_> = shown
                .iter()
                .map(|s| (&*s.name, s.state, s.exit_code))
                .collect();
            shown.sort_by_key(|(name, ..)| *name);
            let exited = SandboxState::Exited;
            assert_eq!(
                shown,
                [
                    ("ended", exited, Some(3)),
                    ("lost", exited, Some(137)),
                    ("stays", SandboxState::Running, None)
                ]
            );
        });
    });
}
