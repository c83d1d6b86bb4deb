//! `run` and `exec` from the command line to the end of a process, against a server whose daemon
//! runs commands directly.

use super::*;
use crate::api::control::{Answer, Control, Refusal};
use crate::api::network_types::{
    NetnsAdopt, NetnsCreate, NetnsCreated, NetworkConnect, NetworkCreate, NetworkDisconnect,
    NetworkInfo, NetworkPrune, Pruned,
};
use crate::api::port_types::{PortInfo, PortStatus, PortsPublish, PortsRemove};
use crate::api::server::{Activity, serve};
use crate::api::types::{
    Created, ExecCreate, Exit, Info, SandboxCreate, SandboxInfo, SandboxState,
};
use mossnet_helper::SandboxId;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

#[derive(Clone)]
struct Process {
    command: Vec<String>,
    stdio: Arc<Mutex<Option<[OwnedFd; 3]>>>,
    pid: Option<i32>,
    exit: watch::Sender<Option<i32>>,
}

static MADE: AtomicU8 = AtomicU8::new(1);

/// Forgets a process as soon as it has ended, as `--rm` does: a wait that came late would fail.
#[derive(Clone, Default)]
struct Direct(Arc<Mutex<HashMap<SandboxId, Process>>>);

impl Direct {
    fn make(&self, command: Vec<String>) -> Created {
        let mut processes = self.0.lock().unwrap();
        // Never one that was used before: the end of an earlier client's connection may come late, and
        // takes its sandbox along.
        let id = SandboxId::from([MADE.fetch_add(1, Ordering::Relaxed); 32]);
        let process = Process {
            command,
            stdio: Arc::default(),
            pid: None,
            exit: watch::Sender::new(None),
        };
        processes.insert(id.clone(), process);
        let warnings = Vec::new();
        Created { id, warnings }
    }

    fn get(&self, id: &str) -> Answer<Process> {
        let processes = self.0.lock().unwrap();
        let found = processes.iter().find(|(known, _)| known.as_str() == id);
        let gone = || Refusal::new(404, format!("sandbox '{id}' does not exist"));
        found.map(|(_, process)| process.clone()).ok_or_else(gone)
    }

    fn run(&self, id: &str) -> Answer<()> {
        let process = self.get(id)?;
        let [stdin, stdout, stderr] = process.stdio.lock().unwrap().take().unwrap();
        let mut child = tokio::process::Command::new(&process.command[0])
            .args(&process.command[1..])
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr))
            .spawn()
            .map_err(|error| {
                let mut refusal = Refusal::new(400, format!("{}: {error}", process.command[0]));
                refusal.body.exit_code = 127;
                refusal
            })?;
        let id = SandboxId::try_from(id.to_owned()).unwrap();
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        self.0.lock().unwrap().get_mut(&id).unwrap().pid = Some(pid);
        let all = Arc::clone(&self.0);
        tokio::spawn(async move {
            let status = child.wait().await.unwrap();
            let code = status.code().or(status.signal().map(|s| s + 128));
            all.lock().unwrap().remove(&id);
            process.exit.send_replace(code);
        });
        Ok(())
    }

    async fn end(&self, id: &str) -> Answer<Exit> {
        let mut exit = self.get(id)?.exit.subscribe();
        let code = exit.wait_for(Option::is_some).await.unwrap().unwrap();
        Ok(Exit { code })
    }

    fn signal(&self, id: &str, signal: i32) -> Answer<()> {
        let pid = nix::unistd::Pid::from_raw(self.get(id)?.pid.unwrap());
        let signal = nix::sys::signal::Signal::try_from(signal).unwrap();
        nix::sys::signal::kill(pid, signal).unwrap();
        Ok(())
    }
}

fn unused<T>() -> Answer<T> {
    Err(Refusal::new(500, "not part of this test"))
}

impl Control for Direct {
    async fn create(&self, request: SandboxCreate) -> Answer<Created> {
        Ok(self.make(request.command))
    }
    async fn attach(&self, id: SandboxId, stdio: [OwnedFd; 3]) -> Answer<()> {
        *self.get(id.as_str())?.stdio.lock().unwrap() = Some(stdio);
        Ok(())
    }
    async fn start(&self, sandbox: &str) -> Answer<()> {
        self.run(sandbox)
    }
    async fn stop(&self, _: &str, _: u64) -> Answer<()> {
        unused()
    }
    async fn kill(&self, sandbox: &str, signal: i32) -> Answer<()> {
        self.signal(sandbox, signal)
    }
    async fn remove(&self, sandbox: &str, _: bool) -> Answer<()> {
        self.get(sandbox)?;
        let id = SandboxId::try_from(sandbox.to_owned()).unwrap();
        self.0.lock().unwrap().remove(&id);
        Ok(())
    }
    async fn wait(&self, sandbox: &str) -> Answer<Exit> {
        self.end(sandbox).await
    }
    async fn list(&self, _: bool) -> Answer<Vec<SandboxInfo>> {
        unused()
    }
    async fn ports(&self, _: &str) -> Answer<Vec<PortStatus>> {
        unused()
    }
    async fn add_ports(&self, _: &str, _: PortsPublish) -> Answer<Vec<PortInfo>> {
        unused()
    }
    async fn remove_ports(&self, _: &str, _: PortsRemove) -> Answer<()> {
        unused()
    }
    async fn inspect(&self, sandbox: &str) -> Answer<SandboxInfo> {
        let process = self.get(sandbox)?;
        let mut info = crate::cli::sandboxes::tests::sandbox(1, "x", &["x"]);
        if process.pid.is_none() {
            info.state = SandboxState::Created;
        }
        Ok(info)
    }
    async fn log_path(&self, _: &str) -> Answer<std::path::PathBuf> {
        unused()
    }
    async fn exec(&self, _: &str, request: ExecCreate) -> Answer<Created> {
        Ok(self.make(request.command))
    }
    async fn exec_start(&self, id: SandboxId) -> Answer<()> {
        self.run(id.as_str())
    }
    async fn exec_kill(&self, id: SandboxId, signal: i32) -> Answer<()> {
        self.signal(id.as_str(), signal)
    }
    async fn exec_wait(&self, id: SandboxId) -> Answer<Exit> {
        self.end(id.as_str()).await
    }
    async fn networks(&self) -> Answer<Vec<NetworkInfo>> {
        unused()
    }
    async fn create_netns(&self, _: NetnsCreate) -> Answer<NetnsCreated> {
        unused()
    }
    async fn adopt_netns(&self, _: NetnsAdopt, _: OwnedFd) -> Answer<NetnsCreated> {
        unused()
    }
    async fn create_network(&self, _: NetworkCreate) -> Answer<Created> {
        unused()
    }
    async fn network(&self, _: &str) -> Answer<NetworkInfo> {
        unused()
    }
    async fn remove_network(&self, _: &str, _: bool) -> Answer<()> {
        unused()
    }
    async fn prune_networks(&self, _: NetworkPrune) -> Answer<Pruned> {
        unused()
    }
    async fn connect_network(&self, _: &str, _: NetworkConnect) -> Answer<()> {
        unused()
    }
    async fn disconnect_network(&self, _: &str, _: NetworkDisconnect) -> Answer<()> {
        unused()
    }
    async fn router(&self) -> Answer<Info> {
        unused()
    }
    async fn info(&self) -> Answer<Info> {
        unused()
    }
    async fn shutdown(&self, _: bool) -> Answer<()> {
        unused()
    }
}

struct World {
    _place: tempfile::TempDir,
    paths: Paths,
    daemon: Direct,
    activity: Activity,
}

/// A daemon in this process, at sockets of its own.
fn world() -> World {
    let place = tempfile::tempdir().unwrap();
    let paths = Paths::resolve(Some(place.path()));
    paths.prepare().unwrap();
    let bind = |path| tokio::net::UnixListener::bind(path).unwrap();
    let (api, stdio) = (bind(paths.api_socket()), bind(paths.stdio_socket()));
    let daemon = Direct::default();
    let activity = Activity::default();
    tokio::spawn(serve(
        api,
        stdio,
        Arc::new(daemon.clone()),
        activity.clone(),
        std::future::pending(),
    ));
    World {
        _place: place,
        paths,
        daemon,
        activity,
    }
}

impl World {
    async fn mossnet(&self, words: &[&str]) -> Result<u8, CliError> {
        let words = std::iter::once(&"mossnet").chain(words);
        let cli = Cli::try_parse_from(words).unwrap();
        dispatch(cli.command, self.paths.clone()).await
    }
}

/// One test sends a signal to this process, which every session in it would pass on.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The client's blocking exchange of descriptors needs a server on another thread.
macro_rules! flow {
    ($name:ident, $world:ident, $body:block) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let _alone = ONE_AT_A_TIME.lock().await;
            let $world = world();
            $body
        }
    };
}

flow!(the_exit_code_is_the_commands, world, {
    for code in [0, 3, 255] {
        let script = format!("exit {code}");
        let words = ["run", "--rm", "--", "sh", "-c", &script];
        assert_eq!(world.mossnet(&words).await.unwrap(), code);
        let words = ["exec", "web", "sh", "-c", &script];
        assert_eq!(world.mossnet(&words).await.unwrap(), code);
    }
});

flow!(without_interest_standard_input_is_empty, world, {
    let words = ["run", "--", "sh", "-c", "read line; test $? = 1"];
    assert_eq!(world.mossnet(&words).await.unwrap(), 0);
});

flow!(a_command_that_is_not_there_leaves_nothing, world, {
    let error = world.mossnet(&["run", "--", "/nonexistent"]).await;
    let error = error.unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent: "), "{error}");
    assert_eq!(error.code(true), 127);
    assert!(world.daemon.0.lock().unwrap().is_empty());
});

flow!(a_terminal_reaches_the_command, world, {
    let words = [
        "run",
        "-t",
        "--",
        "sh",
        "-c",
        "test -t 0 && test -t 1 && test -t 2",
    ];
    assert_eq!(world.mossnet(&words).await.unwrap(), 0);
});

flow!(signals_are_passed_on, world, {
    let script = "trap 'exit 42' USR1; kill -USR1 $PPID; while :; do sleep 0.01; done";
    let words = ["run", "--", "sh", "-c", script];
    assert_eq!(world.mossnet(&words).await.unwrap(), 42);
});

flow!(what_is_not_started_goes_with_its_maker, world, {
    let client = Client::connect(world.paths.clone()).await.unwrap();
    let words = ["mossnet", "run", "--", "true"];
    let Command::Run(args) = Cli::try_parse_from(words).unwrap().command else {
        panic!("not run");
    };
    client.create(&args.request().unwrap()).await.unwrap();
    assert_eq!(world.daemon.0.lock().unwrap().len(), 1);
    drop(client);
    while world.activity.idle_since().is_none() {
        tokio::task::yield_now().await;
    }
    assert!(world.daemon.0.lock().unwrap().is_empty());
});
