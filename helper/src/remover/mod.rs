//! Links are removed by a process that waits, so that the helper need not.
//!
//! To everybody a link is gone when the kernel says so (RTM_DELLINK): neither end is in any list then,
//! and no packet passes. What the request itself still waits for is the memory of both ends (rcu_barrier
//! in netdev_run_todo), some 15 ms against 1 ms. So a *remover* sends the request and waits for its
//! answer, while the helper goes on as soon as it hears that the link is gone, or of an error. The
//! remover is a process, not a thread: the helper clones itself into sandboxes, which takes a process
//! without threads.
//!
//! Invariants: [`Remover::remove`] returns when the link is gone, whatever becomes of the remover:
//! without one the helper asks the kernel itself, and has another started. The remover dies with the
//! helper: that does not break a request off which the kernel has begun to serve.
//!
//! The netavark drop-in has one, too, as long as it runs.
//!
//! Sources: rtnetlink(7), net/core/dev.c.

mod process;

pub use process::main;

use crate::netlink::{Gone, Netlink, Refused};
use crate::sys::child::bind_to_parent;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// First word of the command line of a remover.
pub const WORD: &str = "remover";

/// This program, wherever it came from.
const SELF: &str = "/proc/self/exe";
/// The kernel removes within milliseconds; this only bounds the wait should it ever not.
const PATIENCE: Duration = Duration::from_secs(10);
/// A report: an index, and how the kernel answered (0: removed).
const REPORT: usize = 8;

/// Removes links of one network namespace.
#[derive(Debug)]
pub struct Remover {
    /// Hears of links, and removes them where there is no remover.
    netlink: Netlink,
    /// To the remover: indices of links go out; each with an error number comes back.
    orders: Option<OwnedFd>,
    start: bool,
    /// Says nothing on our stderr: who reads that would wait for its end.
    quiet: bool,
}

impl Remover {
    /// Of the calling thread's network namespace; without a process yet.
    ///
    /// # Errors
    /// Those of a netlink socket.
    pub fn new() -> nix::Result<Self> {
        Ok(Self {
            netlink: Netlink::route()?,
            orders: None,
            start: false,
            quiet: false,
        })
    }

    /// Of `netns`, the calling thread's, and started; for a process whose end somebody waits for.
    ///
    /// # Errors
    /// As of `new` and `start`.
    pub fn quiet(netns: BorrowedFd<'_>) -> io::Result<Self> {
        let mut remover = Self::new()?;
        remover.quiet = true;
        remover.start(netns)?;
        Ok(remover)
    }

    /// Start the process, which enters `netns`; it is started again when it is missed. From the main
    /// thread, with which it dies.
    ///
    /// # Errors
    /// Those of socketpair(2), fork(2) and execve(2).
    pub fn start(&mut self, netns: BorrowedFd<'_>) -> io::Result<()> {
        self.start = true;
        let stderr = if self.quiet {
            Stdio::null()
        } else {
            Stdio::inherit()
        };
        self.orders = Some(spawn(netns, stderr)?);
        Ok(())
    }

    /// Let the process end, for good.
    pub fn stop(&mut self) {
        self.start = false;
        self.orders = None;
    }

    /// Remove a link of `netns`; returns when it is gone. Already absent is success.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&mut self, index: u32, netns: BorrowedFd<'_>) -> Result<(), Refused> {
        if let Some(orders) = &self.orders {
            self.netlink.follow_links(true)?;
            let result = ordered(orders, &mut self.netlink, index);
            self.netlink.follow_links(false)?;
            self.netlink.discard();
            match result {
                Err(Errno::EPIPE | Errno::ECONNRESET) => self.orders = None,
                other => return Ok(other?),
            }
        }
        if self.start
            && let Err(error) = self.start(netns)
            && !self.quiet
        {
            eprintln!("helper: start the remover of links: {error}");
        }
        self.netlink.remove_link(index)
    }
}

/// EPIPE, ECONNRESET: nobody takes orders.
fn ordered(orders: &OwnedFd, netlink: &mut Netlink, index: u32) -> nix::Result<()> {
    send(
        orders.as_raw_fd(),
        &index.to_ne_bytes(),
        MsgFlags::MSG_NOSIGNAL,
    )?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if netlink.heard_of(Gone { index })? {
            return Ok(());
        }
        match report(orders, index)? {
            Some(Ok(()) | Err(Errno::ENODEV)) => return Ok(()),
            Some(Err(errno)) => return Err(errno),
            None => wait(orders, netlink, deadline)?,
        }
    }
}

/// How the request for this link was answered, where it has been. Reports on earlier ones, whose end
/// was heard of before, are passed over.
fn report(orders: &OwnedFd, index: u32) -> nix::Result<Option<nix::Result<()>>> {
    let mut bytes = [0; REPORT];
    loop {
        match recv(orders.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(REPORT) => {
                let (of, errno) = split(bytes);
                if of == index {
                    let refused = (errno != 0).then(|| Errno::from_raw(errno));
                    return Ok(Some(refused.map_or(Ok(()), Err)));
                }
            }
            Ok(_) => return Err(Errno::EPIPE),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno),
        }
    }
}

fn wait(orders: &OwnedFd, netlink: &Netlink, deadline: Instant) -> nix::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Errno::ETIMEDOUT);
    }
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    let mut fds = [orders.as_fd(), netlink.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn spawn(netns: BorrowedFd<'_>, stderr: Stdio) -> io::Result<OwnedFd> {
    let kind = SockType::SeqPacket;
    let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
    let mut command = Command::new(SELF);
    command
        .arg(WORD)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::from(netns.try_clone_to_owned()?))
        .stderr(stderr)
        .env_clear();
    bind_to_parent(&mut command, Vec::new());
    // Its end is seen to with that of every other child.
    command.spawn()?;
    Ok(ours)
}

fn split(report: [u8; REPORT]) -> (u32, i32) {
    let [a, b, c, d, e, f, g, h] = report;
    let index = u32::from_ne_bytes([a, b, c, d]);
    (index, i32::from_ne_bytes([e, f, g, h]))
}

fn joined(index: u32, errno: i32) -> [u8; REPORT] {
    let ([a, b, c, d], [e, f, g, h]) = (index.to_ne_bytes(), errno.to_ne_bytes());
    [a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_come_as_they_were_sent() {
        assert_eq!(split(joined(7, 19)), (7, 19));
        assert_eq!(split(joined(u32::MAX, 0)), (u32::MAX, 0));
    }
}
