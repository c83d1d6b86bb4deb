//! From the command line to a serving daemon, and to its end.
//!
//! Invariants: one daemon per root (flock(2) on `daemon.lock`, kept until the process ends);
//! sandboxes outlive the daemon unless it is told to end them; a daemon that ends by itself leaves
//! no process behind.

use super::activation::{self, Passed};
use super::refusal::{FileError, failed};
use super::{Daemon, clock};
use crate::api::control::Answer;
use crate::api::paths::Paths;
use crate::api::server::{self, Activity};
use crate::api::types::ErrorBody;
use crate::error::{EXIT_FAILURE, one_line};
use crate::kernel::host::{self, HostChange};
use crate::state::StateError;
use crate::sys::open_files;
use nix::unistd::Pid;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// How a daemon is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it keeps its things.
    pub paths: Paths,
    /// It ends after this long without sandboxes and without anybody asking.
    pub idle: Duration,
    /// Leave the caller's session, and say `ready` or what is wrong on stdout.
    pub background: bool,
}

/// An earlier daemon that is about to end is given this long.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);
/// An earlier daemon that was killed leaves its stores in the kernel's time.
const STORE_PATIENCE: Duration = Duration::from_secs(5);
/// Open files for which there is room from the start: a range of 1,000 ports comes at once.
const OPEN_FILES: u64 = 4096;
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// What a unit does before its sockets are there; here somebody did not.
const OTHER_DAEMON: &str =
    "stop mossnet.socket, end that daemon by 'mossnet shutdown', start mossnet.socket";
/// Idleness is looked at no more often than this.
const IDLE_PAUSE: Duration = Duration::from_millis(200);
/// Changes of the host come in bursts.
const HOST_PAUSE: Duration = Duration::from_millis(300);
/// The log starts anew beyond this many bytes.
const MAX_LOG: u64 = 8 << 20;

/// Serves until told to end, or idle.
pub fn run(options: Options) -> ExitCode {
    let background = options.background;
    match try_run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            report(&refusal.body, background);
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn report(body: &ErrorBody, background: bool) {
    if background {
        // Whoever started us reads it; if not, the log has it too.
        let line = serde_json::to_string(body).unwrap_or_else(|_| body.message.clone());
        let _ = writeln!(io::stdout(), "{line}");
    }
    let hint = body.hint.as_deref().map(|hint| format!("\nhint: {hint}"));
    let _ = writeln!(
        io::stderr(),
        "mossnet: {}{}",
        body.message,
        hint.unwrap_or_default()
    );
}

fn try_run(options: Options) -> Answer<()> {
    let prepared = options.paths.prepare();
    prepared.map_err(|error| failed(one_line(&error)).with_hint(error.hint()))?;
    let passed = activation::passed(&options.paths)?;
    if options.background {
        detach(&options.paths)?;
    }
    crate::log::init();
    // Each published port is an open file on its way to the helper.
    let raised = open_files::raise().and_then(|()| open_files::make_room(OPEN_FILES));
    if let Err(error) = raised {
        warn!(%error, "limit of open files not raised");
    }
    let Some(_lock) = lock(&options, passed.is_some())? else {
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| failed(format!("start threads: {error}")))?;
    let served = runtime.block_on(serve(options, passed));
    // Every task is dropped, and with the last one the stores are closed; then the lock goes.
    runtime.shutdown_timeout(STORE_PATIENCE);
    served
}

/// A new session, away from the caller's terminal. Only who leads no process group may make one
/// (setsid(2)), and whoever starts us in the background has us lead our own: so go into theirs.
fn leave_session() {
    let us = Pid::from_raw(0);
    if let Ok(theirs) = nix::unistd::getpgid(Some(nix::unistd::getppid())) {
        let _ = nix::unistd::setpgid(us, theirs);
    }
    if nix::unistd::setsid().is_err() {
        // At least the terminal's signals should not reach us.
        let _ = nix::unistd::setpgid(us, us);
    }
}

/// Leaves the caller's session and directory; messages go to the log from here on.
fn detach(paths: &Paths) -> Answer<()> {
    leave_session();
    std::env::set_current_dir("/").map_err(FileError::on("change directory to", Path::new("/")))?;
    let log = paths.log("daemon");
    let mut options = OpenOptions::new();
    let opened = options.create(true).append(true).mode(0o600).open(&log);
    let opened = opened.map_err(FileError::on("open", &log))?;
    if opened
        .metadata()
        .is_ok_and(|metadata| metadata.len() > MAX_LOG)
    {
        opened.set_len(0).map_err(FileError::on("truncate", &log))?;
    }
    let redirected = rustix::stdio::dup2_stderr(&opened).map_err(io::Error::from);
    Ok(redirected.map_err(FileError::on("write to", &log))?)
}

/// The lock; `None` where another daemon serves this root, or a service manager is to start it. `activated`: we
/// are the one that it has started, and who connects waits for us.
fn lock(options: &Options, activated: bool) -> Answer<Option<File>> {
    let path = options.paths.daemon_lock();
    let mut open = OpenOptions::new();
    let file = open
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path);
    let file = file.map_err(FileError::on("open", &path))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) if !activated && activation::is_held(&options.paths.api_socket()) => {
                drop(file);
                say_running(options);
                return Ok(None);
            }
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(error)) => {
                return Err(FileError::on("lock", &path)(error).into());
            }
            Err(TryLockError::WouldBlock) => {}
        }
        if !activated && activation::is_held(&options.paths.api_socket()) {
            say_running(options);
            return Ok(None);
        }
        if begun.elapsed() > LOCK_PATIENCE {
            let (does, hint) = match activated {
                true => ("was not started by the service manager", OTHER_DAEMON),
                false => (
                    "does not answer",
                    "daemon.log beside it may say why; end that process and try again",
                ),
            };
            let message = format!("another mossnet daemon holds the lock, but {does}");
            return Err(failed(format!("{message} ({})", path.display())).with_hint(hint));
        }
        // It is starting or ending; both are short.
        std::thread::sleep(LOCK_PAUSE);
    }
}

fn say_running(options: &Options) {
    let line = if options.background {
        "ready"
    } else {
        "mossnet: a daemon serves this directory already"
    };
    let _ = writeln!(io::stdout(), "{line}");
}

async fn serve(options: Options, passed: Option<Passed>) -> Answer<()> {
    let paths = &options.paths;
    let (api, stdio) = (paths.api_socket(), paths.stdio_socket());
    let own = passed.is_none();
    let listeners = match passed {
        None => (bind(&api)?, bind(&stdio)?),
        Some(passed) => (
            activation::adopt(passed.api, &api)?,
            activation::adopt(passed.stdio, &stdio)?,
        ),
    };
    let daemon = open(paths).await?;
    daemon.repair().await?;
    daemon.follow_owners().await;
    tokio::spawn(daemon.clone().watch_host());
    let activity = Activity::default();
    tokio::spawn(daemon.clone().end_when_idle(activity.clone(), options.idle));
    let signals = Signals::listen().map_err(|error| failed(format!("handle signals: {error}")))?;
    tokio::spawn(daemon.clone().end_by_signal(signals));
    if options.background {
        say_ready()?;
    }
    info!(runtime = %paths.runtime.display(), "daemon serves");
    activation::tell("READY=1");
    let end = daemon.clone().until_end();
    let control = Arc::new(daemon.clone());
    let served = server::serve(listeners.0, listeners.1, control, activity, end).await;
    activation::tell("STOPPING=1");
    for socket in [api, stdio].into_iter().filter(|_| own) {
        let _ = std::fs::remove_file(socket);
    }
    daemon.leave_nothing_idle().await;
    info!("daemon ends");
    served.map_err(|error| failed(format!("serve the API: {error}")))
}

/// The daemon with its stores, which one that was just killed may still hold for a moment.
async fn open(paths: &Paths) -> Answer<Daemon> {
    let random = clock::random().map_err(|error| failed(format!("random bytes: {error}")))?;
    let begun = Instant::now();
    loop {
        match Daemon::open(paths.clone(), random) {
            Err(StateError::Busy(_)) if begun.elapsed() < STORE_PATIENCE => {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            opened => return Ok(opened?),
        }
    }
}

/// A socket that only we may connect to. The lock is ours, so that an old one is a leftover.
fn bind(path: &Path) -> Answer<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(FileError::on("remove", path)(error).into());
        }
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(FileError::on("listen on", path))?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, private).map_err(FileError::on("protect", path))?;
    Ok(listener)
}

/// Tells whoever started us, then lets go of their pipe.
fn say_ready() -> Answer<()> {
    let said = writeln!(io::stdout(), "ready").and_then(|()| io::stdout().flush());
    if let Err(error) = said {
        warn!(%error, "nobody was told that the daemon is ready");
    }
    let null = Path::new("/dev/null");
    let opened = OpenOptions::new()
        .write(true)
        .open(null)
        .map_err(FileError::on("open", null))?;
    let redirected = rustix::stdio::dup2_stdout(&opened).map_err(io::Error::from);
    Ok(redirected.map_err(FileError::on("write to", null))?)
}

/// Signals that end the daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

impl Daemon {
    async fn until_end(self) {
        let mut end = self.0.end.subscribe();
        // The sender lives as long as we do.
        let _ = end.wait_for(|end| *end).await;
    }

    fn end(&self, reason: &'static str) {
        info!(reason, "daemon is to end");
        self.0.end.send_replace(true);
    }

    async fn end_by_signal(self, mut signals: Signals) {
        tokio::select! {
            _ = signals.terminate.recv() => self.end("SIGTERM"),
            _ = signals.interrupt.recv() => self.end("SIGINT"),
            _ = signals.hang_up.recv() => self.end("SIGHUP"),
        }
    }

    async fn end_when_idle(self, activity: Activity, idle: Duration) {
        // Whoever started us is about to ask.
        tokio::time::sleep(IDLE_PAUSE).await;
        let mut busy_until = Instant::now();
        loop {
            let quiet_since = match activity.idle_since() {
                Some(since) if !self.is_in_use().await => since.max(busy_until),
                Some(_) | None => {
                    busy_until = Instant::now();
                    busy_until
                }
            };
            let quiet = quiet_since.elapsed();
            if quiet >= idle && activity.close_if_unused_since(quiet_since) {
                return self.end("idle");
            }
            tokio::time::sleep(idle.saturating_sub(quiet).max(IDLE_PAUSE)).await;
        }
    }

    /// Something runs, or is about to, or has something to deliver.
    async fn is_in_use(&self) -> bool {
        self.something_runs().await || !self.0.model.lock().await.lingering.is_empty()
    }

    async fn something_runs(&self) -> bool {
        self.live().has_execs() || self.0.model.lock().await.live().next().is_some()
    }

    /// At the end: a helper without anything in it ends too.
    async fn leave_nothing_idle(&self) {
        if self.something_runs().await {
            return;
        }
        self.see_off_all().await;
        if let Err(error) = self.end_helper().await {
            warn!(%error, "helper not ended");
            return;
        }
        // Of a helper that was killed; one that ends in order takes it along.
        let _ = std::fs::remove_file(self.0.paths.helper_socket());
    }

    /// Ends the daemon; with `all`, everything that it started too.
    pub(super) async fn shut_down(&self, all: bool) -> Answer<()> {
        if all {
            // A helper of an earlier daemon is connected since `repair`.
            self.end_helper().await?;
            self.repair().await?;
        }
        self.end("asked to");
        Ok(())
    }

    /// Follows the host: new resolvers reach the relay without a restart.
    async fn watch_host(self) {
        let mut changes = host::watch();
        while let Some(first) = changes.recv().await {
            tokio::time::sleep(HOST_PAUSE).await;
            let mut seen = vec![first];
            while let Ok(more) = changes.try_recv() {
                seen.push(more);
            }
            // A new lease often brings both; resolv.conf is cheap to read.
            if self.reread_resolver() {
                info!("resolvers of the host changed");
                self.refresh().await;
                self.renew_all_etc().await;
            }
            if seen.contains(&HostChange::Routes) {
                self.check_conflicts().await;
                self.check_kernel_uplink().await;
            }
        }
    }
}
