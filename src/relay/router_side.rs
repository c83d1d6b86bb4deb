//! Everything that the relay has in the router netns, opened by one thread that goes there.
//!
//! The thread joins the router netns, opens all listeners, gate sockets and taps, keeps CAP_NET_RAW alone,
//! hands the sockets over, and from then on makes the sockets of the [`SocketPool`]. What takes longer, the rings of gates and taps,
//! comes [`later`](rings).
//!
//! Invariant: when [`start`] has returned, that thread holds one capability and no other thread has
//! entered the router netns. Sockets keep the network namespace that they were made in.
//!
//! Sources: setns(2), ip(7), packet(7).

pub mod rings;

use super::dns::DnsSockets;
use super::gate::UplinkMacs;
use super::sandbox::{self, SandboxError};
use super::socket_pool::{Defaults, SocketKind, SocketPool, transparent};
use super::tcp::framed;
use crate::sys;
use crate::sys::packet::Deaf;
use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};
use rings::{Coming, Packets};
use socket2::{SockAddr, SockRef};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, mpsc};

/// Where nftables sends new flows (`tproxy to 127.0.0.1:7000`, `[::1]:7000`).
const TPROXY_PORT: u16 = 7000;

/// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// What could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum RouterSideError {
    /// setns(2) failed: the relay is not in the user namespace that owns the router netns.
    #[error("enter the router netns")]
    Enter(#[source] io::Error),
    /// The helper makes up0 and up1 before it starts the relay.
    #[error("interface {0} is missing in the router netns")]
    NoInterface(&'static str),
    /// A socket.
    #[error("open the {what} in the router netns")]
    Open {
        /// Which.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The thread could not give up its capabilities.
    #[error("restrict the thread in the router netns")]
    Restrict(#[source] SandboxError),
    /// The thread could not be started, or died.
    #[error("run a thread in the router netns")]
    Thread(#[source] io::Error),
}

/// Sockets of one worker.
#[derive(Debug)]
pub struct WorkerSockets {
    /// Transparent TCP listeners: IPv4, IPv6.
    pub tcp: [Option<OwnedFd>; 2],
    /// Transparent UDP sockets: IPv4, IPv6.
    pub udp: (OwnedFd, Option<OwnedFd>),
    /// AF_PACKET on `up1`.
    pub gate: Arc<OwnedFd>,
    /// The same with a ring, and a tap, in a moment.
    pub coming: Coming,
}

/// All of it.
#[derive(Debug)]
pub struct RouterSide {
    /// One set per worker.
    pub workers: Vec<WorkerSockets>,
    /// Taps will come, for framed flows.
    pub framed: bool,
    /// For the name server.
    pub dns: DnsSockets,
    /// Ethernet addresses of the veth pair.
    pub macs: UplinkMacs,
    /// Served by the thread.
    pub pool: SocketPool,
}

/// Starts the thread and waits until it is restricted. `framed`: whether workers are to have taps.
pub fn start(netns: OwnedFd, workers: usize, framed: bool) -> Result<RouterSide, RouterSideError> {
    let (sender, receiver) = mpsc::channel();
    let pool = SocketPool::default();
    let served = pool.clone();
    std::thread::Builder::new()
        .name("socket-pool".into())
        .spawn(move || {
            let opened = enter_and_open(netns, workers, framed, &served);
            let failed = opened.is_err();
            if sender.send(opened).is_ok() && !failed {
                served.serve();
            }
        })
        .map_err(RouterSideError::Thread)?;
    receiver
        .recv()
        .map_err(|_| RouterSideError::Thread(io::ErrorKind::BrokenPipe.into()))?
}

fn enter_and_open(
    netns: OwnedFd,
    workers: usize,
    framed: bool,
    pool: &SocketPool,
) -> Result<RouterSide, RouterSideError> {
    setns(&netns, CloneFlags::CLONE_NEWNET)
        .map_err(|error| RouterSideError::Enter(error.into()))?;
    drop(netns);
    let (_, up0) = interface("up0")?;
    let (ifindex, up1) = interface("up1")?;
    let fanout = (workers > 1).then_some(1);
    let packets = Packets {
        gates: many(workers, || {
            sys::packet::of_interface(ifindex, fanout).map(Arc::new)
        })?,
        ringed: many(workers, || {
            sys::packet::ringed_of_interface(ifindex, fanout.map(|group| group + 1))
        })?,
        taps: if framed { taps(workers) } else { Vec::new() },
    };
    let framed = !packets.taps.is_empty();
    let sets = rings::expect(packets)?.into_iter();
    let sets = sets.map(|(gate, coming)| worker_sockets(gate, coming));
    let sets = sets.collect::<Result<_, _>>()?;
    let side = RouterSide {
        workers: sets,
        framed,
        dns: dns_sockets()?,
        macs: UplinkMacs { up0, up1 },
        pool: pool.clone(),
    };
    sandbox::keep_net_raw_only().map_err(RouterSideError::Restrict)?;
    Ok(side)
}

/// Index and Ethernet address.
fn interface(name: &'static str) -> Result<(u32, [u8; 6]), RouterSideError> {
    getifaddrs()
        .map_err(io::Error::from)
        .map_err(open("list of interfaces"))?
        .filter(|interface| interface.interface_name == name)
        .find_map(|interface| {
            let link = interface.address?;
            let link = link.as_link_addr()?;
            Some((u32::try_from(link.ifindex()).ok()?, link.addr()?))
        })
        .ok_or(RouterSideError::NoInterface(name))
}

fn many<T>(count: usize, gate: impl Fn() -> io::Result<T>) -> Result<Vec<T>, RouterSideError> {
    let gates = (0..count).map(|_| gate());
    gates.collect::<Result<_, _>>().map_err(open("gate"))
}

fn open(what: &'static str) -> impl Fn(io::Error) -> RouterSideError {
    move |source| RouterSideError::Open { what, source }
}

fn worker_sockets(gate: Arc<OwnedFd>, coming: Coming) -> Result<WorkerSockets, RouterSideError> {
    Ok(WorkerSockets {
        tcp: [
            tcp_listener(SocketKind::TcpV4)
                .map(Some)
                .map_err(open("TCP listener"))?,
            optional(tcp_listener(SocketKind::TcpV6)).map_err(open("IPv6 TCP listener"))?,
        ],
        udp: (
            udp_listener(SocketKind::UdpV4).map_err(open("UDP listener"))?,
            optional(udp_listener(SocketKind::UdpV6)).map_err(open("IPv6 UDP listener"))?,
        ),
        gate,
        coming,
    })
}

/// One for each worker, or none: framed flows are an optimisation.
fn taps(workers: usize) -> Vec<Deaf> {
    let possible = transparent(SocketKind::TcpV4, Defaults::default())
        .is_ok_and(|socket| sys::tcp_repair::is_possible(socket.as_fd()));
    if !possible {
        tracing::info!("no framed flows: the kernel takes no connection over (TCP_REPAIR)");
        return Vec::new();
    }
    let numbers = (0..workers).map(framed::timestamp);
    let taps = numbers.map(sys::packet::of_timestamp);
    taps.collect::<io::Result<_>>().unwrap_or_else(|error| {
        tracing::info!(%error, "no framed flows: no tap of the router netns");
        Vec::new()
    })
}

/// IPv6 may be switched off in the kernel (`ipv6.disable=1`) or on `lo`.
fn optional(socket: io::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    match socket {
        Ok(socket) => Ok(Some(socket)),
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
            ) =>
        {
            tracing::info!(%error, "no IPv6 in the router netns");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn tcp_listener(kind: SocketKind) -> io::Result<OwnedFd> {
    let socket = transparent(kind, Defaults::default())?;
    let options = SockRef::from(&socket);
    options.set_reuse_port(true)?;
    sys::tcp::save_syn(socket.as_fd())?;
    options.bind(&SockAddr::from(loopback(kind, TPROXY_PORT)))?;
    options.listen(BACKLOG)?;
    Ok(socket)
}

fn udp_listener(kind: SocketKind) -> io::Result<OwnedFd> {
    let socket = transparent(kind, Defaults::default())?;
    let options = SockRef::from(&socket);
    options.set_reuse_port(true)?;
    options.bind(&SockAddr::from(loopback(kind, TPROXY_PORT)))?;
    Ok(socket)
}

fn loopback(kind: SocketKind, port: u16) -> SocketAddr {
    let address: IpAddr = match kind {
        SocketKind::UdpV4 | SocketKind::TcpV4 => Ipv4Addr::LOCALHOST.into(),
        SocketKind::UdpV6 | SocketKind::TcpV6 => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(address, port)
}

fn dns_sockets() -> Result<DnsSockets, RouterSideError> {
    let udp4 = dns_socket(SocketKind::UdpV4).map_err(open("DNS socket"))?;
    let tcp4 = dns_socket(SocketKind::TcpV4).map_err(open("DNS listener"))?;
    Ok(DnsSockets {
        udp4: Some(udp4),
        udp6: optional(dns_socket(SocketKind::UdpV6)).map_err(open("IPv6 DNS socket"))?,
        tcp4: Some(tcp4),
        tcp6: optional(dns_socket(SocketKind::TcpV6)).map_err(open("IPv6 DNS listener"))?,
    })
}

/// On the wildcard address: gateways come and go with their networks.
fn dns_socket(kind: SocketKind) -> io::Result<OwnedFd> {
    use socket2::{Domain, Protocol, Socket, Type};
    let (domain, address): (_, IpAddr) = match kind {
        SocketKind::UdpV4 | SocketKind::TcpV4 => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
        SocketKind::UdpV6 | SocketKind::TcpV6 => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let tcp = matches!(kind, SocketKind::TcpV4 | SocketKind::TcpV6);
    let (kind, protocol) = if tcp {
        (Type::STREAM, Protocol::TCP)
    } else {
        (Type::DGRAM, Protocol::UDP)
    };
    let socket = Socket::new(domain, kind.nonblocking(), Some(protocol))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier relay may be in TIME_WAIT, and a UDP flow to another name server
    // needs a reply socket on that server's address and this port.
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(SocketAddr::new(address, 53)))?;
    if tcp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}
