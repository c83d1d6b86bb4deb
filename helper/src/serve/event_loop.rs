//! One thread, one poll(2): the daemon's requests, the ends of children, the relay's words.
//!
//! Invariant: one daemon at a time, of our own uid; the newest replaces the one before. Answers are
//! in the order of the requests, events in between.

use super::connection::Connection;
use crate::act::Helper;
use crate::peer::outside_sandboxes;
use crate::request::{Event, ExitStatus, Failure, Frame, Reply, Request};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// How long killed children may take to end, and the last answer to be read.
const FAREWELL: Duration = Duration::from_secs(5);

/// Without a daemon and without a sandbox that runs, the helper ends after this time: a daemon that
/// was killed may never come back. Longer than a network is kept for what it has still to deliver.
const LONELY: Duration = Duration::from_secs(600);

/// Everything that the process waits for.
#[derive(Debug)]
pub struct EventLoop {
    helper: Helper,
    listener: UnixListener,
    signals: SignalFd,
    connection: Option<Connection>,
    /// Since when there has been neither daemon nor sandbox.
    lonely: Option<Instant>,
    ending: bool,
}

/// What poll(2) found.
#[derive(Debug, Default)]
struct Ready {
    signals: bool,
    listener: bool,
    relay: bool,
    readable: bool,
    writable: bool,
}

/// Take signals as events from now on. Children start with none blocked.
pub fn block_signals() -> Result<SignalFd, Failure> {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ] {
        signals.add(signal);
    }
    signals
        .thread_block()
        .map_err(|e| Failure::kernel("block signals", e))?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    SignalFd::with_flags(&signals, flags).map_err(|e| Failure::kernel("receive signals", e))
}

impl EventLoop {
    /// Nobody connected yet.
    pub fn new(helper: Helper, listener: UnixListener, signals: SignalFd) -> Self {
        Self {
            helper,
            listener,
            signals,
            connection: None,
            lonely: None,
            ending: false,
        }
    }

    /// Until `Shutdown` or SIGTERM.
    pub fn run(&mut self) -> Result<(), Failure> {
        while !self.ending {
            let limit = self.lonely_until();
            let ready = self.wait(limit)?;
            if ready.signals {
                self.on_signals()?;
            }
            if ready.relay
                && let Some(status) = self.helper.relay().on_control()
            {
                self.tell(Event::RelayRestarted { status });
            }
            self.helper.relay().tick(Instant::now());
            self.helper.follow_rushes();
            if ready.writable && self.connection.as_mut().is_some_and(|c| !c.flush()) {
                self.connection = None;
            }
            if ready.readable {
                self.on_readable();
            }
            if ready.listener {
                self.on_connect();
            }
            // Once what was asked for has been answered: nobody is to wait for it.
            self.helper.tell_endpoints();
        }
        self.end()
    }

    /// When to end for want of company.
    fn lonely_until(&mut self) -> Option<Instant> {
        let now = Instant::now();
        if self.connection.is_some() || self.helper.is_busy() {
            self.lonely = None;
            return None;
        }
        let until = *self.lonely.get_or_insert(now) + LONELY;
        self.ending |= now >= until;
        Some(until)
    }

    fn wait(&mut self, limit: Option<Instant>) -> Result<Ready, Failure> {
        let relay_due = self.helper.relay().wake_at();
        let wake = limit.into_iter().chain(relay_due).min();
        let timeout = wake.map_or(PollTimeout::NONE, |at| {
            // Rounded up, so that it is due when poll returns.
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        let mut at_connection = None;
        if let Some(connection) = &self.connection {
            at_connection = Some(fds.len());
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, connection.has_unsent());
            fds.push(PollFd::new(connection.fd(), flags));
        }
        let mut at_relay = None;
        if let Some(control) = self.helper.relay().control() {
            at_relay = Some(fds.len());
            fds.push(PollFd::new(control, PollFlags::POLLIN));
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Failure::kernel("poll", errno)),
        }
        let found = |index: usize| fds[index].revents().unwrap_or(PollFlags::empty());
        let of_connection = at_connection.map_or(PollFlags::empty(), found);
        Ok(Ready {
            signals: !found(0).is_empty(),
            listener: !found(1).is_empty(),
            relay: at_relay.is_some_and(|index| !found(index).is_empty()),
            writable: of_connection.contains(PollFlags::POLLOUT),
            readable: of_connection
                .intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR),
        })
    }

    fn on_signals(&mut self) -> Result<(), Failure> {
        loop {
            let info = match self.signals.read_signal() {
                Ok(Some(info)) => info,
                Ok(None) => break,
                Err(errno) => return Err(Failure::kernel("receive signals", errno)),
            };
            let signal = info.ssi_signo.cast_signed();
            self.ending |= signal == Signal::SIGTERM as i32 || signal == Signal::SIGINT as i32;
        }
        self.reap();
        Ok(())
    }

    /// Take note of every child that has ended.
    fn reap(&mut self) {
        let now = Instant::now();
        loop {
            let (pid, status) = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, ExitStatus::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    (pid, ExitStatus::Signal(signal as i32))
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(errno) => {
                    eprintln!("helper: wait for children: {errno}");
                    return;
                }
            };
            if let Some(event) = self.helper.exited(pid, status, now) {
                self.tell(event);
            }
        }
    }

    fn tell(&mut self, event: Event) {
        self.push(&Frame::Event(event));
    }

    /// To whoever is connected; without anyone, the inventory remembers.
    fn push(&mut self, frame: &Frame) {
        if self
            .connection
            .as_mut()
            .is_some_and(|connection| !connection.push(frame))
        {
            self.connection = None;
        }
    }

    fn on_connect(&mut self) {
        let socket = match self.listener.accept() {
            Ok((socket, _)) => socket,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Err(e) => {
                eprintln!("helper: accept: {e}");
                return;
            }
        };
        if !is_ours(&socket) {
            eprintln!("helper: refused a connection of another user");
            return;
        }
        match Connection::new(socket) {
            Ok(connection) => self.connection = Some(connection),
            Err(e) => eprintln!("helper: accept: {e}"),
        }
    }

    fn on_readable(&mut self) {
        if self
            .connection
            .as_mut()
            .is_some_and(|connection| !connection.fill())
        {
            self.connection = None;
        }
        while let Some(connection) = &mut self.connection {
            let incoming = match connection.next() {
                Ok(Some(incoming)) => incoming,
                Ok(None) => return,
                Err(()) => {
                    eprintln!("helper: a frame beyond the limit; connection closed");
                    self.connection = None;
                    return;
                }
            };
            let answer = incoming.and_then(|(request, descriptors)| {
                if request == Request::Shutdown {
                    self.ending = true;
                    return Ok(Reply::Done);
                }
                self.helper.perform(request, descriptors)
            });
            if self.ending {
                return;
            }
            self.push(&Frame::Reply(answer));
        }
    }

    /// End everything, then say so.
    fn end(&mut self) -> Result<(), Failure> {
        self.helper.shut_down();
        let deadline = Instant::now() + FAREWELL;
        let mut childless = false;
        while !childless && Instant::now() < deadline {
            self.reap();
            childless = waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) == Err(Errno::ECHILD);
            if !childless && self.wait(Some(deadline))?.signals {
                self.on_signals()?;
            }
        }
        self.push(&Frame::Reply(Ok(Reply::Done)));
        while self.connection.as_ref().is_some_and(Connection::has_unsent)
            && Instant::now() < deadline
        {
            self.wait(Some(deadline))?;
            if self
                .connection
                .as_mut()
                .is_some_and(|connection| !connection.flush())
            {
                self.connection = None;
            }
        }
        Ok(())
    }
}

/// The peer has our own uid, and is not in a sandbox. Ids are as our user namespace sees them:
/// another user is not mapped.
fn is_ours(socket: &UnixStream) -> bool {
    let peer = getsockopt(socket, sockopt::PeerCredentials);
    peer.is_ok_and(|peer| peer.uid() == geteuid().as_raw() && outside_sandboxes(peer.pid()))
}
