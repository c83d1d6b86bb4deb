//! One UDP flow: who talks to whom, its sockets, and how long it may be idle.

use super::transmit::Segmentation;
use crate::relay::exit;
use crate::relay::host_loopback::{Asked, is_own_peer};
use crate::relay::rules::{Refusal, Rules};
use crate::relay::socket_pool::deepen;
use crate::sys::udp::{self, Datagram, Report};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// RFC 4787 REQ-5: at least two minutes.
const IDLE: Duration = Duration::from_secs(120);
/// After one question and its answer on a well-known port: the exception of REQ-5 b, for DNS and
/// the like, which leave a socket behind for each question.
const IDLE_ONE_SHOT: Duration = Duration::from_secs(10);

/// Datagrams in both directions before a flow gets a router-side socket of its own.
const PROMOTE_AFTER: u64 = 16;

/// Bytes that may wait for room in the host-side socket. What comes on top is lost, as it would
/// be in a full device queue.
const MAX_BACKLOG: usize = 256 << 10;

/// TTL that containers use unless told otherwise; the host's own default then serves as well.
const USUAL_TTL: u8 = 64;

/// Who talks to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FlowKey {
    /// Address and port in the container.
    pub(super) client: SocketAddr,
    /// Where it sends to.
    pub(super) destination: SocketAddr,
}

impl FlowKey {
    /// Whether the rules let it out, and to whom.
    pub(super) fn admitted(&self, rules: &Rules) -> Result<SocketAddr, Refusal> {
        let port = self.destination.port();
        let asked = Asked::Udp(port);
        let address = rules.admit(self.client.ip(), self.destination.ip(), asked)?;
        Ok(SocketAddr::new(address, port))
    }
}

/// The state of a flow.
pub(super) struct Flow {
    pub(super) key: FlowKey,
    /// Connected to the destination, or to what that stands for.
    pub(super) host: OwnedFd,
    /// What the host side carries in one message.
    pub(super) segmentation: Segmentation,
    pub(super) router: RouterSide,
    /// What is longer than the path carries leaves in fragments, not at all otherwise.
    fragments: bool,
    outward: u64,
    inward: u64,
    backlog: VecDeque<Waiting>,
    backlog_bytes: usize,
}

/// How replies reach the container, and by which socket its datagrams come.
pub(super) enum RouterSide {
    /// The listener, and the destination's reply socket.
    Shared,
    /// The same for good: no socket could be made.
    Declined,
    /// A connected one.
    Own(Own),
}

/// A router-side socket connected to the container.
pub(super) struct Own {
    pub(super) socket: OwnedFd,
    /// What the router side carries in one message.
    pub(super) segmentation: Segmentation,
    /// The listener's last read begun when this socket was made. Until a later one has emptied
    /// it, older datagrams may wait there, and this socket is not read.
    pub(super) since: u64,
}

/// A datagram (or several of one size) that waits for room.
struct Waiting {
    data: Box<[u8]>,
    segment: Option<u16>,
    tos: u8,
    ttl: Option<u8>,
}

impl Flow {
    /// Opens the host side, to `peer`. `ttl`: of the first datagram.
    pub(super) fn open(
        key: FlowKey,
        peer: SocketAddr,
        ttl: Option<u8>,
        rules: &Rules,
    ) -> io::Result<Self> {
        let v6 = peer.is_ipv6();
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket = Socket::new(domain, kind, Some(Protocol::UDP))?;
        deepen(&socket);
        if v6 {
            // An IPv4-mapped destination must not get around the rules for IPv4.
            socket.set_only_v6(true)?;
        }
        for report in [Report::Errors, Report::Tos, Report::Segments] {
            udp::enable(socket.as_fd(), v6, report)?;
        }
        if let Some(ttl) = ttl.filter(|ttl| *ttl != USUAL_TTL) {
            // We are one hop.
            let ttl = i32::from(ttl).saturating_sub(1).max(1);
            if v6 {
                setsockopt(&socket, sockopt::Ipv6Ttl, &ttl)?;
            } else {
                setsockopt(&socket, sockopt::Ipv4Ttl, &ttl)?;
            }
        }
        // Where that cannot be had, the kernel's own way: everything may be fragmented.
        let _ = udp::fragment(socket.as_fd(), v6, false);
        exit::choose(&socket, peer.ip(), rules)?;
        socket.connect(&SockAddr::from(peer))?;
        let host = socket.into();
        if is_own_peer(&host, peer) {
            return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        }
        Ok(Self {
            key,
            host,
            segmentation: Segmentation::UNTRIED,
            router: RouterSide::Shared,
            fragments: false,
            outward: 0,
            inward: 0,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
        })
    }

    pub(super) fn v6(&self) -> bool {
        self.key.destination.is_ipv6()
    }

    /// From now on routers may take its datagrams apart, as the container lets them. There is no way
    /// back: a sender that allows it for some of its datagrams sees to the others itself.
    pub(super) fn let_fragment(&mut self) {
        if !self.fragments {
            self.fragments = true;
            let _ = udp::fragment(self.host.as_fd(), self.v6(), true);
        }
    }

    /// Counts datagrams from the container; `true` when it is time for a socket of its own.
    pub(super) fn count_outward(&mut self, datagrams: usize) -> bool {
        self.outward = self.outward.saturating_add(datagrams as u64);
        self.is_heavy()
    }

    /// Counts datagrams to the container; `true` as above.
    pub(super) fn count_inward(&mut self, datagrams: usize) -> bool {
        self.inward = self.inward.saturating_add(datagrams as u64);
        self.is_heavy()
    }

    fn is_heavy(&self) -> bool {
        let carried = self.outward.saturating_add(self.inward);
        matches!(self.router, RouterSide::Shared) && carried >= PROMOTE_AFTER
    }

    /// How long it may be idle.
    pub(super) fn idle_limit(&self) -> Duration {
        let well_known = self.key.destination.port() < 1024;
        if well_known && self.outward == 1 && self.inward >= 1 {
            IDLE_ONE_SHOT
        } else {
            IDLE
        }
    }

    /// Something waits for room in the host side.
    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Keeps what found no room, as far as there is any here.
    pub(super) fn keep(&mut self, datagrams: &[Datagram<'_>]) {
        for datagram in datagrams {
            if self.backlog_bytes + datagram.data.len() > MAX_BACKLOG {
                return;
            }
            self.backlog_bytes += datagram.data.len();
            self.backlog.push_back(Waiting {
                data: datagram.data.into(),
                segment: datagram.segment,
                tos: datagram.tos,
                ttl: datagram.ttl,
            });
        }
    }

    /// Tries to send what waits: `send` takes a batch and returns what found no room.
    pub(super) fn flush<S>(&mut self, mut send: S)
    where
        S: for<'a> FnMut(&mut Self, &[Datagram<'a>]) -> Vec<Datagram<'a>>,
    {
        let waiting = std::mem::take(&mut self.backlog);
        self.backlog_bytes = 0;
        let batch: Vec<_> = waiting
            .iter()
            .map(|waiting| Datagram {
                data: &waiting.data,
                segment: waiting.segment,
                tos: waiting.tos,
                ttl: waiting.ttl,
            })
            .collect();
        let left = send(self, &batch);
        self.keep(&left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(port: u16) -> Flow {
        let key = FlowKey {
            client: "10.89.0.2:4000".parse().unwrap(),
            destination: SocketAddr::from(([127, 0, 0, 1], port)),
        };
        Flow::open(key, key.destination, Some(64), &Rules::default()).unwrap()
    }

    #[test]
    fn one_question_and_its_answer_are_soon_forgotten() {
        let mut dns = flow(53);
        dns.count_outward(1);
        assert_eq!(dns.idle_limit(), IDLE);
        dns.count_inward(1);
        assert_eq!(dns.idle_limit(), IDLE_ONE_SHOT);
        dns.count_outward(1);
        assert_eq!(dns.idle_limit(), IDLE);
        let mut game = flow(27015);
        game.count_outward(1);
        game.count_inward(1);
        assert_eq!(game.idle_limit(), IDLE);
    }

    #[test]
    fn heavy_flows_are_promoted_once() {
        let mut flow = flow(9);
        assert!(!flow.count_outward(15));
        assert!(flow.count_outward(1));
        flow.router = RouterSide::Declined;
        assert!(!flow.count_outward(1));
    }

    #[test]
    fn the_backlog_keeps_order_and_bound() {
        let mut flow = flow(9);
        let data = vec![0; 1000];
        let datagram = Datagram {
            data: &data,
            segment: None,
            tos: 0,
            ttl: None,
        };
        flow.keep(&[datagram; 300]);
        assert_eq!(flow.backlog.len(), MAX_BACKLOG / 1000);
        assert_eq!(flow.backlog_bytes, flow.backlog.len() * 1000);
        let first = Datagram {
            data: b"first",
            ..datagram
        };
        let second = Datagram {
            data: b"second",
            ..datagram
        };
        flow.flush(|_, _| Vec::new());
        assert!(!flow.has_backlog());
        flow.keep(&[first, second]);
        flow.flush(|_, batch| batch[1..].to_vec());
        flow.flush(|_, batch| {
            assert_eq!(batch[0].data, b"second");
            Vec::new()
        });
        assert_eq!((flow.has_backlog(), flow.backlog_bytes), (false, 0));
    }
}
