//! The name server of every network, on its gateway addresses, UDP and TCP.
//!
//! Place: a thread of its own in the relay. Its listening sockets were made in the router netns; it
//! runs in the host netns, where it asks the host's resolvers. Map, in the order in which a query
//! passes through: `udp` with `batch`, `tcp` (transports) → `server` (one query) → `message` (wire) → `zone`
//! (what we know) → `cache`, `limits`, `upstream` with `lanes` (what others know).
//!
//! Invariants: the network of a query is found by the address that it was sent to, only its own
//! sandboxes are answered, and they learn names of networks that they are on; nothing here blocks, touches the file system, or grows without bound.
//!
//! Against forged answers (RFC 5452): 16 random bits of id and the kernel's choice of a port, some 15 bits;
//! several ports at a time, each for 32 questions and a tenth of a second at most (`lanes`).
//!
//! Descriptors: at most 3 × 1024 for queries under way, 256 for TCP clients, four for each resolver asked
//! just now, and a handful; together at most a fifth of RLIMIT_NOFILE where that is small.
//!
//! System calls of the running thread (for the relay's seccomp list): `epoll_wait`, `epoll_ctl`,
//! `read`/`write` (eventfd), `recvmmsg`, `sendmsg`, `recvfrom`, `sendto`, `accept4`, `getsockname`,
//! `socket` (AF_INET and AF_INET6; SOCK_DGRAM and SOCK_STREAM), `connect`, `getsockopt`
//! (SO_ERROR), `setsockopt` (TCP_NODELAY), `shutdown`, `close`, `getrandom`, `futex`,
//! `clock_gettime`, what malloc and the log need (`mmap`, `munmap`, `mremap`, `mprotect`, `madvise`,
//! `brk`, `write`), and in debug builds `fcntl` (F_GETFD, before each close). A thread that starts
//! under the filter also needs `rseq`, `set_robust_list`, `sigaltstack`, `sched_getaffinity`,
//! `gettid`, `prctl` (PR_SET_NAME), and `openat` must fail with an error rather than kill: malloc
//! counts the CPUs in /sys on its first contended use and does without. Everything else happens in
//! [`spawn`], on the calling thread.

mod batch;
pub mod bound;
mod cache;
mod lanes;
mod limits;
pub mod message;
mod server;
mod tcp;
mod udp;
mod upstream;
mod zone;

use super::rules::SharedRules;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit};
use server::{Quotas, Rules, Server};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use udp::{Family, UdpListener};
use upstream::{Timing, Upstream};

/// Sockets bound to the wildcard address and port 53 in the router netns, IPv6 ones with
/// IPV6_V6ONLY; TCP ones listening. An absent one is not served.
#[derive(Debug, Default)]
pub struct DnsSockets {
    /// UDP, 0.0.0.0.
    pub udp4: Option<OwnedFd>,
    /// UDP, `::`.
    pub udp6: Option<OwnedFd>,
    /// TCP, 0.0.0.0.
    pub tcp4: Option<OwnedFd>,
    /// TCP, `::`.
    pub tcp6: Option<OwnedFd>,
}

/// Starts the thread. Whatever can fail fails here, before the relay locks itself in. The thread
/// ends when every socket is broken, that is, not before the relay does.
///
/// # Errors
/// The runtime's epoll instance, a socket's options, or the thread could not be had.
pub fn spawn(sockets: DnsSockets, rules: Arc<SharedRules>) -> io::Result<JoinHandle<()>> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let current = Box::new(move || Arc::clone(rules.load().snapshot()));
    spawn_with(sockets, current, Timing::default(), Quotas::within(limit))
}

fn spawn_with(
    sockets: DnsSockets,
    rules: Rules,
    timing: Timing,
    quotas: Quotas,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let listeners = Listeners::new(sockets, &runtime)?;
    std::thread::Builder::new()
        .name("dns".into())
        .spawn(move || {
            let server = Rc::new(Server::new(rules, Upstream::new(timing), quotas));
            LocalSet::new().block_on(&runtime, listeners.serve(&server));
        })
}

struct Listeners {
    udp: Vec<UdpListener>,
    tcp: Vec<TcpListener>,
}

impl Listeners {
    fn new(sockets: DnsSockets, runtime: &Runtime) -> io::Result<Self> {
        let _entered = runtime.enter();
        let mut udp = Vec::new();
        for (socket, family) in [(sockets.udp4, Family::V4), (sockets.udp6, Family::V6)] {
            udp.extend(
                socket
                    .map(|socket| UdpListener::new(socket, family))
                    .transpose()?,
            );
        }
        let mut tcp_listeners = Vec::new();
        for socket in [sockets.tcp4, sockets.tcp6] {
            tcp_listeners.extend(socket.map(tcp::listener).transpose()?);
        }
        Ok(Self {
            udp,
            tcp: tcp_listeners,
        })
    }

    async fn serve(self, server: &Rc<Server>) {
        let mut serving = tokio::task::JoinSet::new();
        for listener in self.udp {
            serving.spawn_local(Rc::new(listener).serve(Rc::clone(server)));
        }
        for listener in self.tcp {
            serving.spawn_local(tcp::serve(listener, Rc::clone(server)));
        }
        while serving.join_next().await.is_some() {}
    }
}

fn set_nonblocking(socket: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

#[cfg(test)]
mod tests;
