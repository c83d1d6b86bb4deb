//! Address-transparent sockets of the router netns, made in advance by the one thread that may.
//!
//! Setting IP_TRANSPARENT takes CAP_NET_RAW; using it (bind to a foreign address) does not. So a
//! single thread in the router netns, holding that one capability and reading nothing that anybody
//! sent, keeps a stock of fresh sockets; workers take one and bind it themselves.
//!
//! Invariant: whoever takes a socket waits at most for the making of one batch.
//!
//! Sources: ip(7), capabilities(7); `inet_can_nonlocal_bind` in the kernel tests the socket's flag.

use crate::sys::udp::{self, Report};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What sockets there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKind {
    /// UDP over IPv4.
    UdpV4,
    /// UDP over IPv6 only.
    UdpV6,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6 only.
    TcpV6,
}

const KINDS: [SocketKind; 4] = [
    SocketKind::UdpV4,
    SocketKind::UdpV6,
    SocketKind::TcpV4,
    SocketKind::TcpV6,
];

/// Sockets made at once, once a kind has been asked for.
const BATCH: usize = 64;
/// The stock is filled up when it falls below this.
const LOW: usize = 48;
/// A socket takes microseconds to make; longer than this, and the machine is in trouble.
const PATIENCE: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
struct Shelf {
    stock: VecDeque<OwnedFd>,
    wanted: bool,
    /// Why the last batch could not be made; tells those who wait.
    failure: Option<i32>,
}

#[derive(Debug, Default)]
struct Shared {
    shelves: Mutex<[Shelf; 4]>,
    wanted: Condvar,
    filled: Condvar,
}

/// A handle of the stock.
#[derive(Debug, Clone, Default)]
pub struct SocketPool {
    shared: Arc<Shared>,
}

impl SocketPool {
    /// A fresh non-blocking socket of the router netns, IP_TRANSPARENT and SO_REUSEADDR set, not
    /// bound.
    ///
    /// EMFILE at the descriptor limit, EAFNOSUPPORT without IPv6, `TimedOut` where the thread that
    /// makes them does not answer.
    pub fn take(&self, kind: SocketKind) -> io::Result<OwnedFd> {
        let mut shelves = self.shelves();
        loop {
            let shelf = &mut shelves[kind as usize];
            if let Some(socket) = shelf.stock.pop_front() {
                if shelf.stock.len() < LOW && !shelf.wanted {
                    shelf.wanted = true;
                    self.shared.wanted.notify_one();
                }
                return Ok(socket);
            }
            shelf.wanted = true;
            shelf.failure = None;
            self.shared.wanted.notify_one();
            let (guard, timeout) = self
                .shared
                .filled
                .wait_timeout_while(shelves, PATIENCE, |shelves| {
                    let shelf = &shelves[kind as usize];
                    shelf.stock.is_empty() && shelf.failure.is_none()
                })
                .unwrap_or_else(PoisonError::into_inner);
            shelves = guard;
            let shelf = &shelves[kind as usize];
            if shelf.stock.is_empty() {
                if let Some(errno) = shelf.failure {
                    return Err(io::Error::from_raw_os_error(errno));
                }
                if timeout.timed_out() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }

    /// Puts sockets on the shelf that a test has made.
    #[cfg(test)]
    pub fn stock(&self, kind: SocketKind, sockets: impl Iterator<Item = OwnedFd>) {
        self.shelves()[kind as usize].stock.extend(sockets);
    }

    /// Makes sockets whenever they are wanted; does not return. For the thread in the router netns.
    pub fn serve(&self) -> ! {
        let defaults = Defaults::here();
        let mut shelves = self.shelves();
        loop {
            let Some(kind) = KINDS
                .into_iter()
                .find(|kind| shelves[*kind as usize].wanted)
            else {
                shelves = self
                    .shared
                    .wanted
                    .wait(shelves)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(shelves);
            let mut failure = None;
            let mut batch = Vec::with_capacity(BATCH);
            for _ in 0..BATCH {
                match transparent(kind, defaults).and_then(reusable) {
                    Ok(socket) => batch.push(socket),
                    Err(error) => {
                        failure = Some(error.raw_os_error().unwrap_or(libc::EIO));
                        break;
                    }
                }
            }
            shelves = self.shelves();
            let shelf = &mut shelves[kind as usize];
            shelf.stock.extend(batch);
            shelf.wanted = false;
            shelf.failure = failure;
            self.shared.filled.notify_all();
        }
    }

    fn shelves(&self) -> MutexGuard<'_, [Shelf; 4]> {
        self.shared
            .shelves
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Receive queue of a UDP socket, bytes. The usual 208 KiB hold some 90 datagrams of full size:
/// 10 ms at 100 Mbit/s, less than a worker may have to wait for a core.
const QUEUE: usize = 1 << 20;

/// Gives a UDP socket a deep receive queue, as far as net.core.rmem_max lets it (socket(7)).
pub(super) fn deepen(socket: &Socket) {
    // A shallow queue is no failure.
    let _ = socket.set_recv_buffer_size(QUEUE);
}

/// A sandbox that died without a word is noticed within some three minutes. It costs nothing: the
/// probes never leave the machine.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(KEEPALIVE_TIME)
    .with_interval(KEEPALIVE_INTERVAL)
    .with_retries(KEEPALIVE_RETRIES);
// As the helper's sysctl.rs sets them.
const KEEPALIVE_TIME: Duration = Duration::from_secs(120);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 4;

/// For connections that never leave the machine. Always there and always permitted
/// (net.ipv4.tcp_allowed_congestion_control).
pub(super) const CONGESTION: &[u8] = b"reno";

/// What a fresh TCP socket of a network namespace has by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Defaults {
    /// The times of [`KEEPALIVE`].
    keepalive: bool,
    /// [`CONGESTION`].
    congestion: bool,
}

impl Defaults {
    /// In the network namespace of the calling thread. The helper has made the router netns such that
    /// both hold, where it could; asked once, this spares every socket four system calls.
    pub(super) fn here() -> Self {
        Self::read().unwrap_or_default()
    }

    fn read() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        let times = (
            socket.tcp_keepalive_time()?,
            socket.tcp_keepalive_interval()?,
            socket.tcp_keepalive_retries()?,
        );
        let congestion = socket.tcp_congestion()?;
        let name = congestion.split(|byte| *byte == 0).next();
        Ok(Self {
            keepalive: times == (KEEPALIVE_TIME, KEEPALIVE_INTERVAL, KEEPALIVE_RETRIES),
            congestion: name == Some(CONGESTION),
        })
    }
}

/// Sets what every TCP socket towards a container has; those that a listener accepts inherit it.
fn tune(socket: &Socket, defaults: Defaults) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_out_of_band_inline(true)?;
    if defaults.keepalive {
        socket.set_keepalive(true)?;
    } else {
        socket.set_tcp_keepalive(&KEEPALIVE)?;
    }
    if !defaults.congestion {
        socket.set_tcp_congestion(CONGESTION)?;
    }
    Ok(())
}

/// Foreign addresses are bound many times over: a client's by each of its conversations.
fn reusable(socket: OwnedFd) -> io::Result<OwnedFd> {
    SockRef::from(&socket).set_reuse_address(true)?;
    Ok(socket)
}

/// A transparent, non-blocking socket in the network namespace of the calling thread.
pub(super) fn transparent(kind: SocketKind, defaults: Defaults) -> io::Result<OwnedFd> {
    let (domain, kind, protocol) = match kind {
        SocketKind::UdpV4 => (Domain::IPV4, Type::DGRAM, Protocol::UDP),
        SocketKind::UdpV6 => (Domain::IPV6, Type::DGRAM, Protocol::UDP),
        SocketKind::TcpV4 => (Domain::IPV4, Type::STREAM, Protocol::TCP),
        SocketKind::TcpV6 => (Domain::IPV6, Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(domain, kind.nonblocking(), Some(protocol))?;
    if protocol == Protocol::UDP {
        deepen(&socket);
        // Before Linux 5.19 it is not to be had, and every datagram counts as one that may be
        // fragmented.
        let _ = udp::enable(socket.as_fd(), domain == Domain::IPV6, Report::Fragments);
    } else {
        tune(&socket, defaults)?;
    }
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
        socket.set_ip_transparent_v6(true)?;
    } else {
        socket.set_ip_transparent_v4(true)?;
    }
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_alike_whatever_their_netns_does_by_itself() {
        let here = Defaults::here();
        for defaults in [Defaults::default(), here] {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
            tune(&socket, defaults).unwrap();
            assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_TIME);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_RETRIES);
            assert!(socket.tcp_congestion().unwrap().starts_with(CONGESTION));
        }
    }
}
