//! Sockets of the host netns, for connections that containers make.
//!
//! On the path: gate → [`connect`](super::connect) → **here** → connect(2).
//!
//! Most connections are short, and each system call is felt. So sockets are made ahead, while a container reads the answer to
//! its SYN, and what only a longer connection needs is set when it has become one ([`settle_in`]).

use super::pacing::Aside;
use crate::relay::exit;
use crate::relay::rules::Rules;
use crate::sys::udp::{self, Report};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// A SYN with less than this came from a TCP traceroute: the host side's SYN gets the same.
const LOW_TTL: u8 = 32;

/// Idle time after which the world is asked whether it is still there. NATs on the way forget
/// established connections after two hours and more (RFC 5382 §5), many after minutes.
const KEEPALIVE: Duration = Duration::from_secs(300);

/// Sockets made ahead, at most.
const MOST_AHEAD: usize = 4;

/// A socket that has not connected yet.
#[derive(Debug)]
pub struct Fresh {
    /// The socket, non-blocking.
    pub host: OwnedFd,
    /// What it has to get back unless its peer is on this machine.
    pub control: Aside,
}

/// Made ahead, of one family.
#[derive(Debug, Default)]
struct Shelf {
    sockets: Vec<(Socket, Aside)>,
    /// As many are to be made.
    taken: usize,
}

/// One worker's stock.
#[derive(Debug, Default)]
pub struct HostSockets {
    v4: Shelf,
    v6: Shelf,
    /// Of a socket of this second. Asked of each one it would be a system call more.
    usual: Option<Aside>,
}

impl HostSockets {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that may connect to `destination`; its packets go as far as `ttl` lets the container's.
    pub fn take(&mut self, destination: SocketAddr, ttl: u8, rules: &Rules) -> io::Result<Fresh> {
        let v6 = destination.is_ipv6();
        let shelf = self.shelf(v6);
        shelf.taken += 1;
        let ready = shelf.sockets.pop();
        let (socket, control) = match ready {
            Some(one) => one,
            None => self.make(v6)?,
        };
        if ttl < LOW_TTL {
            let ttl = u32::from(ttl.max(1));
            if v6 {
                socket.set_unicast_hops_v6(ttl)?;
            } else {
                socket.set_ttl_v4(ttl)?;
            }
        }
        exit::choose(&socket, destination.ip(), rules)?;
        let host = socket.into();
        Ok(Fresh { host, control })
    }

    /// Makes as many as were taken since, up to a few.
    pub fn make_ahead(&mut self) {
        for v6 in [false, true] {
            let shelf = self.shelf(v6);
            let wanted = std::mem::take(&mut shelf.taken).min(MOST_AHEAD);
            for _ in shelf.sockets.len()..wanted {
                // Whoever needs one learns why there is none.
                let Ok(one) = self.make(v6) else {
                    return;
                };
                self.shelf(v6).sockets.push(one);
            }
        }
    }

    /// Once a second or so: the host may have chosen another congestion control.
    pub fn tick(&mut self) {
        *self = Self::default();
    }

    fn shelf(&mut self, v6: bool) -> &mut Shelf {
        if v6 { &mut self.v6 } else { &mut self.v4 }
    }

    fn make(&mut self, v6: bool) -> io::Result<(Socket, Aside)> {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        udp::enable(socket.as_fd(), v6, Report::Errors)?;
        socket.set_out_of_band_inline(true)?;
        let control = match &self.usual {
            Some(control) => {
                control.put_again(&socket)?;
                control.clone()
            }
            None => self.usual.insert(Aside::put(&socket)?).clone(),
        };
        Ok((socket, control))
    }
}

/// Sets what a connection needs that lasts, or sends more than once. What a listener accepts inherits it.
pub fn prepare_to_last(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}

/// The same where the connection is there already. A peer that is gone says so by its next event.
pub fn settle_in(host: &impl AsFd) {
    if let Err(error) = prepare_to_last(&SockRef::from(host)) {
        tracing::debug!(%error, "host side without keepalive");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::snapshot::Snapshot;

    const DESTINATION: &str = "192.0.2.1:80";

    fn take(sockets: &mut HostSockets, destination: &str, ttl: u8) -> Socket {
        let rules = Rules::new(Snapshot::default());
        let fresh = sockets.take(destination.parse().unwrap(), ttl, &rules);
        fresh.unwrap().host.into()
    }

    fn ahead(sockets: &HostSockets) -> (usize, usize) {
        (sockets.v4.sockets.len(), sockets.v6.sockets.len())
    }

    #[test]
    fn as_many_are_made_ahead_as_were_taken_up_to_a_few() {
        let mut sockets = HostSockets::new();
        sockets.make_ahead();
        assert_eq!(ahead(&sockets), (0, 0));
        for (taken, made) in [(1, 1), (3, 3), (0, 3), (100, MOST_AHEAD)] {
            let ready = sockets.v4.sockets.len();
            let took: Vec<_> = (0..taken)
                .map(|_| take(&mut sockets, DESTINATION, 64))
                .collect();
            let left = ready - took.len().min(ready);
            assert_eq!(ahead(&sockets), (left, 0));
            sockets.make_ahead();
            assert_eq!(ahead(&sockets), (made, 0));
        }
        take(&mut sockets, "[2001:db8::1]:80", 64);
        sockets.make_ahead();
        assert_eq!(ahead(&sockets), (MOST_AHEAD, 1));
        sockets.tick();
        assert_eq!(ahead(&sockets), (0, 0));
    }

    #[test]
    fn those_made_ahead_are_like_the_others() {
        let mut sockets = HostSockets::new();
        let first = take(&mut sockets, DESTINATION, 64);
        sockets.make_ahead();
        for ttl in [64, 3] {
            let socket = take(&mut sockets, DESTINATION, ttl);
            assert!(socket.out_of_band_inline().unwrap() && socket.nonblocking().unwrap());
            assert_eq!(
                socket.tcp_congestion().unwrap(),
                first.tcp_congestion().unwrap()
            );
            assert_eq!(socket.ttl_v4().unwrap() == 3, ttl == 3);
        }
    }

    #[test]
    fn what_lasts_is_kept_alive_and_sends_at_once() {
        let mut sockets = HostSockets::new();
        for destination in [DESTINATION, "[2001:db8::1]:80"] {
            let socket = take(&mut sockets, destination, 64);
            assert!(!socket.keepalive().unwrap());
            settle_in(&socket);
            assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
        }
    }
}
