//! Router-side sockets: what the container takes for the destination.
//!
//! All flows to a destination share one unconnected, address-transparent *reply socket*. A socket
//! for each flow, bound to the same destination, would make bind(2) linear in the number of flows
//! (measured: 6,400 new flows a second fell to 1,100 at 8,000 flows), so only heavy flows get one
//! that is connected, and of those to one destination only the first [`MAX_OWN`]; tproxy finds
//! connected sockets only, so that nothing arrives at the shared ones.

use super::flow::FlowKey;
use super::transmit::Segmentation;
use crate::relay::socket_pool::{SocketKind, SocketPool};
use socket2::{SockAddr, SockRef};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Flows of one worker to one destination that have sockets of their own: bind(2) looks at each of them.
const MAX_OWN: usize = 256;

/// Reply sockets by destination.
#[derive(Default)]
pub(super) struct Replies {
    sockets: HashMap<SocketAddr, Reply>,
}

struct Reply {
    flows: usize,
    /// Flows with a socket of their own.
    own: usize,
    socket: OwnedFd,
    segmentation: Segmentation,
}

impl Replies {
    /// Counts a flow in; `make` is called for a destination's first one.
    pub(super) fn enter(
        &mut self,
        destination: SocketAddr,
        make: impl FnOnce() -> io::Result<OwnedFd>,
    ) -> io::Result<()> {
        if let Some(reply) = self.sockets.get_mut(&destination) {
            reply.flows += 1;
            return Ok(());
        }
        let socket = make()?;
        self.sockets.insert(
            destination,
            Reply {
                flows: 1,
                own: 0,
                socket,
                segmentation: Segmentation::UNTRIED,
            },
        );
        Ok(())
    }

    /// Whether one more flow to `destination` may have a socket of its own.
    pub(super) fn admits_own(&self, destination: SocketAddr) -> bool {
        let reply = self.sockets.get(&destination);
        reply.is_some_and(|reply| reply.own < MAX_OWN)
    }

    /// Counts a flow that has got one.
    pub(super) fn count_own(&mut self, destination: SocketAddr) {
        if let Some(reply) = self.sockets.get_mut(&destination) {
            reply.own += 1;
        }
    }

    /// Counts a flow out, which had a socket of its `own` or not; the last one takes the shared socket
    /// with it: `true`.
    pub(super) fn leave(&mut self, destination: SocketAddr, own: bool) -> bool {
        let Some(reply) = self.sockets.get_mut(&destination) else {
            return false;
        };
        reply.flows -= 1;
        reply.own -= usize::from(own);
        let last = reply.flows == 0;
        if last {
            self.sockets.remove(&destination);
        }
        last
    }

    /// The socket that sends in a destination's name.
    pub(super) fn socket(
        &mut self,
        destination: SocketAddr,
    ) -> Option<(BorrowedFd<'_>, &mut Segmentation)> {
        let reply = self.sockets.get_mut(&destination)?;
        Some((reply.socket.as_fd(), &mut reply.segmentation))
    }
}

/// A socket bound to `destination`, foreign though it is.
pub(super) fn unconnected(pool: &SocketPool, destination: SocketAddr) -> io::Result<OwnedFd> {
    let kind = if destination.is_ipv6() {
        SocketKind::UdpV6
    } else {
        SocketKind::UdpV4
    };
    // Every worker has one for the same destination, and heavy flows theirs: the pool's are such
    // that they may.
    let socket = pool.take(kind)?;
    SockRef::from(&socket).bind(&SockAddr::from(destination))?;
    Ok(socket)
}

/// A socket between a flow's destination and its client.
pub(super) fn connected(pool: &SocketPool, key: FlowKey) -> io::Result<OwnedFd> {
    let socket = unconnected(pool, key.destination)?;
    SockRef::from(&socket).connect(&SockAddr::from(key.client))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_socket_serves_all_flows_to_a_destination() {
        let mut replies = Replies::default();
        let destination = "192.0.2.1:53".parse().unwrap();
        let make = || Ok(std::net::UdpSocket::bind("127.0.0.1:0")?.into());
        replies.enter(destination, make).unwrap();
        replies.enter(destination, || panic!("made twice")).unwrap();
        assert!(!replies.leave(destination, false));
        assert!(replies.socket(destination).is_some());
        assert!(replies.leave(destination, false));
        assert!(replies.socket(destination).is_none() && !replies.leave(destination, false));
    }

    #[test]
    fn sockets_of_ones_own_are_few_to_one_destination() {
        let mut replies = Replies::default();
        let destination = "192.0.2.1:53".parse().unwrap();
        let make = || Ok(std::net::UdpSocket::bind("127.0.0.1:0")?.into());
        assert!(!replies.admits_own(destination), "nobody is there");
        for _ in 0..=MAX_OWN {
            replies.enter(destination, make).unwrap();
        }
        for _ in 0..MAX_OWN {
            assert!(replies.admits_own(destination));
            replies.count_own(destination);
        }
        assert!(!replies.admits_own(destination));
        assert!(!replies.leave(destination, true));
        assert!(replies.admits_own(destination), "another one's place");
        replies.count_own(destination);
        assert!(!replies.admits_own(destination));
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let mut replies = Replies::default();
        let destination = "192.0.2.1:53".parse().unwrap();
        assert!(
            replies
                .enter(destination, || Err(io::ErrorKind::TimedOut.into()))
                .is_err()
        );
        assert!(replies.socket(destination).is_none());
    }
}
