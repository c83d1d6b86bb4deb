//! How a program asks: it executes the installed `mossnet-helper`, whose standard input is one end of a
//! SOCK_SEQPACKET pair, sends one request with its descriptors, and reads one answer.
//!
//! The calls block, at most for [`PATIENCE`]: from asynchronous code they belong on a thread that may
//! wait. The caller must not have set no_new_privs, or the helper has no privilege and answers
//! [`Reply::Denied`].

use crate::channel;
use crate::request::{
    Bind, Bridge, Grants, Made, Publish, Reply, Request, Unavailable, Uplink, UplinkMade, Veth,
};
use crate::wire::Malformed;
use mossnet_netlink::MacAddr;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where an admin installs the helper; the first that is there is used.
pub const PLACES: [&str; 3] = [
    "/usr/libexec/mossnet-helper",
    "/usr/local/libexec/mossnet-helper",
    "/usr/lib/mossnet/mossnet-helper",
];

/// How long to wait for an answer. The helper itself gives up waiting for its turn before.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// Why there is no answer, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It refuses.
    #[error("mossnet-helper denies it; 'mossnet-helper check' shows what is granted")]
    Denied,
    /// It would, but cannot.
    #[error("mossnet-helper: {0}")]
    Unavailable(#[from] Unavailable),
    /// It could not be started.
    #[error("start {}", program.display())]
    Start {
        /// Which program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It could not be talked to.
    #[error("talk to mossnet-helper")]
    Talk(#[from] Errno),
    /// It ended without an answer, or gave none in time.
    #[error("mossnet-helper gave no answer")]
    Silent,
    /// Its answer is not one of this version.
    #[error("mossnet-helper is of another version")]
    Malformed(#[from] Malformed),
    /// Its answer belongs to another request.
    #[error("mossnet-helper gave an answer of another kind")]
    Unexpected,
}

type Result<T> = std::result::Result<T, CallError>;

/// The installed helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper {
    program: PathBuf,
}

impl Helper {
    /// The one that an admin has installed, if any.
    pub fn installed() -> Option<Self> {
        let found = PLACES.iter().find(|place| Path::new(place).is_file());
        found.map(|place| Self::at(*place))
    }

    /// The one at this path.
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
        }
    }

    /// Its path.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// What the caller may do and has. [`CallError::Denied`]: nothing at all.
    pub fn query(&self) -> Result<Grants> {
        match self.call(&Request::Query, &[])?.0 {
            Reply::Grants(grants) => Ok(grants),
            _ => Err(CallError::Unexpected),
        }
    }

    /// A veth pair between two namespaces of the caller: the first end, and the second one's index.
    pub fn veth(
        &self,
        veth: Veth,
        first: BorrowedFd<'_>,
        second: BorrowedFd<'_>,
    ) -> Result<(Made, u32)> {
        match self.call(&Request::Veth(veth), &[first, second])?.0 {
            Reply::Veth { first, second } => Ok((first, second)),
            _ => Err(CallError::Unexpected),
        }
    }

    /// A port of a host bridge for the caller's namespace: the port, the MAC address of the end inside,
    /// and the MTU, bytes.
    pub fn bridge(&self, bridge: Bridge, netns: BorrowedFd<'_>) -> Result<(Made, MacAddr, u16)> {
        match self.call(&Request::Bridge(bridge), &[netns])?.0 {
            Reply::Bridge { host, mac, mtu } => Ok((host, mac, mtu)),
            _ => Err(CallError::Unexpected),
        }
    }

    /// An uplink for the router netns, or other subnets for the one that it has.
    pub fn uplink(&self, uplink: Uplink, router: BorrowedFd<'_>) -> Result<UplinkMade> {
        match self.call(&Request::Uplink(uplink), &[router])?.0 {
            Reply::Uplink(made) => Ok(made),
            _ => Err(CallError::Unexpected),
        }
    }

    /// Lead ports of the host, each proved by its socket, to containers behind an uplink. Not more than
    /// [`crate::request::MAX_PUBLISHED`] at once.
    pub fn publish(&self, uplink: Made, ports: &[(BorrowedFd<'_>, SocketAddr)]) -> Result<()> {
        let (sockets, targets): (Vec<_>, Vec<_>) = ports.iter().copied().unzip();
        self.done(&Request::Publish(Publish { uplink, targets }), &sockets)
    }

    /// A socket at a granted port.
    pub fn bind(&self, bind: Bind) -> Result<OwnedFd> {
        match self.call(&Request::Bind(bind), &[])? {
            (Reply::Bound, Some(socket)) => Ok(socket),
            _ => Err(CallError::Unexpected),
        }
    }

    /// Remove a link that was made for the caller.
    pub fn release(&self, made: Made) -> Result<()> {
        self.done(&Request::Release(made), &[])
    }

    /// Collect what dead owners left.
    pub fn gc(&self) -> Result<()> {
        self.done(&Request::Gc, &[])
    }

    fn done(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
        match self.call(request, fds)?.0 {
            Reply::Done => Ok(()),
            _ => Err(CallError::Unexpected),
        }
    }

    /// Send a request and wait for its answer, which is neither [`Reply::Denied`] nor
    /// [`Reply::Unavailable`].
    pub fn call(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Option<OwnedFd>)> {
        let kind = SockType::SeqPacket;
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
        let mut command = Command::new(&self.program);
        command.arg("serve").env_clear().stdin(theirs);
        let started = command.stdout(Stdio::null()).spawn();
        let mut child = started.map_err(|source| CallError::Start {
            program: self.program.clone(),
            source,
        })?;
        // The command still holds the helper's end: with it closed, the helper's death ends the wait.
        drop(command);
        let answer = exchange(ours.as_fd(), request, fds);
        if answer.is_err() {
            // One that was installed setuid root does not listen to us; it ends by itself.
            let _ = child.kill();
        }
        drop(ours);
        let _ = child.wait();
        match answer? {
            (Reply::Denied, _) => Err(CallError::Denied),
            (Reply::Unavailable(reason), _) => Err(reason.into()),
            answer => Ok(answer),
        }
    }
}

fn exchange(
    socket: BorrowedFd<'_>,
    request: &Request,
    fds: &[BorrowedFd<'_>],
) -> Result<(Reply, Option<OwnedFd>)> {
    match channel::send(socket, &request.encode(), fds) {
        // It refused before it read anything.
        Ok(()) | Err(Errno::EPIPE) => {}
        Err(errno) => return Err(errno.into()),
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(socket, PollFlags::POLLIN)], timeout) {
            Ok(0) => return Err(CallError::Silent),
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let received = match channel::receive(socket) {
        // It ended before it read the request, and the kernel tells that before what it said.
        Err(Errno::ECONNRESET) => channel::receive(socket),
        other => other,
    };
    let received = match received {
        Ok(received) if !received.bytes.is_empty() => received,
        Ok(_) | Err(Errno::ECONNRESET) => return Err(CallError::Silent),
        Err(errno) => return Err(errno.into()),
    };
    let reply = Reply::decode(&received.bytes)?;
    Ok((reply, received.fds.into_iter().next()))
}
