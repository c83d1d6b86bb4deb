//! The relay's life: it is started with the first snapshot, started again when it dies, and given
//! the last snapshot that it took up, with the listening sockets of published ports that this needs, and
//! told where endpoints are.
//!
//! The conversation: fd 3 of the relay is one end of a SOCK_SEQPACKET pair, fd 4 the router netns.
//! The relay says `ready`, or what went wrong. What it is sent is a [`parcel`], and has been answered
//! with `ok` or an error before the next one is sent. Unasked it may speak of a [`Rush`].
//!
//! Invariants: `accepted` is a snapshot that a relay has answered with `ok`, so that a text that
//! kills or displeases it is never given again; every socket that it names is held, so that clients
//! of a published port wait in its backlog while a relay is started again.
//! Sources: memfd_create(2), unix(7), prctl(2).

mod endpoints;
mod parcel;
mod rush;

pub use rush::Rush;

use crate::framed::EndpointPlace;
use crate::request::{ExitStatus, Failure, FailureKind, PortCount};
use crate::sealed::Sealed;
use crate::sys::child::bind_to_parent;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
use nix::unistd::Pid;
use parcel::{Counting, Held, Parcel, parcels};
use rush::Rushes;
use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a relay may take to start, and to take up a snapshot.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before a second restart in a row; doubles with each.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// A relay that lived this long has not been failing.
const SOUND: Duration = Duration::from_secs(30);
/// Longest error text of the relay.
const LONGEST_ANSWER: usize = 4096;

/// Descriptor numbers in the relay.
const CONTROL_FD: i32 = 3;
const ROUTER_FD: i32 = 4;

/// The relay, running or not.
#[derive(Debug)]
pub struct Relay {
    program: PathBuf,
    router: OwnedFd,
    accepted: Option<Accepted>,
    held: Held,
    child: Option<Child>,
    /// When to start it again, and how the last one ended.
    restart: Option<(Instant, ExitStatus)>,
    delay: Duration,
    rushes: Rushes,
    /// Where they are, for every relay.
    endpoints: Vec<EndpointPlace>,
}

/// A snapshot, and the keys of the sockets that it needs.
#[derive(Debug, Clone)]
struct Accepted {
    snapshot: Sealed,
    listeners: BTreeSet<String>,
}

#[derive(Debug)]
struct Child {
    pid: Pid,
    control: OwnedFd,
    started: Instant,
    phase: Phase,
    /// Since when it owes the word that it is waited for.
    owing: Instant,
    /// It replaces one that ended so.
    replaces: Option<ExitStatus>,
    /// To be sent, each when the one before is answered.
    queue: VecDeque<Parcel>,
    /// Sent and not answered.
    under_way: Option<Parcel>,
    /// Keys of the sockets that it has.
    given: BTreeSet<String>,
    /// How many bytes of counters it has written.
    counted: usize,
    /// What it has been told of endpoints is not how they are.
    lacks_endpoints: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Has not said `ready`.
    Starting,
    /// Has been given something, and has not answered.
    Loading,
    /// Idle, as far as the helper is concerned.
    Serving,
    /// Has hung up; its end will be reported.
    Ending,
}

/// What a message of the relay means.
enum Heard {
    /// Nothing to do.
    Nothing,
    /// A relay that replaces another one serves again.
    Restarted(ExitStatus),
    /// The snapshot being loaded was refused.
    Rejected(String),
}

impl Relay {
    /// None runs yet. `program` is executed as `program relay`.
    pub fn new(program: PathBuf, router: OwnedFd) -> Self {
        let delay = Duration::ZERO;
        Self {
            program,
            router,
            accepted: None,
            held: Held::default(),
            child: None,
            restart: None,
            delay,
            rushes: Rushes::default(),
            endpoints: Vec::new(),
        }
    }

    /// Process id, if it runs.
    pub fn pid(&self) -> Option<Pid> {
        self.child
            .as_ref()
            .filter(|child| child.phase != Phase::Ending)
            .map(|child| child.pid)
    }

    /// Readable when the relay says something.
    pub fn control(&self) -> Option<BorrowedFd<'_>> {
        let child = self
            .child
            .as_ref()
            .filter(|child| child.phase != Phase::Ending)?;
        Some(child.control.as_fd())
    }

    /// When [`Relay::tick`] has something to do.
    pub fn wake_at(&self) -> Option<Instant> {
        let late = self.child.as_ref().and_then(|child| match child.phase {
            Phase::Starting | Phase::Loading => Some(child.owing + PATIENCE),
            Phase::Serving | Phase::Ending => None,
        });
        late.or(self.restart.map(|(at, _)| at))
    }

    /// Start it if it is due; end one that does not come to serve.
    pub fn tick(&mut self, now: Instant) {
        let late = |child: &Child| {
            let waiting = matches!(child.phase, Phase::Starting | Phase::Loading);
            waiting && now >= child.owing + PATIENCE
        };
        if self.child.as_ref().is_some_and(late) {
            eprintln!("helper: the relay does not answer; killed");
            self.hang_up();
        }
        if let Some((at, status)) = self.restart
            && now >= at
            && self.child.is_none()
        {
            self.restart = None;
            if let Err(failure) = self.spawn(now, Some(status)) {
                eprintln!("helper: {failure}");
                self.restart_later(now, status);
            }
        }
    }

    /// Read what the relay says; how the one before ended, once this one serves in its place.
    pub fn on_control(&mut self) -> Option<ExitStatus> {
        match self.listen() {
            Ok(Heard::Restarted(status)) => Some(status),
            Ok(Heard::Nothing) => None,
            Ok(Heard::Rejected(words)) => {
                eprintln!("helper: the relay refused its last snapshot: {words}");
                None
            }
            Err(failure) => {
                eprintln!("helper: {failure}");
                None
            }
        }
    }

    /// What it has said of rushes since the last call.
    pub fn take_rushes(&mut self) -> Vec<Rush> {
        self.rushes.take()
    }

    /// Keep sockets for snapshots to come.
    pub fn keep(&mut self, keys: Vec<String>, sockets: Vec<OwnedFd>) -> Result<(), Failure> {
        for key in self.held.keep(keys, sockets)? {
            if let Some(child) = &mut self.child {
                // What it has under that key is another socket.
                child.given.remove(&key);
            }
        }
        Ok(())
    }

    /// Keys of the sockets that are kept.
    pub fn listeners(&self) -> Vec<String> {
        self.held.keys()
    }

    /// Give it a snapshot, and what it lacks of the sockets that this needs, and wait until it has
    /// taken them up, starting it if need be. All other sockets are let go.
    pub fn load(&mut self, snapshot: Sealed, listeners: Vec<String>) -> Result<(), Failure> {
        let listeners: BTreeSet<String> = listeners.into_iter().collect();
        self.held.check(&listeners)?;
        let wanted = Accepted {
            snapshot,
            listeners,
        };
        let now = Instant::now();
        let deadline = now + PATIENCE;
        if self
            .child
            .as_ref()
            .is_some_and(|child| child.phase == Phase::Ending)
        {
            // Its end has not been reported yet; it will be no one's.
            self.child = None;
        }
        if self.child.is_none() {
            let replaces = self.restart.take().map(|(_, status)| status);
            self.spawn(now, replaces)?;
        }
        self.wait_for_serving(deadline)?;
        self.give(&wanted)?;
        self.wait_for_serving(deadline)?;
        self.held.retain(&wanted.listeners);
        if let Some(child) = &mut self.child {
            child.given.clone_from(&wanted.listeners);
        }
        self.accepted = Some(wanted);
        Ok(())
    }

    /// What the published ports of a sandbox have seen; nothing where no relay runs.
    pub fn counters(&mut self, sandbox: &str) -> Result<Vec<PortCount>, Failure> {
        let deadline = Instant::now() + PATIENCE;
        if self.pid().is_none() {
            return Ok(Vec::new());
        }
        self.wait_for_serving(deadline)?;
        let counting = Counting::new()?;
        if let Some(child) = &mut self.child {
            child.queue.push_back(Parcel::Counters(counting.writer()?));
        }
        self.send_next()?;
        self.wait_for_serving(deadline)?;
        let counted = self.child.as_ref().map_or(0, |child| child.counted);
        counting.read(counted, sandbox)
    }

    /// Note the end of a child; false: it was not the relay.
    pub fn exited(&mut self, pid: Pid, status: ExitStatus, now: Instant) -> bool {
        let Some(child) = self.child.take_if(|child| child.pid == pid) else {
            return false;
        };
        if now >= child.started + SOUND {
            self.delay = Duration::ZERO;
        }
        if self.accepted.is_some() {
            self.restart_later(now, status);
        }
        true
    }

    /// Kill it for good.
    pub fn stop(&mut self) {
        self.accepted = None;
        self.held = Held::default();
        self.restart = None;
        self.hang_up();
    }

    fn restart_later(&mut self, now: Instant, status: ExitStatus) {
        self.restart = Some((now + self.delay, status));
        self.delay = (self.delay * 2).clamp(FIRST_DELAY, LONGEST_DELAY);
    }

    fn spawn(&mut self, now: Instant, replaces: Option<ExitStatus>) -> Result<(), Failure> {
        let failed = |e: std::io::Error| Failure::kernel("start the relay", e);
        let kind = SockType::SeqPacket;
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|e| failed(e.into()))?;
        let router = self.router.try_clone().map_err(failed)?;
        let mut command = Command::new(&self.program);
        command
            .arg("relay")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .env_clear();
        command.envs(std::env::vars_os().filter(|(name, _)| is_for_relay(name)));
        bind_to_parent(
            &mut command,
            vec![(theirs, CONTROL_FD), (router, ROUTER_FD)],
        );
        let process = command.spawn().map_err(failed)?;
        let pid = Pid::from_raw(process.id().cast_signed());
        let phase = Phase::Starting;
        self.child = Some(Child {
            pid,
            control: ours,
            started: now,
            phase,
            owing: now,
            replaces,
            queue: VecDeque::new(),
            under_way: None,
            given: BTreeSet::new(),
            counted: 0,
            lacks_endpoints: !self.endpoints.is_empty(),
        });
        Ok(())
    }

    /// Until the relay is idle. A rejected snapshot, its end, or the deadline is a failure.
    fn wait_for_serving(&mut self, deadline: Instant) -> Result<(), Failure> {
        while let Some(child) = &self.child {
            match child.phase {
                Phase::Serving => return Ok(()),
                Phase::Ending => break,
                Phase::Starting | Phase::Loading => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(child.control.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) => {
                    self.hang_up();
                    let what = format!("the relay did not answer within {PATIENCE:?}");
                    return Err(Failure::kernel(what, Errno::ETIMEDOUT));
                }
                Ok(_) => {
                    if let Heard::Rejected(words) = self.listen()? {
                        return Err(Failure::invalid(format!("the relay refused: {words}")));
                    }
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Failure::kernel("wait for the relay", errno)),
            }
        }
        Err(Failure::kernel(
            "the relay ended at once; see helper.log",
            Errno::EPIPE,
        ))
    }

    /// Take one message.
    fn listen(&mut self) -> Result<Heard, Failure> {
        let Some(child) = &mut self.child else {
            return Ok(Heard::Nothing);
        };
        let mut buffer = [0; LONGEST_ANSWER];
        let control = child.control.as_raw_fd();
        let message = match recv(control, &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) | Err(Errno::ECONNRESET) => {
                self.hang_up();
                return Ok(Heard::Nothing);
            }
            Ok(length) => String::from_utf8_lossy(&buffer[..length]).into_owned(),
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Heard::Nothing),
            Err(errno) => return Err(Failure::kernel("hear the relay", errno)),
        };
        if let Some(rush) = Rush::parse(&message) {
            self.rushes.add(rush);
            return Ok(Heard::Nothing);
        }
        match (child.phase, message.as_str()) {
            (Phase::Starting, "ready") => match self.accepted.clone() {
                Some(accepted) => self.give(&accepted).map(|()| Heard::Nothing),
                None => Ok(self.serving()),
            },
            (Phase::Loading, answer) => {
                if !child.answers(answer) {
                    child.queue.clear();
                    self.serving();
                    return Ok(Heard::Rejected(message));
                }
                if self.send_next()? {
                    return Ok(Heard::Nothing);
                }
                Ok(self.serving())
            }
            (Phase::Starting, _) => {
                self.hang_up();
                // It has said why; that its socket is closed by now says nothing more.
                Err(
                    Failure::invalid(format!("the relay cannot start: {message}"))
                        .of_kind(FailureKind::Kernel),
                )
            }
            (Phase::Serving | Phase::Ending, _) => {
                eprintln!("helper: the relay says, unasked: {message}");
                Ok(Heard::Nothing)
            }
        }
    }

    fn serving(&mut self) -> Heard {
        let Some(child) = &mut self.child else {
            return Heard::Nothing;
        };
        child.phase = Phase::Serving;
        child
            .replaces
            .take()
            .map_or(Heard::Nothing, Heard::Restarted)
    }

    /// Send what it lacks of the sockets, then the snapshot.
    fn give(&mut self, wanted: &Accepted) -> Result<(), Failure> {
        if let Some(child) = &mut self.child {
            let lacks = wanted.listeners.difference(&child.given).cloned();
            child.queue = parcels(lacks.collect(), wanted.snapshot.clone());
        }
        self.send_next().map(drop)
    }

    /// Send what is next; false: nothing is.
    fn send_next(&mut self) -> Result<bool, Failure> {
        if self.send_endpoints() {
            return Ok(true);
        }
        let Some(child) = &mut self.child else {
            return Ok(false);
        };
        let Some(parcel) = child.queue.pop_front() else {
            return Ok(false);
        };
        if let Err(failure) = self.held.send(child.control.as_fd(), &parcel) {
            child.queue.clear();
            return Err(failure);
        }
        child.sent(parcel);
        Ok(true)
    }

    /// Kill the child; its end is reported later.
    fn hang_up(&mut self) {
        if let Some(child) = &mut self.child {
            child.phase = Phase::Ending;
            // It is our child and has not been waited for, so the id is still its own.
            let _ = kill(child.pid, Signal::SIGKILL);
        }
    }
}

impl Child {
    /// Note what is under way from now on.
    fn sent(&mut self, parcel: Parcel) {
        self.under_way = Some(parcel);
        self.owing = Instant::now();
        self.phase = Phase::Loading;
    }

    /// Note the answer to what is under way; false: it was refused.
    fn answers(&mut self, answer: &str) -> bool {
        let taken = answer == "ok";
        match self.under_way.take() {
            Some(Parcel::Listeners(keys)) if taken => self.given.extend(keys),
            Some(Parcel::Snapshot(_)) if taken => {}
            Some(Parcel::Counters(_)) => match parcel::counted(answer) {
                Some(length) => self.counted = length,
                None => return false,
            },
            Some(Parcel::Endpoints(_)) => {
                if !taken {
                    eprintln!("helper: the relay refused to be told of endpoints: {answer}");
                }
            }
            Some(Parcel::Listeners(_) | Parcel::Snapshot(_)) | None => return false,
        }
        true
    }
}

/// Variables that the relay may see: what to log, how to wait.
fn is_for_relay(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    let settings = ["MOSSNET_BUSY_POLL", "MOSSNET_FRAMED"];
    name.starts_with("RUST_") || name.starts_with("MOSSNET_LOG") || settings.contains(&&*name)
}
