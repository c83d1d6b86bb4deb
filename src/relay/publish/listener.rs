//! A listening socket of the host netns, made by the daemon and handed over.
//!
//! Invariant: what a descriptor is, it says itself (getsockname(2), SO_PROTOCOL, IPV6_V6ONLY); no
//! word of the sender's is needed. One descriptor serves all workers.
//!
//! Sources: tcp(7), ip(7), ipv6(7), socket(7).

use crate::ports::{HostAddr, Port, Proto};
use crate::relay::tcp::host_side::prepare_to_last;
use crate::relay::tcp::pacing::Aside;
use crate::sys::udp::{self, Report};
use serde::Serialize;
use socket2::{Domain, Protocol, SockRef, Type};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Receive buffer of a UDP socket, bytes: datagrams of all its clients wait there.
const QUEUE: usize = 4 << 20;

/// What [`Listener`] remembers of refusals: none, IPv4, IPv6.
const BY_NOBODY: u8 = 0;
const BY_FAMILY: [u8; 2] = [1, 2];

/// Where a socket listens: no two sockets share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bound {
    /// Protocol.
    pub proto: Proto,
    /// Address.
    pub addr: HostAddr,
    /// Port.
    pub port: Port,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.addr, self.port, self.proto)
    }
}

/// Why a descriptor is no listener of ours.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// It cannot be asked, or its options cannot be set.
    #[error("examine a published port's socket")]
    Socket(#[from] io::Error),
    /// It is something else.
    #[error("not a listening TCP or bound UDP socket over IP")]
    Kind,
}

/// What a published port has seen.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    refused: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// The same at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Connections, or UDP clients, that reached the container.
    pub accepted: u64,
    /// Those that did not: it refused, it did not answer, or we had no room.
    pub refused: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}

impl Counters {
    /// One has reached the container.
    pub fn accept(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// One has not.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes were carried.
    pub fn carry(&self, bytes_in: u64, bytes_out: u64) {
        if bytes_in > 0 {
            self.bytes_in.fetch_add(bytes_in, Ordering::Relaxed);
        }
        if bytes_out > 0 {
            self.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
        }
    }

    /// As of now.
    pub fn read(&self) -> Counts {
        Counts {
            accepted: self.accepted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
        }
    }
}

/// One listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    bound: Bound,
    /// What its connections do not inherit.
    control: Aside,
    /// Of its whole life, whatever it leads to.
    pub counters: std::sync::Arc<Counters>,
    /// Bits of what was told once.
    told: AtomicU8,
    /// Who refused datagrams last.
    refused: AtomicU8,
}

impl Listener {
    /// Takes over a socket, and sets what its connections inherit.
    pub fn new(socket: OwnedFd) -> Result<Self, ListenerError> {
        let options = SockRef::from(&socket);
        let domain = options.domain()?;
        let v6 = domain == Domain::IPV6;
        if !v6 && domain != Domain::IPV4 {
            return Err(ListenerError::Kind);
        }
        let proto = match (options.r#type()?, options.protocol()?) {
            (Type::STREAM, Some(Protocol::TCP)) if options.is_listener()? => Proto::Tcp,
            (Type::DGRAM, Some(Protocol::UDP)) => Proto::Udp,
            _other => return Err(ListenerError::Kind),
        };
        let both = v6 && !options.only_v6()?;
        let address = options.local_addr()?;
        let address = address.as_socket().ok_or(ListenerError::Kind)?;
        let bound = Bound {
            proto,
            addr: if both && address.ip() == Ipv6Addr::UNSPECIFIED {
                HostAddr::Any
            } else {
                HostAddr::only(address.ip())
            },
            port: Port::new(address.port()).ok_or(ListenerError::Kind)?,
        };
        let control = match proto {
            Proto::Tcp => prepare_tcp(&options)?,
            Proto::Udp => {
                prepare_udp(&socket, v6, both)?;
                Aside::default()
            }
        };
        Ok(Self {
            socket,
            bound,
            control,
            counters: std::sync::Arc::default(),
            told: AtomicU8::new(0),
            refused: AtomicU8::new(BY_NOBODY),
        })
    }

    /// Where it listens.
    pub fn bound(&self) -> Bound {
        self.bound
    }

    /// The descriptor.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Lets the host's own congestion control rule a connection just accepted, unless its client is on this
    /// machine.
    pub fn pace(&self, accepted: &OwnedFd) {
        if let Err(error) = self.control.give_back_to_far(accepted) {
            tracing::debug!(publish.listener = %self.bound, %error, "the host's congestion control not given back");
        }
    }

    /// The last datagrams to be refused were so at the container's address of this family.
    pub fn note_refusal(&self, v6: bool) {
        self.refused
            .store(BY_FAMILY[usize::from(v6)], Ordering::Relaxed);
    }

    /// Whether it was this family's.
    pub fn was_refused(&self, v6: bool) -> bool {
        self.refused.load(Ordering::Relaxed) == BY_FAMILY[usize::from(v6)]
    }

    /// `true` the first time that `bit` is given.
    pub fn tell_once(&self, bit: u8) -> bool {
        self.told.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

fn prepare_tcp(socket: &SockRef<'_>) -> io::Result<Aside> {
    socket.set_nonblocking(true)?;
    socket.set_out_of_band_inline(true)?;
    prepare_to_last(socket)?;
    Aside::put_for_accepted(socket)
}

fn prepare_udp(socket: &OwnedFd, v6: bool, both: bool) -> io::Result<()> {
    for report in [Report::LocalAddress, Report::Tos, Report::Segments] {
        udp::enable(socket.as_fd(), v6, report)?;
    }
    if both {
        udp::enable(socket.as_fd(), false, Report::Tos)?;
    }
    // A shallow queue is no failure.
    let _ = SockRef::from(socket).set_recv_buffer_size(QUEUE);
    Ok(())
}

/// An address as rules and containers see it, without scope and IPv6 clothes.
pub fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The wildcard address of a family.
pub fn wildcard(v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::OwnedFd;

    fn bound(socket: impl Into<OwnedFd>) -> Result<String, ListenerError> {
        let listener = Listener::new(socket.into())?;
        let bound = listener.bound();
        Ok(format!("{} {}", bound.addr, bound.proto))
    }

    #[test]
    fn descriptors_say_what_they_are() {
        let tcp = |at: &str| bound(TcpListener::bind(at).unwrap()).unwrap();
        let udp = |at: &str| bound(UdpSocket::bind(at).unwrap()).unwrap();
        assert_eq!(tcp("127.0.0.1:0"), "127.0.0.1 tcp");
        assert_eq!(tcp("0.0.0.0:0"), "0.0.0.0 tcp");
        assert_eq!(tcp("[::]:0"), "* tcp");
        assert_eq!(udp("[::1]:0"), "[::1] udp");
        assert_eq!(udp("[::]:0"), "* udp");
        let only = socket2::Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
        only.set_only_v6(true).unwrap();
        only.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into())
            .unwrap();
        assert_eq!(bound(OwnedFd::from(only)).unwrap(), "[::] udp");
    }

    #[test]
    fn other_descriptors_are_refused() {
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(listening.local_addr().unwrap()).unwrap();
        assert!(matches!(bound(connected), Err(ListenerError::Kind)));
        let unbound = socket2::Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        assert!(matches!(
            bound(OwnedFd::from(unbound)),
            Err(ListenerError::Kind)
        ));
        let (unix, _) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(matches!(bound(unix), Err(ListenerError::Kind)));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(bound(file), Err(ListenerError::Socket(_))));
    }

    #[test]
    fn things_are_told_once() {
        let listener = Listener::new(TcpListener::bind("127.0.0.1:0").unwrap().into()).unwrap();
        assert!(listener.tell_once(1) && listener.tell_once(2));
        assert!(!listener.tell_once(1) && !listener.tell_once(2));
    }
}
