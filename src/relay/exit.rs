//! By which address and interface sockets towards the world leave the host, where that is said.
//!
//! On the path: TCP, UDP and ICMP ask here just before a host-side socket connects. The host's own loopback is
//! not the world.
//!
//! Sources: ip(7), socket(7) (SO_BINDTODEVICE; without privilege since Linux 5.7).

use super::rules::Rules;
use crate::network::snapshot::ExitView;
use socket2::{SockAddr, Socket};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Prepares a socket that is to connect to `peer`.
pub fn choose(socket: &Socket, peer: IpAddr, rules: &Rules) -> io::Result<()> {
    let exits = &rules.snapshot().exits;
    if exits.is_empty() || peer.is_loopback() {
        return Ok(());
    }
    let of_family = |exit: &&ExitView| exit.ipv6 == peer.is_ipv6();
    for exit in exits.iter().filter(of_family) {
        if let Some(interface) = &exit.interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        if let Some(address) = exit.address {
            socket.bind(&SockAddr::from(SocketAddr::new(address, 0)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::snapshot::Snapshot;
    use socket2::{Domain, Type};

    #[test]
    fn the_world_is_left_for_by_the_address_that_is_said() {
        let address: IpAddr = "127.0.0.9".parse().unwrap();
        let rules = Rules::new(Snapshot {
            exits: vec![ExitView {
                ipv6: false,
                address: Some(address),
                interface: None,
            }],
            ..Snapshot::default()
        });
        let local = |peer: &str| {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            choose(&socket, peer.parse().unwrap(), &rules).unwrap();
            socket.local_addr().unwrap().as_socket().unwrap().ip()
        };
        assert_eq!(local("192.0.2.1"), address);
        let none: IpAddr = "0.0.0.0".parse().unwrap();
        assert_eq!(local("127.0.0.1"), none);
        assert_eq!(local("2001:db8::1"), none);
    }
}
