//! The host's loopback, as far as it is open: which flows go there, and how they are told from others.
//!
//! On the path: `rules` asks here for what is addressed to the host; the sockets of a flow that may
//! pass are then connected to 127.0.0.1 or ::1 in the host netns. Invariant: what opens is a source
//! address, which the bridges let nobody forge; whoever is not listed has nothing.
//!
//! Sources: connect(2), RFC 9293 §3.5 (simultaneous open).

use crate::network::snapshot::{HostLoopbackView, Withheld};
use crate::ports::{HostLoopback, Port, Proto};
use socket2::SockRef;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What somebody wants of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A connection to this port.
    Tcp(u16),
    /// Datagrams to this port.
    Udp(u16),
    /// An echo.
    Echo,
}

impl Asked {
    /// Whether it is not carried.
    pub fn is_among(self, withheld: Withheld) -> bool {
        match self {
            Self::Tcp(_) => withheld.tcp,
            Self::Udp(_) => withheld.udp,
            Self::Echo => withheld.icmp,
        }
    }

    fn is_open(self, open: &HostLoopback) -> bool {
        let (proto, port) = match self {
            Self::Tcp(port) => (Proto::Tcp, port),
            Self::Udp(port) => (Proto::Udp, port),
            Self::Echo => return *open == HostLoopback::All,
        };
        Port::new(port).is_some_and(|port| open.holds(proto, port))
    }
}

/// What is open, by source address.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Openings(HashMap<IpAddr, Arc<HostLoopback>>);

impl Openings {
    /// From a snapshot.
    pub fn new(views: &[HostLoopbackView]) -> Self {
        let each = views.iter().flat_map(|view| {
            let open = Arc::new(view.open.clone());
            let sources = view.sources.iter();
            sources.map(move |source| (*source, Arc::clone(&open)))
        });
        Self(each.collect())
    }

    /// Whether `source` may have it.
    pub fn admit(&self, source: IpAddr, asked: Asked) -> bool {
        self.0.get(&source).is_some_and(|open| asked.is_open(open))
    }
}

/// Whether a socket that is connected to `peer` is so to itself: nobody has the port, and the kernel
/// happened to choose the very same for this end. To the container it is a closed port.
pub fn is_own_peer(socket: &OwnedFd, peer: SocketAddr) -> bool {
    let local = SockRef::from(socket).local_addr();
    let local = local.ok().and_then(|local| local.as_socket());
    local.is_some_and(|local| (local.ip(), local.port()) == (peer.ip(), peer.port()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn openings() -> Openings {
        let view = |open: &str, source: &str, other: &str| HostLoopbackView {
            sandbox: "web".to_owned(),
            open: open.to_owned().try_into().unwrap(),
            sources: vec![source.parse().unwrap()],
            others: vec![other.parse().unwrap()],
        };
        Openings::new(&[
            view("all", "10.89.0.2", "10.89.7.2"),
            view("80,8000-8010,53/udp", "fd00::3", "10.89.0.3"),
        ])
    }

    #[test]
    fn a_source_has_what_it_was_given() {
        let openings = openings();
        let admit = |source: &str, asked| openings.admit(source.parse().unwrap(), asked);
        for asked in [
            Asked::Tcp(1),
            Asked::Tcp(65_535),
            Asked::Udp(53),
            Asked::Echo,
        ] {
            assert!(admit("10.89.0.2", asked), "{asked:?}");
            for stranger in ["10.89.0.3", "10.89.7.2", "10.89.0.9", "fd00::2"] {
                assert!(!admit(stranger, asked), "{stranger} {asked:?}");
            }
        }
        for (asked, open) in [
            (Asked::Tcp(80), true),
            (Asked::Tcp(8005), true),
            (Asked::Udp(53), true),
            (Asked::Tcp(81), false),
            (Asked::Tcp(53), false),
            (Asked::Udp(80), false),
            (Asked::Tcp(0), false),
            (Asked::Echo, false),
        ] {
            assert_eq!(admit("fd00::3", asked), open, "{asked:?}");
        }
        assert!(!admit("10.89.0.2", Asked::Udp(0)), "no port");
    }

    #[test]
    fn a_socket_may_be_its_own_peer() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let connected = |to: SocketAddr| {
            socket.connect(to).unwrap();
            is_own_peer(&socket.try_clone().unwrap().into(), to)
        };
        assert!(connected(socket.local_addr().unwrap()));
        assert!(!connected(other.local_addr().unwrap()));
    }
}
