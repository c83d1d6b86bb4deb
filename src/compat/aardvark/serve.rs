//! The server process: one thread, from its start until the last network is gone.
//!
//! It reads the directory again at SIGHUP, and resolv.conf whenever that changes. Invariants: it ends when
//! no network is left, under the lock of the record, so that whoever adds one finds either a server that
//! hears the signal or none; it keeps no capability but the one to listen at port 53, and cannot get others.
//!
//! Sources: signal(7), capabilities(7), prctl(2) PR_SET_NO_NEW_PRIVS.

use super::config::Config;
use crate::compat::netavark::{LOCK_FILE, PID_FILE};
use crate::kernel::host::{RESOLV_CONF, resolver_changed};
use crate::network::resolv::HostResolver;
use crate::network::snapshot::Snapshot;
use crate::relay::dns::bound::NameServer;
use caps::{CapSet, Capability, CapsHashSet};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::prctl::set_no_new_privs;
use nix::unistd::{dup2_stdin, dup2_stdout, setsid};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;

/// How often it is looked whether the directory is there at all: with it goes whoever could send a signal.
const LOOK: Duration = Duration::from_secs(2);
/// Until somebody who holds the lock has said what they want.
const PATIENCE: Duration = Duration::from_millis(20);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("read {}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("listen at {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("{what}: {source}")]
    Process {
        what: &'static str,
        source: io::Error,
    },
}

fn process(what: &'static str) -> impl Fn(io::Error) -> ServeError {
    move |source| ServeError::Process { what, source }
}

/// A server that was killed is gone before its sockets are.
const DYING_FOR: Duration = Duration::from_secs(1);

/// Serves; says `ready` on standard output when it listens, or why it does not.
pub fn serve(directory: &Path, port: u16, ready: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = runtime.map_err(process("start")).and_then(|runtime| {
        let work = run(directory, port, ready);
        LocalSet::new().block_on(&runtime, work)
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(directory: &Path, port: u16, ready: &str) -> Result<(), ServeError> {
    // Before anybody can know of us.
    let mut hangups = signal(SignalKind::hangup()).map_err(process("listen for signals"))?;
    let mut end = signal(SignalKind::terminate()).map_err(process("listen for signals"))?;
    let mut server = Server::new(directory, port)?;
    let config = server.read()?;
    // Podman may have lost the namespace that some of the bridges were in; others are served.
    let mut failed = server.apply(&config);
    let patient_until = Instant::now() + DYING_FOR;
    while failed
        .iter()
        .any(|(_, error)| error.kind() == io::ErrorKind::AddrInUse)
        && Instant::now() < patient_until
    {
        tokio::time::sleep(DYING_FOR / 50).await;
        failed = server.apply(&config);
    }
    let all = failed.len() == config.listen().len();
    if let Some((address, source)) = failed.into_iter().next().filter(|_| all) {
        return Err(ServeError::Listen { address, source });
    }
    if config.networks.is_empty() {
        print!("{ready}");
        return Ok(());
    }
    fs::write(server.pid_file(), std::process::id().to_string())
        .map_err(process("write the process id"))?;
    detach(ready).map_err(process("go into the background"))?;
    server.until_nobody_is_left(&mut hangups, &mut end).await;
    Ok(())
}

/// Leaves the caller's session, streams and powers.
fn detach(ready: &str) -> io::Result<()> {
    // Who started us directly is the leader of a group already.
    let _ = setsid();
    let _ = std::env::set_current_dir("/");
    let needed = CapsHashSet::from([Capability::CAP_NET_BIND_SERVICE]);
    let kept: CapsHashSet = match caps::read(None, CapSet::Permitted) {
        Ok(held) => held.intersection(&needed).copied().collect(),
        Err(_) => CapsHashSet::new(),
    };
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).map_err(io::Error::other)?;
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).map_err(io::Error::other)?;
    }
    set_no_new_privs()?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(ready.as_bytes())?;
    stdout.flush()?;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(())
}

struct Server {
    directory: PathBuf,
    /// The same.
    opened: File,
    port: u16,
    snapshot: Arc<Mutex<Arc<Snapshot>>>,
    names: NameServer,
}

/// What happened.
enum Event {
    Reload,
    Look,
    End,
}

impl Server {
    fn new(directory: &Path, port: u16) -> Result<Self, ServeError> {
        let snapshot = Arc::new(Mutex::new(Arc::new(Snapshot::default())));
        let current = Arc::clone(&snapshot);
        let rules =
            Box::new(move || Arc::clone(&current.lock().unwrap_or_else(PoisonError::into_inner)));
        let failed = |source| ServeError::Directory {
            path: directory.to_owned(),
            source,
        };
        Ok(Self {
            directory: fs::canonicalize(directory).map_err(failed)?,
            opened: File::open(directory).map_err(failed)?,
            port,
            snapshot,
            names: NameServer::new(rules).map_err(process("read the limit of open files"))?,
        })
    }

    fn pid_file(&self) -> PathBuf {
        self.directory.join(PID_FILE)
    }

    fn read(&self) -> Result<Config, ServeError> {
        Config::read(&self.directory).map_err(|source| ServeError::Directory {
            path: self.directory.clone(),
            source,
        })
    }

    /// Serves a configuration; returns where it cannot listen.
    fn apply(&mut self, config: &Config) -> Vec<(SocketAddr, io::Error)> {
        let text = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        let snapshot = Arc::new(config.snapshot(HostResolver::parse(&text).view()));
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
        let addresses = config.listen().into_iter();
        let wanted: BTreeSet<SocketAddr> = addresses
            .map(|address| SocketAddr::new(address, self.port))
            .collect();
        self.names.listen(&wanted)
    }

    /// Serves what the directory says now; whoever waits for that sees it by the time of the process id's file.
    fn look(&mut self) -> Result<Config, ServeError> {
        let now = SystemTime::now();
        let config = self.read()?;
        self.apply(&config);
        let file = OpenOptions::new().write(true).open(self.pid_file());
        let _ = file.and_then(|file| file.set_modified(now));
        Ok(config)
    }

    async fn until_nobody_is_left(&mut self, hangups: &mut Signal, end: &mut Signal) {
        // Something may have changed before the process id was there to send a signal to.
        let mut event = Event::Reload;
        let mut change = Box::pin(resolver_changed());
        loop {
            match event {
                Event::End => break,
                Event::Look if self.directory.exists() => {}
                Event::Reload | Event::Look => match self.look() {
                    Ok(config) => {
                        if config.networks.is_empty() && self.ends().await {
                            break;
                        }
                    }
                    // It went, and with it everybody whom we serve.
                    Err(_) => break,
                },
            }
            event = tokio::select! {
                _ = hangups.recv() => Event::Reload,
                changed = &mut change => {
                    if changed.is_err() {
                        // Out of watches, say.
                        tokio::time::sleep(LOOK).await;
                    }
                    change = Box::pin(resolver_changed());
                    Event::Reload
                }
                () = tokio::time::sleep(LOOK) => Event::Look,
                _ = end.recv() => Event::End,
            };
        }
        self.forget_us();
    }

    /// Removes the process id's file. Podman since 5 takes its namespace apart when the last container goes, and
    /// with it the mount by which we know the directory: the descriptor still leads there.
    fn forget_us(&self) {
        let file = format!("/proc/self/fd/{}/{PID_FILE}", self.opened.as_raw_fd());
        // Another server may have taken our place.
        let ours = fs::read_to_string(&file);
        if ours.is_ok_and(|pid| pid == std::process::id().to_string()) {
            let _ = fs::remove_file(&file);
        }
    }

    /// Whether there is still no network once nobody is at work. The lock goes with the process, and so
    /// who comes next finds none.
    async fn ends(&self) -> bool {
        let Some(parent) = self.directory.parent() else {
            return true;
        };
        let Ok(mut file) = File::create(parent.join(LOCK_FILE)) else {
            return true;
        };
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    let empty = self
                        .read()
                        .map_or(true, |config| config.networks.is_empty());
                    if empty {
                        // Held to the end.
                        std::mem::forget(lock);
                    }
                    return empty;
                }
                Err((back, _)) => file = back,
            }
            tokio::time::sleep(PATIENCE).await;
            if self.read().is_ok_and(|config| !config.networks.is_empty()) {
                return false;
            }
        }
    }
}
