//! One instance: router, relay, ports, from their making until nobody is there to be served any more.
//!
//! The process has one thread. It reads nothing that a network sends: the relay and `outward` do, and they
//! are confined. Invariant: everything that it makes in the kernel hangs by descriptors, its own and those of
//! its children, who end with it; so nothing is left, however it ends.
//!
//! Sources: namespaces(7), signal(7).

use super::PastaError;
use super::listening::{Listening, Scope, Socket};
use super::options::Options;
use super::outward::{Forward, Outward};
use super::place::{Place, Until};
use super::plan::{Plan, targets};
use super::publishes::Publishes;
use super::recorder;
use super::spec::Ports;
use crate::kernel::host::{RESOLV_CONF, entry_changed, resolver_changed};
use crate::network::resolv::HostResolver;
use crate::network::snapshot::Snapshot;
use crate::ports::{Port, Proto};
use crate::sys::readiness::watch;
use mossnet_helper::IfName;
use mossnet_helper::namespace::in_netns;
use mossnet_helper::relay::{Relay, Rush};
use mossnet_helper::request::{ExitStatus, Failure};
use mossnet_helper::router::Router;
use mossnet_helper::rush::Followed;
use mossnet_helper::sealed::Sealed;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::time::sleep;

/// How often ports are looked at, as pasta does, and what gives no sign when it goes.
const LOOK: Duration = Duration::from_secs(1);
/// A relay that ends more often than this is not started again.
const SOUND: Duration = Duration::from_secs(5);

/// Everything that serves.
pub struct Instance {
    place: Place,
    router: Router,
    /// The ends of the pair.
    ends: (IfName, IfName),
    relay: Relay,
    rushes: Followed<()>,
    snapshot: Snapshot,
    targets: Vec<IpAddr>,
    /// Where names are answered.
    own: Vec<IpAddr>,
    publishes: Publishes,
    outward: Option<Outward>,
    modes: Modes,
    host: Listening,
    inside: Listening,
    started: Instant,
}

/// What follows who listens where: TCP, UDP.
#[derive(Debug, Clone)]
struct Modes {
    inward: [bool; 2],
    outward: [bool; 2],
    /// Listed ones towards the host.
    forwards: BTreeSet<Forward>,
}

/// pasta's default is to follow.
fn follows(ports: &Ports) -> bool {
    matches!(ports, Ports::Auto | Ports::Unsaid)
}

impl Modes {
    fn new(options: &Options) -> Self {
        let mut forwards = BTreeSet::new();
        for (ports, proto) in options.outward.iter().zip([Proto::Tcp, Proto::Udp]) {
            if let Ports::Listed(all) | Ports::Open(all) = ports {
                let pairs = all.iter().flat_map(|listed| &listed.ports);
                forwards.extend(pairs.map(|(port, to)| Forward {
                    proto,
                    port: *port,
                    to: *to,
                }));
            }
        }
        Self {
            inward: options.inward.each_ref().map(follows),
            outward: options.outward.each_ref().map(follows),
            forwards,
        }
    }

    fn look(&self) -> bool {
        self.inward.contains(&true) || self.outward.contains(&true)
    }

    fn has_outward(&self) -> bool {
        self.outward.contains(&true) || !self.forwards.is_empty()
    }
}

/// What has been made before namespaces were entered.
pub struct Before {
    /// Ports of the host.
    pub publishes: Publishes,
    /// Who listens there.
    pub host: Listening,
    /// Where packets are written.
    pub capture: Option<File>,
}

impl Instance {
    /// Makes all of it. Nothing is left where it fails.
    pub fn make(
        options: &Options,
        plan: &Plan,
        place: Place,
        before: Before,
        environment: &str,
    ) -> Result<Self, PastaError> {
        let inside = in_netns(place.netns.as_fd(), || {
            Listening::here().map_err(|e| Failure::kernel("read who listens in the namespace", e))
        })?;
        let mut router = Router::create()?;
        router.ruleset(std::slice::from_ref(&plan.rules))?;
        router.join(&plan.direct, place.netns.as_fd())?;
        let netns = router.netns().try_clone_to_owned();
        let netns = netns.map_err(|e| Failure::kernel("keep the router's namespace", e))?;
        if let Some(file) = before.capture {
            recorder::start(router.netns(), &plan.direct, file, environment)?;
        }
        let modes = Modes::new(options);
        let outward = match modes.has_outward() {
            true => Some(Outward::start(place.netns.as_fd(), environment)?),
            false => None,
        };
        let mut instance = Self {
            place,
            router,
            ends: (
                plan.direct.router_ifname.clone(),
                plan.direct.ifname.clone(),
            ),
            rushes: Followed::default(),
            relay: Relay::new("/proc/self/exe".into(), netns),
            snapshot: plan.snapshot.clone(),
            targets: targets(&plan.direct),
            own: plan.direct.own.clone(),
            publishes: before.publishes,
            outward,
            modes,
            host: before.host,
            inside,
            started: Instant::now(),
        };
        instance.read_resolvers();
        instance.load()?;
        instance.lead_outward(options)?;
        Ok(instance)
    }

    /// Ports of the host must all be had where they are listed.
    fn lead_outward(&mut self, options: &Options) -> Result<(), PastaError> {
        let Some(outward) = &mut self.outward else {
            return Ok(());
        };
        let missing = outward.ask(&self.modes.forwards);
        let missing = missing.map_err(PastaError::Outward)?;
        let must = |forward: &&Forward| {
            let at = usize::from(forward.proto == Proto::Udp);
            matches!(options.outward[at], Ports::Listed(_))
        };
        match missing.iter().find(must) {
            None => Ok(()),
            Some(forward) => Err(PastaError::Inside {
                proto: forward.proto,
                port: forward.port,
            }),
        }
    }

    /// Lets a waiting command go.
    pub fn go(&mut self) -> Result<(), Failure> {
        self.place
            .command
            .take()
            .map_or(Ok(()), |command| command.go())
    }

    fn read_resolvers(&mut self) {
        let text = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        let mut view = HostResolver::parse(&text).view();
        // A container's resolv.conf may lie over the host's; to ask ourselves leads nowhere.
        view.nameservers.retain(|server| !self.own.contains(server));
        self.snapshot.resolver = view;
    }

    /// Tells the relay how things are, starting it if need be.
    fn load(&mut self) -> Result<(), Failure> {
        self.publishes.hand_over(&mut self.relay)?;
        self.snapshot.generation += 1;
        self.snapshot.publishes = self.publishes.views(&self.targets);
        let text = serde_json::to_vec(&self.snapshot);
        let text = text.map_err(|e| Failure::invalid(e.to_string()))?;
        let sealed = Sealed::of(&text).map_err(|e| Failure::kernel("write the snapshot", e))?;
        self.relay.load(sealed, self.publishes.keys())
    }

    /// Serves until nobody is left; what the process ends with.
    pub async fn serve(mut self) -> Result<u8, PastaError> {
        let mut signals = Heard::new().map_err(PastaError::Signals)?;
        let mut resolvers = Box::pin(resolver_changed());
        loop {
            if let Some(code) = self.reap()? {
                return Ok(code);
            }
            if self.place.is_gone() {
                return Ok(0);
            }
            self.look()?;
            self.follow(Vec::new());
            let ticks = self.modes.look() || !matches!(self.place.until, Until::Never);
            tokio::select! {
                _ = signals.child.recv() => {}
                _ = signals.terminate.recv() => return Ok(self.terminated()),
                _ = signals.interrupt.recv(), if !self.has_command() => return Ok(0),
                _ = signals.hang_up.recv(), if !self.has_command() => return Ok(0),
                changed = &mut resolvers => {
                    if changed.is_err() {
                        // Out of watches, say.
                        sleep(LOOK).await;
                    }
                    resolvers = Box::pin(resolver_changed());
                    self.read_resolvers();
                    self.load()?;
                }
                () = gone(self.place.path()) => {}
                () = says_something(self.relay.control()) => {
                    // A relay in another one's place has been given all by us.
                    let _status = self.relay.on_control();
                }
                () = sleep(LOOK), if ticks => {}
            }
        }
    }

    /// Does what the relay, or we in its name, say of rushes.
    fn follow(&mut self, more: Vec<Rush>) {
        let mut said = self.relay.take_rushes();
        said.extend(more);
        let (port, ifname) = &self.ends;
        let (router, netns) = (&self.router, self.place.netns.as_fd());
        let switch = |(): &(), begins| router.rush(port, (ifname, netns), begins);
        self.rushes.follow(said, |_| Some(()), switch);
    }

    fn has_command(&self) -> bool {
        matches!(self.place.until, Until::Command(_))
    }

    /// As a shell says it.
    fn terminated(&self) -> u8 {
        match self.place.until {
            Until::Command(pid) => {
                let _ = kill(pid, Signal::SIGTERM);
                128 + 15
            }
            Until::Path(_) | Until::Process(_) | Until::Never => 0,
        }
    }

    /// Ends of children; the code to end with, where it was the command.
    fn reap(&mut self) -> Result<Option<u8>, PastaError> {
        let any = Pid::from_raw(-1);
        while let Ok(status) = waitpid(any, Some(WaitPidFlag::WNOHANG)) {
            let (pid, status) = match status {
                WaitStatus::Exited(pid, code) => (pid, ExitStatus::Code(code)),
                WaitStatus::Signaled(pid, signal, _) => (pid, ExitStatus::Signal(signal as i32)),
                WaitStatus::StillAlive => break,
                _ => continue,
            };
            if matches!(self.place.until, Until::Command(command) if command == pid) {
                return Ok(Some(code_of(status)));
            }
            if self
                .outward
                .as_ref()
                .is_some_and(|o| o.pid() == pid.as_raw().unsigned_abs())
            {
                return Err(PastaError::Ended("the process for ports of the host"));
            }
            let now = Instant::now();
            if self.relay.exited(pid, status, now) {
                if now.duration_since(self.started) < SOUND {
                    return Err(PastaError::Ended("the relay"));
                }
                self.started = now;
                self.follow(self.rushes.over());
                self.load()?;
            }
        }
        Ok(None)
    }

    /// Follows who listens where.
    fn look(&mut self) -> Result<(), PastaError> {
        if !self.modes.look() {
            return Ok(());
        }
        let (Ok(host), Ok(inside)) = (self.host.read(), self.inside.read()) else {
            return Ok(());
        };
        let led: BTreeSet<(Proto, Port)> = self
            .outward
            .iter()
            .flat_map(|outward| outward.asked().iter().map(|f| (f.proto, f.port)))
            .collect();
        if self.modes.inward.contains(&true) {
            let reached = |socket: &&Socket| socket.scope != Scope::Loopback;
            let wanted = of(&inside, self.modes.inward, reached, &led);
            if self.publishes.follow(&wanted) {
                self.load()?;
            }
        }
        if self.modes.outward.contains(&true) {
            let reached = |socket: &&Socket| socket.scope != Scope::Address;
            let ours = self.publishes.own();
            let found = of(&host, self.modes.outward, reached, &ours);
            let theirs = of(&inside, [true, true], |_| true, &led);
            let follow = found.difference(&theirs).map(|(proto, port)| Forward {
                proto: *proto,
                port: *port,
                to: *port,
            });
            let wanted = follow.chain(self.modes.forwards.iter().copied()).collect();
            if let Some(outward) = &mut self.outward
                && *outward.asked() != wanted
            {
                outward.ask(&wanted).map_err(PastaError::Outward)?;
            }
        }
        Ok(())
    }
}

/// Ports of `sockets` that somebody can be led to; not those in `without`.
fn of(
    sockets: &BTreeSet<Socket>,
    modes: [bool; 2],
    reached: impl Fn(&&Socket) -> bool,
    without: &BTreeSet<(Proto, Port)>,
) -> BTreeSet<(Proto, Port)> {
    let wanted = |socket: &&Socket| modes[usize::from(socket.proto == Proto::Udp)];
    let sockets = sockets.iter().filter(wanted).filter(reached);
    let ports = sockets.map(|socket| (socket.proto, socket.port));
    ports.filter(|port| !without.contains(port)).collect()
}

fn code_of(status: ExitStatus) -> u8 {
    let code = match status {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal(signal) => 128 + signal,
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Resolves when something about the file has changed; never, where there is none to watch.
async fn gone(path: Option<&Path>) {
    let watched = match path {
        Some(path) => entry_changed(path).await,
        None => std::future::pending().await,
    };
    if watched.is_err() {
        // Of /proc nothing is told: then it is looked at now and then.
        std::future::pending::<()>().await;
    }
}

/// Resolves when the relay has said something, or has hung up.
async fn says_something(control: Option<BorrowedFd<'_>>) {
    let watched = control.and_then(|fd| watch(fd.try_clone_to_owned().ok()?).ok());
    match &watched {
        Some(watched) if watched.readable().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// Signals that mean something.
struct Heard {
    child: Signals,
    terminate: Signals,
    interrupt: Signals,
    hang_up: Signals,
}

impl Heard {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}
