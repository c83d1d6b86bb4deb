//! Listening sockets of published ports, made by the daemon in the host's netns.
//!
//! Path: `daemon` binds here what a command publishes, then hands the sockets to the helper, which
//! keeps them for the relay. Invariant: all or nothing: where one port cannot be had, none of the
//! others stays bound. A port that is too low for users is asked of an installed `mossnet-helper`; such a
//! socket is of one family, so that a wish for every address becomes two publishes.
//!
//! Sources: ip(7) (`ip_unprivileged_port_start`), ipv6(7) (IPV6_V6ONLY), socket(7) (SO_REUSEADDR).

use super::granted;
use super::holder::{Holder, holder};
use crate::ports::{
    Claim, HostAddr, HostChoice, Port, PortError, PortRange, Proto, Publish, PublishSpec,
    Published, SourceAddress,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// Which port is the first that users may bind.
const FIRST_PORT: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// Why a port is not published.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody has it.
    #[error("{proto} port {port} of {addr} is in use{}", by(.holder))]
    InUse {
        /// Protocol.
        proto: Proto,
        /// Where on the host.
        addr: HostAddr,
        /// The port.
        port: Port,
        /// Who, where that can be seen.
        holder: Option<Holder>,
    },
    /// None of a range is free.
    #[error("every {proto} port of {range} on {addr} is in use")]
    NoneFree {
        /// Protocol.
        proto: Proto,
        /// Where on the host.
        addr: HostAddr,
        /// The range.
        range: PortRange,
    },
    /// Too low for a user.
    #[error(
        "{proto} port {port} may not be bound by users: net.ipv4.ip_unprivileged_port_start is {first}"
    )]
    Forbidden {
        /// Protocol.
        proto: Proto,
        /// The port.
        port: Port,
        /// The first one that they may bind.
        first: u16,
        /// One that is free.
        instead: Option<Port>,
    },
    /// Not an address of the host's.
    #[error("{0} is not an address of this host")]
    NoAddress(HostAddr),
    /// Anything else.
    #[error("listen at {proto} port {port} of {addr}")]
    Socket {
        /// Protocol.
        proto: Proto,
        /// Where on the host.
        addr: HostAddr,
        /// The port; 0 for any free one.
        port: u16,
        /// Why not.
        source: io::Error,
    },
    /// The ranges do not fit.
    #[error(transparent)]
    Ports(#[from] PortError),
}

fn by(holder: &Option<Holder>) -> String {
    holder.as_ref().map_or_else(String::new, |holder| {
        format!(" by {} (process {})", holder.name, holder.pid)
    })
}

impl BindError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::InUse { .. } => {
                "publish another port, or none: -p CONTAINERPORT takes a free one".to_owned()
            }
            Self::NoneFree { .. } => "publish another range".to_owned(),
            Self::Forbidden { port, instead, .. } => {
                let other = instead.map_or_else(String::new, |port| format!("publish {port}, or "));
                format!(
                    "{other}as root: sysctl net.ipv4.ip_unprivileged_port_start={port}, or grant the port in /etc/mossnet/grants.toml"
                )
            }
            Self::NoAddress(_) => "see 'ip addr' for those that there are".to_owned(),
            Self::Socket { source, .. } if source.raw_os_error() == Some(libc::EMFILE) => {
                "publish fewer ports, or raise the limit of open files (ulimit -Hn) and start the daemon anew".to_owned()
            }
            Self::Socket { .. } => "see 'mossnet doctor'".to_owned(),
            Self::Ports(error) => error.hint().to_owned(),
        }
    }
}

/// Ports that were bound, and what they lead to.
#[derive(Debug)]
pub struct Bound {
    /// With the host ports that were chosen.
    pub publish: Publish,
    /// By whom.
    pub choice: HostChoice,
    /// One socket for each, in order.
    pub sockets: Vec<OwnedFd>,
}

/// Binds everything that `specs` ask for.
pub fn bind_all(specs: &[PublishSpec], source: SourceAddress) -> Result<Vec<Bound>, BindError> {
    let mut all = Vec::new();
    for spec in specs {
        if let Some(publish) = spec.fixed(source) {
            all.extend(bind_fixed(publish, spec.choice())?);
            continue;
        }
        for (container_port, choice) in spec.expand() {
            let (port, socket) = bind_one_of(spec, choice)?;
            let host_ports = PortRange::one(port);
            let (addr, proto) = (spec.host_addr(), spec.proto());
            let publish = Publish::new(addr, host_ports, container_port, proto, source)?;
            all.push(Bound {
                publish,
                choice: spec.choice(),
                sockets: vec![socket],
            });
        }
    }
    Ok(all)
}

/// The same with a socket for each family where one was for both: a kernel that leads ports to containers
/// tells them apart.
pub fn apart(all: Vec<Bound>) -> Result<Vec<Bound>, BindError> {
    let mut parts = Vec::new();
    for bound in all {
        match bound.publish.host_addr() {
            HostAddr::Any => {
                drop(bound.sockets);
                parts.extend(bind_by_family(bound.publish, bound.choice)?);
            }
            HostAddr::Only(_) => parts.push(bound),
        }
    }
    Ok(parts)
}

fn bind_by_family(publish: Publish, choice: HostChoice) -> Result<Vec<Bound>, BindError> {
    let addresses = HostAddr::Any.addresses().into_iter();
    let of_family = addresses
        .filter(|address| address.is_ipv4() || has_ipv6())
        .map(|address| bind_fixed(publish.at(HostAddr::only(address)), choice));
    let bound = of_family.collect::<Result<Vec<_>, _>>()?;
    Ok(bound.into_iter().flatten().collect())
}

/// Every host port of a publish: one, or one for each family where the ports take a grant.
fn bind_fixed(publish: Publish, choice: HostChoice) -> Result<Vec<Bound>, BindError> {
    let ports = publish.host_ports().iter();
    let sockets = ports.map(|port| bind_port_of(&publish, port)).collect();
    match (sockets, publish.host_addr()) {
        (Err(BindError::Forbidden { .. }), HostAddr::Any) => bind_by_family(publish, choice),
        (sockets, _) => Ok(vec![Bound {
            publish,
            choice,
            sockets: sockets?,
        }]),
    }
}

/// Whether a socket can be bound to an IPv6 address.
fn has_ipv6() -> bool {
    let any = Ipv6Addr::UNSPECIFIED.into();
    !listen_at(Proto::Udp, any, 0, true).is_err_and(|error| has_no_ipv6(&error))
}

/// Binds what was published before; by other ports where we may choose and the former are taken.
pub fn bind_again(all: &[Published]) -> Result<Vec<Bound>, BindError> {
    let mut bound = Vec::new();
    for published in all {
        bound.extend(bind_one_again(published)?);
    }
    Ok(bound)
}

fn bind_one_again(published: &Published) -> Result<Vec<Bound>, BindError> {
    let (source, choice) = (published.publish.source(), published.choice);
    let mut outcome = Ok(Vec::new());
    for spec in published.again() {
        outcome = bind_all(&[spec], source);
        if !matches!(outcome, Err(BindError::InUse { .. })) {
            break;
        }
    }
    let mut all = outcome?;
    for bound in &mut all {
        bound.choice = choice;
    }
    Ok(all)
}

/// Binds one host port of a publish.
pub fn bind_port_of(publish: &Publish, port: Port) -> Result<OwnedFd, BindError> {
    bind_port(publish.proto(), publish.host_addr(), port)
}

fn bind_port(proto: Proto, addr: HostAddr, port: Port) -> Result<OwnedFd, BindError> {
    let listening = listen(proto, addr, port.get());
    let (socket, _) = listening.map_err(|error| explain(proto, addr, port, error))?;
    Ok(socket)
}

/// One of `range`, or of all.
fn bind_one_of(spec: &PublishSpec, range: Option<PortRange>) -> Result<(Port, OwnedFd), BindError> {
    let (proto, addr) = (spec.proto(), spec.host_addr());
    let Some(range) = range else {
        let (socket, port) = listen(proto, addr, 0).map_err(|source| BindError::Socket {
            proto,
            addr,
            port: 0,
            source,
        })?;
        return Ok((port, socket));
    };
    for port in range.iter() {
        match listen(proto, addr, port.get()) {
            Ok((socket, port)) => return Ok((port, socket)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(explain(proto, addr, port, error)),
        }
    }
    Err(BindError::NoneFree { proto, addr, range })
}

fn explain(proto: Proto, addr: HostAddr, port: Port, source: io::Error) -> BindError {
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse {
            proto,
            addr,
            port,
            holder: holder(&Claim {
                proto,
                host_addr: addr,
                host_ports: PortRange::one(port),
            }),
        },
        io::ErrorKind::AddrNotAvailable => BindError::NoAddress(addr),
        io::ErrorKind::PermissionDenied => BindError::Forbidden {
            proto,
            port,
            first: first_port(),
            instead: instead_of(proto, addr, port),
        },
        _other => BindError::Socket {
            proto,
            addr,
            port: port.get(),
            source,
        },
    }
}

fn first_port() -> u16 {
    let text = std::fs::read_to_string(FIRST_PORT).unwrap_or_default();
    text.trim().parse().unwrap_or(1024)
}

/// 8080 for 80, 8443 for 443; or any.
fn instead_of(proto: Proto, addr: HostAddr, port: Port) -> Option<Port> {
    let usual = port.get().checked_add(8000);
    let usual = usual.and_then(|port| listen(proto, addr, port).ok());
    let free = usual.or_else(|| listen(proto, addr, 0).ok());
    free.map(|(_, port)| port)
}

/// A socket that listens, and its port.
fn listen(proto: Proto, addr: HostAddr, port: u16) -> io::Result<(OwnedFd, Port)> {
    let result = match addr {
        HostAddr::Any => match listen_at(proto, Ipv6Addr::UNSPECIFIED.into(), port, false) {
            Err(error) if has_no_ipv6(&error) => {
                listen_at(proto, Ipv4Addr::UNSPECIFIED.into(), port, true)
            }
            result => result,
        },
        HostAddr::Only(address) => listen_at(proto, address, port, true),
    };
    let socket = result?;
    let bound = socket.local_addr()?.as_socket();
    let port = bound.and_then(|bound| Port::new(bound.port()));
    Ok((socket.into(), port.ok_or(io::ErrorKind::AddrNotAvailable)?))
}

fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

fn listen_at(proto: Proto, address: IpAddr, port: u16, one_family: bool) -> io::Result<Socket> {
    let at = SocketAddr::new(address, port);
    let (kind, protocol) = match proto {
        Proto::Tcp => (Type::STREAM, Protocol::TCP),
        Proto::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(at), kind.nonblocking(), Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(one_family)?;
    }
    if proto == Proto::Tcp {
        // Connections of an earlier publish may be in TIME_WAIT. A UDP port would be shared by it.
        socket.set_reuse_address(true)?;
    }
    match socket.bind(&at.into()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && one_family => {
            return granted_at(proto, at);
        }
        bound => bound?,
    }
    if proto == Proto::Tcp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

/// The same where the port is too low for us, but granted.
fn granted_at(proto: Proto, at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::from(granted::listener(proto, at)?);
    if proto == Proto::Tcp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn bind(spec: &str) -> Result<Vec<Bound>, BindError> {
        bind_all(&[spec.parse().unwrap()], SourceAddress::Keep)
    }

    #[test]
    fn free_ports_are_found() {
        let all = bind("127.0.0.1::80-82").unwrap();
        assert_eq!(all.len(), 3);
        for (bound, container) in all.iter().zip(80..) {
            let host = bound.publish.host_ports().first();
            assert_eq!(bound.publish.leads_to(host), Port::new(container));
            // It listens: nobody else can.
            assert!(TcpListener::bind(("127.0.0.1", host.get())).is_err());
        }
        assert!(bind("80/udp").unwrap()[0].publish.host_addr() == HostAddr::Any);
    }

    #[test]
    fn a_port_in_use_is_named_with_its_process_and_nothing_stays() {
        for proto in ["tcp", "udp"] {
            let (tcp, udp);
            let taken = if proto == "tcp" {
                tcp = TcpListener::bind("127.0.0.1:0").unwrap();
                tcp.local_addr().unwrap().port()
            } else {
                udp = UdpSocket::bind("127.0.0.1:0").unwrap();
                udp.local_addr().unwrap().port()
            };
            let free = {
                let bound = bind(&format!("127.0.0.1::80/{proto}")).unwrap();
                bound[0].publish.host_ports().first()
            };
            let specs = [
                format!("127.0.0.1:{free}:80/{proto}"),
                format!("{taken}:80/{proto}"),
            ];
            let specs = specs.map(|spec| spec.parse().unwrap());
            let error = bind_all(&specs, SourceAddress::Keep).unwrap_err();
            let text = error.to_string();
            let process = format!("(process {})", std::process::id());
            assert!(
                text.contains(&format!("{proto} port {taken} of * is in use by ")),
                "{text}"
            );
            assert!(text.ends_with(&process), "{text}");
            assert!(bind_all(&specs[..1], SourceAddress::Keep).is_ok());
        }
    }

    #[test]
    fn ports_that_we_chose_are_taken_again_or_others() {
        let bound = bind("127.0.0.1::80").unwrap();
        let published = Published {
            publish: bound[0].publish,
            choice: bound[0].choice,
        };
        let other = bind_again(&[published]).unwrap();
        assert_ne!(
            other[0].publish.host_ports(),
            published.publish.host_ports()
        );
        let given = Published {
            choice: HostChoice::Given,
            ..published
        };
        assert!(bind_again(&[given]).is_err());
        drop(bound);
        let same = bind_again(&[published]).unwrap();
        assert_eq!(
            (same[0].publish, same[0].choice),
            (published.publish, HostChoice::Free)
        );
    }

    #[test]
    fn a_choice_of_ports_is_gone_through() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let first = taken.local_addr().unwrap().port();
        let Some(next) = first.checked_add(1) else {
            return;
        };
        if TcpListener::bind(("127.0.0.1", next)).is_err() {
            return;
        }
        let all = bind(&format!("127.0.0.1:{first}-{next}:80")).unwrap();
        assert_eq!(all[0].publish.host_ports().first().get(), next);
        let error = bind(&format!("127.0.0.1:{first}-{next}:80")).unwrap_err();
        assert!(matches!(error, BindError::NoneFree { .. }), "{error}");
    }

    #[test]
    fn foreign_addresses_are_refused() {
        let error = bind("192.0.2.1:8080:80").unwrap_err();
        assert_eq!(
            error.to_string(),
            "192.0.2.1 is not an address of this host"
        );
        assert!(!error.hint().is_empty());
    }

    #[test]
    fn low_ports_name_the_sysctl_and_a_port_that_would_do() {
        let error = explain(
            Proto::Tcp,
            HostAddr::Any,
            Port::new(80).unwrap(),
            io::ErrorKind::PermissionDenied.into(),
        );
        let text = format!("{error}; {}", error.hint());
        for word in [
            "tcp port 80",
            "ip_unprivileged_port_start=80",
            "grants.toml",
            "publish ",
        ] {
            assert!(text.contains(word), "{text}");
        }
    }
}
